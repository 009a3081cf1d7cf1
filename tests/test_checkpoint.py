"""Checkpoints: the same bits as without an interruption, and clear sentences for files that do not fit."""

import json
import os
import pathlib
import resource
import subprocess

import pytest
import safetensors.torch
import torch
from torch import nn

from cases import normal
from pygan import Adam, Momentum, Trainer, checkpoint
from pygan.checkpoint import CheckpointError
from pygan.nn import MLP

ROWS = normal(50, 6, seed=4)
CASES = {
    "adam": {"optimizer": Adam(lr=1e-3)},
    "momentum": {"optimizer": Momentum(0.1, lr_decay=1.01, final_momentum=0.7, momentum_epochs=(1, 3))},
    "a pair, simultaneous": {"optimizer": (Adam(), Momentum(max_column_norm=0.5)), "update": "simultaneous"},
    "k of 3, uniform": {"k": 3, "noise": "uniform", "generator_loss": "minimax", "label_smoothing": 0.1},
}


def make(seed=5, dtype=torch.float32, **options):
    torch.manual_seed(seed)
    generator = MLP([4, 8, 6], output="sigmoid", dropout=[0, 0.3], dtype=dtype)
    discriminator = MLP([6, 7, 1], pieces=3, dropout=[0.2, 0.5], dtype=dtype)
    return Trainer(generator, discriminator, ROWS, batch_size=8, seed=seed, **options)


class Foreign(nn.Module):
    def __init__(self, k, n):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(k, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, n))

    def forward(self, x):
        return self.net(x)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


