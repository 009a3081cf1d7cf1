"""What a trained generator is worth: the paper's protocol on a run, and a small form of it while the run trains."""

from __future__ import annotations

import dataclasses
import json
import math
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pygan import diagnostics, parzen, theory
from pygan._files import replacing
from pygan._names import check_whole
from pygan.data import Dataset
from pygan.running import evaluating

if TYPE_CHECKING:
    from pygan.trainer import Trainer

RESULT = "evaluation.json"
# The paper's Table 1: mean log-likelihood and standard error.
PAPER = {
    "mnist": {
        "DBN": (138.0, 2.0),
        "Stacked CAE": (121.0, 1.6),
        "Deep GSN": (214.0, 1.1),
        "Adversarial nets": (225.0, 2.0),
    },
    "tfd": {
        "DBN": (1909.0, 66.0),
        "Stacked CAE": (2110.0, 50.0),
        "Deep GSN": (1890.0, 29.0),
        "Adversarial nets": (2057.0, 26.0),
    },
}
_SAMPLE_STEP = 1  # of the draws of an evaluation; step 0 is the run's picture
_VALIDATION_ROWS = 1000  # the authors' number
_MOST_SAMPLES = 10_000_000
_NEIGHBOURS = 1000  # samples whose nearest training examples are looked for
_RECESS = 1.0  # seconds between two looks at a run, at least


def evaluate(
    trainer: Trainer,
    validation: Dataset,
    test: Dataset,
    *,
    samples: int = 10_000,
    sigmas: Sequence[float] = parzen.SIGMAS,
) -> dict:
    """The paper's measure of a trained generator, and what else tells whether it is a good one.

    Args:
        trainer: where its run stands.
        validation: of the trainer's kind of data; its first 1000 rows choose sigma.
        test: likewise; all of it.
        samples: how many the Parzen window has, at least 2.
        sigmas: widths to choose from, in the units of `Dataset.as_float`.

    Returns:
        Plain values: `log_likelihood`, `standard_error` and `sigma`, in nats, with `validation` for each of
        `sigmas`; `jsd`, Theorem 1's estimate from the discriminator, with `value`, its V, on the test set;
        `neighbours`, mean distances of samples and of test examples to the nearest training example, and of samples
        and of training examples among themselves; for a known mixture `modes`. All are of what `Trainer.sample` draws;
        where that is the average of the generator's weights, `not_averaged` has sigma, log-likelihood and standard
        error of those that training left, or None where they are too far off to have any.

    Raises:
        ValueError: sets of another length than the generator's examples, too few samples, samples that are not
            finite, or widths that are not above 0.

    >>> import pygan
    >>> trainer = pygan.recipes.get("ring8").build()
    >>> held_out = (pygan.data.held_out("ring8", split) for split in ("valid", "test"))
    >>> result = evaluate(trainer, *held_out, samples=100, sigmas=[0.1, 2.0, 40.0])
    >>> result["test_rows"], result["samples"], result["jsd"] <= math.log(2)
    (10000, 100, True)

    Source: Goodfellow et al. 2014, section 5 and Theorem 1.
    """
    samples, sigmas = check_whole(samples, "samples", least=2), parzen.check_sigmas(sigmas)
    if samples > _MOST_SAMPLES:
        raise ValueError(f"samples must be at most {_MOST_SAMPLES:,}, got {samples:,}")
    for name, examples in (("validation", validation), ("test", test)):
        if examples.dimension != trainer.data.dimension:
            raise ValueError(
                f"{name} must have examples of {trainer.data.dimension} numbers, as the run, got {examples.dimension}"
            )
    drawn = sample(trainer, samples)
    chosen_on, real = validation.as_float()[:_VALIDATION_ROWS].to(drawn), test.as_float().to(drawn)
    sigma, means = parzen.choose_sigma(chosen_on, drawn, sigmas)
    likelihood = parzen.log_likelihood(real, drawn, sigma)
    jsd = _jsd(trainer, real, drawn)
    for name, value in (("log-likelihood", likelihood.mean), ("value of V from the discriminator", jsd)):
        if not math.isfinite(value):
            raise ValueError(f"the {name} is {value}: the run has diverged, or sigma {sigma:g} is not of this data")
    result = {
        "iteration": trainer.iteration,
        "samples": samples,
        "validation_rows": min(len(validation), _VALIDATION_ROWS),
        "test_rows": len(test),
        "sigmas": sigmas,
        "validation": means,
        "sigma": sigma,
        "log_likelihood": likelihood.mean,
        "standard_error": likelihood.standard_error,
        "value": 2 * jsd - math.log(4),
        "jsd": jsd,
        "neighbours": _neighbours(drawn, real, trainer.data),
    }
    if trainer.average is not None:
        result["not_averaged"] = _likelihood(sample(trainer, samples, averaged=False), chosen_on, real, sigmas)
    if trainer.data.modes is not None:
        result["modes"] = dataclasses.asdict(diagnostics.mode_statistics(drawn, trainer.data))
    return result


def _likelihood(drawn: Tensor, validation: Tensor, test: Tensor, sigmas: Sequence[float]) -> dict[str, float] | None:
    """Of a generator that is measured beside the one in question: its failure is not that one's."""
    try:
        with warnings.catch_warnings(action="ignore"):  # which would not say whose grid it is
            sigma, _ = parzen.choose_sigma(validation, drawn, sigmas)
            found = parzen.log_likelihood(test, drawn, sigma)
    except ValueError:
        return None
    if not math.isfinite(found.mean):
        return None
    return {"sigma": sigma, "log_likelihood": found.mean, "standard_error": found.standard_error}


