"""The settings of a training run, and whether networks and data fit them and one another."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pygan._names import check_name, check_number, check_pair, check_seed, check_whole
from pygan.data import Dataset
from pygan.losses import GENERATOR_LOSSES, check_smoothing
from pygan.nn import MLP
from pygan.optim import Adam, Rule, check_rules, rule_from_dict, rule_to_dict
from pygan.running import evaluating

UPDATES = ("alternating", "simultaneous")
NOISES = ("normal", "uniform")
ENGINES = ("auto", "composed", "native")


@dataclass(frozen=True)
class TrainerConfig:
    """The settings of a `pygan.Trainer`, named as its arguments; one rule as `optimizer` is made a pair, G's first.

    >>> TrainerConfig(noise_dim=100).optimizer
    (Adam(lr=0.0002, betas=(0.5, 0.999), eps=1e-08), Adam(lr=0.0002, betas=(0.5, 0.999), eps=1e-08))
    """

    noise_dim: int
    optimizer: Rule | tuple[Rule, Rule] = Adam()
    batch_size: int = 100
    k: int = 1
    update: str = "alternating"
    generator_loss: str = "non_saturating"
    noise: str = "normal"
    label_smoothing: float = 0.0
    ema_decay: float | None = None
    pixel_range: tuple[float, float] = (0.0, 1.0)
    seed: int = 0
    engine: str = "auto"

    def __post_init__(self):
        checked = {name: check_whole(getattr(self, name), name) for name in ("noise_dim", "batch_size", "k")}
        checked["seed"] = check_seed(self.seed)
        check_name(self.update, UPDATES, "update")
        check_name(self.generator_loss, GENERATOR_LOSSES, "generator_loss")
        check_name(self.noise, NOISES, "noise")
        check_name(self.engine, ENGINES, "engine")
        checked["label_smoothing"] = check_smoothing(self.label_smoothing)
        if self.ema_decay is not None:
            checked["ema_decay"] = check_number(self.ema_decay, "ema_decay", "None or in (0, 1)", lambda d: 0 < d < 1)
        checked["optimizer"] = check_rules(self.optimizer)
        checked["pixel_range"] = check_pair(self.pixel_range, "pixel_range", "(low, high), rising", lambda a, b: a < b)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def arguments(self) -> dict:
        """The settings as keyword arguments of `pygan.Trainer`."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def to_dict(self) -> dict:
        """The settings as plain values, for a file."""
        return {**self.arguments(), "optimizer": [rule_to_dict(rule) for rule in self.optimizer]}

    @classmethod
    def from_dict(cls, values: dict) -> TrainerConfig:
        """What `to_dict` wrote down."""
        for name in values:
            check_name(name, [field.name for field in dataclasses.fields(cls)], "a setting's name")
        return cls(**{**values, "optimizer": tuple(rule_from_dict(rule) for rule in values["optimizer"])})


def check_modules(**networks: object) -> None:
    """That each network is a module with something to train."""
    for name, network in networks.items():
        if not isinstance(network, nn.Module):
            raise TypeError(f"{name} must be a torch.nn.Module, got {type(network).__name__}")
        if next(network.parameters(), None) is None:
            raise ValueError(f"{name} has no parameters to train")
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise ValueError(f"{name} has no parameters to train: all of them are frozen")


def infer_noise_dim(generator: nn.Module) -> int:
    """The input length of a generator's first layer."""
    if isinstance(generator, MLP):
        return generator.sizes[0]
    for module in generator.modules():
        if isinstance(getattr(module, "in_features", None), int):
            return module.in_features
    raise ValueError("noise_dim cannot be read off this generator, which has no linear layer: give it")


def check_device(device: torch.device | str) -> torch.device:
    """The device by that name, if it is there."""
    if not re.fullmatch(r"cpu|cuda(:\d{1,2})?", str(device)):
        raise ValueError(f"device must be cpu, cuda or cuda:N, got {str(device)!r}")
    device = torch.device(device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device} is not there: torch sees {torch.cuda.device_count()} GPUs")
    return device


def check_networks(generator: nn.Module, discriminator: nn.Module, data: Dataset, config: TrainerConfig) -> Tensor:
    """That both networks, the data and the settings fit; returns a parameter, for its dtype and device.

    Raises:
        ValueError: they do not, in a sentence that names both sides.
    """
    first, other = next(generator.parameters()), next(discriminator.parameters())
    if (first.dtype, first.device) != (other.dtype, other.device):
        raise ValueError(
            f"generator is {first.dtype} on {first.device}, but discriminator is {other.dtype} on {other.device}"
        )
    n, d = data.values.shape
    if config.batch_size > n:
        raise ValueError(f"batch_size {config.batch_size} is larger than the data set, which has {n} rows")
    _check_shapes("generator", generator, first, config.noise_dim, "noise_dim", d, f"the data's {d} columns")
    _check_shapes("discriminator", discriminator, first, d, "the data's columns", 1, "one logit")
    return first


def _check_shapes(
    name: str, network: nn.Module, like: Tensor, inputs: int, inputs_are: str, outputs: int, outputs_are: str
) -> None:
    """That a network maps (m, inputs) to (m, outputs), and a discriminator to logits."""
    if isinstance(network, MLP):
        if network.sizes[0] != inputs:
            raise ValueError(f"{name} takes rows of {network.sizes[0]} numbers, but {inputs_are} is {inputs}")
        given = network.sizes[-1]
        if name == "discriminator" and network.activations[-1] != "identity":
            raise ValueError(f'discriminator must give logits, output="identity", got {network.activations[-1]!r}')
    else:
        # Other modules are asked with two rows, which leaves no mode, random number or gradient behind.
        zeros = torch.zeros(2, inputs, dtype=like.dtype, device=like.device)
        with evaluating(network), torch.random.fork_rng(), torch.no_grad():
            try:
                result = network(zeros)
            except RuntimeError as error:
                raise ValueError(f"{name} cannot take rows of {inputs} numbers ({inputs_are}): {error}") from error
        if not isinstance(result, Tensor):
            raise TypeError(f"{name} must give a tensor, {outputs_are}, got {type(result).__name__}")
        shape = tuple(result.shape)
        if shape != (2, outputs) and not (outputs == 1 and shape == (2,)):
            raise ValueError(f"{name} must turn (2, {inputs}) into (2, {outputs}), {outputs_are}, got {shape}")
        given = outputs
    if given != outputs:
        raise ValueError(f"{name} gives rows of {given} numbers, expected {outputs}, {outputs_are}")
