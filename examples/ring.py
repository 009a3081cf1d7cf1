"""Eight Gaussians on a ring, learnt by two small networks: the toy on which GANs are explained.

With pygan each small network is one op a call.
"""

import torch
from torch import nn

import pygan
from compare import batches, main


def make():
    generator = nn.Sequential(nn.Linear(2, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2))
    discriminator = nn.Sequential(nn.Linear(2, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1))
    return generator, discriminator


def start(networks, batch_size, fused):
    generator, discriminator = networks
    adam = pygan.FusedAdam if fused else torch.optim.Adam
    g_optimizer, d_optimizer = (adam(n.parameters(), lr=1e-3, betas=(0.5, 0.999)) for n in networks)
    data = batches(pygan.data.mixture("ring8").as_float(), size=batch_size)
    bce = pygan.losses.BCEWithLogitsLoss() if fused else nn.BCEWithLogitsLoss()
    ones, zeros = torch.ones(batch_size, 1), torch.zeros(batch_size, 1)

    def step():
        (real,) = next(data)
        fake = generator(torch.randn(batch_size, 2))

        d_optimizer.zero_grad()
        d_loss = bce(discriminator(real), ones) + bce(discriminator(fake.detach()), zeros)
        d_loss.backward()
        d_optimizer.step()

        g_optimizer.zero_grad()
        g_loss = bce(discriminator(fake), ones)
        g_loss.backward()
        g_optimizer.step()
        return d_loss.detach(), g_loss.detach()

    return step


if __name__ == "__main__":
    main(__doc__, make, start)