def sample(trainer: Trainer, n: int, *, averaged: bool = True) -> Tensor:
    """(n, d) on the CPU, in the units of `Dataset.as_float`: the draws that an evaluation looks at."""
    low, high = _range(trainer)
    return (trainer.sample(n, step=_SAMPLE_STEP, averaged=averaged).cpu().float() - low) / (high - low)


def _range(trainer: Trainer) -> tuple[float, float]:
    """What the networks see where `Dataset.as_float` has 0 and 1."""
    return trainer.config.pixel_range if trainer.data.values.dtype == torch.uint8 else (0.0, 1.0)


def _jsd(trainer: Trainer, real: Tensor, drawn: Tensor) -> float:
    """The divergence that the discriminator, as it is, proves on the test set."""
    low, high = _range(trainer)

    def logits(x: Tensor) -> Tensor:
        parts = (x * (high - low) + low).to(trainer.device, trainer.dtype).split(4096)
        return torch.cat([trainer.discriminator(part).flatten().double().cpu() for part in parts])

    with evaluating(trainer.discriminator), torch.no_grad():
        return theory.jsd_from_logits(logits(real), logits(drawn))


def _neighbours(drawn: Tensor, real: Tensor, training: Dataset) -> dict[str, float]:
    few, held_out = drawn[:_NEIGHBOURS], real[:_NEIGHBOURS]
    return {
        "samples_to_training": diagnostics.nearest_neighbours(few, training)[1].mean().item(),
        "test_to_training": diagnostics.nearest_neighbours(held_out, training)[1].mean().item(),
        "among_samples": diagnostics.mean_pairwise_distance(few),
        "among_training": diagnostics.mean_pairwise_distance(training.values[:_NEIGHBOURS]),
    }


def write(result: dict, path: Path) -> None:
    """A result as JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")


def describe(result: dict, data: str) -> str:
    """A result in lines, beside the paper's Table 1 where its data set is in it.

    Args:
        result: of `evaluate`.
        data: the name of the data set.

    """
    near = result["neighbours"]
    lines = [
        f"iteration {result['iteration']}: {result['samples']} samples, sigma {result['sigma']:.3g} chosen on "
        f"{result['validation_rows']} validation examples",
        f"V(D, G) on the test set {result['value']:.3f} (-log 4 = {-math.log(4):.3f} where D cannot tell), so the "
        f"Jensen-Shannon divergence is at least {max(0.0, result['jsd']):.3f} of log 2 = {math.log(2):.3f}",
        f"distance to the nearest training example: samples {near['samples_to_training']:.3g}, test examples "
        f"{near['test_to_training']:.3g}",
        f"distance of two samples {near['among_samples']:.3g}, of two training examples {near['among_training']:.3g}",
    ]
    if "modes" in result:
        modes = result["modes"]
        lines.append(
            f"modes {modes['covered']} of {modes['modes']}, samples within 3 standard deviations of one "
            f"{modes['quality']:.0%}, reverse KL to the modes' weights {modes['reverse_kl']:.3f}"
        )
    return "\n".join((*lines, table(result, data)))


def table(result: dict, data: str) -> str:
    """A result's log-likelihood, below those of the paper's Table 1 where the data set is in it.

    >>> print(table({"log_likelihood": 100.0, "standard_error": 2.0}, "mnist:fit").splitlines()[-1])
    this run                 100 ± 2
    """
    lines = []
    if of_paper := PAPER.get(data.partition(":")[0]):
        lines.append("log-likelihood of the test set, nats (the paper's Table 1)")
        lines += [f"{name:<20} {mean:>7g} ± {error:g}" for name, (mean, error) in of_paper.items()]
    rows = [("this run", result)]
    if (other := result.get("not_averaged")) is not None:
        rows = [("this run, averaged", result), ("  not averaged", other)]
    lines += [f"{name:<20} {row['log_likelihood']:>7.4g} ± {row['standard_error']:.2g}" for name, row in rows]
    return "\n".join(lines)


class Tracker:
    """The log-likelihood of a small sample, now and then while a run trains.

    Args:
        validation: of the kind of data that is trained on.
        best: the highest so far, of a run that is continued.
        samples: of the Parzen window, and the most validation rows.
    """

    def __init__(self, validation: Dataset, *, best: float = -math.inf, samples: int = 1000):
        self._validation = validation.as_float()[:samples]
        self._samples = samples
        self._due = time.monotonic() + _RECESS
        self._measured = -1
        self.best = best
        self.last: dict[str, float] | None = None

    def follow(self, trainer: Trainer, keep: Callable[[], None], *, now: bool = False) -> bool:
        """Measure where it is time to, and call `keep` if no earlier state was as good; takes 2 % of a run's time.

        Args:
            trainer: where its run stands.
            keep: writes it down.
            now: it is time, unless this state has been measured.

        Returns:
            Whether `last` is new: the numbers, or None of a generator that is too far off to have any.
        """
        start = time.monotonic()
        if (trainer.iteration == self._measured) if now else (start < self._due):
            return False
        self._measured = trainer.iteration
        if self._measure(trainer):
            keep()
        now = time.monotonic()
        self._due = now + max(_RECESS, 50 * (now - start))
        return True

    def _measure(self, trainer: Trainer) -> bool:
        """Whether it is the best so far."""
        try:
            with warnings.catch_warnings(action="ignore"):  # early on, the grid's end is as good as any width
                sigma, means = parzen.choose_sigma(self._validation, sample(trainer, self._samples))
        except ValueError:  # of a generator that is, for now, too far off
            self.last = None
            return False
        self.last = {"log_likelihood": round(max(means), 4), "sigma": round(sigma, 6)}
        better = self.last["log_likelihood"] > self.best
        self.best = max(self.best, self.last["log_likelihood"])
        return better
