"""The losses of GANs: exact at any logit, against torch's own cross entropy and the twin in float64."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

import pygan
from cases import (
    COMPILER_WARNINGS,
    DTYPES,
    LAYOUTS,
    LOW,
    REDUCTIONS,
    REJECTED,
    assert_checked,
    assert_same_bits,
    assert_twins,
    dtype_id,
    leaves,
    normal,
    over_dtypes,
    over_reductions,
    value_and_gradients,
    words,
)
from pygan import reference

KINDS = ("non_saturating", "minimax")  # the game's own
ALL_KINDS = (*KINDS, "hinge", "least_squares", "wasserstein")
# The discriminator's losses, with and without smoothing where there is one.
DISCRIMINATOR = {
    "logistic": {},
    "smoothed": {"label_smoothing": 0.1},
    "hinge": {"kind": "hinge"},
    "least_squares": {"kind": "least_squares"},
    "wasserstein": {"kind": "wasserstein"},
}
OTHERS = ("hinge", "least_squares", "wasserstein")
SHAPES = [(1,), (), (7, 1), (64, 1), (2, 3, 5), (1009,)]
over_kinds = pytest.mark.parametrize("kind", KINDS)
over_all_kinds = pytest.mark.parametrize("kind", ALL_KINDS)
over_discriminators = pytest.mark.parametrize("settings", DISCRIMINATOR.values(), ids=DISCRIMINATOR)


def pair(name, **keywords):
    return (
        lambda *logits: getattr(pygan.ops, name)(*logits, **keywords),
        lambda *logits: getattr(reference, name)(*logits, **keywords),
    )


def logits(shape, dtype=torch.float32, device="cpu", count=2):
    return [normal(*shape, dtype=dtype, device=device, seed=i, scale=3.0) for i in range(count)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@over_dtypes
@over_reductions
@over_discriminators
def test_discriminator_three_orders(shape, dtype, reduction, settings, device):
    keywords = {"reduction": reduction, **settings}
    assert_twins(*pair("discriminator_loss", **keywords), logits(shape, dtype, device), length=math.prod(shape))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@over_dtypes
@over_reductions
@over_all_kinds
def test_generator_three_orders(shape, dtype, reduction, kind, device):
    keywords = {"reduction": reduction, "kind": kind}
    assert_twins(*pair("generator_loss", **keywords), logits(shape, dtype, device, 1), length=math.prod(shape))


@over_dtypes
def test_more_logits_than_float16_can_count(dtype, device):
    inputs = logits((70001,), dtype, device)
    for settings in DISCRIMINATOR.values():
        assert_twins(*pair("discriminator_loss", **settings), inputs, length=70001)
    for kind in ALL_KINDS:
        assert_twins(*pair("generator_loss", kind=kind), inputs[:1], length=70001)


@over_reductions
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.25])
def test_discriminator_is_torchs_cross_entropy(reduction, smoothing):
    real, fake = logits((50, 1), torch.float64)
    got = pygan.ops.discriminator_loss(real, fake, label_smoothing=smoothing, reduction=reduction)
    halves = ((real, torch.full_like(real, 1.0 - smoothing)), (fake, torch.zeros_like(fake)))
    parts = (F.binary_cross_entropy_with_logits(a, target, reduction=reduction) for a, target in halves)
    torch.testing.assert_close(got, sum(parts))


@over_reductions
def test_generator_is_torchs_cross_entropy(reduction):
    (fake,) = logits((50, 1), torch.float64, count=1)
    ones, zeros = torch.ones_like(fake), torch.zeros_like(fake)
    got = pygan.ops.generator_loss(fake, reduction=reduction)
    torch.testing.assert_close(got, F.binary_cross_entropy_with_logits(fake, ones, reduction=reduction))
    got = pygan.ops.generator_loss(fake, kind="minimax", reduction=reduction)
    torch.testing.assert_close(got, -F.binary_cross_entropy_with_logits(fake, zeros, reduction=reduction))


@over_reductions
def test_other_kinds_are_written_out(reduction):
    a, b = logits((50, 1), torch.float64)
    reduce = {"mean": torch.mean, "sum": torch.sum, "none": lambda x: x}[reduction]
    expected = {
        "hinge": (torch.relu(1 - a), torch.relu(1 + b), -b),
        "least_squares": ((a - 1) ** 2 / 2, b**2 / 2, (b - 1) ** 2 / 2),
        "wasserstein": (-a, b, -b),
    }
    for kind, (real, fake, generated) in expected.items():
        got = pygan.ops.discriminator_loss(a, b, kind=kind, reduction=reduction)
        torch.testing.assert_close(got, reduce(real) + reduce(fake))
        torch.testing.assert_close(pygan.ops.generator_loss(b, kind=kind, reduction=reduction), reduce(generated))


@over_dtypes
def test_the_hinges_corner(dtype, device):
    """At the corner, as for NaN, the derivatives are those of torch's relu."""
    values = torch.tensor([1.0, -1.0, 0.5, -0.5, float("nan")], dtype=dtype, device=device)
    ours, twin = leaves(values, values), leaves(values, values)
    for inputs, loss in ((ours, pygan.ops.discriminator_loss), (twin, reference.discriminator_loss)):
        loss(*inputs, kind="hinge", reduction="none").sum().backward()
    for one, other in zip(ours, twin, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0.0, atol=0.0)


