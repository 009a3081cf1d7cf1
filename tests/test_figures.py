"""Figures: the pixels of a sample grid exactly, what the axes of the others show, and files written whole."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from pygan import data, figures
from pygan.figures import canvas, curves

GUTTER = [0x5C, 0x5C, 0x5C]
NAN = [0xD5, 0x5E, 0x00]


def pixels(path):
    """(H, W, 3) uint8."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def drawn(monkeypatch):
    """The figures in the order in which they were saved."""
    kept = []

    def save(figure, *arguments, **options):
        kept.append(figure)
        canvas.save(figure, *arguments, **options)

    for module in (figures.curves, figures.images, figures.plane):
        monkeypatch.setattr(module, "save", save)
    return kept


# ---- sample_grid ----


@pytest.mark.parametrize("title", [None, "iteration 4000"])
@pytest.mark.parametrize("n", [1, 9, 10, 23, 100])
@pytest.mark.parametrize(
    ("shape", "scale"),
    [
        ((8, 8), {1: 99, 9: 11}),
        ((28, 28), {1: 28, 9: 3}),
        ((1, 5, 7), {1: 113, 9: 12}),
        ((3, 32, 32), {1: 25, 9: 3}),
    ],
)
def test_every_pixel_of_a_grid_is_right(tmp_path, shape, scale, n, title):
    samples = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, math.prod(shape)), dtype=np.uint8))
    path = figures.sample_grid(samples, shape, tmp_path / "grid.png", title=title)
    picture = pixels(path)[36 if title else 0 :]
    columns, (h, w) = min(n, 10), shape[-2:]
    k = scale.get(n) or max(1, round((800 - 4 * (columns + 1)) / (columns * w)))
    rows = math.ceil(n / columns)
    assert picture.shape == (rows * (k * h + 4) + 4, columns * (k * w + 4) + 4, 3)
    images = np.broadcast_to(samples.numpy().reshape(n, -1, h, w), (n, 3, h, w)).transpose(0, 2, 3, 1)
    left = picture.copy()
    for i in range(n):
        y, x = 4 + (i // columns) * (k * h + 4), 4 + (i % columns) * (k * w + 4)
        cell = picture[y : y + k * h, x : x + k * w]
        np.testing.assert_array_equal(cell, images[i].repeat(k, axis=0).repeat(k, axis=1))
        left[y : y + k * h, x : x + k * w] = GUTTER
    assert (left == GUTTER).all(), "between the images is nothing but the gutter"


def test_a_grid_of_thousands_is_about_square(tmp_path):
    samples = torch.zeros(20_000, 64)
    samples[142] = 1  # the first of the second row
    picture = pixels(figures.sample_grid(samples, (8, 8), tmp_path / "grid.png"))
    assert picture.shape == (141 * 12 + 4, 142 * 12 + 4, 3)
    assert (picture[16:24, 4:12] == 255).all()
    with pytest.raises(ValueError, match=r"a grid of 20000 images would be .* pixels long, above \d+: draw fewer"):
        figures.sample_grid(samples, (8, 8), tmp_path / "long.png", columns=1)


def test_a_grid_of_digits_is_about_800_pixels_wide(tmp_path):
    digits = data.digits()
    path = figures.sample_grid(digits.values[:100], digits.image_shape, tmp_path / "digits.png")
    assert pixels(path).shape == (764, 764, 3)


@pytest.mark.parametrize(
    ("values", "options", "shown"),
    [
        ([0.0, 0.5, 1.0, -3.0, 7.0, math.inf, -math.inf], {}, [0, 128, 255, 0, 255, 255, 0]),
        ([-1.0, 0.0, 1.0, 0.2], {"value_range": (-1, 1)}, [0, 128, 255, 153]),
        (torch.tensor([0, 128, 255], dtype=torch.uint8), {"value_range": (-1, 1)}, [0, 128, 255]),
        (torch.tensor([0.0, 1.0], dtype=torch.bfloat16).requires_grad_(), {}, [0, 255]),
        (np.array([0.0, 1.0], dtype=np.float64), {}, [0, 255]),
        (torch.tensor([False, True]), {}, [0, 255]),
    ],
)
def test_values_become_grey_levels(tmp_path, values, options, shown):
    samples = torch.tensor(values) if isinstance(values, list) else values
    samples = samples.reshape(-1, 1)
    path = figures.sample_grid(samples, (1, 1), tmp_path / "grid.png", columns=1, padding=0, **options)
    picture = pixels(path)
    size = len(picture) // len(samples)
    assert picture[size // 2 :: size, 0, 0].tolist() == shown


def test_nan_is_seen(tmp_path):
    samples = torch.full((2, 4), 0.5)
    samples[1, 2] = math.nan
    picture = pixels(figures.sample_grid(samples, (2, 2), tmp_path / "grid.png", columns=2, padding=0))
    half = len(picture) // 2
    assert (picture[half:, 2 * half : 3 * half] == NAN).all()
    assert (picture[:half] == 128).all()


def test_samples_may_come_as_images(tmp_path):
    images = torch.rand(4, 3, 5, 6)
    first = figures.sample_grid(images, (3, 5, 6), tmp_path / "a.png")
    second = figures.sample_grid(images.flatten(1), (3, 5, 6), tmp_path / "b.png")
    np.testing.assert_array_equal(pixels(first), pixels(second))


@pytest.mark.parametrize(
    ("samples", "shape", "options", "words"),
    [
        (
            torch.rand(4, 64),
            (8, 9),
            {},
            r"samples must be \(n, 72\) for images of \(8, 9\), .* got shape \(4, 64\)",
        ),
        (torch.rand(0, 64), (8, 8), {}, r"with n at least 1, got shape \(0, 64\)"),
        (torch.rand(64), (8, 8), {}, r"got shape \(64,\)"),
        (
            torch.rand(4, 64),
            (64,),
            {},
            r"image_shape must be \(h, w\), \(1, h, w\) or \(3, h, w\), got \(64,\)",
        ),
        (torch.rand(4, 64), (2, 4, 8), {}, r"image_shape must be .* got \(2, 4, 8\)"),
        (torch.rand(4, 64), (8, 8), {"columns": 0}, "columns must be a whole number of at least 1, got 0"),
        (torch.rand(4, 64), (8, 8), {"padding": -1}, "padding must be a whole number of at least 0, got -1"),
        (torch.rand(4, 64), (8, 8), {"value_range": (1, 1)}, r"value_range must be .* got \(1, 1\)"),
    ],
)
def test_sample_grid_refuses_in_a_sentence(tmp_path, samples, shape, options, words):
    with pytest.raises(ValueError, match=words):
        figures.sample_grid(samples, shape, tmp_path / "grid.png", **options)
    assert not list(tmp_path.iterdir())


# ---- loss_curves ----


class Run:
    """What a trainer's history looks like."""

    def __init__(self, n, first=0, minimax=False):
        wave = np.sin(np.arange(n))
        self.d_loss, self.g_loss = math.log(4) + 0.1 * wave, (1 - 2 * minimax) * (math.log(2) + 0.1 * wave)
        self.d_real, self.d_fake = 0.5 + 0.1 * wave, 0.5 - 0.1 * wave
        self.first = first


def levels(axes):
    """{name: height} of the dashed lines."""
    return {text.get_text(): text.xy[1] for text in axes.texts}


@pytest.mark.parametrize("n", [1, 2, 50, 3000])
def test_losses_and_outputs_with_their_equilibrium(tmp_path, drawn, n):
    path = figures.loss_curves(Run(n, first=100), tmp_path / "losses.png", title="ring8")
    assert pixels(path).shape == (960, 1350, 3)
    losses, outputs = drawn[0].axes
    assert levels(losses) == {"log 4": math.log(4), "log 2": math.log(2)}
    assert levels(outputs) == {"1/2": 0.5}
    assert [text.get_text() for text in losses.get_legend().get_texts()] == ["discriminator", "generator"]
    assert outputs.get_ylim() == (0, 1)
    x = next(line.get_xdata() for line in losses.lines if line.get_label() == "generator")
    assert x[0] == pytest.approx(100, abs=max(1, n / 1000))
    if n > 1:
        assert losses.get_xlim() == (100, 99 + n)


def test_the_minimax_loss_is_known_by_its_sign(tmp_path, drawn):
    figures.loss_curves(Run(20, minimax=True), tmp_path / "losses.png")
    losses = drawn[0].axes[0]
    assert levels(losses) == {"log 4": math.log(4), "\N{MINUS SIGN}log 2": -math.log(2)}
    assert losses.get_ylim()[0] < -math.log(2)


def test_histories_of_any_kind_draw_the_same(tmp_path):
    run = Run(30)
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    names = ("d_loss", "g_loss", "d_real", "d_fake")
    figures.loss_curves(run, paths[0])
    figures.loss_curves({name: getattr(run, name).tolist() for name in names}, paths[1])
    figures.loss_curves({name: torch.from_numpy(getattr(run, name)) for name in names}, paths[2])
    assert paths[0].read_bytes() == paths[1].read_bytes() == paths[2].read_bytes()


def test_a_run_that_diverged_is_drawn_up_to_there(tmp_path, drawn):
    run = Run(4000)
    run.d_loss[2500:] = np.nan
    run.d_loss[2499] = np.inf
    run.g_loss[:] = np.nan
    figures.loss_curves(run, tmp_path / "losses.png")
    losses = drawn[0].axes[0]
    curve = next(line for line in losses.lines if line.get_label() == "discriminator")
    x, y = curve.get_data()
    assert np.isfinite(y[x < 2495]).all()
    assert np.isnan(y[x > 2505]).all()
    assert np.nanmax(np.abs(y - math.log(4))) < 0.1
    assert "log 2" in levels(losses)


def test_wild_iterations_do_not_set_the_limits(tmp_path, drawn):
    run = Run(1000)
    run.g_loss[:3] = 1e6
    figures.loss_curves(run, tmp_path / "losses.png")
    assert drawn[0].axes[0].get_ylim()[1] < 2


@pytest.mark.parametrize("n", [7, 999, 1000, 1001, 12_345])
def test_the_strong_curve_is_a_moving_average(n):
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    y = np.random.default_rng(0).standard_normal(n) + np.linspace(0, 5, n)
    curves._curve(axes, np.arange(float(n)), y, "k", "curve")
    x, smooth = axes.lines[-1].get_data()
    assert len(x) <= 1000
    radius = max(n // 100, 1) * 1.5
    for i in range(0, len(x), 50):
        near = y[max(0, int(x[i] - radius)) : int(x[i] + radius) + 2]
        assert near.min() <= smooth[i] <= near.max()
    assert abs(smooth.mean() - y.mean()) < 0.2


@pytest.mark.parametrize(
    ("history", "words"),
    [
        ({}, "history must have d_loss, g_loss, d_real, d_fake; it has no d_loss, g_loss, d_real, d_fake"),
        (object(), "it has no d_loss"),
        (Run(0), r"one length, at least 1, got shapes d_loss \(0,\)"),
        ({**vars(Run(3)), "d_fake": np.zeros(4)}, r"one length, .* d_fake \(4,\)"),
        ({**vars(Run(3)), "d_loss": np.zeros((3, 1))}, r"got shapes d_loss \(3, 1\)"),
    ],
)
def test_loss_curves_refuse_in_a_sentence(tmp_path, history, words):
    with pytest.raises(ValueError, match=words):
        figures.loss_curves(history, tmp_path / "losses.png")


# ---- scatter_2d ----


def test_samples_over_a_mixture(tmp_path, drawn):
    ring = data.mixture("ring8", n=7000)
    samples = data.mixture("ring8", n=400, seed=1).values
    samples[:3] = torch.tensor([[50.0, 0.0], [0.0, -50.0], [math.nan, 0.0]])
    path = figures.scatter_2d(samples, ring, tmp_path / "ring.png", title="ring8")
    assert pixels(path).shape == (1020, 960, 3)
    axes = drawn[0].axes[0]
    (text,) = axes.texts
    assert text.get_text() == "3 of 400 samples outside"
    text, ticks = text.get_window_extent(), axes.xaxis.get_tightbbox()
    assert 0 < text.y0 < text.y1 < ticks.y0, "it stands below the points and the numbers of the axis"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["data", "samples", "3σ of a mode"]
    assert len(axes.lines[0].get_xdata()) == 5000, "no more points than can be told apart"
    assert len(axes.patches) == 8
    assert {round(circle.radius, 6) for circle in axes.patches} == {0.06}
    assert axes.get_xlim()[0] < -2.05
    assert axes.get_xlim()[1] > 2.05
    assert np.ptp(axes.get_xlim()) == pytest.approx(np.ptp(axes.get_ylim()))


@pytest.mark.parametrize("real", [torch.randn(50, 2), np.random.default_rng(0).random((50, 2)), torch.zeros(1, 2)])
def test_samples_over_data_without_modes(tmp_path, drawn, real):
    figures.scatter_2d(np.zeros((1, 2)), real, tmp_path / "points.png")
    axes = drawn[0].axes[0]
    assert not axes.patches
    assert len(axes.get_legend().get_texts()) == 2


@pytest.mark.parametrize(
    ("samples", "real", "words"),
    [
        (
            torch.zeros(4, 3),
            torch.zeros(4, 2),
            r"samples must be \(n, 2\) with n at least 1, got shape \(4, 3\)",
        ),
        (
            torch.zeros(0, 2),
            torch.zeros(4, 2),
            r"samples must be \(n, 2\) with n at least 1, got shape \(0, 2\)",
        ),
        (
            torch.zeros(4, 2),
            torch.zeros(4, 5),
            r"data must be \(n, 2\) with n at least 1, got shape \(4, 5\)",
        ),
        (torch.zeros(4, 2), torch.tensor([[0.0, math.nan]]), "data: row 0, column 1 is nan"),
    ],
)
def test_scatter_refuses_in_a_sentence(tmp_path, samples, real, words):
    with pytest.raises(ValueError, match=words):
        figures.scatter_2d(samples, real, tmp_path / "points.png")


# ---- files ----

DRAW = {
    "sample_grid": lambda path: figures.sample_grid(torch.zeros(4, 4), (2, 2), path, title="title"),
    "loss_curves": lambda path: figures.loss_curves(Run(5), path),
    "scatter_2d": lambda path: figures.scatter_2d(torch.zeros(4, 2), torch.rand(4, 2), path),
}


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".pdf", ".svg"])
@pytest.mark.parametrize("name", DRAW)
def test_each_format_is_written(tmp_path, name, suffix):
    path = DRAW[name](str(tmp_path / f"figure{suffix}"))
    start = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix.lower()]
    assert path.read_bytes().startswith(start)
    assert list(tmp_path.iterdir()) == [path], "no temporary file is left"


