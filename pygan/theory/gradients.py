"""What a generator feels of a discriminator that rejects it, under either of its losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pygan import ops, random, recipes
from pygan._names import check_name, check_seed, check_whole
from pygan.losses import GENERATOR_LOSSES
from pygan.optim import Adam, Rule

from .densities import as_float64
from .propositions import check_module, train_discriminator

_PROBES = 500  # noise vectors at which gradients are measured, the same at every step


def generator_gradient(logits: Any, kind: str = "non_saturating") -> tuple[np.ndarray, np.ndarray]:
    """A generator's loss and its derivative by D's logit a, as `pygan.ops` compute them.

    minimax: log(1 - D) with -D; non_saturating: -log D with -(1 - D). As D → 0 the first derivative vanishes and
    the other goes to -1.

    Args:
        logits: a = logit D(G(z)), any shape.
        kind: "non_saturating" or "minimax".

    Returns:
        Value and derivative at each logit, float64.

    Raises:
        ValueError: an unknown kind.

    >>> [part.round(5) for part in generator_gradient([-10.0], "minimax")]
    [array([-5.e-05]), array([-5.e-05])]
    >>> [part.round(5) for part in generator_gradient([-10.0])]
    [array([10.00005]), array([-0.99995])]

    Source: the paper, section 3.
    """
    check_name(kind, GENERATOR_LOSSES, "kind")
    a = torch.from_numpy(as_float64(logits, "logits").copy()).requires_grad_()
    with torch.enable_grad():
        values = ops.generator_loss(a, kind=kind, reduction="none")
        (gradient,) = torch.autograd.grad(values.sum(), a)
    return values.detach().numpy(), gradient.numpy()


def gradient_norms(generator: nn.Module, discriminator: nn.Module, z: Tensor) -> dict[str, float]:
    """The norm of the gradient of all of a generator's parameters, under each of its losses.

    Args:
        generator: (m, noise_dim) -> (m, d).
        discriminator: (m, d) -> (m, 1) or (m,), logits.
        z: (m, noise_dim).

    Returns:
        By the name of the loss; the loss is the mean over z.

    Raises:
        TypeError: networks that are no modules, or z that is no tensor.

    >>> from pygan.nn import MLP
    >>> sorted(gradient_norms(MLP([2, 4, 3]), MLP([3, 4, 1]), torch.randn(5, 2)))
    ['minimax', 'non_saturating']
    """
    for name, network in (("generator", generator), ("discriminator", discriminator)):
        check_module(network, name)
    if not isinstance(z, Tensor):
        raise TypeError(f"z must be a tensor, got {type(z).__name__}")
    parameters, norms = [p for p in generator.parameters() if p.requires_grad], {}
    for kind in GENERATOR_LOSSES:
        with torch.enable_grad():
            loss = ops.generator_loss(discriminator(generator(z)), kind=kind)
            gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
        norms[kind] = float(torch.cat([g.flatten().double() for g in gradients]).norm())
    return norms


@dataclass(frozen=True, eq=False)
class GradientStudy:
    """The gradients of one generator that stands still, as its discriminator learns.

    Args:
        steps: (c,), the steps that D has learnt, from 0.
        d_fake: (c,), the mean of D(G(z)) then.
        minimax, non_saturating: (c,), the norm of the generator's gradient under each loss.
    """

    steps: np.ndarray
    d_fake: np.ndarray
    minimax: np.ndarray
    non_saturating: np.ndarray


def gradient_study(
    *, recipe: str = "digits", steps: int = 1000, rule: Rule = Adam(lr=1e-3), seed: int = 0
) -> GradientStudy:
    """Train a recipe's discriminator against its generator as both begin, and measure the generator's gradients.

    Args:
        recipe: the name of one; its networks, data and batch size are taken.
        steps: of the discriminator.
        rule: of the steps; the learning rate falls to a hundredth along half a cosine.
        seed: of networks, data order and noise.

    Raises:
        ValueError: an unknown recipe, or a number out of its range.

    >>> study = gradient_study(recipe="ring8", steps=20)
    >>> study.steps
    array([ 0,  1,  2,  3,  4,  6,  8, 11, 16, 20])

    Source: the paper, section 3; Arjovsky and Bottou 2017, figure 2 (the experiment).
    """
    steps, seed = check_whole(steps, "steps"), check_seed(seed)
    trainer = recipes.get(recipe, seed=seed).build()
    generator, discriminator, config = trainer.generator, trainer.discriminator, trainer.config
    low, high = config.pixel_range if trainer.data.values.dtype == torch.uint8 else (0.0, 1.0)
    real, moments, rows = low + (high - low) * trainer.data.as_float(), _half_octaves(steps), []

    def noise(n: int, stream: int, step: int) -> Tensor:
        size, offset = (n, config.noise_dim), random.offset(stream, step)
        return ops.noise(size, kind=config.noise, seed=seed, offset=offset)

    def samples(t: int) -> tuple[Tensor, Tensor]:
        m = config.batch_size
        order = ops.minibatch_indices(len(real), m, start=t * m, seed=seed, offset=random.offset(random.MINIBATCH))
        with torch.no_grad():
            return real[order], generator(noise(m, random.NOISE_D, t))

    def measure(step: int) -> None:
        if step in moments:
            with torch.no_grad():
                d_fake = discriminator(generator(probes)).sigmoid().mean()
            rows.append((float(d_fake), *gradient_norms(generator, discriminator, probes).values()))

    probes = noise(_PROBES, random.SAMPLE, 0)
    train_discriminator(discriminator, samples, steps, rule=rule, callback=measure)
    columns = dict(zip(("d_fake", *GENERATOR_LOSSES), np.array(rows).T, strict=True))
    return GradientStudy(np.array(moments), **columns)


def _half_octaves(steps: int) -> list[int]:
    """0, whole numbers about √2 apart, and the last step."""
    return sorted({0, steps, *(n for i in range(2 * steps.bit_length()) if (n := round(2 ** (i / 2))) < steps)})
