"""What `pygan.fusion` makes of a linear layer and its followers in an `nn.Sequential`: one op, or a reason why not."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from pygan import ops, random
from pygan.nn import MOST_PIECES

_LAST = "nothing follows"  # the one reason that the end of a chain has not
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# The activations that the ops have, and the settings with which torch's are theirs.
_ACTIVATIONS = {
    nn.Identity: ("identity", lambda act: True),
    nn.ReLU: ("relu", lambda act: True),
    nn.LeakyReLU: ("leaky_relu", lambda act: act.negative_slope >= 0),
    nn.Tanh: ("tanh", lambda act: True),
    nn.Sigmoid: ("sigmoid", lambda act: True),
    nn.ELU: ("elu", lambda act: act.alpha == 1),
    nn.Softplus: ("softplus", lambda act: act.beta == 1 and act.threshold >= 20),
}


class Layer:
    """A linear layer, and what is fused with it."""

    def __init__(
        self,
        linear: nn.Linear,
        norm: nn.BatchNorm1d | None = None,
        after: nn.Module | None = None,
        dropout: nn.Dropout | None = None,
    ):
        self.linear, self.norm, self.after, self.dropout = linear, norm, after, dropout
        self.modules = [m for m in (linear, norm, after, dropout) if m is not None]
        self._kinds = [type(m) for m in self.modules]
        self.pieces = _pool_size(after) if isinstance(after, nn.MaxPool1d) else 1
        self.activation = "identity" if after is None else "maxout"
        if self.pieces == 1 and after is not None:
            self.activation = _ACTIVATIONS[type(after)][0]

    @property
    def slope(self) -> float:
        """Of leaky_relu."""
        return self.after.negative_slope if self.activation == "leaky_relu" else 0.01

    def is_unchanged(self) -> bool:
        """Whether the op still is what the modules are."""
        for m, kind in zip(self.modules, self._kinds, strict=True):
            if type(m) is not kind or "forward" in m.__dict__:
                return False
            if m._forward_hooks or m._backward_hooks or m._backward_pre_hooks:
                return False
            if m._forward_pre_hooks and not (m is self.linear and _only_reparametrized(m)):
                return False
        if self.pieces > 1:
            return _pool_size(self.after) == self.pieces
        return self.after is None or _ACTIVATIONS[type(self.after)][1](self.after)

    def parameters(self) -> tuple[Tensor, Tensor | None]:
        """As the layer itself would take them, once: a parametrization may change with each look."""
        linear = self.linear
        for hook in linear._forward_pre_hooks.values():
            hook(linear, None)
        return linear.weight, linear.bias

    def takes(self, x: Tensor) -> bool:
        """Whether the op does what the modules do with an input of this shape."""
        if self.pieces > 1:
            return x.dim() in (2, 3)
        norm = self.norm
        if norm is None:
            return True
        return x.dim() == 2 and not (_takes_statistics(norm) and x.shape[0] == 1) and _has_settings(norm)

    def batch_normalized(self, x: Tensor) -> Tensor:
        """The layer with its BatchNorm1d, which counts the batch as torch's does."""
        norm, (weight, bias) = self.norm, self.parameters()
        follows, momentum = norm.training and norm.track_running_stats, norm.momentum
        counts = follows and norm.num_batches_tracked is not None
        if counts and momentum is None:
            momentum = 1 / (float(norm.num_batches_tracked) + 1)
        running = (norm.running_mean, norm.running_var) if follows or not norm.training else (None, None)
        y = ops.linear_batch_norm_act(
            x,
            weight,
            bias,
            norm.weight,
            norm.bias,
            *running,
            training=norm.training,
            momentum=momentum or 0.0,
            eps=norm.eps,
            activation=self.activation,
            slope=self.slope,
        )
        if counts:
            norm.num_batches_tracked.add_(1)
        return y

    def dropping(self) -> float:
        """The share of elements that is dropped in this mode."""
        return self.dropout.p if self.dropout is not None and self.dropout.training else 0.0


