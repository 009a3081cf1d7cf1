"""A conditional GAN: both networks see the class, as an embedding beside their input; hinge losses.

With pygan the Sequentials inside the two modules are fused; embeddings and forwards stay as they are written.
"""

import torch
from torch import nn

import pygan
from compare import batches, images, main

LATENT, CLASSES = 100, 10


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.label = nn.Embedding(CLASSES, CLASSES)
        self.model = nn.Sequential(
            nn.Linear(LATENT + CLASSES, 256), nn.BatchNorm1d(256), nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(256, 512), nn.BatchNorm1d(512), nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(512, 784), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z, labels):
        return self.model(torch.cat((z, self.label(labels)), dim=1))


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.label = nn.Embedding(CLASSES, CLASSES)
        self.model = nn.Sequential(
            nn.Linear(784 + CLASSES, 512), nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(512, 512), nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(512, 1),
        )  # fmt: skip

    def forward(self, image, labels):
        return self.model(torch.cat((image, self.label(labels)), dim=1))


def start(networks, batch_size, fused):
    generator, discriminator = networks
    adam = pygan.FusedAdam if fused else torch.optim.Adam
    g_optimizer, d_optimizer = (adam(n.parameters(), lr=2e-4, betas=(0.5, 0.999)) for n in networks)
    pictures, labels = images()
    data = batches(pictures.flatten(1), labels, size=batch_size)

    def discriminator_loss(a, b):
        return torch.relu(1 - a).mean() + torch.relu(1 + b).mean()

    def generator_loss(b):
        return -b.mean()

    if fused:
        discriminator_loss = pygan.losses.DiscriminatorLoss(kind="hinge")
        generator_loss = pygan.losses.GeneratorLoss("hinge")

    def step():
        real, kinds = next(data)
        wanted = torch.randint(CLASSES, (batch_size,))
        fake = generator(torch.randn(batch_size, LATENT), wanted)

        d_optimizer.zero_grad()
        d_loss = discriminator_loss(discriminator(real, kinds), discriminator(fake.detach(), wanted))
        d_loss.backward()
        d_optimizer.step()

        g_optimizer.zero_grad()
        g_loss = generator_loss(discriminator(fake, wanted))
        g_loss.backward()
        g_optimizer.step()
        return d_loss.detach(), g_loss.detach()

    return step


if __name__ == "__main__":
    main(__doc__, lambda: (Generator(), Discriminator()), start)
