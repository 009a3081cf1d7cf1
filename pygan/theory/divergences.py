"""What the game is worth on two densities: D*, V, C, and the divergences they come to (section 4 of the paper)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pygan import ops

from .densities import Mixture, Nodes, as_float64, nodes

Density = Mixture | Any  # or a vector of probabilities
_PAIR = ("p_data", "p_g")


def optimal_logit(p_data: Density, p_g: Density, x: Any = None) -> np.ndarray:
    """The logit of D*, log p_data(x) - log p_g(x): finite wherever the densities are, however small they become.

    Args:
        p_data: a mixture, or k probabilities.
        p_g: a mixture of the same dimension, or k probabilities.
        x: (n, d), or (n,) on the line; None for vectors.

    Returns:
        (n,) or (k,) float64. Of vectors: infinite where one is 0, NaN where both are.

    Raises:
        ValueError: densities that are no pair, x of another shape, x given for vectors or missing for mixtures.

    >>> optimal_logit([0.5, 0.5, 0.0], [0.25, 0.25, 0.5])
    array([0.69314718, 0.69314718,       -inf])
    """
    if isinstance(p_data, Mixture) and isinstance(p_g, Mixture):
        if x is None:
            raise ValueError("x must be given: the points at which D* is wanted")
        return p_data.log_pdf(x) - p_g.log_pdf(x)
    if x is not None:
        raise ValueError("x must be left out for vectors of probabilities: D* is of the same length")
    return _log_ratio(nodes(p_data, p_g, _PAIR))


def optimal_discriminator(p_data: Density, p_g: Density, x: Any = None) -> np.ndarray:
    """The best answer to a generator, D*(x) = p_data(x) / (p_data(x) + p_g(x)).

    Args, Returns and Raises are those of `optimal_logit`, of which this is the sigmoid.

    >>> optimal_discriminator([0.5, 0.5, 0.0], [0.25, 0.25, 0.5])
    array([0.66666667, 0.66666667, 0.        ])

    Source: the paper, proposition 1.
    """
    return sigmoid(optimal_logit(p_data, p_g, x))


def value(d: nn.Module | Callable[[Tensor], Any] | Any, p_data: Density, p_g: Density) -> float:
    """The value of the game, V = E_{p_data} log D(x) + E_{p_g} log(1 - D(x)), by quadrature.

    Of a D as smooth as the densities it is right to 1e-10; rectifiers have kinks that cost some digits.

    Args:
        d: gives D's logit: a module or any function, (n, d) -> (n,) or (n, 1); for vectors the k logits. A module
            gets tensors of its own dtype, a function float64 tensors.
        p_data: a mixture, or k probabilities.
        p_g: a mixture of the same dimension, or k probabilities.

    Returns:
        V, at most `criterion(p_data, p_g)`.

    Raises:
        ValueError: densities that are no pair, or logits of another number.

    >>> round(value(lambda x: 0 * x, Mixture([0.0], 1.0), Mixture([1.0], 2.0)), 10)
    -1.3862943611

    Source: the paper, equation 1.
    """
    at = nodes(p_data, p_g, _PAIR)
    return value_at(_logits(d, at), at)


def criterion(p_data: Density, p_g: Density) -> float:
    """What a generator descends if D is at its best: C(G) = max_D V(D, G) = V(D*, G).

    It is -log 4 + 2 JSD, least where p_g = p_data; here it comes from its definition, not from the divergence.

    Args:
        p_data: a mixture, or k probabilities.
        p_g: a mixture of the same dimension, or k probabilities.

    Raises:
        ValueError: densities that are no pair.

    >>> round(criterion([0.5, 0.5], [0.5, 0.5]), 6), abs(criterion([1.0, 0.0], [0.0, 1.0]))
    (-1.386294, 0.0)

    Source: the paper, theorem 1.
    """
    at = nodes(p_data, p_g, _PAIR)
    return value_at(_log_ratio(at), at)


def kl(p: Density, q: Density) -> float:
    """Kullback and Leibler's divergence KL(p ‖ q) = E_p log(p / q), in nats.

    `kl(p_data, p_g)` is what maximum likelihood descends: it punishes a p_g that leaves data out. The other order
    punishes samples where no data is.

    Args:
        p: a mixture, or k probabilities.
        q: a mixture of the same dimension, or k probabilities.

    Returns:
        At least 0; infinite for vectors with a q of 0 where p is not.

    Raises:
        ValueError: densities that are no pair.

    >>> round(kl(Mixture([0.0], 1.0), Mixture([1.0], 1.0)), 12)
    0.5
    """
    at = nodes(p, q)
    return _mean(at.weight, at.log_p, _log_ratio(at))


def jsd(p: Density, q: Density) -> float:
    """Jensen and Shannon's divergence: (KL(p ‖ m) + KL(q ‖ m)) / 2 with m = (p + q) / 2, in nats.

    Args:
        p: a mixture, or k probabilities.
        q: a mixture of the same dimension, or k probabilities.

    Returns:
        From 0, for equal densities, to log 2, for those that nowhere meet; the same in both orders.

    Raises:
        ValueError: densities that are no pair.

    >>> jsd([1.0, 0.0], [0.0, 1.0]) == math.log(2)
    True

    Source: the paper, theorem 1.
    """
    at = nodes(p, q)
    with np.errstate(invalid="ignore"):  # both probabilities 0
        log_m = np.logaddexp(at.log_p, at.log_q) - math.log(2)
        return 0.5 * (_mean(at.weight, at.log_p, at.log_p - log_m) + _mean(at.weight, at.log_q, at.log_q - log_m))


def jsd_from_logits(real_logits: Any, fake_logits: Any) -> float:
    """An estimate of JSD(p_data ‖ p_g) from below, by any discriminator: (V + log 4) / 2 of its logits.

    Its expectation on fresh examples reaches the divergence where D = D*, and is less elsewhere (so it may be
    negative). On the examples that D was trained on, it may be too high.

    Args:
        real_logits: of data, any shape.
        fake_logits: of generated examples, any shape.

    Raises:
        ValueError: no logits.

    >>> jsd_from_logits(torch.zeros(5), torch.zeros(9)), round(jsd_from_logits([50.0], [-50.0]), 4)
    (0.0, 0.6931)

    Source: the paper, theorem 1.
    """
    logits = []
    for name, given in (("real_logits", real_logits), ("fake_logits", fake_logits)):
        logits.append(torch.from_numpy(as_float64(given, name).copy()))
        if logits[-1].numel() == 0:
            raise ValueError(f"{name} must hold at least one logit, got shape {tuple(logits[-1].shape)}")
    return 0.5 * (math.log(4) - float(ops.discriminator_loss(*logits)))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-a) without overflow."""
    with np.errstate(invalid="ignore"):
        return np.exp(-np.logaddexp(0, -logits))


