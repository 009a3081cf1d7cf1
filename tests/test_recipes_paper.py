"""The paper's experiments on faces and on CIFAR-10: each recipe is section 3's, trains, and comes back from a file."""

import dataclasses
import json
import math
import pathlib

import numpy as np
import pytest
import torch

from cases import normal
from pygan import Momentum, Trainer, checkpoint, data, figures, recipes
from pygan.cli import main
from pygan.conv import ConvDiscriminator, DeconvGenerator
from pygan.data import Dataset
from pygan.nn import MLP

FACES = Dataset((normal(60, 2304, seed=1).sigmoid() * 255).to(torch.uint8), None, "olivetti", (48, 48))
PHOTOGRAPHS = Dataset((normal(60, 3072, seed=2).sigmoid() * 255).to(torch.uint8), None, "cifar10", (3, 32, 32))
STAND_INS = {"olivetti:fit": FACES, "cifar10:fit": PHOTOGRAPHS}

# The same networks with fewer units: the true sizes are seen without being built.
SMALL = {
    "tfd_paper": {"g_hidden": (16, 12), "d_hidden": (6, 6)},
    "tfd_paper_stage2": {"g_hidden": (10, 100, 16, 12), "d_hidden": (6, 6)},
    "cifar_paper": {"g_hidden": (16, 12), "d_hidden": (6, 6)},
    "cifar_paper_conv": {
        "g_hidden": (16, 200),
        "g_maps": (2, 10, 10),
        "d_conv": ((2, 2, 8, 4, 4), (2, 2, 8, 3, 4), (3, 2, 5, 3, 2)),
        "d_hidden": (5,),
    },
}


def small(name, **overrides):
    return recipes.get(name, **{"batch_size": 20, **SMALL[name], **overrides})


def build(name, **overrides):
    recipe = small(name, **overrides)
    stage1 = None if recipe.stage1 is None else build(recipe.stage1).generator
    return recipe.build(recipe.prepare(STAND_INS[recipe.data]), stage1=stage1)


def assert_same_state(one, other):
    for (name, tensor), expected in zip(one.state().items(), other.state().values(), strict=True):
        assert torch.equal(tensor, expected), name


def assert_uniform(network, *radii):
    """That weights fill ± their radius: few of them not up to its ends."""
    weights = [p for p in network.parameters() if p.dim() > 1]
    for weight, radius in zip(weights, radii, strict=True):
        assert 0.5 * radius < weight.abs().max().item() <= radius


# ------------------------------------------------------------------------------------------ the configurations


def rule(lr, norm=None):
    return 2 * (Momentum(lr, 0.5, 1.000004, 1e-6, 0.7, (1, 250), norm),)


def test_tfd_paper_is_the_papers():
    recipe = recipes.get("tfd_paper")
    assert (recipe.noise, recipe.noise_dim, recipe.g_hidden) == ("normal", 100, (8000, 8000))
    assert (recipe.g_activation, recipe.g_output, recipe.g_bias) == (("relu", "sigmoid"), "sigmoid", (0.0, -2.0))
    assert (recipe.d_hidden, recipe.d_pieces, recipe.d_dropout) == ((1200, 1200), 5, (0.2, 0.5, 0.5))
    assert (recipe.g_range, recipe.d_range, recipe.batch_size) == (0.05, 0.005, 100)
    assert recipe.optimizer == rule(0.05, 1.9365)
    assert (recipe.data, recipe.contrast, recipe.iterations) == ("olivetti:fit", None, 50 * 980)
    trainer = build("tfd_paper")
    G, D = trainer.generator, trainer.discriminator
    assert (G.sizes, G.activations) == ((100, 16, 12, 2304), ("relu", "sigmoid", "sigmoid"))
    assert (D.sizes, D.activations) == ((2304, 6, 6, 1), ("maxout", "maxout", "identity"))
    assert_uniform(G, 0.05, 0.05, 0.05)
    assert_uniform(D, 0.005, 0.005, 0.005)
    assert [set(layer.bias.tolist()) for layer in (*G.layers[:2], *D.layers)] == [{0.0}, {-2.0}, {0.0}, {0.0}, {0.0}]
    torch.testing.assert_close(torch.sigmoid(G.layers[2].bias), FACES.as_float().mean(dim=0))


def test_tfd_paper_stage2_is_the_papers():
    first, second = recipes.get("tfd_paper"), recipes.get("tfd_paper_stage2")
    assert second.g_hidden == (8000, 100, *first.g_hidden)
    assert second.g_activation == ("relu", "sigmoid", *first.g_activation)
    assert (second.g_bias[:2], second.stage1, second.iterations) == ((0.0, -2.0), "tfd_paper", 22 * 980)
    own = {"name", "about", "iterations", "g_hidden", "g_activation", "g_bias", "output_bias_from_data", "stage1"}
    for field in {field.name for field in dataclasses.fields(first)} - own:
        assert getattr(first, field) == getattr(second, field), field


