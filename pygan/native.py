"""The native engine: whole iterations of Algorithm 1 in one call, for two MLPs of pygan's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.modules.module import _has_any_global_hook

from pygan import _C
from pygan.nn import ACTIVATIONS, MLP, FusedLinear, Maxout, is_hooked
from pygan.optim import Adam, Optimizer

if TYPE_CHECKING:
    from pygan.trainer import Trainer

_DTYPES = {"cpu": (torch.float32, torch.float64)}
_LAYERS = (FusedLinear, Maxout)


def why_not(trainer: Trainer) -> str | None:
    """Why the native engine cannot run this trainer, in a sentence's second half; None if it can."""
    if not _C.has_engine(trainer.device.type):
        return f"this build has no native engine for {trainer.device.type}"
    if trainer.dtype not in _DTYPES.get(trainer.device.type, (trainer.dtype,)):
        return f"it trains float32 and float64 networks on the CPU, and these are {trainer.dtype}"
    for name, network in (("generator", trainer.generator), ("discriminator", trainer.discriminator)):
        if reason := _network_reason(network):
            return f"the {name} {reason}"
    if _has_any_global_hook():
        return "torch has hooks for all modules, which only the composed engine calls"
    if torch.is_autocast_enabled(trainer.device.type):
        return "torch.autocast is on, which only the composed engine follows"
    if {id(p) for p in trainer.generator.parameters()} & {id(p) for p in trainer.discriminator.parameters()}:
        return "the networks share parameters"
    return None


def _network_reason(network: torch.nn.Module) -> str | None:
    if not isinstance(network, MLP) or type(network).forward is not MLP.forward:
        return f"is a {type(network).__name__}, not a pygan.nn.MLP"
    expected = []
    for name, layer in network.named_children():
        if type(layer) not in _LAYERS:
            return f"has a layer {name} of its own, a {type(layer).__name__}"
        expected += [p for p in (layer.weight, layer.bias) if p is not None]
    if len(expected) != len(list(network.parameters())):
        return "has parameters beside those of its layers"
    if not all(p.requires_grad for p in expected):
        return "has frozen parameters"
    if any(p._backward_hooks for p in expected):
        return "has hooks on its parameters, which only the composed engine calls"
    if any("forward" in vars(module) for module in (network, *network.children())):
        return "has a forward of its own"
    if is_hooked(network) or any(is_hooked(layer) for layer in network.children()):
        return "has hooks, which only the composed engine calls"
    return None


def slower_than_composed(trainer: Trainer) -> bool:
    """Whether the composed engine should win: where its ops leave a product to torch's library, which this has not."""
    rows = trainer.config.batch_size
    largest = max(p.numel() for network in (trainer.generator, trainer.discriminator) for p in network.parameters())
    return _C.uses_library(trainer.generator.flat_parameters(), 2.0 * rows * largest)


class Session:
    """The native engine at work on a trainer's networks, which it changes in place.

    It holds the memory of networks, optimizers and data as it is now: `is_of` tells whether that is still theirs.
    """

    def __init__(self, trainer: Trainer):
        config = trainer.config
        self._memory = _memory(trainer)
        low, high = config.pixel_range
        self._session = _C.Session(
            {
                "generator": _describe(trainer.generator, trainer._g),
                "discriminator": _describe(trainer.discriminator, trainer._d),
                "values": trainer._values.contiguous(),
                "low": low,
                "scale": (high - low) / 255,
                "batch": config.batch_size,
                "k": config.k,
                "simultaneous": config.update == "simultaneous",
                "minimax": config.generator_loss == "minimax",
                "smoothing": config.label_smoothing,
                "uniform_noise": config.noise == "uniform",
                "seed": config.seed,
            }
        )

    def is_of(self, trainer: Trainer) -> bool:
        """Whether the trainer's networks, optimizers and data still lie where they lay."""
        return _memory(trainer) == self._memory

    def run(self, first: int, count: int, seconds: float) -> np.ndarray:
        """Run iterations from number `first` for so many, or so many seconds, or until one is not finite.

        Returns:
            (n, 4), the statistics of each of the n iterations that were run, as in `pygan.History`.
        """
        return self._session.run(first, count, seconds)

    @property
    def launches(self) -> int:
        """Kernels in the iteration that was queued last; 0 where the engine is no GPU's."""
        return self._session.launches


def _memory(trainer: Trainer) -> list[int]:
    held = [trainer.generator.flat_parameters(), trainer.discriminator.flat_parameters(), trainer._values]
    held += [buffer for optimizer in (trainer._g, trainer._d) for buffer in optimizer.buffers.values()]
    return [tensor.data_ptr() for tensor in held]


def _describe(mlp: MLP, optimizer: Optimizer) -> dict:
    flat, rule = mlp.flat_parameters(), optimizer.rule
    start, layers = flat.storage_offset(), []
    for layer, activation, p in zip(mlp.layers, mlp.activations, mlp.dropout, strict=True):
        maxout = activation == "maxout"
        units, inputs = layer.weight.shape
        pieces = mlp.pieces if maxout else 1
        number = 0 if maxout else ACTIVATIONS.index(activation)
        bias = -1 if layer.bias is None else layer.bias.storage_offset() - start
        layers.append((inputs, units // pieces, pieces, number, p, layer.weight.storage_offset() - start, bias))
    if isinstance(rule, Adam):
        settings = {"lr": rule.lr, "beta1": rule.betas[0], "beta2": rule.betas[1], "eps": rule.eps}
    else:
        first, last = rule.momentum_epochs
        settings = {
            "lr": rule.lr,
            "lr_decay": rule.lr_decay,
            "lr_floor": rule.lr_floor,
            "momentum": rule.momentum,
            "final_momentum": rule.momentum if rule.final_momentum is None else rule.final_momentum,
            "first_epoch": first,
            "last_epoch": last,
            "max_column_norm": rule.max_column_norm or 0.0,
        }
    return {
        "layers": layers,
        "slope": mlp.slope,
        "params": flat,
        "state": list(optimizer.buffers.values()),
        "adam": isinstance(rule, Adam),
        "rule": settings,
    }
