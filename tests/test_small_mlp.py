"""Narrow MLPs in one launch: where a build has the kernel, `ops.mlp` takes it; here each path is held to float64."""

import pytest
import torch

import pygan
from cases import ACTIVATIONS, DTYPES, assert_accurate, dtype_id
from pygan import reference

SIMT = pygan.build_info()["simt"]
HERE = torch.device("cpu" if SIMT else "cuda")
pytestmark = [] if SIMT else pytest.mark.gpu

WIDTHS = [(2, 32, 32, 2), (1, 1, 1), (3, 0, 2), (3, 5, 7, 1), (128, 128, 128), (100, 128, 17)]
WIDTHS += [(64, 127, 2, 128, 9, 33, 128, 1)]
HALF_OR_FLOAT = [dtype for dtype in DTYPES if dtype != torch.float64]


def network(widths, dtype, batch=19):
    """x, weights, biases (every third is None), activations."""
    generator = torch.Generator().manual_seed(1)
    layers = list(zip(widths[1:], widths[:-1], strict=True))

    def random(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).to(HERE).requires_grad_()

    weights = [(random(n, k) / k**0.5).detach().requires_grad_() for n, k in layers]
    biases = [None if i % 3 == 2 else random(n) for i, (n, _) in enumerate(layers)]
    activations = [ACTIVATIONS[(i + len(widths)) % len(ACTIVATIONS)] for i in range(len(layers))]
    return random(batch, widths[0]), weights, biases, activations


def leaves(x, weights, biases):
    return [x, *weights, *(bias for bias in biases if bias is not None)]


def widened(tensors, dtype=torch.float64):
    return [tensor if tensor is None else tensor.detach().to(dtype).requires_grad_() for tensor in tensors]


@pytest.mark.parametrize("dtype", HALF_OR_FLOAT, ids=dtype_id)
@pytest.mark.parametrize("widths", WIDTHS, ids=lambda widths: "-".join(map(str, widths)))
def test_outputs_and_gradients(widths, dtype):
    x, weights, biases, activations = network(widths, dtype)
    got = torch.ops.pygan.small_mlp(x, weights, biases, activations=activations, slope=0.2)[-1]
    upstream = torch.randn(got.shape, dtype=torch.float64).to(got)
    got_grads = torch.autograd.grad(got, leaves(x, weights, biases), upstream)

    def twin(dtype):
        wide = [widened([x])[0].to(dtype), widened(weights, dtype), widened(biases, dtype)]
        wide[0] = wide[0].detach().requires_grad_()
        y = reference.mlp(*wide, activations=activations, slope=0.2)
        return y, torch.autograd.grad(y, leaves(*wide), upstream.to(dtype))

    eager, eager_grads = twin(dtype)
    truth, truth_grads = twin(torch.float64)
    length = max(widths) * len(weights) ** 2  # each layer hands on the errors of those before it
    assert_accurate(got, eager, truth, length=length)
    for i, (one, other, true) in enumerate(zip(got_grads, eager_grads, truth_grads, strict=True)):
        assert_accurate(one, other, true, length=length, name=f"gradient {i}")


def test_mlp_takes_it():
    x, weights, biases, activations = network((4, 8, 8, 1), torch.float32)
    y = pygan.ops.mlp(x, weights, biases, activations=activations)
    assert y.grad_fn.name() == "PyganSmallMlpBackward"


@pytest.mark.parametrize(
    "change", [{"dropout": 0.5}, {"widths": (4, 129, 1)}, {"dtype": torch.float64}, {"widths": (3,) * 10}]
)
def test_what_it_does_not_serve_goes_layer_by_layer(change):
    x, weights, biases, activations = network(change.get("widths", (4, 8, 8, 1)), change.get("dtype", torch.float32))
    y = pygan.ops.mlp(x, weights, biases, activations=activations, dropout=change.get("dropout", 0.0))
    assert y.grad_fn.name() == "PyganLinearActBackward"


@pytest.mark.parametrize("batch", [0, 1, 16, 17, 33])
def test_any_batch_gives_the_rows_alone(batch):
    x, weights, biases, activations = network((5, 9, 3), torch.float32, batch)
    outputs = torch.ops.pygan.small_mlp(x, weights, biases, activations=activations)
    assert [tuple(y.shape) for y in outputs] == [(batch, 9), (batch, 3)]
    for row in range(batch):
        alone = torch.ops.pygan.small_mlp(x[row : row + 1], weights, biases, activations=activations)
        assert all(torch.equal(y[row], one[0]) for y, one in zip(outputs, alone, strict=True))


def test_gradients_that_enter_between_the_layers():
    x, weights, biases, activations = network((4, 8, 8, 1), torch.float32)
    inputs = leaves(x, weights, biases)
    outputs = torch.ops.pygan.small_mlp(x, weights, biases, activations=activations)
    got = torch.autograd.grad(sum((y * y).sum() for y in outputs), inputs)
    h, total = x, 0
    for weight, bias, activation in zip(weights, biases, activations, strict=True):
        h = reference.linear_act(h, weight, bias, activation=activation)
        total = total + (h * h).sum()
    for one, other in zip(got, torch.autograd.grad(total, inputs), strict=True):
        torch.testing.assert_close(one, other)


def test_gradient_penalty():
    x, weights, biases, activations = network((4, 8, 8, 1), torch.float32)
    activations = ["tanh", "softplus", "identity"]

    def penalty(mlp):
        (grad,) = torch.autograd.grad(mlp(x, weights, biases, activations=activations).sum(), x, create_graph=True)
        return torch.autograd.grad(grad.pow(2).sum(), weights)

    for one, other in zip(penalty(pygan.ops.mlp), penalty(reference.mlp), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_frozen_parameters_get_no_gradient():
    x, weights, biases, activations = network((4, 8, 8, 1), torch.float32)
    for weight in weights:
        weight.requires_grad_(False)
    pygan.ops.mlp(x, weights, biases, activations=activations).sum().backward()
    assert all(weight.grad is None for weight in weights)
    assert x.grad is not None


def test_opcheck():
    x, weights, biases, activations = network((4, 8, 8, 1), torch.float32)
    torch.library.opcheck(torch.ops.pygan.small_mlp.default, (x, weights, biases), {"activations": activations})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activations": ["relu"]}, "activations must have one entry for each of the 3 weights, got 1"),
        ({"biases": [None]}, "biases must have one entry for each of the 3 weights, got 1"),
        ({"x": torch.zeros(2, 5)}, "must have the same last dimension"),
        ({"weights": [torch.zeros(4, 4)] * 9}, "weights must have 1 to 8 entries, got 9"),
        ({"weights": [torch.zeros(129, 4)] * 3}, "at most 128 wide"),
        ({"slope": -1.0}, "slope must be >= 0"),
    ],
)
def test_errors(change, message):
    x, weights, biases, activations = network((4, 8, 8, 1), torch.float32)
    given = {"x": x, "weights": weights, "biases": biases, "activations": activations, "slope": 0.1} | change
    with pytest.raises(ValueError, match=message):
        torch.ops.pygan.small_mlp(
            given["x"].to(HERE), [w.to(HERE) for w in given["weights"]], given["biases"],
            activations=given["activations"], slope=given["slope"],
        )  # fmt: skip
