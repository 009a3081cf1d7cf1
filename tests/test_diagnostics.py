"""Diagnostics against brute force, and on samples whose answer is known."""

import math

import numpy as np
import pytest
import torch
import torch.overrides

from pygan import data, diagnostics
from pygan.data import Dataset
from pygan.diagnostics import mean_pairwise_distance, mode_statistics, nearest_neighbours, spread

RNG = np.random.default_rng(0)


def distances(x, y):
    """(n, s), each from the difference."""
    return np.sqrt(((x[:, None].astype(np.float64) - y[None]) ** 2).sum(axis=2))


# ---- nearest_neighbours ----


@pytest.mark.parametrize("block", [1, 7, 1024])
@pytest.mark.parametrize(("n", "s", "d"), [(1, 1, 1), (7, 8, 3), (30, 50, 11), (3, 23, 2)])
def test_neighbours_are_those_of_brute_force(monkeypatch, n, s, d, block):
    monkeypatch.setattr(diagnostics, "_BLOCK", block)
    samples, examples = (RNG.normal(size=(rows, d)).astype(np.float32) for rows in (n, s))
    index, distance = nearest_neighbours(torch.from_numpy(samples), examples)
    truth = distances(samples, examples)
    assert index.tolist() == truth.argmin(axis=1).tolist()
    np.testing.assert_allclose(distance, truth.min(axis=1), rtol=1e-12)


def test_bytes_stand_for_the_pixel_range():
    examples = torch.from_numpy(RNG.integers(0, 256, (40, 6), dtype=np.uint8))
    index, distance = nearest_neighbours(examples[:5], examples)
    assert index.tolist() == list(range(5))
    assert distance.tolist() == [0.0] * 5
    samples = examples[5:9].float() / 127.5 - 1
    index, distance = nearest_neighbours(samples, Dataset(examples, image_shape=(2, 3)), pixel_range=(-1, 1))
    assert index.tolist() == [5, 6, 7, 8]
    assert distance.max() < 1e-6
    _, distance = nearest_neighbours(torch.tensor([[0.0, 0.0]]), torch.tensor([[255, 0]], dtype=torch.uint8))
    assert distance.tolist() == [1.0]


def test_a_copy_is_at_distance_zero_and_the_first_of_equals_is_taken():
    examples = torch.rand(20, 784) + 100
    examples[11] = examples[4]
    index, distance = nearest_neighbours(examples[[11, 4]].reshape(2, 28, 28), examples)
    assert index.tolist() == [4, 4]
    assert distance.tolist() == [0.0, 0.0]


def test_float64_keeps_what_float32_cannot_tell_apart():
    examples = np.array([[1e3, 0.0], [1e3 + 1e-9, 0.0], [1e3 + 3e-9, 0.0]])
    for sample in (examples[1:2], torch.from_numpy(examples[1:2])):
        index, distance = nearest_neighbours(sample, examples)
        assert (index.tolist(), distance.tolist()) == ([1], [0.0])
    assert mean_pairwise_distance(examples[:2]) == pytest.approx(1e-9, rel=1e-3)
    assert spread(examples[:2], examples).samples == pytest.approx(1e-9, rel=1e-3)


def test_no_matrix_of_all_distances_is_made():
    samples, examples = torch.rand(2500, 2), torch.rand(2500, 2)
    sizes = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                sizes.append(result.numel())
            return result

    with Watch():
        nearest_neighbours(samples, examples)
        mean_pairwise_distance(examples, rows=2500)
    assert max(sizes) == 1024 * 1024


# ---- mode_statistics ----


def test_exact_data_have_all_modes():
    for name, modes in (("ring8", 8), ("grid25", 25)):
        grid = data.mixture(name)
        found = mode_statistics(data.mixture(name, n=20_000, seed=1).values, grid)
        assert (found.covered, found.modes, found.least_share) == (modes, modes, 0.01)
        # Within 3 standard deviations in the plane: 1 - exp(-9/2) of a Gaussian.
        assert found.quality == pytest.approx(1 - math.exp(-4.5), abs=0.003)
        assert 0 <= found.reverse_kl < 0.005


def test_all_samples_on_one_mode():
    ring = data.mixture("ring8", n=10)
    found = mode_statistics(ring.modes[3].repeat(70, 1), ring)
    assert (found.covered, found.quality) == (1, 1.0)
    assert found.reverse_kl == pytest.approx(math.log(8))


def test_samples_far_from_all_modes_cover_none():
    ring = data.mixture("ring8", n=10)
    found = mode_statistics(ring.modes * 1.05, ring)
    assert (found.covered, found.quality) == (0, 0.0)
    assert found.reverse_kl == pytest.approx(0, abs=1e-7)


