"""The two losses of the game, value and gradient, against binary_cross_entropy_with_logits."""

import pytest
import torch

import pygan

bce = torch.nn.functional.binary_cross_entropy_with_logits


@pytest.mark.parametrize("m", [64, 100, 4096])
def test_discriminator_loss(compare, m):
    real, fake = torch.randn(m, 1, requires_grad=True), torch.randn(m, 1, requires_grad=True)
    ones, zeros = torch.ones(m, 1), torch.zeros(m, 1)
    compare(
        f"discriminator_loss m={m} forward+backward",
        lambda: torch.autograd.grad(pygan.ops.discriminator_loss(real, fake), (real, fake)),
        lambda: torch.autograd.grad(bce(real, ones) + bce(fake, zeros), (real, fake)),
    )


@pytest.mark.parametrize("m", [64, 100, 4096])
def test_generator_loss(compare, m):
    fake = torch.randn(m, 1, requires_grad=True)
    ones = torch.ones(m, 1)
    compare(
        f"generator_loss m={m} forward+backward",
        lambda: torch.autograd.grad(pygan.ops.generator_loss(fake), (fake,)),
        lambda: torch.autograd.grad(bce(fake, ones), (fake,)),
    )
