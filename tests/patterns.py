"""Modules as people write them, each beside itself fused, for the tests of `pygan.fuse`."""

import copy

import torch
from torch import nn
from torch.nn.utils import parametrizations

from pygan.fusion import fuse

K = 6


class Scaled(nn.Linear):
    """A layer with a forward of its own."""

    def forward(self, x):
        return 2 * super().forward(x)


class Renamed(nn.Linear):
    """A layer with torch's forward."""


class Block(nn.Sequential):
    """A container that only has another name."""


class Twice(nn.Sequential):
    """A container with a forward of its own."""

    def forward(self, x):
        return super().forward(x) * 2


class Residual(nn.Module):
    """A body inside a larger module, and a layer that stands alone."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(K, 8), nn.ELU(), nn.Linear(8, K), nn.Tanh())
        self.head = nn.Linear(K, 2)

    def forward(self, x):
        return self.head(x + self.body(x))


def shared():
    layer = nn.Linear(K, K)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.Tanh(), nn.Linear(K, 2), nn.Sigmoid())


PATTERNS = {
    "generator": lambda: nn.Sequential(nn.Linear(K, 9), nn.ReLU(inplace=True), nn.Linear(9, 5), nn.Tanh()),
    "critic": lambda: nn.Sequential(
        nn.Linear(K, 9), nn.LeakyReLU(0.2), nn.Linear(9, 4), nn.LeakyReLU(0.2), nn.Linear(4, 1)
    ),
    "one layer": lambda: nn.Sequential(nn.Linear(K, 9), nn.Sigmoid()),
    "two slopes": lambda: nn.Sequential(nn.Linear(K, 9), nn.LeakyReLU(0.2), nn.Linear(9, 4), nn.LeakyReLU(0.1)),
    "batch norm": lambda: nn.Sequential(
        nn.Linear(K, 9),
        nn.LeakyReLU(0.2),
        nn.Linear(9, 8),
        nn.BatchNorm1d(8),
        nn.LeakyReLU(0.2),
        nn.Linear(8, 3),
        nn.Tanh(),
    ),
    "batch norms": lambda: nn.Sequential(
        nn.Linear(K, 9),
        nn.BatchNorm1d(9, affine=False),
        nn.ReLU(),
        nn.Linear(9, 8, bias=False),
        nn.BatchNorm1d(8, track_running_stats=False),
        nn.Tanh(),
        nn.Linear(8, 7),
        nn.BatchNorm1d(7, momentum=None, eps=0.1),
        nn.Linear(7, 2),
    ),
    "layer norm": lambda: nn.Sequential(
        nn.Linear(K, 9), nn.Softplus(), nn.LayerNorm(9), nn.Linear(9, 2), nn.Identity()
    ),
    "maxout": lambda: nn.Sequential(
        nn.Linear(K, 20), nn.MaxPool1d(5), nn.Linear(4, 6), nn.MaxPool1d(2), nn.Linear(3, 1)
    ),
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Linear(K, 9), nn.ReLU()), Block(nn.Linear(9, 2), nn.Sigmoid())),
    "inside": Residual,
    "no bias": lambda: nn.Sequential(nn.Linear(K, 9, bias=False), nn.ReLU(), nn.Linear(9, 2, bias=False), nn.Tanh()),
    "spectral norm": lambda: nn.Sequential(
        parametrizations.spectral_norm(nn.Linear(K, 9)), nn.ReLU(), parametrizations.spectral_norm(nn.Linear(9, 1))
    ),
    "weight norm": lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(K, 9)), nn.ReLU(), nn.Linear(9, 1)),
    "older norms": lambda: nn.Sequential(
        nn.utils.spectral_norm(nn.Linear(K, 9)), nn.ReLU(), nn.utils.spectral_norm(nn.Linear(9, 1)), nn.Tanh()
    ),
    "shared": shared,
    "own forward": lambda: nn.Sequential(
        Scaled(K, 9), nn.ReLU(), Renamed(9, 4), nn.Tanh(), Twice(nn.Linear(4, 2), nn.ReLU())
    ),
    "other activations": lambda: nn.Sequential(
        nn.Linear(K, 9), nn.ELU(2.0), nn.Linear(9, 5), nn.GELU(), nn.Linear(5, 1)
    ),
    "norm at the end": lambda: nn.Sequential(nn.Linear(K, 9), nn.BatchNorm1d(9)),
    "nothing": lambda: nn.Sequential(nn.Linear(K, 9), nn.GroupNorm(3, 9)),
}


def pair(name, dtype=torch.float64):
    torch.manual_seed(0)
    module = PATTERNS[name]().to(dtype)
    if name == "older norms":  # torch cannot copy them once they were called
        torch.manual_seed(0)
        return module, fuse(PATTERNS[name]().to(dtype))
    return module, fuse(copy.deepcopy(module))


def close(left, right, tolerance=1e-11):
    for one, other in zip(left, right, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def normed(*parts, features=8):
    return nn.Sequential(nn.Linear(K, 8), nn.BatchNorm1d(features), *parts)
