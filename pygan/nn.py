"""Modules: a linear layer with its activation, maxout, the multilayer perceptron; a layer is one op."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from pygan import ops, random
from pygan._names import check_name, check_number, check_whole, check_wholes

__all__ = ["ACTIVATIONS", "MLP", "FusedLinear", "Maxout", "flatten_", "logit", "uniform_"]

ACTIVATIONS = ("identity", "relu", "leaky_relu", "tanh", "sigmoid", "elu", "softplus")
MOST_PIECES = 256  # the winner is kept in a byte


class FusedLinear(nn.Linear):
    """A linear layer with its activation, in one op: y = act(x W^T + b).

    It is an `nn.Linear` (same parameters, initialisation and state_dict) whose result is already activated.

    Args:
        in_features: k, the length of an input row.
        out_features: n, the length of an output row.
        activation: one of identity, relu, leaky_relu, tanh, sigmoid, elu, softplus.
        slope: of leaky_relu below zero.
        bias: whether there is a b.
        device, dtype: of the parameters.

    Raises:
        ValueError: an unknown activation, or a slope below 0.

    >>> layer = FusedLinear(3, 2, activation="tanh")
    >>> layer.load_state_dict(nn.Linear(3, 2).state_dict())
    <All keys matched successfully>
    >>> layer(torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: str = "relu",
        slope: float = 0.01,
        bias: bool = True,
        device=None,
        dtype=None,
    ):
        super().__init__(in_features, out_features, bias, device, dtype)
        self.activation = check_name(activation, ACTIVATIONS, "activation")
        self.slope = _check_slope(slope)

    def forward(self, x: Tensor) -> Tensor:
        """act(x W^T + b), x of shape (..., k)."""
        return ops.linear_act(x, self.weight, self.bias, activation=self.activation, slope=self.slope)

    def extra_repr(self) -> str:
        """The settings, for repr."""
        slope = f", slope={self.slope}" if self.activation == "leaky_relu" else ""
        return f"{super().extra_repr()}, activation={self.activation!r}{slope}"


class Maxout(nn.Module):
    """A layer of maxout units: y_u = max over j < p of (x W^T + b)_{u·p + j}, bias added before the max.

    Args:
        in_features: k, the length of an input row.
        units: u, the length of an output row.
        pieces: p, the linear pieces of a unit; weight is (u·p, k), bias (u·p).
        bias: whether there is a b.
        device, dtype: of the parameters.

    Raises:
        ValueError: a number that is not whole, or pieces below 1 or above 256.

    >>> Maxout(3, 2, pieces=5)(torch.zeros(7, 3)).shape
    torch.Size([7, 2])

    Source: Goodfellow et al. 2013, Maxout Networks; Goodfellow et al. 2014, section 5.
    """

    def __init__(self, in_features: int, units: int, pieces: int, *, bias: bool = True, device=None, dtype=None):
        super().__init__()
        self.in_features = in_features = check_whole(in_features, "in_features", least=0)
        self.units = units = check_whole(units, "units", least=0)
        self.pieces = pieces = _check_pieces(pieces)
        self.weight = nn.Parameter(torch.empty(units * pieces, in_features, device=device, dtype=dtype))
        self.register_parameter("bias", None)
        if bias:
            self.bias = nn.Parameter(torch.empty(units * pieces, device=device, dtype=dtype))
        self.reset_parameters()

    # The same draw as nn.Linear's: U(±1/sqrt(k)) for weight and bias.
    reset_parameters = nn.Linear.reset_parameters

    def forward(self, x: Tensor) -> Tensor:
        """The units of x, of shape (..., k)."""
        return ops.maxout(x, self.weight, self.bias, pieces=self.pieces)

    def extra_repr(self) -> str:
        """The settings, for repr."""
        bias = self.bias is not None
        return f"in_features={self.in_features}, units={self.units}, pieces={self.pieces}, bias={bias}"


