"""linear_batch_norm_act: act(batch_norm(x W^T + b)), against its twin and against torch's own modules."""

import pytest
import torch
from torch import nn

import pygan
from cases import (
    ACTIVATIONS,
    COMPILER_WARNINGS,
    LAYOUTS,
    REJECTED,
    assert_checked,
    assert_same_bits,
    assert_twins,
    dtype_id,
    error,
    layer,
    leaves,
    normal,
    over_activations,
    over_dtypes,
    shape_id,
    value_and_gradients,
    words,
)
from pygan import reference

# (m, k, n): the smallest batch, one input, odd, past one panel, past one block of k, more rows than go at once
SHAPES = [(2, 3, 5), (3, 1, 1), (7, 13, 17), (64, 100, 128), (33, 784, 70), (300, 40, 33), (1009, 5, 3)]
RUNNING = {"training": False}
TRAINING = {"training": True}
STATISTICS = [pytest.param(TRAINING, id="batch"), pytest.param(RUNNING, id="running")]

over_shapes = pytest.mark.parametrize("shape", SHAPES, ids=shape_id)
over_statistics = pytest.mark.parametrize("statistics", STATISTICS)


def pair(**keywords):
    """The op and its twin as functions of x, weight, gamma, beta: running statistics are made afresh for each."""

    def of(op):
        def function(x, weight, gamma, beta):
            n = len(weight)
            mean, variance = running(n, gamma)
            return op(x, weight, None, gamma, beta, mean, variance, **keywords)

        return function

    return of(pygan.ops.linear_batch_norm_act), of(reference.linear_batch_norm_act)


def running(n, like):
    mean = normal(n, seed=8, dtype=like.dtype, device=like.device, scale=0.3)
    return mean, normal(n, seed=9, dtype=like.dtype, device=like.device).abs() + 0.5


def tensors(shape, dtype=torch.float32, device="cpu", vectors=None):
    """x, weight, gamma, beta."""
    m, k, n = shape
    x, weight = layer(m, k, n, dtype=dtype, device=device, bias=False)
    vectors = {"dtype": vectors or dtype, "device": device}
    return [x, weight, normal(n, seed=5, **vectors).abs() + 0.5, normal(n, seed=6, **vectors)]


@over_shapes
@over_dtypes
@over_statistics
@pytest.mark.parametrize("activation", ["identity", "leaky_relu"])
def test_three_orders(shape, dtype, statistics, activation, device):
    if dtype in (torch.bfloat16, torch.float16) and shape[0] < 7:
        pytest.skip("statistics of a few rounded numbers: a variance near zero is all rounding")
    # eps: of two rows little but rounding is left otherwise
    keywords = {"activation": activation, "slope": 0.2, "eps": 0.1, **statistics}
    assert_twins(*pair(**keywords), tensors(shape, dtype, device), length=max(shape))


@over_statistics
@over_activations
def test_activations(statistics, activation, device):
    inputs = tensors((40, 20, 37), torch.float64, device)
    assert_twins(*pair(activation=activation, slope=0.2, **statistics), inputs, length=40)


@pytest.mark.parametrize("layout", LAYOUTS)
@over_statistics
def test_layouts(layout, statistics, device):
    change = LAYOUTS[layout]

    def laid_out(function):
        return lambda x, weight, *vectors: change(function(change(x), change(weight), *vectors))

    ours, twin = pair(activation="tanh", **statistics)
    assert_twins(laid_out(ours), laid_out(twin), tensors((19, 23, 35), torch.float64, device), length=23)


@over_statistics
@pytest.mark.parametrize("given", [(), ("gamma",), ("beta",)], ids=str)
def test_without_gamma_or_beta(given, statistics, device):
    x, weight, gamma, beta = tensors((9, 6, 35), torch.float64, device)
    vectors = {"gamma": gamma, "beta": beta}
    names = [name for name in vectors if name in given]

    def of(op):
        def function(x, weight, *present):
            mean, variance = running(len(weight), x)
            every = dict(zip(names, present, strict=True))
            return op(x, weight, running_mean=mean, running_var=variance, **every, **statistics)

        return function

    inputs = [x, weight, *(vectors[name] for name in names)]
    assert_twins(of(pygan.ops.linear_batch_norm_act), of(reference.linear_batch_norm_act), inputs, length=9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=dtype_id)
