"""Whole configurations by name: networks, initialisation, data and the settings of the training.

>>> names()  # doctest: +NORMALIZE_WHITESPACE
('digits', 'mnist_paper', 'tfd_paper', 'tfd_paper_stage2', 'cifar_paper', 'cifar_paper_conv', 'snippet',
 'ring8')
>>> get("mnist_paper", update="simultaneous").update
'simultaneous'

The paper's are those of its authors' published configuration: https://github.com/goodfeli/adversarial.
"""

from __future__ import annotations

import dataclasses

from pygan._names import check_name
from pygan.optim import Adam, Momentum
from pygan.recipe import Recipe

__all__ = ["Recipe", "get", "names"]

# lr_t = max(lr / 1.000004^t, 1e-6), momentum .5 to .7 over epochs 1 to 250: the authors' configuration.
_PAPER_RULE = Momentum(
    lr=0.1, momentum=0.5, lr_decay=1.000004, lr_floor=1e-6, final_momentum=0.7, momentum_epochs=(1, 250)
)
_TFD_RULE = dataclasses.replace(_PAPER_RULE, lr=0.05, max_column_norm=1.9365)

# What both stages on faces share; their lengths are the authors' 50 and 22 epochs of TFD's 98,058 unlabelled faces.
_TFD = {
    "data": "olivetti:fit",  # public; TFD's own file takes its place by data=
    "noise_dim": 100,
    "g_output": "sigmoid",
    "d_hidden": (1200, 1200),
    "d_pieces": 5,
    "d_dropout": (0.2, 0.5, 0.5),
    "g_range": 0.05,
    "d_range": 0.005,
    "optimizer": _TFD_RULE,
}

_RECIPES = (
    Recipe(
        name="digits",
        about="the 8 x 8 digits that come with scikit-learn; half a minute",
        data="digits:fit",
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
        about="the paper's MNIST experiment (section 5), first 50,000 training images, 250 epochs; weights averaged",
        data="mnist:fit",
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
        ema_decay=0.99998,  # over some 100 epochs; the paper has none, and training does not see it
        optimizer=_PAPER_RULE,
    ),
    Recipe(
        name="tfd_paper",
        about="the paper's experiment on faces, stage 1: Olivetti faces, or TFD's file as data; 8000 units a layer",
        iterations=49_000,
        g_hidden=(8000, 8000),
        g_activation=("relu", "sigmoid"),
        g_bias=(0.0, -2.0),
        output_bias_from_data=True,
        **_TFD,
    ),
    Recipe(
        name="tfd_paper_stage2",
        about="stage 2 on faces: two layers before a trained generator of tfd_paper, which goes on learning",
        iterations=21_560,
        stage1="tfd_paper",
        g_hidden=(8000, 100, 8000, 8000),  # the last two, and the output, are stage 1's
        g_activation=("relu", "sigmoid", "relu", "sigmoid"),
        g_bias=(0.0, -2.0, 0.0, -2.0),
        **_TFD,
    ),
    Recipe(
        name="cifar_paper",
        about="the paper's CIFAR-10 experiment, fully connected: first 40,000 images, contrast-normalised, 250 epochs",
        data="cifar10:fit",
        contrast=55.0,
        iterations=100_000,
        noise_dim=100,
        g_hidden=(8000, 8000),
        g_activation=("relu", "sigmoid"),
        d_hidden=(1600, 1600),
        d_pieces=5,
        d_dropout=(0.2, 0.5, 0.5),
        g_range=(0.05, 0.05, 0.5),
        d_range=0.005,
        optimizer=dataclasses.replace(_PAPER_RULE, lr=0.025),
    ),
    Recipe(
        name="cifar_paper_conv",
        about="the paper's CIFAR-10 experiment, convolutional: the same images, maxout convolutions, a deconvolution",
        data="cifar10:fit",
        contrast=55.0,
        iterations=78_125,
        noise_dim=100,
        g_hidden=(8000, 8000),
        g_activation=("relu", "sigmoid"),
        g_maps=(80, 10, 10),
        # (channels, pieces, kernel, padding, pool), pooled two apart: sides 32 -> 16 -> 7 -> 5.
        d_conv=((32, 2, 8, 4, 4), (32, 2, 8, 3, 4), (192, 2, 5, 3, 2)),
        d_hidden=(500,),
        d_pieces=5,
        d_dropout=(0.2, 0.5, 0.5, 0.5, 0.5),
        g_range=0.05,
        d_range=0.005,
        optimizer=dataclasses.replace(_PAPER_RULE, lr=0.004),
        batch_size=128,
        engine="composed",  # the native one runs MLPs alone
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
