"""Figures of samples: neighbours and lines pixel for pixel, modes by what their axes hold, films by their frames."""

import math

import numpy as np
import pytest
import torch

from pygan import DivergenceError, Momentum, Trainer, data, figures
from pygan.config import TrainerConfig
from pygan.data import Dataset
from pygan.diagnostics import mode_statistics
from pygan.figures import canvas, modes
from pygan.nn import MLP
from pygan.trainer import generate

GUTTER, YELLOW = [0x5C, 0x5C, 0x5C], [0xF0, 0xE4, 0x42]
HEAD = 24  # pixels of the line of labels


def pixels(path):
    """(H, W, 3) uint8."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def shown(images, shape):
    """(n, h, w, 3) of uint8 rows."""
    images = images.numpy().reshape(-1, shape[0] if len(shape) == 3 else 1, *shape[-2:])
    return np.broadcast_to(images, (len(images), 3, *shape[-2:])).transpose(0, 2, 3, 1)


# ---- neighbour_grid ----


@pytest.mark.parametrize("title", [None, "digits"])
@pytest.mark.parametrize(("shape", "columns", "scale"), [((8, 8), 4, 19), ((3, 5, 6), 2, 44)])
def test_beside_the_last_sample_of_a_row_is_its_neighbour(tmp_path, shape, columns, scale, title):
    rng = np.random.default_rng(0)
    d = math.prod(shape)
    examples = torch.from_numpy(rng.integers(0, 256, (50, d), dtype=np.uint8))
    samples = torch.from_numpy(rng.integers(0, 256, (3 * columns, d), dtype=np.uint8))
    nearest = [7, 7, 31]
    # Each sample at the end of a row is an example with one pixel a little changed.
    samples[columns - 1 :: columns] = examples[nearest]
    samples[columns - 1 :: columns, 0] ^= 4
    path = tmp_path / "neighbours.png"
    figures.neighbour_grid(samples, Dataset(examples, image_shape=shape), path, columns=columns, title=title)
    picture = pixels(path)[HEAD + (36 if title else 0) :]
    h, w = (scale * side for side in shape[-2:])
    assert picture.shape == (3 * (h + 4) + 4, columns * (w + 4) + 4 + 14 + w + 8, 3)
    left = picture.copy()
    for i, image in enumerate(shown(samples, shape)):
        y, x = 4 + i // columns * (h + 4), 4 + i % columns * (w + 4)
        np.testing.assert_array_equal(picture[y : y + h, x : x + w], image.repeat(scale, 0).repeat(scale, 1))
        left[y : y + h, x : x + w] = GUTTER
    frame = left.shape[1] - w - 8
    for i, image in enumerate(shown(examples[nearest], shape)):
        y, x = 4 + i * (h + 4), frame + 4
        np.testing.assert_array_equal(picture[y : y + h, x : x + w], image.repeat(scale, 0).repeat(scale, 1))
        left[y : y + h, x : x + w] = YELLOW
    assert (left[:, : frame - 14] == GUTTER).all()
    assert (left[:, frame - 14 : frame] == 255).all(), "the examples stand apart"
    assert (left[:, frame:] == YELLOW).all(), "in yellow frames"


def test_float_samples_meet_bytes_in_the_range_given(tmp_path):
    examples = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (30, 9), dtype=np.uint8))
    bytes_, floats = tmp_path / "a.png", tmp_path / "b.png"
    figures.neighbour_grid(examples[:6], examples.reshape(-1, 3, 3), bytes_, columns=3)
    samples = examples[:6].double() / 127.5 - 1
    figures.neighbour_grid(samples, examples.reshape(-1, 3, 3), floats, columns=3, value_range=(-1, 1))
    np.testing.assert_array_equal(pixels(bytes_), pixels(floats))


@pytest.mark.parametrize(
    ("samples", "examples", "options", "words"),
    [
        (torch.rand(8, 64), torch.rand(9, 64), {}, "data 'data' must be images, or a Dataset with an image_shape"),
        (torch.rand(8, 64), torch.rand(9, 8, 8), {}, "samples must fill rows of 9, got 8: give columns= or other"),
        (torch.rand(9, 63), torch.rand(9, 8, 8), {}, r"samples must be \(n, 64\) for images of \(8, 8\)"),
        (torch.rand(9, 64), torch.rand(9, 8, 8), {"columns": 0}, "columns must be .* at least 1, got 0"),
        (torch.rand(9, 64), torch.rand(9, 8, 8), {"padding": 0}, "padding must be .* at least 1, got 0"),
        (torch.rand(9, 64), torch.rand(9, 8, 8), {"value_range": (1, 0)}, "value_range must be"),
        (torch.full((9, 64), math.nan), torch.rand(9, 8, 8), {}, "samples: row 0, column 0 is nan"),
    ],
)
def test_neighbour_grid_refuses_in_a_sentence(tmp_path, samples, examples, options, words):
    with pytest.raises(ValueError, match=words):
        figures.neighbour_grid(samples, examples, tmp_path / "grid.png", **options)
    assert not list(tmp_path.iterdir())


# ---- interpolation ----


@pytest.fixture(params=["normal", "uniform"])
def trained(request):
    """A generator and its settings."""
    return MLP([3, 8, 16], output="sigmoid"), TrainerConfig(noise_dim=3, noise=request.param, seed=4)


def test_lines_run_between_samples(trained):
    generator, config = trained
    lines = figures.interpolate(generator, config, 3, 5, step=2)
    ends = generate(generator, 6, config, step=2, like=generator.flat_parameters())
    assert lines.shape == (3, 5, 16)
    torch.testing.assert_close(lines[:, 0], ends[:3], rtol=0, atol=0)
    torch.testing.assert_close(lines[:, -1], ends[3:], rtol=0, atol=0)


def test_noise_moves_in_equal_steps(trained):
    _, config = trained
    z = figures.interpolate(torch.nn.Linear(3, 3), config, 2, 4)  # a linear map keeps lines and their steps
    steps = z.diff(dim=1)
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), rtol=1e-5, atol=1e-6)
    assert steps.abs().min() > 1e-4


def test_dropout_is_off_and_its_mode_put_back():
    generator, config = MLP([3, 8, 4], dropout=0.5), TrainerConfig(noise_dim=3)
    generator.train()
    assert torch.equal(figures.interpolate(generator, config, 2, 3), figures.interpolate(generator, config, 2, 3))
    assert generator.training


@pytest.mark.parametrize(("shape", "scale"), [((4, 4), 66), ((1, 2, 8), 33)])
def test_every_pixel_of_the_lines_is_right(tmp_path, trained, shape, scale):
    generator, config = trained
    path = tmp_path / "lines.png"
    figures.interpolation_grid(generator, config, path, image_shape=shape, rows=2, columns=3)
    samples = figures.interpolate(generator, config, 2, 3).flatten(0, 1)
    images = shown((samples.double() * 255).round().to(torch.uint8), shape)
    picture = pixels(path)[HEAD:]
    h, w = (scale * side for side in shape[-2:])
    assert picture.shape == (2 * (h + 4) + 8, 3 * (w + 2) + 2, 3)
    left = picture.copy()
    for i, image in enumerate(images):
        y, x = 2 + i // 3 * (h + 12), 2 + i % 3 * (w + 2)
        np.testing.assert_array_equal(picture[y : y + h, x : x + w], image.repeat(scale, 0).repeat(scale, 1))
        left[y : y + h, x : x + w] = GUTTER
    assert (left[h + 4 : h + 12] == 255).all(), "lines stand apart"
    left[h + 4 : h + 12] = GUTTER
    assert (left == GUTTER).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rows": 0}, "rows must be a whole number of at least 1, got 0"),
        ({"columns": 1}, "columns must be a whole number of at least 2, got 1"),
        ({"step": -1}, "step must be a whole number of at least 0, got -1"),
        ({"padding": -1}, "padding must be"),
        ({"image_shape": (3, 3)}, r"samples must be \(n, 9\) for images of \(3, 3\), .* got shape \(88, 16\)"),
        ({"value_range": (1, 1)}, "value_range must be"),
        ({"rows": 20_000, "columns": 2}, "a grid of 40000 images would be .* pixels long"),
    ],
)
def test_interpolation_grid_refuses_in_a_sentence(tmp_path, options, words):
    generator, config = MLP([3, 8, 16], output="sigmoid"), TrainerConfig(noise_dim=3)
    with pytest.raises(ValueError, match=words):
        figures.interpolation_grid(generator, config, tmp_path / "lines.png", **{"image_shape": (4, 4), **options})
    assert not list(tmp_path.iterdir())


# ---- modes ----


def plane_trainer(examples=None, **options):
    torch.manual_seed(0)
    generator, discriminator = MLP([2, 8, 2]), MLP([2, 8, 1], activation="leaky_relu", dropout=[0, 0.5])
    examples = data.mixture("ring8", n=500) if examples is None else examples
    return Trainer(generator, discriminator, examples, batch_size=20, seed=3, **options)


def drawn(trainer, samples, title=None):
    """The axes of a map: the plane, and the bar of shades."""
    with canvas.style():
        return modes._draw(trainer, samples, title).axes


@pytest.mark.parametrize("kind", ["non_saturating", "minimax"])
def test_the_flow_is_minus_the_gradient_of_the_loss(kind):
    torch.manual_seed(0)
    discriminator = MLP([2, 8, 1], activation="tanh", dropout=[0, 0.5], dtype=torch.float64).train()
    x = torch.randn(10, 2, dtype=torch.float64)
    flow = figures.generator_flow(discriminator, x, kind=kind)
    assert discriminator.training

    def loss(x):
        a = discriminator.eval()(x)[:, 0]
        return torch.nn.functional.softplus(-a) if kind == "non_saturating" else -torch.nn.functional.softplus(a)

    h = 1e-6
    with torch.no_grad():
        slopes = [(loss(x + h * e) - loss(x - h * e)) / (2 * h) for e in torch.eye(2, dtype=torch.float64)]
    torch.testing.assert_close(flow, -torch.stack(slopes, dim=1), rtol=1e-6, atol=1e-9)


def test_the_map_shows_d_and_the_way_to_the_data():
    """D = sigmoid(x₁ - 2·x₀): light above, dark to the right; all arrows to the upper left."""
    trainer = plane_trainer()
    trainer.discriminator = torch.nn.Linear(2, 1)
    with torch.no_grad():
        trainer.discriminator.weight.copy_(torch.tensor([[-2.0, 1.0]]))
        trainer.discriminator.bias.zero_()
    axes, bar = drawn(trainer, 300)
    (image,) = axes.images
    shown = image.get_array()
    sides = [axes.get_xlim(), axes.get_ylim()]
    x, y = (low + (high - low) * (np.arange(len(shown)) + 0.5) / len(shown) for low, high in sides)
    np.testing.assert_allclose(shown, 1 / (1 + np.exp(2 * x[None, :] - y[:, None])), atol=1e-6)
    assert (image.origin, image.get_clim(), image.get_extent()) == ("lower", (0, 1), [*sides[0], *sides[1]])
    arrows = next(child for child in axes.get_children() if type(child).__name__ == "Quiver")
    np.testing.assert_allclose(arrows.U, -2 * arrows.V, rtol=1e-4)
    assert (arrows.V > 0).all()
    assert np.hypot(arrows.U, arrows.V).max() < np.ptp(sides[0]) / 21, "each arrow stays in its cell"
    # The stronger push, where D is low, is the longer arrow.
    order = np.argsort(-2 * arrows.X + arrows.Y)
    assert (np.diff(np.hypot(arrows.U, arrows.V)[order]) < 1e-9).all()
    assert bar.get_title() == "D(x)"


def test_the_map_names_what_it_shows():
    trainer = plane_trainer()
    trainer.run(3)
    axes = drawn(trainer, 300)[0]
    assert axes.get_title(loc="left") == "ring8, iteration 3"
    statistics = str(mode_statistics(trainer.sample(300, step=0), trainer.data))
    assert statistics in [text.get_text() for text in axes.texts]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["data", "samples", "flow of samples", "3σ of a mode"]
    assert (len(axes.patches), trainer.samples_drawn) == (8, 0)


def test_points_without_modes_are_drawn_too(tmp_path):
    examples = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (90, 2), dtype=np.uint8))
    trainer = plane_trainer(examples, pixel_range=(-1, 1), generator_loss="minimax")
    axes = drawn(trainer, 30, "bytes")[0]
    np.testing.assert_allclose(np.array(axes.lines[0].get_data()).T, examples[:30].numpy() / 127.5 - 1)
    assert not axes.patches
    assert axes.get_title(loc="left") == "bytes"


def test_a_film_trains_as_a_run_does(tmp_path):
    from PIL import Image

    trainer, other, seen = plane_trainer(), plane_trainer(), []
    trainer.run(2)
    path = figures.mode_film(
        trainer, tmp_path / "film.gif", iterations=7, frames=4, callback=lambda _, news: seen.append(len(news))
    )
    other.run(9)
    assert trainer.iteration == 9
    assert torch.equal(trainer.generator.flat_parameters(), other.generator.flat_parameters())
    assert sum(seen) == 7
    with Image.open(path) as film:
        assert (film.n_frames, film.info["loop"]) == (4, 0)
        assert film.size == (528, 540)
        durations = []
        for i in range(4):
            film.seek(i)
            durations.append(film.info["duration"])
    assert durations == [120, 120, 120, 2500]
    assert list(tmp_path.iterdir()) == [path]


def test_a_film_of_a_run_that_diverges_is_not_written(tmp_path):
    trainer = plane_trainer(optimizer=Momentum(lr=1e30))
    with pytest.raises(DivergenceError):
        figures.mode_film(trainer, tmp_path / "film.gif", iterations=50, frames=3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda folder: figures.mode_map(plane_trainer(), folder / "a.png", samples=0), "samples must be"),
        (
            lambda folder: figures.mode_film(plane_trainer(), folder / "a.png", iterations=9),
            "a film's name must end in",
        ),
        (
            lambda folder: figures.mode_film(plane_trainer(), folder / "a.gif", iterations=3, frames=5),
            "iterations must be a whole number of at least 4, got 3",
        ),
        (
            lambda folder: figures.mode_film(plane_trainer(), folder / "a.gif", iterations=3, frames=1),
            "frames must be a whole number of at least 2, got 1",
        ),
        (
            lambda folder: figures.mode_map(
                Trainer(MLP([2, 4, 3]), MLP([3, 4, 1]), torch.rand(9, 3), batch_size=4), folder / "a.png"
            ),
            r"the data must be points in the plane, got Dataset\('data': 9 x 3 float32\)",
        ),
        (
            lambda folder: figures.generator_flow(torch.nn.Linear(2, 1), torch.zeros(1, 2), kind="maximin"),
            "did you mean 'minimax'",
        ),
    ],
)
def test_modes_refuse_in_a_sentence(tmp_path, call, words):
    with pytest.raises(ValueError, match=words):
        call(tmp_path)
    assert not list(tmp_path.iterdir())


# ---- files ----

GENERATOR, CONFIG = MLP([3, 8, 16], output="sigmoid"), TrainerConfig(noise_dim=3)
DRAW = {
    "neighbour_grid": lambda path: figures.neighbour_grid(
        torch.rand(9, 64, generator=torch.Generator().manual_seed(0)), data.digits(), path
    ),
    "mode_map": lambda path: figures.mode_map(plane_trainer(), path, samples=50),
    "interpolation_grid": lambda path: figures.interpolation_grid(GENERATOR, CONFIG, path, image_shape=(4, 4)),
}


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
@pytest.mark.parametrize("name", DRAW)
def test_each_format_is_written_and_again_the_same(tmp_path, name, suffix):
    path = DRAW[name](str(tmp_path / f"figure{suffix}"))
    first = path.read_bytes()
    assert first.startswith({".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix])
    assert list(tmp_path.iterdir()) == [path], "no temporary file is left"
    if suffix == ".png":
        assert DRAW[name](path).read_bytes() == first


@pytest.mark.parametrize("name", DRAW)
def test_wrong_paths_are_refused_in_a_sentence(tmp_path, name):
    with pytest.raises(ValueError, match=r"a figure's name must end in .png, .pdf, .svg, got 'figure.jpg'"):
        DRAW[name](tmp_path / "figure.jpg")
    with pytest.raises(FileNotFoundError, match=r"absent is not a folder; make it before writing figure.png there"):
        DRAW[name](tmp_path / "absent" / "figure.png")
