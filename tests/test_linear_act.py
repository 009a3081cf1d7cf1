"""linear_act: act(dropout(x) W^T + b) as one product, to second derivatives, against its twin in float64."""

import pytest
import torch

import pygan
from cases import (
    ACTIVATIONS,
    COMPILER_WARNINGS,
    DTYPES,
    LAYOUTS,
    REJECTED,
    SMALL_SHAPES,
    assert_accurate,
    assert_checked,
    assert_same_bits,
    assert_twins,
    dtype_id,
    layer,
    leaves,
    normal,
    over_activations,
    over_dtypes,
    over_shapes,
    shape_id,
    three_orders,
    value_and_gradients,
    words,
)
from pygan import reference

KEY = {"dropout": 0.3, "seed": 77, "offset": (0x100 << 48) + 5}


def pair(**keywords):
    """The op and its twin with the same keywords; dropout of the operand is the schema's alone."""
    op = torch.ops.pygan.linear_act if "dropout" in keywords else pygan.ops.linear_act
    return (
        lambda *tensors: op(*tensors, **keywords),
        lambda *tensors: reference.linear_act(*tensors, **keywords),
    )


@pytest.mark.parametrize("shape", [(259, 700, 35), (530, 40, 401), (300, 385, 1)], ids=shape_id)
@over_dtypes
@pytest.mark.parametrize("keywords", [{"activation": "tanh"}, {"activation": "relu", **KEY}], ids=["plain", "dropout"])
def test_many_rows(shape, dtype, keywords, device):
    """Rows enough for the order in which whole rows of the result are made, over more than a block of k."""
    inputs = layer(*shape, dtype=dtype, device=device)
    assert_twins(*pair(**keywords), inputs, length=max(shape))


@over_shapes
@over_dtypes
@over_activations
def test_three_orders(shape, dtype, activation, device):
    inputs = layer(*shape, dtype=dtype, device=device)
    assert_twins(*pair(activation=activation, slope=0.2), inputs, length=max(shape))


@pytest.mark.parametrize("shape", [(3, 0, 4), (1, 1, 1), (7, 13, 17), (100, 784, 33)], ids=shape_id)
@over_dtypes
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_dropout_of_the_operand(shape, dtype, activation, device):
    inputs = layer(*shape, dtype=dtype, device=device)
    assert_twins(*pair(activation=activation, **KEY), inputs, length=max(shape))


@over_shapes
@over_dtypes
def test_without_bias(shape, dtype, device):
    inputs = layer(*shape, dtype=dtype, device=device, bias=False)
    assert_twins(*pair(activation="tanh"), inputs, length=max(shape))


@pytest.mark.parametrize("leading", [(), (1,), (0,), (2, 3), (2, 0), (2, 1, 3, 2)], ids=str)
@over_dtypes
def test_leading_dimensions(leading, dtype, device):
    _, weight, bias = layer(1, 13, 5, dtype=dtype, device=device)
    x = normal(*leading, 13, dtype=dtype, device=device)
    assert_twins(*pair(activation="sigmoid"), [x, weight, bias], length=13)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=dtype_id)
@pytest.mark.parametrize("shape", [(7, 13, 17), (40, 50, 60), (1, 9, 5)], ids=shape_id)
def test_layouts(layout, dtype, shape, device):
    inputs = layer(*shape, dtype=dtype, device=device)
    change = LAYOUTS[layout]

    def laid_out(function):
        return lambda x, weight, bias: change(function(change(x), change(weight), bias))

    ours, twin = pair(activation="tanh", **KEY)
    assert_twins(laid_out(ours), laid_out(twin), inputs, length=max(shape))


def test_expanded_inputs_and_gradients(device):
    row, column, one = normal(1, 9, device=device), normal(6, 1, device=device), normal(1, device=device)

    def expanded(function):
        # the sum hands an expanded gradient back
        return lambda row, column, one: function(row.expand(5, 9), column.expand(6, 9), one.expand(6)).sum(0)

    ours, twin = pair(activation="softplus")
    assert_twins(expanded(ours), expanded(twin), [row, column, one], length=45)


def test_strided_bias(device):
    x, weight, bias = layer(5, 6, 7, device=device)
    spaced = torch.stack((bias, bias), dim=1)[:, 0]
    assert torch.equal(pygan.ops.linear_act(x, weight, spaced), pygan.ops.linear_act(x, weight, bias))