@pytest.mark.parametrize("name", DRAW)
def test_wrong_paths_are_refused_in_a_sentence(tmp_path, name):
    with pytest.raises(ValueError, match=r"a figure's name must end in .png, .pdf, .svg, got 'figure.jpg'"):
        DRAW[name](tmp_path / "figure.jpg")
    with pytest.raises(FileNotFoundError, match=r"absent is not a folder; make it before writing figure.png there"):
        DRAW[name](tmp_path / "absent" / "figure.png")


@pytest.mark.parametrize("name", DRAW)
def test_a_failure_leaves_the_old_picture_and_nothing_else(tmp_path, monkeypatch, name):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="the disk is full"):
            DRAW[name](path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    DRAW[name](path)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", DRAW)
def test_the_same_figure_has_the_same_bytes(tmp_path, name):
    torch.manual_seed(0)
    first = DRAW[name](tmp_path / "a.png").read_bytes()
    torch.manual_seed(0)
    assert DRAW[name](tmp_path / "b.png").read_bytes() == first


def test_no_global_state_of_matplotlib_is_touched(tmp_path):
    code = f"""
import matplotlib, sys
def settings():  # but the backend: to ask for it is to choose one, by importing pyplot
    return {{key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}}

before = settings()
import torch
from pygan import figures
figures.sample_grid(torch.zeros(4, 4), (2, 2), {str(tmp_path / "a.png")!r}, title="title")
figures.loss_curves(dict(d_loss=[1], g_loss=[1], d_real=[1], d_fake=[1]), {str(tmp_path / "b.png")!r})
figures.scatter_2d(torch.zeros(4, 2), torch.rand(4, 2), {str(tmp_path / "c.png")!r})
assert settings() == before
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
