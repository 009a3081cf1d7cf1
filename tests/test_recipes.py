"""Recipes: what the paper's says, that each builds, and that overrides are checked."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from cases import normal
from pygan import Adam, Momentum, recipes
from pygan.data import Dataset

MNIST = Dataset((normal(200, 784, seed=1).sigmoid() * 255).to(torch.uint8), None, "mnist", (28, 28))

# Small stand-ins of the right width: building needs no download.
STAND_INS = {
    "mnist": MNIST,
    "mnist:fit": MNIST,
    "digits": Dataset(normal(200, 64, seed=2).sigmoid(), None, "digits", (8, 8)),
    "ring8": Dataset(normal(300, 2, seed=3), None, "ring8"),
}


# The others, of thousands of units a layer, are in test_recipes_paper.py.
@pytest.mark.parametrize("name", [name for name in recipes.names() if recipes.get(name).data in STAND_INS])
def test_builds_and_trains_reproducibly(name):
    recipe = recipes.get(name)
    trainers = [recipe.build(STAND_INS[recipe.data]) for _ in range(2)]
    state = torch.get_rng_state()
    for trainer in trainers:
        trainer.run(2)
    assert torch.equal(torch.get_rng_state(), state)
    first, second = (trainer.generator.flat_parameters() for trainer in trainers)
    assert torch.equal(first, second)
    other = recipes.get(name, seed=1).build(STAND_INS[recipe.data])
    assert not torch.equal(other.generator.flat_parameters(), first)
    assert json.loads(json.dumps(recipe.to_dict()))["name"] == name


def test_mnist_paper_is_the_papers():
    recipe = recipes.get("mnist_paper")
    data = STAND_INS["mnist"]
    trainer = recipe.build(data)
    G, D, config = trainer.generator, trainer.discriminator, trainer.config
    assert (G.sizes, G.activations) == ((100, 1200, 1200, 784), ("relu", "relu", "sigmoid"))
    assert (D.sizes, D.activations, D.pieces) == ((784, 240, 240, 1), ("maxout", "maxout", "identity"), 5)
    assert (G.dropout, D.dropout) == ((0.0, 0.0, 0.0), (0.2, 0.5, 0.5))
    assert (config.noise, config.noise_dim, config.batch_size, config.k) == ("uniform", 100, 100, 1)
    assert (config.generator_loss, config.label_smoothing) == ("non_saturating", 0.0)
    assert (recipe.data, recipe.rows, recipe.iterations) == ("mnist:fit", None, 250 * 500)
    assert config.ema_decay == 0.99998  # the one thing that is not: training does not see it
    rule = Momentum(0.1, 0.5, 1.000004, 1e-6, 0.7, (1, 250), None)
    assert config.optimizer == (rule, rule)
    for network, radius in ((G, 0.05), (D, 0.005)):
        for layer in network.layers:
            assert layer.weight.abs().max().item() == pytest.approx(radius, rel=0.1)
    assert all((layer.bias == 0).all() for layer in [*G.layers[:2], *D.layers])
    torch.testing.assert_close(torch.sigmoid(G.layers[2].bias), data.as_float().mean(dim=0))


def test_both_update_forms():
    assert recipes.get("mnist_paper").update == "alternating"
    assert recipes.get("mnist_paper", update="simultaneous").update == "simultaneous"


def test_snippet_is_the_named_workload():
    trainer = recipes.get("snippet").build(STAND_INS["mnist"])
    G, D = trainer.generator, trainer.discriminator
    assert (G.sizes, G.activations) == ((100, 128, 784), ("relu", "tanh"))
    assert (D.sizes, D.activations) == ((784, 128, 1), ("relu", "identity"))
    assert trainer.config.optimizer == (Adam(), Adam())
    assert (trainer.config.batch_size, trainer.value_range) == (64, (-1.0, 1.0))


def test_data_may_be_another():
    trainer = recipes.get("digits").build(torch.rand(150, 9))
    assert (trainer.generator.sizes[-1], trainer.discriminator.sizes[0]) == (9, 9)
    assert recipes.get("digits").build("ring8").data.name == "ring8"


def test_rows_are_the_first_ones(monkeypatch):
    monkeypatch.setattr("pygan.data.load", lambda name: STAND_INS["mnist"])
    recipe = recipes.get("mnist_paper", rows=150)
    assert torch.equal(recipe.load_data().values, STAND_INS["mnist"].values[:150])
    assert len(recipe.load_data("mnist")) == 200


def test_recipes_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipes.get("digits").seed = 1


def test_numpys_scalars_are_taken():
    one = np.int64(1)
    recipe = recipes.get("digits", iterations=one, seed=one, rows=one * 50, batch_size=one, g_range=np.float32(0.5))
    assert json.loads(json.dumps(recipe.to_dict()))["rows"] == 50
    assert recipe.build().config.batch_size == 1


@pytest.mark.parametrize(
    ("name", "overrides", "sentence"),
    [
        ("digit", {}, "recipe must be .* did you mean 'digits'"),
        ("digits", {"batchsize": 3}, "field must be .* did you mean 'batch_size'"),
        ("digits", {"iterations": 0}, "iterations must be a whole number of at least 1"),
        ("digits", {"seed": -1}, "seed must be"),
        ("digits", {"update": "both"}, "update must be one of alternating, simultaneous"),
        ("digits", {"batch_size": 201}, "batch_size 201 is larger than the data set, which has 200 rows"),
        ("digits", {"d_dropout": (0.5,)}, "dropout must be one number, or one for each of"),
        ("digits", {"seed": 2**64}, "seed must be below 2\\^63"),
        ("digits", {"g_hidden": 5}, "g_hidden must be whole numbers of at least 1, got 5"),
        ("digits", {"d_hidden": (5, 0)}, r"d_hidden must be whole numbers of at least 1, got \(5, 0\)"),
        ("digits", {"rows": -5}, "rows must be a whole number of at least 1, got -5"),
        ("digits", {"slope": -1}, "slope must be a number of at least 0, got -1"),
        ("digits", {"g_range": "a"}, "g_range must be None or a number above 0, got 'a'"),
        ("digits", {"g_range": -1}, "g_range must be None or a number above 0, got -1"),
        ("digits", {"g_range": (0.5, -1, 1)}, "g_range must be numbers above 0, one for each layer, got -1"),
        ("digits", {"g_range": (0.5, 1)}, "radius must be one number, or one for each of 3 weights, got 2"),
        ("digits", {"d_range": {}.keys}, "d_range must be None, a number above 0 or one for each layer, got <"),
        ("digits", {"g_bias": (0.5,)}, r"g_bias must be None or a number for each of 2 hidden layers, got \(0.5,\)"),
        ("digits", {"g_bias": 0.5}, "g_bias must be None or a number for each of 2 hidden layers, got 0.5"),
        ("digits", {"g_bias": ("a", 1)}, "g_bias must be finite numbers, got 'a'"),
        ("digits", {"contrast": 0}, "contrast must be None or a number above 0, got 0"),
        ("digits", {"d_conv": ((4, 2, 3, 1),)}, "convolutions must be groups of five whole numbers, .*got"),
        ("digits", {"d_conv": ((4, 2, 3, 1, 1),)}, "with pool at least 2, got"),
        ("digits", {"d_conv": ((4, 2, 9, 0, 2),)}, r"images of \(8, 8\) are too small for convolutions"),
        ("digits", {"g_maps": (2, 8, 8)}, "leave g_output and output_bias_from_data alone"),
        ("ring8", {"g_maps": (2, 3, 8)}, "maps must have product 64, the last of sizes, got"),
        ("digits", {"name": 3}, "a recipe's name must be a string, got 3"),
        ("digits", {"d_pieces": 2, "d_activation": "tanh"}, "makes hidden layers maxout"),
    ],
)
def test_bad_choices_get_a_sentence(name, overrides, sentence):
    with pytest.raises(ValueError, match=sentence):
        recipes.get(name, **overrides).build(STAND_INS["digits"])
