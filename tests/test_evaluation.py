"""The paper's measure of a run: sigma by validation, log-likelihood of the test set, and the rest of the report."""

import json
import math
import pathlib

import numpy as np
import pytest
import torch

import pygan
from pygan import data, evaluation, parzen, recipes, reference, run_folder
from pygan.cli import main
from pygan.nn import MLP


@pytest.fixture(scope="module")
def trained():
    """The quick recipe, just begun, and what was held out of its data."""
    trainer = recipes.get("digits").build()
    trainer.run(20)
    return trainer, data.digits("valid"), data.digits("test")


# ---------------------------------------------------------------------------------------------- Parzen


def test_sigma_is_the_likeliest():
    generator = torch.Generator().manual_seed(1)
    x, samples = torch.randn(500, 3, generator=generator), torch.randn(400, 3, generator=generator)
    sigmas = [0.05, 0.2, 0.5, 1.0, 3.0]
    sigma, means = parzen.choose_sigma(x, samples, sigmas)
    expected = [reference.parzen_log_likelihood(x, samples, sigma=s).mean().item() for s in sigmas]
    np.testing.assert_allclose(means, expected, rtol=1e-5)
    assert sigma == sigmas[int(np.argmax(expected))] == 0.5


def test_the_standard_error_is_that_of_the_mean():
    x, samples = torch.randn(50, 2), torch.randn(30, 2)
    values = reference.parzen_log_likelihood(x, samples, sigma=0.7).numpy()
    got = parzen.log_likelihood(x, samples, 0.7)
    assert math.isclose(got.mean, values.mean(), rel_tol=1e-5)
    assert math.isclose(got.standard_error, values.std(ddof=1) / math.sqrt(50), rel_tol=1e-4)


def test_the_grid_is_the_authors():
    np.testing.assert_allclose(parzen.SIGMAS, np.logspace(-1, 0, 10), rtol=1e-11)


@pytest.mark.parametrize(("sigmas", "end"), [([2.0, 3.0], "smallest"), ([0.1, 0.2], "largest")])
def test_the_edge_of_the_grid_warns(sigmas, end):
    x = torch.linspace(-2, 2, 40)[:, None]
    with pytest.warns(UserWarning, match=f"is the {end} that was tried: widen the grid"):
        parzen.choose_sigma(x, torch.zeros(1, 1), sigmas)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda x: parzen.choose_sigma(x, x, []), "sigmas must be at least one number"),
        (
            lambda x: parzen.choose_sigma(x, x, [0.5, -1]),
            "above 0, from 1e-100 to 1e100, got -1",
        ),
        (lambda x: parzen.choose_sigma(x.double(), x.double() + 1e200, [1e-15]), "a likelihood of zero"),
        (lambda x: parzen.log_likelihood(x[:1], x, 0.5), "at least 2 examples"),
        (lambda x: parzen.log_likelihood(x, x / 0, 0.5), "samples must be finite, but 4 of 4 are not"),
    ],
)
def test_bad_input_gets_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(torch.arange(1.0, 9.0).view(4, 2))


# ------------------------------------------------------------------------------------------------ a run


def test_result_is_what_its_parts_say(trained):
    trainer, validation, test = trained
    result = evaluation.evaluate(trainer, validation, test, samples=300, sigmas=[0.02, 0.2, 0.4, 5.0])
    samples = trainer.sample(300, step=1)
    expected = reference.parzen_log_likelihood(test.as_float(), samples, sigma=result["sigma"])
    assert math.isclose(result["log_likelihood"], expected.mean().item(), rel_tol=1e-4)
    assert result["iteration"] == 20
    assert (result["test_rows"], result["validation_rows"]) == (250, 250)
    assert result["validation"][[0.02, 0.2, 0.4, 5.0].index(result["sigma"])] == max(result["validation"])
    assert math.isclose(result["value"], 2 * result["jsd"] - math.log(4))
    assert 0 < result["neighbours"]["test_to_training"] < result["neighbours"]["among_training"]
    json.dumps(result)


def test_bytes_are_compared_in_the_range_of_the_data():
    """A generator of a tanh's range, trained on bytes: its samples are moved to [0, 1]."""
    values = torch.randint(0, 256, (60, 9), dtype=torch.uint8)
    networks = MLP([4, 9], output="tanh"), MLP([9, 1])
    trainer = pygan.Trainer(*networks, values, batch_size=20, pixel_range=(-1.0, 1.0))
    samples = evaluation.sample(trainer, 50)
    torch.testing.assert_close(samples, (trainer.sample(50, step=1) + 1) / 2)
    held_out = data.as_dataset(values)
    result = evaluation.evaluate(trainer, held_out, held_out, samples=50, sigmas=[0.1, 0.3, 1.0])
    with torch.no_grad():
        logits = trainer.discriminator(values / 127.5 - 1)
    assert math.isfinite(result["jsd"])
    assert math.isclose(
        result["jsd"] * 2 - math.log(4),
        (
            torch.nn.functional.logsigmoid(logits).mean()
            + torch.nn.functional.logsigmoid(-trainer.discriminator(trainer.sample(50, step=1))).mean()
        ).item(),
        rel_tol=1e-4,
    )


