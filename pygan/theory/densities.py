"""Densities that are known exactly, and the nodes at which integrals over them are sums."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from pygan._names import check_number, check_whole
from pygan.data import Dataset

_REACH = {1: 12, 2: 8}  # standard deviations from a mean; beyond lies a mass below 1e-13
_ORDER = {1: 24, 2: 8}  # Gauss-Legendre nodes along each side of a panel


@dataclass(frozen=True)
class Mixture:
    """A mixture of round Gaussians on the line or in the plane: p(x) = Σ_j w_j N(x; c_j, s_j² I).

    Args:
        means: k numbers, or k pairs: the c_j.
        stds: one number above 0 for all, or k of them: the s_j.
        weights: k numbers above 0 with sum 1; None for equal ones.

    Raises:
        ValueError: lengths that differ, no component, or a number out of its range.

    >>> p = Mixture([-1.0, 1.0], 0.5)
    >>> p.pdf([0.0]).round(4), p.sample(3).shape
    (array([0.108]), (3, 1))
    """

    means: Sequence
    stds: float | Sequence[float]
    weights: Sequence[float] | None = None

    def __post_init__(self):
        means = _numbers(self.means, "means")
        means = means[:, None] if means.ndim == 1 else means
        if means.ndim != 2 or len(means) == 0 or means.shape[1] not in (1, 2):
            raise ValueError(f"means must be k numbers or k pairs, k at least 1, got shape {np.shape(self.means)}")
        k = len(means)
        stds = np.full(k, self.stds) if isinstance(self.stds, numbers.Real) else _numbers(self.stds, "stds")
        if stds.shape != (k,) or not np.isfinite(stds).all() or stds.min() <= 0:
            raise ValueError(f"stds must be a finite number above 0, or {k} of them, got {self.stds!r}")
        weights = np.full(k, 1 / k) if self.weights is None else _numbers(self.weights, "weights")
        if weights.shape != (k,) or weights.min() <= 0 or abs(weights.sum() - 1) > 1e-6:
            raise ValueError(f"weights must be {k} numbers above 0 with sum 1, got {self.weights!r}")
        object.__setattr__(self, "means", tuple(map(tuple, means.tolist())))
        object.__setattr__(self, "stds", tuple(stds.tolist()))
        object.__setattr__(self, "weights", tuple((weights / weights.sum()).tolist()))

    @classmethod
    def of(cls, data: Dataset) -> Mixture:
        """The density that a data set of known modes was drawn from.

        Raises:
            TypeError: no `Dataset`.
            ValueError: its modes are not known, or lie in more than two dimensions.

        >>> import pygan
        >>> Mixture.of(pygan.data.gaussian(3.0, 0.5, n=10))
        Mixture(means=((3.0,),), stds=(0.5,), weights=(1.0,))
        """
        if not isinstance(data, Dataset):
            raise TypeError(f"data must be a Dataset, got {type(data).__name__}")
        if data.modes is None:
            raise ValueError(f"{data.name}: its density is not known, it has no modes")
        return cls(data.modes.tolist(), data.mode_std, data.mode_weights.tolist())

    @property
    def dimension(self) -> int:
        """The length of a point, 1 or 2."""
        return len(self.means[0])

    def log_pdf(self, x: Any) -> np.ndarray:
        """The logarithm of p at each of n points.

        Args:
            x: (n, d), or (n,) on the line: an array, a tensor or a list.

        Returns:
            (n,) float64, finite.

        Raises:
            ValueError: another shape.
        """
        points = as_points(x, self.dimension)
        total = np.full(len(points), -np.inf)
        for mean, std, weight in zip(self.means, self.stds, self.weights, strict=True):
            norm = math.log(weight) - self.dimension * math.log(std * math.sqrt(2 * math.pi))
            np.logaddexp(total, norm - 0.5 * (((points - mean) / std) ** 2).sum(axis=1), out=total)
        return total

    def pdf(self, x: Any) -> np.ndarray:
        """The density at each of n points; see `log_pdf`."""
        return np.exp(self.log_pdf(x))

    def sample(self, n: int, *, seed: int = 0) -> np.ndarray:
        """N independent points, (n, d) float64; the same seed gives the same ones."""
        return draw(self, check_whole(n, "n"), np.random.default_rng(check_whole(seed, "seed", least=0)))


def gaussian(mean: float, std: float) -> Mixture:
    """The Gaussian N(mean, std²) on the line.

    >>> gaussian(0, 1).pdf([0.0]).round(4)
    array([0.3989])
    """
    mean = check_number(mean, "mean", "a finite number", lambda _: True)
    return Mixture([mean], check_number(std, "std", "a finite number above 0", lambda std: std > 0))


def draw(p: Mixture, n: int, generator: np.random.Generator) -> np.ndarray:
    """The next n points of a stream."""
    modes = generator.choice(len(p.means), size=n, p=p.weights)
    noise = generator.standard_normal((n, p.dimension))
    return np.asarray(p.means)[modes] + np.asarray(p.stds)[modes, None] * noise


class Nodes(NamedTuple):
    """Where two densities are known, so that an integral of f is the sum of weight · f.

    x is (n, d), the others (n,). Of vectors of probabilities, x is None and each weight is 1.
    """

    x: np.ndarray | None
    weight: np.ndarray
    log_p: np.ndarray
    log_q: np.ndarray


def nodes(p: Mixture | Any, q: Mixture | Any, names: tuple[str, str] = ("p", "q")) -> Nodes:
    """The nodes of a pair, once it is known to be one: two mixtures of one dimension, or two vectors of one length.

    Mixtures are integrated by Gauss-Legendre panels as long as the smallest standard deviation near them.
    """
    if isinstance(p, Mixture) and isinstance(q, Mixture):
        if p.dimension != q.dimension:
            raise ValueError(f"{names[0]} and {names[1]} must have one dimension, got {p.dimension} and {q.dimension}")
        x, weight = _panels(p, q)
        return Nodes(x, weight, p.log_pdf(x), q.log_pdf(x))
    vectors = [_probabilities(vector, name) for vector, name in zip((p, q), names, strict=True)]
    if len(vectors[0]) != len(vectors[1]):
        found = f"{len(vectors[0])} and {len(vectors[1])}"
        raise ValueError(f"{names[0]} and {names[1]} must have one length, got {found} probabilities")
    with np.errstate(divide="ignore"):
        return Nodes(None, np.ones(len(vectors[0])), *map(np.log, vectors))


def as_points(x: Any, dimension: int) -> np.ndarray:
    """(n, d) float64 of an array, tensor or list; on the line (n,) will do."""
    points = as_float64(x, "x")
    points = points[:, None] if points.ndim == 1 and dimension == 1 else points
    if points.ndim != 2 or points.shape[1] != dimension:
        raise ValueError(f"x must be (n, {dimension}){' or (n,)' * (dimension == 1)}, got shape {points.shape}")
    return points


def as_float64(values: Any, name: str) -> np.ndarray:
    """An array, a tensor of any device and dtype, or a list, as float64."""
    if isinstance(values, torch.Tensor):
        values = values.detach().double().cpu().numpy()
    try:
        array = np.asarray(values)
        # What numpy would take for a number: None for NaN, and the words for one.
        if array.dtype.kind in "biuf" or (array.dtype.kind == "O" and None not in array.ravel().tolist()):
            return array.astype(np.float64, copy=False)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{name} must be numbers, got {values!r}")


def _panels(p: Mixture, q: Mixture) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, d) and weights (n,) of a grid of panels, without those that no component reaches."""
    d = p.dimension
    means, stds = np.array(p.means + q.means), np.array(p.stds + q.stds)
    node, weight = np.polynomial.legendre.leggauss(_ORDER[d])
    edges = [_edges(means[:, axis], stds, _REACH[d]) for axis in range(d)]
    reached = [_reached(side, means[:, axis], _REACH[d] * stds) for axis, side in enumerate(edges)]
    kept = np.nonzero(np.einsum("ki,kj->ij", *reached) if d == 2 else reached[0].any(axis=0))
    sides = []
    for axis, (side, chosen) in enumerate(zip(edges, kept, strict=True)):
        low, half = side[chosen], np.diff(side)[chosen] / 2
        shape = (len(low), *(len(node) if i == axis else 1 for i in range(d)))
        x = (low + half)[:, None] + half[:, None] * node
        sides.append((x.reshape(shape), (half[:, None] * weight).reshape(shape)))
    x = np.broadcast_arrays(*(x for x, _ in sides))
    weights = np.prod(np.broadcast_arrays(*(weight for _, weight in sides)), axis=0)
    return np.stack([axis.ravel() for axis in x], axis=1), weights.ravel()


