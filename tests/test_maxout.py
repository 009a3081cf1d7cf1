"""maxout: the largest of each unit's pieces, bias before the maximum; backward by one byte of argmax."""

import pytest
import torch

import pygan
from cases import (
    LAYOUTS,
    REJECTED,
    assert_accurate,
    assert_checked,
    assert_same_bits,
    assert_twins,
    dtype_id,
    layer,
    leaves,
    normal,
    over_dtypes,
    value_and_gradients,
    words,
)
from pygan import reference

KEY = {"dropout": 0.3, "seed": 77, "offset": (0x100 << 48) + 5}
# (m, k, units, pieces)
CASES = [
    (0, 3, 4, 2),
    (3, 0, 4, 2),
    (3, 4, 0, 2),
    (1, 1, 1, 1),
    (1, 1, 1, 5),
    (2, 3, 5, 2),
    (7, 13, 17, 3),
    (31, 37, 11, 5),
    (33, 784, 1, 2),
    (5, 1009, 3, 7),
    (100, 100, 48, 5),
    (130, 7, 3, 17),
    (3, 2, 2, 255),
]
over_cases = pytest.mark.parametrize(("m", "k", "units", "pieces"), CASES)


def pair(**keywords):
    """The op and its twin with the same keywords; dropout of the operand is the schema's alone."""
    op = torch.ops.pygan.maxout if "dropout" in keywords else pygan.ops.maxout
    return (
        lambda *tensors: op(*tensors, **keywords),
        lambda *tensors: reference.maxout(*tensors, **keywords),
    )


def clear(m, k, units, pieces, dtype, device="cpu", **dropped):
    """A layer whose two largest pieces are apart by more than a rounding: their order is beyond doubt."""
    x, weight, bias = layer(m, k, units * pieces, dtype=dtype, device=device)
    order = torch.randperm(pieces, generator=torch.Generator().manual_seed(4)).to(bias)
    return [x, weight * 0.1, (bias * 0.1 + order.repeat(units) * 2.0).to(dtype)]


@over_cases
@over_dtypes
def test_three_orders(m, k, units, pieces, dtype, device):
    inputs = clear(m, k, units, pieces, dtype, device)
    assert_twins(*pair(pieces=pieces), inputs, length=max(m, k))


@pytest.mark.parametrize("pieces", [1, 2, 5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=dtype_id)
def test_three_orders_where_every_piece_wins_somewhere(pieces, dtype, device):
    inputs = layer(64, 50, 20 * pieces, dtype=dtype, device=device)
    pre = reference.linear_act(*(tensor.double() for tensor in inputs), activation="identity")
    top = pre.unflatten(-1, (20, pieces)).topk(min(pieces, 2), dim=-1).values
    assert pieces == 1 or (top[..., 0] - top[..., 1]).min() > 1e-5, "a tie within rounding: choose another seed"
    assert_twins(*pair(pieces=pieces), inputs, length=64)


@over_dtypes
@pytest.mark.parametrize("pieces", [2, 5])
def test_value_in_every_dtype(pieces, dtype, device):
    inputs = layer(40, 30, 12 * pieces, dtype=dtype, device=device)
    eager = reference.maxout(*inputs, pieces=pieces)
    truth = reference.maxout(*(tensor.double() for tensor in inputs), pieces=pieces)
    assert_accurate(pygan.ops.maxout(*inputs, pieces=pieces), eager, truth, length=30)


@over_dtypes
def test_dropout_of_the_operand(dtype, device):
    inputs = clear(17, 100, 6, 3, dtype, device)
    assert_twins(*pair(pieces=3, **KEY), inputs, length=100)


@over_dtypes
def test_without_bias(dtype, device):
    x, weight, _ = clear(7, 5, 4, 1, dtype, device)
    assert_twins(*pair(pieces=1), [x, weight], length=7)


@pytest.mark.parametrize("leading", [(), (0,), (2, 3), (2, 0)], ids=str)
def test_leading_dimensions(leading, device):
    _, weight, bias = clear(1, 13, 5, 2, torch.float64, device)
    x = normal(*leading, 13, dtype=torch.float64, device=device)
    assert_twins(*pair(pieces=2), [x, weight, bias], length=13)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=dtype_id)
def test_layouts(layout, dtype, device):
    inputs = clear(12, 13, 7, 3, dtype, device)
    change = LAYOUTS[layout]

    def laid_out(function):
        return lambda x, weight, bias: change(function(change(x), change(weight), bias))

    ours, twin = pair(pieces=3, **KEY)
    assert_twins(laid_out(ours), laid_out(twin), inputs, length=13)


def test_a_tie_goes_to_one_piece(device):
    """Equal pieces: the gradient is handed to exactly one, not doubled and not lost."""
    weight = normal(1, 4, device=device).repeat(6, 1).requires_grad_()
    pygan.ops.maxout(normal(1, 4, device=device, seed=3), weight, pieces=3).sum().backward()
    assert (weight.grad.abs().sum(1) > 0).view(2, 3).sum(1).tolist() == [1, 1]


@over_dtypes
def test_nan_wins(dtype, device):
    inputs = layer(9, 11, 12, dtype=dtype, device=device)
    inputs[0][4, 10] = float("nan")
    value = pygan.ops.maxout(*inputs, pieces=3)
    assert value[4].isnan().all()
    assert value.isnan().sum() == 4


