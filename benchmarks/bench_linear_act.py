"""A linear layer with its activation, forward and forward + backward, against linear then activation in torch."""

import pytest
import torch

import pygan
from workloads import LAYERS

EAGER = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "identity": lambda x: x}


def layer(m, k, n):
    x = torch.randn(m, k, requires_grad=True)
    weight = (torch.randn(n, k) / k**0.5).requires_grad_()
    return x, weight, torch.randn(n, requires_grad=True)


@pytest.mark.parametrize(("workload", "m", "k", "n", "activation"), LAYERS)
def test_forward(compare, workload, m, k, n, activation):
    x, weight, bias = layer(m, k, n)
    with torch.no_grad():
        compare(
            f"{workload} linear_act {m}x{k}->{n} {activation} forward",
            lambda: pygan.ops.linear_act(x, weight, bias, activation=activation),
            lambda: EAGER[activation](torch.nn.functional.linear(x, weight, bias)),
            flops=2.0 * m * k * n,
        )


@pytest.mark.parametrize(("workload", "m", "k", "n", "activation"), LAYERS)
def test_forward_backward(compare, workload, m, k, n, activation):
    x, weight, bias = layer(m, k, n)
    grad_y = torch.randn(m, n)

    def ours():
        y = pygan.ops.linear_act(x, weight, bias, activation=activation)
        return torch.autograd.grad(y, (x, weight, bias), grad_y)

    def eager():
        y = EAGER[activation](torch.nn.functional.linear(x, weight, bias))
        return torch.autograd.grad(y, (x, weight, bias), grad_y)

    compare(
        f"{workload} linear_act {m}x{k}->{n} {activation} forward+backward",
        ours,
        eager,
        flops=6.0 * m * k * n,
    )
