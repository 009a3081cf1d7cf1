"""The twins themselves: they take what the ops take, and agree with torch where torch has the same thing."""

import inspect

import pytest
import torch
import torch.nn.functional as F

import pygan
from cases import normal
from pygan import reference


def public_functions(module):
    """What a module itself defines for others."""
    functions = inspect.getmembers(module, inspect.isfunction)
    return {n: f for n, f in functions if f.__module__ == module.__name__ and not n.startswith("_")}


@pytest.mark.parametrize("module", [pygan.ops, reference], ids=lambda module: module.__name__)
def test_every_public_function_has_an_example(module):
    functions = public_functions(module)
    assert len(functions) >= 10
    for name, function in functions.items():
        assert ">>>" in (function.__doc__ or ""), f"{name} has no example"


@pytest.mark.parametrize("name", sorted(public_functions(pygan.ops).keys() - {"products"}))  # which is no op
def test_a_twin_takes_what_its_op_takes(name):
    ours, twin = (inspect.signature(getattr(module, name)).parameters for module in (pygan.ops, reference))
    for key, parameter in ours.items():
        assert (twin[key].kind, twin[key].default) == (parameter.kind, parameter.default), key
    # Dropout fused into a layer's operand is a keyword of torch.ops.pygan, which the twin has too.
    assert set(twin) - set(ours) <= {"dropout", "seed", "offset"}


TORCH = {
    "relu": F.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "elu": F.elu,
    "softplus": lambda x: F.softplus(x, threshold=1e9),
    "identity": lambda x: x,
}


@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_linear_act_is_linear_then_activation(activation):
    x, weight, bias = normal(9, 7), normal(5, 7, seed=1), normal(5, seed=2)
    expected = TORCH[activation](F.linear(x, weight, bias))
    got = reference.linear_act(x, weight, bias, activation=activation, slope=0.2)
    torch.testing.assert_close(got, expected)


def test_maxout_is_written_out():
    x, weight, bias = normal(4, 3), normal(6, 3, seed=1), normal(6, seed=2)
    pre = x @ weight.T + bias
    expected = torch.stack([pre[:, :3].amax(1), pre[:, 3:].amax(1)], dim=1)
    torch.testing.assert_close(reference.maxout(x, weight, bias, pieces=3), expected)


@pytest.mark.parametrize("p", [0.25, 0.5, 0.999])
def test_dropout_scales_what_it_keeps(p):
    mask = reference.dropout_mask((1000,), p=p, seed=3, offset=4)
    got = reference.dropout(torch.full((1000,), 3.0), p=p, seed=3, offset=4)
    torch.testing.assert_close(got, mask * (3.0 / (1.0 - p)))


def test_softplus_is_exact_at_any_size_and_bends_both_ways_alike():
    x = torch.tensor([-1e4, -800.0, -30.0, 0.0, 30.0, 800.0, 1e4], dtype=torch.float64).requires_grad_()
    y = reference.ACTIVATIONS["softplus"](x, 0.0)
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    tail = torch.exp(torch.tensor(-30.0, dtype=torch.float64))
    expected = [
        0.0,
        0.0,
        torch.log1p(tail).item(),
        0.6931471805599453,
        30.0 + torch.log1p(tail).item(),
        800.0,
        1e4,
    ]
    torch.testing.assert_close(y.tolist(), expected, rtol=1e-14, atol=0.0)
    assert first.isfinite().all()
    assert second.isfinite().all()
    torch.testing.assert_close(second[2].item(), second[4].item(), rtol=1e-2, atol=0.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: reference.linear_act(torch.ones(1, 1), torch.ones(1, 1), activation="rleu"),
        lambda: reference.generator_loss(torch.ones(1), kind="non_saturatng"),
        lambda: reference.discriminator_loss(torch.ones(1), torch.ones(1), reduction="maen"),
        lambda: reference.noise((1,), kind="unifrom", seed=0, offset=0),
    ],
)
def test_unknown_names_get_the_nearest(call):
    with pytest.raises(ValueError, match="did you mean"):
        call()
