"""One update of a network's parameters, against torch's fused optimizers."""

import pytest
import torch

import pygan
from workloads import PARAMETERS


@pytest.mark.parametrize(("network", "n"), PARAMETERS.items())
def test_adam(compare, network, n):
    ours, theirs, grad = torch.randn(n), torch.zeros(n), torch.randn(n)
    theirs.copy_(ours)
    m, v = torch.zeros(n), torch.zeros(n)
    theirs.grad = grad
    optimizer = torch.optim.Adam([theirs], lr=2e-4, betas=(0.5, 0.999), fused=True)
    step = 0

    def update():
        nonlocal step
        step += 1
        pygan.ops.adam_(ours, grad, m, v, step=step)
        return ours

    def eager():
        optimizer.step()
        return theirs

    compare(f"{network} adam_ {n} parameters", update, eager)


@pytest.mark.parametrize(("network", "n"), PARAMETERS.items())
def test_momentum(compare, network, n):
    ours, theirs, grad = torch.randn(n), torch.zeros(n), torch.randn(n)
    theirs.copy_(ours)
    velocity = torch.zeros(n)
    theirs.grad = grad
    optimizer = torch.optim.SGD([theirs], lr=0.1, momentum=0.5, fused=True)

    def update():
        pygan.ops.momentum_(ours, grad, velocity, lr=0.1, momentum=0.5)
        return ours

    def eager():
        optimizer.step()
        return theirs

    compare(f"{network} momentum_ {n} parameters", update, eager)
