"""LSGAN: squared errors in place of cross entropies; spectral norm holds the discriminator.

With pygan the networks are fused (spectral norm goes on working), and the losses are one op each; pygan's have the
paper's factor of a half, so they are doubled.
"""

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

import pygan
from compare import batches, images, main

LATENT = 100


def make():
    generator = nn.Sequential(
        nn.Linear(LATENT, 256), nn.BatchNorm1d(256), nn.ReLU(True),
        nn.Linear(256, 512), nn.BatchNorm1d(512), nn.ReLU(True),
        nn.Linear(512, 784), nn.Tanh(),
    )  # fmt: skip
    discriminator = nn.Sequential(
        spectral_norm(nn.Linear(784, 512)), nn.LeakyReLU(0.2, True),
        spectral_norm(nn.Linear(512, 256)), nn.LeakyReLU(0.2, True),
        spectral_norm(nn.Linear(256, 1)),
    )  # fmt: skip
    return generator, discriminator


def start(networks, batch_size, fused):
    generator, discriminator = networks
    adam = pygan.FusedAdam if fused else torch.optim.Adam
    g_optimizer, d_optimizer = (adam(n.parameters(), lr=2e-4, betas=(0.5, 0.999)) for n in networks)
    data = batches(images()[0].flatten(1), size=batch_size)
    mse, ones, zeros = nn.MSELoss(), torch.ones(batch_size, 1), torch.zeros(batch_size, 1)
    least = pygan.losses.DiscriminatorLoss(kind="least_squares"), pygan.losses.GeneratorLoss("least_squares")

    def step():
        (real,) = next(data)
        fake = generator(torch.randn(batch_size, LATENT))

        d_optimizer.zero_grad()
        a, b = discriminator(real), discriminator(fake.detach())
        d_loss = 2 * least[0](a, b) if fused else mse(a, ones) + mse(b, zeros)
        d_loss.backward()
        d_optimizer.step()

        g_optimizer.zero_grad()
        b = discriminator(fake)
        g_loss = 2 * least[1](b) if fused else mse(b, ones)
        g_loss.backward()
        g_optimizer.step()
        return d_loss.detach(), g_loss.detach()

    return step


if __name__ == "__main__":
    main(__doc__, make, start)
