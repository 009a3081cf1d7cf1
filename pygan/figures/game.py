"""The game on the line, as the paper draws it: densities, discriminator, and the map from noise to data."""

from __future__ import annotations

import functools
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pygan import ops, random
from pygan._files import replacing, together
from pygan._names import check_seed, check_whole
from pygan.nn import MLP
from pygan.optim import Adam, Optimizer
from pygan.theory import gaussian, jsd, train_discriminator
from pygan.theory.divergences import sigmoid
from pygan.trainer import Trainer

from .canvas import COLOURS, check_path, new_figure, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MEAN, _STD = 3.0, 2.0
_DENSITY = gaussian(_MEAN, _STD)
_X = np.linspace(_MEAN - 4 * _STD, _MEAN + 4 * _STD, 401)
_SCALE = 2 * _STD  # densities are drawn so many times as high: they have no unit in common with D
_GREEN = "#009E73"  # the paper's p_g is green; Okabe and Ito's
_WIDTH = 0.1  # standard deviation of the kernel that p_g is smoothed with
_TITLES = ("(a) D not yet at its best", "(b) D trained to D*", "(c) G has followed D", "(d) equilibrium: D near 1/2")
_NOISE = math.sqrt(3)  # z is uniform between -this and this
_BATCH = 256


class _Stage(NamedTuple):
    """A stretch of Algorithm 1, three steps of D to one of G; the learning rates fall from stage to stage."""

    share: float
    batch_size: int
    g_lr: float
    d_lr: float


_STAGES = (
    _Stage(0.18, 128, 1e-3, 4e-3),
    _Stage(0.35, 256, 1e-3, 4e-3),
    _Stage(0.35, 256, 4e-4, 2e-3),
    _Stage(0.12, 512, 1e-4, 1e-3),
)
_NEAR = 0.15  # the JSD at which training is interrupted for panel (a)
_DONE = 0.02  # the JSD below which panel (d) is the equilibrium
_D_ALONE, _G_ALONE = 800, 60  # steps of one player before panels (b) and (c), at most
_D_STREAM, _G_STREAM = 99, 98  # of the random numbers of those steps, used by nobody else
_D_RULE, _G_RULE = Adam(lr=4e-3, betas=(0.0, 0.99)), Adam(lr=5e-4, betas=(0.0, 0.99))


@dataclass(frozen=True, eq=False)
class _Moment:
    """What a panel shows: log p_g and D at `_X`, G at evenly spaced z, and what was going on."""

    words: str
    log_p_g: np.ndarray
    d: np.ndarray
    z: np.ndarray
    g_of_z: np.ndarray

    @property
    def p_g(self) -> np.ndarray:
        return np.exp(self.log_p_g)


def figure_1(
    path: str | os.PathLike,
    *more: str | os.PathLike,
    animation: str | os.PathLike | None = None,
    iterations: int = 3400,
    seed: int = 0,
) -> list[Path]:
    """Trains a generator on the line and writes four moments of the run, as in figure 1 of the paper.

    Above, the data's density (dotted), p_g (solid), D (dashed) and, thin, D* = p_data / (p_data + p_g); below, how G
    carries evenly spaced z to x. (a) Training is interrupted on its way. (b) D alone has learnt, up to D*. (c) G
    alone has learnt, as long as it came nearer. (d) Training has gone on to its end: p_g is p_data and D is 1/2,
    as far as G reaches: z is uniform, so some x lie outside, and there D is 1.

    p_g is the density of G at 8000 evenly spaced z, smoothed by a kernel of a twentieth of the data's deviation.
    Densities have a scale of their own, in which the data's reaches 0.8.

    Args:
        path: a .png, .pdf or .svg file in a folder that exists; replaced whole if it is there.
        more: likewise, of the same picture.
        animation: a .gif file in a folder that exists, for the whole run; None writes none.
        iterations: of Algorithm 1; by default as many as bring p_g to the data.
        seed: of networks, data and noise.

    Returns:
        The files that were written: all of them, or none if that fails or is interrupted.

    Raises:
        ValueError: another suffix, fewer than 10 iterations, or a seed below 0.
        FileNotFoundError: a folder does not exist.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in figure_1(f"{folder}/game.png", iterations=10)]
    ['game.png']

    Source: the paper, figure 1.
    """
    paths = [check_path(path) for path in (path, *more)]
    animation = None if animation is None else check_path(animation, (".gif",), "an animation")
    moments, chosen = _play(check_whole(iterations, "iterations", least=10), check_seed(seed))
    with style():
        figure = new_figure(12, 4.2)
        columns = figure.subplots(2, 4, gridspec_kw={"height_ratios": (3, 1)}).T
        figure.subplots_adjust(left=0.045, right=0.985, top=0.78, bottom=0.06, wspace=0.12, hspace=0.06)
        for title, i, axes in zip(_titles(iterations, moments[-1]), chosen, columns, strict=True):
            _draw(*axes, moments[i])
            axes[0].set_title(title, pad=22)
        for above, _ in columns[1:]:
            above.set_yticklabels([])
        _legend(figure, columns[0, 0])
        with together():
            for path in paths:
                save(figure, path)
            if animation is not None:
                _animate(moments, chosen, animation)
    return paths if animation is None else [*paths, animation]


