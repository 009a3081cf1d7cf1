"""Minibatch indices: sampling without replacement by a keyed permutation, a new one each epoch."""

import itertools

import pytest
import torch

import pygan
from cases import REJECTED, assert_checked, words
from pygan import reference

POPULATIONS = [1, 2, 3, 5, 16, 17, 100, 1797, 50000]


def indices(population, count, *, start=0, seed=11, offset=2 << 48):
    return pygan.ops.minibatch_indices(population, count, start=start, seed=seed, offset=offset)


@pytest.mark.parametrize("population", POPULATIONS)
def test_each_epoch_is_one_permutation(population):
    for epoch in (0, 1, 7):
        drawn = indices(population, population, start=epoch * population)
        assert torch.equal(drawn.sort().values, torch.arange(population))


@pytest.mark.parametrize("population", [16, 17, 100, 1797, 50000])
def test_epochs_seeds_and_offsets_differ(population):
    first = indices(population, population)
    others = [
        indices(population, population, start=population),
        indices(population, population, seed=12),
        indices(population, population, seed=11 + 2**32),
        indices(population, population, offset=(2 << 48) + 1),
        torch.arange(population),
    ]
    for other in others:
        # Two independent permutations agree in one place on average.
        assert (first == other).sum() <= 10


@pytest.mark.parametrize("population", POPULATIONS)
@pytest.mark.parametrize("batch", [1, 7, 100])
def test_batches_are_windows_of_one_sequence(population, batch):
    sequence = indices(population, 500)
    batches = [indices(population, batch, start=start) for start in range(0, 500 - batch + 1, batch)]
    joined = torch.cat(batches)
    assert torch.equal(joined, sequence[: len(joined)])


@pytest.mark.parametrize("population", POPULATIONS)
@pytest.mark.parametrize("start", [0, 3, 2**33 + 5])
def test_twin(population, start):
    keywords = {"start": start, "seed": -3, "offset": (2 << 48) + 9}
    got = pygan.ops.minibatch_indices(population, 500, **keywords)
    assert got.dtype == torch.int64
    assert got.device.type == "cpu"
    assert torch.equal(got, reference.minibatch_indices(population, 500, **keywords))


@pytest.mark.parametrize("population", [2, 3, 5, 16, 100])
def test_every_index_is_as_likely_at_every_position(population):
    epochs = 40 * population
    table = torch.zeros(population, population, dtype=torch.float64)
    drawn = indices(population, epochs * population)
    table.index_put_((torch.arange(len(drawn)) % population, drawn), torch.ones(()).double(), accumulate=True)
    expected = epochs / population
    # Rows and columns have fixed sums: the factor makes this a chi-square of (n - 1)^2 freedoms.
    chi_square = ((table - expected) ** 2 / expected).sum().item() * (population - 1) / population
    assert_plausible(chi_square, (population - 1) ** 2)


@pytest.mark.parametrize("population", [3, 4, 5, 6])
def test_every_order_is_as_likely(population):
    orders = dict.fromkeys(itertools.permutations(range(population)), 0)
    for row in indices(population, population * 30 * len(orders)).view(-1, population).tolist():
        orders[tuple(row)] += 1
    chi_square = sum((count - 30) ** 2 / 30 for count in orders.values())
    assert_plausible(chi_square, len(orders) - 1)


def assert_plausible(chi_square, freedom):
    """Wilson and Hilferty: the cube root of chi-square per freedom is normal. Four deviations are allowed."""
    spread = (2.0 / (9.0 * freedom)) ** 0.5
    deviations = ((chi_square / freedom) ** (1.0 / 3.0) - (1.0 - 2.0 / (9.0 * freedom))) / spread
    assert abs(deviations) < 4.0


def test_neighbours_in_the_data_do_not_stay_neighbours():
    drawn = indices(50000, 50000).double()
    correlation = torch.corrcoef(torch.stack((drawn[:-1], drawn[1:])))[0, 1]
    assert abs(correlation) < 4.5 / 50000**0.5


def test_nothing_asked_nothing_given():
    assert indices(5, 0).shape == (0,)


def test_opcheck():
    assert_checked(torch.ops.pygan.minibatch_indices.default, (100, 7), {"start": 95, "seed": 1, "offset": 2})


BAD = {
    "population": (lambda: indices(0, 1), ("population", "0")),
    "negative population": (lambda: indices(-4, 1), ("population", "-4")),
    "count": (lambda: indices(5, -1), ("count", "-1")),
    "start": (lambda: indices(5, 1, start=-2), ("start", "-2")),
}


@pytest.mark.parametrize(("call", "named"), BAD.values(), ids=BAD)
def test_bad_input_gets_a_sentence(call, named):
    with pytest.raises(REJECTED, match=words(*named)):
        call()
