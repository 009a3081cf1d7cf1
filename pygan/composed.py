"""The ops on GPUs that have no kernel in this build: plain torch operations, slower, to the same numbers.

Serves CUDA tensors when pygan was built without CUDA, or for other GPUs than those of the machine. Registered under
the same names, so that nothing else changes: checks, autograd, autocast and `torch.compile` are those of the ops.
Random numbers are made by the CPU's kernels and moved.
"""

import functools
import re
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from pygan import reference
from pygan.reference import ACTIVATIONS, _wide

_ops = torch.ops.pygan
_META = torch._C.DispatchKeySet(torch._C.DispatchKey.Meta)


def _checked(name: str, *args, **keywords):
    """What the op's meta kernel returns for these arguments: it checks them all, and makes the empty results."""
    return getattr(_ops, name).default.redispatch(_META, *args, **keywords)


# ------------------------------------------------------------------------------------------ random numbers


def noise(size, *, kind="normal", seed, offset, dtype=None, device=None) -> Tensor:
    """z, from the CPU's kernel."""
    values = _ops.noise(size, kind=kind, seed=seed, offset=offset, dtype=dtype, device="cpu")
    return values.to(device)


def minibatch_indices(population, count, *, start, seed, offset=0, device=None) -> Tensor:
    """The order of the data, from the CPU's kernel."""
    return _ops.minibatch_indices(population, count, start=start, seed=seed, offset=offset, device="cpu").to(device)


def dropout(x: Tensor, *, p: float, seed: int, offset: int) -> Tensor:
    """``x`` times the mask that the CPU's kernel makes of ones."""
    out = _checked("dropout", x, p=p, seed=seed, offset=offset)
    ones = torch.ones(x.shape, dtype=torch.promote_types(x.dtype, torch.float32))
    mask = _ops.dropout(ones, p=p, seed=seed, offset=offset)
    return out.copy_(_wide(x) * mask.to(x.device))


def _dropped(x: Tensor, p: float, seed: int, offset: int) -> Tensor:
    return dropout(x, p=p, seed=seed, offset=offset) if p else x


# ------------------------------------------------------------------------------------------------- layers


def linear_act(x, weight, bias=None, *, activation="relu", slope=0.01, dropout=0.0, seed=0, offset=0) -> Tensor:
    """act(dropout(x) Wᵀ + b)."""
    settings = {"activation": activation, "slope": slope, "dropout": dropout, "seed": seed, "offset": offset}
    out = _checked("linear_act", x, weight, bias, **settings)
    return out.copy_(ACTIVATIONS[activation](F.linear(_dropped(x, dropout, seed, offset), weight, bias), slope))


# f'(x) from y = f(x), as csrc/core/activation.h has it
DERIVATIVES = {
    "identity": lambda y, slope: torch.ones_like(y),
    "relu": lambda y, slope: (y > 0).to(y.dtype),
    "leaky_relu": lambda y, slope: torch.where(y > 0, y.new_ones(()), y.new_full((), slope)),
    "tanh": lambda y, slope: 1 - y * y,
    "sigmoid": lambda y, slope: y * (1 - y),
    "elu": lambda y, slope: torch.where(y > 0, 1.0, y + 1),
    "softplus": lambda y, slope: -torch.expm1(-y),
}


def linear_act_backward(grad_y, x, weight, y, *, activation, slope, output_mask, **random):
    """grad_x, grad_weight, grad_bias; ``random`` is dropout, seed, offset."""
    settings = {"activation": activation, "slope": slope, "output_mask": output_mask}
    out = _checked("linear_act_backward", grad_y, x, weight, y, **settings, **random)
    g = _wide(grad_y) * DERIVATIVES[activation](_wide(y), slope)
    return _layer_gradients(out, g, x, weight, output_mask, **random)


