"""Curves against the iteration."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .canvas import COLOURS, as_array, check_path, new_figure, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = 1000  # more points than a curve is wide are drawn as their range


def loss_curves(history: Any, path: str | os.PathLike, *, title: str | None = None) -> Path:
    """Writes the losses, and D(x) with D(G(z)), against the iteration, with their values at equilibrium.

    Each curve is faint as it was and strong as its moving average. At equilibrium D = 1/2, the loss of D is
    log 4, and that of G log 2 (non-saturating) or -log 2 (minimax, whose loss is always negative).

    Args:
        history: a `pygan.History`, or an object or mapping with d_loss, g_loss, d_real and d_fake, (n,) each,
            and with `first`, the number of their first iteration, if that is not 0. Values that are not
            finite are left out.
        path: a .png, .pdf or .svg file in a folder that exists; replaced whole if it is there.
        title: a line above the panels.

    Returns:
        path.

    Raises:
        ValueError: a curve that is missing, empty or of another length than the others, or another suffix.
        FileNotFoundError: the folder does not exist.

    >>> import tempfile
    >>> history = {name: np.linspace(1, 0.5, 9) for name in ("d_loss", "g_loss", "d_real", "d_fake")}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     loss_curves(history, f"{folder}/losses.png").name
    'losses.png'

    Source: the paper, section 4.1 (theorem 1).
    """
    path = check_path(path)
    iterations, curves = _columns(history, ("d_loss", "g_loss", "d_real", "d_fake"))
    d_level = math.log(4)
    g_level = math.copysign(math.log(2), np.nansum(np.sign(curves["g_loss"])))
    with style():
        figure = new_figure(9, 6.4)
        losses, outputs = figure.subplots(2, 1, sharex=True)
        figure.subplots_adjust(left=0.08, right=0.92, top=0.9 if title else 0.95, bottom=0.08, hspace=0.22)
        _curve(losses, iterations, curves["d_loss"], COLOURS["data"], "discriminator")
        _curve(losses, iterations, curves["g_loss"], COLOURS["model"], "generator")
        _level(losses, d_level, "log 4", COLOURS["data"])
        _level(losses, g_level, "log 2" if g_level > 0 else "\N{MINUS SIGN}log 2", COLOURS["model"])
        losses.set_ylim(_range(np.concatenate([curves["d_loss"], curves["g_loss"]]), g_level, d_level))
        losses.set_title("Loss")
        _curve(outputs, iterations, curves["d_real"], COLOURS["data"], "D(x), real")
        _curve(outputs, iterations, curves["d_fake"], COLOURS["model"], "D(G(z)), generated")
        _level(outputs, 0.5, "1/2", COLOURS["faint"])
        outputs.set(ylim=(0, 1), xlabel="iteration")
        outputs.xaxis.get_major_locator().set_params(integer=True)
        outputs.set_title("Mean output of the discriminator")
        for axes in (losses, outputs):
            axes.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=2, borderaxespad=0)
            if len(iterations) > 1:
                axes.set_xlim(iterations[0], iterations[-1])
        if title:
            figure.suptitle(title, x=0.08, ha="left", fontsize=12)
        save(figure, path)
    return path


def _columns(history: Any, names: tuple[str, ...]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The iterations' numbers, and the named curves, all of one length."""

    def get(name: str, default: Any = None) -> Any:
        return history.get(name, default) if isinstance(history, Mapping) else getattr(history, name, default)

    missing = [name for name in names if get(name) is None]
    if missing:
        raise ValueError(f"history must have {', '.join(names)}; it has no {', '.join(missing)}")
    curves = {name: as_array(get(name)).astype(np.float64) for name in names}
    shapes = {curve.shape for curve in curves.values()}
    n = curves[names[0]].size
    if n == 0 or shapes != {(n,)}:
        found = ", ".join(f"{name} {curve.shape}" for name, curve in curves.items())
        raise ValueError(f"history must have curves of one length, at least 1, got shapes {found}")
    return get("first", 0) + np.arange(float(n)), curves


def _curve(axes: Axes, x: np.ndarray, y: np.ndarray, colour: str, label: str) -> None:
    """The curve as it was, faint, and its moving average over a fiftieth of its length, strong."""
    y = np.where(np.isfinite(y), y, np.nan)
    marker = "o" if len(y) == 1 else None
    edges = np.unique(np.linspace(0, len(y), min(len(y), _BINS) + 1).astype(int))[:-1]
    counts = np.add.reduceat(np.isfinite(y).astype(float), edges)
    sums = np.add.reduceat(np.nan_to_num(y), edges)
    centres = np.add.reduceat(x, edges) / np.diff(np.append(edges, len(y)))
    if len(edges) < len(y):
        low, high = np.fmin.reduceat(y, edges), np.fmax.reduceat(y, edges)
        axes.fill_between(centres, low, high, color=colour, alpha=0.2, linewidth=0)
    else:
        axes.plot(x, y, color=colour, alpha=0.25, linewidth=0.8)
    window = np.ones(2 * (len(edges) // 100) + 1)
    weight = np.convolve(counts, window, mode="same")
    # No curve where there was no value: an average reaching past the end would hide where a run broke off.
    smooth = np.convolve(sums, window, mode="same") / np.where(counts > 0, weight, np.nan)
    axes.plot(centres, smooth, color=colour, label=label, marker=marker)


def _level(axes: Axes, value: float, name: str, colour: str) -> None:
    """A dashed line at an equilibrium value, named at its right end."""
    axes.axhline(value, color=colour, linestyle=(0, (4, 3)), linewidth=1)
    axes.annotate(name, (1, value), (6, 0), ("axes fraction", "data"), "offset points", color=colour, va="center")


def _range(values: np.ndarray, *levels: float) -> tuple[float, float]:
    """Limits that show the levels, and that a few wild iterations at the start cannot set."""
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, [0.5, 99.5]) if values.size else levels
    return 1.1 * min(0.0, low, *levels), 1.1 * max(high, *levels)