@pytest.mark.parametrize("momentum", [0.0, 0.1, 1.0])
def test_running_statistics_are_torchs(dtype, momentum, device):
    bias = normal(9, seed=4, dtype=dtype, device=device)
    theirs = nn.BatchNorm1d(9, momentum=momentum, eps=1e-3).to(device, dtype)
    mean, variance = (buffer.clone() for buffer in (theirs.running_mean, theirs.running_var))
    for step in range(4):
        x, weight, gamma, beta = tensors((31, 6, 9), dtype, device)
        x = x + step
        with torch.no_grad():
            theirs.weight.copy_(gamma), theirs.bias.copy_(beta)
        expected = theirs(nn.functional.linear(x, weight, bias))
        got = pygan.ops.linear_batch_norm_act(
            x, weight, bias, gamma, beta, mean, variance, training=True, momentum=momentum, eps=1e-3
        )
        tolerance = 1e-5 if dtype == torch.float32 else 1e-12
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(mean, theirs.running_mean, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(variance, theirs.running_var, rtol=tolerance, atol=tolerance)


@over_statistics
def test_bias(statistics, device):
    """In training the batch's mean takes it off: its gradient is zero to the bit; else it is the sum."""
    x, weight, gamma, beta = tensors((12, 5, 34), torch.float64, device)
    bias = normal(34, seed=4, dtype=torch.float64, device=device).requires_grad_()
    mean, variance = running(34, x)
    results = []
    for op in (pygan.ops.linear_batch_norm_act, reference.linear_batch_norm_act):
        y = op(x, weight, bias, gamma, beta, mean.clone(), variance.clone(), activation="tanh", **statistics)
        results.append((y.detach(), *torch.autograd.grad(y.square().sum(), bias)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-11, atol=1e-11)
    assert results[0][1].count_nonzero() == (0 if statistics["training"] else 34)


@over_statistics
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradcheck(activation, statistics, device):
    inputs = leaves(*tensors((6, 3, 4), torch.float64, device))
    ours, _ = pair(activation=activation, slope=0.2, **statistics)
    assert torch.autograd.gradcheck(ours, inputs)
    assert torch.autograd.gradgradcheck(ours, inputs)


def test_a_large_mean_beside_a_small_variance(device):
    """Two passes: the mean is taken off before anything is squared."""
    x = 300 + normal(128, 1, device=device)
    got = pygan.ops.linear_batch_norm_act(x, torch.ones(40, 1, device=device), training=True, eps=0.0)
    truth = reference.linear_batch_norm_act(x.double(), torch.ones(40, 1).double().to(device), training=True, eps=0.0)
    torch.testing.assert_close(got.double(), truth, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=dtype_id)
@over_statistics
def test_float32_vectors_beside_half_types(dtype, statistics, device):
    x, weight, gamma, beta = tensors((64, 32, 48), dtype, device, vectors=torch.float32)
    results = []
    for op in (pygan.ops.linear_batch_norm_act, reference.linear_batch_norm_act):
        inputs = leaves(x, weight, gamma, beta)
        mean, variance = running(48, gamma)
        y = op(*inputs[:2], None, *inputs[2:], mean, variance, activation="tanh", **statistics)
        results.append((y, mean, variance, *torch.autograd.grad(y.float().square().sum(), inputs)))
    for one, other in zip(*results, strict=True):
        assert one.dtype == other.dtype
        assert error(one, other) <= 4 * torch.finfo(dtype).eps


@over_statistics
def test_no_rows(statistics, device):
    x, weight, gamma, beta = leaves(*tensors((0, 3, 4), device=device))
    mean, variance = running(4, x)
    before = mean.clone()
    y = pygan.ops.linear_batch_norm_act(x, weight, None, gamma, beta, mean, variance, **statistics)
    assert y.shape == (0, 4)
    assert torch.equal(mean, before)
    for grad in torch.autograd.grad(y.sum(), (x, weight, gamma, beta)):
        assert grad.count_nonzero() == 0


def test_no_inputs(device):
    assert_twins(*pair(activation="relu", training=True), tensors((3, 0, 4), torch.float64, device), length=3)


@over_statistics
def test_no_columns(statistics, device):
    inputs = leaves(*tensors((3, 4, 0), device=device))
    ours, _ = pair(**statistics)
    y = ours(*inputs)
    assert y.shape == (3, 0)
    assert [grad.shape for grad in torch.autograd.grad(y.sum(), inputs)] == [tensor.shape for tensor in inputs]


@pytest.mark.parametrize("kind", ["fused", "library"])
@pytest.mark.parametrize("shape", [(7, 13, 17), (64, 100, 128)], ids=shape_id)
def test_whose_product_it_is_does_not_matter(shape, kind, device):
    with pygan.ops.products(kind):
        assert_twins(*pair(activation="tanh", training=True), tensors(shape, torch.float64, device), length=max(shape))
    x, weight, gamma, beta = tensors(shape, device=device)
    with pygan.ops.products(kind), torch.no_grad():
        lean = pygan.ops.linear_batch_norm_act(x, weight, None, gamma, beta, training=True)
    torch.testing.assert_close(lean, pair(training=True)[1](x, weight, gamma, beta), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(64, 100, 128), (300, 40, 70)], ids=shape_id)
def test_same_bits_on_any_number_of_threads(shape, set_threads):
    ours, _ = pair(activation="leaky_relu", training=True)
    set_threads(1)
    with pygan.ops.products("fused"):
        first = value_and_gradients(ours, tensors(shape))
        set_threads(2)
        for _ in range(3):
            assert_same_bits(first, value_and_gradients(ours, tensors(shape)))


@over_statistics
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_id)
def test_opcheck(dtype, statistics):
    x, weight, gamma, beta = leaves(*tensors((6, 4, 5), dtype))
    mean, variance = running(5, gamma.detach())
    assert_checked(
        torch.ops.pygan.linear_batch_norm_act_forward.default,
        (x, weight, None, gamma, beta, *((None, None) if statistics["training"] else (mean, variance))),
        {"eps": 1e-5, "activation": "tanh", "slope": 0.0, "keep": True},
    )


