"""pygan: generative adversarial nets of multilayer perceptrons, with fused kernels.

Goodfellow et al. 2014, "Generative Adversarial Nets": the ops in `pygan.ops`, modules in `pygan.nn`, losses
in `pygan.losses`, Algorithm 1 in `pygan.Trainer`, the paper's configurations in `pygan.recipes`; `pygan.fuse` runs
other people's modules on the ops.
"""

import importlib

from pygan import data, losses, nn, ops, random, recipes, reference
from pygan._load import __version__, build_info
from pygan.fused_adam import FusedAdam
from pygan.fusion import fuse, fusions, unfuse
from pygan.history import DivergenceError, History
from pygan.optim import Adam, Momentum
from pygan.trainer import Trainer

__all__ = [
    "Adam",
    "DivergenceError",
    "FusedAdam",
    "History",
    "Momentum",
    "Trainer",
    "__version__",
    "build_info",
    "data",
    "fuse",
    "fusions",
    "losses",
    "nn",
    "ops",
    "random",
    "recipes",
    "reference",
    "theory",
    "unfuse",
]


def __getattr__(name: str):
    """`pygan.theory`, imported when it is first asked for."""
    if name == "theory":
        return importlib.import_module("pygan.theory")
    raise AttributeError(f"module 'pygan' has no attribute {name!r}")
