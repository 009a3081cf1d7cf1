"""The game in the plane: data, samples, what the discriminator thinks, and where it sends the samples."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from .. import ops
from .._files import replacing
from .._names import check_whole
from ..diagnostics import as_real, mode_statistics
from ..history import History
from ..running import evaluating
from ..trainer import Trainer
from .canvas import COLOURS, check_path, new_figure, save, style
from .plane import DOTS, as_points, count_outside, mark_modes, view

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CELLS, _ARROWS = 240, 21  # a side, of the heat map and of the flow
_LEVELS = 10  # of D; few, so that they are told apart, and films stay small
_SHADES = (0.55, 1.0)  # grey of D = 0 and of D = 1: points and arrows show on all of them
_RESOLUTION, _COLOURS_OF_A_FILM = 80, 128
_MILLISECONDS, _LAST = 120, 2500  # a frame stands, and the last one


def mode_map(trainer: Trainer, path: str | os.PathLike, *, samples: int = 2500, title: str | None = None) -> Path:
    """Writes where a run in the plane stands: data and samples over D, and the way that D sends samples.

    Shades show D(x) from 0 to 1. Arrows show `generator_flow`; the longer, the stronger, but neither vanishing nor
    growing without bound: an arrow of the median strength has half the greatest length. Where the modes of the
    data are known, circles of 3 standard deviations stand about them, and a line gives `pygan.diagnostics`'s
    statistics of the samples.

    Args:
        trainer: between two iterations; its data are points in the plane.
        path: a .png, .pdf or .svg file in a folder that exists; replaced whole if it is there.
        samples: how many to draw and count, always from the same noise.
        title: a line above the picture; by default the data's name and the iteration.

    Returns:
        path.

    Raises:
        ValueError: data that are no points in the plane, samples below 1, or another suffix.
        FileNotFoundError: the folder does not exist.

    >>> import tempfile
    >>> import pygan
    >>> trainer = pygan.recipes.get("ring8").build()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mode_map(trainer, f"{folder}/modes.png").name
    'modes.png'

    Source: Goodfellow et al. 2014, figure 1, in two dimensions; Metz et al., Unrolled GANs, 2017 (the ring).
    """
    path, samples = check_path(path), check_whole(samples, "samples")
    _check_plane(trainer)
    with style():
        save(_draw(trainer, samples, title), path)
    return path


def mode_film(
    trainer: Trainer,
    path: str | os.PathLike,
    *,
    iterations: int,
    frames: int = 60,
    samples: int = 2500,
    title: str | None = None,
    callback: Callable[[Trainer, History], None] | None = None,
) -> Path:
    """Trains, and writes the run as an animation of `mode_map`s, from where it stands to its end.

    The training is that of `trainer.run(iterations, callback)`, to the same bits.

    Args:
        trainer: its data are points in the plane; it stands so many iterations further afterwards.
        path: a .gif file in a folder that exists; replaced whole if it is there.
        iterations: to train.
        frames: at equal distances, the first before the first iteration, the last after the last; at least 2.
        samples: in each, always from the same noise.
        title: before the number of the iteration; by default the data's name.
        callback: as in `pygan.Trainer.run`.

    Returns:
        path.

    Raises:
        ValueError: data that are no points in the plane, fewer iterations than steps between frames, fewer than 2
            frames, samples below 1, or another suffix.
        FileNotFoundError: the folder does not exist.
        DivergenceError: as in `pygan.Trainer.run`; no file is written then.

    >>> import tempfile
    >>> import pygan
    >>> trainer = pygan.recipes.get("ring8").build()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mode_film(trainer, f"{folder}/modes.gif", iterations=4, frames=3).name
    'modes.gif'
    >>> trainer.iteration
    4
    """
    path = check_path(path, (".gif",), "a film")
    samples, frames = check_whole(samples, "samples"), check_whole(frames, "frames", least=2)
    iterations = check_whole(iterations, "iterations", least=frames - 1)
    _check_plane(trainer)
    first, name = trainer.iteration, trainer.data.name if title is None else title
    pictures = []
    for stop in np.linspace(first, first + iterations, frames).round().astype(int).tolist():
        if stop > trainer.iteration:
            trainer.run(stop - trainer.iteration, callback)
        with style():
            pictures.append(_pixels(_draw(trainer, samples, f"{name}, iteration {stop}")))
    _write_film(pictures, path)
    return path


def generator_flow(discriminator: nn.Module, x: Tensor, *, kind: str = "non_saturating") -> Tensor:
    """-∂L_G/∂x: which way, and how strongly, the generator is asked to move a sample at x.

    With a the logit of D this is (1 - D)·∂a/∂x for "non_saturating", and D·∂a/∂x for "minimax", which vanishes where
    D rejects the sample.

    Args:
        discriminator: (n, d) -> (n, 1) or (n,), logits; taken in evaluation mode.
        x: (n, d), of its dtype and device.
        kind: the generator's loss.

    Returns:
        (n, d).

    Raises:
        ValueError: an unknown kind.

    >>> linear = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.ones_(linear.weight)
    >>> generator_flow(linear, torch.zeros(1, 2))
    tensor([[0.5000, 0.5000]])

    Source: Goodfellow et al. 2014, section 3.
    """
    x = x.detach().requires_grad_()
    with evaluating(discriminator), torch.enable_grad():
        loss = ops.generator_loss(discriminator(x), kind=kind, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
    return -gradient


def _check_plane(trainer: Trainer) -> None:
    if trainer.data.dimension != 2:
        raise ValueError(f"the data must be points in the plane, got {trainer.data!r}")


def _draw(trainer: Trainer, samples: int, title: str | None) -> Figure:
    """The picture of a trainer as it stands."""
    data = trainer.data
    real = as_points(as_real(data.values, trainer.config.pixel_range), "data")
    fake = as_points(trainer.sample(samples, step=0), "samples")
    figure = new_figure(6.6, 6.75)
    axes = figure.add_axes((0.07, 0.11, 0.82, 0.82 * 6.6 / 6.75))
    x, y = view(real)
    axes.set(aspect="equal", xlim=x, ylim=y)
    shades = _shade(axes, trainer)
    axes.plot(*real[:samples].T, **DOTS, ms=4, color=COLOURS["data"], label="data")
    axes.plot(*fake.T, **DOTS, ms=2.5, color=COLOURS["model"], alpha=0.6, label="samples")
    _arrows(axes, trainer)
    if data.modes is not None:
        mark_modes(axes, data)
        axes.text(0, 1.012, str(mode_statistics(fake, data)), transform=axes.transAxes, va="bottom")
    count_outside(axes, fake, (1, 1.052))
    axes.set_title(f"{data.name}, iteration {trainer.iteration}" if title is None else title, pad=20)
    bar = figure.colorbar(shades, cax=figure.add_axes((0.905, 0.11, 0.022, 0.82 * 6.6 / 6.75)), ticks=[0, 0.5, 1])
    bar.ax.set_title("D(x)", loc="center", fontsize=10)
    legend = axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.04), ncols=4, columnspacing=1.6, handletextpad=0.5)
    for handle in legend.legend_handles[:2]:
        handle.set(alpha=1, markersize=6)
    return figure


def _lattice(axes: Axes, cells: int, like: Tensor) -> Tensor:
    """(cells², 2): the middles of so many cells a side, row after row from below."""
    low, high = np.transpose([axes.get_xlim(), axes.get_ylim()])
    steps = (np.arange(cells) + 0.5) / cells
    columns, rows = np.meshgrid(low[0] + (high - low)[0] * steps, low[1] + (high - low)[1] * steps)
    return torch.from_numpy(np.stack([columns, rows], axis=-1).reshape(-1, 2)).to(like)


def _shade(axes: Axes, trainer: Trainer):
    """D over the picture."""
    from matplotlib.colors import LinearSegmentedColormap

    like = next(trainer.discriminator.parameters())
    with torch.no_grad(), evaluating(trainer.discriminator):
        d = torch.sigmoid(trainer.discriminator(_lattice(axes, _CELLS, like)))
    d = d.double().cpu().numpy().reshape(_CELLS, _CELLS)
    greys = LinearSegmentedColormap.from_list("D", [(shade,) * 3 for shade in _SHADES], N=_LEVELS)
    extent = (*axes.get_xlim(), *axes.get_ylim())
    return axes.imshow(
        d, cmap=greys, vmin=0, vmax=1, extent=extent, origin="lower", interpolation="nearest", aspect="equal", zorder=0
    )


def _arrows(axes: Axes, trainer: Trainer) -> None:
    """The flow over the picture, each arrow in a cell of its own."""
    x = _lattice(axes, _ARROWS, next(trainer.discriminator.parameters()))
    flow = as_points(generator_flow(trainer.discriminator, x, kind=trainer.config.generator_loss), "flow")
    strength = np.linalg.norm(flow, axis=1, keepdims=True)
    flow = flow / np.maximum(strength + np.median(strength), 1e-300)
    cell = np.ptp(axes.get_xlim()) / _ARROWS
    axes.quiver(
        *as_points(x, "x").T,
        *(0.9 * cell * flow).T,
        angles="xy",
        scale_units="xy",
        scale=1,
        pivot="middle",
        width=0.0022,
        headwidth=4.5,
        headlength=5,
        headaxislength=4.5,
        minlength=0.5,
        color=COLOURS["ink"],
        zorder=1,
    )
    axes.plot(
        [], [], linestyle="none", marker=r"$\rightarrow$", ms=12, mew=0.3, color=COLOURS["ink"], label="flow of samples"
    )


def _pixels(figure: Figure) -> np.ndarray:
    """(H, W, 3) uint8."""
    figure.set_dpi(_RESOLUTION)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def _write_film(pictures: list[np.ndarray], path: Path) -> None:
    from PIL import Image

    # One palette for all, of three of them: what does not move is then the same from frame to frame, and costs nothing.
    some = np.concatenate([pictures[0], pictures[len(pictures) // 2], pictures[-1]])
    palette = Image.fromarray(some).quantize(_COLOURS_OF_A_FILM, Image.Quantize.MAXCOVERAGE)
    frames = [Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    duration = [_MILLISECONDS] * (len(frames) - 1) + [_LAST]
    with replacing(path) as temporary:
        frames[0].save(
            temporary, format="GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0, optimize=False
        )
