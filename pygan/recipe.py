"""A `Recipe`: a whole configuration, from which a trainer at its start is built."""

from __future__ import annotations

import dataclasses
import numbers
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pygan import data as data_sets
from pygan._names import check_name, check_number, check_whole, check_wholes
from pygan.config import TrainerConfig
from pygan.conv import ConvDiscriminator, DeconvGenerator, check_convolutions, check_image_shape
from pygan.data import Dataset, as_dataset
from pygan.nn import MLP, logit, uniform_
from pygan.optim import Adam, Rule, rule_from_dict, rule_to_dict
from pygan.trainer import Trainer


@dataclass(frozen=True)
class Recipe:
    """Everything that `build` needs for a `Trainer`; the length of an example comes from the data.

    Args:
        name, about: what it is called, and what it is for, in a line.
        data: the name of its data set, for `pygan.data.load`.
        rows: how many rows of it to train on, from the first; None for all.
        contrast: the norm to which each example is contrast-normalised (`pygan.data.contrast_normalize`); None leaves
            them.
        iterations: how long `pygan train` trains it.
        noise, noise_dim: of z.
        g_hidden, g_activation, g_output: the generator's hidden sizes and activations.
        g_maps: (channels, height, width) of its last hidden layer, which a deconvolution makes an image
            (`pygan.conv.DeconvGenerator`, linear); None makes it an MLP.
        d_conv: the discriminator's first layers, as the `convolutions` of a `pygan.conv.ConvDiscriminator`; empty
            makes it an MLP.
        d_hidden, d_activation, d_pieces: its hidden layers; pieces above 1 make them maxout.
        slope: of leaky_relu, in both.
        d_dropout: of the discriminator's layer inputs, one for all or one for each.
        g_range, d_range: weights start uniform in ± this (one for all or one for each layer), biases at 0; None leaves
            torch's initialisation.
        g_bias: where the biases of the generator's hidden layers start, one for each; None leaves them.
        output_bias_from_data: the generator's output bias starts at the logit of the data's means.
        stage1: the recipe to train before this one, whose generator becomes this one's last layers; None for none.
        optimizer: one rule, or the generator's and the discriminator's.
        batch_size, k, update, generator_loss, label_smoothing, ema_decay, pixel_range, seed, engine: as in `Trainer`.

    >>> import pygan
    >>> trainer = pygan.recipes.get("ring8", seed=3).build()
    >>> trainer.generator.sizes, trainer.config.seed
    ((2, 64, 64, 2), 3)
    """

    name: str
    about: str
    data: str
    iterations: int
    noise_dim: int
    g_hidden: tuple[int, ...]
    d_hidden: tuple[int, ...]
    rows: int | None = None
    contrast: float | None = None
    noise: str = "normal"
    g_activation: str | tuple[str, ...] = "relu"
    g_output: str = "identity"
    g_maps: tuple[int, ...] | None = None
    d_conv: tuple[tuple[int, ...], ...] = ()
    d_activation: str | tuple[str, ...] = "relu"
    d_pieces: int = 1
    d_dropout: float | tuple[float, ...] = 0.0
    slope: float = 0.2
    g_range: float | tuple[float, ...] | None = None
    d_range: float | tuple[float, ...] | None = None
    g_bias: tuple[float, ...] | None = None
    output_bias_from_data: bool = False
    stage1: str | None = None
    optimizer: Rule | tuple[Rule, Rule] = Adam()
    batch_size: int = 100
    k: int = 1
    update: str = "alternating"
    generator_loss: str = "non_saturating"
    label_smoothing: float = 0.0
    ema_decay: float | None = None
    pixel_range: tuple[float, float] = (0.0, 1.0)
    seed: int = 0
    engine: str = "auto"

    def __post_init__(self):
        for name in ("name", "about", "data"):
            if not isinstance(value := getattr(self, name), str):
                raise ValueError(f"a recipe's {name} must be a string, got {value!r}")
        checked = {name: check_wholes(getattr(self, name), name) for name in ("g_hidden", "d_hidden")}
        checked |= {name: check_whole(getattr(self, name), name) for name in ("iterations", "d_pieces")}
        checked["slope"] = check_number(self.slope, "slope", "a number of at least 0", lambda slope: slope >= 0)
        checked["d_conv"] = check_convolutions(self.d_conv)
        if self.rows is not None:
            checked["rows"] = check_whole(self.rows, "rows")
        if self.contrast is not None:
            checked["contrast"] = check_number(self.contrast, "contrast", "None or a number above 0", lambda c: c > 0)
        for name in ("g_range", "d_range"):
            checked[name] = _check_ranges(getattr(self, name), name)
        if self.g_bias is not None:
            checked["g_bias"] = _check_biases(self.g_bias, len(checked["g_hidden"]))
        if self.g_maps is not None and (self.g_output != "identity" or self.output_bias_from_data):
            raise ValueError("g_maps makes a linear generator: leave g_output and output_bias_from_data alone")
        checked |= TrainerConfig(**{name: getattr(self, name) for name in _TRAINER_SETTINGS}).arguments()
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    # ------------------------------------------------------------------------------------------------- data

    def load_data(self, source: str | None = None) -> Dataset:
        """The recipe's data set, or the one of that name or path in its place; contrast-normalised if need be."""
        loaded = data_sets.load(self.data if source is None else source)
        if self.rows is not None and source is None:
            loaded = loaded.subset(slice(0, self.rows))
        return self.prepare(loaded)

    def load_validation(self, source: str | None = None) -> Dataset:
        """The validation set that belongs to the recipe's data set, or to the one of that name or path.

        Raises:
            ValueError: there is none, or its rows were trained on.
        """
        return self.prepare(data_sets.held_out(self.data if source is None else source, "valid"))

    def load_test(self, source: str | None = None) -> Dataset:
        """The test set that belongs to the recipe's data set, or to the one of that name or path.

        Raises:
            ValueError: there is none.
        """
        return self.prepare(data_sets.held_out(self.data if source is None else source, "test"))

    def prepare(self, examples: Dataset) -> Dataset:
        """A data set as the recipe's networks see it: contrast-normalised, where it says so."""
        return examples if self.contrast is None else data_sets.contrast_normalize(examples, self.contrast)

    # -------------------------------------------------------------------------------------------- the start

    def build(
        self,
        data=None,
        *,
        stage1: MLP | str | Path | None = None,
        device: torch.device | str | None = None,
    ) -> Trainer:
        """The trainer at its start; the same recipe gives the same bits.

        Args:
            data: a name or path for `pygan.data.load`, by default the recipe's own; or a `Dataset`, a tensor or an
                array, taken as it is (`prepare` normalises it).
            stage1: for a recipe with a first stage: its generator, its checkpoint or the folder of its run. All
                layers are trained, those that it gives too.
            device: where to train; by default the CPU.

        Raises:
            ValueError: settings, data or a first stage that do not fit; a first stage that is missing.
            FileNotFoundError: no checkpoint of the first stage.
            DownloadError: the data set is not on this machine and could not be had.
        """
        trained = self._stage1_generator(stage1)
        examples = self.load_data(data) if data is None or isinstance(data, str) else as_dataset(data)
        generator, discriminator = self._networks(examples)
        if trained is not None:
            _put_last(generator, trained)
        return Trainer(
            generator,
            discriminator,
            examples,
            device=device,
            **{name: getattr(self, name) for name in _TRAINER_SETTINGS},
        )

    def _stage1_generator(self, stage1: MLP | str | Path | None) -> MLP | None:
        if self.stage1 is None and stage1 is not None:
            raise ValueError(f"{self.name} has no first stage: leave out stage1")
        if self.stage1 is not None and stage1 is None:
            raise ValueError(
                f"{self.name} starts from a generator of {self.stage1}: train that first, then give stage1, the folder "
                "of its run or its checkpoint (pygan train --stage1)"
            )
        if stage1 is None or isinstance(stage1, MLP):
            return stage1
        from pygan import checkpoint, run_folder

        return checkpoint.load_generator(run_folder.checkpoint_of(Path(stage1)))[0]

    def _networks(self, examples: Dataset) -> tuple[nn.Module, nn.Module]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            generator, discriminator = self._generator(examples), self._discriminator(examples)
        if self.g_range is not None:
            uniform_(generator, self.g_range, seed=self.seed)
        if self.d_range is not None:
            uniform_(discriminator, self.d_range, seed=self.seed, step=_DISCRIMINATOR)
        hidden = generator if self.g_maps is None else generator.hidden
        with torch.no_grad():
            for layer, bias in zip(hidden.layers, self.g_bias or (), strict=False):
                layer.bias.fill_(bias)
            if self.output_bias_from_data:
                generator.layers[-1].bias.copy_(logit(examples.as_float().mean(dim=0)))
        return generator, discriminator

    def _generator(self, examples: Dataset) -> MLP | DeconvGenerator:
        sizes = (self.noise_dim, *self.g_hidden)
        if self.g_maps is not None:
            shape = check_image_shape(examples.image_shape)
            return DeconvGenerator(
                sizes, maps=self.g_maps, image_shape=shape, activation=self.g_activation, slope=self.slope
            )
        sizes = (*sizes, examples.dimension)
        return MLP(sizes, activation=self.g_activation, output=self.g_output, slope=self.slope)

    def _discriminator(self, examples: Dataset) -> MLP | ConvDiscriminator:
        layers = {
            "activation": self.d_activation,
            "slope": self.slope,
            "pieces": self.d_pieces,
            "dropout": self.d_dropout,
        }
        if self.d_conv:
            return ConvDiscriminator(check_image_shape(examples.image_shape), self.d_conv, self.d_hidden, **layers)
        return MLP((examples.dimension, *self.d_hidden, 1), **layers)

    # ---------------------------------------------------------------------------------------------- on file

    def to_dict(self) -> dict:
        """The recipe as plain values, for a file."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**values, "optimizer": [rule_to_dict(rule) for rule in self.optimizer]}

    @classmethod
    def from_dict(cls, values: dict) -> Recipe:
        """What `to_dict` wrote down, after JSON too.

        Raises:
            ValueError: an unknown or a missing field, or a value out of its range.

        >>> import json, pygan
        >>> recipe = pygan.recipes.get("cifar_paper_conv")
        >>> Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
        True
        """
        for name in values:
            check_name(name, [field.name for field in dataclasses.fields(cls)], "a recipe's field")
        values = {name: _tuples(value) for name, value in values.items()}
        try:
            values["optimizer"] = tuple(rule_from_dict(rule) for rule in values["optimizer"])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise ValueError(f"a recipe's fields must be as Recipe.to_dict writes them: {error}") from error


_TRAINER_SETTINGS = tuple(field.name for field in dataclasses.fields(TrainerConfig))
_DISCRIMINATOR = 1 << 8  # steps of the init stream: the generator's layers come before it


def _put_last(generator: MLP, trained: MLP) -> None:
    """Give the last layers of a generator the parameters of a trained one."""
    depth = len(trained.layers)
    last = (generator.sizes[-depth - 1 :], generator.activations[-depth:])
    if (trained.sizes, trained.activations) != last:
        raise ValueError(
            f"stage1 must be a generator {_in_words(*last)}, got {_in_words(trained.sizes, trained.activations)}"
        )
    for mine, its in zip(generator.layers[-depth:], trained.layers, strict=True):
        mine.load_state_dict(its.state_dict())


def _in_words(sizes: tuple[int, ...], activations: tuple[str, ...]) -> str:
    return f"{'-'.join(map(str, sizes))} ({', '.join(activations)})"


def _check_ranges(value, name: str) -> float | tuple[float, ...] | None:
    if value is None:
        return None
    if isinstance(value, (numbers.Real, str)):
        return _check_range(value, name, "None or a number above 0")
    try:
        return tuple(_check_range(radius, name, "numbers above 0, one for each layer") for radius in value)
    except TypeError:
        raise ValueError(f"{name} must be None, a number above 0 or one for each layer, got {value!r}") from None


def _check_range(value, name: str, expected: str) -> float:
    return check_number(value, name, expected, lambda radius: radius > 0)


def _check_biases(values, count: int) -> tuple[float, ...]:
    try:
        biases = tuple(check_number(value, "g_bias", "finite numbers", lambda _: True) for value in values)
    except TypeError:
        biases = ()
    if len(biases) != count:
        raise ValueError(f"g_bias must be None or a number for each of {count} hidden layers, got {values!r}")
    return biases


def _tuples(value):
    """JSON's lists as tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