def test_equilibrium():
    zeros = torch.zeros(100, 1)
    assert pygan.ops.discriminator_loss(zeros, zeros).item() == pytest.approx(math.log(4.0), rel=1e-7)
    assert pygan.ops.generator_loss(zeros).item() == pytest.approx(math.log(2.0), rel=1e-7)
    assert pygan.ops.generator_loss(zeros, kind="minimax").item() == pytest.approx(-math.log(2.0), rel=1e-7)


@over_dtypes
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_discriminator_at_enormous_logits(dtype, smoothing, device):
    """softplus(-a) is max(-a, 0) out here: values, gradients and second gradients, with nothing lost."""
    real = torch.tensor([1e4, -1e4, 1e4, -1e4], dtype=dtype, device=device).requires_grad_()
    fake = torch.tensor([1e4, -1e4, -1e4, 1e4], dtype=dtype, device=device).requires_grad_()
    loss = pygan.ops.discriminator_loss(real, fake, label_smoothing=smoothing, reduction="none")
    size = real[0].item()
    expected = [
        size + smoothing * size,
        size - smoothing * size,
        smoothing * size,
        2 * size - smoothing * size,
    ]
    torch.testing.assert_close(loss.double().tolist(), expected, rtol=torch.finfo(dtype).eps, atol=0.0)
    grads = torch.autograd.grad(loss.sum(), (real, fake), create_graph=True)
    torch.testing.assert_close(grads[0].tolist(), [smoothing, smoothing - 1] * 2, rtol=4e-3, atol=0.0)
    assert grads[1].tolist() == [1.0, 0.0, 0.0, 1.0]
    seconds = torch.autograd.grad(sum(g.sum() for g in grads), (real, fake))
    assert all((second == 0.0).all() for second in seconds)


@over_dtypes
@over_kinds
def test_generator_at_enormous_logits(dtype, kind, device):
    fake = torch.tensor([1e4, -1e4], dtype=dtype, device=device).requires_grad_()
    loss = pygan.ops.generator_loss(fake, kind=kind, reduction="none")
    size = fake[0].item()
    assert loss.tolist() == ([0.0, size] if kind == "non_saturating" else [-size, 0.0])
    (grad,) = torch.autograd.grad(loss.sum(), fake, create_graph=True)
    assert grad.tolist() == ([0.0, -1.0] if kind == "non_saturating" else [-1.0, 0.0])
    (second,) = torch.autograd.grad(grad.sum(), fake)
    assert (second == 0.0).all()


@over_dtypes
@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_at_enormous_outputs(dtype, kind, device):
    """Squares of 1e4 pass float16's largest number: they alone are infinite there."""
    values = torch.tensor([1e4, -1e4], dtype=dtype, device=device)
    for name in ("discriminator_loss", "generator_loss"):
        ours, twin = pair(name, kind=kind, reduction="none")
        inputs = [values, values.flip(0)][: 2 if name == "discriminator_loss" else 1]
        fresh = leaves(*inputs)
        loss = ours(*fresh)
        torch.testing.assert_close(loss, twin(*(x.double() for x in inputs)).to(dtype))
        assert loss.isfinite().all() or (dtype, kind) == (torch.float16, "least_squares")
        grads = torch.autograd.grad(loss, fresh, torch.ones_like(loss), create_graph=True)
        assert all(grad.isfinite().all() for grad in grads)
        seconds = torch.autograd.grad(sum(g.sum() for g in grads), fresh)
        assert all((second == (kind == "least_squares" and 1.0)).all() for second in seconds)


@pytest.mark.parametrize("dtype", LOW, ids=dtype_id)
def test_a_mean_of_many_does_not_overflow_in_low_precision(dtype):
    """The sum of these passes float16's largest number; their mean does not."""
    real, fake = torch.full((3000,), -60.0, dtype=dtype), torch.full((3000,), 60.0, dtype=dtype)
    assert pygan.ops.discriminator_loss(real, fake).item() == 120.0
    assert pygan.ops.generator_loss(-fake).item() == 60.0