def test_stage2_puts_two_layers_before_stage1s():
    trained = build("tfd_paper").generator
    trainer = small("tfd_paper_stage2").build(FACES, stage1=trained)
    G = trainer.generator
    assert (G.sizes, G.activations[:2]) == ((100, 10, 100, 16, 12, 2304), ("relu", "sigmoid"))
    assert set(G.layers[1].bias.tolist()) == {-2.0}
    assert all(0.04 < layer.weight.abs().max().item() <= 0.05 for layer in G.layers[:2])
    rows = z = normal(4, 100)
    for layer in G.layers[2:]:
        rows = layer(rows)
    assert torch.equal(rows, trained(z))
    assert trainer.engine == "native"


def test_stage2_trains_stage1s_layers_too():
    trained = build("tfd_paper").generator
    kept = trained.flat_parameters().clone()
    # A discriminator that starts with small weights sends hardly a gradient in a few iterations.
    trainer = small("tfd_paper_stage2", d_range=0.5, optimizer=Momentum(lr=0.5)).build(FACES, stage1=trained)
    trainer.run(3)
    last = trainer.generator.layers[2:]
    assert not any(torch.equal(mine.weight, its.weight) for mine, its in zip(last, trained.layers, strict=True))
    assert torch.equal(trained.flat_parameters(), kept), "stage 1's own generator stays as it was"


def test_cifar_paper_is_the_papers():
    recipe = recipes.get("cifar_paper")
    assert (recipe.noise, recipe.noise_dim, recipe.g_hidden) == ("normal", 100, (8000, 8000))
    assert (recipe.g_activation, recipe.g_output) == (("relu", "sigmoid"), "identity")
    assert (recipe.d_hidden, recipe.d_pieces, recipe.d_dropout) == ((1600, 1600), 5, (0.2, 0.5, 0.5))
    assert (recipe.g_range, recipe.d_range, recipe.batch_size) == ((0.05, 0.05, 0.5), 0.005, 100)
    assert recipe.optimizer == rule(0.025)
    assert (recipe.data, recipe.contrast, recipe.iterations) == ("cifar10:fit", 55.0, 250 * 400)
    trainer = build("cifar_paper")
    G = trainer.generator
    assert (G.sizes, G.activations) == ((100, 16, 12, 3072), ("relu", "sigmoid", "identity"))
    assert_uniform(G, 0.05, 0.05, 0.5)
    assert all((layer.bias == 0).all() for layer in G.layers)
    torch.testing.assert_close(trainer.data.values.norm(dim=1), torch.full((60,), 55.0))
    assert trainer.value_range == pytest.approx((-110 / math.sqrt(3072), 110 / math.sqrt(3072)))


def test_cifar_paper_conv_is_the_papers():
    recipe = recipes.get("cifar_paper_conv")
    assert (recipe.noise, recipe.noise_dim, recipe.g_hidden) == ("normal", 100, (8000, 8000))
    assert (recipe.g_activation, recipe.g_output) == (("relu", "sigmoid"), "identity")
    assert (recipe.g_range, recipe.d_range, recipe.batch_size) == (0.05, 0.005, 128)
    assert recipe.optimizer == rule(0.004)
    assert (recipe.data, recipe.contrast) == ("cifar10:fit", 55.0)
    with torch.device("meta"):
        G, D = recipe._generator(PHOTOGRAPHS), recipe._discriminator(PHOTOGRAPHS)
    shapes = {name: tuple(p.shape) for name, p in G.named_parameters()}
    assert shapes == {
        "bias": (3072,),
        "hidden.0.weight": (8000, 100),
        "hidden.0.bias": (8000,),
        "hidden.1.weight": (8000, 8000),
        "hidden.1.bias": (8000,),
        "deconv.weight": (80, 3, 5, 5),
    }
    shapes = [tuple(p.shape) for p in D.parameters() if p.dim() > 1]
    assert shapes == [
        (64, 3, 8, 8),
        (64, 32, 8, 8),
        (384, 32, 5, 5),
        (500 * 5, 192 * 5 * 5),
        (1, 500),
    ]
    assert [(conv.conv.padding[0], conv.pool, conv.pool_stride) for conv in D.convs] == [
        (4, 4, 2),
        (3, 4, 2),
        (3, 2, 2),
    ]
    assert D.dropout == (0.2, 0.5, 0.5, 0.5, 0.5)
    trainer = build("cifar_paper_conv")
    assert type(trainer.generator) is DeconvGenerator
    assert type(trainer.discriminator) is ConvDiscriminator
    assert_uniform(trainer.generator, 0.05, 0.05, 0.05)
    assert_uniform(trainer.discriminator, 0.005, 0.005, 0.005, 0.005, 0.005)
    biases = [p for network in (trainer.generator, trainer.discriminator) for p in network.parameters() if p.dim() == 1]
    assert all((p == 0).all() for p in biases)


