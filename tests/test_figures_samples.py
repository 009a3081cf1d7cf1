"""Figures of samples: neighbours and lines pixel for pixel, modes by what their axes hold, films by their frames."""

import math

import numpy as np
import pytest
import torch

from pygan import data, figures
from pygan.config import TrainerConfig
from pygan.data import Dataset
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


# ---- files ----

GENERATOR, CONFIG = MLP([3, 8, 16], output="sigmoid"), TrainerConfig(noise_dim=3)
DRAW = {
    "neighbour_grid": lambda path: figures.neighbour_grid(
        torch.rand(9, 64, generator=torch.Generator().manual_seed(0)), data.digits(), path
    ),
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
