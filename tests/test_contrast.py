"""Global contrast normalisation: against its definition in float64, and the range in which it is shown."""

import numpy as np
import pytest
import torch

from cases import normal
from pygan import data
from pygan.data import Dataset


def definition(x, scale):
    x = x.double() - x.double().mean(dim=1, keepdim=True)
    divisor = x.norm(dim=1, keepdim=True) / scale
    return x / torch.where(divisor < 1e-8, 1.0, divisor)


@pytest.mark.parametrize("shape", [(1, 1), (7, 2), (5, 64), (50, 3072)])
@pytest.mark.parametrize("scale", [1.0, 55.0])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_is_its_definition(shape, scale, dtype):
    x = (normal(*shape).sigmoid() * 255).to(dtype)
    made = data.contrast_normalize(Dataset(x.clone(), name="x"), scale)
    torch.testing.assert_close(made.values, definition(x, scale).float(), rtol=1e-4, atol=1e-5)
    assert (made.name, made.values.dtype) == ("x", torch.float32)


def test_equal_values_become_zero_and_the_data_given_stay():
    x = torch.full((3, 12), 7, dtype=torch.uint8)
    x[1, 0] = 8
    given = Dataset(x, torch.arange(3), "x", (3, 4))
    made = data.contrast_normalize(given)
    assert made.values.isfinite().all()
    assert (made.values[[0, 2]] == 0).all()
    assert made.values.norm(dim=1)[1].item() == pytest.approx(55)
    assert (made.image_shape, made.labels.tolist()) == ((3, 4), [0, 1, 2])
    assert given.values[1, 0] == 8
    floats = normal(4, 5)
    kept = floats.clone()
    data.contrast_normalize(floats)
    assert torch.equal(floats, kept)


def test_the_range_that_is_shown():
    made = data.contrast_normalize(normal(2000, 3072))
    assert made.value_range == pytest.approx((-1.98464, 1.98464), rel=1e-5)
    low, high = made.value_range
    assert ((made.values > low) & (made.values < high)).double().mean().item() == pytest.approx(0.954, abs=0.002)
    assert made.subset(slice(0, 3)).value_range == made.value_range
    assert data.contrast_normalize(data.mixture("ring8", n=10)).modes is None


@pytest.mark.parametrize("scale", [0, -1.0, float("nan"), "55"])
def test_a_bad_scale_gets_a_sentence(scale):
    with pytest.raises(ValueError, match="scale must be above 0, got"):
        data.contrast_normalize(np.ones((2, 2)), scale)


@pytest.mark.parametrize("value_range", [(1, 0), (0, 0), 3, (0, float("nan"))])
def test_a_bad_range_gets_a_sentence(value_range):
    with pytest.raises(ValueError, match=r"x: value_range must be \(low, high\), rising, got"):
        Dataset(torch.zeros(2, 2), name="x", value_range=value_range)
