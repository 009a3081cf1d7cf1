"""The two losses of a generator, and what is left of their gradients when the discriminator rejects."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pygan._files import together
from pygan._names import check_seed, check_whole
from pygan.theory import GradientStudy, generator_gradient, gradient_study

from .canvas import COLOURS, check_path, new_figure, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOGITS = np.linspace(-9.21, 9.21, 369)  # D from 1e-4 to 1 - 1e-4
_TICKS = {0.001: "0.001", 0.01: "0.01", 0.1: "0.1", 0.5: "1/2", 0.9: "0.9", 0.99: "0.99", 0.999: "0.999"}
# Name, colour, line and where the words stand: told apart without colour too.
_LOSSES = {
    "minimax": ("minimax, log(1 \N{MINUS SIGN} D)", COLOURS["model"], (0, (4, 2))),
    "non_saturating": ("non-saturating, \N{MINUS SIGN}log D", COLOURS["data"], "-"),
}


def generator_losses(
    path: str | os.PathLike, *more: str | os.PathLike, recipe: str = "digits", steps: int = 1000, seed: int = 0
) -> list[Path]:
    """Writes the generator's losses, their gradients, and both measured on a real generator.

    Left: each loss against D(G(z)), whose axis is even in the logit. Middle: the size of its derivative by the
    logit: minimax has next to none where D rejects, which is where a generator begins; the other has none where D
    is fooled. Right: the gradient's norm over all parameters of a recipe's generator, under each loss, while the
    discriminator learns and the generator stands still.

    Args:
        path: a .png, .pdf or .svg file in a folder that exists; replaced whole if it is there.
        more: likewise, of the same picture.
        recipe: whose networks and data are measured; by default the 8 x 8 digits.
        steps: of the discriminator, at least 2.
        seed: of networks, data order and noise.

    Returns:
        The files that were written: all of them, or none if that fails or is interrupted.

    Raises:
        ValueError: another suffix, an unknown recipe, or a number out of its range.
        FileNotFoundError: a folder does not exist.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in generator_losses(f"{folder}/losses.png", recipe="ring8", steps=5)]
    ['losses.png']

    Source: the paper, section 3; Arjovsky and Bottou 2017, figure 2 (the measurement).
    """
    paths, seed = [check_path(path) for path in (path, *more)], check_seed(seed)
    study = gradient_study(recipe=recipe, steps=check_whole(steps, "steps", least=2), seed=seed)
    with style():
        figure = new_figure(12, 4)
        values, derivatives, norms = figure.subplots(1, 3)
        figure.subplots_adjust(left=0.05, right=0.975, top=0.8, bottom=0.13, wspace=0.24)
        for kind, (name, colour, line) in _LOSSES.items():
            look = {"color": colour, "linestyle": line}
            loss, gradient = generator_gradient(_LOGITS, kind)
            values.plot(_LOGITS, loss, label=name, **look)
            derivatives.plot(_LOGITS, np.abs(gradient), **look)
            norms.plot(study.steps, getattr(study, kind), marker="o", markersize=3, **look)
        values.axhline(0, color=COLOURS["faint"], linewidth=0.6)
        values.set_yticks(range(-8, 9, 4))
        values.set_title("The generator's loss")
        derivatives.set_title("Size of its derivative by the logit of D")
        derivatives.set(yscale="log", ylim=(8e-5, 1.6))
        _probabilities(values)
        _probabilities(derivatives)
        _measured(norms, study, recipe)
        handles = [*values.get_legend_handles_labels()[0], *norms.get_legend_handles_labels()[0]]
        figure.legend(handles=handles, loc="upper center", ncols=3, borderaxespad=0.3)
        with together():
            for path in paths:
                save(figure, path)
    return paths


def _probabilities(axes: Axes) -> None:
    """D on an axis of its logit."""
    d = np.array(list(_TICKS))
    axes.set_xticks(np.log(d / (1 - d)), _TICKS.values(), fontsize=9)  # at 10, words touch
    axes.set(xlim=(_LOGITS[0], _LOGITS[-1]), xlabel="D(G(z))")
    axes.axvline(0, color=COLOURS["faint"], linewidth=0.6)


def _measured(axes: Axes, study: GradientStudy, recipe: str) -> None:
    """The axis of the right panel, and the mean of D(G(z)) in it."""
    axes.plot(study.steps, study.d_fake, color=COLOURS["faint"], linestyle=(0, (1, 1.4)), label="mean D(G(z)), right")
    axes.set_title(f"Gradient norm of a generator ({recipe})")
    axes.set(yscale="log", xlabel="steps that D has learnt, G standing still")
    axes.set_xscale("symlog", linthresh=1, linscale=0.5)
    shown = [0, *(10**i for i in range(int(np.log10(study.steps[-1])) + 1))]
    axes.set_xticks(shown, [f"{n:,}" for n in shown])
    axes.minorticks_off()
    axes.set_xlim(0, study.steps[-1])