def logits_at(d: nn.Module | Callable[[Tensor], Any], x: np.ndarray) -> np.ndarray:
    """The logits of a module or function at points (n, d), as (n,) float64."""
    points = torch.from_numpy(x)
    if isinstance(d, nn.Module):
        points = points.to(next(d.parameters()))
    with torch.no_grad():
        logits = as_float64(d(points), "d(x)")
    if logits.shape not in ((len(x),), (len(x), 1)):
        raise ValueError(f"d must give a logit for each of {len(x)} points, got shape {logits.shape}")
    return logits.reshape(-1)


def value_at(logits: np.ndarray, at: Nodes) -> float:
    """V of a discriminator whose logits at the nodes are known."""
    with np.errstate(invalid="ignore"):  # D* is NaN where both probabilities are 0
        real, fake = -np.logaddexp(0, -logits), -np.logaddexp(0, logits)
    return _mean(at.weight, at.log_p, real) + _mean(at.weight, at.log_q, fake)


def _logits(d: Any, at: Nodes) -> np.ndarray:
    if at.x is not None:
        if not callable(d):
            raise ValueError(f"d must be a module or a function of x, got {type(d).__name__}")
        return logits_at(d, at.x)
    logits = as_float64(d, "d")
    if logits.shape != at.log_p.shape:
        raise ValueError(f"d must be {len(at.log_p)} logits, one for each probability, got shape {logits.shape}")
    return logits


def _log_ratio(at: Nodes) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # both probabilities 0
        return at.log_p - at.log_q


def _mean(weight: np.ndarray, log_p: np.ndarray, f: np.ndarray) -> float:
    """E_p f, where f may be anything at points of probability 0."""
    p = weight * np.exp(log_p)
    return float(np.where(p > 0, p * np.where(p > 0, f, 0), 0).sum())