# -------------------------------------------------------------------------------------------------- runs


@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
@pytest.mark.parametrize("name", SMALL)
def test_trains_reproducibly(name, update):
    one, other = (build(name, update=update) for _ in range(2))
    assert one.engine == ("composed" if name == "cifar_paper_conv" else "native")
    state = torch.get_rng_state()
    for trainer in (one, other):
        trainer.run(3)
    assert torch.equal(torch.get_rng_state(), state)
    assert_same_state(one, other)
    velocities = [*one._g._views[0], *one._d._views[0]]
    assert all(velocity.any() for velocity in velocities if velocity.dim() > 1), "every weight learns"
    assert not torch.equal(build(name, seed=1).sample(2), build(name).sample(2))


@pytest.mark.parametrize("name", SMALL)
def test_continues_from_a_checkpoint_to_the_same_bits(name, tmp_path):
    whole, part = build(name), build(name)
    whole.run(5)
    part.run(2)
    part.save(tmp_path / "part.safetensors")
    resumed = Trainer.resume(tmp_path / "part.safetensors", part.data)
    assert resumed.generator.config() == part.generator.config()
    resumed.run(3)
    assert_same_state(resumed, whole)
    generator, config, header = checkpoint.load_generator(tmp_path / "part.safetensors")
    assert torch.equal(generator(normal(3, 100)), part.generator(normal(3, 100)))
    assert (config, header["data"]["value_range"]) == (part.config, list(part.value_range))


@pytest.mark.parametrize("name", SMALL)
def test_comes_back_from_json(name):
    recipe = small(name)
    assert recipes.Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"g_hiden": [3]}, "a recipe's field must be one of .* did you mean 'g_hidden'"),
        ({"optimizer": [{"lr": 0.1}]}, "a recipe's fields must be as Recipe.to_dict writes them: 'rule'"),
        ({"optimizer": 3}, "a recipe's fields must be as Recipe.to_dict writes them"),
        ({"seed": "x"}, "seed must be a whole number"),
    ],
)
def test_a_damaged_recipe_gets_a_sentence(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        recipes.Recipe.from_dict({**small("cifar_paper").to_dict(), **change})
    with pytest.raises(ValueError, match="missing 1 required positional argument: 'about'"):
        recipes.Recipe.from_dict({name: v for name, v in small("cifar_paper").to_dict().items() if name != "about"})


@pytest.fixture
def command(tmp_path, monkeypatch):
    """`pygan` in an empty folder, with small networks and stand-ins for the data, which leave the settings alone."""
    load, get = data.load, recipes.get
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        recipes, "get", lambda name, **overrides: get(name, **{"batch_size": 20, **SMALL[name], **overrides})
    )
    monkeypatch.setattr(data, "load", lambda source: STAND_INS.get(source) or load(source))
    return lambda *arguments: main([*arguments])


@pytest.mark.parametrize("name", ["tfd_paper", "cifar_paper", "cifar_paper_conv"])
def test_the_command_line_trains_resumes_and_samples(name, command, monkeypatch, capsys):
    shown = []
    grid = figures.sample_grid
    monkeypatch.setattr(figures, "sample_grid", lambda *a, **k: (shown.append(k["value_range"]), grid(*a, **k))[1])
    assert command("train", "--recipe", name, "--iterations", "4", "--out", "whole") == 0
    assert command("train", "--recipe", name, "--iterations", "2", "--out", "part") == 0
    assert command("train", "--resume", "part", "--iterations", "2") == 0
    _, whole = checkpoint.read("whole/checkpoint.safetensors")
    _, part = checkpoint.read("part/checkpoint.safetensors")
    assert all(torch.equal(tensor, part[key]) for key, tensor in whole.items())
    assert command("sample", "part", "--n", "7", "--out", "drawn.npy") == 0
    assert np.load("drawn.npy").shape == (7, 2304 if name == "tfd_paper" else 3072)
    assert command("sample", "part", "--n", "7", "--out", "drawn.png") == 0
    expected = pytest.approx((0, 1) if name == "tfd_paper" else (-1.98464, 1.98464), rel=1e-5)
    assert len(shown) == 4
    assert all(tuple(ends) == expected for ends in shown)
    assert capsys.readouterr().err == ""


