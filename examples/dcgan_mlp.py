"""A DCGAN's generator of transposed convolutions against a discriminator of linear layers with dropout.

With pygan the discriminator is fused (the convolutions stay torch's), and both halves meet in one loss. Dropout masks
come from another generator than torch's, so the losses of the two runs differ.
"""

import torch
from torch import nn

import pygan
from compare import batches, images, main

LATENT = 64


def make():
    generator = nn.Sequential(
        nn.Unflatten(1, (LATENT, 1, 1)),
        nn.ConvTranspose2d(LATENT, 64, 7), nn.BatchNorm2d(64), nn.ReLU(True),
        nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(True),
        nn.ConvTranspose2d(32, 1, 4, stride=2, padding=1), nn.Tanh(),
    )  # fmt: skip
    discriminator = nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 1024), nn.LeakyReLU(0.2, True), nn.Dropout(0.3),
        nn.Linear(1024, 512), nn.LeakyReLU(0.2, True), nn.Dropout(0.3),
        nn.Linear(512, 256), nn.LeakyReLU(0.2, True), nn.Dropout(0.3),
        nn.Linear(256, 1),
    )  # fmt: skip
    return generator, discriminator


def start(networks, batch_size, fused):
    generator, discriminator = networks
    bce = nn.BCEWithLogitsLoss()
    adam = pygan.FusedAdam if fused else torch.optim.Adam
    g_optimizer, d_optimizer = (adam(n.parameters(), lr=2e-4, betas=(0.5, 0.999)) for n in networks)
    ones, zeros = torch.ones(batch_size, 1), torch.zeros(batch_size, 1)
    data = batches(images()[0], size=batch_size)

    def discriminator_loss(real, fake):
        return bce(real, ones) + bce(fake, zeros)

    def generator_loss(fake):
        return bce(fake, ones)

    if fused:
        discriminator_loss, generator_loss = pygan.losses.DiscriminatorLoss(), pygan.losses.GeneratorLoss()

    def step():
        (real,) = next(data)
        fake = generator(torch.randn(batch_size, LATENT))

        d_optimizer.zero_grad()
        d_loss = discriminator_loss(discriminator(real), discriminator(fake.detach()))
        d_loss.backward()
        d_optimizer.step()

        g_optimizer.zero_grad()
        g_loss = generator_loss(discriminator(fake))
        g_loss.backward()
        g_optimizer.step()
        return d_loss.detach(), g_loss.detach()

    return step


if __name__ == "__main__":
    main(__doc__, make, start)
