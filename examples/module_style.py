"""A GAN as one module with `training_step` and `configure_optimizers`, in the style of Lightning, without Lightning.

With pygan the whole module is fused in one call, before its optimizers are made: the parameters are the same objects.
"""

import torch
from torch import nn

import pygan
from compare import batches, images, main

LATENT = 100


class GAN(nn.Module):
    """Both networks, what a step does, and what updates them."""

    def __init__(self, generator, discriminator, fused):
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.optimizer = pygan.FusedAdam if fused else torch.optim.Adam
        self.loss = pygan.losses.BCEWithLogitsLoss() if fused else nn.BCEWithLogitsLoss()

    def training_step(self, real, optimizer_index):
        z = torch.randn(len(real), LATENT)
        if optimizer_index == 0:
            logits = self.discriminator(self.generator(z))
            return self.loss(logits, torch.ones_like(logits))
        real_logits, fake_logits = self.discriminator(real), self.discriminator(self.generator(z).detach())
        real_loss = self.loss(real_logits, torch.ones_like(real_logits))
        return (real_loss + self.loss(fake_logits, torch.zeros_like(fake_logits))) / 2

    def configure_optimizers(self):
        networks = self.generator, self.discriminator
        return [self.optimizer(network.parameters(), lr=2e-4, betas=(0.5, 0.999)) for network in networks]


def make():
    generator = nn.Sequential(
        nn.Linear(LATENT, 128), nn.LeakyReLU(0.2, inplace=True),
        nn.Linear(128, 256), nn.BatchNorm1d(256), nn.LeakyReLU(0.2, inplace=True),
        nn.Linear(256, 512), nn.BatchNorm1d(512), nn.LeakyReLU(0.2, inplace=True),
        nn.Linear(512, 784), nn.Tanh(),
    )  # fmt: skip
    discriminator = nn.Sequential(
        nn.Linear(784, 512), nn.LeakyReLU(0.2, inplace=True),
        nn.Linear(512, 256), nn.LeakyReLU(0.2, inplace=True),
        nn.Linear(256, 1),
    )  # fmt: skip
    return generator, discriminator


def start(networks, batch_size, fused):
    gan = GAN(*networks, fused)
    optimizers = gan.configure_optimizers()
    data = batches(images()[0].flatten(1), size=batch_size)

    def step():
        (real,) = next(data)
        losses = []
        for index, optimizer in enumerate(optimizers):
            optimizer.zero_grad()
            loss = gan.training_step(real, index)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        g_loss, d_loss = losses
        return d_loss, g_loss

    return step


if __name__ == "__main__":
    main(__doc__, make, start)
