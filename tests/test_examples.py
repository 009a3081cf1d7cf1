"""Each example runs from the command line, without and with pygan, to the same losses."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples"
EXAMPLES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "compare")


def run(name, *options):
    return subprocess.run(
        [sys.executable, FOLDER / f"{name}.py", *options],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def test_there_are_seven():
    assert len(EXAMPLES) == 7


@pytest.mark.parametrize("name", EXAMPLES)
def test_runs_to_the_same_losses(name):
    done = run(name, "--fuse", "--steps", "4", "--batch-size", "6")
    assert done.returncode == 0, done.stderr
    torchs, pygans, compared = done.stdout.splitlines()
    assert torchs.startswith("torch: ")
    assert pygans.startswith("pygan: ")
    difference = float(
        re.fullmatch(r"with pygan [\d.]+ times as fast; largest difference of a loss (\S+)", compared)[1]
    )
    # dropout has other masks
    assert difference < (0.5 if name == "dcgan_mlp" else 2e-4)
    assert difference > 0 or name == "ring"


def test_without_the_option_torch_runs_alone():
    done = run("ring", "--steps", "3")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("options", [("--steps", "0"), ("--batch-size", "1"), ("--batch-size", "x")])
def test_wrong_options_are_said(options):
    done = run("ring", *options)
    assert done.returncode == 2
    assert options[0] in done.stderr
    assert "Traceback" not in done.stderr
