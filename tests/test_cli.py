"""The command line: what it writes, what it says, how it ends."""

import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from rich.console import Console

import pygan
from pygan import Momentum, Trainer, checkpoint, data, figures, recipes
from pygan.cli import main
from pygan.history import History
from pygan.progress import Progress
from pygan.run_folder import RunFolder

BEST = "best.safetensors"  # where the data have a validation set
FILES = {"samples.png", "losses.png", "metrics.jsonl", "config.json", "checkpoint.safetensors", BEST}
PNG = b"\x89PNG\r\n\x1a\n"
SMALL = ["train", "--iterations", "30", "--batch-size", "20"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def command(*arguments):
    """A child process as a shell would start it: Ctrl-C reaches it, whatever this process does with it."""
    return subprocess.Popen(
        [sys.executable, "-m", "pygan.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def lines_of(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


# ------------------------------------------------------------------------------------------------- train


def test_a_run_is_written_down(capsys):
    assert main([*SMALL, "--out", "run", "--seed", "3"]) == 0
    said = capsys.readouterr()
    assert set(os.listdir("run")) == FILES
    for picture in ("samples.png", "losses.png"):
        assert pathlib.Path("run", picture).read_bytes().startswith(PNG)
    metrics = lines_of("run/metrics.jsonl")
    assert [line["iteration"] for line in metrics] == list(range(1, 31))
    assert set(metrics[0]) == {"iteration", "seconds", "d_loss", "g_loss", "d_real", "d_fake"}
    config = json.loads(pathlib.Path("run/config.json").read_text())
    assert (config["recipe"]["seed"], config["recipe"]["batch_size"], config["data"]) == (3, 20, "digits:fit")
    trainer = Trainer.resume("run/checkpoint.safetensors", data.digits("fit"))
    assert (trainer.iteration, trainer.config.seed) == (30, 3)
    for word in ("30/30", "it/s", "D loss", "G loss", "D(x)", "D(G(z))", "left", "run: samples.png"):
        assert word in said.out
    assert said.err == ""


def test_the_same_seed_gives_the_same_bits():
    for out, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main([*SMALL, "--out", out, "--seed", seed]) == 0
    a, b, c = (checkpoint.load_generator(f"{out}/checkpoint.safetensors")[0].flat_parameters() for out in "abc")
    assert a.equal(b)
    assert not a.equal(c)


def test_each_run_gets_a_folder_of_its_own():
    for _ in range(2):
        assert main(["train", "--recipe", "ring8", "--iterations", "3"]) == 0
    assert sorted(os.listdir("runs")) == ["ring8-1", "ring8-2"]
    assert set(os.listdir("runs/ring8-2")) == FILES
    assert main(["sample", "runs/ring8-2", "--out", "drawn.png"]) == 0
    assert pathlib.Path("drawn.png").read_bytes().startswith(PNG)


def test_options_reach_the_trainer():
    options = {
        "--update": "simultaneous",
        "--k": "2",
        "--generator-loss": "minimax",
        "--engine": "composed",
        "--device": "cpu",
        "--data": "ring8",
    }
    assert main([*SMALL, "--out", "run", *(word for pair in options.items() for word in pair)]) == 0
    _, config, header = checkpoint.load_generator("run/checkpoint.safetensors")
    assert (config.update, config.k, config.generator_loss) == ("simultaneous", 2, "minimax")
    assert (config.engine, header["data"]["name"]) == ("composed", "ring8")


def test_long_runs_have_about_a_thousand_lines_of_metrics(tmp_path):
    trainer = recipes.get("ring8", batch_size=2).build()
    folder = RunFolder(tmp_path, {}, iterations=2100)
    for first in range(0, 2100, 7):
        folder.add(trainer, History(*np.arange(first, first + 7) * np.ones((4, 1)), first=first))
    folder.finish(trainer)
    metrics = lines_of(tmp_path / "metrics.jsonl")
    assert [line["iteration"] for line in metrics] == list(range(2, 2101, 2))
    assert [line["d_loss"] for line in metrics[:3]] == [0.5, 2.5, 4.5]
    assert (tmp_path / "losses.png").exists()


def test_data_that_is_no_picture(capsys):
    np.save("rows.npy", np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32))
    assert main([*SMALL, "--data", "rows.npy", "--out", "run"]) == 0
    assert set(os.listdir("run")) == FILES - {"samples.png", BEST}
    assert main(["sample", "run", "--out", "drawn.png"]) == 2
    assert "samples of this run are no images, nor points in the plane" in capsys.readouterr().err
    assert main(["sample", "run", "--n", "7", "--out", "drawn.npy"]) == 0
    assert np.load("drawn.npy").shape == (7, 5)


def test_data_of_one_value_are_drawn(capsys):
    np.save("flat.npy", np.full((40, 4, 4), 7.0))
    assert main([*SMALL, "--data", "flat.npy", "--out", "run"]) == 0
    assert set(os.listdir("run")) == FILES - {BEST}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("failing", "code"), [("sample_grid", 0), ("loss_curves", 0), ("save", 1)])
def test_a_file_that_cannot_be_written_costs_no_other(failing, code, capsys, monkeypatch):
    def fail(*arguments, **options):
        raise ValueError("not today")

    place, name = (Trainer, "checkpoint.safetensors") if failing == "save" else (figures, None)
    name = name or {"sample_grid": "samples.png", "loss_curves": "losses.png"}[failing]
    monkeypatch.setattr(place, failing, fail)
    assert main([*SMALL, "--out", "run"]) == code
    failed = [BEST, name] if failing == "save" else [name]
    assert set(os.listdir("run")) == FILES - set(failed)
    reasons = ", ".join(f"{name} (not today)" for name in failed)
    assert capsys.readouterr().err == f"pygan: not written: {reasons}\n"


def test_a_full_disk_ends_a_run_with_what_can_be_written(capsys, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device", "run/metrics.jsonl")

    monkeypatch.setattr(RunFolder, "add", full)
    assert main([*SMALL, "--out", "run"]) == 1
    assert "run/metrics.jsonl: No space left on device; written to run: samples.png" in capsys.readouterr().out
    assert Trainer.resume("run/checkpoint.safetensors", data.digits("fit")).iteration > 0


@pytest.mark.parametrize("out", [["--out", "run"], ["--out", "empty"], []])
def test_a_run_that_never_began_leaves_nothing(out, capsys, monkeypatch):
    def fail(*arguments):
        raise MemoryError("no room for this")

    os.mkdir("empty")
    monkeypatch.setattr(Trainer, "run", fail)
    assert main([*SMALL, *out]) == 1
    assert capsys.readouterr().err == "pygan: no room for this\n"
    assert os.listdir() == ["empty"]
    assert os.listdir("empty") == []


def test_a_diverging_run_keeps_its_last_good_state(capsys, monkeypatch):
    wild = recipes.get("ring8", optimizer=Momentum(lr=1e12))
    monkeypatch.setattr(recipes, "get", lambda name, **overrides: wild)
    assert main(["train", "--out", "run"]) == 1
    assert "training diverged at iteration" in capsys.readouterr().out
    assert Trainer.resume("run/checkpoint.safetensors", data.mixture("ring8")).iteration == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_cleanly(number, code, tmp_path):
    process = command("train", "--iterations", "100000", "--out", "run")
    metrics, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    time.sleep(0.2)
    while process.poll() is None and not (tmp_path / "run" / "losses.png").exists():
        process.send_signal(signal.SIGINT)  # the impatient lose nothing
        time.sleep(0.02)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "interrupted after" in out
    assert "written to run" in out
    assert "Traceback" not in err
    assert set(os.listdir("run")) == FILES
    trainer = Trainer.resume("run/checkpoint.safetensors", data.digits("fit"))
    assert f"interrupted after {trainer.iteration} iterations" in out


def test_an_interrupt_during_the_import_is_quiet(tmp_path):
    (tmp_path / "torch.py").write_text("import time; print('importing', flush=True); time.sleep(60)")
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", "import sys, pygan_command; sys.exit(pygan_command.main())"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 130


def test_the_console_script_is_the_command_line():
    code = "import sys, pygan_command; sys.argv[1:] = ['--version']; sys.exit(pygan_command.main())"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"pygan {pygan.__version__}\n"


@pytest.mark.filterwarnings("always:twice")
def test_a_warning_is_one_line_and_said_once(capsys, monkeypatch):
    def surroundings():
        for number in (1, 2, 1, 1):
            warnings.warn(f"twice\n is too often ({number})", UserWarning, stacklevel=2)
        return {}

    monkeypatch.setattr("pygan.cli._surroundings", surroundings)
    assert main(["info"]) == 0
    assert capsys.readouterr().err == "pygan: twice is too often (1)\npygan: twice is too often (2)\n"


# ------------------------------------------------------------------------------------------------ resume


def test_a_run_is_continued_to_the_same_bits(capsys):
    np.save("rows.npy", np.random.default_rng(0).random((40, 4, 4)))
    options = ["--data", "rows.npy", "--batch-size", "8", "--seed", "3"]
    assert main(["train", *options, "--iterations", "50", "--out", "whole"]) == 0
    assert main(["train", *options, "--iterations", "20", "--out", "part"]) == 0
    before = lines_of("part/metrics.jsonl")
    assert main(["train", "--resume", "part", "--iterations", "30"]) == 0
    assert "50/50" in capsys.readouterr().out
    whole, part = (checkpoint.read(f"{run}/checkpoint.safetensors")[1] for run in ("whole", "part"))
    assert all(tensor.equal(part[name]) for name, tensor in whole.items())
    metrics = lines_of("part/metrics.jsonl")
    assert metrics[:20] == before
    for line, other in zip(metrics, lines_of("whole/metrics.jsonl"), strict=True):
        assert {**line, "seconds": 0} == {**other, "seconds": 0}
    assert [line["seconds"] for line in metrics] == sorted(line["seconds"] for line in metrics)
    assert set(os.listdir("part")) == FILES - {BEST}
    assert json.loads(pathlib.Path("part/config.json").read_text())["recipe"]["iterations"] == 50


def test_a_killed_run_is_continued_from_its_checkpoint():
    assert main([*SMALL, "--out", "run"]) == 0
    metrics, config = pathlib.Path("run/metrics.jsonl"), pathlib.Path("run/config.json")
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join([*lines[:25], lines[25][:40]]))  # killed while it wrote
    config.write_text(config.read_text().replace('"iterations": 30', '"iterations": 36'))
    assert main(["train", "--resume", "run"]) == 0
    assert [line["iteration"] for line in lines_of(metrics)] == [*range(1, 26), *range(31, 37)]
    trainer = Trainer.resume("run/checkpoint.safetensors", data.digits("fit"))
    assert trainer.iteration == 36
    metrics.write_text("".join(lines) + lines[0].replace('"iteration": 1,', '"iteration": 99,'))
    assert main(["train", "--resume", "run", "--iterations", "1"]) == 0
    assert [line["iteration"] for line in lines_of(metrics)] == [*range(1, 31), 37]


NO_RUN = {
    "done": ([], "run is done, with 30 iterations: say how many more with --iterations"),
    "iterations": (["--iterations", "0"], "iterations must be a whole number of at least 1, got 0"),
    "recipe": (["--recipe", "digits"], "--resume goes on with the run's own settings: leave out --recipe"),
    "seed": (["--seed", "0"], "leave out --seed"),
    "batch": (["--batch-size", "20"], "leave out --batch-size"),
    "out": (["--out", "other"], "leave out --out"),
    "device": (["--device", "meta"], "device must be cpu, cuda or cuda:N, got 'meta'"),
}


def edited(**changes):
    """The run with other entries in its config.json; those of the recipe are in `recipe`."""
    path = pathlib.Path("run/config.json")
    config = json.loads(path.read_text())
    config["recipe"] |= changes.pop("recipe", {})
    path.write_text(json.dumps({**config, **changes}))


DAMAGED = {
    "no config": (lambda: os.remove("run/config.json"), "no run at run: there is no config.json in it"),
    "no checkpoint": (lambda: os.remove("run/checkpoint.safetensors"), "no checkpoint at run/checkpoint"),
    "config": (lambda: pathlib.Path("run/config.json").write_text("{"), "run/config.json is damaged"),
    "no data": (lambda: edited(data=None), "run/config.json is damaged: data must be a string"),
    "other data": (lambda: edited(data="ring8"), "1297 rows of 64; the data given has 50000 rows of 2"),
    "other settings": (lambda: edited(recipe={"seed": 9}), "is of another run: its seed is 0, but config.json says 9"),
}


def test_runs_that_cannot_be_continued_get_a_sentence(capsys):
    assert main([*SMALL, "--out", "run"]) == 0
    kept = {name: pathlib.Path("run", name).read_bytes() for name in FILES}
    for arguments, sentence in NO_RUN.values():
        capsys.readouterr()
        assert main(["train", "--resume", "run", *arguments]) == 2
        assert sentence in capsys.readouterr().err
    for damage, sentence in DAMAGED.values():
        damage()
        assert main(["train", "--resume", "run"]) in (1, 2)
        said = capsys.readouterr().err
        assert sentence in said
        assert said.count("\n") == 1
        for name, content in kept.items():
            pathlib.Path("run", name).write_bytes(content)


# --------------------------------------------------------------------------------------- the live line


def test_the_live_line_is_one_line():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Progress(200, console) as progress:
        for done in (100, 200):
            progress(done, History(*np.full((4, 10), 0.5)))
    written = console.file.getvalue()
    assert "100/200" in written
    assert "200/200" in written
    assert written.count("\n") == 1


# --------------------------------------------------------------------------------------- sample and info


def test_sample_draws_from_a_run(capsys):
    assert main([*SMALL, "--out", "run"]) == 0
    assert main(["sample", "run", "--n", "12", "--out", "a.png"]) == 0
    assert pathlib.Path("a.png").read_bytes().startswith(PNG)
    for out, seed in (("a.npy", "1"), ("b.npy", "1"), ("c.npy", "2")):
        assert main(["sample", "run/checkpoint.safetensors", "--n", "4", "--out", out, "--seed", seed]) == 0
    a, b, c = (np.load(f"{name}.npy") for name in "abc")
    assert a.shape == (4, 64)
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert "4 samples written to c.npy" in capsys.readouterr().out


def test_thousands_of_samples_are_one_picture():
    assert main([*SMALL, "--out", "run"]) == 0
    assert main(["sample", "run/checkpoint.safetensors", "--n", "20000", "--out", "many.png"]) == 0


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pygan {pygan.__version__}\n"


def test_info_lists_what_there_is(capsys):
    assert main(["info"]) == 0
    said = capsys.readouterr().out
    for word in ("pygan", "torch", "build", "digits", "mnist_paper", "snippet", "fashion_mnist"):
        assert word in said


# --------------------------------------------------------------------------------------------- bad input


def occupied():
    os.mkdir("full")
    pathlib.Path("full", "precious.txt").write_text("mine")
    pathlib.Path("file").write_text("mine")


BAD = {
    "recipe": (["train", "--recipe", "digit"], 2, "recipe must be .* did you mean 'digits'"),
    "data": (["train", "--data", "mnits"], 2, "mnist"),
    "missing file": (["train", "--data", "nowhere.npy"], 1, "nowhere.npy"),
    "update": (["train", "--update", "alternate"], 2, "did you mean 'alternating'"),
    "engine": (["train", "--engine", "naive"], 2, "did you mean 'native'"),
    "device": (["train", "--device", "tpu"], 2, "device must be cpu, cuda or cuda:N"),
    "no such device": (["train", "--device", "meta"], 2, "device must be cpu, cuda or cuda:N, got 'meta'"),
    "no data": (["train", "--data", ""], 2, "data must be a name or the path of a file, got ''"),
    "no folder": (["train", "--out", ""], 2, "Invalid value for '--out': expected a path, got ''"),
    "large seed": (["train", "--seed", "18446744073709551616"], 2, "seed must be below 2"),
    "no gpu": (["train", "--device", "cuda:99"], 2, "cuda:99 is not there"),
    "iterations": (
        ["train", "--iterations", "0"],
        2,
        "iterations must be a whole number of at least 1, got 0",
    ),
    "not a number": (["train", "--iterations", "many"], 2, "Invalid value for '--iterations'"),
    "batch": (
        ["train", "--batch-size", "1798"],
        2,
        "batch_size 1798 is larger than the data set, .* 1297 rows",
    ),
    "k": (["train", "--k", "0"], 2, "k must be a whole number of at least 1"),
    "seed": (["train", "--seed", "-1"], 2, "seed must be a whole number of at least 0"),
    "option": (["train", "--iteration", "3"], 2, "No such option"),
    "command": (["trian"], 2, "No such command"),
    "full folder": (["train", "--out", "full"], 1, "full is not empty; a run is never written over another"),
    "a file": (["train", "--out", "file"], 1, "file is a file; a run needs a folder"),
    "below a file": (["train", "--out", "file/run"], 1, "file/run: Not a directory"),
    "no run": (["sample", "nowhere"], 1, "no checkpoint at nowhere"),
    "no checkpoint": (["sample", "full"], 1, "no checkpoint at full/checkpoint.safetensors"),
    "damaged": (["sample", "file"], 2, "file is damaged or no checkpoint"),
    "existing picture": (["sample", "full", "--out", "full/precious.txt"], 1, "full/precious.txt exists"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence(case, capsys):
    occupied()
    arguments, code, sentence = BAD[case]
    assert main(arguments) == code
    said = capsys.readouterr()
    assert re.search(sentence, said.err), said.err
    assert said.err.startswith("pygan: ")
    assert said.err.count("\n") == 1
    assert pathlib.Path("full", "precious.txt").read_text() == "mine"
    assert sorted(os.listdir()) == ["file", "full"]


def test_a_process_shows_no_traceback():
    process = command("train", "--recipe", "digit")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("pygan: recipe must be one of")
    assert err.count("\n") == 1


def test_an_unwritable_folder_is_noticed_before_training(capsys, monkeypatch):
    # Root may write anywhere, so the refusal is staged.
    def refuse(path, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(pathlib.Path, "mkdir", refuse)
    assert main(["train", "--out", "locked/run"]) == 1
    said = capsys.readouterr()
    assert said.err == "pygan: locked/run: Permission denied\n"
    assert said.out == ""


def test_no_arguments_show_the_help(capsys):
    assert main([]) == 2
    assert "train" in capsys.readouterr().out
