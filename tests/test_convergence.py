"""What was trained has learnt its data: a Gaussian on the line, eight of them on a circle."""

import math

import pytest
import torch

from pygan import Adam, Trainer, data, recipes
from pygan.diagnostics import mode_statistics
from pygan.nn import MLP


def test_a_gaussian_is_learnt():
    target = data.gaussian(1.0, 0.5, n=10_000)
    torch.manual_seed(0)
    generator = MLP([4, 32, 32, 1])
    discriminator = MLP([1, 32, 32, 1], activation="leaky_relu", slope=0.2)
    rules = (Adam(lr=5e-4), Adam(lr=2e-3))
    trainer = Trainer(generator, discriminator, target, batch_size=256, optimizer=rules)
    history = trainer.run(2000)
    samples = trainer.sample(10_000).flatten().sort().values
    truth = target.values.flatten().sort().values
    # Samples and data in order: the mean distance of the pairs is the Wasserstein distance.
    assert (samples - truth).abs().mean() < 0.1
    assert samples.mean().item() == pytest.approx(1.0, abs=0.1)
    assert samples.std().item() == pytest.approx(0.5, abs=0.1)
    assert history.d_loss[-500:].mean() == pytest.approx(math.log(4), abs=0.01)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_ring_of_eight_is_learnt(seed):
    """At one moment of several: the game goes on, and its path is one of rounding's."""
    trainer = recipes.get("ring8", seed=seed).build()
    trainer.run(4000)
    seen = []
    for _ in range(4):
        trainer.run(500)
        seen.append(mode_statistics(trainer.sample(2500), trainer.data))
    assert any(found.covered == 8 and found.quality > 0.5 and found.reverse_kl < 0.1 for found in seen), seen
