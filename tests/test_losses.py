"""The loss modules and the gradient penalties: what they compute, how they are set, what they refuse."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pygan
from cases import error, normal
from pygan.losses import (
    DISCRIMINATOR_KINDS,
    GENERATOR_KINDS,
    BCELoss,
    BCEWithLogitsLoss,
    DiscriminatorLoss,
    GeneratorLoss,
    gradient_penalty,
    r1_penalty,
    r2_penalty,
)

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


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_modules_of_every_kind_are_the_ops(reduction):
    real, fake = normal(9, 1, seed=1), normal(9, 1, seed=2)
    for kind in DISCRIMINATOR_KINDS:
        expected = pygan.reference.discriminator_loss(real, fake, kind=kind, reduction=reduction)
        torch.testing.assert_close(DiscriminatorLoss(reduction=reduction, kind=kind)(real, fake), expected)
    for kind in GENERATOR_KINDS:
        expected = pygan.reference.generator_loss(fake, kind=kind, reduction=reduction)
        torch.testing.assert_close(GeneratorLoss(kind, reduction)(fake), expected)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    ("ours", "theirs"), [(BCEWithLogitsLoss, nn.BCEWithLogitsLoss), (BCELoss, nn.BCELoss)], ids=["logits", "p"]
)
def test_cross_entropies_replace_torchs(ours, theirs, reduction):
    """One step of a GAN as most implementations write it: targets of ones and zeros."""
    tail = [nn.Sigmoid()] if ours is BCELoss else []
    discriminator = nn.Sequential(nn.Linear(6, 5), nn.LeakyReLU(0.2), nn.Linear(5, 1), *tail).double()
    real, fake = normal(9, 6, dtype=torch.float64, seed=1), normal(9, 6, dtype=torch.float64, seed=2)
    ones, zeros = torch.ones(9, 1, dtype=torch.float64), torch.zeros(9, 1, dtype=torch.float64)
    results = []
    for criterion in (ours(reduction=reduction), theirs(reduction=reduction)):
        loss = criterion(discriminator(real), ones) + criterion(discriminator(fake), zeros)
        results.append((loss, torch.autograd.grad(loss.sum(), list(discriminator.parameters()))))
    torch.testing.assert_close(*results, **CLOSE)


def test_settings_are_shown():
    shown = "DiscriminatorLoss(label_smoothing=0.1, reduction='mean', kind='logistic')"
    assert repr(DiscriminatorLoss(0.1)) == shown
    assert repr(GeneratorLoss("minimax", "sum")) == "GeneratorLoss(kind='minimax', reduction='sum')"
    assert repr(BCELoss(reduction="sum")) == "BCELoss(reduction='sum')"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: DiscriminatorLoss(1.0), r"label_smoothing must be in \[0, 1\), got 1.0"),
        (lambda: DiscriminatorLoss(-0.1), "label_smoothing must be"),
        (lambda: DiscriminatorLoss(float("nan")), "label_smoothing must be"),
        (lambda: DiscriminatorLoss(reduction="men"), "reduction must be .* did you mean 'mean'"),
        (lambda: DiscriminatorLoss(kind="hing"), "kind must be .* did you mean 'hinge'"),
        (lambda: DiscriminatorLoss(0.1, kind="hinge"), "label_smoothing must be 0 for kind 'hinge', got 0.1"),
        (lambda: BCELoss(weight=torch.ones(1)), "weight must be None, got Tensor"),
        (lambda: BCEWithLogitsLoss(pos_weight=torch.ones(1)), "pos_weight must be None, got Tensor"),
        (lambda: BCEWithLogitsLoss(reduction="avg"), "reduction must be"),
        (lambda: GeneratorLoss("minmax"), "kind must be .* did you mean 'minimax'"),
        (lambda: GeneratorLoss(reduction="avg"), "reduction must be"),
    ],
)
def test_bad_settings_get_a_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


# ---- gradient penalties ----

M = 7
SHAPE = (M, 6)


def make_discriminator(kind, dtype=torch.float64):
    torch.manual_seed(3)
    if kind == "mlp":
        return pygan.nn.MLP([6, 9, 8, 1], activation="leaky_relu", slope=0.2, dtype=dtype)
    if kind == "maxout":
        return pygan.nn.MLP([6, 9, 8, 1], activation="maxout", pieces=3, dtype=dtype)
    plain = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 8), nn.Softplus(), nn.Linear(8, 1))
    return plain.to(dtype) if kind == "torch" else pygan.fuse(plain.to(dtype))


def by_hand(discriminator, x, penalty):
    """As implementations of the papers write it, in torch operations."""
    x = x.clone().requires_grad_()
    out = discriminator(x)
    (gradient,) = torch.autograd.grad(out, x, torch.ones_like(out), create_graph=True, retain_graph=True)
    return penalty(gradient.view(len(x), -1))


PENALTIES = {
    "one-centred": (lambda g: ((g.norm(2, dim=1) - 1) ** 2).mean(), 1.0),
    "zero-centred": (lambda g: (g**2).sum(1).mean(), 0.0),
    "centred on a half": (lambda g: ((g.norm(2, dim=1) - 0.5) ** 2).mean(), 0.5),
}


def with_gradients(value, discriminator):
    return value.detach(), torch.autograd.grad(value, list(discriminator.parameters()), materialize_grads=True)


@pytest.mark.parametrize("kind", ["torch", "fused", "mlp", "maxout"])
@pytest.mark.parametrize("name", PENALTIES)
def test_gradient_penalty_is_the_one_written_by_hand(kind, name):
    penalty, center = PENALTIES[name]
    real, fake = normal(*SHAPE, dtype=torch.float64, seed=1), normal(*SHAPE, dtype=torch.float64, seed=2)
    share = pygan.ops.noise((M, 1), kind="uniform", seed=5, offset=9, dtype=torch.float64) / math.sqrt(12) + 0.5
    assert ((share >= 0) & (share <= 1)).all()
    ours, twin = make_discriminator(kind), make_discriminator("torch" if kind == "fused" else kind)
    got = gradient_penalty(ours, real, fake, center=center, seed=5, offset=9)
    expected = by_hand(twin, share * real + (1 - share) * fake, penalty)
    torch.testing.assert_close(with_gradients(got, ours), with_gradients(expected, twin), **CLOSE)


@pytest.mark.parametrize("kind", ["torch", "fused", "mlp", "maxout"])
@pytest.mark.parametrize("penalty", [r1_penalty, r2_penalty])
def test_r1_and_r2_are_half_the_mean_square(kind, penalty):
    x = normal(*SHAPE, dtype=torch.float64, seed=1)
    ours, twin = make_discriminator(kind), make_discriminator("torch" if kind == "fused" else kind)
    expected = by_hand(twin, x, lambda g: 0.5 * (g**2).sum(1).mean())
    torch.testing.assert_close(with_gradients(penalty(ours, x), ours), with_gradients(expected, twin), **CLOSE)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "sigmoid", "elu", "softplus"])
def test_the_double_backward_of_an_mlp(activation):
    """gradcheck of the penalty by every parameter: three derivatives of each layer, chained."""
    torch.manual_seed(1)
    discriminator = pygan.nn.MLP([3, 4, 1], activation=activation, dtype=torch.float64)
    names, parameters = zip(*discriminator.named_parameters(), strict=True)
    x = normal(5, 3, dtype=torch.float64)

    def penalty(*values):
        changed = dict(zip(names, values, strict=True))
        return r1_penalty(lambda x: torch.func.functional_call(discriminator, changed, (x,)), x)

    assert torch.autograd.gradcheck(penalty, parameters)


def test_penalty_of_images_and_of_one_epsilon_an_example():
    discriminator = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 4 * 4, 1)).double()
    real, fake = (normal(M, 2, 6, 6, dtype=torch.float64, seed=i) for i in (1, 2))
    seen = []
    gradient_penalty(lambda x: (seen.append(x.detach()), discriminator(x))[1], real, fake, seed=0)
    share = (seen[0] - fake) / (real - fake)
    assert error(share, share[:, :1, :1, :1].expand_as(share)) < 1e-9
    assert share[:, 0, 0, 0].unique().numel() == M


def test_penalty_trains_the_discriminator_alone():
    """The examples get no gradient, and where none is recorded the value is still there."""
    discriminator = make_discriminator("mlp")
    real, fake = (normal(*SHAPE, dtype=torch.float64, seed=i).requires_grad_() for i in (1, 2))
    value = gradient_penalty(discriminator, real, fake, seed=4)
    value.backward()
    assert real.grad is None
    assert fake.grad is None
    with torch.no_grad():
        alone = gradient_penalty(discriminator, real, fake, seed=4)
    assert not alone.requires_grad
    torch.testing.assert_close(alone, value.detach())


def test_epsilon_follows_the_seed_or_torchs_generator():
    discriminator, real, fake = (
        make_discriminator("mlp"),
        *(normal(*SHAPE, dtype=torch.float64, seed=i) for i in (1, 2)),
    )
    torch.manual_seed(1)
    first = [gradient_penalty(discriminator, real, fake).item() for _ in range(2)]
    torch.manual_seed(1)
    assert first == [gradient_penalty(discriminator, real, fake).item() for _ in range(2)]
    assert first[0] != first[1]


def test_zero_gradients_are_no_trouble():
    """A square root's derivative at zero is infinite: the penalties stay finite there."""
    discriminator = nn.Linear(6, 1)
    nn.init.zeros_(discriminator.weight)
    for center in (0.0, 1.0):
        value = gradient_penalty(discriminator, torch.ones(SHAPE), torch.zeros(SHAPE), center=center, seed=1)
        assert value.item() == center
        value.backward()
        assert discriminator.weight.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_penalty_in_lower_precision(dtype):
    discriminator, wide = make_discriminator("mlp", dtype), make_discriminator("mlp", dtype).double()
    real, fake = normal(*SHAPE, dtype=dtype, seed=1), normal(*SHAPE, dtype=dtype, seed=2)
    value = gradient_penalty(discriminator, real, fake, seed=1)
    assert value.dtype == torch.float32
    expected = gradient_penalty(wide, real.double(), fake.double(), seed=1)
    torch.testing.assert_close(value.double(), expected, rtol=4 * torch.finfo(dtype).eps ** 0.9, atol=0.0)
    value.backward()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda d, x: gradient_penalty(d, x, x[:2]), r"fake must have real's shape \[7, 6\], got \[2, 6\]"),
        (
            lambda d, x: gradient_penalty(d, x, x.float()),
            "fake must have real's dtype torch.float64, got torch.float32",
        ),
        (lambda d, x: gradient_penalty(d, x, x, center=-1.0), "center must be at least 0, got -1.0"),
    ],
)
def test_bad_arguments_of_penalties_get_a_sentence(call, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        call(make_discriminator("mlp"), normal(*SHAPE, dtype=torch.float64))
