"""The plain-torch twin of every op in `pygan.ops`: same names, same signatures, same numbers.

Any device and dtype; derivatives of every order come from torch's own autograd. Tests and benchmarks import
these functions, and whoever wants to know what an op computes can read it here. Random bits are those of the
ops, exactly: Philox4x32-10 in integer tensors.
"""

import difflib
import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "ACTIVATIONS",
    "adam_",
    "binary_cross_entropy",
    "discriminator_loss",
    "dropout",
    "dropout_mask",
    "generator_loss",
    "head_loss",
    "linear_act",
    "linear_batch_norm_act",
    "maxout",
    "minibatch_indices",
    "mlp",
    "momentum_",
    "noise",
    "parzen_log_likelihood",
    "philox4x32_10",
]

_WORD = 0xFFFFFFFF
_LONG = 0xFFFFFFFFFFFFFFFF


def _softplus(x: Tensor) -> Tensor:
    # F.softplus goes over to the identity above its threshold; this form is exact everywhere, to any order.
    return -F.logsigmoid(-x)


ACTIVATIONS = {
    "identity": lambda x, slope: x,
    "relu": lambda x, slope: F.relu(x),
    "leaky_relu": lambda x, slope: F.leaky_relu(x, slope),
    "tanh": lambda x, slope: torch.tanh(x),
    "sigmoid": lambda x, slope: torch.sigmoid(x),
    "elu": lambda x, slope: F.elu(x),
    "softplus": lambda x, slope: _softplus(x),
}