class MLP(nn.Module):
    """A multilayer perceptron: h_{i+1} = act_i(dropout_i(h_i) W_i^T + b_i).

    Its layers are the children "0", "1", ..., so the keys of its state_dict are `0.weight`, `0.bias`,
    `1.weight`, ... It loads the state of an `nn.Sequential` too, whose activations make gaps in the numbers.
    All parameters are views of one flat buffer, see `flat_parameters`.

    Dropout acts in training only, scaled by 1/(1-p). Its bits follow from `seed` and `offset` where these are
    given, else from a seed drawn from torch's default generator.

    Args:
        sizes: the lengths of the rows from input to output, two or more.
        activation: of the hidden layers: one name, or one for each. Names as in `FusedLinear`, or "maxout".
        output: the activation of the last layer.
        slope: of leaky_relu below zero.
        pieces: above 1, hidden layers are maxout with so many pieces (leave `activation` alone, or name
            "maxout" in it for the layers that are).
        dropout: the probability of dropping an element of a layer's input: one for all, or one a layer.
        bias: whether layers have one.
        device, dtype: of the parameters.

    Raises:
        ValueError: fewer than two sizes, a size below 1, an unknown activation, a number out of its range, or a list
            of another length.

    >>> mlp = MLP([100, 240, 1], pieces=5, dropout=[0.2, 0.5])
    >>> mlp(torch.zeros(8, 100)).shape, mlp.flat_parameters().shape
    (torch.Size([8, 1]), torch.Size([121441]))

    Source: Goodfellow et al. 2014, section 5.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        activation: str | Sequence[str] = "relu",
        output: str = "identity",
        slope: float = 0.01,
        pieces: int = 1,
        dropout: float | Sequence[float] = 0.0,
        bias: bool = True,
        device=None,
        dtype=None,
    ):
        super().__init__()
        self.sizes = _check_sizes(sizes)
        self.slope, self.pieces, self.bias = _check_slope(slope), _check_pieces(pieces), bool(bias)
        hidden = _hidden_activations(activation, len(self.sizes) - 2, self.pieces)
        self.activations = (*hidden, check_name(output, ACTIVATIONS, "output"))
        self.dropout = check_dropout(dropout, len(self.activations))
        made = {"bias": self.bias, "device": device, "dtype": dtype}
        for i, (k, n, act) in enumerate(zip(self.sizes[:-1], self.sizes[1:], self.activations, strict=True)):
            if act == "maxout":
                layer = Maxout(k, n, self.pieces, **made)
            else:
                layer = FusedLinear(k, n, activation=act, slope=self.slope, **made)
            self.add_module(str(i), layer)
        flatten_(self)

    @property
    def layers(self) -> list[FusedLinear | Maxout]:
        """The layers, first to last."""
        return list(self._modules.values())

    def config(self) -> dict:
        """The arguments that make an MLP of this architecture, as plain values: `MLP(**mlp.config())`."""
        return {
            "sizes": list(self.sizes),
            "activation": list(self.activations[:-1]),
            "output": self.activations[-1],
            "slope": self.slope,
            "pieces": self.pieces,
            "dropout": list(self.dropout),
            "bias": self.bias,
        }

    def flat_parameters(self) -> Tensor:
        """All parameters as one vector, in order, sharing their memory: changing it changes them."""
        return flatten_(self)

    def forward(self, x: Tensor, *, seed: int | None = None, offset: int = 0) -> Tensor:
        """The network at x.

        Args:
            x: (..., sizes[0]).
            seed: of the dropout masks in training; None draws one from torch's default generator.
            offset: of the dropout masks; layer i uses stream `offset + (i << 48)`.

        Returns:
            (..., sizes[-1]).
        """
        layers = self._modules.values()
        dropping = self.training and any(self.dropout)
        # torch.jit.trace cannot record an op that takes lists of weights.
        compiling = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if dropping and seed is None and not compiling:
            seed = int(torch.randint(2**63 - 1, ()))
        if compiling or any(is_hooked(layer) for layer in layers):
            return self._one_by_one(x, dropping, seed, offset)
        return ops.mlp(
            x,
            [layer.weight for layer in layers],
            [layer.bias for layer in layers],
            activations=self.activations,
            slope=self.slope,
            pieces=self.pieces,
            dropout=self.dropout if dropping else 0.0,
            seed=seed or 0,
            offset=offset,
        )

    def has_fused_head(self) -> bool:
        """Whether `head_loss` may stand in for a call and a loss of the logits: one linear output, no dropout, no hook.

        With dropout the masks of the real and of the generated half would be others than those of two calls.
        """
        plain = type(self).forward is MLP.forward and self.activations[-1] == "identity" and self.sizes[-1] == 1
        dropping = self.training and any(self.dropout)
        return plain and not dropping and not is_hooked(self) and not any(is_hooked(m) for m in self._modules.values())

    def head_loss(
        self, x: Tensor, *, real_rows: int, kind: str = "discriminator", label_smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """A discriminator's loss on real and generated rows together, its last layer and the loss being one op.

        Args:
            x: (m, sizes[0]), the real rows first.
            real_rows: rows [0, real_rows) are real, the others generated.
            kind: "discriminator", or "non_saturating" or "minimax", the generator's.
            label_smoothing: the target of real rows is 1 - label_smoothing.

        Returns:
            The loss, a scalar, and the logits, (m).

        >>> MLP([2, 8, 1]).head_loss(torch.zeros(6, 2), real_rows=3)[1].shape
        torch.Size([6])
        """
        *hidden, last = self._modules.values()
        if hidden:
            x = ops.mlp(
                x,
                [layer.weight for layer in hidden],
                [layer.bias for layer in hidden],
                activations=self.activations[:-1],
                slope=self.slope,
                pieces=self.pieces,
            )
        return ops.head_loss(x, last.weight, last.bias, real_rows=real_rows, kind=kind, label_smoothing=label_smoothing)

    def _one_by_one(self, x: Tensor, dropping: bool, seed: int | None, offset: int) -> Tensor:
        """Layer by layer, so that hooks run; without a seed (when compiling or tracing) by torch's own dropout."""
        for i, layer in enumerate(self._modules.values()):
            p = self.dropout[i] if dropping else 0.0
            if p and seed is None:
                x = nn.functional.dropout(x, p)
            elif p:
                x = ops.dropout(x, p=p, seed=seed, offset=offset + random.offset(i))
            x = layer(x)
        return x

    def extra_repr(self) -> str:
        """The settings, for repr."""
        return f"dropout={self.dropout}" if any(self.dropout) else ""

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        flatten_(self)
        return self

    def __setstate__(self, state):
        # copy.deepcopy and pickle both arrive here, with each parameter in memory of its own.
        super().__setstate__(state)
        flatten_(self)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        keys = [key for key in state_dict if key.startswith(prefix)]
        numbers = sorted({int(n) for key in keys if (n := key[len(prefix) :].split(".")[0]).isdigit()})
        if len(numbers) == len(self._modules) and numbers[-1] >= len(numbers):
            place = {str(n): str(i) for i, n in enumerate(numbers)}
            for key in sorted(keys, key=lambda key: int(key[len(prefix) :].split(".")[0])):
                number, _, rest = key[len(prefix) :].partition(".")
                state_dict[f"{prefix}{place[number]}.{rest}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)


def flatten_(module: nn.Module) -> Tensor:
    """Make the parameters of a module views of one flat buffer, and return the buffer.

    Nothing else about the parameters changes: they stay the same objects with the same values and gradients.
    Where they already lie so, nothing is copied.

    Args:
        module: any module whose parameters have one dtype and one device.

    Returns:
        (sum of sizes,), sharing memory with the parameters, in the order of `module.parameters()`.

    Raises:
        ValueError: parameters of several dtypes or devices.

    >>> flatten_(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))).shape
    torch.Size([13])
    """
    parameters = list(module.parameters())
    if not parameters:
        return torch.empty(0)
    kinds = {(p.dtype, p.device) for p in parameters}
    if len(kinds) > 1:
        names = ", ".join(sorted(f"{str(dtype).removeprefix('torch.')} on {device}" for dtype, device in kinds))
        raise ValueError(f"one flat buffer needs parameters of one dtype on one device, got {names}")
    if not _lie_in_a_row(parameters):
        flat = torch.cat([p.detach().reshape(-1) for p in parameters])
        for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            p.data = part.view(p.shape)
    total = sum(p.numel() for p in parameters)
    return parameters[0].detach().as_strided((total,), (1,), parameters[0].storage_offset())


def _lie_in_a_row(parameters: list[Tensor]) -> bool:
    # Storages are told apart by identity: those of meta and fake tensors have no address.
    storage, start = parameters[0].untyped_storage()._cdata, parameters[0].storage_offset()
    for p in parameters:
        if p.untyped_storage()._cdata != storage or p.storage_offset() != start or not p.is_contiguous():
            return False
        start += p.numel()
    return True


@torch.no_grad()
def uniform_(module: nn.Module, radius: float | Sequence[float], *, seed: int, step: int = 0) -> None:
    """Initialise as the paper does: weights uniform in ±radius, biases zero.

    Args:
        module: an MLP, or any module; its parameters of two or more dimensions are the weights.
        radius: one for all weights, or one for each.
        seed: of the random numbers, which are the same on every device.
        step: tells several networks of one seed apart (weight i takes step + i of the init stream).

    Raises:
        ValueError: a list of another length than the weights.

    >>> mlp = MLP([3, 4, 1])
    >>> uniform_(mlp, 0.05, seed=0)
    >>> float(mlp.flat_parameters().abs().max()) < 0.05
    True
    """
    weights = [p for p in module.parameters() if p.dim() > 1]
    radii = [radius] * len(weights) if isinstance(radius, numbers.Real) else list(radius)
    if len(radii) != len(weights):
        raise ValueError(f"radius must be one number, or one for each of {len(weights)} weights, got {len(radii)}")
    for p in module.parameters():
        p.zero_()
    for i, (weight, r) in enumerate(zip(weights, radii, strict=True)):
        offset = random.offset(random.INIT, step + i)
        noise = ops.noise(weight.shape, kind="uniform", seed=seed, offset=offset, dtype=weight.dtype)
        weight.copy_(noise.mul_(r / math.sqrt(3)))


def logit(means: Tensor, eps: float = 1e-7) -> Tensor:
    """log(p / (1 - p)): the output bias with which a sigmoid starts at the data's means.

    Args:
        means: (d,), in [0, 1].
        eps: means are kept so far from 0 and 1.

    Returns:
        (d,), of the dtype of `means`.

    >>> logit(torch.tensor([0.5]))
    tensor([0.])
    """
    return torch.logit(means, eps=eps)


def is_hooked(layer: nn.Module) -> bool:
    """Whether calling the module runs hooks too."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks)


def _check_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    expected = "sizes must be two or more whole numbers of at least 1"
    try:
        checked = check_wholes(sizes, "sizes")
    except ValueError:
        raise ValueError(f"{expected}, got {sizes!r}") from None
    if len(checked) < 2:
        raise ValueError(f"{expected}, got {sizes!r}")
    return checked


def _check_slope(slope: float) -> float:
    # The derivative is taken from the output, whose sign a negative slope would hide.
    return check_number(slope, "slope", "a number of at least 0", lambda slope: slope >= 0)


def _check_pieces(pieces: int) -> int:
    if check_whole(pieces, "pieces") > MOST_PIECES:
        raise ValueError(f"pieces must be at most {MOST_PIECES}, got {pieces}")
    return int(pieces)


def _hidden_activations(activation: str | Sequence[str], count: int, pieces: int) -> tuple[str, ...]:
    if isinstance(activation, str):
        if pieces > 1 and activation not in ("relu", "maxout"):
            raise ValueError(f"pieces={pieces} makes hidden layers maxout, so activation={activation!r} has no place")
        activation = ["maxout" if pieces > 1 else activation] * count
    if not isinstance(activation, (list, tuple)):
        raise ValueError(f"activation must be one name, or one for each hidden layer, got {activation!r}")
    if len(activation) != count:
        raise ValueError(
            f"activation must be one name, or one for each of {count} hidden layers, got {len(activation)}"
        )
    for name in activation:
        check_name(name, (*ACTIVATIONS, "maxout"), "activation")
    if (pieces > 1) != ("maxout" in activation):
        raise ValueError(f"maxout needs pieces of at least 2 (and only maxout has them), got pieces={pieces}")
    return tuple(activation)


def check_dropout(dropout: float | Sequence[float], count: int) -> tuple[float, ...]:
    """The probabilities of dropping for each of `count` layers, of one for all or one for each."""
    one = isinstance(dropout, (str, numbers.Real)) or not isinstance(dropout, Iterable)
    rates = (dropout,) * count if one else tuple(dropout)
    if len(rates) != count:
        raise ValueError(f"dropout must be one number, or one for each of {count} layers, got {len(rates)}")
    return tuple(check_number(p, "dropout", "in [0, 1)", lambda p: 0 <= p < 1) for p in rates)
