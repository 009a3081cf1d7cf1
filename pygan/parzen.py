"""The paper's measure of a generator: the log-likelihood of held-out examples under a Parzen window on its samples."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pygan import ops
from pygan._names import check_number

# Ten values from .1 to 1, evenly spaced in their logarithms: the authors' grid.
SIGMAS = tuple(round(10 ** (i / 9 - 1), 12) for i in range(10))


@dataclass(frozen=True)
class LogLikelihood:
    """A mean log-likelihood, in nats an example.

    Args:
        mean: over the examples.
        standard_error: their standard deviation over the square root of their number.
        sigma: the width of the window.

    >>> print(LogLikelihood(225.3, 1.96, 0.2))
    225.3 ± 2.0 (sigma 0.200)
    """

    mean: float
    standard_error: float
    sigma: float

    def __str__(self) -> str:
        return f"{self.mean:.1f} ± {self.standard_error:.1f} (sigma {self.sigma:.3f})"


def log_likelihood(x: Tensor, samples: Tensor, sigma: float) -> LogLikelihood:
    """The mean log-likelihood of examples, and its standard error.

    Args:
        x: (n, d), n at least 2.
        samples: (s, d).
        sigma: the width of the window, in the units of x.

    Raises:
        ValueError: fewer than two examples, samples that are not finite, shapes or a sigma that do not fit.

    >>> print(log_likelihood(torch.zeros(2, 1), torch.zeros(5, 1), 1.0))
    -0.9 ± 0.0 (sigma 1.000)
    """
    _check(x, samples)
    values = ops.parzen_log_likelihood(x, samples, sigma=sigma)
    return LogLikelihood(values.mean().item(), values.std().item() / math.sqrt(len(values)), float(sigma))


def choose_sigma(validation: Tensor, samples: Tensor, sigmas: Sequence[float] = SIGMAS) -> tuple[float, list[float]]:
    """The width under which the validation set is likeliest.

    Warns where that is the smallest or the largest of those tried: a wider grid may have a better one.

    Args:
        validation: (n, d).
        samples: (s, d).
        sigmas: the widths to try.

    Returns:
        The best, and the mean log-likelihood under each, in the order of the widths.

    Raises:
        ValueError: no width; one that is not above 0; as `log_likelihood`; or all likelihoods are zero.

    >>> choose_sigma(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.5]]), [0.1, 0.5, 1.0])[0]
    0.5
    """
    sigmas = check_sigmas(sigmas)
    _check(validation, samples)
    means = [ops.parzen_log_likelihood(validation, samples, sigma=sigma).mean().item() for sigma in sigmas]
    best = max(range(len(sigmas)), key=means.__getitem__)
    if means[best] == -math.inf:
        raise ValueError(f"sigma: every width up to {sigmas[-1]:g} leaves the validation set a likelihood of zero")
    if len(sigmas) > 1 and best in (0, len(sigmas) - 1):
        end = "smallest" if best == 0 else "largest"
        warnings.warn(
            f"sigma {sigmas[best]:.3g} is the {end} that was tried: widen the grid, a better one may lie beyond",
            stacklevel=2,
        )
    return sigmas[best], means


def check_sigmas(sigmas: Sequence[float]) -> list[float]:
    """The widths, each once, the smallest first."""
    if isinstance(sigmas, Tensor):
        sigmas = sigmas.tolist()
    if not isinstance(sigmas, Iterable) or isinstance(sigmas, str):
        raise ValueError(f"sigmas must be at least one number above 0, got {sigmas!r}")
    checked = {
        check_number(s, "sigma", "a number above 0, from 1e-100 to 1e100", lambda s: 1e-100 <= s <= 1e100)
        for s in sigmas
    }
    if not checked:
        raise ValueError("sigmas must be at least one number above 0, got none")
    return sorted(checked)


def _check(x: Tensor, samples: Tensor) -> None:
    for name, tensor in (("x", x), ("samples", samples)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
    if x.dim() != 2 or len(x) < 2:
        raise ValueError(f"x must be (n, d) with at least 2 examples, got shape {tuple(x.shape)}")
    if samples.dim() != 2:
        raise ValueError(f"samples must be (s, {x.shape[1]}), got shape {tuple(samples.shape)}")
    if bad := len(x) - int(torch.isfinite(x).all(dim=-1).sum()):
        raise ValueError(f"x must be finite, but {bad} of {len(x)} rows are not")
    if bad := len(samples) - int(torch.isfinite(samples).all(dim=-1).sum()):
        raise ValueError(f"samples must be finite, but {bad} of {len(samples)} are not: the generator has diverged")
