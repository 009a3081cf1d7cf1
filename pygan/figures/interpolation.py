"""Samples along straight lines in the space of the noise."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .._names import check_whole
from ..config import TrainerConfig
from ..trainer import generate_from, sample_noise
from .canvas import check_path
from .images import as_rgb, enlarged, save_pixels, tile

_GAP = 8  # pixels between two lines


def interpolation_grid(
    generator: nn.Module,
    config: TrainerConfig,
    path: str | os.PathLike,
    *,
    image_shape: tuple[int, ...],
    rows: int = 8,
    columns: int = 11,
    step: int = 0,
    padding: int = 2,
    value_range: tuple[float, float] = (0.0, 1.0),
    title: str | None = None,
) -> Path:
    """Writes a row of images for each of several lines in the noise's space: G((1 - t)·z + t·z'), t from 0 to 1.

    Args:
        generator: (m, noise_dim) -> (m, d).
        config: of its training: which noise, of what length, from what seed.
        path: a .png, .pdf or .svg file in a folder that exists; replaced whole if it is there.
        image_shape: (h, w), or (c, h, w) with 1 or 3 channels; its product is d.
        rows: lines, each between two draws of its own.
        columns: images on each, with both ends.
        step: numbers the draw of noise, as in `pygan.Trainer.sample`, of which the first column are the samples.
        padding: pixels of the picture between two images of a line.
        value_range: the floats shown as black and as white; (-1, 1) for a tanh generator.
        title: a line above the grid.

    Returns:
        path.

    Raises:
        ValueError: a shape that does not fit, rows below 1, columns below 2, an empty range, a picture of more than
            65,535 pixels a side, or another suffix.
        FileNotFoundError: the folder does not exist.

    >>> import tempfile
    >>> import pygan
    >>> trainer = pygan.recipes.get("digits").build()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/interpolation.png"
    ...     interpolation_grid(trainer.generator, trainer.config, path, image_shape=(8, 8)).name
    'interpolation.png'

    Source: the paper, figure 3.
    """
    path = check_path(path)
    rows, columns = check_whole(rows, "rows"), check_whole(columns, "columns", least=2)
    padding = check_whole(padding, "padding", least=0)
    samples = interpolate(generator, config, rows, columns, step=step)
    pixels = as_rgb(samples.flatten(0, 1), image_shape, value_range)
    pixels = enlarged(pixels, columns, padding, _GAP + padding)
    lines = [tile(line, columns, padding) for line in np.split(pixels, rows)]
    height, width, _ = lines[0].shape
    canvas = np.full((rows, height + _GAP, width, 3), 255, dtype=np.uint8)
    canvas[:, :height] = lines
    canvas = canvas.reshape(-1, width, 3)[:-_GAP]
    labels = [
        (padding, "left", "G(z)"),
        (width / 2, "center", "G((1 − t) z + t z′)"),
        (width - padding, "right", "G(z′)"),
    ]
    save_pixels(canvas, path, left=padding, title=title, labels=labels)
    return path


def interpolate(generator: nn.Module, config: TrainerConfig, lines: int, points: int, *, step: int = 0) -> Tensor:
    """Samples at equal steps along straight lines in the space of the noise, each between two draws of its own.

    Line i begins at sample i of the draw numbered `step`, and ends at sample lines + i.

    Args:
        generator: (m, noise_dim) -> (m, d).
        config: of its training: which noise, of what length, from what seed.
        lines: how many, at least 1.
        points: on each, with both ends, at least 2.
        step: numbers the draw of noise, as in `pygan.Trainer.sample`.

    Returns:
        (lines, points, d) on the generator's device.

    Raises:
        ValueError: lines below 1, points below 2, or step below 0.

    >>> import pygan
    >>> trainer = pygan.recipes.get("digits").build()
    >>> interpolate(trainer.generator, trainer.config, 3, 5).shape
    torch.Size([3, 5, 64])

    Source: the paper, figure 3.
    """
    lines, points = check_whole(lines, "lines"), check_whole(points, "points", least=2)
    like = next(generator.parameters())
    ends = sample_noise(2 * lines, config, step=check_whole(step, "step", least=0), like=like)
    first, last = ends[:lines, None], ends[lines:, None]
    t = torch.linspace(0, 1, points, dtype=like.dtype, device=like.device)[None, :, None]
    samples = generate_from(generator, ((1 - t) * first + t * last).flatten(0, 1))
    return samples.unflatten(0, (lines, points))
