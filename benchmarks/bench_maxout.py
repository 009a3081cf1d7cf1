"""A maxout layer with dropout on its input, against dropout, linear, view and max in torch."""

import pytest
import torch

import pygan
from workloads import MNIST_PAPER_MAXOUT

P = 0.5


def layer(m, k, units, pieces):
    x = torch.randn(m, k, requires_grad=True)
    weight = (torch.randn(units * pieces, k) / k**0.5).requires_grad_()
    return x, weight, torch.randn(units * pieces, requires_grad=True)


def eager_layer(x, weight, bias, units, pieces, mask=None):
    h = torch.nn.functional.dropout(x, P) if mask is None else x * mask
    return torch.nn.functional.linear(h, weight, bias).view(-1, units, pieces).amax(-1)


@pytest.mark.parametrize(("m", "k", "units", "pieces"), MNIST_PAPER_MAXOUT)
def test_forward_backward(compare, m, k, units, pieces):
    x, weight, bias = layer(m, k, units, pieces)
    grad_y = torch.randn(m, units)

    def ours():
        y = torch.ops.pygan.maxout(x, weight, bias, pieces=pieces, dropout=P, seed=1, offset=0)
        return torch.autograd.grad(y, (x, weight, bias), grad_y)

    # The same mask as ours, so that the results can be compared; eager makes its own when it is timed.
    mask = pygan.ops.dropout(torch.ones(m, k), p=P, seed=1, offset=0)
    first = [mask]

    def eager():
        y = eager_layer(x, weight, bias, units, pieces, first.pop() if first else None)
        return torch.autograd.grad(y, (x, weight, bias), grad_y)

    compare(
        f"mnist_paper dropout+maxout {m}x{k}->{units}x{pieces} forward+backward",
        ours,
        eager,
        flops=6.0 * m * k * units * pieces,
    )