@COMPILER_WARNINGS
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@over_statistics
def test_compiles(backend, statistics):
    def step(x, weight, gamma, beta, mean, variance):
        y = pygan.ops.linear_batch_norm_act(
            x, weight, None, gamma, beta, mean, variance, activation="tanh", **statistics
        )
        return y.square().sum()

    results = []
    for function in (step, torch.compile(step, fullgraph=True, backend=backend)):
        inputs = leaves(*tensors((12, 5, 7)))
        mean, variance = running(7, inputs[0].detach())
        loss = function(*inputs, mean, variance)
        results.append((loss.detach(), mean, variance, *torch.autograd.grad(loss, inputs)))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16], ids=dtype_id)
def test_autocast(dtype):
    x, weight, gamma, beta = leaves(*tensors((32, 16, 24)))
    mean, variance = running(24, x.detach())
    with torch.autocast("cpu", dtype=dtype):
        y = pygan.ops.linear_batch_norm_act(x, weight, None, gamma, beta, mean, variance, training=True)
    assert y.dtype == dtype
    grads = torch.autograd.grad(y.float().sum(), (x, weight, gamma, beta))
    assert [grad.dtype for grad in grads] == [torch.float32] * 4
    assert mean.dtype == torch.float32


def test_func_grad():
    x, weight, gamma, beta = tensors((6, 3, 4), torch.float64)

    def loss(op):
        return lambda weight: op(x, weight, None, gamma, beta, training=True, activation="tanh").square().sum()

    ours, twin = (
        torch.func.grad(loss(op))(weight) for op in (pygan.ops.linear_batch_norm_act, reference.linear_batch_norm_act)
    )
    torch.testing.assert_close(ours, twin, rtol=1e-10, atol=1e-10)