def _named(table, name: str, argument: str):
    """The entry ``name`` of ``table``, or an error that suggests the nearest one."""
    if name in table:
        return table[name]
    near = difflib.get_close_matches(str(name), table, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{argument} must be one of {', '.join(table)}, got {name!r}{hint}")


# ---------------------------------------------------------------------------------------- random numbers


def philox4x32_10(counter, key) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Twin of ``pygan._C.philox4x32_10``; the four counter words may be int64 tensors.

    >>> [f"{int(word):08x}" for word in philox4x32_10((0, 0, 0, 0), (0, 0))]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3 = (torch.as_tensor(word, dtype=torch.int64) for word in counter)
    k0, k1 = key
    for _ in range(10):
        # A 32x32-bit product wraps in int64 and loses nothing: the mask after the shift removes the sign.
        first, second = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1 = ((second >> 32) & _WORD) ^ c1 ^ k0, second & _WORD
        c2, c3 = ((first >> 32) & _WORD) ^ c3 ^ k1, first & _WORD
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return c0, c1, c2, c3


def _words(count: int, seed: int, offset: int, device=None) -> Tensor:
    """The random words of elements 0 .. count-1: word e % 4 of block e // 4. (count,) int64 below 2^32."""
    block = torch.arange((count + 3) // 4, dtype=torch.int64, device=device)
    seed, offset = seed & _LONG, offset & _LONG
    counter = (block & _WORD, block >> 32, offset & _WORD, offset >> 32)
    words = philox4x32_10(counter, (seed & _WORD, seed >> 32))
    return torch.stack(words, dim=-1).reshape(-1)[:count]


def noise(size, *, kind: str = "normal", seed: int, offset: int, dtype=None, device=None) -> Tensor:
    """Twin of `pygan.ops.noise`; the transform is done in float64 and rounded to float32.

    >>> noise((2, 3), kind="uniform", seed=1, offset=2).shape
    torch.Size([2, 3])
    """
    make = _named({"normal": _normal, "uniform": _uniform}, kind, "kind")
    size = torch.Size([size] if isinstance(size, int) else size)
    values = make(size.numel(), seed, offset, device)
    return values.reshape(size).to(dtype or torch.get_default_dtype())


def _uniform(count: int, seed: int, offset: int, device) -> Tensor:
    steps = 2 * (_words(count, seed, offset, device) >> 8) + 1 - 2**24
    return steps.to(torch.float32) * torch.tensor(math.sqrt(3.0) * 2.0**-24, dtype=torch.float32)


def _normal(count: int, seed: int, offset: int, device) -> Tensor:
    pairs = (_words(count + count % 2, seed, offset, device) >> 8).reshape(-1, 2).to(torch.float64) * 2.0**-24
    radius = torch.sqrt(-2.0 * torch.log(pairs[:, 0] + 2.0**-24))
    angle = 2.0 * math.pi * pairs[:, 1]
    normals = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
    return normals.reshape(-1)[:count].to(torch.float32)


def minibatch_indices(population, count, *, start, seed, offset=0, device=None) -> Tensor:
    """Twin of `pygan.ops.minibatch_indices`: each epoch is one keyed permutation of the population.

    >>> sorted(minibatch_indices(5, 5, start=0, seed=7).tolist())
    [0, 1, 2, 3, 4]
    """
    position = torch.arange(start, start + count, dtype=torch.int64, device=device)
    epoch, index = position // population, position % population
    if population < 2 or count == 0:
        return torch.zeros_like(index)
    keys = _permutation_keys(epoch, seed, offset)
    bits = max(6, (population - 1).bit_length())
    index = _feistel(index, keys, bits)
    while (outside := index >= population).any():
        index[outside] = _feistel(index[outside], keys[outside], bits)
    return index


def _permutation_keys(epoch: Tensor, seed: int, offset: int) -> Tensor:
    """(count, 8): the round keys of each position's epoch, words of blocks epoch*2^32 and epoch*2^32 + 1."""
    seed, offset = seed & _LONG, offset & _LONG
    distinct, which = torch.unique(epoch, return_inverse=True)
    words = []
    for block in (0, 1):
        counter = (block, distinct & _WORD, offset & _WORD, offset >> 32)
        words += philox4x32_10(counter, (seed & _WORD, seed >> 32))
    return torch.stack(words, dim=-1)[which]


def _feistel(index: Tensor, keys: Tensor, bits: int) -> Tensor:
    """One pass of the alternating Feistel network on ``bits`` bits."""
    split = bits // 2
    low, high = index & ((1 << split) - 1), index >> split
    for i in range(0, 8, 2):
        high = high ^ (_mix(low ^ keys[:, i]) & ((1 << (bits - split)) - 1))
        low = low ^ (_mix(high ^ keys[:, i + 1]) & ((1 << split) - 1))
    return (high << split) | low


def _mix(x: Tensor) -> Tensor:
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & _WORD
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & _WORD
    return x ^ (x >> 16)


# ------------------------------------------------------------------------------------------------ layers


def dropout_mask(shape, *, p: float, seed: int, offset: int, device=None) -> Tensor:
    """Which elements of a tensor of this shape dropout keeps, as booleans.

    >>> dropout_mask((4,), p=0.5, seed=0, offset=0)
    tensor([False,  True,  True,  True])
    """
    shape = torch.Size(shape)
    threshold = min(math.ceil(p * 2.0**32), _WORD)
    return (_words(shape.numel(), seed, offset, device) >= threshold).reshape(shape)


def dropout(x: Tensor, *, p: float, seed: int, offset: int) -> Tensor:
    """Twin of `pygan.ops.dropout`.

    >>> dropout(torch.ones(8), p=0.5, seed=0, offset=0).unique()
    tensor([0., 2.])
    """
    if not 0.0 <= p < 1.0:
        raise ValueError(f"p must be in [0, 1), got {p}")
    if p == 0.0:
        return x.clone()
    wide = _wide(x)
    keep = dropout_mask(x.shape, p=p, seed=seed, offset=offset, device=x.device)
    return (wide * (keep.to(wide.dtype) * (1.0 / (1.0 - p)))).to(x.dtype)


def linear_act(x, weight, bias=None, *, activation="relu", slope=0.01, dropout=0.0, seed=0, offset=0) -> Tensor:
    """Twin of `pygan.ops.linear_act`.

    >>> linear_act(torch.ones(1, 2), torch.tensor([[1.0, 2.0], [-1.0, -2.0]]))
    tensor([[3., 0.]])
    """
    act = _named(ACTIVATIONS, activation, "activation")
    return act(F.linear(_dropped(x, dropout, seed, offset), weight, bias), slope)


def linear_batch_norm_act(
    x,
    weight,
    bias=None,
    gamma=None,
    beta=None,
    running_mean=None,
    running_var=None,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str = "identity",
    slope: float = 0.01,
) -> Tensor:
    """Twin of `pygan.ops.linear_batch_norm_act`.

    >>> y = linear_batch_norm_act(torch.tensor([[0.0], [2.0]]), torch.ones(1, 1), training=True, eps=0.0)
    >>> y.flatten().tolist()
    [-1.0, 1.0]
    """
    act = _named(ACTIVATIONS, activation, "activation")
    h = F.linear(x, weight, bias)
    of_batch = training or running_mean is None
    if h.numel():  # a batch without rows has no statistics
        running = (running_mean, running_var)
        h = _wide(h)
        mean, variance = (h.mean(0), h.var(0, correction=0)) if of_batch else map(_wide, running)
        if training and running_mean is not None:
            with torch.no_grad():
                for old, now in zip(running, (mean, h.var(0)), strict=True):
                    old.lerp_(now.to(old.dtype), momentum)
        h = (h - mean) / torch.sqrt(variance + eps)
        h = (h if gamma is None else h * gamma) + (0 if beta is None else beta)
    return act(h, slope).to(x.dtype)


def maxout(x, weight, bias=None, *, pieces, dropout=0.0, seed=0, offset=0) -> Tensor:
    """Twin of `pygan.ops.maxout`: unit u is the largest of ``pieces`` consecutive pre-activations.

    >>> maxout(torch.ones(1, 1), torch.tensor([[1.0], [3.0], [-2.0], [-5.0]]), pieces=2)
    tensor([[ 3., -2.]])
    """
    if pieces < 1 or weight.shape[0] % pieces:
        raise ValueError(f"pieces must divide the {weight.shape[0]} rows of weight, got {pieces}")
    y = F.linear(_dropped(x, dropout, seed, offset), weight, bias)
    return y.unflatten(-1, (weight.shape[0] // pieces, pieces)).max(dim=-1).values


def mlp(x, weights, biases, *, activations, slope=0.01, pieces=1, dropout=0.0, seed=0, offset=0) -> Tensor:
    """Twin of `pygan.ops.mlp`: layer i drops its input with stream ``offset + (i << 48)``.

    >>> weights = [torch.ones(2, 1), torch.ones(1, 2)]
    >>> mlp(torch.ones(1, 1), weights, [None, None], activations=["relu", "tanh"])
    tensor([[0.9640]])
    """
    rates = [dropout] * len(weights) if isinstance(dropout, (int, float)) else list(dropout)
    for i, (weight, bias, activation, rate) in enumerate(zip(weights, biases, activations, rates, strict=True)):
        random = {"dropout": rate, "seed": seed, "offset": offset + (i << 48)}
        if activation == "maxout":
            x = maxout(x, weight, bias, pieces=pieces, **random)
        else:
            x = linear_act(x, weight, bias, activation=activation, slope=slope, **random)
    return x


def _dropped(x: Tensor, p: float, seed: int, offset: int) -> Tensor:
    return dropout(x, p=p, seed=seed, offset=offset) if p else x


# ------------------------------------------------------------------------------------------------ losses

REDUCTIONS = {"none": lambda x: x, "sum": torch.sum, "mean": torch.mean}


# The terms of real and of generated rows.
_DISCRIMINATOR_TERMS = {
    "logistic": (lambda a: _softplus(-a), lambda b: _softplus(b)),
    "hinge": (lambda a: torch.relu(1 - a), lambda b: torch.relu(1 + b)),
    "least_squares": (lambda a: 0.5 * (a - 1).square(), lambda b: 0.5 * b.square()),
    "wasserstein": (lambda a: -a, lambda b: b.clone()),
}
_GENERATOR_TERMS = {
    "non_saturating": lambda b: _softplus(-b),
    "minimax": lambda b: -_softplus(b),
    "hinge": lambda b: -b,
    "least_squares": lambda b: 0.5 * (b - 1).square(),
    "wasserstein": lambda b: -b,
}


def discriminator_loss(real_logits, fake_logits, *, kind="logistic", label_smoothing=0.0, reduction="mean") -> Tensor:
    """Twin of `pygan.ops.discriminator_loss`, of kind "logistic" softplus(-real) + smoothing*real + softplus(fake).

    >>> discriminator_loss(torch.zeros(3, 1), torch.zeros(3, 1))
    tensor(1.3863)
    """
    of_real, of_fake = _named(_DISCRIMINATOR_TERMS, kind, "kind")
    reduce = _named(REDUCTIONS, reduction, "reduction")
    if label_smoothing and kind != "logistic":
        raise ValueError(f"label_smoothing must be 0 for kind {kind!r}, got {label_smoothing}")
    real, fake = _wide(real_logits), _wide(fake_logits)
    # 0 * inf is NaN: no smoothing term without smoothing
    real_terms = of_real(real) + label_smoothing * real if label_smoothing else of_real(real)
    loss = reduce(real_terms) + reduce(of_fake(fake))
    return loss.to(real_logits.dtype)


def generator_loss(fake_logits, *, kind="non_saturating", reduction="mean") -> Tensor:
    """Twin of `pygan.ops.generator_loss`.

    >>> generator_loss(torch.zeros(3, 1)), generator_loss(torch.zeros(3, 1), kind="minimax")
    (tensor(0.6931), tensor(-0.6931))
    """
    term = _named(_GENERATOR_TERMS, kind, "kind")
    return _named(REDUCTIONS, reduction, "reduction")(term(_wide(fake_logits))).to(fake_logits.dtype)


def binary_cross_entropy(input, target, *, logits, reduction="mean") -> Tensor:
    """Twin of `pygan.ops.binary_cross_entropy`: torch's own losses.

    >>> binary_cross_entropy(torch.zeros(3), torch.ones(3), logits=True)
    tensor(0.6931)
    """
    _named(REDUCTIONS, reduction, "reduction")
    loss = F.binary_cross_entropy_with_logits if logits else F.binary_cross_entropy
    return loss(_wide(input), _wide(target), reduction=reduction).to(input.dtype)


def head_loss(
    hidden, weight, bias=None, *, real_rows, kind="discriminator", label_smoothing=0.0
) -> tuple[Tensor, Tensor]:
    """Twin of `pygan.ops.head_loss`: a layer of one output, then one of the two losses.

    >>> head_loss(torch.zeros(2, 3), torch.ones(1, 3), real_rows=0, kind="minimax")
    (tensor(-0.6931), tensor([0., 0.]))
    """
    if kind != "discriminator" and real_rows:
        raise ValueError(f"real_rows must be 0 for kind {kind!r}, got {real_rows}")
    logits = F.linear(hidden, weight, bias).squeeze(-1)
    if kind == "discriminator":
        loss = discriminator_loss(logits[:real_rows], logits[real_rows:], label_smoothing=label_smoothing)
    else:
        loss = generator_loss(logits, kind=kind)
    return loss, logits


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


# -------------------------------------------------------------------------------------------- optimizers


@torch.no_grad()
def momentum_(param, grad, velocity, *, lr: float, momentum: float) -> None:
    """Twin of `pygan.ops.momentum_`: v = momentum*v - lr*g, then p += v; tensors or lists of them.

    >>> p, v = torch.zeros(2), torch.zeros(2)
    >>> momentum_(p, torch.ones(2), v, lr=0.5, momentum=0.9); p
    tensor([-0.5000, -0.5000])
    """
    for p, g, v in _together(param, grad, velocity):
        inc = momentum * _wide(v) - lr * _wide(g)
        v.copy_(inc)
        p.copy_(_wide(p) + inc)


@torch.no_grad()
def adam_(param, grad, m, v, *, step: int, lr: float = 2e-4, betas=(0.5, 0.999), eps: float = 1e-8) -> None:
    """Twin of `pygan.ops.adam_`; ``step`` counts from 1.

    >>> p, m, v = torch.zeros(2), torch.zeros(2), torch.zeros(2)
    >>> adam_(p, torch.ones(2), m, v, step=1, lr=0.5); p
    tensor([-0.5000, -0.5000])
    """
    beta1, beta2 = betas
    for p, g, mean, square in _together(param, grad, m, v):
        first = beta1 * _wide(mean) + (1.0 - beta1) * _wide(g)
        second = beta2 * _wide(square) + (1.0 - beta2) * _wide(g) ** 2
        mean.copy_(first)
        square.copy_(second)
        denominator = torch.sqrt(second / (1.0 - beta2**step)) + eps
        p.copy_(_wide(p) - lr * (first / (1.0 - beta1**step)) / denominator)


@torch.no_grad()
def parzen_log_likelihood(x: Tensor, samples: Tensor, *, sigma: float) -> Tensor:
    """Twin of `pygan.ops.parzen_log_likelihood`, in float64, a block of rows at a time.

    >>> parzen_log_likelihood(torch.zeros(1, 2), torch.zeros(3, 2), sigma=1.0)
    tensor([-1.8379], dtype=torch.float64)
    """
    samples = samples.double()
    log_scale = math.log(len(samples)) + samples.shape[1] * (math.log(sigma) + 0.5 * math.log(2 * math.pi))
    exact = "donot_use_mm_for_euclid_dist"  # without cancellation
    rows = [
        torch.logsumexp(torch.cdist(block, samples, compute_mode=exact).square() / (-2 * sigma**2), dim=1)
        for block in x.double().split(256)
    ]
    return torch.cat(rows) - log_scale


def _together(*groups):
    """One tuple of tensors a parameter, whether tensors or lists of them were given."""
    return zip(*([group] if isinstance(group, Tensor) else group for group in groups), strict=True)