@pytest.mark.parametrize(
    ("activation", "slope"),
    [*((name, 0.2) for name in ACTIVATIONS), *(("leaky_relu", slope) for slope in (0.0, 0.01, 1.0))],
)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradcheck(activation, slope, dropout, device):
    inputs = leaves(*layer(4, 3, 5, dtype=torch.float64, device=device))
    ours, _ = pair(activation=activation, slope=slope, **KEY | {"dropout": dropout})
    before_activation = reference.linear_act(*inputs, activation="identity", **KEY | {"dropout": dropout})
    assert before_activation.abs().min() > 1e-3, "too near the kink for finite differences"
    assert torch.autograd.gradcheck(ours, inputs)
    assert torch.autograd.gradgradcheck(ours, inputs)


@over_activations
def test_every_value_is_right_to_its_last_places(activation, device):
    """The elementary functions, one number at a time: near zero, in both tails, everywhere between."""
    grid = torch.linspace(-80.0, 80.0, 4001)
    tiny = torch.logspace(-30, 0, 301)
    x = torch.cat((grid, tiny, -tiny)).to(device).unsqueeze(1)
    one = torch.ones(1, 1, device=device)
    got = pygan.ops.linear_act(x, one, activation=activation).double()
    truth = reference.linear_act(x.double(), one.double(), activation=activation)
    torch.testing.assert_close(got, truth, rtol=6e-7, atol=1e-37)


@over_activations
@over_dtypes
def test_infinities_end_where_torch_ends_them(activation, dtype, device):
    x = torch.tensor([[float("inf")], [-float("inf")], [1e4], [-1e4]], dtype=dtype, device=device)
    one = torch.ones(1, 1, dtype=dtype, device=device)
    got = pygan.ops.linear_act(x, one, activation=activation)
    torch.testing.assert_close(got, reference.linear_act(x, one, activation=activation))


@over_activations
@over_dtypes
def test_nan_reaches_its_row_and_no_other(activation, dtype, device):
    inputs = layer(9, 11, 13, dtype=dtype, device=device)
    inputs[0][4, 10] = float("nan")
    value, grad_x, grad_weight, grad_bias = value_and_gradients(pair(activation=activation)[0], inputs)
    assert value[4].isnan().all()
    assert value.isnan().sum() == 13
    assert grad_x.isnan().any(1).sum() <= 1
    if activation not in ("identity", "leaky_relu", "relu"):
        assert grad_weight.isnan().all()
        assert grad_bias.isnan().all()


def test_nan_of_a_weight_reaches_its_column_and_no_other(device):
    x, weight, bias = layer(9, 11, 13, device=device)
    weight[3, 10] = float("nan")
    value = pygan.ops.linear_act(x, weight, bias, activation="relu")
    assert value[:, 3].isnan().all()
    assert value.isnan().sum() == 9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_id)
@pytest.mark.parametrize("shape", [(100, 784, 128), (257, 500, 129), (1000, 33, 65), (1, 1000, 1200)], ids=shape_id)
def test_thread_counts_and_repeats_give_the_same_bits(shape, dtype, set_threads):
    inputs = layer(*shape, dtype=dtype)
    ours, _ = pair(activation="tanh", **KEY)
    set_threads(1)
    with pygan.ops.products("fused"):
        one = value_and_gradients(ours, inputs)
        set_threads(2)
        assert_same_bits(one, value_and_gradients(ours, inputs))
        assert_same_bits(one, value_and_gradients(ours, inputs))


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2), (1, 2)], ids=str)
@pytest.mark.parametrize("activation", ["identity", "tanh"])
def test_only_what_is_asked_is_given(wanted, activation, device):
    inputs = layer(5, 6, 7, device=device)
    expected = value_and_gradients(pair(activation=activation)[0], inputs)
    asked = [tensor.requires_grad_(i in wanted) for i, tensor in enumerate(inputs)]
    value = pygan.ops.linear_act(*asked, activation=activation)
    value.backward(normal(*value.shape, seed=9, device=device))
    for i, tensor in enumerate(asked):
        if i in wanted:
            torch.testing.assert_close(tensor.grad, expected[1 + i])
        else:
            assert tensor.grad is None


def test_saved_state_is_inputs_and_output_alone():
    """Never the pre-activation nor a mask: one tensor of the output's size a layer."""
    inputs = leaves(*layer(50, 30, 40))
    saved = {}

    def pack(tensor):
        saved[tensor.data_ptr()] = tensor.shape
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = torch.ops.pygan.linear_act(*inputs, activation="tanh", **KEY)
    assert set(saved) <= {inputs[0].data_ptr(), inputs[1].data_ptr(), inputs[2].data_ptr(), y.data_ptr()}


def test_gradients_accumulate_and_backward_can_be_repeated():
    inputs = leaves(*layer(5, 6, 7))
    y = pygan.ops.linear_act(*inputs, activation="elu")
    y.sum().backward(retain_graph=True)
    once = [tensor.grad.clone() for tensor in inputs]
    y.sum().backward()
    for tensor, grad in zip(inputs, once, strict=True):
        torch.testing.assert_close(tensor.grad, 2 * grad)