@over_kinds
def test_tails_keep_their_relative_accuracy(kind):
    """Where D is sure, the loss is e^-|a| and not zero."""
    a = torch.linspace(-80.0, 80.0, 3001)
    truth = reference.generator_loss(a.double(), kind=kind, reduction="none")
    got = pygan.ops.generator_loss(a, kind=kind, reduction="none").double()
    torch.testing.assert_close(got, truth, rtol=6e-7, atol=1e-37)


@pytest.mark.parametrize("sizes", [((5, 1), (7, 1)), ((64,), (1,)), ((3, 2), (11,))], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@over_discriminators
def test_halves_of_different_size_are_reduced_each_on_its_own(sizes, reduction, settings, device):
    inputs = [normal(*size, device=device, seed=i, scale=3.0) for i, size in enumerate(sizes)]
    assert_twins(*pair("discriminator_loss", reduction=reduction, **settings), inputs, length=64)


@over_reductions
@over_all_kinds
def test_empty_halves_follow_torch(reduction, kind):
    """mean of nothing is NaN, sum is zero, as in torch."""
    empty = torch.zeros(0, 1, requires_grad=True)
    settings = {"reduction": reduction} | ({"kind": kind} if kind in OTHERS else {})
    loss = pygan.ops.discriminator_loss(empty, empty, **settings)
    torch.testing.assert_close(loss, reference.discriminator_loss(empty, empty, **settings), equal_nan=True)
    loss.sum().backward()
    assert empty.grad.shape == (0, 1)
    settings["kind"] = kind
    loss = pygan.ops.generator_loss(empty, **settings)
    torch.testing.assert_close(loss, reference.generator_loss(empty, **settings), equal_nan=True)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, device):
    change = LAYOUTS[layout]
    for reduction, kind in itertools.product(REDUCTIONS, ("logistic", *OTHERS)):
        ours, twin = pair("discriminator_loss", reduction=reduction, kind=kind)
        inputs = logits((12, 7), device=device)
        assert_twins(lambda a, b: ours(change(a), change(b)), lambda a, b: twin(a, b), inputs, length=84)  # noqa: B023


def test_expanded_logits():
    one = normal(1, 1).requires_grad_()
    pygan.ops.generator_loss(one.expand(10, 1), reduction="sum").backward()
    expected = 10 * (torch.sigmoid(one.detach()) - 1)
    torch.testing.assert_close(one.grad, expected)


@over_dtypes
def test_nan_and_infinity(dtype, device):
    for value in (float("nan"), float("inf"), -float("inf")):
        real = torch.tensor([0.0, value], dtype=dtype, device=device)
        for reduction in REDUCTIONS:
            for kind in ("logistic", *OTHERS):
                got, twin = pair("discriminator_loss", reduction=reduction, kind=kind)
                torch.testing.assert_close(got(real, real.flip(0)), twin(real, real.flip(0)), equal_nan=True)
            for kind in ALL_KINDS:
                ours = pygan.ops.generator_loss(real, kind=kind, reduction=reduction)
                expected = reference.generator_loss(real, kind=kind, reduction=reduction)
                torch.testing.assert_close(ours, expected, equal_nan=True)


