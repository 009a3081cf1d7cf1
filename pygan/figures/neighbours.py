"""Samples and, beside the last of each row, the training example nearest to it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from .._names import check_whole
from ..data import Dataset, as_dataset
from ..diagnostics import nearest_neighbours
from .canvas import COLOURS, check_path
from .images import as_rgb, enlarged, save_pixels, tile

_GAP = 14  # pixels between the samples and the examples


def neighbour_grid(
    samples: torch.Tensor | np.ndarray,
    data: Dataset | torch.Tensor | np.ndarray,
    path: str | os.PathLike,
    *,
    columns: int = 9,
    padding: int = 4,
    value_range: tuple[float, float] = (0.0, 1.0),
    title: str | None = None,
) -> Path:
    """Writes a grid of samples with, in yellow frames, the training example nearest to the last sample of each row.

    A generator that had learnt its data by heart would show the same image twice there.

    Args:
        samples: (n, d) uint8 or floats, n a whole number of rows.
        data: what the generator was trained on: a `Dataset` of images, or a tensor or array (s, h, w) or
            (s, c, h, w) with 1 or 3 channels; d = c·h·w.
        path: a .png, .pdf or .svg file in a folder that exists; replaced whole if it is there.
        columns: samples in a row.
        padding: pixels of the picture between two images, around them, and of the yellow frames.
        value_range: the floats shown as black and as white, and what 0 and 255 of uint8 stand for; (-1, 1) for a
            tanh generator.
        title: a line above the grid.

    Returns:
        path.

    Raises:
        ValueError: samples that fill no whole number of rows, or do not fit the data; data that are no images, an
            empty range, a picture of more than 65,535 pixels a side, or another suffix.
        FileNotFoundError: the folder does not exist.

    >>> import tempfile
    >>> from pygan.data import digits
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     neighbour_grid(torch.rand(18, 64), digits(), f"{folder}/neighbours.png").name
    'neighbours.png'

    Source: the paper, figure 2.
    """
    path = check_path(path)
    columns, padding = check_whole(columns, "columns"), check_whole(padding, "padding", least=1)
    data = as_dataset(data)
    if data.image_shape is None:
        raise ValueError(f"data {data.name!r} must be images, or a Dataset with an image_shape, to be drawn")
    pixels = as_rgb(samples, data.image_shape, value_range)
    if len(pixels) % columns:
        raise ValueError(f"samples must fill rows of {columns}, got {len(pixels)}: give columns= or other samples")
    samples = as_dataset(samples, "samples").values.flatten(1)
    nearest, _ = nearest_neighbours(samples[columns - 1 :: columns], data.values, pixel_range=value_range)
    examples = as_rgb(data.values[nearest], data.image_shape, value_range)
    # Enlarged together, so that all are of one size and the picture as wide as others are.
    rows = np.concatenate([pixels.reshape(-1, columns, *pixels.shape[1:]), examples[:, None]], axis=1)
    rows = enlarged(rows.reshape(-1, *pixels.shape[1:]), columns + 1, padding)
    rows = rows.reshape(-1, columns + 1, *rows.shape[1:])
    left = tile(rows[:, :-1].reshape(-1, *rows.shape[2:]), columns, padding)
    right = tile(rows[:, -1], 1, padding, ground=COLOURS["frame"])
    gap = np.full((len(left), _GAP, 3), 255, dtype=np.uint8)
    canvas = np.concatenate([left, gap, right], axis=1)
    labels = [(padding, "left", "samples"), (canvas.shape[1] - padding, "right", "nearest training example")]
    save_pixels(canvas, path, left=padding, title=title, labels=labels)
    return path
