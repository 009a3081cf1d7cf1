"""What samples show of a generator: whose neighbours they are, which modes they reach, how far they lie apart.

>>> from pygan.data import mixture
>>> ring = mixture("ring8", n=2000)
>>> mode_statistics(ring.values, ring)
ModeStatistics(8 of 8 modes, 98.6 % good, reverse KL 0.0008)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pygan._names import check_number, check_pair, check_seed, check_whole
from pygan.data import Dataset
from pygan.data.dataset import as_rows

_BLOCK = 1024  # rows of samples against rows of data at once: 8 MB of distances
_BY_PRODUCT = "use_mm_for_euclid_dist"  # a hundred times as fast as differences


class Neighbours(NamedTuple):
    """The rows of the data next to each sample, and how far they are."""

    index: Tensor
    distance: Tensor


@dataclass(frozen=True, repr=False)
class ModeStatistics:
    """How samples lie on the modes of a known mixture.

    Args:
        covered: modes with at least `least_share` of the samples within 3 standard deviations.
        modes: of the mixture.
        quality: the share of samples within 3 standard deviations of a mode.
        reverse_kl: KL(q ‖ w) in nats, of the histogram q of the samples' nearest modes to the modes' weights w;
            0 where the samples fall on the modes as the data do, -log w_j where all of them fall on mode j.
        least_share: what made a mode count as covered.

    >>> statistics = ModeStatistics(covered=1, modes=8, quality=0.25, reverse_kl=math.log(8))
    >>> statistics
    ModeStatistics(1 of 8 modes, 25.0 % good, reverse KL 2.0794)
    >>> str(statistics)
    '1 of 8 modes, 25.0 % good, reverse KL 2.0794'
    """

    covered: int
    modes: int
    quality: float
    reverse_kl: float
    least_share: float = 0.01

    def __str__(self) -> str:
        quality = f"{100 * self.quality:.1f} % good"
        return f"{self.covered} of {self.modes} modes, {quality}, reverse KL {self.reverse_kl:.4f}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"


@dataclass(frozen=True, repr=False)
class Spread:
    """The mean distance between two samples, beside that between two examples.

    >>> Spread(samples=1.0, data=4.0)
    Spread(samples 1.000, data 4.000, ratio 0.25)
    """

    samples: float
    data: float

    @property
    def ratio(self) -> float:
        """Of the samples' to the data's: near 1 for samples as varied as the data, 0 where all are one."""
        return self.samples / self.data

    def __repr__(self) -> str:
        return f"{type(self).__name__}(samples {self.samples:.3f}, data {self.data:.3f}, ratio {self.ratio:.2f})"


def nearest_neighbours(
    samples: Tensor | np.ndarray,
    data: Dataset | Tensor | np.ndarray,
    *,
    pixel_range: tuple[float, float] = (0.0, 1.0),
) -> Neighbours:
    """For each sample the row of the data at the least Euclidean distance, and that distance.

    A thousand samples meet a thousand rows at a time, in float64: memory stays small, whatever the sizes.

    Args:
        samples: (n, d), or images (n, h, w) or (n, c, h, w); uint8 or real.
        data: (s, d) likewise, or a `Dataset`.
        pixel_range: what 0 and 255 of uint8 samples and data stand for, as in `pygan.Trainer`.

    Returns:
        index (n,) int64, the first of several rows as near; distance (n,) float64. Both on the CPU.

    Raises:
        TypeError: neither a tensor nor an array.
        ValueError: shapes that do not fit, no row, or a value that is not finite.

    >>> data = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    >>> nearest_neighbours(torch.tensor([[0.0, 1.0], [3.0, 4.0]]), data)
    Neighbours(index=tensor([0, 1]), distance=tensor([1., 0.], dtype=torch.float64))

    Source: the paper, figure 2.
    """
    samples, data, pixel_range = _pair(samples, data, pixel_range)
    # About their mean, so that rows that are all but one do not cancel in the product.
    centre = sum(rows.sum(dim=0) for rows in _blocks(data, pixel_range)) / len(data)
    index = torch.cat([_nearest(rows - centre, data, pixel_range, centre) for rows in _blocks(samples, pixel_range)])
    pieces = zip(_blocks(samples, pixel_range), index.split(_BLOCK), strict=True)
    # Once more, as a difference: a copy of an example is at distance 0, not at the rounding of a product.
    distance = torch.cat([(rows - as_real(data[nearest], pixel_range)).norm(dim=1) for rows, nearest in pieces])
    return Neighbours(index, distance)


def mode_statistics(samples: Tensor | np.ndarray, data: Dataset, *, least_share: float = 0.01) -> ModeStatistics:
    """How samples lie on the modes of a known mixture: modes covered, share of good samples, reverse KL.

    A sample belongs to the mode nearest to it, and is good within 3 standard deviations of that (in the plane
    98.9 % of the data are).

    Args:
        samples: (n, d).
        data: a `Dataset` with `modes`, as of `pygan.data.mixture`.
        least_share: the share of all samples, above 0 and at most 1, that must be good on a mode for it to count as
            covered.

    Returns:
        The statistics.

    Raises:
        TypeError: data that is no `Dataset`, or samples that are neither a tensor nor an array.
        ValueError: data without modes, another shape, no sample, or one that is not finite.

    >>> from pygan.data import mixture
    >>> ring = mixture("ring8", n=100)
    >>> mode_statistics(ring.modes[:1].repeat(50, 1), ring)
    ModeStatistics(1 of 8 modes, 100.0 % good, reverse KL 2.0794)

    Source: Srivastava et al., VEEGAN, 2017 (modes, good samples); Lin et al., PacGAN, 2018 (reverse KL).
    """
    if not isinstance(data, Dataset):
        raise TypeError(f"data must be a Dataset with modes, got {type(data).__name__}")
    if data.modes is None:
        raise ValueError(f"data {data.name!r} has no modes: only those of a known mixture can be counted")
    least_share = check_number(least_share, "least_share", "above 0 and at most 1", lambda share: 0 < share <= 1)
    samples = as_rows(samples, "samples")
    if samples.shape[1] != data.dimension:
        raise ValueError(f"samples have {samples.shape[1]} values a row, but the modes {data.dimension}")
    mode, distance = nearest_neighbours(samples, data.modes)
    good = distance <= 3 * data.mode_std
    n, modes = len(mode), len(data.modes)
    covered = torch.bincount(mode[good], minlength=modes) >= least_share * n
    share = torch.bincount(mode, minlength=modes).double() / n
    return ModeStatistics(
        covered=int(covered.sum()),
        modes=modes,
        quality=float(good.double().mean()),
        reverse_kl=float((torch.xlogy(share, share) - torch.xlogy(share, data.mode_weights.double())).sum()),
        least_share=least_share,
    )


def mean_pairwise_distance(
    values: Dataset | Tensor | np.ndarray,
    *,
    rows: int = 2000,
    seed: int = 0,
    pixel_range: tuple[float, float] = (0.0, 1.0),
) -> float:
    """The mean Euclidean distance over all pairs of so many rows.

    Args:
        values: (n, d), or images (n, h, w) or (n, c, h, w); uint8 or real; n at least 2. Or a `Dataset`.
        rows: of more than these, as many are drawn at random, the same for the same seed.
        seed: of that draw.
        pixel_range: what 0 and 255 of uint8 values stand for.

    Returns:
        The distance; 0 where all rows are one.

    Raises:
        TypeError: neither a tensor nor an array.
        ValueError: fewer than two rows, or a value that is not finite.

    >>> mean_pairwise_distance(torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]]))
    6.666666666666667
    """
    values, pixel_range = as_rows(values, "values"), _checked_range(pixel_range)
    rows, seed = check_whole(rows, "rows", least=2), check_seed(seed)
    if len(values) < 2:
        raise ValueError(f"values must be at least 2 rows to be apart, got shape {tuple(values.shape)}")
    if len(values) > rows:
        values = values[torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))[:rows]]
    values = as_real(values, pixel_range)
    # About their mean, so that rows that are all but one do not cancel in the product.
    blocks = (values - values.mean(dim=0)).split(_BLOCK)
    pairs = ((some, others) for some in blocks for others in blocks)
    total = sum(torch.cdist(*pair, compute_mode=_BY_PRODUCT).sum().item() for pair in pairs)
    return total / (len(values) * (len(values) - 1))


def spread(
    samples: Tensor | np.ndarray,
    data: Dataset | Tensor | np.ndarray,
    *,
    rows: int = 2000,
    seed: int = 0,
    pixel_range: tuple[float, float] = (0.0, 1.0),
) -> Spread:
    """The mean distance between samples beside that between examples: a generator that collapsed shows in it.

    It sees collapse on images, whose modes nobody knows; a ratio near 1 alone is no proof of good samples.

    Args:
        samples: (n, d), n at least 2.
        data: (s, d), s at least 2, not all rows the same.
        rows: of each, at most.
        seed: of the draw of them.
        pixel_range: what 0 and 255 of uint8 samples and data stand for.

    Returns:
        Both, and their ratio.

    Raises:
        TypeError: neither a tensor nor an array.
        ValueError: shapes that do not fit, fewer than two rows, or a value that is not finite.

    >>> from pygan.data import digits
    >>> spread(torch.ones(100, 64), digits())
    Spread(samples 0.000, data 3.022, ratio 0.00)
    """
    samples, data, pixel_range = _pair(samples, data, pixel_range)
    if (data == data[0]).all():
        raise ValueError("data must have rows that differ: there is nothing to hold the samples against")
    of_samples, of_data = (
        mean_pairwise_distance(values, rows=rows, seed=seed, pixel_range=pixel_range) for values in (samples, data)
    )
    return Spread(of_samples, of_data)


def _nearest(samples: Tensor, data: Tensor, pixel_range: tuple[float, float], centre: Tensor) -> Tensor:
    """(m,): for m samples, in float64 about a centre, the nearest row of all data, the first of several."""
    index = torch.zeros(len(samples), dtype=torch.int64)
    least = torch.full((len(samples),), math.inf, dtype=torch.float64)
    start = 0
    for rows in _blocks(data, pixel_range):
        rows = rows - centre
        # ‖x - y‖² less ‖x‖², which is the same for every y.
        found, place = (rows.square().sum(dim=1) - 2 * samples @ rows.T).min(dim=1)
        index = torch.where(found < least, start + place, index)
        least = torch.minimum(found, least)
        start += len(rows)
    return index


def _blocks(values: Tensor, pixel_range: tuple[float, float]) -> Iterator[Tensor]:
    """The values in float64, some rows at a time."""
    return (as_real(rows, pixel_range) for rows in values.split(_BLOCK))


def as_real(values: Tensor, pixel_range: tuple[float, float]) -> Tensor:
    """The values in float64, bytes between the ends of the range."""
    if values.dtype != torch.uint8:
        return values.double()
    low, high = pixel_range
    return low + values.double() * ((high - low) / 255)


def _pair(samples, data, pixel_range) -> tuple[Tensor, Tensor, tuple]:
    """Samples and data as rows of one length."""
    samples, data = as_rows(samples, "samples"), as_rows(data, "data")
    if samples.shape[1] != data.shape[1]:
        raise ValueError(f"samples have {samples.shape[1]} values a row, but data {data.shape[1]}")
    return samples, data, _checked_range(pixel_range)


def _checked_range(pixel_range: tuple[float, float]) -> tuple:
    return check_pair(pixel_range, "pixel_range", "(low, high), rising", lambda low, high: low < high)
