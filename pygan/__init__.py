"""pygan: generative adversarial nets of multilayer perceptrons, with fused kernels.

Goodfellow et al. 2014, "Generative Adversarial Nets": the ops in `pygan.ops`, modules in `pygan.nn`, losses
in `pygan.losses`, Algorithm 1 in `pygan.Trainer`, the paper's configurations in `pygan.recipes`.
"""

from pygan import data, losses, nn, ops, random, recipes, reference
from pygan._load import __version__, build_info
from pygan.history import DivergenceError, History
from pygan.optim import Adam, Momentum
from pygan.trainer import Trainer

__all__ = [
    "Adam",
    "DivergenceError",
    "History",
    "Momentum",
    "Trainer",
    "__version__",
    "build_info",
    "data",
    "losses",
    "nn",
    "ops",
    "random",
    "recipes",
    "reference",
]
