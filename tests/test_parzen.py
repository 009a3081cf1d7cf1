"""The Parzen window's log-likelihood, against its twin in float64."""

import math

import pytest
import torch

import pygan
from cases import DTYPES, REJECTED, dtype_id, words
from pygan import reference

# (n, s, d): one, primes, past a tile, past the rows and the samples that go together
SHAPES = [(1, 1, 1), (5, 7, 3), (31, 97, 65), (100, 200, 784), (1030, 33, 17), (3, 17_000, 2), (4, 5, 3000)]
# Of the log-density, relative to the exponents' size d / sigma^2: roundings of the distances.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 1e-6, torch.float16: 1e-6}


def points(n, s, d, dtype, device):
    generator = torch.Generator().manual_seed(n + s + d)
    return [torch.rand(rows, d, generator=generator).to(device, dtype) for rows in (n, s)]


def assert_right(x, samples, sigma):
    got = pygan.ops.parzen_log_likelihood(x, samples, sigma=sigma)
    expected = reference.parzen_log_likelihood(x.cpu(), samples.cpu(), sigma=sigma)
    assert (got.dtype, got.shape, got.device) == (torch.float64, x.shape[:1], x.device)
    scale = x.shape[1] / sigma**2 + 10
    assert (got.cpu() - expected).abs().max() <= TOLERANCE[x.dtype] * scale


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("sigma", [0.1, 0.37, 1.0])
def test_like_its_twin(shape, dtype, sigma, device):
    assert_right(*points(*shape, dtype, device), sigma)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=dtype_id)
def test_more_rows_than_go_together_on_cuda(dtype, device):
    assert_right(*points(8200, 9, 5, dtype, device), 0.3)


@pytest.mark.parametrize("sigma", [0.1, 0.2, 1.0])
def test_mean_to_a_hundredth_of_a_nat_on_images(sigma, device):
    """Of images in [0, 1]: what an evaluation reports."""
    x, samples = points(64, 300, 784, torch.float32, device)
    x, samples = (t.pow(4) for t in (x, samples))  # mostly dark, as digits are
    got = pygan.ops.parzen_log_likelihood(x, samples, sigma=sigma).mean()
    expected = reference.parzen_log_likelihood(x.cpu(), samples.cpu(), sigma=sigma).mean()
    assert abs(got.item() - expected.item()) < 0.01


def test_far_from_the_origin(device):
    """Moved by the mean of the samples, coordinates of a thousand are as good as those about 0."""
    x, samples = points(20, 50, 30, torch.float32, device)
    assert_right((x * 64).round() / 64 + 1024, (samples * 64).round() / 64 + 1024, 0.5)


def test_closed_form(device):
    """One sample: a Gaussian's own log-density."""
    x = torch.linspace(-3, 3, 13, dtype=torch.float64, device=device)[:, None]
    got = pygan.ops.parzen_log_likelihood(x, torch.zeros_like(x[:1]), sigma=0.7)
    normal = torch.distributions.Normal(0.0, 0.7)
    torch.testing.assert_close(got.cpu(), normal.log_prob(x[:, 0].cpu()))


@pytest.mark.parametrize("layout", ["transposed", "sliced", "expanded", "empty"])
def test_layouts(layout, device):
    x, samples = points(24, 40, 16, torch.float32, device)
    x, samples = {
        "transposed": lambda: (x.t().contiguous().t(), samples.t().contiguous().t()),
        "sliced": lambda: (x[::2, ::3], samples[::3, ::3]),
        "expanded": lambda: (x[:1].expand(9, 16), samples),
        "empty": lambda: (x[:0], samples),
    }[layout]()
    expected = reference.parzen_log_likelihood(x.cpu(), samples.cpu(), sigma=0.5) if len(x) else torch.empty(0)
    torch.testing.assert_close(
        pygan.ops.parzen_log_likelihood(x, samples, sigma=0.5).cpu(), expected.double(), rtol=0, atol=1e-3
    )