def test_inplace_change_of_what_backward_needs_is_noticed():
    x, weight, bias = leaves(*layer(5, 6, 7))
    y = pygan.ops.linear_act(x, weight, bias, activation="tanh")
    y.detach().mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_autocast(activation):
    inputs = layer(5, 6, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fresh = leaves(*inputs)
        y = pygan.ops.linear_act(*fresh, activation=activation)
        assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert [tensor.grad.dtype for tensor in fresh] == [torch.float32] * 3
    rounded = [tensor.bfloat16() for tensor in inputs]
    assert torch.equal(y, pygan.ops.linear_act(*rounded, activation=activation))


def test_autocast_mixes_are_taken():
    x, weight, bias = layer(5, 6, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert pygan.ops.linear_act(x.bfloat16(), weight, bias).dtype == torch.bfloat16


def test_inference_mode_and_no_grad():
    inputs = leaves(*layer(5, 6, 7))
    expected = pygan.ops.linear_act(*inputs).detach()
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            got = pygan.ops.linear_act(*inputs)
        assert not got.requires_grad
        assert torch.equal(got, expected)


@COMPILER_WARNINGS
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_without_graph_break(backend):
    def loss(x, weight, bias):
        return torch.ops.pygan.linear_act(x, weight, bias, activation="tanh", **KEY).square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    fresh, plain = leaves(*layer(6, 5, 4)), leaves(*layer(6, 5, 4))
    compiled(*fresh).backward()
    loss(*plain).backward()
    for one, other in zip(fresh, plain, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_another_batch_size_and_counter_need_no_other_graph():
    def layer_of(x, weight, bias, offset):
        return torch.ops.pygan.linear_act(x, weight, bias, dropout=0.5, seed=1, offset=offset)

    torch._dynamo.reset()
    compiled = torch.compile(layer_of, fullgraph=True, backend="aot_eager", dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for rows, offset in ((4, 5), (7, 6), (9, (1 << 48) + 7)):
            inputs = layer(rows, 5, 6)
            assert torch.equal(compiled(*inputs, offset), layer_of(*inputs, offset))


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("activation", ["identity", "leaky_relu", "softplus"])
def test_opcheck(dtype, activation):
    op = torch.ops.pygan.linear_act.default
    inputs = leaves(*layer(3, 5, 4, dtype=dtype))
    assert_checked(op, inputs, {"activation": activation, **KEY})


@pytest.mark.parametrize("shape", SMALL_SHAPES[:4], ids=shape_id)
def test_opcheck_of_small_and_empty(shape):
    op = torch.ops.pygan.linear_act.default
    assert_checked(op, leaves(*layer(*shape)), {"activation": "relu"})
    assert_checked(op, leaves(*layer(*shape, bias=False)), {"activation": "tanh"})


def test_opcheck_of_layouts_and_ranks():
    op = torch.ops.pygan.linear_act.default
    x, weight, bias = layer(3, 5, 4)
    assert_checked(op, [*leaves(x), weight.mT.contiguous().mT, bias])
    assert_checked(op, leaves(x[0], weight, bias))
    assert_checked(op, leaves(x.expand(2, 3, 5).contiguous(), weight, bias))


@pytest.mark.parametrize("mask", [[True] * 3, [True, False, False], [False, True, True]], ids=str)
def test_opcheck_of_backward(mask):
    x, weight, _ = leaves(*layer(3, 5, 4))
    (grad_y,), y = leaves(normal(3, 4, seed=9)), normal(3, 4, seed=8).tanh()
    keywords = {"activation": "tanh", "slope": 0.01, **KEY, "output_mask": mask}
    assert_checked(torch.ops.pygan.linear_act_backward.default, (grad_y, x, weight, y), keywords)


def call(x=None, weight=None, bias=None, **keywords):
    """linear_act on (5, 6) x (7, 6) + (7) with some argument replaced."""
    given = [old if new is None else new for new, old in zip([x, weight, bias], layer(5, 6, 7), strict=True)]
    return pair(**keywords)[0](*given)


BAD = {
    "inner dimension": (lambda: call(x=torch.ones(5, 4)), ("x", "weight", "4", "6")),
    "scalar x": (lambda: call(x=torch.ones(())), ("x",)),
    "weight of rank 1": (lambda: call(weight=torch.ones(6)), ("weight", r"\(n, k\)")),
    "weight of rank 3": (lambda: call(weight=torch.ones(1, 7, 6)), ("weight", r"\(n, k\)")),
    "bias length": (lambda: call(bias=torch.ones(6)), ("bias", "7", "6")),
    "bias of rank 2": (lambda: call(bias=torch.ones(1, 7)), ("bias",)),
    "mixed weight": (lambda: call(weight=torch.ones(7, 6).double()), ("weight", "x")),
    "mixed bias": (lambda: call(bias=torch.ones(7).half()), ("bias",)),
    "integer x": (lambda: call(*(torch.ones(s, dtype=torch.int64) for s in ((5, 6), (7, 6), 7))), ("x",)),
    "complex x": (lambda: call(*(torch.ones(s, dtype=torch.complex64) for s in ((5, 6), (7, 6), 7))), ("x",)),
    "sparse x": (lambda: call(x=torch.ones(5, 6).to_sparse()), ()),
    "activation": (lambda: call(activation="rleu"), ("activation", "rleu", "relu")),
    "case": (lambda: call(activation="ReLU"), ("activation", "relu")),
    "empty activation": (lambda: call(activation=""), ("activation",)),
    "slope": (lambda: call(activation="leaky_relu", slope=-0.1), ("slope", r"-0\.1")),
    "slope is nan": (lambda: call(activation="leaky_relu", slope=float("nan")), ("slope",)),
    "dropout of one": (lambda: call(dropout=1.0), ("dropout", "1")),
    "dropout below zero": (lambda: call(dropout=-0.5), ("dropout", r"-0\.5")),
    "dropout is nan": (lambda: call(dropout=float("nan")), ("dropout",)),
    "x is no tensor": (lambda: call(x=3.0), ("x",)),
}


@pytest.mark.parametrize(("bad", "named"), BAD.values(), ids=BAD)
def test_bad_input_gets_a_sentence(bad, named):
    with pytest.raises(REJECTED, match=words(*named)):
        bad()


def test_meta_tensors_have_the_shape():
    inputs = [tensor.to("meta") for tensor in layer(5, 6, 7)]
    y = pygan.ops.linear_act(*inputs)
    assert y.shape == (5, 7)
    assert y.device.type == "meta"


def test_every_activation_is_listed_once():
    assert list(reference.ACTIVATIONS) == ACTIVATIONS


def test_the_judge_can_say_no():
    """A result with one wrong element in a thousand is not accurate, in any dtype."""
    inputs = layer(31, 37, 41, dtype=torch.bfloat16)
    truth = three_orders(reference.linear_act, inputs, torch.float64)["value"]
    for dtype in DTYPES:
        good = truth.to(dtype)
        bad = good.clone()
        bad[3, 3] += 1.0
        assert_accurate(good, good, truth, length=37)
        with pytest.raises(AssertionError, match="error"):
            assert_accurate(bad, good, truth, length=37)


def test_bias_gradient_alone_of_a_large_batch(device):
    """No column of a product, and an inner dimension deep enough to be split."""
    x, weight, bias = (tensor.detach() for tensor in layer(1031, 8, 4, device=device))
    bias.requires_grad_()
    pygan.ops.linear_act(x, weight, bias, activation="identity").sum().backward()
    torch.testing.assert_close(bias.grad, torch.full_like(bias, 1031.0))


def test_relu_stops_infinite_gradients_as_torch_does(device):
    x = torch.tensor([[-1.0], [1.0]], device=device)
    weight = torch.ones(1, 1, device=device, requires_grad=True)
    upstream = torch.tensor([[torch.inf], [2.0]], device=device)
    ours = torch.autograd.grad(pygan.ops.linear_act(x, weight), weight, upstream)
    theirs = torch.autograd.grad(torch.relu(torch.nn.functional.linear(x, weight)), weight, upstream)
    torch.testing.assert_close(ours, theirs)


def test_newer_precision_settings_are_understood(device):
    """torch refuses its older getter once one of these was set."""
    x, weight, bias = layer(3, 4, 5, device=device)
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    try:
        settings.fp32_precision = "tf32"
        pygan.ops.linear_act(x, weight, bias)
    finally:
        settings.fp32_precision = before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("m", [3073, 7001])
def test_weight_gradient_of_a_long_batch(device, dtype, m):
    """Sums over more rows than are packed at a time, for more rows of the weight than go together."""
    if pygan.build_info()["simt"] and m > 4000:
        pytest.skip("too slow on the emulator")
    x, g = (torch.linspace(0, 40 * n, m * n, dtype=torch.float64).sin().view(m, n).to(device, dtype) for n in (37, 205))
    weight, bias = (
        torch.zeros(*shape, device=device, dtype=dtype, requires_grad=True) for shape in ((205, 37), (205,))
    )
    y = pygan.ops.linear_act(x, weight, bias, activation="identity")
    got = torch.autograd.grad(y, (weight, bias), g)
    expected = g.double().T @ x.double(), g.double().sum(0)
    scale = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 5e-3}[dtype]
    for ours, true in zip(got, expected, strict=True):
        assert (ours.double() - true).norm() <= scale * m**0.5 * true.norm().clamp_min(1.0)
