"""Noise: the bits of the twin, and the statistics of what was asked for."""

import math

import pytest
import torch

import pygan
from cases import DTYPES, REJECTED, assert_checked, dtype_id, words
from pygan import reference
from pygan.random import offset

N = 1 << 18
KINDS = ("normal", "uniform")
SIZES = [(0,), (1,), (2,), (3,), (4,), (5,), (7, 11), (64, 100), (2, 0, 3), (3, 5, 7), (100003,)]
KEYS = [(0, 0), (1, 0), (2**63 - 1, (3 << 48) + 5), (-1, -1), (2**40 + 7, 2**33 + 1)]


def draw(kind, count=N, *, seed=1, offset=0):
    return pygan.ops.noise((count,), kind=kind, seed=seed, offset=offset).double()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("key", KEYS, ids=str)
def test_uniform_has_the_bits_of_the_twin(size, key, device):
    got = pygan.ops.noise(size, kind="uniform", seed=key[0], offset=key[1], device=device)
    assert got.device.type == device.type
    assert torch.equal(got.cpu(), reference.noise(size, kind="uniform", seed=key[0], offset=key[1]))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("key", KEYS, ids=str)
def test_normal_is_within_the_last_places_of_the_transform(size, key, device):
    got = pygan.ops.noise(size, kind="normal", seed=key[0], offset=key[1], device=device).cpu()
    exact = reference.noise(size, kind="normal", seed=key[0], offset=key[1])
    # r cos and r sin: the error of the angle counts, whatever the size of the cosine.
    torch.testing.assert_close(got, exact, rtol=4e-7, atol=5e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_every_dtype_is_the_float32_noise_rounded(kind, dtype, device):
    one = pygan.ops.noise((13, 7), kind=kind, seed=5, offset=6, dtype=dtype, device=device)
    wide = pygan.ops.noise((13, 7), kind=kind, seed=5, offset=6, dtype=torch.float32, device=device)
    assert one.dtype == dtype
    assert torch.equal(one, wide.to(dtype))


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_follow_torch(kind):
    assert pygan.ops.noise((3,), kind=kind, seed=0, offset=0).dtype == torch.get_default_dtype()
    assert torch.equal(pygan.ops.noise((3,), seed=0, offset=0), pygan.ops.noise((3,), kind="normal", seed=0, offset=0))


@pytest.mark.parametrize("kind", KINDS)
def test_an_element_does_not_depend_on_the_size(kind):
    long = pygan.ops.noise((1001,), kind=kind, seed=8, offset=9)
    for size in ((1,), (2,), (3,), (999,), (7, 143)):
        short = pygan.ops.noise(size, kind=kind, seed=8, offset=9).flatten()
        assert torch.equal(short, long[: short.numel()])


@pytest.mark.parametrize("kind", KINDS)
def test_thread_counts_give_the_same_bits(kind, set_threads):
    set_threads(1)
    one = pygan.ops.noise((1000, 100), kind=kind, seed=8, offset=9)
    set_threads(2)
    assert torch.equal(one, pygan.ops.noise((1000, 100), kind=kind, seed=8, offset=9))


def test_global_generator_is_untouched():
    before = torch.get_rng_state()
    pygan.ops.noise((100,), seed=0, offset=0)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("kind", KINDS)
def test_moments(kind):
    x = draw(kind)
    fourth, sixth = (3.0, 15.0) if kind == "normal" else (9.0 / 5.0, 27.0 / 7.0)
    # A mean of N numbers is off by less than 4 standard errors.
    assert abs(x.mean()) < 4.0 / math.sqrt(N)
    assert abs((x**2).mean() - 1.0) < 4.0 * math.sqrt((fourth - 1.0) / N)
    assert abs((x**3).mean()) < 4.0 * math.sqrt(sixth / N)
    assert abs((x**4).mean() - fourth) < 0.05
    assert x.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_distribution_by_kolmogorov_and_smirnov(kind):
    x = draw(kind).sort().values
    cdf = torch.special.ndtr(x) if kind == "normal" else (x / math.sqrt(3.0) + 1.0) / 2.0
    steps = torch.arange(N + 1, dtype=torch.float64) / N
    distance = torch.maximum((steps[1:] - cdf).max(), (cdf - steps[:-1]).max())
    assert math.sqrt(N) * distance < 1.95  # exceeded once in a thousand


def test_uniform_stays_inside_and_reaches_out():
    x = draw("uniform")
    assert x.abs().max() <= math.sqrt(3.0)
    assert x.abs().max() > math.sqrt(3.0) * (1.0 - 1e-4)
    assert not (x == 0.0).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lag", [1, 2, 3, 4, 5, 8, 64, 784])
def test_serial_correlation(kind, lag):
    x = draw(kind)
    for power in (x, x**2 - 1.0):
        spread = power.var()
        assert abs((power[:-lag] * power[lag:]).mean() / spread) < 4.5 / math.sqrt(N)


@pytest.mark.parametrize("kind", KINDS)
def test_streams_steps_and_seeds_are_uncorrelated(kind):
    draws = torch.stack(
        [
            draw(kind),
            draw(kind, seed=2),
            draw(kind, seed=1 + 2**32),
            draw(kind, offset=offset(0, 1)),
            draw(kind, offset=offset(1, 0)),
            draw(kind, offset=offset(2, 2**40)),
        ]
    )
    correlation = torch.corrcoef(draws) - torch.eye(len(draws), dtype=draws.dtype)
    assert correlation.abs().max() < 4.5 / math.sqrt(N)


@pytest.mark.parametrize("kind", KINDS)
def test_opcheck(kind):
    assert_checked(torch.ops.pygan.noise.default, ((3, 5),), {"kind": kind, "seed": 1, "offset": 2})
    keywords = {"kind": kind, "seed": 1, "offset": 2, "dtype": torch.bfloat16, "device": torch.device("cpu")}
    assert_checked(torch.ops.pygan.noise.default, ((0, 5),), keywords)


BAD = {
    "kind": (
        lambda: pygan.ops.noise((3,), kind="gaussian", seed=0, offset=0),
        ("kind", "gaussian", "uniform"),
    ),
    "near kind": (lambda: pygan.ops.noise((3,), kind="norml", seed=0, offset=0), ("kind", "norml", "normal")),
    "integer dtype": (lambda: pygan.ops.noise((3,), seed=0, offset=0, dtype=torch.int64), ("dtype",)),
    "negative size": (lambda: pygan.ops.noise((3, -1), seed=0, offset=0), ("size", "-1")),
}


@pytest.mark.parametrize(("call", "named"), BAD.values(), ids=BAD)
def test_bad_input_gets_a_sentence(call, named):
    with pytest.raises(REJECTED, match=words(*named)):
        call()