def _layer_gradients(out, g: Tensor, x, weight, wanted, *, dropout: float, seed: int, offset: int):
    """Fills ``out`` from the gradient of the pre-activations, g (..., n), in x (..., k) and weight (n, k)."""
    grad_x, grad_weight, grad_bias = out
    narrow = g.to(x.dtype)
    if wanted[0]:
        grad_x.copy_(_dropped(narrow @ weight, dropout, seed, offset))
    if wanted[1]:
        operand = _dropped(x, dropout, seed, offset)
        grad_weight.copy_(_rows(narrow).mT @ _rows(operand))
    if wanted[2]:
        grad_bias.copy_(_rows(g).sum(0))
    return out


def _rows(x: Tensor) -> Tensor:
    return x.reshape(x.shape[:-1].numel(), x.shape[-1])


def maxout_forward(x, weight, bias, *, pieces: int, dropout: float, seed: int, offset: int) -> tuple[Tensor, Tensor]:
    """The largest of each unit's pieces, and which it was: the first of equals, NaN above all."""
    settings = {"pieces": pieces, "dropout": dropout, "seed": seed, "offset": offset}
    y, winner = _checked("maxout_forward", x, weight, bias, **settings)
    z = F.linear(_dropped(x, dropout, seed, offset), weight, bias).unflatten(-1, (y.shape[-1], pieces))
    if y.numel():
        first = z.argmax(-1, keepdim=True)
        y.copy_(z.gather(-1, first).squeeze(-1))
        winner.copy_(first.squeeze(-1))
    return y, winner


def maxout_backward(grad_y, x, weight, argmax, *, pieces: int, output_mask, **random):
    """grad_x, grad_weight, grad_bias; ``random`` is dropout, seed, offset."""
    out = _checked("maxout_backward", grad_y, x, weight, argmax, pieces=pieces, output_mask=output_mask, **random)
    won = argmax.unsqueeze(-1) == torch.arange(pieces, device=argmax.device)
    g = (_wide(grad_y).unsqueeze(-1) * won).flatten(-2)
    return _layer_gradients(out, g, x, weight, output_mask, **random)


def linear_batch_norm_act_forward(x, weight, bias, gamma, beta, mean, variance, *, eps, activation, slope, keep):
    """The normalised layer, what backward needs of it, and the batch's variance where that was taken."""
    settings = {"eps": eps, "activation": activation, "slope": slope, "keep": keep}
    out = _checked("linear_batch_norm_act_forward", x, weight, bias, gamma, beta, mean, variance, **settings)
    y, kept, used, inverse, unbiased = out
    if not len(x):
        return tuple(result.zero_() for result in out)
    h = F.linear(x, weight, bias)
    if keep:
        kept.copy_(h)
    h = _wide(h)
    if mean is None:
        used.copy_(h.mean(0))
        spread = (h - used).square()
        unbiased.copy_(spread.sum(0) / (len(h) - 1))
        variance = spread.mean(0)
    else:
        used.copy_(mean)
    inverse.copy_((_wide(variance) + eps).rsqrt())
    normal = (h - used) * (inverse if gamma is None else inverse * _wide(gamma))
    y.copy_(ACTIVATIONS[activation](normal if beta is None else normal + _wide(beta), slope))
    return out


def linear_batch_norm_act_backward(
    grad_y, x, weight, h, y, gamma, mean, inverse, *, batch_statistics, activation, slope, output_mask
):
    """grad_x, grad_weight, grad_bias, grad_gamma, grad_beta."""
    settings = {"batch_statistics": batch_statistics, "activation": activation, "slope": slope}
    given = (grad_y, x, weight, h, y, gamma, mean, inverse)
    out = _checked("linear_batch_norm_act_backward", *given, output_mask=output_mask, **settings)
    if not len(x):
        return tuple(result.zero_() for result in out)
    g = _wide(grad_y) * DERIVATIVES[activation](_wide(y), slope)
    z = (_wide(h) - mean) * inverse
    out[3].copy_((g * z).sum(0))
    out[4].copy_(g.sum(0))
    scale = inverse if gamma is None else inverse * _wide(gamma)
    if batch_statistics:
        g = g - g.mean(0) - z * (g * z).mean(0)
    _layer_gradients(out[:3], scale * g, x, weight, output_mask, dropout=0.0, seed=0, offset=0)
    if batch_statistics:
        out[2].zero_()
    return out