def assert_same_state(first, second):
    mine, other = first.state(), second.state()
    assert mine.keys() == other.keys()
    for name in mine:
        assert torch.equal(mine[name], other[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_resumes_to_the_same_bits(case, dtype, path):
    whole, part = make(dtype=dtype, **CASES[case]), make(dtype=dtype, **CASES[case])
    whole.run(20)
    part.run(9)
    part.sample(3)
    part.save(path)
    resumed = Trainer.resume(path, ROWS)
    assert (resumed.iteration, resumed.config, resumed.dtype) == (9, part.config, dtype)
    assert resumed.generator.config() == part.generator.config()
    resumed.run(11)
    assert_same_state(resumed, whole)
    assert torch.equal(resumed.sample(2), part_two := whole.sample(2, step=1))
    assert part_two.shape == (2, 6)


def test_resumes_other_modules_that_are_given(path):
    def fresh():
        return {"generator": Foreign(4, 6), "discriminator": Foreign(6, 1)}

    torch.manual_seed(1)
    whole = Trainer(**fresh(), data=ROWS, batch_size=8)
    torch.manual_seed(1)
    part = Trainer(**fresh(), data=ROWS, batch_size=8)
    whole.run(12)
    part.run(5)
    part.save(path)
    with pytest.raises(ValueError, match=r"generator that is not one of pygan's: give generator="):
        Trainer.resume(path, ROWS)
    resumed = Trainer.resume(path, ROWS, **fresh())
    resumed.run(7)
    assert_same_state(resumed, whole)
    with pytest.raises(CheckpointError, match="not one of pygan's"):
        checkpoint.load_generator(path)


def test_networks_given_are_overwritten_in_place(path):
    trainer = make()
    trainer.run(3)
    trainer.save(path)
    other = make(seed=9)
    resumed = Trainer.resume(path, ROWS, generator=other.generator)
    assert resumed.generator is other.generator
    assert torch.equal(other.generator.flat_parameters(), trainer.generator.flat_parameters())


def test_load_generator_needs_no_data(path):
    trainer = make()
    trainer.run(3)
    trainer.save(path)
    generator, config, header = checkpoint.load_generator(path)
    z = normal(5, 4)
    trainer.generator.eval()
    assert not generator.training
    assert torch.equal(generator(z), trainer.generator(z))
    assert config == trainer.config
    assert header["data"]["rows"] == 50


def test_the_file_is_plain_tensors_and_json(path):
    trainer = make()
    trainer.run(3)
    trainer.save(path)
    with safetensors.safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["pygan"])
        names = set(file.keys())
    assert header["iteration"] == 3
    assert header["config"]["update"] == "alternating"
    assert {"generator.0.weight", "discriminator.1.bias", "optimizer.generator.m"} <= names
    assert os.listdir(path.parent) == [path.name]
    path.with_name("plain").touch()
    assert path.stat().st_mode == path.with_name("plain").stat().st_mode


# ------------------------------------------------------------------------------------- nothing is lost


def test_only_its_own_file_is_replaced(path):
    trainer = make()
    trainer.save(path)
    trainer.run(1)
    trainer.save(path)
    resumed = Trainer.resume(path, ROWS)
    resumed.run(1)
    resumed.save(path)
    with pytest.raises(FileExistsError, match="is not this trainer's checkpoint; overwrite=True"):
        make().save(path)
    assert Trainer.resume(path, ROWS).iteration == 2
    make().save(path, overwrite=True)
    assert Trainer.resume(path, ROWS).iteration == 0


def test_a_write_that_fails_leaves_the_old_file(path, monkeypatch):
    trainer = make()
    trainer.save(path)
    before = path.read_bytes()
    trainer.run(2)

    def full(file, content):
        file.open("wb").close()
        raise OSError(28, "No space left on device", str(file))

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        trainer.save(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


WRONG_PATHS = {
    "nowhere/run.safetensors": (
        FileNotFoundError,
        "cannot write .*/nowhere/run.safetensors: its folder does not exist",
    ),
    ".": (IsADirectoryError, "cannot write .*: it is a folder"),
    "/proc/x": (FileNotFoundError, r"No such file or directory: '/proc/x'$"),
}


@pytest.mark.parametrize("name", WRONG_PATHS)
def test_paths_that_cannot_be_written_get_a_sentence(name, path):
    kind, sentence = WRONG_PATHS[name]
    with pytest.raises(kind, match=sentence):
        make().save(path.parent / name)


def test_a_full_disk_is_said_with_the_name_of_the_file(path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=rf"File too large: '{path}'$"):
            make().save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(path.parent) == []


def test_what_killed_writes_left_is_removed(path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    for name in (f".{path.name}.{dead.pid}", f".{path.name}.{os.getppid()}", f".other.{dead.pid}"):
        path.with_name(name).touch()
    make().save(path)
    kept = [f".{path.name}.{os.getppid()}", f".other.{dead.pid}", path.name]
    assert sorted(os.listdir(path.parent)) == sorted(kept)


# ---------------------------------------------------------------------------------- files that do not fit


def saved(path, without=None, **changes):
    """A checkpoint with other entries in its header, or without one of them."""
    trainer = make()
    trainer.save(path)
    header, tensors = checkpoint.read(path)
    header = {name: value for name, value in {**header, **changes}.items() if name != without}
    safetensors.torch.save_file(tensors, path, metadata={"pygan": json.dumps(header)})
    return path


def poisoned(path):
    trainer = make()
    trainer.generator.layers[0].bias.data[0] = float("nan")
    trainer.save(path)
    return path


def truncated(path):
    content = saved(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def other_file(path, content):
    path.write_bytes(content)
    return path


def other_tensors(path):
    safetensors.torch.save_file({"x": torch.zeros(1)}, path)
    return path


FILES = {
    "missing": (lambda path: path, FileNotFoundError, "no checkpoint at"),
    "a folder": (lambda path: path.parent, FileNotFoundError, "no checkpoint at"),
    "empty": (lambda path: other_file(path, b""), CheckpointError, "damaged or no checkpoint"),
    "text": (lambda path: other_file(path, b"hello" * 99), CheckpointError, "damaged or no checkpoint"),
    "truncated": (truncated, CheckpointError, "damaged or no checkpoint"),
    "a NaN": (poisoned, CheckpointError, r"is damaged: its generator\.0\.bias holds a NaN"),
    "another safetensors": (other_tensors, CheckpointError, "not a checkpoint of pygan"),
    "a later version": (
        lambda path: saved(path, format=99, pygan="9.9"),
        CheckpointError,
        "pygan 9.9, .* later",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_unreadable_files_get_a_sentence(case, path):
    write, kind, sentence = FILES[case]
    with pytest.raises(kind, match=sentence):
        Trainer.resume(write(path), ROWS)


CONFIG = make().config.to_dict()
EDITS = {
    **{f"no {name}": ({"without": name}, f"lacks '{name}'") for name in ("config", "data", "generator", "iteration")},
    "format": ({"format": "1"}, "'format' is wrong: format must be a whole number of at least 1, got '1'"),
    "dtype": ({"dtype": "foo"}, "'dtype' is wrong: dtype must be one of float32, .* got 'foo'"),
    "iteration": ({"iteration": "x"}, "iteration must be a whole number of at least 0, got 'x'"),
    "iteration below 0": ({"iteration": -5}, "iteration must be a whole number of at least 0, got -5"),
    "setting": ({"config": {**CONFIG, "batchsize": 3}}, "'config' is wrong: a setting's name must be .* 'batch_size'"),
    "value": ({"config": {**CONFIG, "k": 0}}, "'config' is wrong: k must be a whole number"),
    "settings": ({"config": 5}, "'config' is wrong"),
    "rule": ({"config": {**CONFIG, "optimizer": [{"lr": 1}] * 2}}, "'config' lacks 'rule'"),
    "network": ({"generator": {"size": [4, 6]}}, "'generator' is wrong: .* 'size'"),
    "no network": ({"discriminator": 3}, "discriminator must be the settings of a network or null, got 3"),
    "data": ({"data": {"name": "rows"}}, "lacks 'rows'"),
}


@pytest.mark.parametrize("case", EDITS)
def test_edited_headers_get_a_sentence(case, path):
    changes, sentence = EDITS[case]
    saved(path, **changes)
    for read in (checkpoint.load_generator, lambda path: Trainer.resume(path, ROWS)):
        with pytest.raises(CheckpointError, match=f"{path} is damaged: its header.*{sentence}"):
            read(path)


MISFITS = {
    "generator": (
        {"generator": MLP([4, 9, 6], output="sigmoid")},
        r"generator is 4-8-6 \(relu, sigmoid.*given 4-9-6",
    ),
    "activation": ({"generator": MLP([4, 8, 6])}, r"given 4-8-6 \(relu, identity\)"),
    "discriminator": (
        {"discriminator": MLP([6, 7, 1])},
        r"6-7-1 \(maxout, identity, 3 pieces, dropout .*given 6-7-1",
    ),
    "another class": ({"generator": nn.Linear(4, 6)}, "another architecture: it holds 'generator.0.bias'"),
    "another dtype": ({"generator": make().generator.double()}, "generator.0.weight is torch.float32"),
    "more rows": ({"data": normal(51, 6)}, "50 rows of 6; the data given has 51 rows of 6"),
    "wider rows": ({"data": normal(50, 7)}, "50 rows of 6; the data given has 50 rows of 7"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_another_architecture_or_data_set_gets_a_sentence(case, path):
    change, sentence = MISFITS[case]
    with pytest.raises(CheckpointError, match=sentence):
        Trainer.resume(saved(path), **{"data": ROWS, **change})


def test_an_unknown_engine_gets_a_sentence(path):
    with pytest.raises(ValueError, match="engine must be"):
        Trainer.resume(saved(path), ROWS, engine="fast")


def test_state_that_is_no_tensor_gets_a_sentence():
    class Stateful(nn.Linear):
        def get_extra_state(self):
            return {"count": 1}

        def set_extra_state(self, state):
            pass

    trainer = Trainer(Stateful(4, 6), nn.Linear(6, 1), ROWS, batch_size=8)
    with pytest.raises(TypeError, match="generator keeps '_extra_state' in its state, a dict"):
        trainer.run(1)
