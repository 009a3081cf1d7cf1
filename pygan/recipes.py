"""Whole configurations by name: networks, initialisation, data and the settings of the training.

>>> names()
('digits', 'mnist_paper', 'snippet', 'ring8')
>>> get("mnist_paper", update="simultaneous").update
'simultaneous'
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from pygan import data as data_sets
from pygan._names import check_name, check_number, check_whole, check_wholes
from pygan.config import TrainerConfig
from pygan.data import Dataset, as_dataset
from pygan.nn import MLP, logit, uniform_
from pygan.optim import Adam, Momentum, Rule, rule_to_dict
from pygan.trainer import Trainer


@dataclass(frozen=True)
class Recipe:
    """Everything that `build` needs for a `Trainer`; the length of an example comes from the data.

    Args:
        name, about: what it is called, and what it is for, in a line.
        data: the name of its data set, for `pygan.data.load`.
        rows: how many rows of it to train on, from the first; None for all.
        iterations: how long `pygan train` trains it.
        noise, noise_dim: of z.
        g_hidden, g_activation, g_output: the generator's hidden sizes and activations.
        d_hidden, d_activation, d_pieces: the discriminator's; pieces above 1 make its hidden layers maxout.
        slope: of leaky_relu, in both.
        d_dropout: of the discriminator's layer inputs, one for all or one for each.
        g_range, d_range: weights start uniform in ± this, biases at 0; None leaves torch's initialisation.
        output_bias_from_data: the generator's output bias starts at the logit of the data's means.
        optimizer: one rule, or the generator's and the discriminator's.
        batch_size, k, update, generator_loss, label_smoothing, pixel_range, seed, engine: as in `Trainer`.

    >>> trainer = get("ring8", seed=3).build()
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
    noise: str = "normal"
    g_activation: str | tuple[str, ...] = "relu"
    g_output: str = "identity"
    d_activation: str | tuple[str, ...] = "relu"
    d_pieces: int = 1
    d_dropout: float | tuple[float, ...] = 0.0
    slope: float = 0.2
    g_range: float | None = None
    d_range: float | None = None
    output_bias_from_data: bool = False
    optimizer: Rule | tuple[Rule, Rule] = Adam()
    batch_size: int = 100
    k: int = 1
    update: str = "alternating"
    generator_loss: str = "non_saturating"
    label_smoothing: float = 0.0
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
        if self.rows is not None:
            checked["rows"] = check_whole(self.rows, "rows")
        for name in ("g_range", "d_range"):
            if (value := getattr(self, name)) is not None:
                checked[name] = check_number(value, name, "None or a number above 0", lambda radius: radius > 0)
        checked |= TrainerConfig(**{name: getattr(self, name) for name in _TRAINER_SETTINGS}).arguments()
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def load_data(self, source: str | None = None) -> Dataset:
        """The recipe's data set, or the one of that name or path in its place."""
        loaded = data_sets.load(self.data if source is None else source)
        if self.rows is not None and source is None:
            loaded = loaded.subset(slice(0, self.rows))
        return loaded

    def build(self, data=None, *, device: torch.device | str | None = None) -> Trainer:
        """The trainer at its start; the same recipe gives the same bits.

        Args:
            data: a `Dataset`, a tensor, an array, or a name or path for `pygan.data.load`; by default the
                recipe's own.
            device: where to train; by default the CPU.

        Raises:
            ValueError: settings, or data, that do not fit.
            DownloadError: the data set is not on this machine and could not be had.
        """
        examples = self.load_data(data) if data is None or isinstance(data, str) else as_dataset(data)
        generator, discriminator = self._networks(examples)
        return Trainer(
            generator,
            discriminator,
            examples,
            device=device,
            **{name: getattr(self, name) for name in _TRAINER_SETTINGS},
        )

    def _networks(self, examples: Dataset) -> tuple[MLP, MLP]:
        d = examples.dimension
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            generator = MLP(
                (self.noise_dim, *self.g_hidden, d),
                activation=self.g_activation,
                output=self.g_output,
                slope=self.slope,
            )
            discriminator = MLP(
                (d, *self.d_hidden, 1),
                activation=self.d_activation,
                slope=self.slope,
                pieces=self.d_pieces,
                dropout=self.d_dropout,
            )
        if self.g_range is not None:
            uniform_(generator, self.g_range, seed=self.seed)
        if self.d_range is not None:
            uniform_(discriminator, self.d_range, seed=self.seed, step=_DISCRIMINATOR)
        if self.output_bias_from_data:
            with torch.no_grad():
                generator.layers[-1].bias.copy_(logit(examples.as_float().mean(dim=0)))
        return generator, discriminator

    def to_dict(self) -> dict:
        """The recipe as plain values, for a file."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**values, "optimizer": [rule_to_dict(rule) for rule in self.optimizer]}


_TRAINER_SETTINGS = tuple(field.name for field in dataclasses.fields(TrainerConfig))
_DISCRIMINATOR = 1 << 8  # steps of the init stream: the generator's layers come before it

# lr_t = max(lr / 1.000004^t, 1e-6), momentum .5 to .7 over epochs 1 to 250: the authors' configuration.
_PAPER_RULE = Momentum(
    lr=0.1, momentum=0.5, lr_decay=1.000004, lr_floor=1e-6, final_momentum=0.7, momentum_epochs=(1, 250)
)

_RECIPES = (
    Recipe(
        name="digits",
        about="the 8 x 8 digits that come with scikit-learn; half a minute",
        data="digits",
        iterations=8_000,
        noise_dim=32,
        g_hidden=(128, 128),
        g_activation="leaky_relu",  # units that die under a fast optimizer would leave one image for every z
        g_output="sigmoid",
        output_bias_from_data=True,
        d_hidden=(128, 128),
        d_activation="leaky_relu",
        optimizer=(Adam(lr=2e-3), Adam(lr=1e-3)),
    ),
    Recipe(
        name="mnist_paper",
        about="the paper's MNIST experiment (section 5), first 50,000 training images, 250 epochs",
        data="mnist",
        rows=50_000,
        iterations=125_000,
        noise="uniform",
        noise_dim=100,
        g_hidden=(1200, 1200),
        g_output="sigmoid",
        d_hidden=(240, 240),
        d_pieces=5,
        d_dropout=(0.2, 0.5, 0.5),
        g_range=0.05,
        d_range=0.005,
        output_bias_from_data=True,
        optimizer=_PAPER_RULE,
    ),
    Recipe(
        name="snippet",
        about="the MNIST network of countless tutorials: one hidden layer of 128, tanh, Adam",
        data="mnist",
        iterations=50_000,
        noise_dim=100,
        g_hidden=(128,),
        g_output="tanh",
        d_hidden=(128,),
        batch_size=64,
        pixel_range=(-1.0, 1.0),
    ),
    Recipe(
        name="ring8",
        about="eight Gaussians on a circle, the smallest test of mode collapse; half a minute",
        data="ring8",
        iterations=12_000,
        noise_dim=2,
        g_hidden=(64, 64),
        d_hidden=(64, 64),
        d_activation="leaky_relu",
        # Without noise in it the discriminator chases the samples round the circle, and modes come and go.
        d_dropout=(0.0, 0.1, 0.1),
        g_range=0.4,  # samples start as far apart as the modes are
        d_range=0.4,
        batch_size=256,
        optimizer=(Adam(lr=3e-4), Adam(lr=1e-3)),
    ),
)
_BY_NAME = {recipe.name: recipe for recipe in _RECIPES}


def names() -> tuple[str, ...]:
    """The names of all recipes."""
    return tuple(_BY_NAME)


def get(name: str, /, **overrides) -> Recipe:
    """The recipe of that name, with other values for the fields given.

    Raises:
        ValueError: an unknown recipe or field; the nearest name is suggested.

    >>> get("digits", batch_size=50).batch_size
    50
    """
    recipe = _BY_NAME[check_name(name, _BY_NAME, "recipe")]
    fields = [field.name for field in dataclasses.fields(Recipe)]
    for field in overrides:
        check_name(field, fields, "a recipe's field")
    return dataclasses.replace(recipe, **overrides)