@over_reductions
def test_gradcheck(reduction):
    inputs = leaves(*logits((3, 2), torch.float64))
    for settings in DISCRIMINATOR.values():
        ours, _ = pair("discriminator_loss", reduction=reduction, **settings)
        assert torch.autograd.gradcheck(ours, inputs)
        assert torch.autograd.gradgradcheck(ours, inputs)
    for kind in ALL_KINDS:
        ours, _ = pair("generator_loss", reduction=reduction, kind=kind)
        assert torch.autograd.gradcheck(ours, inputs[:1])
        assert torch.autograd.gradgradcheck(ours, inputs[:1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_id)
@over_reductions
@over_discriminators
def test_thread_counts_and_repeats_give_the_same_bits(dtype, reduction, settings, set_threads):
    inputs = logits((100_003,), dtype)
    ours, _ = pair("discriminator_loss", reduction=reduction, **settings)
    set_threads(1)
    one = value_and_gradients(ours, inputs)
    set_threads(2)
    assert_same_bits(one, value_and_gradients(ours, inputs))
    assert_same_bits(one, value_and_gradients(ours, inputs))


def test_only_what_is_asked_is_given():
    real, fake = logits((5, 1))
    fake.requires_grad_()
    pygan.ops.discriminator_loss(real, fake).backward()
    torch.testing.assert_close(fake.grad, torch.sigmoid(fake.detach()) / 5)
    assert real.grad is None


def test_autocast_gives_what_the_logits_give():
    """A loss computes in float32 inside, so autocast has no reason to change its dtype below float32."""
    for dtype in (torch.float32, torch.bfloat16):
        real, fake = leaves(*logits((5, 1), dtype))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = pygan.ops.discriminator_loss(real, fake)
            assert pygan.ops.generator_loss(fake).dtype == loss.dtype
        assert loss.dtype in (dtype, torch.float32)
        loss.backward()
        assert real.grad.dtype == dtype


@COMPILER_WARNINGS
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kinds", [("logistic", "minimax"), ("hinge", "hinge"), ("least_squares", "wasserstein")])
def test_compiles_without_graph_break(backend, kinds):
    def loss(real, fake):
        return pygan.ops.discriminator_loss(real, fake, kind=kinds[0]) + pygan.ops.generator_loss(fake, kind=kinds[1])

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    fresh, plain = leaves(*logits((6, 1))), leaves(*logits((6, 1)))
    compiled(*fresh).backward()
    loss(*plain).backward()
    for one, other in zip(fresh, plain, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@over_reductions
def test_opcheck(dtype, reduction):
    inputs = leaves(*logits((5, 1), dtype))
    keywords = {"reduction": reduction}
    for settings in DISCRIMINATOR.values():
        assert_checked(torch.ops.pygan.discriminator_loss.default, inputs, keywords | settings)
    for kind in ALL_KINDS:
        assert_checked(torch.ops.pygan.generator_loss.default, inputs[:1], keywords | {"kind": kind})


@over_reductions
def test_opcheck_of_backward(reduction):
    real, fake = leaves(*logits((5, 1)))
    (grad,) = leaves(normal(5, 1) if reduction == "none" else normal())
    keywords = {"reduction": reduction}
    ops = torch.ops.pygan
    for settings in DISCRIMINATOR.values():
        settings = {"label_smoothing": 0.0, **settings, **keywords}
        assert_checked(ops.discriminator_loss_backward.default, (grad, real, fake), settings)
    for kind in ALL_KINDS:
        assert_checked(ops.generator_loss_backward.default, (grad, fake), {"kind": kind, **keywords})


D, G, ONE = pygan.ops.discriminator_loss, pygan.ops.generator_loss, torch.ones(3, 1)
BAD = {
    "D's reduction": (lambda: D(ONE, ONE, reduction="avg"), ("reduction", "avg")),
    "D's near reduction": (lambda: D(ONE, ONE, reduction="maen"), ("reduction", "maen", "mean")),
    "D's shapes for none": (
        lambda: D(ONE, ONE[:2], reduction="none"),
        ("real_logits", "fake_logits", "3", "2"),
    ),
    "D's mixed dtypes": (lambda: D(ONE, ONE.double()), ("real_logits", "fake_logits")),
    "D's integers": (lambda: D(ONE.long(), ONE.long()), ("real_logits",)),
    "smoothing below zero": (lambda: D(ONE, ONE, label_smoothing=-0.1), ("label_smoothing", r"-0\.1")),
    "smoothing of one": (lambda: D(ONE, ONE, label_smoothing=1.5), ("label_smoothing", r"1\.5")),
    "smoothing is nan": (lambda: D(ONE, ONE, label_smoothing=float("nan")), ("label_smoothing",)),
    "G's reduction": (lambda: G(ONE, reduction="avg"), ("reduction", "avg")),
    "smoothing of a hinge": (
        lambda: D(ONE, ONE, kind="hinge", label_smoothing=0.1),
        ("label_smoothing", "hinge", r"0\.1"),
    ),
    "D's kind": (lambda: D(ONE, ONE, kind="minimax"), ("kind", "logistic", "minimax")),
    "D's near kind": (lambda: D(ONE, ONE, kind="hing"), ("kind", "hing", "did you mean 'hinge'")),
    "G's kind": (lambda: G(ONE, kind="logistic"), ("kind", "logistic")),
    "G's near kind": (lambda: G(ONE, kind="non_saturatng"), ("kind", "non_saturatng", "non_saturating")),
    "G's integers": (lambda: G(ONE.long()), ("fake_logits",)),
}


@pytest.mark.parametrize(("bad", "named"), BAD.values(), ids=BAD)
def test_bad_input_gets_a_sentence(bad, named):
    with pytest.raises(REJECTED, match=words(*named)):
        bad()
