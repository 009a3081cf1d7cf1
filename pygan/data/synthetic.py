"""Data that needs no file: the digits that ship inside scikit-learn, and densities that are known exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .._names import check_name, check_number, check_whole
from .dataset import Dataset

_DIGITS = {"train": slice(None), "fit": slice(0, 1297), "valid": slice(1297, 1547), "test": slice(1547, None)}


def digits(split: str = "train") -> Dataset:
    """The 1797 handwritten digits of 8 x 8 pixels that scikit-learn carries: real, offline, tiny.

    Args:
        split: `train`, all of them; or `fit`, the first 1297, `valid`, the next 250, and `test`, the last 250.

    Returns:
        values (n, 64) float32 in [0, 1] (the 17 grey levels divided by 16), labels 0 to 9.

    Raises:
        ValueError: another split.
        ImportError: scikit-learn is not installed.

    >>> data = digits()
    >>> data.image_shape, data.labels[:5].tolist()
    ((8, 8), [0, 1, 2, 3, 4])

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
    """
    rows = _DIGITS[check_name(split, _DIGITS, "split of digits")]
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the digits come with scikit-learn: pip install scikit-learn") from error
    bunch = load_digits()
    values = torch.from_numpy((bunch.data / 16).astype(np.float32))
    name = "digits" if split == "train" else f"digits:{split}"
    return Dataset(values, torch.from_numpy(bunch.target.astype(np.int64)), name, (8, 8)).subset(rows)


def _ring8() -> tuple[np.ndarray, float]:
    angles = 2 * np.pi * np.arange(8) / 8
    return 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1), 0.02


def _grid25() -> tuple[np.ndarray, float]:
    side = np.arange(-4.0, 5.0, 2.0)
    return np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2), 0.05


_MIXTURES = {"ring8": _ring8, "grid25": _grid25}


def mixture(name: str, *, n: int = 50_000, seed: int = 0) -> Dataset:
    """Points of a known mixture of Gaussians in the plane, on which mode collapse can be counted.

    p(x) = 1/k Σ_j N(x; c_j, s²I), each row from a mode drawn at random.

    - `ring8`: 8 modes on the circle of radius 2, s = 0.02.
    - `grid25`: 25 modes on {-4, -2, 0, 2, 4}², s = 0.05.

    Args:
        name: `ring8` or `grid25`.
        n: the number of points, at least 1.
        seed: the same seed gives the same points.

    Returns:
        values (n, 2) float32, labels (the mode of each point), and modes, mode_std, mode_weights.

    Raises:
        ValueError: an unknown name (the nearest is suggested), n below 1, or a negative seed.

    >>> data = mixture("ring8", n=1000)
    >>> data
    Dataset('ring8': 1000 x 2 float32, 8 modes)
    >>> data.modes[0], data.mode_std
    (tensor([2., 0.]), 0.02)

    Source: Metz et al., Unrolled GANs, 2017 (ring); Srivastava et al., VEEGAN, 2017 (grid).
    """
    centres, std = _MIXTURES[check_name(name, _MIXTURES, "mixture")]()
    return _sample(name, centres, std, n, seed)


def gaussian(mean: float | Sequence[float] = 0.0, std: float = 1.0, *, n: int = 50_000, seed: int = 0) -> Dataset:
    """Points of one Gaussian N(mean, std²I): the known density of the one-dimensional checks.

    Args:
        mean: a number (one dimension) or a sequence of d numbers.
        std: the standard deviation in each coordinate, above 0.
        n: the number of points, at least 1.
        seed: the same seed gives the same points.

    Returns:
        values (n, d) float32, with one mode.

    Raises:
        ValueError: a mean that is not finite or not flat, a std not above 0, n below 1, or a negative seed.

    >>> gaussian(3.0, 0.5, n=100)
    Dataset('gaussian': 100 x 1 float32, 1 mode)
    """
    try:
        centre = np.atleast_1d(np.asarray(mean, dtype=np.float64))
    except (TypeError, ValueError):
        centre = np.empty(0)
    if centre.ndim != 1 or centre.size == 0 or not np.isfinite(centre).all():
        raise ValueError(f"mean must be a finite number or a flat sequence of them, got {mean!r}")
    std = check_number(std, "std", "a finite number above 0", lambda std: std > 0)
    return _sample("gaussian", centre[None], std, n, seed)


def _sample(name: str, centres: np.ndarray, std: float, n: int, seed: int) -> Dataset:
    n, seed = check_whole(n, "n"), check_whole(seed, "seed", least=0)
    generator = np.random.Generator(np.random.Philox(seed))
    labels = generator.integers(len(centres), size=n)
    values = centres[labels] + std * generator.standard_normal((n, centres.shape[1]))
    return Dataset(
        values=torch.from_numpy(values.astype(np.float32)),
        labels=torch.from_numpy(labels),
        name=name,
        modes=torch.from_numpy(centres.astype(np.float32)),
        mode_std=std,
        mode_weights=torch.full((len(centres),), 1 / len(centres)),
    )
