"""The GAN of countless tutorials: batch norm in the generator, BCELoss after a sigmoid, Adam(2e-4, (0.5, 0.999)).

With pygan the networks are fused, and the loss is pygan's; the sigmoid stays, so the numbers are the tutorial's.
"""

import torch
from torch import nn

import pygan
from compare import batches, images, main

LATENT = 100


def block(inputs, outputs, normalize=True):
    layers = [nn.Linear(inputs, outputs)]
    if normalize:
        layers.append(nn.BatchNorm1d(outputs, 0.8))
    return [*layers, nn.LeakyReLU(0.2, inplace=True)]


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(
            *block(LATENT, 128, normalize=False), *block(128, 256), *block(256, 512), *block(512, 1024),
            nn.Linear(1024, 784), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z):
        return self.model(z).view(-1, 1, 28, 28)


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(*block(784, 512, False), *block(512, 256, False), nn.Linear(256, 1), nn.Sigmoid())

    def forward(self, image):
        return self.model(image.flatten(1))


def start(networks, batch_size, fused):
    generator, discriminator = networks
    loss = pygan.losses.BCELoss() if fused else nn.BCELoss()
    adam = pygan.FusedAdam if fused else torch.optim.Adam
    g_optimizer, d_optimizer = (adam(n.parameters(), lr=2e-4, betas=(0.5, 0.999)) for n in networks)
    ones, zeros = torch.ones(batch_size, 1), torch.zeros(batch_size, 1)
    data = batches(images()[0], size=batch_size)

    def step():
        (real,) = next(data)

        g_optimizer.zero_grad()
        fake = generator(torch.randn(batch_size, LATENT))
        g_loss = loss(discriminator(fake), ones)
        g_loss.backward()
        g_optimizer.step()

        d_optimizer.zero_grad()
        d_loss = (loss(discriminator(real), ones) + loss(discriminator(fake.detach()), zeros)) / 2
        d_loss.backward()
        d_optimizer.step()
        return d_loss.detach(), g_loss.detach()

    return step


if __name__ == "__main__":
    main(__doc__, lambda: (Generator(), Discriminator()), start)
