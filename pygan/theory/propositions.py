"""The two propositions of the paper as experiments: a D that is trained, and a p_g that descends."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pygan import ops
from pygan._names import check_number, check_seed, check_whole, check_wholes
from pygan.nn import MLP
from pygan.optim import Adam, Optimizer, Rule

from .densities import Mixture, Nodes, draw, nodes
from .divergences import criterion, logits_at, sigmoid, value_at

_LAST_RATE = 0.01  # of the first, at the last step
_REGION = 0.99  # the share of the mass in which D's largest error is looked for


@dataclass(frozen=True, eq=False)
class DiscriminatorFit:
    """What became of a discriminator that was trained against two known densities.

    Args:
        discriminator: the network.
        steps: (c,), the steps after which V was measured, from 0.
        values: (c,), V by quadrature after so many steps.
        criterion: C(G) = max_D V, which they approach from below.
        max_error: the largest |D - D*| where (p_data + p_g) / 2 is densest, in the region of 99 % of its mass.
        mean_error: the mean of |D - D*| under (p_data + p_g) / 2.
    """

    discriminator: MLP
    steps: np.ndarray
    values: np.ndarray
    criterion: float
    max_error: float
    mean_error: float

    @property
    def gap(self) -> float:
        """C(G) - V of the trained discriminator, at least 0."""
        return self.criterion - float(self.values[-1])


def fit_discriminator(
    p_data: Mixture,
    p_g: Mixture,
    *,
    hidden: Sequence[int] = (32, 32),
    steps: int = 2000,
    batch_size: int = 512,
    rule: Rule = Adam(lr=1e-2),
    seed: int = 0,
) -> DiscriminatorFit:
    """Train D on samples of two densities that are known, and compare it with D* (proposition 1, theorem 1).

    The samples are fresh at every step, and D is a perceptron of tanh units, as smooth as D* is.

    Args:
        p_data: a mixture.
        p_g: a mixture of the same dimension.
        hidden: sizes of D's hidden layers.
        steps: of gradient descent on D's loss; the learning rate falls to a hundredth along half a cosine.
        batch_size: samples of each density in a step.
        rule: of the steps.
        seed: of D's first weights and of the samples.

    Raises:
        ValueError: densities that are no pair, or a number out of its range.

    >>> from pygan.theory import gaussian
    >>> fit = fit_discriminator(gaussian(0, 1), gaussian(1, 1), hidden=[16], steps=100)
    >>> 0 <= fit.gap < 0.05
    True

    Source: the paper, proposition 1 and theorem 1.
    """
    at = nodes(p_data, p_g, ("p_data", "p_g"))
    if at.x is None:
        raise ValueError("p_data and p_g must be Mixtures: of vectors D* is known without training")
    steps, batch_size = check_whole(steps, "steps"), check_whole(batch_size, "batch_size")
    hidden = check_wholes(hidden, "hidden")
    generator = np.random.default_rng(check_seed(seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        discriminator = MLP((p_data.dimension, *hidden, 1), activation="tanh")
    moments, values = _moments(steps), []

    def samples(_: int) -> list[Tensor]:
        return [torch.from_numpy(draw(p, batch_size, generator)).float() for p in (p_data, p_g)]

    def measure(step: int) -> None:
        if step in moments:
            values.append(value_at(logits_at(discriminator, at.x), at))

    train_discriminator(discriminator, samples, steps, rule=rule, callback=measure)
    return DiscriminatorFit(
        discriminator, np.array(moments), np.array(values), criterion(p_data, p_g), *_errors(discriminator, at)
    )


def train_discriminator(
    discriminator: nn.Module,
    samples: Callable[[int], Sequence[Tensor]],
    steps: int,
    *,
    rule: Rule = Adam(lr=1e-2),
    callback: Callable[[int], None] | None = None,
) -> None:
    """The inner loop of Algorithm 1 alone: D learns while the generator stands still.

    Args:
        discriminator: (m, d) -> (m, 1), logits; changed in place.
        samples: given the number of the step, the real and the generated examples of it, each (m, d).
        steps: how many, at least 1.
        rule: of the steps; its learning rate falls to a hundredth along half a cosine.
        callback: called with the number of steps done: 0, ..., steps.

    Raises:
        ValueError: fewer than one step.
        TypeError: a discriminator that is no module, a rule that is none of pygan's, samples or a callback that cannot
            be called, or samples that give no pair of tensors.

    >>> discriminator = MLP([1, 8, 1])
    >>> train_discriminator(discriminator, lambda _: (torch.ones(8, 1), -torch.ones(8, 1)), 50)
    >>> discriminator(torch.ones(1, 1)).item() > 1
    True

    Source: the paper, Algorithm 1.
    """
    check_module(discriminator, "discriminator")
    for name, function in (("samples", samples), ("callback", callback)):
        if not callable(function) and (name, function) != ("callback", None):
            raise TypeError(f"{name} must be a function of the step, got {type(function).__name__}")
    steps, optimizer = check_whole(steps, "steps"), Optimizer(rule, discriminator.parameters())
    if callback is not None:
        callback(0)
    for t in range(steps):
        real, fake = _pair(samples(t))
        real_logits, fake_logits = discriminator(torch.cat((real, fake))).split((len(real), len(fake)))
        loss = ops.discriminator_loss(real_logits, fake_logits)
        share = 0.5 * (1 + math.cos(math.pi * t / steps))
        optimizer.rule = dataclasses.replace(rule, lr=rule.lr * (_LAST_RATE + (1 - _LAST_RATE) * share))
        optimizer.update_(torch.autograd.grad(loss, optimizer.parameters), update=t, epoch=1)
        if callback is not None:
            callback(t + 1)


def check_module(value: object, name: str) -> None:
    """That it is a network; else a TypeError of one sentence."""
    if not isinstance(value, nn.Module):
        raise TypeError(f"{name} must be a module, got {type(value).__name__}")


def _pair(examples: Any) -> Sequence[Tensor]:
    if isinstance(examples, Sequence) and [isinstance(x, Tensor) for x in examples] == [True, True]:
        return examples
    raise TypeError(f"samples must give two tensors, real and generated examples, got {type(examples).__name__}")


def criterion_gradient(p_data: Any, p_g: Any) -> np.ndarray:
    """∂C/∂p_g of two vectors of k probabilities: log(1 - D*), with D* held where it is best.

    That D* moves with p_g changes nothing to first order, since V does not change with D at its maximum.

    Args:
        p_data: k probabilities.
        p_g: k probabilities.

    Returns:
        (k,), from -∞ (no sample where data is) to 0 (no data there).

    Raises:
        ValueError: vectors that are no pair.

    >>> criterion_gradient([0.5, 0.5, 0.0], [0.25, 0.25, 0.5]).round(4)
    array([-1.0986, -1.0986,  0.    ])

    Source: the paper, proposition 2.
    """
    at = _vectors(p_data, p_g)
    return _gradient(at.log_p, at.log_q)


@dataclass(frozen=True, eq=False)
class Descent:
    """The path of a p_g on the simplex.

    Args:
        p_g: (n + 1, k), the probabilities before the first step and after each.
        criterion: (n + 1,), C(G) at each.
    """

    p_g: np.ndarray
    criterion: np.ndarray


def descend(p_data: Any, p_g: Any, *, step: float = 0.5, steps: int = 100) -> Descent:
    """Descend C on the simplex by the exponentiated gradient, D being at its best at every step (proposition 2).

    p_g ← p_g · exp(-η ∂C/∂p_g) / Z, with ∂C/∂p_g = log(1 - D*). C is convex in p_g, and no more curved than
    Σ p log p, so for η ≤ 1 every step descends, and C + log 4 ≤ KL(p_data ‖ p_g at the start) / (η n) after n
    steps. With η = 1 a step is p_g ← (p_data + p_g) / 2.

    Args:
        p_data: k probabilities.
        p_g: k probabilities at the start, above 0 wherever p_data is: no step gives mass to a 0.
        step: η, in (0, 1].
        steps: n, at least 1.

    Raises:
        ValueError: vectors that are no pair, or a number out of its range.

    >>> path = descend([0.7, 0.3], [0.1, 0.9], step=1.0, steps=2)
    >>> path.p_g
    array([[0.1 , 0.9 ],
           [0.4 , 0.6 ],
           [0.55, 0.45]])

    Source: the paper, proposition 2; Kivinen and Warmuth 1997 (the step), Lu, Freund and Nesterov 2018 (the rate).
    """
    at = _vectors(p_data, p_g)
    step = check_number(step, "step", "in (0, 1]", lambda step: 0 < step <= 1)
    steps = check_whole(steps, "steps")
    log_data, log_g = at.log_p, at.log_q
    if (np.isneginf(log_g) & ~np.isneginf(log_data)).any():
        raise ValueError("p_g must be above 0 wherever p_data is: no step gives mass to a probability of 0")
    path = [np.exp(log_g)]
    for _ in range(steps):
        log_g = log_g - step * _gradient(log_data, log_g)
        log_g = log_g - np.logaddexp.reduce(log_g)
        path.append(np.exp(log_g))
    data = np.exp(log_data)
    return Descent(np.array(path), np.array([criterion(data, p / p.sum()) for p in path]))


def _vectors(p_data: Any, p_g: Any) -> Nodes:
    at = nodes(p_data, p_g, ("p_data", "p_g"))
    if at.x is not None:
        raise ValueError("p_data and p_g must be vectors of probabilities, got Mixtures")
    return at


def _gradient(log_data: np.ndarray, log_g: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        # Where both are 0, the limit of p_g to 0 is taken.
        return np.where(np.isneginf(log_data), 0.0, log_g - np.logaddexp(log_data, log_g))


def _moments(steps: int) -> list[int]:
    """0, the powers of 2, and the last step."""
    return [0, *(2**i for i in range(steps.bit_length()) if 2**i < steps), steps]


def _errors(discriminator: MLP, at: Nodes) -> tuple[float, float]:
    """The largest error where the mean of the densities is densest, and its mean."""
    error = np.abs(sigmoid(logits_at(discriminator, at.x)) - sigmoid(at.log_p - at.log_q))
    density = 0.5 * (np.exp(at.log_p) + np.exp(at.log_q))
    mass = at.weight * density
    densest = np.argsort(-density)
    region = densest[np.cumsum(mass[densest]) <= _REGION]
    return float(error[region].max()), float((mass * error).sum())
