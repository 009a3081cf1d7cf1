"""Points in the plane: samples over the data they are meant to follow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data import Dataset, as_dataset
from .canvas import COLOURS, as_array, check_path, new_figure, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOTS = {"linestyle": "none", "marker": "o", "markeredgewidth": 0}
_POINTS = 5000


def scatter_2d(
    samples: torch.Tensor | np.ndarray,
    data: Dataset | torch.Tensor | np.ndarray,
    path: str | os.PathLike,
    *,
    title: str | None = None,
) -> Path:
    """Writes the samples of a generator in the plane over the data.

    A circle of 3 standard deviations stands about each mode, if they are known. The picture covers the data;
    samples outside it are counted below it. At most 5000 points of each are drawn.

    Args:
        samples: (n, 2).
        data: (m, 2): a tensor, an array, or a `Dataset` (its `modes`, if it has them, are marked).
        path: a .png, .pdf or .svg file in a folder that exists; replaced whole if it is there.
        title: a line above the picture.

    Returns:
        path.

    Raises:
        ValueError: another shape, no sample, or another suffix.
        FileNotFoundError: the folder does not exist.

    >>> import tempfile
    >>> from pygan.data import mixture
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     scatter_2d(torch.randn(100, 2), mixture("ring8", n=500), f"{folder}/ring.png").name
    'ring.png'
    """
    path = check_path(path)
    data = as_dataset(data)
    real, fake = as_points(data.values, "data"), as_points(samples, "samples")
    x, y = view(real)
    with style():
        figure = new_figure(6.4, 6.8)
        axes = figure.subplots()
        figure.subplots_adjust(left=0.08, right=0.97, top=0.92, bottom=0.08)
        axes.plot(*real[:_POINTS].T, **DOTS, ms=6, color=COLOURS["data"], alpha=0.25, label="data")
        axes.plot(*fake[:_POINTS].T, **DOTS, ms=3, color=COLOURS["model"], alpha=0.6, label="samples")
        if data.modes is not None:
            mark_modes(axes, data)
        axes.set(aspect="equal", xlim=x, ylim=y)
        count_outside(axes, fake)
        handles = axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.2)
        for handle in handles.legend_handles:
            handle.set(alpha=1, markersize=7)
        if title:
            axes.set_title(title)
        save(figure, path)
    return path


def as_points(values: Any, name: str) -> np.ndarray:
    """(n, 2) float64."""
    points = as_array(values)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise ValueError(f"{name} must be (n, 2) with n at least 1, got shape {points.shape}")
    return points.astype(np.float64)


def view(points: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """The limits of x and of y of a square about the points, with a margin."""
    low, high = points.min(axis=0), points.max(axis=0)
    middle, half = (low + high) / 2, 0.6 * max(float((high - low).max()), 1e-6)
    x, y = zip((middle - half).tolist(), (middle + half).tolist(), strict=True)
    return x, y


def mark_modes(axes: Axes, data: Dataset) -> None:
    """A circle of 3 standard deviations about each mode."""
    from matplotlib.patches import Circle

    ring = {"facecolor": "none", "edgecolor": COLOURS["ink"], "linewidth": 0.9, "zorder": 3}
    for centre in data.modes.tolist():
        axes.add_patch(Circle(centre, 3 * data.mode_std, **ring))
    axes.plot([], [], "o", color="none", markeredgecolor=COLOURS["ink"], label="3σ of a mode")


def count_outside(axes: Axes, points: np.ndarray, place: tuple[float, float] = (1, -0.08)) -> None:
    """How many samples the picture does not show, in words that end at a place in units of the axes."""
    low, high = np.transpose([axes.get_xlim(), axes.get_ylim()])
    outside = int((~((low <= points) & (points <= high)).all(axis=1)).sum())
    if outside:
        text = f"{outside} of {len(points)} samples outside"
        axes.text(*place, text, transform=axes.transAxes, ha="right", va="bottom")
