"""The discriminator's last layer with its loss in one op, against a linear layer and cross entropies."""

import pytest
import torch

import pygan

bce = torch.nn.functional.binary_cross_entropy_with_logits

# (m, k) of the named workloads' discriminators, real and generated rows together
SHAPES = [("ring", 128, 32), ("snippet", 128, 128), ("mnist_paper", 200, 240), ("wide", 8192, 4096)]
over_shapes = pytest.mark.parametrize(("workload", "m", "k"), SHAPES, ids=[name for name, *_ in SHAPES])


def head(m, k):
    hidden, weight = torch.randn(m, k).relu_(), torch.randn(1, k) * k**-0.5
    return hidden.requires_grad_(), weight.requires_grad_(), torch.zeros(1, requires_grad=True)


@over_shapes
def test_discriminator(compare, workload, m, k):
    inputs, half = head(m, k), m // 2
    ones, zeros = torch.ones(half, 1), torch.zeros(m - half, 1)

    def ours():
        loss, _ = pygan.ops.head_loss(*inputs, real_rows=half)
        return torch.autograd.grad(loss, inputs)

    def eager():
        logits = torch.nn.functional.linear(*inputs)
        return torch.autograd.grad(bce(logits[:half], ones) + bce(logits[half:], zeros), inputs)

    compare(f"head_loss {workload} {m}x{k} forward+backward", ours, eager, flops=6 * m * k)


@over_shapes
def test_against_a_layer_and_a_loss_of_ours(compare, workload, m, k):
    inputs, half = head(m, k), m // 2

    def ours():
        loss, _ = pygan.ops.head_loss(*inputs, real_rows=half)
        return torch.autograd.grad(loss, inputs)

    def parts():
        logits = pygan.ops.linear_act(*inputs, activation="identity")
        return torch.autograd.grad(pygan.ops.discriminator_loss(logits[:half], logits[half:]), inputs)

    compare(f"head_loss {workload} {m}x{k} against linear_act + loss", ours, parts, flops=6 * m * k)


@over_shapes
def test_generator(compare, workload, m, k):
    inputs = head(m // 2, k)
    ones = torch.ones(m // 2, 1)

    def ours():
        loss, _ = pygan.ops.head_loss(*inputs, real_rows=0, kind="non_saturating")
        return torch.autograd.grad(loss, inputs[:1])

    def eager():
        return torch.autograd.grad(bce(torch.nn.functional.linear(*inputs), ones), inputs[:1])

    compare(f"head_loss {workload} {m // 2}x{k} generator, forward+backward", ours, eager, flops=4 * m // 2 * k)
