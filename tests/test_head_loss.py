"""The discriminator's last layer with its loss: one op against a layer and a loss, in value and all derivatives."""

import math

import pytest
import torch

import pygan
from cases import (
    COMPILER_WARNINGS,
    DTYPES,
    LAYOUTS,
    LOW,
    REJECTED,
    assert_accurate,
    assert_checked,
    assert_same_bits,
    dtype_id,
    leaves,
    normal,
    over_dtypes,
    shape_id,
    three_orders,
    words,
)
from pygan import reference

OPS = torch.ops.pygan

# (m, k, real_rows): one of each, primes, no width, half of each, past a block, past a tile, wider than shared memory.
SHAPES = [
    (2, 1, 1),
    (3, 0, 2),
    (7, 13, 3),
    (31, 37, 30),
    (128, 128, 64),
    (200, 240, 100),
    (64, 1600, 32),
    (9, 4099, 4),
    (1009, 3, 500),
    (300, 512, 7),
    (5, 13001, 2),
]
KINDS = ("discriminator", "non_saturating", "minimax")
over_shapes = pytest.mark.parametrize("shape", SHAPES, ids=shape_id)
over_kinds = pytest.mark.parametrize("kind", KINDS)
with_and_without_bias = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])


def head(m, k, dtype=torch.float32, device="cpu", bias=True, scale=3.0) -> list[torch.Tensor]:
    """hidden (m, k), weight (1, k), bias (1), with logits of size ``scale``."""
    tensors = [
        normal(m, k, dtype=dtype, device=device, seed=1),
        normal(1, k, dtype=dtype, device=device, seed=2, scale=scale * max(k, 1) ** -0.5),
    ]
    return [*tensors, normal(1, dtype=dtype, device=device, seed=3)] if bias else tensors


def settings(kind, real_rows, label_smoothing=0.1):
    if kind == "discriminator":
        return {"real_rows": real_rows, "kind": kind, "label_smoothing": label_smoothing}
    return {"real_rows": 0, "kind": kind}


# What is differentiated: each output alone (the loss is the usual case), and both, as one number.
TAKEN = {
    "loss": lambda loss, logits: loss,
    "logits": lambda loss, logits: logits,
    "both": lambda loss, logits: 2.0 * loss + (logits * logits.tanh()).mean(),
}
over_taken = pytest.mark.parametrize("taken", TAKEN)


def pair(taken="loss", **keywords):
    return tuple(
        lambda *tensors, module=module: TAKEN[taken](*module.head_loss(*tensors, **keywords))
        for module in (pygan.ops, reference)
    )


def assert_orders(got, eager, truth, *, length):
    """As `assert_accurate`; but a lone number of a half type may have lost the places of the terms it is the sum of."""
    for name, expected in truth.items():
        dtype = got[name].dtype
        if dtype in LOW and expected.numel() == 1:
            size = max(1.0, expected.abs().item())
            bound = max(8 * torch.finfo(dtype).eps * size, 2 * (eager[name] - expected).abs().item())
            assert (got[name] - expected).abs().item() <= bound, name
        else:
            assert_accurate(got[name], eager[name], expected, length=length, name=name)


def assert_twins(taken, inputs, **keywords):
    """Value, first and second gradients against the twin in float64."""
    ours, twin = pair(taken, **keywords)
    orders = three_orders(ours, inputs), three_orders(twin, inputs), three_orders(twin, inputs, torch.float64)
    assert_orders(*orders, length=max(inputs[0].numel(), 1))


@over_shapes
@over_dtypes
@over_kinds
@over_taken
def test_three_orders(shape, dtype, kind, taken, device):
    m, k, real_rows = shape
    assert_twins(taken, head(m, k, dtype, device), **settings(kind, real_rows))


@over_dtypes
@over_taken
def test_without_bias_and_smoothing(dtype, taken, device):
    assert_twins(taken, head(31, 37, dtype, device, bias=False), **settings("discriminator", 11, 0.0))