def _titles(iterations: int, end: _Moment) -> tuple[str, ...]:
    """What the panels show; a short run has not come as far as the paper's."""
    titles = list(_TITLES)
    if iterations < _D_ALONE:
        titles[1] = f"(b) D alone, {iterations} steps"
    if _divergence(end) > _DONE:
        titles[3] = f"(d) after {iterations:,} iterations"
    return tuple(titles)


def _play(iterations: int, seed: int) -> tuple[list[_Moment], list[int]]:
    """The whole run as moments, and which of them are panels (a) to (d)."""
    data = _DENSITY.sample(50_000, seed=seed).astype(np.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = MLP([1, 32, 32, 1], activation="elu"), MLP([1, 32, 32, 1], activation="softplus")
    lengths = [max(1, round(stage.share * iterations)) for stage in _STAGES[:-1]]
    lengths.append(iterations - sum(lengths))
    trainers = [_trainer(*networks, data, stage, seed) for stage in _STAGES]
    moments, chosen, first = [_look(*networks, "at the start")], [], trainers[0]
    while first.iteration < lengths[0] and _divergence(moments[-1]) > _NEAR:
        first.run(min(4, lengths[0] - first.iteration))
        moments.append(_look(*networks, f"iteration {first.iteration}"))
    chosen.append(len(moments) - 1)
    moments += _d_alone(first, data, min(_D_ALONE, iterations))
    chosen.append(len(moments) - 1)
    moments += _g_alone(first, moments[-1])
    chosen.append(len(moments) - 1)
    done = 0
    for trainer, length in zip(trainers, lengths, strict=True):
        while trainer.iteration < length:
            trainer.run(min(max(10, (done + trainer.iteration) // 12), length - trainer.iteration))
            moments.append(_look(*networks, f"iteration {done + trainer.iteration}"))
        done += length
    chosen.append(len(moments) - 1)
    return moments, chosen


def _trainer(generator: MLP, discriminator: MLP, data: np.ndarray, stage: _Stage, seed: int) -> Trainer:
    rules = replace(_G_RULE, lr=stage.g_lr), replace(_D_RULE, lr=stage.d_lr)
    options = {"batch_size": stage.batch_size, "k": 3, "noise": "uniform", "optimizer": rules, "seed": seed}
    return Trainer(generator, discriminator, data, **options)


def _d_alone(trainer: Trainer, data: np.ndarray, steps: int) -> list[_Moment]:
    """D learns while G stands still."""
    networks, moments = (trainer.generator, trainer.discriminator), []
    real, seed = torch.from_numpy(data), trainer.config.seed

    def samples(t: int) -> tuple[Tensor, Tensor]:
        rows = ops.minibatch_indices(len(real), _BATCH, start=t * _BATCH, seed=seed, offset=random.offset(_D_STREAM))
        with torch.no_grad():
            return real[rows], trainer.generator(_noise(seed, _D_STREAM, t))

    def look(step: int) -> None:
        if step == steps or (step and step % (1 + steps // 8) == 0):
            moments.append(_look(*networks, f"D alone, step {step}"))

    train_discriminator(trainer.discriminator, samples, steps, callback=look)
    return moments


def _g_alone(trainer: Trainer, before: _Moment) -> list[_Moment]:
    """G learns while D stands still, for as long as that brings p_g nearer to the data."""
    generator, discriminator = trainer.generator, trainer.discriminator
    optimizer, seed, moments = Optimizer(_G_RULE, generator.parameters()), trainer.config.seed, [before]
    for t in range(_G_ALONE):
        loss = ops.generator_loss(discriminator(generator(_noise(seed, _G_STREAM, t))))
        optimizer.update_(torch.autograd.grad(loss, optimizer.parameters), update=t, epoch=1)
        moments.append(_look(generator, discriminator, f"G alone, step {t + 1}"))
        if _divergence(moments[-1]) > _divergence(moments[-2]):
            break
    # Every fourth, and the last.
    return moments[:0:-4][::-1]


def _noise(seed: int, stream: int, step: int) -> Tensor:
    return ops.noise((_BATCH, 1), kind="uniform", seed=seed, offset=random.offset(stream, step))


@torch.no_grad()
def _look(generator: MLP, discriminator: MLP, words: str) -> _Moment:
    d = discriminator(torch.from_numpy(_X).float()[:, None]).sigmoid()[:, 0].double().numpy()
    # The middles of 8000 intervals of one probability: a sample of G without chance in it.
    x = generator(torch.from_numpy(_even(8000)).float()[:, None])[:, 0].double().numpy()
    edges, log_kernel = _log_kernel()
    counts = np.histogram(x, edges)[0]
    log_mass, log_kernel = np.log(counts[counts > 0] / len(x)), log_kernel[:, counts > 0]
    z = _even(21)
    g_of_z = generator(torch.from_numpy(z).float()[:, None])[:, 0].double().numpy()
    log_p_g = np.logaddexp.reduce(log_kernel + log_mass, axis=1)  # -inf where G reaches nothing of the picture
    return _Moment(words, log_p_g, d, z, g_of_z)


@functools.cache
def _log_kernel() -> tuple[np.ndarray, np.ndarray]:
    """The edges of fine bins, (b + 1,), and the logarithm of what mass in each adds to the density at `_X`, (n, b)."""
    edges = np.linspace(_X[0] - _STD, _X[-1] + _STD, 2001)
    distance = _X[:, None] - (edges[1:] + edges[:-1]) / 2
    return edges, gaussian(0, _WIDTH).log_pdf(distance.ravel()).reshape(distance.shape)


def _even(n: int) -> np.ndarray:
    return _NOISE * (2 * (np.arange(n) + 0.5) / n - 1)


def _divergence(moment: _Moment) -> float:
    p_data = _DENSITY.pdf(_X)
    return jsd(p_data / p_data.sum(), moment.p_g / moment.p_g.sum()) if moment.p_g.any() else math.log(2)


def _draw(above: Axes, below: Axes, moment: _Moment) -> None:
    """A panel: densities and D, and under them the arrows from z to x."""
    p_data = _DENSITY.pdf(_X)
    optimal = sigmoid(_DENSITY.log_pdf(_X) - moment.log_p_g)  # where both densities are next to nothing, too
    above.axhline(0.5, color=COLOURS["faint"], linewidth=0.6)
    above.plot(_X, _SCALE * p_data, color="black", linestyle=(0, (1, 1.4)), label="data")
    above.plot(_X, _SCALE * moment.p_g, color=_GREEN, label="generated, $p_g$")
    above.plot(_X, optimal, color=COLOURS["faint"], linewidth=1, label="$D^*$")
    above.plot(_X, moment.d, color=COLOURS["data"], linestyle=(0, (4, 2)), label="$D(x)$")
    above.set(xlim=(_X[0], _X[-1]), ylim=(0, 1.25), xticks=())
    above.set_yticks((0, 0.5, 1), ("0", "1/2", "1"))
    above.spines["left"].set_bounds(0, 1)
    about = f"{moment.words}; JSD {_divergence(moment):.3f}"
    above.text(0, 1.03, about, transform=above.transAxes, color=COLOURS["gutter"], fontsize=9)
    z = _X[0] + (moment.z + _NOISE) / (2 * _NOISE) * (_X[-1] - _X[0])
    places = {"angles": "xy", "scale_units": "xy", "scale": 1}
    looks = {"color": COLOURS["ink"], "units": "inches", "width": 0.012, "headwidth": 5, "headlength": 6}
    below.quiver(z, np.zeros_like(z), moment.g_of_z - z, np.ones_like(z), **places, **looks)
    below.set(xlim=(_X[0], _X[-1]), ylim=(0, 1), xticks=(), yticks=())
    below.spines[["bottom", "top"]].set_visible(True)
    below.spines["left"].set_visible(False)
    for height, name in ((1, "$x$"), (0, "$z$")):
        below.text(1.01, height, name, transform=below.transAxes, va="center")


def _legend(figure: Figure, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="upper center", ncols=4, borderaxespad=0.3)


def _animate(moments: list[_Moment], chosen: list[int], path: Path) -> None:
    """A frame a moment, those of the panels longer; all frames in the colours of the one with the most."""
    from PIL import Image

    figure = new_figure(6.4, 4.6)
    above, below = figure.subplots(2, 1, gridspec_kw={"height_ratios": (3, 1)})
    figure.subplots_adjust(left=0.07, right=0.95, top=0.84, bottom=0.06, hspace=0.06)
    frames = []
    for moment in moments:
        above.clear()
        below.clear()
        _draw(above, below, moment)
        if not frames:
            _legend(figure, above)
        figure.canvas.draw()
        frames.append(Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB"))
    palette = frames[chosen[0]].quantize(64, dither=Image.Dither.NONE)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [1200 if i in chosen else 90 for i in range(len(frames))]  # milliseconds
    durations[-1] = 2500
    with replacing(path) as temporary:
        frames[0].save(
            temporary, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False
        )
