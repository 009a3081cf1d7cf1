"""The cross entropy with targets: torch's own losses, on logits and on probabilities, value and two derivatives."""

import math

import pytest
import torch
import torch.nn.functional as F

import pygan
from cases import (
    COMPILER_WARNINGS,
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

SHAPES = [(1,), (), (7, 1), (64, 1), (2, 3, 5), (1009,)]
over_logits = pytest.mark.parametrize("logits", [True, False], ids=["logits", "probabilities"])
over_targets = pytest.mark.parametrize("target", ["ones", "zeros", "soft"])

MAKE_TARGET = {
    "ones": torch.ones_like,
    "zeros": torch.zeros_like,
    "soft": lambda x: normal(*x.shape, dtype=x.dtype, device=x.device, seed=7).sigmoid(),
}
TORCH = {True: F.binary_cross_entropy_with_logits, False: F.binary_cross_entropy}


def make_input(logits, shape, dtype=torch.float32, device="cpu"):
    """Logits, or probabilities that stay away from 0 and 1 in any dtype."""
    values = normal(*shape, dtype=dtype, device=device, scale=3.0 if logits else 1.0)
    return values if logits else (values.double().sigmoid() * 0.9 + 0.05).to(dtype)


def written_out(p, target, reduction):
    """For probabilities that need no guard; torch's second derivative has 1e-12 added to p and to 1 - p."""
    wide, t = (x if x.dtype == torch.float64 else x.float() for x in (p, target))
    terms = -t * torch.log(wide) - (1 - t) * torch.log1p(-wide)
    return reference.REDUCTIONS[reduction](terms).to(p.dtype)


def pair(target, logits, reduction):
    """The op and its twin as functions of the input alone; the target is cast as the input is."""
    settings = {"logits": logits, "reduction": reduction}

    def twin(x):
        if logits:
            return reference.binary_cross_entropy(x, target.to(x.dtype), **settings)
        return written_out(x, target.to(x.dtype), reduction)

    return lambda x: pygan.ops.binary_cross_entropy(x, target.to(x.dtype), **settings), twin


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@over_dtypes
@over_reductions
@over_logits
@over_targets
def test_three_orders(shape, dtype, reduction, logits, target, device):
    x = make_input(logits, shape, dtype, device)
    assert_twins(*pair(MAKE_TARGET[target](x), logits, reduction), [x], length=math.prod(shape))


@over_dtypes
@over_logits
def test_more_than_float16_can_count(dtype, logits, device):
    x = make_input(logits, (70001,), dtype, device)
    assert_twins(*pair(MAKE_TARGET["soft"](x), logits, "mean"), [x], length=70001)


@over_reductions
@over_targets
@over_logits
def test_is_torchs(reduction, target, logits):
    x = make_input(logits, (50, 1), torch.float64)
    target = MAKE_TARGET[target](x)
    got, expected = leaves(x, x)
    for tensor, loss in ((got, pygan.ops.binary_cross_entropy), (expected, TORCH[logits])):
        settings = {"logits": logits} if loss is pygan.ops.binary_cross_entropy else {}
        value = loss(tensor, target, reduction=reduction, **settings)
        (tensor.grad,) = torch.autograd.grad(value.sum(), tensor, create_graph=True)
        tensor.value, tensor.bend = value, torch.autograd.grad(tensor.grad.sum(), tensor)[0]
    for name in ("value", "grad", "bend"):
        torch.testing.assert_close(getattr(got, name), getattr(expected, name))
    torch.testing.assert_close(reference.binary_cross_entropy(x, target, logits=logits, reduction=reduction), got.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=dtype_id)
@over_targets
def test_probabilities_at_both_ends(dtype, target, device):
    """Zero, the smallest numbers, one, and what is next to it: torch's clamp of the logarithm, and its derivative."""
    tiny, eps = torch.finfo(dtype).smallest_normal, torch.finfo(dtype).eps
    values = [0.0, tiny * eps, tiny / 8, tiny, 1e-30, 1e-13, 1e-6, 0.5, 1 - 1e-6, 1 - eps / 2, 1.0]
    x = torch.tensor(values, dtype=dtype, device=device)
    t = MAKE_TARGET[target](x)
    got, expected = leaves(x, x)
    ours = pygan.ops.binary_cross_entropy(got, t, logits=False, reduction="none")
    theirs = F.binary_cross_entropy(expected, t, reduction="none")
    rtol = 2e-6 if dtype == torch.float32 else 1e-14
    torch.testing.assert_close(ours, theirs, rtol=rtol, atol=tiny * eps)
    first, other = (
        torch.autograd.grad(loss.sum(), tensor, create_graph=True)[0]
        for loss, tensor in ((ours, got), (theirs, expected))
    )
    torch.testing.assert_close(first, other)
    seconds = (torch.autograd.grad(grad.sum(), tensor)[0] for grad, tensor in ((first, got), (other, expected)))
    alike = (x == 0) | (x == 0.5) | (x == 1)  # elsewhere torch's differs by the 1e-12 that it adds, relative to p
    torch.testing.assert_close(*(second[alike] for second in seconds))


@over_dtypes
def test_probabilities_outside_are_nan(dtype, device):
    x = torch.tensor([-0.5, 1.5, float("nan"), float("inf"), 0.5], dtype=dtype, device=device)
    for target in (torch.zeros_like(x), torch.ones_like(x), torch.full_like(x, 0.5)):
        loss = pygan.ops.binary_cross_entropy(x, target, logits=False, reduction="none")
        assert loss.isnan().tolist() == [True, True, True, True, False]


@over_dtypes
def test_enormous_logits(dtype, device):
    x = torch.tensor([1e4, -1e4, 1e4, -1e4], dtype=dtype, device=device).requires_grad_()
    target = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=dtype, device=device)
    loss = pygan.ops.binary_cross_entropy(x, target, logits=True, reduction="none")
    size = x[0].item()
    assert loss.tolist() == [0.0, 0.0, size, size]
    (grad,) = torch.autograd.grad(loss.sum(), x, create_graph=True)
    assert grad.tolist() == [0.0, 0.0, 1.0, -1.0]
    (second,) = torch.autograd.grad(grad.sum(), x)
    assert (second == 0.0).all()