@over_statistics
def test_vmap(statistics):
    x, weight, gamma, beta = tensors((6, 3, 4), torch.float64)
    batches = torch.stack((x, x + 1, x.cos()))
    mean, variance = (None, None) if statistics["training"] else running(4, x)

    def of(op):
        return lambda x: op(x, weight, None, gamma, beta, mean, variance, activation="tanh", **statistics)

    got = torch.vmap(of(pygan.ops.linear_batch_norm_act))(batches)
    expected = torch.stack([of(reference.linear_batch_norm_act)(x) for x in batches])
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["fused", "library"])
def test_backward_can_be_called_by_itself(kind):
    x, weight, gamma, beta = leaves(*tensors((6, 3, 4)))
    saved = torch.ops.pygan.linear_batch_norm_act_forward(
        x, weight, None, gamma, beta, None, None, eps=1e-5, activation="tanh", slope=0.0, keep=True
    )
    y, h, mean, inverse, _ = (tensor.detach() for tensor in saved)
    settings = {"batch_statistics": True, "activation": "tanh", "slope": 0.0, "output_mask": [True, True, False]}
    with pygan.ops.products(kind):
        grads = torch.ops.pygan.linear_batch_norm_act_backward(y, x, weight, h, y, gamma, mean, inverse, **settings)
    expected = torch.autograd.grad(saved[0], (x, weight), y)
    torch.testing.assert_close(grads[:2], expected)


def test_what_is_not_saved_may_change():
    x, weight, gamma, beta = leaves(*tensors((6, 3, 4)))
    bias = torch.zeros(4)
    y = pygan.ops.linear_batch_norm_act(x, weight, bias, gamma, beta, training=True)
    with torch.no_grad():
        beta.add_(1)
        bias.add_(1)
    y += 1
    y.sum().backward()
    torch.testing.assert_close(beta.grad, torch.full((4,), 6.0))


def test_a_saved_tensor_that_changes_is_noticed():
    x, weight, gamma, beta = leaves(*tensors((6, 3, 4)))
    y = pygan.ops.linear_batch_norm_act(x, weight, None, gamma, beta, training=True)
    with torch.no_grad():
        gamma.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_inference_keeps_nothing():
    x, weight, gamma, beta = tensors((6, 3, 4))
    call = torch.ops.pygan.linear_batch_norm_act_forward
    settings = {"eps": 1e-5, "activation": "tanh", "slope": 0.0}
    kept = call(x, weight, None, gamma, beta, None, None, keep=True, **settings)
    lean = call(x, weight, None, gamma, beta, None, None, keep=False, **settings)
    assert_same_bits([kept[0], *kept[2:]], [lean[0], *lean[2:]])
    assert (kept[1].shape, lean[1].shape) == ((6, 4), (0,))


X, W = torch.zeros(3, 2), torch.zeros(4, 2)
FOUR, FIVE = torch.ones(4), torch.ones(5)


@pytest.mark.parametrize(
    ("arguments", "keywords", "said"),
    [
        ((X, torch.zeros(4, 3)), TRAINING, ("x", "weight", "last dimension")),
        ((X[0], W), TRAINING, ("x", "2-dimensional")),
        ((X[:1], W), TRAINING, ("x", "more than one row")),
        ((X, W, FIVE), TRAINING, ("bias", "4")),
        ((X, W, None, FIVE), TRAINING, ("gamma", "4", "5")),
        ((X, W, None, None, FIVE), TRAINING, ("beta", "4", "5")),
        ((X, W, None, FOUR.double()), TRAINING, ("gamma", "dtype")),
        ((X, W, None, None, None, FIVE, FIVE), TRAINING, ("running_mean", "4", "5")),
        ((X, W, None, None, None, FOUR), RUNNING, ("running_mean", "running_var", "together")),
        ((X, W, None, None, None, None, FOUR), TRAINING, ("running_mean", "running_var", "together")),
        ((X, W), TRAINING | {"momentum": 1.5}, ("momentum",)),
        ((X, W), TRAINING | {"eps": -1.0}, ("eps",)),
        ((X, W), TRAINING | {"activation": "rely"}, ("activation", "relu")),
        ((X, W), TRAINING | {"slope": -0.5}, ("slope",)),
        ((X, W), {"training": "yes"}, ("training", "True or False")),
        ((X, W, "b"), TRAINING, ("bias", "tensor")),
        ((X, W, None, 1.0), TRAINING, ("gamma", "tensor")),
        ((X.long(), W.long()), TRAINING, ("x",)),
    ],
)
def test_rejected(arguments, keywords, said):
    with pytest.raises(REJECTED, match=words(*said)):
        pygan.ops.linear_batch_norm_act(*arguments, **keywords)
