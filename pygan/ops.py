"""Functional ops: thin names over ``torch.ops.pygan``, whose schemas, checks and autograd are C++.

Every op takes float32, float64, bfloat16 or float16 tensors (half types are accumulated in float32), any
strides, empty tensors too; is differentiable twice; runs under autocast and
``torch.compile(fullgraph=True)``. Randomness comes in as ``seed`` and ``offset``: the same numbers on every
device and any number of threads (`pygan.random`). `pygan.reference` has the plain-torch twin of each.
"""

from __future__ import annotations

import contextlib
import numbers
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

import pygan._load  # noqa: F401  registers torch.ops.pygan
from pygan import _C
from pygan._names import check_name

_ops = torch.ops.pygan
_is_compiling = torch.compiler.is_compiling  # torch.compile sees through torch.ops, not into _C


def linear_act(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, activation: str = "relu", slope: float = 0.01
) -> Tensor:
    r"""A linear layer and its activation in one pass: :math:`y = f(x W^\top + b)`.

    Bias and activation are applied while the product is still in registers; backward multiplies by
    :math:`f'` (recovered from y) and sums the bias gradient inside its two products.

    Args:
        x: (..., k).
        weight: (n, k), of x's dtype and device.
        bias: (n) or None.
        activation: identity, relu, leaky_relu, tanh, sigmoid, elu or softplus.
        slope: leaky_relu's slope below zero, >= 0.

    Returns:
        (..., n), contiguous, of x's dtype.

    Raises:
        ValueError: a shape, device, slope or activation name that does not fit.
        TypeError: a dtype that does not fit.

    >>> x, weight, bias = torch.randn(5, 3), torch.randn(4, 3), torch.zeros(4)
    >>> linear_act(x, weight, bias, activation="tanh").shape
    torch.Size([5, 4])

    Source: the layers of Goodfellow et al. 2014, section 5.
    """
    if _is_compiling():
        return _ops.linear_act(x, weight, bias, activation=activation, slope=slope)
    return _C.linear_act(x, weight, bias, activation, slope)


def maxout(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, pieces: int) -> Tensor:
    r"""A maxout layer: :math:`y_u = \max_{j < p} (W_{up + j} x + b_{up + j})`.

    Only y and one byte a unit (which piece won) are kept for backward.

    Args:
        x: (..., k).
        weight: (units * pieces, k); unit u owns the consecutive rows u * pieces ... u * pieces + pieces - 1.
        bias: (units * pieces) or None, added before the maximum.
        pieces: 1 to 256, a divisor of weight's rows.

    Returns:
        (..., units), contiguous, of x's dtype. Ties go to the first piece, NaN wins.

    Raises:
        ValueError: a shape, device or number of pieces that does not fit.
        TypeError: a dtype that does not fit.

    >>> maxout(torch.tensor([[2.0]]), torch.tensor([[1.0], [-1.0]]), pieces=2)
    tensor([[2.]])

    Source: Goodfellow et al. 2013, "Maxout networks"; the discriminator of Goodfellow et al. 2014, section 5.
    """
    if _is_compiling():
        return _ops.maxout(x, weight, bias, pieces=pieces)
    return _C.maxout(x, weight, bias, pieces)


