"""The loss modules: what they compute, how they are set, what they refuse."""

import math

import pytest
import torch
import torch.nn.functional as F

from cases import normal
from pygan.losses import DiscriminatorLoss, GeneratorLoss

CLOSE = {"rtol": 1e-12, "atol": 1e-12}  # float64, a few roundings apart


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_discriminator_loss_is_cross_entropy(smoothing, reduction):
    real, fake = normal(9, 1, dtype=torch.float64, seed=1), normal(9, 1, dtype=torch.float64, seed=2)
    targets = torch.full_like(real, 1 - smoothing)
    expected = F.binary_cross_entropy_with_logits(real, targets, reduction=reduction)
    expected = expected + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake), reduction=reduction)
    loss = DiscriminatorLoss(label_smoothing=smoothing, reduction=reduction)
    torch.testing.assert_close(loss(real, fake), expected, **CLOSE)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("kind", ["non_saturating", "minimax"])
def test_generator_loss_is_cross_entropy(kind, reduction):
    fake = normal(9, 1, dtype=torch.float64)
    target, sign = (1.0, 1.0) if kind == "non_saturating" else (0.0, -1.0)
    expected = sign * F.binary_cross_entropy_with_logits(fake, torch.full_like(fake, target), reduction=reduction)
    torch.testing.assert_close(GeneratorLoss(kind, reduction)(fake), expected, **CLOSE)


def test_values_at_equilibrium():
    zeros = torch.zeros(5, 1)
    assert DiscriminatorLoss()(zeros, zeros).item() == pytest.approx(math.log(4))
    assert GeneratorLoss()(zeros).item() == pytest.approx(math.log(2))
    assert GeneratorLoss("minimax")(zeros).item() == pytest.approx(-math.log(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_finite_for_large_logits(size, dtype):
    right, wrong = torch.full((4, 1), size, dtype=dtype), torch.full((4, 1), -size, dtype=dtype)
    assert DiscriminatorLoss()(right, wrong).item() == pytest.approx(0, abs=1e-40)
    assert DiscriminatorLoss()(wrong, right).item() == pytest.approx(2 * size, rel=1e-2)
    assert GeneratorLoss()(wrong).item() == pytest.approx(size, rel=1e-2)
    assert GeneratorLoss("minimax")(wrong).item() == pytest.approx(0, abs=1e-40)


def test_settings_are_shown():
    assert repr(DiscriminatorLoss(0.1)) == "DiscriminatorLoss(label_smoothing=0.1, reduction='mean')"
    assert repr(GeneratorLoss("minimax", "sum")) == "GeneratorLoss(kind='minimax', reduction='sum')"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: DiscriminatorLoss(1.0), r"label_smoothing must be in \[0, 1\), got 1.0"),
        (lambda: DiscriminatorLoss(-0.1), "label_smoothing must be"),
        (lambda: DiscriminatorLoss(float("nan")), "label_smoothing must be"),
        (lambda: DiscriminatorLoss(reduction="men"), "reduction must be .* did you mean 'mean'"),
        (lambda: GeneratorLoss("minmax"), "kind must be .* did you mean 'minimax'"),
        (lambda: GeneratorLoss(reduction="avg"), "reduction must be"),
    ],
)
def test_bad_settings_get_a_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
