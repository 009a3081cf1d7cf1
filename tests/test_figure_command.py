"""`pygan figure`: each figure from a run or a training of its own, and what cannot be drawn in a sentence."""

import contextlib
import os
import pathlib
import signal

import pytest

from pygan import figures
from pygan._files import replacing, together
from pygan.cli import main
from pygan.figures import game

HEADS = {".png": b"\x89PNG", ".pdf": b"%PDF", ".gif": b"GIF89a"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run on images and one in the plane, both hardly begun."""
    folder = tmp_path_factory.mktemp("runs")
    for recipe in ("digits", "ring8"):
        assert main(["train", "--recipe", recipe, "--iterations", "20", "--out", str(folder / recipe)]) == 0
    return folder


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def assert_drawn(*names):
    assert sorted(path.name for path in pathlib.Path().iterdir()) == sorted(names)
    for name in names:
        assert pathlib.Path(name).read_bytes().startswith(HEADS[pathlib.Path(name).suffix])


@pytest.mark.parametrize(("name", "recipe"), [("2", "digits"), ("3", "digits"), ("modes", "ring8")])
def test_figures_of_a_run(runs, name, recipe, capsys):
    assert main(["figure", name, str(runs / recipe)]) == 0
    assert_drawn(f"figure-{name}.png", f"figure-{name}.pdf")
    assert f"written: figure-{name}.png, figure-{name}.pdf" in capsys.readouterr().out
    assert main(["figure", name, str(runs / recipe)]) == 1
    assert f"figure-{name}.png exists; choose a new file" in capsys.readouterr().err
    assert main(["figure", name, str(runs / recipe), "--out", "other.png"]) == 0


def test_modes_trains_and_films():
    arguments = ["--iterations", "60", "--animation", "ring.gif", "--out", "ring.png", "--seed", "2"]
    assert main(["figure", "modes", *arguments]) == 0
    assert_drawn("ring.gif", "ring.png")


BAD = {
    "name": (["4"], 2, "figure must be one of 1, 2, 3, loss, modes, got '4'"),
    "no run": (["2"], 2, "figure 2 shows a run: give its folder"),
    "absent": (["2", "absent"], 1, "no run at absent"),
    "plane": (["3", "{runs}/ring8"], 2, "figure 3 shows images, and"),
    "images": (
        ["modes", "--recipe", "digits"],
        2,
        "figure modes shows points in the plane, and digits",
    ),
    "a run too many": (["loss", "{runs}/digits"], 2, "figure loss of a run takes no RUN: leave it out"),
    "recipe": (["1", "--recipe", "ring8"], 2, "figure 1 takes no --recipe: leave it out"),
    "film of a run": (
        ["modes", "{runs}/ring8", "--animation", "a.gif"],
        2,
        "figure modes of a run takes no --ani",
    ),
    "film": (["2", "{runs}/digits", "--animation", "a.gif"], 2, "takes no --animation: leave it out"),
    "suffix": (["2", "{runs}/digits", "--out", "picture.txt"], 2, "picture.txt"),
    "folder": (["2", "{runs}/digits", "--out", "absent/picture.png"], 1, "absent"),
    "iterations": (["modes", "--iterations", "0"], 2, "iterations must be a whole number of at least 1, got 0"),
}


@pytest.mark.parametrize(("arguments", "code", "sentence"), BAD.values(), ids=BAD)
def test_bad_input_gets_a_sentence(runs, arguments, code, sentence, capsys):
    assert main(["figure", *(argument.format(runs=runs) for argument in arguments)]) == code
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert not list(pathlib.Path().iterdir())


@pytest.mark.parametrize("name", ["1", "loss"])
def test_figures_with_a_training_of_their_own(name):
    options = {"1": ["--iterations", "10", "--animation", "game.gif"], "loss": ["--seed", "1"]}[name]
    assert main(["figure", name, "--out", "picture.png", *options]) == 0
    assert_drawn("picture.png", *(["game.gif"] if name == "1" else []))


@pytest.mark.parametrize("name", ["1", "modes"])
def test_an_interrupt_leaves_neither_film_nor_pictures(name, monkeypatch):
    """Of `modes` the film is first, of `1` the pictures are: what was whole by then must not stay."""
    seen = []

    def film(trainer, path, *, iterations):
        with replacing(path) as temporary:
            temporary.write_text("a film")

    def interrupted(*arguments, **options):
        seen.extend(pathlib.Path().iterdir())
        raise KeyboardInterrupt

    if name == "1":
        monkeypatch.setattr(game, "_animate", interrupted)
    else:
        monkeypatch.setattr(figures, "mode_film", film)
        monkeypatch.setattr(figures, "mode_map", interrupted)
    assert main(["figure", name, "--iterations", "10", "--animation", "film.gif"]) == 130
    assert seen, "something had been drawn"
    assert not list(pathlib.Path().iterdir())


def test_an_interrupt_between_two_files_waits_for_both(monkeypatch):
    replace = os.replace

    def place(*arguments):
        replace(*arguments)
        signal.raise_signal(signal.SIGINT)

    with contextlib.suppress(KeyboardInterrupt), together():
        for name in ("a", "b"):
            with replacing(pathlib.Path(name)) as temporary:
                temporary.write_text(name)
        assert not list(pathlib.Path().glob("[ab]"))
        monkeypatch.setattr(os, "replace", place)
    assert sorted(path.name for path in pathlib.Path().iterdir()) == ["a", "b"]