def small_mlp(x, weights, biases, *, activations, slope=0.01) -> list[Tensor]:
    """The output of every layer."""
    _checked("small_mlp", x, weights, biases, activations=activations, slope=slope)
    outputs = []
    for weight, bias, activation in zip(weights, biases, activations, strict=True):
        x = linear_act(x, weight, bias, activation=activation, slope=slope)
        outputs.append(x)
    return outputs


def small_mlp_backward(grad_y, weights, outputs, *, activations, slope, input) -> list[Tensor]:
    """grad_x (empty where it is not wanted), then the gradient of each layer's pre-activations."""
    out = _checked("small_mlp_backward", grad_y, weights, outputs, activations=activations, slope=slope, input=input)
    g = grad_y
    for i in reversed(range(len(weights))):
        out[i + 1].copy_(_wide(g) * DERIVATIVES[activations[i]](_wide(outputs[i]), slope))
        if i or input:
            g = out[i + 1] @ weights[i]
    if input:
        out[0].copy_(g)
    return out


# ------------------------------------------------------------------------------------------------- losses


# d/da of the terms, as csrc/core/gan_loss.h has them
DISCRIMINATOR_SLOPES = {
    "logistic": (lambda a: -torch.sigmoid(-a), torch.sigmoid),
    "hinge": (lambda a: torch.where(a >= 1, 0.0, -1.0).to(a), lambda b: torch.where(b <= -1, 0.0, 1.0).to(b)),
    "least_squares": (lambda a: a - 1, lambda b: b),
    "wasserstein": (lambda a: torch.full_like(a, -1.0), torch.ones_like),
}
GENERATOR_SLOPES = {
    "non_saturating": lambda b: -torch.sigmoid(-b),
    "minimax": lambda b: -torch.sigmoid(b),
    "hinge": lambda b: torch.full_like(b, -1.0),
    "least_squares": lambda b: b - 1,
    "wasserstein": lambda b: torch.full_like(b, -1.0),
}


def discriminator_loss(real_logits, fake_logits, *, kind="logistic", label_smoothing=0.0, reduction="mean") -> Tensor:
    """-log D(x) - log(1 - D(G(z))), or one of its relatives."""
    settings = {"kind": kind, "label_smoothing": label_smoothing, "reduction": reduction}
    out = _checked("discriminator_loss", real_logits, fake_logits, **settings)
    return out.copy_(reference.discriminator_loss(real_logits.double(), fake_logits.double(), **settings))


def discriminator_loss_backward(grad, real_logits, fake_logits, *, kind="logistic", label_smoothing, reduction):
    """The gradients of both kinds of logits."""
    settings = {"kind": kind, "label_smoothing": label_smoothing, "reduction": reduction}
    out = _checked("discriminator_loss_backward", grad, real_logits, fake_logits, **settings)
    real, fake = _wide(real_logits), _wide(fake_logits)
    of_real, of_fake = DISCRIMINATOR_SLOPES[kind]
    out[0].copy_((label_smoothing + of_real(real)) * _upstream(grad, real, reduction))
    out[1].copy_(of_fake(fake) * _upstream(grad, fake, reduction))
    return out


def generator_loss(fake_logits, *, kind="non_saturating", reduction="mean") -> Tensor:
    """-log D(G(z)), log(1 - D(G(z))) as printed in the paper, or one of their relatives."""
    out = _checked("generator_loss", fake_logits, kind=kind, reduction=reduction)
    return out.copy_(reference.generator_loss(fake_logits.double(), kind=kind, reduction=reduction))


def generator_loss_backward(grad, fake_logits, *, kind, reduction) -> Tensor:
    """The gradient of the logits."""
    out = _checked("generator_loss_backward", grad, fake_logits, kind=kind, reduction=reduction)
    fake = _wide(fake_logits)
    return out.copy_(GENERATOR_SLOPES[kind](fake) * _upstream(grad, fake, reduction))


