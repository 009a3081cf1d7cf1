"""A whole iteration of Algorithm 1: pygan's trainer (composed engine) against the loop everybody writes."""

import torch
from torch import nn

import pygan

M = 64
ITERATIONS = 10


def snippet_networks(linear_act):
    generator = nn.Sequential(*linear_act(100, 128, "relu"), *linear_act(128, 784, "tanh"))
    discriminator = nn.Sequential(*linear_act(784, 128, "relu"), *linear_act(128, 1, "identity"))
    return generator, discriminator


def eager_layer(k, n, activation):
    act = {"relu": nn.ReLU, "tanh": nn.Tanh, "identity": nn.Identity}[activation]
    return nn.Linear(k, n), act()


def test_snippet(compare):
    data = torch.rand(6400, 784) * 2 - 1
    trainer = pygan.Trainer(
        pygan.nn.MLP([100, 128, 784], output="tanh"),
        pygan.nn.MLP([784, 128, 1]),
        data,
        batch_size=M,
        optimizer=pygan.Adam(),
    )
    generator, discriminator = snippet_networks(eager_layer)
    g_step = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=True)
    d_step = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=True)
    bce = nn.BCEWithLogitsLoss()
    ones, zeros = torch.ones(M, 1), torch.zeros(M, 1)

    def iteration():
        real = data[torch.randint(len(data), (M,))]
        d_step.zero_grad()
        fake = generator(torch.randn(M, 100))
        (bce(discriminator(real), ones) + bce(discriminator(fake.detach()), zeros)).backward()
        d_step.step()
        g_step.zero_grad()
        bce(discriminator(generator(torch.randn(M, 100))), ones).backward()
        g_step.step()

    # Both do the same mathematics on other random numbers: tests/test_trainer.py holds ours to a plain loop.
    def ours():
        trainer.run(ITERATIONS)
        return []

    def eager():
        for _ in range(ITERATIONS):
            iteration()
        return []

    compare("snippet, 10 iterations, composed engine", ours, eager)