def _edges(means: np.ndarray, stds: np.ndarray, reach: int) -> np.ndarray:
    """Borders of panels along one axis, from half to one and a half of the smallest deviation there apart."""
    steps = np.arange(-reach, reach + 1)
    edges = np.unique(means[:, None] + stds[:, None] * steps)
    covers = np.abs(edges[:, None] - means) <= reach * stds * (1 + 1e-9)
    scale = np.where(covers, stds, np.inf).min(axis=1)
    kept = [edges[0]]
    for edge, least in zip(edges[1:].tolist(), (scale[1:] / 2).tolist(), strict=True):
        if edge - kept[-1] >= least:
            kept.append(edge)
    return np.array(kept)


def _reached(edges: np.ndarray, means: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """(k, n) bool: the panels between the edges that lie, in part or whole, within reach of each component."""
    return (edges[:-1] < (means + reach)[:, None]) & (edges[1:] > (means - reach)[:, None])


def _numbers(values: Any, name: str) -> np.ndarray:
    array = as_float64(values, name)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {values!r}")
    return array


def _probabilities(vector: Any, name: str) -> np.ndarray:
    if isinstance(vector, Mixture):
        raise ValueError(f"{name} is a Mixture and the other is not: both must be, or both vectors of probabilities")
    array = as_float64(vector, name)
    if array.ndim != 1 or array.size == 0 or not (array >= 0).all() or not abs(array.sum() - 1) < 1e-6:
        raise ValueError(f"{name} must be a Mixture, or a vector of probabilities of at least 0 with sum 1")
    return array / array.sum()
