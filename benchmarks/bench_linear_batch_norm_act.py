"""A linear layer, batch normalisation and activation in one op, against torch's three."""

import pytest
import torch

import pygan

F = torch.nn.functional

# (m, k, n) of the hidden layers of `stack`'s generator
SHAPES = [(64, 128, 256), (64, 256, 512), (64, 512, 1024), (1024, 512, 1024)]


@pytest.mark.parametrize(("m", "k", "n"), SHAPES, ids=["x".join(map(str, shape)) for shape in SHAPES])
def test_training(compare, m, k, n):
    x, weight = torch.randn(m, k).requires_grad_(), (torch.randn(n, k) * k**-0.5).requires_grad_()
    gamma, beta = torch.ones(n).requires_grad_(), torch.zeros(n).requires_grad_()
    inputs, grad = [x, weight, gamma, beta], torch.randn(m, n)
    bias = torch.zeros(n)  # asked for no gradient, which is zero here and rounding in torch
    running = [torch.zeros(n), torch.ones(n)]

    def ours():
        y = pygan.ops.linear_batch_norm_act(
            x, weight, bias, gamma, beta, *running, training=True, momentum=0.2, activation="leaky_relu", slope=0.2
        )
        return torch.autograd.grad(y, inputs, grad)

    def eager():
        h = F.batch_norm(F.linear(x, weight, bias), *running, gamma, beta, training=True, momentum=0.2)
        return torch.autograd.grad(F.leaky_relu(h, 0.2), inputs, grad)

    compare(f"linear_batch_norm_act stack {m}x{k}->{n} forward+backward", ours, eager, flops=6 * m * k * n)