class Chain:
    """Consecutive layers that one op runs."""

    def __init__(self, layers: list[Layer]):
        self.layers = layers
        self.pieces = max(layer.pieces for layer in layers)
        self.activations = [layer.activation for layer in layers]
        self.op = "mlp" if len(layers) > 1 else "maxout" if self.pieces > 1 else "linear_act"
        if layers[0].norm is not None:
            self.op = "linear_batch_norm_act"

    def __call__(self, x: Tensor) -> Tensor:
        """What the layers make of x: by the op, or module by module where it is not what they are now."""
        if not self._suits(x):
            for layer in self.layers:
                for module in layer.modules:
                    x = module(x)
            return x
        rates = [layer.dropping() for layer in self.layers]
        one_by_one = torch.compiler.is_compiling() or torch.jit.is_tracing()
        seed = random.fresh_seed() if any(rates) and not (one_by_one or _follows_torchs_masks(x)) else None
        slopes = {layer.slope for layer in self.layers if layer.activation == "leaky_relu"}
        if one_by_one or len(self.layers) == 1 or len(slopes) > 1 or (seed is None and any(rates)):
            return self._one_by_one(x, rates, seed)
        parameters = [layer.parameters() for layer in self.layers]
        x = ops.mlp(
            x,
            [weight for weight, _ in parameters],
            [bias for _, bias in parameters],
            activations=self.activations,
            slope=slopes.pop() if slopes else 0.01,
            pieces=self.pieces,
            dropout=[0.0, *rates[:-1]],
            seed=seed or 0,
        )
        return _drop(x, rates[-1], seed, len(rates))

    def _suits(self, x: Tensor) -> bool:
        if not isinstance(x, Tensor) or x.dtype not in _DTYPES or x.layout is not torch.strided:
            return False
        if not torch.compiler.is_compiling() and _has_any_global_hook():
            return False
        return all(layer.is_unchanged() and layer.takes(x) and layer.dropping() < 1 for layer in self.layers)

    def _one_by_one(self, x: Tensor, rates: list[float], seed: int | None) -> Tensor:
        for i, layer in enumerate(self.layers):
            if layer.norm is not None:
                x = layer.batch_normalized(x)
            elif layer.pieces > 1:
                x = ops.maxout(x, *layer.parameters(), pieces=layer.pieces)
            else:
                x = ops.linear_act(x, *layer.parameters(), activation=layer.activation, slope=layer.slope)
            x = _drop(x, rates[i], seed, i + 1)
        return x


def _follows_torchs_masks(x: Tensor) -> bool:
    """Whether a seed cannot be drawn now: in a transform of torch.func, or where a CUDA graph is being captured."""
    in_transform = torch._C._functorch.peek_interpreter_stack() is not None
    return in_transform or (x.is_cuda and torch.cuda.is_current_stream_capturing())


def _drop(x: Tensor, rate: float, seed: int | None, number: int) -> Tensor:
    if rate and seed is None:
        return nn.functional.dropout(x, rate)
    return ops.dropout(x, p=rate, seed=seed, offset=random.offset(number)) if rate else x


def _takes_statistics(norm: nn.BatchNorm1d) -> bool:
    return norm.training or norm.running_mean is None


def _has_settings(norm: nn.BatchNorm1d) -> bool:
    """Whether the op has what this BatchNorm1d is set to."""
    together = (norm.running_mean is None) == (norm.running_var is None)
    return together and (norm.momentum is None or 0 <= norm.momentum <= 1) and norm.eps >= 0


def _only_reparametrized(linear: nn.Module) -> bool:
    """Whether all that runs before a layer is torch's older form of spectral_norm and weight_norm."""
    return all(isinstance(hook, SpectralNorm | WeightNorm) for hook in linear._forward_pre_hooks.values())


