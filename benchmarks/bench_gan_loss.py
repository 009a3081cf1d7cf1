"""The losses of GANs, value and gradient, against torch's own: cross entropy, or what is written out for the others."""

import copy
import itertools

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


@pytest.mark.parametrize("m", [64, 4096])
@pytest.mark.parametrize("name", ["BCEWithLogitsLoss", "BCELoss"])
def test_binary_cross_entropy(compare, name, m):
    x, target = torch.randn(m, 1), torch.ones(m, 1)
    x = (x.sigmoid() if name == "BCELoss" else x).requires_grad_()
    ours, torchs = getattr(pygan.losses, name)(), getattr(torch.nn, name)()
    compare(
        f"{name} m={m} forward+backward",
        lambda: torch.autograd.grad(ours(x, target), (x,)),
        lambda: torch.autograd.grad(torchs(x, target), (x,)),
    )


WRITTEN_OUT = {
    "hinge": lambda a, b: torch.relu(1 - a).mean() + torch.relu(1 + b).mean(),
    "least_squares": lambda a, b: 0.5 * (a - 1).square().mean() + 0.5 * b.square().mean(),
    "wasserstein": lambda a, b: b.mean() - a.mean(),
}


@pytest.mark.parametrize("m", [64, 4096])
@pytest.mark.parametrize("kind", WRITTEN_OUT)
def test_other_kinds(compare, kind, m):
    real, fake = torch.randn(m, 1, requires_grad=True), torch.randn(m, 1, requires_grad=True)
    compare(
        f"discriminator_loss {kind} m={m} forward+backward",
        lambda: torch.autograd.grad(pygan.ops.discriminator_loss(real, fake, kind=kind), (real, fake)),
        lambda: torch.autograd.grad(WRITTEN_OUT[kind](real, fake), (real, fake)),
    )


@pytest.mark.parametrize("layers", ["784-512-256-1"])
def test_gradient_penalty(compare, layers):
    """A critic's whole step of WGAN-GP, without the update: loss, penalty, and the gradients of both."""
    sizes = [int(size) for size in layers.split("-")]
    parts = [
        part for i, o in itertools.pairwise(sizes[:-1]) for part in (torch.nn.Linear(i, o), torch.nn.LeakyReLU(0.2))
    ]
    plain = torch.nn.Sequential(*parts, torch.nn.Linear(*sizes[-2:]))
    fused = pygan.fuse(copy.deepcopy(plain))
    real, fake = torch.randn(64, sizes[0]), torch.randn(64, sizes[0])

    def step(critic, loss):
        penalty = pygan.losses.gradient_penalty(critic, real, fake, seed=1)
        return torch.autograd.grad(loss(critic(real), critic(fake)) + 10.0 * penalty, list(critic.parameters()))

    compare(
        f"WGAN-GP step of the critic {layers} m=64",
        lambda: step(fused, pygan.losses.DiscriminatorLoss(kind="wasserstein")),
        lambda: step(plain, WRITTEN_OUT["wasserstein"]),
    )
