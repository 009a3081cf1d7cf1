"""Sample grids: images side by side, pixel for pixel."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._names import check_whole
from .canvas import COLOURS, as_array, check_path, new_figure, save, style

_WIDTH = 800  # pixels, about
_TITLE, _LABELS = 36, 24  # pixels that they stand on
_LONGEST = 2**16 - 1 - 60  # pixels that matplotlib's renderer takes, less room for these


def sample_grid(
    samples: torch.Tensor | np.ndarray,
    image_shape: tuple[int, ...],
    path: str | os.PathLike,
    *,
    columns: int | None = None,
    padding: int = 4,
    value_range: tuple[float, float] = (0.0, 1.0),
    title: str | None = None,
) -> Path:
    """Writes images side by side, row after row, each pixel enlarged by a whole number.

    Values outside the range are shown at its ends; a NaN is shown as an orange pixel.

    Args:
        samples: (n, d), or any shape with n first and d values after it: uint8 in [0, 255], or floats.
        image_shape: (h, w), or (c, h, w) with 1 or 3 channels; its product is d.
        path: a .png, .pdf or .svg file in a folder that exists; replaced whole if it is there.
        columns: images in a row; by default 10, and from a hundred images on as many as rows.
        padding: pixels of the picture between two images and around them.
        value_range: the floats shown as black and as white; (-1, 1) for a tanh generator.
        title: a line above the grid.

    Returns:
        path.

    Raises:
        ValueError: a shape that does not fit, no sample, an empty range, columns below 1, a picture of more than
            65,535 pixels a side, or another suffix.
        FileNotFoundError: the folder does not exist.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sample_grid(torch.rand(20, 64), (8, 8), f"{folder}/noise.png").name
    'noise.png'
    """
    path = check_path(path)
    columns = None if columns is None else check_whole(columns, "columns")
    padding = check_whole(padding, "padding", least=0)
    pixels = as_rgb(samples, image_shape, value_range)
    n = len(pixels)
    columns = min(columns or max(10, math.isqrt(n - 1) + 1), n)
    pixels = enlarged(pixels, columns, padding)
    save_pixels(tile(pixels, columns, padding), path, left=padding, title=title)
    return path


def save_pixels(
    canvas: np.ndarray,
    path: Path,
    *,
    left: int = 0,
    title: str | None = None,
    labels: Sequence[tuple[float, str, str]] = (),
) -> None:
    """Writes (H, W, 3) uint8 pixel for pixel, below a title and a line of labels.

    Args:
        canvas: the picture.
        path: checked before.
        left: where the title begins, in pixels from the left.
        title: a line above all.
        labels: words between the title and the picture: pixels from the left, the side of them that stands there
            ("left", "center" or "right"), and the words.
    """
    height, width = canvas.shape[:2]
    titles, names = _TITLE * bool(title), _LABELS * bool(labels)
    whole = height + titles + names
    with style():
        # figimage puts one value on one pixel: at this size and resolution nothing is interpolated.
        # Half a pixel more, since the size in inches times the resolution is rounded down.
        figure = new_figure((width + 0.5) / 100, (whole + 0.5) / 100)
        figure.figimage(canvas, 0, 0, origin="upper")
        if title:
            figure.text(left / width, 1 - titles / 2 / whole, title, va="center", fontsize=12)
        for x, side, words in labels:
            figure.text(x / width, (height + names / 2) / whole, words, ha=side, va="center")
        save(figure, path, dpi=100)


def enlarged(images: np.ndarray, columns: int, padding: int, gap: int = 0) -> np.ndarray:
    """(n, k·h, k·w, 3) of (n, h, w, 3), with k such that their `tile` is about as wide as pictures are here.

    Between two rows is a gap beside the padding.

    Raises:
        ValueError: it would have more than 65,535 pixels a side.
    """
    n, h, w, _ = images.shape
    scale = max(1, round((_WIDTH - padding * (columns + 1)) / (columns * w)))
    longest = max(columns * (scale * w + padding), math.ceil(n / columns) * (scale * h + padding + gap)) + padding
    if longest > _LONGEST:
        raise ValueError(f"a grid of {n} images would be {longest} pixels long, above {_LONGEST}: draw fewer samples")
    return images.repeat(scale, axis=1).repeat(scale, axis=2)


def as_rgb(samples: Any, image_shape: tuple[int, ...], value_range: tuple[float, float]) -> np.ndarray:
    """(n, h, w, 3) uint8."""
    values = as_array(samples)
    shape = tuple(image_shape)
    if len(shape) not in (2, 3) or min(shape) < 1 or (len(shape) == 3 and shape[0] not in (1, 3)):
        raise ValueError(f"image_shape must be (h, w), (1, h, w) or (3, h, w), got {shape}")
    if values.ndim < 2 or values.size == 0 or math.prod(values.shape[1:]) != math.prod(shape):
        raise ValueError(
            f"samples must be (n, {math.prod(shape)}) for images of {shape}, with n at least 1, "
            f"got shape {values.shape}"
        )
    low, high = (0, 255) if values.dtype == np.uint8 else value_range
    if not low < high:
        raise ValueError(f"value_range must be (low, high) with low below high, got {value_range}")
    channels = shape[0] if len(shape) == 3 else 1
    planes = (values.astype(np.float64).reshape(-1, channels, *shape[-2:]) - low) / (high - low)
    missing = np.isnan(planes).any(axis=1)
    planes = np.rint(255 * np.clip(np.nan_to_num(planes, posinf=1, neginf=0), 0, 1)).astype(np.uint8)
    rgb = np.broadcast_to(planes, (len(planes), 3, *shape[-2:])).transpose(0, 2, 3, 1).copy()
    rgb[missing] = _rgb(COLOURS["model"])
    return rgb


def tile(images: np.ndarray, columns: int, padding: int, *, ground: str = COLOURS["gutter"]) -> np.ndarray:
    """One picture (H, W, 3) of (n, h, w, 3) images, on a ground told from both black and white."""
    n, h, w, _ = images.shape
    rows = math.ceil(n / columns)
    ground = np.array(_rgb(ground), dtype=np.uint8)
    # A cell is an image with the gutter below and to the right of it; places without an image stay ground.
    cells = np.full((rows * columns, h + padding, w + padding, 3), ground)
    cells[:n, :h, :w] = images
    cells = cells.reshape(rows, columns, h + padding, w + padding, 3).swapaxes(1, 2)
    canvas = np.full((rows * (h + padding) + padding, columns * (w + padding) + padding, 3), ground)
    canvas[padding:, padding:] = cells.reshape(rows * (h + padding), columns * (w + padding), 3)
    return canvas


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))