def test_a_mixture_has_its_modes_counted():
    trainer = recipes.get("ring8").build()
    held_out = [data.held_out("ring8", split) for split in ("valid", "test")]
    assert not torch.equal(held_out[0].values, held_out[1].values)
    with pytest.warns(UserWarning, match="widen the grid"):
        result = evaluation.evaluate(trainer, *held_out, samples=100, sigmas=[0.01, 0.02])
    assert result["modes"]["modes"] == 8
    assert "modes" in evaluation.describe(result, "ring8")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"samples": 1}, "samples must be a whole number of at least 2, got 1"),
        ({"validation": data.mixture("ring8", n=5)}, "validation must have examples of 64 numbers, as the run, got 2"),
        ({"test": data.mixture("ring8", n=5)}, "test must have examples of 64 numbers, as the run, got 2"),
        ({"sigmas": [0.0]}, "sigma must be a number above 0"),
    ],
)
def test_what_does_not_fit_gets_a_sentence(trained, change, sentence):
    trainer, validation, test = trained
    with pytest.raises(ValueError, match=sentence):
        evaluation.evaluate(trainer, **{"validation": validation, "test": test, "samples": 10} | change)


def test_a_diverged_generator_gets_a_sentence(trained):
    _, validation, test = trained
    trainer = recipes.get("digits").build()
    with torch.no_grad():
        trainer.generator.layers[0].weight.fill_(math.nan)
    with pytest.raises(ValueError, match="samples must be finite, but 10 of 10 are not"):
        evaluation.evaluate(trainer, validation, test, samples=10)


# -------------------------------------------------------------------------------------------- following


def test_the_tracker_keeps_the_best(trained, monkeypatch):
    monkeypatch.setattr(evaluation, "_RECESS", 0.0)
    trainer, validation, _ = trained
    monkeypatch.setattr(evaluation.time, "monotonic", iter([0, 1, 1, 2, 2]).__next__)
    tracker, kept = evaluation.Tracker(validation, samples=50), []
    assert tracker.follow(trainer, lambda: kept.append(1))
    best = tracker.best
    assert (tracker.last["log_likelihood"], kept) == (best, [1])
    tracker.best = best + 1
    assert tracker.follow(trainer, lambda: kept.append(2))
    assert (tracker.best, kept) == (best + 1, [1])


def test_the_tracker_rests(trained):
    trainer, validation, _ = trained
    assert not evaluation.Tracker(validation).follow(trainer, pytest.fail)


def test_a_run_is_followed_and_evaluated(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluation, "_RECESS", 0.0)
    assert main(["train", "--iterations", "400", "--out", "run"]) == 0
    lines = [json.loads(line) for line in pathlib.Path("run/metrics.jsonl").read_text().splitlines()]
    measured = [line["log_likelihood"] for line in lines if "log_likelihood" in line]
    assert measured
    assert "best.safetensors" in capsys.readouterr().out
    # What is continued remembers the best.
    folder = run_folder.RunFolder(
        pathlib.Path("run"),
        run_folder.read_config(pathlib.Path("run")),
        400,
        first=400,
        validation=data.digits("valid"),
    )
    folder._metrics.close()
    assert folder.tracker.best == max(measured)
    assert main(["evaluate", "run", "--samples", "200"]) == 0
    said = capsys.readouterr().out
    result = json.loads(pathlib.Path("run/evaluation.json").read_text())
    assert result["checkpoint"] == "best.safetensors"
    assert f"{result['log_likelihood']:.4g}" in said
    # Widths in any order: each likelihood stands beside its own.
    assert main(["evaluate", "run", "--samples", "200", "--sigma", "0.3", "--sigma", "0.05", "--sigma", "0.9"]) == 0
    result = json.loads(pathlib.Path("run/evaluation.json").read_text())
    assert result["sigmas"] == [0.05, 0.3, 0.9]
    assert result["sigmas"][int(np.argmax(result["validation"]))] == result["sigma"]
    assert main(["evaluate", "run", "--samples", "200", "--last", "--sigma", "0.3"]) == 0
    result = json.loads(pathlib.Path("run/evaluation.json").read_text())
    assert (result["checkpoint"], result["iteration"], result["sigma"]) == ("checkpoint.safetensors", 400, 0.3)


def test_the_papers_table_stands_beside_mnist():
    said = evaluation.table({"log_likelihood": 230.04, "standard_error": 2.04}, "mnist:fit")
    for row in ("DBN", "138 ± 2", "Deep GSN", "214 ± 1.1", "Adversarial nets", "225 ± 2", "this run", "230 ± 2"):
        assert row in said


def test_evaluate_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "absent"]) == 1
    assert "no run at absent" in capsys.readouterr().err
    assert main(["train", "--recipe", "digits", "--data", "digits", "--iterations", "3", "--out", "run"]) == 0
    assert not pathlib.Path("run/best.safetensors").exists()
    capsys.readouterr()
    assert main(["evaluate", "run"]) == 2
    assert "data 'digits' has no validation set beside it" in capsys.readouterr().err
    pathlib.Path("run/checkpoint.safetensors").unlink()
    assert main(["evaluate", "run"]) == 1
    assert "checkpoint.safetensors" in capsys.readouterr().err