@pytest.mark.parametrize("target", ["ones", "zeros"])
def test_tails_keep_their_relative_accuracy(target):
    """Where the logit is sure, loss and gradient are e^-|a| and not zero."""
    x = torch.linspace(-80.0, 80.0, 3001)
    fresh, wide = leaves(x, x.double())
    t = MAKE_TARGET[target](x)
    got = pygan.ops.binary_cross_entropy(fresh, t, logits=True, reduction="none")
    truth = reference.generator_loss(wide if target == "ones" else -wide, reduction="none")
    torch.testing.assert_close(got.double(), truth, rtol=6e-7, atol=1e-37)
    got.sum().backward()
    truth.sum().backward()
    torch.testing.assert_close(fresh.grad.double(), wide.grad, rtol=6e-7, atol=1e-37)


@over_dtypes
def test_nan_and_infinity(dtype, device):
    """An infinite logit that agrees with its target costs nothing; torch's own form says NaN."""
    infinity = float("inf")
    x = torch.tensor([infinity, -infinity, infinity, -infinity, float("nan")], dtype=dtype, device=device)
    target = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0], dtype=dtype, device=device)
    loss = pygan.ops.binary_cross_entropy(x, target, logits=True, reduction="none")
    assert loss[:4].tolist() == [0.0, 0.0, infinity, infinity]
    assert loss[4].isnan()


@pytest.mark.parametrize("dtype", LOW, ids=dtype_id)
def test_a_mean_of_many_does_not_overflow_in_low_precision(dtype):
    x = torch.full((3000,), -60.0, dtype=dtype)
    assert pygan.ops.binary_cross_entropy(x, torch.ones_like(x), logits=True).item() == 60.0


@over_reductions
@over_logits
def test_empty(reduction, logits):
    empty = torch.zeros(0, 1, requires_grad=True)
    loss = pygan.ops.binary_cross_entropy(empty, torch.zeros(0, 1), logits=logits, reduction=reduction)
    torch.testing.assert_close(loss, TORCH[logits](empty, torch.zeros(0, 1), reduction=reduction), equal_nan=True)
    loss.sum().backward()
    assert empty.grad.shape == (0, 1)