def binary_cross_entropy(input, target, *, logits, reduction="mean") -> Tensor:
    """Torch's own loss of logits; of probabilities its formula, since its own kernel stops at one outside [0, 1]."""
    out = _checked("binary_cross_entropy", input, target, logits=logits, reduction=reduction)
    x, t = input.double(), target.double()
    if logits:
        return out.copy_(reference.binary_cross_entropy(x, t, logits=True, reduction=reduction))
    terms = (t - 1) * torch.log1p(-x).clamp_min(-100) - t * torch.log(x).clamp_min(-100)
    return out.copy_(reference.REDUCTIONS[reduction](terms))


def binary_cross_entropy_backward(grad, input, target, *, logits, reduction) -> Tensor:
    """The gradient of the input."""
    out = _checked("binary_cross_entropy_backward", grad, input, target, logits=logits, reduction=reduction)
    x, t = _wide(input), _wide(target)
    if not logits:
        return out.copy_((x - t) / ((1 - x) * x).clamp_min(1e-12) * _upstream(grad, x, reduction))
    slope = (1 - t) * torch.sigmoid(x) - t * torch.sigmoid(-x)  # both tails keep their relative accuracy
    return out.copy_(slope * _upstream(grad, x, reduction))


def head_loss_forward(hidden, weight, bias, *, real_rows, kind, label_smoothing, with_sums):
    """The loss, the logits, and what backward needs: the loss's derivatives and their products with the rows."""
    settings = {"real_rows": real_rows, "kind": kind, "label_smoothing": label_smoothing}
    out = _checked("head_loss_forward", hidden, weight, bias, with_sums=with_sums, **settings)
    loss, logits, slopes, sums = out
    wide = _wide(hidden)
    a = F.linear(wide, _wide(weight), None if bias is None else _wide(bias)).squeeze(-1)
    real, fake = a[:real_rows], a[real_rows:]
    if kind == "discriminator":
        loss.copy_(reference.discriminator_loss(real.double(), fake.double(), label_smoothing=label_smoothing))
        slopes[:real_rows] = (label_smoothing - torch.sigmoid(-real)) / max(real_rows, 1)
        slopes[real_rows:] = torch.sigmoid(fake) / max(len(fake), 1)
    else:
        loss.copy_(reference.generator_loss(fake.double(), kind=kind))
        slopes.copy_(-torch.sigmoid(fake if kind == "minimax" else -fake) / max(len(fake), 1))
    logits.copy_(a)
    if with_sums:
        sums[:-1] = slopes @ wide
        sums[-1] = slopes.sum()
    return out


def head_loss_backward(grad_loss, grad_logits, hidden, weight, logits, slopes, sums, *, output_mask, **settings):
    """grad_hidden, grad_weight, grad_bias; ``settings`` is real_rows, kind, label_smoothing."""
    given = (grad_loss, grad_logits, hidden, weight, logits, slopes, sums)
    grad_hidden, grad_weight, grad_bias = out = _checked(
        "head_loss_backward", *given, output_mask=output_mask, **settings
    )
    e = torch.zeros_like(slopes) if grad_logits is None else _wide(grad_logits)
    if grad_loss is not None:
        e = e + _wide(grad_loss) * slopes
    if output_mask[0]:
        grad_hidden.copy_(e.unsqueeze(-1) * _wide(weight))
    if output_mask[1]:
        grad_weight.copy_(e @ _wide(hidden))
    if output_mask[2]:
        grad_bias.copy_(e.sum())
    return out


def _upstream(grad: Tensor, logits: Tensor, reduction: str) -> Tensor:
    wide = grad.to(logits.dtype)
    return wide / max(logits.numel(), 1) if reduction == "mean" else wide


# --------------------------------------------------------------------------------------------- optimizers


def momentum_(params, grads, velocities, *, lr: float, momentum: float) -> None:
    """The paper's update: v = momentum*v - lr*g, then p += v."""
    _checked("momentum_", params, grads, velocities, lr=lr, momentum=momentum)
    reference.momentum_(params, grads, velocities, lr=lr, momentum=momentum)
    torch.autograd.graph.increment_version([*params, *velocities])