@over_dtypes
def test_is_a_layer_and_a_loss(dtype, device):
    """The same numbers as the two ops it stands for."""
    hidden, weight, bias = head(24, 50, dtype, device)
    logits = pygan.ops.linear_act(hidden, weight, bias, activation="identity").squeeze(-1)
    close = {"rtol": 20 * torch.finfo(dtype).eps, "atol": 20 * torch.finfo(dtype).eps}
    loss, got = pygan.ops.head_loss(hidden, weight, bias, real_rows=10, label_smoothing=0.1)
    torch.testing.assert_close(got, logits, **close)
    expected = pygan.ops.discriminator_loss(logits[:10], logits[10:], label_smoothing=0.1)
    torch.testing.assert_close(loss, expected, **close)
    for kind in ("non_saturating", "minimax"):
        loss, got = pygan.ops.head_loss(hidden, weight, bias, real_rows=0, kind=kind)
        torch.testing.assert_close(loss, pygan.ops.generator_loss(logits, kind=kind), **close)


def test_equilibrium():
    hidden, weight = torch.zeros(6, 5), torch.ones(1, 5)
    assert pygan.ops.head_loss(hidden, weight, real_rows=2)[0].item() == pytest.approx(math.log(4.0), rel=1e-7)
    loss, _ = pygan.ops.head_loss(hidden, weight, real_rows=0, kind="minimax")
    assert loss.item() == pytest.approx(-math.log(2.0), rel=1e-7)


@over_dtypes
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_enormous_logits(dtype, smoothing, device):
    """softplus(-a) is max(-a, 0) out here: values and gradients with nothing lost."""
    hidden = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], dtype=dtype, device=device).requires_grad_()
    weight = torch.tensor([[1e4]], dtype=dtype, device=device).requires_grad_()
    size = weight.item()
    loss, logits = pygan.ops.head_loss(hidden, weight, real_rows=2, label_smoothing=smoothing)
    assert logits.tolist() == [size, -size, size, -size]
    assert loss.item() == pytest.approx(size, rel=torch.finfo(dtype).eps)  # half of each pair, and +e and -e cancel
    grads = torch.autograd.grad(loss, (hidden, weight), create_graph=True)
    slopes = torch.tensor([smoothing, smoothing - 1, 1.0, 0.0], dtype=torch.float64) / 2
    torch.testing.assert_close(grads[0].double().cpu().flatten(), slopes * size, rtol=4e-3, atol=0.0)
    expected = (slopes * hidden.detach().double().cpu().flatten()).sum()
    torch.testing.assert_close(grads[1].double().cpu().sum(), expected, rtol=4e-3, atol=0.0)
    (second,) = torch.autograd.grad(grads[1].sum(), hidden)
    torch.testing.assert_close(second.double().cpu().flatten(), slopes, rtol=4e-3, atol=0.0)


@pytest.mark.parametrize("dtype", LOW, ids=dtype_id)
def test_a_mean_of_many_does_not_overflow_in_low_precision(dtype):
    hidden, weight = torch.full((6000, 1), -60.0, dtype=dtype), torch.ones(1, 1, dtype=dtype)
    hidden[3000:] = 60.0
    assert pygan.ops.head_loss(hidden, weight, real_rows=3000)[0].item() == 120.0


@pytest.mark.parametrize(("m", "real_rows"), [(0, 0), (4, 0), (4, 4)])
@over_dtypes
def test_empty_halves_follow_the_discriminators_loss(m, real_rows, dtype, device):
    """The mean of nothing is NaN; gradients are those of the rows that are there."""
    inputs = leaves(*head(m, 5, dtype, device))
    loss, logits = pygan.ops.head_loss(*inputs, real_rows=real_rows)
    assert loss.isnan()
    assert logits.shape == (m,)
    grads = torch.autograd.grad(loss, inputs)
    twins = leaves(*inputs)
    expected = torch.autograd.grad(reference.head_loss(*twins, real_rows=real_rows)[0], twins)
    for one, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(one, other)