@pytest.mark.parametrize("layout", LAYOUTS)
@over_logits
def test_layouts(layout, logits, device):
    change = LAYOUTS[layout]
    x = make_input(logits, (12, 7), device=device)
    target = MAKE_TARGET["soft"](x)
    for reduction in REDUCTIONS:
        ours, twin = pair(target, logits, reduction)
        assert_twins(lambda a: ours(change(a)) if reduction != "none" else ours(a), twin, [x], length=84)  # noqa: B023
        got = pygan.ops.binary_cross_entropy(change(x), change(target), logits=logits, reduction=reduction)
        torch.testing.assert_close(got, ours(x))


@over_reductions
@over_logits
def test_gradcheck(reduction, logits):
    (x,) = leaves(make_input(logits, (3, 2), torch.float64))
    ours, _ = pair(MAKE_TARGET["soft"](x.detach()), logits, reduction)
    assert torch.autograd.gradcheck(ours, [x])
    assert torch.autograd.gradgradcheck(ours, [x])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_id)
@over_reductions
@over_logits
def test_thread_counts_and_repeats_give_the_same_bits(dtype, reduction, logits, set_threads):
    x = make_input(logits, (100_003,), dtype)
    ours, _ = pair(MAKE_TARGET["soft"](x), logits, reduction)
    set_threads(1)
    one = value_and_gradients(ours, [x])
    set_threads(2)
    assert_same_bits(one, value_and_gradients(ours, [x]))
    assert_same_bits(one, value_and_gradients(ours, [x]))


@over_logits
def test_autocast_lets_dtypes_meet(logits):
    (x,) = leaves(make_input(logits, (5, 1), torch.bfloat16))
    target = torch.ones(5, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = pygan.ops.binary_cross_entropy(x, target, logits=logits)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, TORCH[logits](x.float(), target))
    loss.backward()
    assert x.grad.dtype == torch.bfloat16


@COMPILER_WARNINGS
@over_logits
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_without_graph_break(backend, logits):
    def loss(x, target):
        return pygan.ops.binary_cross_entropy(x, target, logits=logits)

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    x = make_input(logits, (6, 1))
    fresh, plain = leaves(x, x)
    compiled(fresh, torch.ones(6, 1)).backward()
    loss(plain, torch.ones(6, 1)).backward()
    torch.testing.assert_close(fresh.grad, plain.grad)


@over_dtypes
@over_reductions
@over_logits
def test_opcheck(dtype, reduction, logits):
    (x,) = leaves(make_input(logits, (5, 1), dtype))
    keywords = {"logits": logits, "reduction": reduction}
    target = MAKE_TARGET["soft"](x.detach())
    assert_checked(torch.ops.pygan.binary_cross_entropy.default, (x, target), keywords)
    (grad,) = leaves(normal(5, 1, dtype=dtype) if reduction == "none" else normal(dtype=dtype))
    assert_checked(torch.ops.pygan.binary_cross_entropy_backward.default, (grad, x, target), keywords)


ONE = torch.ones(3, 1)
BAD = {
    "shape": (lambda f: f(ONE, ONE[:2]), ("target", "shape", "3", "2")),
    "broadcast": (lambda f: f(ONE, ONE[:1]), ("target", "shape")),
    "dtype": (lambda f: f(ONE, ONE.double()), ("target", "input's dtype")),
    "integers": (lambda f: f(ONE.long(), ONE.long()), ("input",)),
    "reduction": (lambda f: f(ONE, ONE, reduction="maen"), ("reduction", "maen", "mean")),
    "target's gradient": (lambda f: f(ONE, ONE.clone().requires_grad_()), ("target", "gradient", "detach")),
}


@pytest.mark.parametrize(("bad", "named"), BAD.values(), ids=BAD)
@over_logits
def test_bad_input_gets_a_sentence(bad, named, logits):
    with pytest.raises(REJECTED, match=words(*named)):
        bad(lambda *args, **keywords: pygan.ops.binary_cross_entropy(*args, logits=logits, **keywords))


def test_a_target_may_require_a_gradient_where_none_is_recorded():
    with torch.no_grad():
        loss = pygan.ops.binary_cross_entropy(ONE, ONE.clone().requires_grad_(), logits=True)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(ONE, ONE))
