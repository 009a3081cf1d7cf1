"""Small networks and the trainer of them that the trainer's tests share."""

import torch

from cases import normal
from pygan import Trainer
from pygan.nn import MLP

SEED = 5
ROWS = normal(50, 6, seed=4)


def networks(dtype=torch.float64, dropout=True):
    torch.manual_seed(1)
    generator = MLP([4, 8, 6], output="sigmoid", dropout=[0, 0.3] if dropout else 0.0, dtype=dtype)
    discriminator = MLP([6, 7, 5, 1], pieces=3, dropout=[0.2, 0.5, 0.5] if dropout else 0.0, dtype=dtype)
    return generator, discriminator


def make(data=ROWS, dtype=torch.float64, dropout=True, **options):
    return Trainer(*networks(dtype, dropout), data, **{"batch_size": 8, "seed": SEED, **options})