def linear_batch_norm_act(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str = "identity",
    slope: float = 0.01,
) -> Tensor:
    r"""A linear layer, batch normalisation and an activation, in one call.

    :math:`y = f(\gamma (h - \mu) / \sqrt{v + \epsilon} + \beta)` with :math:`h = x W^\top + b`; :math:`\mu` and
    :math:`v` are the columns' mean and variance over the batch (over m) in training, or where there are no running
    statistics, else the running ones. Each panel of columns is normalised
    by the thread that has multiplied it, while it is in the cache. h and y are kept for backward. In training the
    gradient of `bias`, which the batch's mean takes off again, is exactly zero.

    Args:
        x: (m, k); m > 1 where the batch's statistics are taken, or 0.
        weight: (n, k), of x's dtype and device.
        bias: (n) or None.
        gamma: (n), of x's dtype (float32 beside half types too, like the next three), or None: 1.
        beta: (n) or None: 0.
        running_mean: (n) or None; in training moved towards the batch's mean, in place.
        running_var: (n) or None, as running_mean; moved towards the batch's variance, over m - 1.
        training: whether the batch's statistics are taken.
        momentum: the share of the batch in the running statistics, in [0, 1].
        eps: >= 0.
        activation: identity, relu, leaky_relu, tanh, sigmoid, elu or softplus.
        slope: leaky_relu's slope below zero, >= 0.

    Returns:
        (m, n), contiguous, of x's dtype.

    Raises:
        ValueError: a shape, device, number or activation name that does not fit; one row in training.
        TypeError: a dtype that does not fit.

    >>> x = torch.randn(8, 3)
    >>> y = linear_batch_norm_act(x, torch.randn(4, 3), training=True)
    >>> torch.allclose(y.mean(0), torch.zeros(4), atol=1e-5)
    True

    Source: Ioffe and Szegedy 2015, "Batch normalization", Algorithms 1 and 2.
    """
    if _is_compiling():
        return _ops.linear_batch_norm_act(
            x,
            weight,
            bias,
            gamma,
            beta,
            running_mean,
            running_var,
            training=training,
            momentum=momentum,
            eps=eps,
            activation=activation,
            slope=slope,
        )
    vectors = (bias, gamma, beta, running_mean, running_var)
    return _C.linear_batch_norm_act(x, weight, *vectors, training, momentum, eps, activation, slope)


def dropout(x: Tensor, *, p: float, seed: int, offset: int) -> Tensor:
    r"""Dropout with a mask that is a function of (seed, offset, element): :math:`x \cdot m / (1 - p)`.

    Backward makes the mask again in place of keeping it.

    Args:
        x: any shape.
        p: the probability of dropping an element, in [0, 1).
        seed: 64-bit key.
        offset: 64-bit counter, see `pygan.random.offset`.

    Returns:
        A contiguous tensor like x.

    Raises:
        ValueError: p outside [0, 1).
        TypeError: x is not of a floating dtype.

    >>> y = dropout(torch.ones(1000), p=0.5, seed=1, offset=0)
    >>> sorted(set(y.tolist()))
    [0.0, 2.0]

    Source: Goodfellow et al. 2014, section 5.
    """
    seed, offset = _counter("dropout", "seed", seed), _counter("dropout", "offset", offset)
    return _ops.dropout(x, p=p, seed=seed, offset=offset)


def mlp(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    *,
    activations: Sequence[str],
    slope: float = 0.01,
    pieces: int = 1,
    dropout: float | Sequence[float] = 0.0,
    seed: int = 0,
    offset: int = 0,
) -> Tensor:
    r"""A multilayer perceptron: layer i computes :math:`f_i(\mathrm{dropout}(h) W_i^\top + b_i)`.

    Args:
        x: (..., k).
        weights: one (n, k) a layer; (units * pieces, k) where the activation is "maxout".
        biases: one (n) or None a layer.
        activations: one name a layer, those of `linear_act` or "maxout".
        slope: of leaky_relu.
        pieces: of the maxout layers; 1 where there is none.
        dropout: probability of dropping an element of a layer's input: one for all layers, or one a layer.
        seed: 64-bit key of the masks.
        offset: 64-bit counter of the masks; layer i uses stream offset + (i << 48).

    Returns:
        (..., n of the last layer).

    Raises:
        ValueError: lists of different lengths, layers that do not fit each other, an unknown activation.
        TypeError: a dtype that does not fit.

    >>> weights, biases = [torch.randn(8, 3), torch.randn(1, 4)], [torch.zeros(8), None]
    >>> mlp(torch.randn(2, 3), weights, biases, activations=["maxout", "identity"], pieces=2).shape
    torch.Size([2, 1])

    Source: Goodfellow et al. 2014, sections 3 and 5.
    """
    rates = [float(dropout)] * len(weights) if isinstance(dropout, int | float) else [float(p) for p in dropout]
    return _ops.mlp(
        x,
        list(weights),
        list(biases),
        activations=list(activations),
        slope=slope,
        pieces=pieces,
        dropout=rates,
        seed=_counter("mlp", "seed", seed),
        offset=_counter("mlp", "offset", offset),
    )