def test_extremes(device):
    x, samples = points(4, 30, 5, torch.float32, device)
    assert pygan.ops.parzen_log_likelihood(x.double() + 1e200, samples.double(), sigma=1e-15).eq(-math.inf).all()
    x[1, 2] = math.nan
    got = pygan.ops.parzen_log_likelihood(x, samples, sigma=0.3)
    assert got.isnan().tolist() == [False, True, False, False]
    samples[3, 1] = math.nan
    assert pygan.ops.parzen_log_likelihood(x, samples, sigma=0.3).isnan().all()
    samples[3, 1] = math.inf  # has no density anywhere
    assert_near_twin(pygan.ops.parzen_log_likelihood(x[2:], samples, sigma=0.3), x[2:], samples, 0.3)


def assert_near_twin(got, x, samples, sigma):
    expected = reference.parzen_log_likelihood(x.cpu(), samples.cpu(), sigma=sigma)
    torch.testing.assert_close(got.cpu(), expected, rtol=1e-6, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("far", [1e4, 3e4, 1e6, 1e12])
def test_what_lies_far_away_costs_no_digits(device, dtype, far):
    if far > torch.finfo(dtype).max:
        pytest.skip("beyond the dtype")
    x, samples = points(20, 100, 4, dtype, device)
    samples[3] = far  # moves the mean of all
    x[1] = far
    got = pygan.ops.parzen_log_likelihood(x, samples, sigma=0.1)
    assert_near_twin(got, x, samples, 0.1)


def test_two_clusters_far_apart(device):
    x, samples = points(20, 60, 64, torch.float32, device)
    x[10:], samples[30:] = x[10:] + 1000, samples[30:] + 1000
    assert_near_twin(pygan.ops.parzen_log_likelihood(x, samples, sigma=0.1), x, samples, 0.1)


@pytest.mark.parametrize("sigma", [1e-90, 1e-20, 1e20, 1e90])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_widths_of_any_size(device, dtype, sigma):
    x, samples = points(5, 7, 3, dtype, device)
    got = pygan.ops.parzen_log_likelihood(x, samples, sigma=sigma)
    assert_near_twin(got, x, samples, sigma)
    near = pygan.ops.parzen_log_likelihood(x[:1], x[:1], sigma=sigma)
    assert_near_twin(near, x[:1], x[:1], sigma)


def test_thread_counts_give_the_same_bits(set_threads):
    x, samples = points(300, 700, 50, torch.float32, "cpu")
    set_threads(1)
    one = pygan.ops.parzen_log_likelihood(x, samples, sigma=0.2)
    set_threads(2)
    assert torch.equal(one, pygan.ops.parzen_log_likelihood(x, samples, sigma=0.2))


def test_no_gradient(device):
    x, samples = points(3, 4, 2, torch.float32, device)
    assert not pygan.ops.parzen_log_likelihood(x.requires_grad_(), samples.requires_grad_(), sigma=1.0).requires_grad


def test_opcheck(device):
    x, samples = points(5, 6, 4, torch.float32, device)
    torch.library.opcheck(torch.ops.pygan.parzen_log_likelihood.default, (x, samples), {"sigma": 0.5})


BAD = {
    "rank": (lambda x, s: (x[0], s, 1.0), words("x", "(n, d)")),
    "columns": (lambda x, s: (x, s[:, :2], 1.0), words("samples", "(s, 3)", "(6, 2)")),
    "no sample": (lambda x, s: (x, s[:0], 1.0), words("samples", "at least 1")),
    "dtype": (lambda x, s: (x, s.double(), 1.0), words("samples", "dtype", "double")),
    "integers": (lambda x, s: (x.long(), s, 1.0), words("x", "float32", "long")),
    "zero": (lambda x, s: (x, s, 0.0), words("sigma", "above 0")),
    "negative": (lambda x, s: (x, s, -0.1), words("sigma", "above 0")),
    "nan": (lambda x, s: (x, s, math.nan), words("sigma", "above 0")),
    "infinite": (lambda x, s: (x, s, math.inf), words("sigma", "finite")),
}


@pytest.mark.parametrize(("make", "named"), BAD.values(), ids=BAD)
def test_bad_input_gets_a_sentence(make, named, device):
    x, samples, sigma = make(*(t.to(device) for t in (torch.zeros(5, 3), torch.zeros(6, 3))))
    with pytest.raises(REJECTED, match=named):
        pygan.ops.parzen_log_likelihood(x, samples, sigma=sigma)
