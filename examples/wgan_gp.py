"""WGAN-GP: five steps of the critic for one of the generator, with a gradient penalty of weight 10.

With pygan the networks are fused, and so the backward pass of the penalty runs on the ops; the penalty is written out
here, as it is in the wild (`pygan.losses.gradient_penalty` is the same in a line).
"""

import torch
from torch import nn

import pygan
from compare import batches, images, main

LATENT, CRITIC_STEPS, WEIGHT = 100, 5, 10


def make():
    generator = nn.Sequential(
        nn.Linear(LATENT, 256),
        nn.LeakyReLU(0.2),
        nn.Linear(256, 512),
        nn.LeakyReLU(0.2),
        nn.Linear(512, 784),
        nn.Tanh(),
    )
    critic = nn.Sequential(
        nn.Linear(784, 512), nn.LeakyReLU(0.2), nn.Linear(512, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1)
    )
    return generator, critic


def gradient_penalty(critic, real, fake):
    share = torch.rand(len(real), 1)
    between = (share * real + (1 - share) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (gradient.norm(2, dim=1) - 1).square().mean()


def start(networks, batch_size, fused):
    generator, critic = networks
    adam = pygan.FusedAdam if fused else torch.optim.Adam
    g_optimizer, c_optimizer = (adam(n.parameters(), lr=1e-4, betas=(0.5, 0.9)) for n in networks)
    data = batches(images()[0].flatten(1), size=batch_size)
    critic_loss = pygan.losses.DiscriminatorLoss(kind="wasserstein") if fused else lambda a, b: b.mean() - a.mean()
    generator_loss = pygan.losses.GeneratorLoss("wasserstein") if fused else lambda b: -b.mean()

    def step():
        for _ in range(CRITIC_STEPS):
            (real,) = next(data)
            with torch.no_grad():
                fake = generator(torch.randn(batch_size, LATENT))
            c_optimizer.zero_grad()
            c_loss = critic_loss(critic(real), critic(fake)) + WEIGHT * gradient_penalty(critic, real, fake)
            c_loss.backward()
            c_optimizer.step()

        g_optimizer.zero_grad()
        g_loss = generator_loss(critic(generator(torch.randn(batch_size, LATENT))))
        g_loss.backward()
        g_optimizer.step()
        return c_loss.detach(), g_loss.detach()

    return step


if __name__ == "__main__":
    main(__doc__, make, start)