def discriminator_loss(
    real_logits: Tensor,
    fake_logits: Tensor,
    *,
    kind: str = "logistic",
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    r"""What the discriminator descends: :math:`-\log D(x) - \log(1 - D(G(z)))` on logits :math:`a` of D, or a relative.

    "logistic": :math:`\mathrm{softplus}(-a) + \varepsilon a` on real rows and :math:`\mathrm{softplus}(a)` on
    generated ones: no clamp, no epsilon, finite for every finite logit. At equilibrium its mean is log 4.

    With D's outputs that are no logits, "hinge": :math:`\max(1 - a, 0)` on real rows, :math:`\max(1 + a, 0)` on
    generated ones; "least_squares": :math:`\frac12 (a - 1)^2` and :math:`\frac12 a^2`; "wasserstein": :math:`-a` and
    :math:`a`.

    Args:
        real_logits: any shape.
        fake_logits: any shape, of real_logits' dtype and device.
        kind: "logistic", "hinge", "least_squares" or "wasserstein".
        label_smoothing: one-sided: the target of real rows is 1 - label_smoothing, in [0, 1); 0 for other kinds than
            "logistic".
        reduction: "mean" (mean over real plus mean over fake), "sum", or "none" (both terms added element by
            element; the shapes must agree).

    Returns:
        A scalar, or real_logits' shape for "none".

    Raises:
        ValueError: shapes, devices, label_smoothing or a name that does not fit.
        TypeError: a dtype that does not fit.

    >>> discriminator_loss(torch.zeros(3), torch.zeros(3))  # log 4
    tensor(1.3863)
    >>> discriminator_loss(torch.zeros(3), torch.zeros(3), kind="hinge")
    tensor(2.)

    Source: Goodfellow et al. 2014, Algorithm 1; label smoothing: Salimans et al. 2016; hinge: Lim & Ye 2017; least
    squares: Mao et al. 2017 (a = 0, b = c = 1); Wasserstein: Arjovsky et al. 2017, Algorithm 1.
    """
    if _is_compiling():
        return _ops.discriminator_loss(
            real_logits, fake_logits, kind=kind, label_smoothing=label_smoothing, reduction=reduction
        )
    return _C.discriminator_loss(real_logits, fake_logits, kind, label_smoothing, reduction)


def generator_loss(fake_logits: Tensor, *, kind: str = "non_saturating", reduction: str = "mean") -> Tensor:
    r"""What the generator descends, on logits :math:`a` of D(G(z)).

    "non_saturating": :math:`-\log D(G(z)) = \mathrm{softplus}(-a)`, with a strong gradient while D still wins.
    "minimax": :math:`\log(1 - D(G(z))) = -\mathrm{softplus}(a)`, as Algorithm 1 prints it.
    Beside the discriminator's losses of the same names, "hinge" and "wasserstein": :math:`-a`; "least_squares":
    :math:`\frac12 (a - 1)^2`.

    Args:
        fake_logits: any shape.
        kind: "non_saturating", "minimax", "hinge", "least_squares" or "wasserstein".
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or fake_logits' shape for "none".

    Raises:
        ValueError: an unknown name.
        TypeError: a dtype that does not fit.

    >>> generator_loss(torch.zeros(3))  # log 2
    tensor(0.6931)

    Source: Goodfellow et al. 2014, section 3 and Algorithm 1; those of `discriminator_loss`.
    """
    if _is_compiling():
        return _ops.generator_loss(fake_logits, kind=kind, reduction=reduction)
    return _C.generator_loss(fake_logits, kind, reduction)


def binary_cross_entropy(input: Tensor, target: Tensor, *, logits: bool, reduction: str = "mean") -> Tensor:
    r"""The cross entropy of a Bernoulli variable with a target t for each element, value and gradient in one pass each.

    Of logits: :math:`\mathrm{softplus}(a) - t a`, whose tails keep their relative accuracy for targets of zero and
    one. Of probabilities: :math:`-t \log p - (1 - t) \log(1 - p)`, with the guards of `torch.nn.BCELoss`: logarithms
    are at least -100, and the derivative :math:`(p - t) / (p (1 - p))` is divided by at least 1e-12. A probability
    outside [0, 1] gives NaN, where torch raises an error on the CPU.

    Args:
        input: logits or probabilities, any shape.
        target: t in [0, 1], of input's shape, dtype and device; it gets no gradient and must not ask for one.
        logits: whether input is logits.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or input's shape for "none". Under autocast both run in float32.

    Raises:
        ValueError: a shape, device or name that does not fit, a target that requires a gradient.
        TypeError: a dtype that does not fit.

    >>> binary_cross_entropy(torch.zeros(3), torch.ones(3), logits=True)  # log 2
    tensor(0.6931)

    Source: Goodfellow et al. 2014, section 3, as most implementations write it: targets of ones and zeros.
    """
    if _is_compiling():
        return _ops.binary_cross_entropy(input, target, logits=logits, reduction=reduction)
    return _C.binary_cross_entropy(input, target, logits, reduction)


def head_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    real_rows: int,
    kind: str = "discriminator",
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    r"""The discriminator's last layer and the loss of its logits, :math:`a = h w^\top + b`, in one pass over h.

    "discriminator": the mean over real rows of :math:`\mathrm{softplus}(-a) + \varepsilon a`, plus the mean over
    generated rows of :math:`\mathrm{softplus}(a)`; "non_saturating" and "minimax": the mean over all rows of
    `generator_loss`. The same pass makes the loss's derivative and, where they are wanted, the gradients of weight and
    bias; backward then writes the gradient of h, of rank one, without reading h again. Half types are not rounded
    between the layer and the loss.

    Args:
        hidden: (m, k), the last hidden activations of real and of generated rows together.
        weight: (1, k), of hidden's dtype and device.
        bias: (1) or None.
        real_rows: rows [0, real_rows) are real, the others generated; 0 for the generator's kinds.
        kind: "discriminator", "non_saturating" or "minimax".
        label_smoothing: one-sided: the target of real rows is 1 - label_smoothing, in [0, 1).

    Returns:
        The loss, a scalar (NaN where a mean has no rows), and the logits, (m). Both are differentiable; a gradient of
        the logits costs one more pass over h where weight or bias want theirs.

    Raises:
        ValueError: a shape, device, number of rows, label_smoothing or name that does not fit.
        TypeError: a dtype that does not fit.

    >>> loss, logits = head_loss(torch.zeros(4, 3), torch.ones(1, 3), real_rows=2)  # log 4
    >>> loss, logits.shape
    (tensor(1.3863), torch.Size([4]))

    Source: Goodfellow et al. 2014, section 3 and Algorithm 1; label smoothing: Salimans et al. 2016.
    """
    if _is_compiling():
        return _ops.head_loss(hidden, weight, bias, real_rows=real_rows, kind=kind, label_smoothing=label_smoothing)
    return _C.head_loss(hidden, weight, bias, real_rows, kind, label_smoothing)


def _lists(*arguments: Tensor | Sequence[Tensor]) -> list[list[Tensor]]:
    return [[tensors] if isinstance(tensors, Tensor) else list(tensors) for tensors in arguments]


def _counter(op: str, name: str, value: int) -> int:
    """A 64-bit key or counter as the schema's signed integer: the same 64 bits."""
    if not isinstance(value, int):  # torch.compile's symbols
        return value
    if not -(2**63) <= value < 2**64:
        raise ValueError(f"{op}: {name} must be a whole number of at most 64 bits, got {value}")
    return value - 2**64 if value >= 2**63 else value


@torch.no_grad()
def momentum_(
    param: Tensor | Sequence[Tensor],
    grad: Tensor | Sequence[Tensor],
    velocity: Tensor | Sequence[Tensor],
    *,
    lr: float,
    momentum: float,
) -> None:
    r"""The paper's momentum update, in place: :math:`v \leftarrow \mu v - \eta g,\; \theta \leftarrow \theta + v`.

    The learning rate is inside the velocity: it differs from `torch.optim.SGD` once lr changes.

    Args:
        param: one tensor, or a list (one call updates all).
        grad: like param.
        velocity: like param, zero at first; float32 is allowed for half-precision params.
        lr: learning rate, >= 0.
        momentum: in [0, 1).

    Raises:
        ValueError: lists, shapes, devices or numbers that do not fit.
        TypeError: a dtype that does not fit.

    >>> param, velocity = torch.tensor([1.0]), torch.tensor([0.5])
    >>> momentum_(param, torch.tensor([2.0]), velocity, lr=0.1, momentum=0.5)
    >>> param
    tensor([1.0500])

    Source: the published configuration of Goodfellow et al. 2014.
    """
    params, grads, velocities = _lists(param, grad, velocity)
    if params or grads or velocities:
        _ops.momentum_(params, grads, velocities, lr=lr, momentum=momentum)


@torch.no_grad()
def adam_(
    param: Tensor | Sequence[Tensor],
    grad: Tensor | Sequence[Tensor],
    m: Tensor | Sequence[Tensor],
    v: Tensor | Sequence[Tensor],
    *,
    step: int,
    lr: float = 2e-4,
    betas: tuple[float, float] = (0.5, 0.999),
    eps: float = 1e-8,
) -> None:
    r"""Adam, in place, as `torch.optim.Adam` computes it.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1) g,\quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2,\quad
        \theta \leftarrow \theta - \eta \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    Args:
        param: one tensor, or a list (one call updates all).
        grad: like param.
        m: like param, zero at first; float32 is allowed for half-precision params.
        v: like m.
        step: t, counting from 1.
        lr: learning rate, >= 0.
        betas: both in [0, 1).
        eps: >= 0.

    Raises:
        ValueError: lists, shapes, devices or numbers that do not fit.
        TypeError: a dtype that does not fit.

    >>> param, m, v = torch.tensor([1.0]), torch.zeros(1), torch.zeros(1)
    >>> adam_(param, torch.tensor([3.0]), m, v, step=1, lr=0.1)
    >>> param
    tensor([0.9000])

    Source: Kingma & Ba 2015.
    """
    params, grads, ms, vs = _lists(param, grad, m, v)
    if not isinstance(betas, Sequence) or len(betas) != 2:
        raise ValueError(f"adam_: betas must be two numbers, got {betas!r}")
    if params or grads or ms or vs:
        _ops.adam_(params, grads, ms, vs, step=step, lr=lr, beta1=betas[0], beta2=betas[1], eps=eps)


def noise(
    size: Sequence[int],
    *,
    kind: str = "normal",
    seed: int,
    offset: int,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""The generator's input z: standard normal, or uniform on :math:`\pm\sqrt 3` (both of unit variance).

    Args:
        size: the shape.
        kind: "normal" or "uniform".
        seed: 64-bit key.
        offset: 64-bit counter, see `pygan.random.offset`.
        dtype: torch's default where None. The numbers are made in float32.
        device: the CPU where None.

    Returns:
        A tensor of `size`.

    Raises:
        ValueError: a negative size, an unknown kind.
        TypeError: a dtype that is not floating.

    >>> torch.equal(noise((2, 3), seed=1, offset=0), noise((2, 3), seed=1, offset=0))
    True

    Source: Goodfellow et al. 2014, section 5; Salmon et al. 2011 (Philox4x32-10).
    """
    device = torch.device(device) if device is not None else None
    seed, offset = _counter("noise", "seed", seed), _counter("noise", "offset", offset)
    return _ops.noise(size, kind=kind, seed=seed, offset=offset, dtype=dtype, device=device)


def minibatch_indices(
    population: int,
    count: int,
    *,
    start: int,
    seed: int,
    offset: int = 0,
    device: torch.device | str | None = None,
) -> Tensor:
    """Rows of the data set for a minibatch: every epoch is one keyed permutation, made without a table.

    Args:
        population: rows in the data set, >= 1.
        count: rows wanted, >= 0.
        start: how many rows the run has drawn before; ``start // population`` is the epoch.
        seed: 64-bit key.
        offset: 64-bit counter, see `pygan.random.offset`.
        device: the CPU where None.

    Returns:
        (count) int64, each below population.

    Raises:
        ValueError: a population, count or start out of range.

    >>> sorted(minibatch_indices(5, 5, start=5, seed=0).tolist())
    [0, 1, 2, 3, 4]

    Source: Goodfellow et al. 2014, Algorithm 1 ("sample minibatch").
    """
    device = torch.device(device) if device is not None else None
    seed, offset = _counter("minibatch_indices", "seed", seed), _counter("minibatch_indices", "offset", offset)
    return _ops.minibatch_indices(population, count, start=start, seed=seed, offset=offset, device=device)


def parzen_log_likelihood(x: Tensor, samples: Tensor, *, sigma: float) -> Tensor:
    r"""The log-density of each row of x under equal Gaussians about the samples, a Parzen window.

    .. math:: \log p(x_i) = \log \frac1s \sum_j \exp\frac{-\|x_i - s_j\|^2}{2\sigma^2} - d \log(\sigma\sqrt{2\pi})

    The distances are tiles of one product, spent where they are made: no n x s matrix is ever in memory. Rows and
    samples are moved by the samples' mean first, so that little cancels: in float32, densities of images in [0, 1]
    are right to 0.002 nat at sigma = 0.1, on CUDA to 0.005. Where rows are so far from that mean, in units of sigma,
    that 0.01 nat could be lost, float64 takes over, at two to four times the time, and where that could lose as much
    (or something is not finite), differences coordinate by coordinate, at thirty times. No gradient.

    Args:
        x: (n, d).
        samples: (s, d), s at least 1, of x's dtype and device.
        sigma: the standard deviation of each Gaussian in each coordinate, from 1e-100 to 1e100, in the units of x.

    Returns:
        (n) float64, in nats. A row with a NaN gives NaN, samples with a NaN give NaN everywhere; a row too far from
        all samples, minus infinity.

    Raises:
        ValueError: a shape, device or sigma that does not fit.
        TypeError: a dtype that does not fit, or a sigma that is no number.

    >>> parzen_log_likelihood(torch.zeros(1, 2), torch.zeros(3, 2), sigma=1.0)
    tensor([-1.8379], dtype=torch.float64)

    Source: Goodfellow et al. 2014, section 5, after Breuleux et al. 2011.
    """
    if isinstance(sigma, bool) or not isinstance(sigma, numbers.Real):
        raise TypeError(f"parzen_log_likelihood: sigma must be a number, got {type(sigma).__name__}")
    for name, tensor in (("x", x), ("samples", samples)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"parzen_log_likelihood: {name} must be a tensor, got {type(tensor).__name__}")
    return _ops.parzen_log_likelihood(x, samples, sigma=float(sigma))


PRODUCTS = ("auto", "fused", "library")


@contextlib.contextmanager
def products(kind: str) -> Iterator[None]:
    """Choose who multiplies in the layers, for the process, while the context lasts.

    By default it is pygan's kernels but for sizes at which torch's library was measured or is expected to be faster:
    large products on a GPU and on Intel CPUs with AVX-512, products of vectors and of one output on x86 CPUs. With
    "fused" the results are the same bits on any number of threads; a library's may depend on it.

    Args:
        kind: "fused", pygan's kernels; "library", torch's matrix product with pygan's kernels before and after it;
            "auto", the default: by a table of sizes.

    Raises:
        ValueError: an unknown name.

    >>> with products("library"):
    ...     y = linear_act(torch.ones(2, 3), torch.ones(4, 3))
    """
    before = _C.product_choice()
    _C.set_product_choice(PRODUCTS.index(check_name(kind, PRODUCTS, "kind")))
    try:
        yield
    finally:
        _C.set_product_choice(before)