def adam_(params, grads, m, v, *, step: int, lr: float, beta1: float, beta2: float, eps: float) -> None:
    """Adam's update."""
    _checked("adam_", params, grads, m, v, step=step, lr=lr, beta1=beta1, beta2=beta2, eps=eps)
    reference.adam_(params, grads, m, v, step=step, lr=lr, betas=(beta1, beta2), eps=eps)
    torch.autograd.graph.increment_version([*params, *m, *v])


# ---------------------------------------------------------------------------------------------- evaluation


def parzen_log_likelihood(x: Tensor, samples: Tensor, *, sigma: float) -> Tensor:
    """The twin's, which goes block by block; float64 throughout."""
    out = _checked("parzen_log_likelihood", x, samples, sigma=sigma)
    return out.copy_(reference.parzen_log_likelihood(x, samples, sigma=sigma))


# ------------------------------------------------------------------------------------------- registration

KERNELS = {
    function.__name__: function
    for function in (
        linear_act,
        linear_act_backward,
        maxout_forward,
        maxout_backward,
        linear_batch_norm_act_forward,
        linear_batch_norm_act_backward,
        small_mlp,
        small_mlp_backward,
        dropout,
        discriminator_loss,
        discriminator_loss_backward,
        generator_loss,
        generator_loss_backward,
        binary_cross_entropy,
        binary_cross_entropy_backward,
        head_loss_forward,
        head_loss_backward,
        momentum_,
        adam_,
        noise,
        minibatch_indices,
        parzen_log_likelihood,
    )
}


def serves(archs, capability: tuple[int, int]) -> bool:
    """Whether code for these architectures runs on a GPU of this compute capability.

    Machine code serves its own major version from its minor on, PTX every newer GPU; names that end in a letter
    serve their one architecture.

    >>> serves(["sm_80"], (8, 9)), serves(["sm_80"], (9, 0)), serves(["compute_80"], (9, 0))
    (True, False, True)
    """
    for arch in archs:
        kind, major, minor, alone = re.fullmatch(r"(sm|compute)_(\d+)(\d)(a?)", arch).groups()
        built = int(major), int(minor)
        if capability == built or (
            not alone and capability > built and (kind == "compute" or capability[0] == built[0])
        ):
            return True
    return False


def missing(info: dict, gpus: list[tuple[int, int]]) -> str | None:
    """Why this build has no kernels for these GPUs and what to do, in a sentence; None if it has.

    Args:
        info: `pygan.build_info()`.
        gpus: the compute capabilities of the machine's GPUs.
    """
    slow = "ops on CUDA tensors are plain torch operations, slower"
    if info["cuda"] is None:
        return (
            f"pygan was built without CUDA, so {slow}. Install the CUDA toolkit {torch.version.cuda} (nvcc) and "
            f"build pygan again: pip install --force-reinstall --no-deps --no-cache-dir and where it came from"
        )
    for major, minor in gpus:
        if (major, minor) < (8, 0):
            return (
                f"pygan's kernels need a GPU of compute capability 8.0 or newer and one here has {major}.{minor}, so "
                f"{slow}. If another one is newer, hide this one with CUDA_VISIBLE_DEVICES"
            )
        if not serves(info["archs"], (major, minor)):
            return (
                f"pygan was built for {', '.join(info['archs'])} and a GPU here has compute capability "
                f"{major}.{minor}, so {slow}. Build pygan again with TORCH_CUDA_ARCH_LIST={major}.{minor}"
            )
    return None


def install(reason: str) -> torch.library.Library:
    """Register the functions above for CUDA tensors; the first use of one warns with the reason.

    Returns:
        the registration, which ends with this object.
    """
    warn = functools.cache(lambda: warnings.warn(reason, RuntimeWarning, stacklevel=4))

    def announced(function):
        @functools.wraps(function)
        def kernel(*args, **keywords):
            warn()
            return function(*args, **keywords)

        return kernel

    library = torch.library.Library("pygan", "IMPL", "CUDA")
    with warnings.catch_warnings(action="ignore"):  # torch says that kernels of this build are overridden
        for name, function in KERNELS.items():
            library.impl(name, announced(function), allow_override=True)
    return library