def test_the_command_line_trains_the_second_stage(command, capsys):
    assert command("train", "--recipe", "tfd_paper", "--iterations", "2", "--out", "first") == 0
    for stage1, out in (("first", "second"), ("first/checkpoint.safetensors", "third")):
        train = ("train", "--recipe", "tfd_paper_stage2", "--iterations", "2", "--out", out)
        assert command(*train, "--stage1", stage1) == 0
    assert json.loads(pathlib.Path("second/config.json").read_text())["stage1"].endswith("/first")
    second, third = (checkpoint.load_generator(f"{out}/checkpoint.safetensors")[0] for out in ("second", "third"))
    assert torch.equal(second.flat_parameters(), third.flat_parameters())
    assert command("train", "--resume", "second", "--iterations", "1") == 0
    capsys.readouterr()
    for arguments, code, sentence in [
        (
            ["--recipe", "tfd_paper_stage2"],
            2,
            "starts from a generator of tfd_paper: train that first, then give stage1",
        ),
        (["--recipe", "tfd_paper_stage2", "--stage1", "nowhere"], 1, "no checkpoint at nowhere"),
        (["--recipe", "tfd_paper", "--stage1", "first"], 2, "tfd_paper has no first stage: leave out stage1"),
        (["--resume", "second", "--stage1", "first"], 2, "leave out --stage1"),
    ]:
        assert command("train", *arguments) == code
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stage1", "sentence"),
    [
        (MLP((100, 16, 12, 2304)), r"100-16-12-2304 \(relu, sigmoid, sigmoid\), got .* \(relu, relu, identity\)"),
        (MLP((100, 16, 13, 2304)), r"stage1 must be a generator 100-16-12-2304 .*, got 100-16-13-2304"),
        (MLP((100, 2304)), "stage1 must be a generator 12-2304 .*, got 100-2304"),
        (MLP((2, 2, 2, 2, 2, 2, 2, 2)), "stage1 must be a generator 100-10-100-16-12-2304 .*, got 2-2-2-2-2-2-2-2"),
    ],
)
def test_a_first_stage_that_does_not_fit_gets_a_sentence(stage1, sentence):
    with pytest.raises(ValueError, match=sentence):
        small("tfd_paper_stage2").build(FACES, stage1=stage1)


# ---------------------------------------------------------------------------------- training and other sets

MISSING = {
    "tfd_paper": {"test": "data 'olivetti:fit' has no test set"},
    "snippet": {
        "validation": "data 'mnist' has no validation set beside it: its last rows are that; train on mnist:fit"
    },
}
MISSING["tfd_paper_stage2"] = MISSING["tfd_paper"]


@pytest.mark.parametrize("name", recipes.names())
def test_the_other_sets(name, monkeypatch):
    for known, d in {"mnist": 784, "cifar10": 3072, "olivetti": 2304}.items():

        def load(known=known, d=d, split="train"):
            return Dataset(normal(3, d), name=f"{known}:{split}")

        monkeypatch.setitem(data._WITH_SPLITS, known, load)
    recipe = recipes.get(name)
    for kind, load in (("validation", recipe.load_validation), ("test", recipe.load_test)):
        if sentence := MISSING.get(name, {}).get(kind):
            with pytest.raises(ValueError, match=f"^{sentence}$"):
                load()
            continue
        made = load()
        assert made.name == f"{recipe.data.partition(':')[0]}:{'valid' if kind == 'validation' else 'test'}"
        if recipe.contrast is not None:
            torch.testing.assert_close(made.values.norm(dim=1), torch.full((3,), 55.0))


def test_sets_of_other_data(monkeypatch):
    monkeypatch.setitem(data._WITH_SPLITS, "mnist", lambda split="train": Dataset(normal(3, 2), name=f"mnist:{split}"))
    recipe = recipes.get("digits")
    assert recipe.load_validation("mnist:fit").name == "mnist:valid"
    assert recipe.load_validation("mnist:test").name == "mnist:valid"
    assert recipe.load_test("mnist").name == "mnist:test"
    for source, split, sentence in [
        ("mnist", "valid", "train on mnist:fit"),
        ("mnist:train", "valid", "train on mnist:fit"),
        ("mnist:valid", "valid", "data 'mnist:valid' is a validation set itself"),
        ("mnist:test", "test", "data 'mnist:test' is a test set itself"),
        ("rows.npy", "test", "data 'rows.npy' has no test set"),
        ("mnist:fit", "vaild", "split must be one of valid, test, got 'vaild'; did you mean 'valid'"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            data.held_out(source, split)