@over_kinds
def test_no_rows_and_no_columns(kind, device):
    for m, k in ((0, 3), (0, 0), (4, 0)):
        inputs = leaves(*head(m, k, device=device))
        loss, logits = pygan.ops.head_loss(*inputs, **settings(kind, m // 2))
        twin = reference.head_loss(*inputs, **settings(kind, m // 2))
        torch.testing.assert_close((loss, logits), twin, equal_nan=True)
        for grad, tensor in zip(torch.autograd.grad(loss, inputs), inputs, strict=True):
            assert grad.shape == tensor.shape


@pytest.mark.parametrize("layout", LAYOUTS)
@over_taken
def test_layouts(layout, taken, device):
    change = LAYOUTS[layout]
    ours, twin = pair(taken, **settings("discriminator", 5))
    inputs = head(12, 21, device=device)
    got = three_orders(lambda h, w, b: ours(change(h), change(w), b), inputs)
    assert_orders(got, three_orders(twin, inputs), three_orders(twin, inputs, torch.float64), length=252)


def test_expanded_gradients_and_rows(device):
    one = normal(1, 6, device=device).requires_grad_()
    weight = normal(1, 6, seed=1, device=device).requires_grad_()
    _, logits = pygan.ops.head_loss(one.expand(8, 6), weight, real_rows=4)
    logits.sum().backward()
    torch.testing.assert_close(one.grad, 8 * weight.detach())
    torch.testing.assert_close(weight.grad, 8 * one.detach())


@over_dtypes
def test_nan_and_infinity(dtype, device):
    for value in (float("nan"), float("inf"), -float("inf")):
        hidden, weight, bias = head(6, 4, dtype, device)
        hidden[1, 2] = value
        got = pygan.ops.head_loss(hidden, weight, bias, real_rows=3)
        torch.testing.assert_close(got[0], reference.head_loss(hidden, weight, bias, real_rows=3)[0], equal_nan=True)
        assert torch.equal(got[1].isfinite(), torch.tensor([True, False, True, True, True, True], device=device))


@over_kinds
@over_taken
@with_and_without_bias
def test_gradcheck(kind, taken, bias):
    inputs = leaves(*head(5, 3, torch.float64, bias=bias))
    ours, _ = pair(taken, **settings(kind, 2))
    assert torch.autograd.gradcheck(ours, inputs)
    assert torch.autograd.gradgradcheck(ours, inputs)


def test_third_derivatives(device):
    inputs = leaves(*head(5, 3, torch.float64, device))

    def third(function):
        (first,) = torch.autograd.grad(function(*inputs), inputs[0], create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), inputs[1], create_graph=True)
        return torch.autograd.grad(second.square().sum(), inputs)

    for one, other in zip(*map(third, pair(**settings("discriminator", 2))), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("asked", [(0,), (1,), (2,), (0, 2), (1, 2)], ids=str)
@over_taken
def test_only_what_is_asked_is_given(asked, taken, device):
    keywords = settings("discriminator", 4)
    ours, twin = (leaves(*head(9, 7, device=device)) for _ in range(2))
    got, expected = (
        torch.autograd.grad(function(*tensors).sum(), [tensors[i] for i in asked])
        for function, tensors in zip(pair(taken, **keywords), (ours, twin), strict=True)
    )
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)


def kept(function) -> list[torch.Size]:
    """The shapes of what autograd keeps."""
    shapes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: shapes.append(x.shape) or x, lambda x: x):
        function()
    return shapes


def test_sums_are_made_where_a_gradient_may_need_them():
    hidden, weight, bias = head(6, 5)
    hidden.requires_grad_()
    assert (6,) not in [tuple(shape) for shape in kept(lambda: pygan.ops.head_loss(hidden[:4], weight, real_rows=2))]
    loss, _ = pygan.ops.head_loss(hidden, weight, bias, real_rows=3)
    loss.backward()
    assert weight.grad is None
    weight.requires_grad_()
    assert (6,) in [tuple(shape) for shape in kept(lambda: pygan.ops.head_loss(hidden[:4], weight, real_rows=2))]


def test_backward_can_be_repeated_and_scaled():
    inputs = leaves(*head(6, 5))
    loss, _ = pygan.ops.head_loss(*inputs, real_rows=3)
    once = torch.autograd.grad(loss, inputs, retain_graph=True)
    halved = torch.autograd.grad(0.5 * loss, inputs)
    for one, half in zip(once, halved, strict=True):
        torch.testing.assert_close(0.5 * one, half)


def test_inplace_change_of_what_backward_needs_is_noticed():
    hidden, weight, bias = leaves(*head(6, 5))
    loss, _ = pygan.ops.head_loss(hidden, weight, bias, real_rows=3)
    weight.detach().mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_id)
@pytest.mark.parametrize(("m", "k"), [(513, 300), (3, 20000), (20000, 3)], ids=str)
@over_taken
def test_thread_counts_and_repeats_give_the_same_bits(dtype, m, k, taken, set_threads):
    inputs = head(m, k, dtype)
    ours, _ = pair(taken, **settings("discriminator", m // 2))

    def all_of_it():
        fresh = leaves(*inputs)
        value = ours(*fresh)
        return [value.detach(), *torch.autograd.grad(value.sum(), fresh)]

    set_threads(1)
    one = all_of_it()
    set_threads(3)
    assert_same_bits(one, all_of_it())
    assert_same_bits(one, all_of_it())


def test_autocast_computes_in_float32():
    """As torch's losses and ours do: hidden activations come in half precision from the layer before."""
    hidden, weight, bias = leaves(*head(6, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, logits = pygan.ops.head_loss(hidden.bfloat16(), weight, bias, real_rows=3)
    assert loss.dtype == logits.dtype == torch.float32
    assert torch.equal(loss, pygan.ops.head_loss(hidden.bfloat16().float(), weight, bias, real_rows=3)[0])
    loss.backward()
    assert [tensor.grad.dtype for tensor in (hidden, weight, bias)] == [torch.float32] * 3


def test_inference_mode_and_no_grad():
    inputs = leaves(*head(6, 5))
    expected = pygan.ops.head_loss(*inputs, real_rows=3)
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            got = pygan.ops.head_loss(*inputs, real_rows=3)
        for one, other in zip(got, expected, strict=True):
            assert not one.requires_grad
            assert torch.equal(one, other)


@COMPILER_WARNINGS
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@over_taken
def test_compiles_without_graph_break(backend, taken):
    def value(*tensors):
        return TAKEN[taken](*pygan.ops.head_loss(*tensors, real_rows=3, label_smoothing=0.1)).sum()

    torch._dynamo.reset()
    compiled = torch.compile(value, fullgraph=True, backend=backend)
    fresh, plain = leaves(*head(6, 5)), leaves(*head(6, 5))
    compiled(*fresh).backward()
    value(*plain).backward()
    for one, other in zip(fresh, plain, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_another_batch_size_needs_no_other_graph():
    def value(hidden, weight, bias):
        return pygan.ops.head_loss(hidden, weight, bias, real_rows=hidden.shape[0] // 2)[0]

    torch._dynamo.reset()
    compiled = torch.compile(value, fullgraph=True, backend="aot_eager", dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for rows in (4, 8, 14):
            inputs = head(rows, 5)
            assert torch.equal(compiled(*inputs), value(*inputs))


@over_dtypes
@over_kinds
def test_opcheck(dtype, kind):
    inputs = leaves(*head(5, 4, dtype))
    keywords = settings(kind, 2)
    assert_checked(OPS.head_loss.default, inputs, keywords)
    full = {"label_smoothing": 0.0, **keywords}
    for with_sums in (True, False):
        assert_checked(OPS.head_loss_forward.default, inputs, {**full, "with_sums": with_sums})


@pytest.mark.parametrize("shape", [(4, 0), (2, 1)], ids=shape_id)
def test_opcheck_of_small_and_of_no_columns(shape):
    assert_checked(OPS.head_loss.default, leaves(*head(*shape)), {"real_rows": shape[0] // 2})
    assert_checked(OPS.head_loss.default, leaves(*head(*shape, bias=False)), {"real_rows": shape[0] // 2})


@pytest.mark.parametrize("mask", [[True] * 3, [True, False, False], [False, True, True]], ids=str)
@pytest.mark.parametrize("given", ["loss", "logits", "both"])
@pytest.mark.parametrize("with_sums", [True, False], ids=["sums", "no sums"])
def test_opcheck_of_backward(mask, given, with_sums):
    hidden, weight, bias = leaves(*head(5, 4))
    keywords = settings("discriminator", 2)
    with torch.no_grad():
        _, logits, slopes, sums = OPS.head_loss_forward(hidden, weight, bias, with_sums=with_sums, **keywords)
    grad_loss = leaves(normal(seed=8))[0] if given != "logits" else None
    grad_logits = leaves(normal(5, seed=9))[0] if given != "loss" else None
    tensors = (grad_loss, grad_logits, hidden, weight, logits, slopes, sums)
    assert_checked(OPS.head_loss_backward.default, tensors, {**keywords, "output_mask": mask})


def call(hidden=None, weight=None, bias=None, *, real_rows=2, **keywords):
    """head_loss on (5, 6) with some argument replaced."""
    given = [old if new is None else new for new, old in zip([hidden, weight, bias], head(5, 6), strict=True)]
    return pygan.ops.head_loss(*given, real_rows=real_rows, **keywords)


BAD = {
    "inner dimension": (lambda: call(torch.ones(5, 4)), ("hidden", "weight", "4", "6")),
    "hidden of rank 1": (lambda: call(torch.ones(6)), ("hidden", r"\(m, k\)")),
    "hidden of rank 3": (lambda: call(torch.ones(1, 5, 6)), ("hidden", r"\(m, k\)")),
    "two outputs": (lambda: call(weight=torch.ones(2, 6)), ("weight", r"one row \(1, k\)")),
    "weight of rank 1": (lambda: call(weight=torch.ones(6)), ("weight", r"one row \(1, k\)")),
    "bias length": (lambda: call(bias=torch.ones(2)), ("bias", "1", "2")),
    "bias of rank 0": (lambda: call(bias=torch.ones(())), ("bias",)),
    "mixed weight": (lambda: call(weight=torch.ones(1, 6).double()), ("weight", "hidden")),
    "mixed bias": (lambda: call(bias=torch.ones(1).half()), ("bias", "hidden")),
    "integers": (lambda: call(*(torch.ones(s, dtype=torch.int64) for s in ((5, 6), (1, 6), 1))), ("hidden",)),
    "too many real rows": (lambda: call(real_rows=6), ("real_rows", "5", "6")),
    "negative real rows": (lambda: call(real_rows=-1), ("real_rows", "-1")),
    "real rows for G": (lambda: call(kind="minimax"), ("real_rows", "minimax", "0", "2")),
    "smoothing for G": (
        lambda: call(real_rows=0, kind="non_saturating", label_smoothing=0.1),
        ("label_smoothing", "non_saturating"),
    ),
    "kind": (lambda: call(kind="wasserstein"), ("kind", "wasserstein")),
    "near kind": (lambda: call(kind="discriminater"), ("kind", "discriminater", "discriminator")),
    "smoothing below zero": (lambda: call(label_smoothing=-0.1), ("label_smoothing", r"-0\.1")),
    "smoothing of one": (lambda: call(label_smoothing=1.0), ("label_smoothing", "1")),
    "real rows are a fraction": (lambda: call(real_rows=1.5), ("real_rows", "float")),
    "kind is no string": (lambda: call(kind=1), ("kind", "int")),
    "weight is no tensor": (lambda: call(weight=[1.0]), ("weight", "list")),
    "smoothing is nan": (lambda: call(label_smoothing=float("nan")), ("label_smoothing",)),
}


@pytest.mark.parametrize(("bad", "named"), BAD.values(), ids=BAD)
def test_bad_input_gets_a_sentence(bad, named):
    with pytest.raises(REJECTED, match=words(*named)):
        bad()


def test_meta_tensors_have_the_shape():
    loss, logits = pygan.ops.head_loss(*(tensor.to("meta") for tensor in head(5, 6)), real_rows=2)
    assert loss.shape == ()
    assert logits.shape == (5,)


def test_dtypes_are_all_listed():
    for dtype in DTYPES:
        assert pygan.ops.head_loss(*head(4, 3, dtype), real_rows=2)[0].dtype == dtype