def _pool_size(pool: nn.MaxPool1d) -> int:
    """The pieces of a maxout layer that such a pool makes of a linear one; 0 if it does something else."""
    one = [value[0] if isinstance(value, tuple) else value for value in (pool.kernel_size, pool.stride)]
    plain = pool.padding in (0, (0,)) and pool.dilation in (1, (1,)) and not pool.ceil_mode and not pool.return_indices
    return one[0] if plain and one[0] == one[1] and 1 < one[0] <= MOST_PIECES else 0


def why_not(linear: nn.Linear, *after: nn.Module) -> str:
    """Why a layer cannot be fused with what comes after it, whatever stands before it; empty if it can."""
    reason = _does_not_fit(linear, after[0] if after else None)
    if reason or not after:
        return reason
    layer = _layer(linear, after)
    next_one = after[len(layer.modules) - 1] if len(layer.modules) <= len(after) else None
    # backward reads what the layer has written
    if getattr(next_one, "inplace", False) and layer.activation not in ("identity", "maxout"):
        return f"an in-place {type(next_one).__name__} follows its activation"
    return ""


def _layer(linear: nn.Linear, after: tuple[nn.Module, ...]) -> Layer:
    """The layer and what of its followers is fused with it."""
    norm = after[0] if after and type(after[0]) is nn.BatchNorm1d else None
    rest = after[norm is not None :]
    activation = rest[0] if rest and (norm is None or _follows(linear, norm, rest[0])) else None
    rest = rest[activation is not None :]
    return Layer(linear, norm, activation, rest[0] if rest and type(rest[0]) is nn.Dropout else None)


def _does_not_fit(linear: nn.Linear, following: nn.Module | None) -> str:
    kind = type(linear).__name__
    if isinstance(linear, nn.modules.lazy.LazyModuleMixin):
        return "it has no shape yet: call the module once, then fuse it"
    if type(linear).forward is not nn.Linear.forward or "forward" in vars(linear):
        return f"a {kind} has a forward of its own"
    if (dtype := next(linear.parameters()).dtype) not in _DTYPES:
        return f"its parameters are {str(dtype).removeprefix('torch.')}"
    if not Layer(linear).is_unchanged():
        return "it has hooks"
    if following is None:
        return _LAST
    if type(following) is nn.BatchNorm1d:
        if following.num_features != linear.out_features or not _has_settings(following):
            return f"{following} does not fit"
        return "" if Layer(linear, following).is_unchanged() else "the BatchNorm1d has hooks"
    if type(following) in _ACTIVATIONS:
        if not _ACTIVATIONS[type(following)][1](following):
            return f"{following} is no activation of the ops"
        return "" if Layer(linear, after=following).is_unchanged() else f"the {type(following).__name__} has hooks"
    if type(following) is nn.MaxPool1d:
        if not _pool_size(following) or linear.out_features % _pool_size(following):
            return f"{following} is no maxout"
        return "" if Layer(linear, after=following).is_unchanged() else "the MaxPool1d has hooks"
    return f"{type(following).__name__} follows"


def _follows(linear: nn.Linear, norm: nn.BatchNorm1d, activation: nn.Module) -> bool:
    """Whether the op has what comes after a BatchNorm1d."""
    return type(activation) in _ACTIVATIONS and Layer(linear, norm, activation).is_unchanged()


def steps_of(container: nn.Sequential, left: tuple[str, ...] = ()) -> list:
    """What a container calls one after the other: its children, or chains of them."""
    names, children, steps = list(container._modules), list(container._modules.values()), []
    i = 0
    while i < len(children):
        child, after = children[i], tuple(children[i + 1 :])
        chained = steps and isinstance(steps[-1], Chain) and steps[-1].layers[-1].norm is None
        reason = why_not(child, *after) if isinstance(child, nn.Linear) and names[i] not in left else "left"
        if reason and not (chained and reason == _LAST):
            steps.append(child)
            i += 1
            continue
        layer = Layer(child) if reason else _layer(child, after)
        i += len(layer.modules)
        if chained and layer.norm is None and (layer.pieces == 1 or steps[-1].pieces in (1, layer.pieces)):
            steps[-1] = Chain([*steps[-1].layers, layer])
        else:
            steps.append(Chain([layer]))
    return steps