def test_statistics_are_those_of_brute_force():
    centres, weights = RNG.normal(size=(5, 3)).astype(np.float32), np.array([0.1, 0.2, 0.3, 0.35, 0.05], np.float32)
    mixture = Dataset(torch.zeros(1, 3), modes=torch.tensor(centres), mode_std=0.3, mode_weights=torch.tensor(weights))
    samples = RNG.normal(size=(200, 3)).astype(np.float32)
    found = mode_statistics(samples, mixture, least_share=0.05)
    all_distances = distances(samples, centres)
    mode, good = all_distances.argmin(axis=1), all_distances.min(axis=1) <= 0.9
    counts = np.array([(mode == j).sum() for j in range(5)]) / 200
    assert found.covered == sum((good & (mode == j)).sum() >= 10 for j in range(5))
    assert found.quality == pytest.approx(good.mean())
    shares = [pair for pair in zip(counts, weights, strict=True) if pair[0] > 0]
    assert found.reverse_kl == pytest.approx(sum(q * math.log(q / w) for q, w in shares))


def test_a_mode_counts_from_its_share_on():
    ring = data.mixture("ring8", n=10)
    samples = ring.modes[[0] * 99 + [1]]
    assert mode_statistics(samples, ring).covered == 2
    assert mode_statistics(samples, ring, least_share=0.011).covered == 1


# ---- distances of pairs ----


@pytest.mark.parametrize("block", [2, 5, 1024])
def test_the_mean_distance_is_that_of_all_pairs(monkeypatch, block):
    monkeypatch.setattr(diagnostics, "_BLOCK", block)
    values = RNG.normal(size=(13, 4)).astype(np.float32)
    pairs = distances(values, values)[np.triu_indices(13, k=1)]
    assert mean_pairwise_distance(values) == pytest.approx(pairs.mean())


def test_of_many_rows_some_are_drawn():
    values = torch.rand(500, 3)
    first = mean_pairwise_distance(values, rows=100)
    assert first == mean_pairwise_distance(values, rows=100)
    assert first != mean_pairwise_distance(values, rows=100, seed=1)
    assert first == pytest.approx(mean_pairwise_distance(values), rel=0.1)


def test_collapse_on_images_is_seen():
    digits = data.digits()
    assert spread(digits.values[:900], digits).ratio == pytest.approx(1, abs=0.02)
    assert spread(digits.values[:1].repeat(50, 1), digits).ratio == pytest.approx(0, abs=1e-9)
    threes = digits.values[digits.labels == 3]
    assert 0.3 < spread(threes, digits).ratio < 0.9


def test_bytes_and_floats_lie_equally_far_apart():
    examples = torch.from_numpy(RNG.integers(0, 256, (30, 6), dtype=np.uint8))
    found = spread(examples.float() / 127.5 - 1, examples, pixel_range=(-1, 1))
    assert found.ratio == pytest.approx(1, abs=1e-6)


# ---- errors and words ----


def test_statistics_are_readable():
    ring = data.mixture("ring8", n=500)
    found = mode_statistics(ring.modes, ring)
    assert repr(found) == "ModeStatistics(8 of 8 modes, 100.0 % good, reverse KL 0.0000)"
    assert repr(diagnostics.Spread(1.0, 2.0)) == "Spread(samples 1.000, data 2.000, ratio 0.50)"
    with pytest.raises(AttributeError, match="cannot assign"):
        found.covered = 3


RING = data.mixture("ring8", n=10)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: nearest_neighbours(torch.zeros(2, 3), torch.zeros(2, 4)),
            ValueError,
            "samples have 3 values a row, but data 4",
        ),
        (
            lambda: nearest_neighbours(torch.zeros(0, 3), torch.zeros(2, 3)),
            ValueError,
            r"samples must have at least one row and one column, got shape \(0, 3\)",
        ),
        (
            lambda: nearest_neighbours(torch.tensor([[1.0], [math.nan]]), torch.zeros(2, 1)),
            ValueError,
            "samples: row 1, column 0 is nan",
        ),
        (lambda: nearest_neighbours([[1.0]], torch.zeros(2, 1)), TypeError, "samples must be a Dataset, .* got list"),
        (
            lambda: nearest_neighbours(torch.zeros(2, 3), torch.zeros(2, 3), pixel_range=(1, 0)),
            ValueError,
            r"pixel_range must be \(low, high\), rising",
        ),
        (lambda: mode_statistics(torch.zeros(2, 2), torch.zeros(2, 2)), TypeError, "data must be a Dataset with modes"),
        (lambda: mode_statistics(torch.zeros(2, 64), data.digits()), ValueError, "data 'digits' has no modes"),
        (lambda: mode_statistics(torch.zeros(2, 3), RING), ValueError, "samples have 3 values a row, but the modes 2"),
        (
            lambda: mode_statistics(torch.zeros(2, 2), RING, least_share=0),
            ValueError,
            "least_share must be above 0 and at most 1, got 0",
        ),
        (lambda: mean_pairwise_distance(torch.zeros(1, 2)), ValueError, "values must be at least 2 rows"),
        (lambda: mean_pairwise_distance(torch.zeros(3, 2), rows=1), ValueError, "rows must be .* at least 2, got 1"),
        (lambda: mean_pairwise_distance(torch.zeros(3, 2), seed=-1), ValueError, "seed must be"),
        (lambda: spread(torch.zeros(3, 2), torch.ones(3, 2)), ValueError, "data must have rows that differ"),
    ],
)
def test_refused_in_a_sentence(call, error, words):
    with pytest.raises(error, match=words):
        call()