@pytest.mark.parametrize("place", range(3))
def test_nan_of_one_piece_wins(place, device):
    x, weight, bias = layer(9, 11, 12, device=device)
    bias[3 + place] = float("nan")
    value = pygan.ops.maxout(x, weight, bias, pieces=3)
    assert value[:, 1].isnan().all()
    assert value.isnan().sum() == 9


def test_minus_infinity_can_win(device):
    x, weight, bias = layer(2, 3, 6, device=device)
    bias[:3] = -float("inf")
    value = pygan.ops.maxout(x, weight, bias, pieces=3)
    assert (value[:, 0] == -float("inf")).all()


@pytest.mark.parametrize("pieces", [1, 2, 5])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradcheck(pieces, dropout, device):
    inputs = leaves(*layer(4, 3, 5 * pieces, dtype=torch.float64, device=device))
    ours, _ = pair(pieces=pieces, **KEY | {"dropout": dropout})
    assert torch.autograd.gradcheck(ours, inputs)
    assert torch.autograd.gradgradcheck(ours, inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_id)
def test_thread_counts_and_repeats_give_the_same_bits(dtype, set_threads):
    inputs = layer(100, 784, 240, dtype=dtype)
    ours, _ = pair(pieces=5, **KEY)
    set_threads(1)
    one = value_and_gradients(ours, inputs)
    set_threads(2)
    assert_same_bits(one, value_and_gradients(ours, inputs))
    assert_same_bits(one, value_and_gradients(ours, inputs))


def test_saved_state_is_one_byte_a_unit():
    inputs = leaves(*layer(50, 30, 40))
    extra = {}

    def pack(tensor):
        if tensor.data_ptr() not in {leaf.data_ptr() for leaf in inputs}:
            extra[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = pygan.ops.maxout(*inputs, pieces=5)
    assert sum(extra.values()) <= y.numel() * (1 + y.element_size())


def test_autocast():
    fresh = leaves(*layer(5, 6, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = pygan.ops.maxout(*fresh, pieces=2)
        assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert [tensor.grad.dtype for tensor in fresh] == [torch.float32] * 3


def test_compiles_without_graph_break():
    def loss(x, weight, bias):
        return torch.ops.pygan.maxout(x, weight, bias, pieces=2, **KEY).square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    fresh, plain = leaves(*layer(6, 5, 4)), leaves(*layer(6, 5, 4))
    compiled(*fresh).backward()
    loss(*plain).backward()
    for one, other in zip(fresh, plain, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@over_dtypes
def test_opcheck(dtype):
    op = torch.ops.pygan.maxout.default
    assert_checked(op, leaves(*layer(3, 5, 4, dtype=dtype)), {"pieces": 2, **KEY})


@pytest.mark.parametrize(("m", "k", "units", "pieces"), CASES[:4])
def test_opcheck_of_small_and_empty(m, k, units, pieces):
    op = torch.ops.pygan.maxout.default
    assert_checked(op, leaves(*layer(m, k, units * pieces)), {"pieces": pieces})
    assert_checked(op, leaves(*layer(m, k, units * pieces, bias=False)), {"pieces": pieces})


def test_opcheck_of_the_parts():
    x, weight, bias = leaves(*layer(3, 5, 6))
    keywords = {"pieces": 2, **KEY}
    assert_checked(torch.ops.pygan.maxout_forward.default, (x, weight, bias), keywords)
    _, argmax = torch.ops.pygan.maxout_forward(x, weight, bias, **keywords)
    assert argmax.dtype == torch.uint8
    (grad_y,) = leaves(normal(3, 3, seed=9))
    keywords["output_mask"] = [True, True, True]
    assert_checked(torch.ops.pygan.maxout_backward.default, (grad_y, x, weight, argmax), keywords)


def call(x=None, weight=None, bias=None, **keywords):
    """maxout on (5, 6) x (8, 6) + (8) with some argument replaced."""
    given = [old if new is None else new for new, old in zip([x, weight, bias], layer(5, 6, 8), strict=True)]
    return pair(**{"pieces": 2} | keywords)[0](*given)


BAD = {
    "pieces do not divide": (lambda: call(pieces=3), ("pieces", "3", "8")),
    "no pieces": (lambda: call(pieces=0), ("pieces", "0")),
    "too many pieces": (lambda: call(pieces=257), ("pieces", "257")),
    "negative pieces": (lambda: call(pieces=-2), ("pieces", "-2")),
    "inner dimension": (lambda: call(x=torch.ones(5, 4)), ("x", "weight", "4", "6")),
    "scalar x": (lambda: call(x=torch.ones(())), ("x",)),
    "weight of rank 1": (lambda: call(weight=torch.ones(6)), ("weight", r"\(n, k\)")),
    "bias length": (lambda: call(bias=torch.ones(4)), ("bias", "8", "4")),
    "mixed weight": (lambda: call(weight=torch.ones(8, 6).double()), ("weight", "x")),
    "mixed bias": (lambda: call(bias=torch.ones(8).half()), ("bias",)),
    "integer x": (lambda: call(*(torch.ones(s, dtype=torch.int64) for s in ((5, 6), (8, 6), 8))), ("x",)),
    "dropout": (lambda: call(dropout=1.5), ("dropout", r"1\.5")),
}


@pytest.mark.parametrize(("bad", "named"), BAD.values(), ids=BAD)
def test_bad_input_gets_a_sentence(bad, named):
    with pytest.raises(REJECTED, match=words(*named)):
        bad()
