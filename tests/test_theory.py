"""Section 4 of the paper, statement by statement, on densities that are known."""

import fractions
import itertools
import math
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

import pygan
from pygan import theory
from pygan.nn import MLP
from pygan.theory import Mixture, gaussian

LOG2, LOG4 = math.log(2), math.log(4)

ROUND = Mixture([[1.5, 0.0], [-0.75, 1.3], [-0.75, -1.3]], 0.5)
PAIRS = {
    "two Gaussians": (gaussian(0, 1), gaussian(1, 1)),
    "narrow and wide": (gaussian(0, 0.01), gaussian(3, 2)),
    "far apart": (gaussian(-100, 1), gaussian(100, 1)),
    "mixtures": (Mixture([-1, 2, 5], [0.1, 1, 0.02], [0.5, 0.3, 0.2]), Mixture([-2, 2], 0.5)),
    "equal": (gaussian(1, 2), gaussian(1, 2)),
    "in the plane": (ROUND, Mixture([[0.0, 0.0]], 1.2)),
    "vectors": ([0.5, 0.25, 0.25, 0.0], [0.1, 0.2, 0.7, 0.0]),
    "vectors that part": ([0.5, 0.5, 0.0], [0.0, 0.4, 0.6]),
}
EVERY_PAIR = pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
QUADRATURE = 1e-11  # a hundred times what doubling the nodes changes


def on_a_grid(p, low=-15.0, high=15.0, n=300_001):
    """A density on the line at points so near that sums are integrals to 1e-9: another way to the same numbers."""
    x = np.linspace(low, high, n)
    return x, p.pdf(x) * (x[1] - x[0])


# ---- densities ----


def test_a_mixture_is_what_torch_says():
    p = Mixture([[0.0, 1.0], [2.0, -1.0]], [0.5, 1.5], [0.3, 0.7])
    x = torch.randn(50, 2, dtype=torch.float64)
    means, stds, weights = (torch.tensor(part, dtype=torch.float64) for part in (p.means, p.stds, p.weights))
    modes = torch.distributions.Independent(torch.distributions.Normal(means, stds[:, None]), 1)
    expected = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(weights), modes)
    np.testing.assert_allclose(p.log_pdf(x), expected.log_prob(x), rtol=1e-12)
    np.testing.assert_allclose(p.pdf(x.tolist()), expected.log_prob(x).exp(), rtol=1e-12)


def test_samples_follow_the_density():
    p = Mixture([-1.0, 2.0], [0.2, 0.7], [0.25, 0.75])
    x = p.sample(200_000, seed=3)
    assert x.shape == (200_000, 1)
    grid, mass = on_a_grid(p)
    for quantile in (0.05, 0.2, 0.3, 0.5, 0.9):
        # Five standard errors of the share of samples below a point.
        point = grid[np.searchsorted(mass.cumsum(), quantile)]
        assert (x < point).mean() == pytest.approx(quantile, abs=5 * math.sqrt(quantile / len(x)))
    np.testing.assert_array_equal(x, p.sample(200_000, seed=3))
    assert not np.array_equal(x, p.sample(200_000, seed=4))


def test_a_data_set_of_known_modes_has_a_density():
    p = Mixture.of(pygan.data.mixture("grid25", n=10))
    assert (len(p.means), p.dimension, set(p.stds)) == (25, 2, {0.05})
    assert p == Mixture.of(pygan.data.mixture("grid25", n=20, seed=1))
    with pytest.raises(ValueError, match="digits: its density is not known, it has no modes"):
        Mixture.of(pygan.data.digits())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Mixture([], 1), r"means must be k numbers or k pairs, k at least 1, got shape \(0,\)"),
        (lambda: Mixture([[0, 0, 0]], 1), r"means must be .* got shape \(1, 3\)"),
        (lambda: Mixture([math.nan], 1), "means must be finite, got"),
        (lambda: Mixture(["a"], 1), "means must be numbers, got"),
        (lambda: Mixture([0, 1], 0), "stds must be a finite number above 0, or 2 of them, got 0"),
        (lambda: Mixture([0, 1], [1, 1, 1]), "stds must be"),
        (lambda: Mixture([0, 1], 1, [0.5, 0.6]), r"weights must be 2 numbers above 0 with sum 1, got \[0.5, 0.6\]"),
        (lambda: gaussian(0, -1), "std must be a finite number above 0, got -1"),
        (lambda: gaussian(math.inf, 1), "mean must be a finite number, got inf"),
        (lambda: gaussian(0, 1).sample(0), "n must be a whole number of at least 1, got 0"),
        (lambda: gaussian(0, 1).pdf(np.zeros((3, 2))), r"x must be \(n, 1\) or \(n,\), got shape \(3, 2\)"),
        (lambda: ROUND.pdf(np.zeros(3)), r"x must be \(n, 2\), got shape \(3,\)"),
    ],
)
def test_densities_refuse_in_a_sentence(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# ---- divergences ----


@pytest.mark.parametrize(("m", "s", "n", "t"), [(0, 1, 1, 1), (0, 1, 1.5, 0.3), (-3, 2, 4, 0.5), (0, 0.01, 0, 5)])
def test_kl_of_gaussians_has_a_closed_form(m, s, n, t):
    expected = math.log(t / s) + (s**2 + (m - n) ** 2) / (2 * t**2) - 0.5
    assert theory.kl(gaussian(m, s), gaussian(n, t)) == pytest.approx(expected, rel=1e-11)


def test_kl_of_round_gaussians_in_the_plane_has_a_closed_form():
    p, q = Mixture([[0.0, 1.0]], 0.7), Mixture([[1.0, -1.0]], 1.3)
    expected = 2 * math.log(1.3 / 0.7) + (2 * 0.7**2 + 5) / (2 * 1.3**2) - 1
    assert theory.kl(p, q) == pytest.approx(expected, rel=1e-11)


def test_divergences_agree_with_plain_sums_on_a_fine_grid():
    p, q = Mixture([-1, 2], [0.3, 1], [0.6, 0.4]), gaussian(0.5, 1.5)
    (_, p_mass), (_, q_mass) = on_a_grid(p), on_a_grid(q)
    m = (p_mass + q_mass) / 2
    halves = [np.sum(np.where(mass > 0, mass * np.log(np.maximum(mass, 1e-300) / m), 0)) for mass in (p_mass, q_mass)]
    assert theory.jsd(p, q) == pytest.approx(sum(halves) / 2, abs=1e-9)


def test_scipy_knows_the_same_vectors():
    from scipy.spatial.distance import jensenshannon
    from scipy.special import rel_entr

    p, q = PAIRS["vectors"]
    assert theory.jsd(p, q) == pytest.approx(jensenshannon(p, q) ** 2, abs=1e-15)
    assert theory.kl(p, q) == pytest.approx(rel_entr(p, q).sum(), abs=1e-15)


@EVERY_PAIR
def test_jsd_is_symmetric_bounded_and_mixes_the_two_kl(pair):
    p, q = pair
    jsd = theory.jsd(p, q)
    assert jsd == pytest.approx(theory.jsd(q, p), abs=QUADRATURE)
    assert -QUADRATURE <= jsd <= LOG2 + QUADRATURE
    # KL(p ‖ m) <= KL(p ‖ q) / 2, by convexity: a mixture's divergence is no more than its parts'.
    assert jsd <= (theory.kl(p, q) + theory.kl(q, p)) / 4 + QUADRATURE


def test_jsd_is_0_only_for_equal_densities_and_log_2_for_those_that_never_meet():
    assert theory.jsd(*PAIRS["equal"]) == pytest.approx(0, abs=1e-15)
    assert theory.jsd(gaussian(0, 1), gaussian(1e-3, 1)) == pytest.approx(1e-6 / 8, rel=1e-4)  # its second order
    assert theory.jsd(*PAIRS["far apart"]) == pytest.approx(LOG2, abs=1e-13)
    assert theory.jsd([1, 0], [0, 1]) == LOG2


def test_kl_punishes_missing_modes_or_stray_samples_and_jsd_stands_between():
    data = Mixture([-4.0, 4.0], 0.5)
    one_mode, everything = gaussian(4, 0.5), gaussian(0, math.sqrt(16.25))
    # Maximum likelihood covers all modes, the other direction picks one; each by far.
    assert theory.kl(data, everything) < 0.1 * theory.kl(data, one_mode)
    assert theory.kl(one_mode, data) == pytest.approx(LOG2, abs=1e-9)
    assert theory.kl(one_mode, data) < theory.kl(everything, data)
    assert 0.5 < theory.jsd(data, one_mode) / theory.jsd(data, everything) < 2


def test_kl_is_infinite_where_data_has_no_samples():
    assert theory.kl([0.5, 0.5], [1.0, 0.0]) == math.inf
    assert theory.kl([1.0, 0.0], [0.5, 0.5]) == pytest.approx(LOG2)


# ---- proposition 1: the best D ----


@EVERY_PAIR
def test_no_discriminator_is_worth_more_than_the_optimal_one(pair):
    p, q = pair
    best = theory.criterion(p, q)
    if isinstance(p, Mixture):

        def optimal(x):
            return theory.optimal_logit(p, q, x)

        changes = [lambda x: x[:, 0] / 9, lambda x: -torch.sin(x).sum(1), lambda x: torch.ones(len(x))]
        others = [lambda x, c=change, s=size: optimal(x) + s * c(x).numpy() for change in changes for size in (1e-2, 1)]
        others.append(lambda x: torch.zeros(len(x), 1))
    else:
        optimal = theory.optimal_logit(p, q)
        changes = np.random.default_rng(0).standard_normal((5, len(p)))
        others = [np.nan_to_num(optimal, nan=0) + size * change for change in changes for size in (1e-2, 1)]
    assert theory.value(optimal, p, q) == pytest.approx(best, abs=1e-15)
    for other in others:
        assert theory.value(other, p, q) < best + QUADRATURE
    if isinstance(p, Mixture):  # V falls off by the variance of the change to second order: it is a maximum
        drops = [best - theory.value(lambda x, s=s: optimal(x) + s, p, q) for s in (0.02, 0.01)]
        assert drops[1] == pytest.approx(drops[0] / 4, rel=0.05, abs=QUADRATURE)


def test_the_optimal_discriminator_is_the_ratio_of_the_densities():
    p, q = PAIRS["mixtures"]
    x = np.linspace(-3, 6, 200)
    expected = p.pdf(x) / (p.pdf(x) + q.pdf(x))
    np.testing.assert_allclose(theory.optimal_discriminator(p, q, x), expected, rtol=1e-12)
    np.testing.assert_allclose(theory.optimal_discriminator(p, q, torch.tensor(x)), expected, rtol=1e-12)


def test_the_optimal_discriminator_where_densities_underflow():
    p, q = gaussian(-100, 1), gaussian(100, 1)
    assert p.pdf([100.0]) == 0
    np.testing.assert_array_equal(theory.optimal_discriminator(p, q, [-1e3, 0.0, 1e3]), [1, 0.5, 0])
    assert theory.optimal_logit(p, q, [-1e3]) == pytest.approx(2e5)


@pytest.mark.parametrize(
    ("pair", "max_error", "mean_error", "gap"),
    [
        ("two Gaussians", 0.03, 0.01, 1e-3),
        ((gaussian(0, 1), gaussian(2, 0.5)), 0.08, 0.01, 4e-3),
        ("in the plane", 0.25, 0.02, 6e-3),
    ],
)
def test_a_trained_discriminator_comes_to_the_optimal_one_and_its_value_to_c_from_below(
    pair, max_error, mean_error, gap
):
    p, q = PAIRS[pair] if isinstance(pair, str) else pair
    fit = theory.fit_discriminator(p, q)
    assert fit.max_error < max_error
    assert fit.mean_error < mean_error
    assert (fit.values <= fit.criterion + QUADRATURE).all()
    assert 0 <= fit.gap < gap
    assert fit.gap < 0.05 * (fit.criterion - fit.values[0])
    assert fit.steps[0] == 0
    assert fit.steps[-1] == 2000
    # Theorem 1's estimate of the divergence from logits alone, on samples that D has not seen. 5 standard errors.
    real, fake = (torch.from_numpy(density.sample(50_000, seed=9)).float() for density in (p, q))
    with torch.no_grad():
        estimate = theory.jsd_from_logits(fit.discriminator(real), fit.discriminator(fake))
    assert estimate == pytest.approx(theory.jsd(p, q) - fit.gap / 2, abs=5 * 0.5 * 2 / math.sqrt(50_000))


def test_a_fit_follows_its_seed():
    settings = {"hidden": [8], "steps": 5, "batch_size": 16}
    first, second, other = (theory.fit_discriminator(*PAIRS["equal"], seed=s, **settings) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.values, second.values)
    assert first.values[0] != other.values[0]
    assert first.steps.tolist() == [0, 1, 2, 4, 5]


# ---- theorem 1: C ----


@EVERY_PAIR
def test_c_is_minus_log_4_and_twice_the_divergence(pair):
    c = theory.criterion(*pair)
    assert c == pytest.approx(-LOG4 + 2 * theory.jsd(*pair), abs=QUADRATURE)
    assert -LOG4 - QUADRATURE <= c <= QUADRATURE


def test_c_is_minus_log_4_only_where_the_densities_are_equal():
    assert theory.criterion(*PAIRS["equal"]) == pytest.approx(-LOG4, abs=1e-14)
    for name, pair in PAIRS.items():
        if name != "equal":
            assert theory.criterion(*pair) > -LOG4 + 0.01, name


def test_at_equilibrium_d_is_a_half_and_the_losses_are_log_4_and_log_2():
    p = PAIRS["equal"][0]
    np.testing.assert_array_equal(theory.optimal_discriminator(p, p, np.linspace(-9, 9, 50)), 0.5)
    logits = torch.from_numpy(theory.optimal_logit(p, p, np.linspace(-9, 9, 50)))
    assert pygan.losses.DiscriminatorLoss()(logits, logits).item() == pytest.approx(LOG4, abs=1e-14)
    assert pygan.losses.GeneratorLoss()(logits).item() == pytest.approx(LOG2, abs=1e-14)


def test_the_value_of_a_network_is_minus_its_loss():
    p, q = PAIRS["two Gaussians"]
    discriminator = MLP([1, 16, 1], activation="tanh")
    real, fake = (torch.from_numpy(density.sample(200_000)).float() for density in (p, q))
    with torch.no_grad():
        loss = pygan.losses.DiscriminatorLoss()(discriminator(real), discriminator(fake)).item()
    # The logits' deviation is below 1: five standard errors.
    assert theory.value(discriminator, p, q) == pytest.approx(-loss, abs=5 * 2 / math.sqrt(200_000))
    assert theory.value(discriminator, p, q) < theory.criterion(p, q)


# ---- proposition 2: descent on p_g ----

K = 20
RANDOM = np.random.default_rng(5).dirichlet(np.ones(K), size=12)


def test_c_is_convex_in_p_g():
    data = RANDOM[0]
    for p, q in itertools.pairwise(RANDOM[1:]):
        for share in (0.1, 0.5, 0.8):
            between = theory.criterion(data, share * p + (1 - share) * q)
            chord = share * theory.criterion(data, p) + (1 - share) * theory.criterion(data, q)
            assert between < chord


def test_the_gradient_of_c_is_that_of_v_at_the_optimal_discriminator():
    data, p, towards = RANDOM[:3]
    slope = theory.criterion_gradient(data, p) @ (towards - p)
    h = 1e-6
    ends = [theory.criterion(data, p + sign * h * (towards - p)) for sign in (1, -1)]
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * h), abs=1e-8)
    np.testing.assert_allclose(theory.criterion_gradient(data, p), np.log(p / (data + p)), rtol=1e-12)


@pytest.mark.parametrize("step", [0.1, 0.5, 1.0])
def test_descent_on_p_g_converges_to_the_data(step):
    data, start = RANDOM[:2]
    path = theory.descend(data, start, step=step, steps=400)
    assert path.p_g.shape == (401, K)
    np.testing.assert_allclose(path.p_g.sum(axis=1), 1, rtol=1e-12)
    assert (np.diff(path.criterion) < 1e-15).all(), "every step descends"
    above = path.criterion + LOG4
    assert (above[1:] <= theory.kl(data, start) / (step * np.arange(1, 401))).all(), "the rate that is promised"
    # Near the end the gradient is half of the distance: an error falls by the factor 1 - step / 2.
    assert np.abs(path.p_g[-1] - data).max() < max(1e-12, 10 * (1 - step / 2) ** 400)
    assert above[-1] == pytest.approx(0, abs=1e-13)


def test_descent_takes_away_mass_where_no_data_is():
    path = theory.descend([0.5, 0.5, 0.0], [0.1, 0.2, 0.7], steps=200)
    np.testing.assert_allclose(path.p_g[-1], [0.5, 0.5, 0], atol=1e-12)
    both = theory.descend([0.5, 0.5, 0.0], [0.3, 0.7, 0.0], steps=200)
    np.testing.assert_allclose(both.p_g[-1], [0.5, 0.5, 0], atol=1e-12)


# ---- the generator's gradients ----


@pytest.mark.parametrize(("kind", "limit"), [("minimax", 0.0), ("non_saturating", -1.0)])
def test_the_gradient_as_d_rejects(kind, limit):
    logits = np.linspace(-40, 40, 401)
    values, gradient = theory.generator_gradient(logits, kind)
    d = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(gradient, -d if kind == "minimax" else -1 / (1 + np.exp(logits)), rtol=1e-12)
    np.testing.assert_allclose(np.gradient(values, logits)[1:-1], gradient[1:-1], atol=2e-3)
    assert gradient[0] == pytest.approx(limit, abs=1e-17)
    assert (gradient < 0).all(), "either loss asks for a larger D(G(z))"


def test_both_losses_have_one_gradient_where_d_is_a_half():
    assert theory.generator_gradient([0.0], "minimax")[1] == theory.generator_gradient([0.0])[1] == -0.5


def test_minimax_starves_a_real_generator_as_its_discriminator_learns():
    study = theory.gradient_study(recipe="digits", steps=400)
    assert study.steps[0] == 0
    assert study.steps[-1] == 400
    assert study.d_fake[0] == pytest.approx(0.5, abs=0.1)
    assert study.minimax[0] == pytest.approx(study.non_saturating[0], rel=0.2), "they begin equal"
    assert study.d_fake[-1] < 5e-3
    assert study.minimax[-1] < 0.02
    assert study.non_saturating[-1] > 1
    # The minimax gradient is of the order of D(G(z)) times the other.
    ratio = study.minimax / study.non_saturating / study.d_fake
    assert (ratio[study.d_fake < 0.1] < 3).all()


def test_norms_are_those_of_backward():
    generator, discriminator, z = MLP([2, 5, 3]), MLP([3, 5, 1]), torch.randn(7, 2)
    norms = theory.gradient_norms(generator, discriminator, z)
    for kind, norm in norms.items():
        generator.zero_grad()
        pygan.losses.GeneratorLoss(kind)(discriminator(generator(z))).backward()
        assert norm == pytest.approx(torch.cat([p.grad.flatten() for p in generator.parameters()]).norm().item())


# ---- what is refused ----


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: theory.jsd(gaussian(0, 1), ROUND), "p and q must have one dimension, got 1 and 2"),
        (lambda: theory.criterion(gaussian(0, 1), [1.0]), "p_data is a Mixture and the other is not: both must be"),
        (lambda: theory.kl([0.5, 0.5], [1.0]), "p and q must have one length, got 2 and 1 probabilities"),
        (lambda: theory.kl([0.5, 0.6], [1.0, 0]), "p must be a Mixture, or a vector of probabilities"),
        (lambda: theory.kl([1.5, -0.5], [1.0, 0]), "p must be a Mixture, or a vector of probabilities"),
        (lambda: theory.kl([0.5, 0.5], "ab"), "q must be numbers, got 'ab'"),
        (lambda: theory.optimal_discriminator(gaussian(0, 1), gaussian(0, 1)), "x must be given"),
        (lambda: theory.optimal_logit([1.0], [1.0], [0.0]), "x must be left out for vectors"),
        (lambda: theory.value(3, gaussian(0, 1), gaussian(0, 1)), "d must be a module or a function of x, got int"),
        (lambda: theory.value([1.0], [0.5, 0.5], [1, 0]), r"d must be 2 logits, .* got shape \(1,\)"),
        (
            lambda: theory.value(lambda x: x[:2], *PAIRS["equal"]),
            r"d must give a logit for each of .* got shape \(2, 1",
        ),
        (lambda: theory.jsd_from_logits([], [0.0]), r"real_logits must hold at least one logit, got shape \(0,\)"),
        (lambda: theory.fit_discriminator([1.0], [1.0]), "p_data and p_g must be Mixtures"),
        (lambda: theory.fit_discriminator(*PAIRS["equal"], steps=0), "steps must be a whole number of at least 1"),
        (lambda: theory.descend(gaussian(0, 1), gaussian(0, 1)), "p_data and p_g must be vectors"),
        (lambda: theory.descend([0.5, 0.5], [1, 0]), "p_g must be above 0 wherever p_data is"),
        (lambda: theory.descend([1.0], [1.0], step=1.5), r"step must be in \(0, 1\], got 1.5"),
        (lambda: theory.generator_gradient([0.0], "minmax"), "kind must be .* did you mean 'minimax'"),
        (lambda: theory.gradient_study(recipe="ring9"), "recipe must be one of .* did you mean 'ring8'"),
    ],
)
def test_wrong_arguments_get_a_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()


LINEAR, EXAMPLES = torch.nn.Linear(1, 1), (torch.zeros(2, 1), torch.ones(2, 1))
WRONG = {"words": "abc", "None": None, "list": [None], "complex": 1j, "object": object()}


@pytest.mark.parametrize(
    "wrong", ["abc", None, [None], 1j, object()], ids=["words", "None", "list", "complex", "object"]
)
@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda wrong: theory.Mixture(wrong, 1.0), "means"),
        (lambda wrong: theory.Mixture.of(wrong), "data"),
        (lambda wrong: gaussian(0, 1).log_pdf(wrong), "x"),
        (lambda wrong: theory.kl(wrong, [1.0]), "p"),
        (lambda wrong: theory.jsd_from_logits([0.0], wrong), "fake_logits"),
        (lambda wrong: theory.value(wrong, [1.0], [1.0]), "d"),
        (lambda wrong: theory.value(lambda _: wrong, gaussian(0, 1), gaussian(0, 1)), r"d\(x\)"),
        (lambda wrong: theory.generator_gradient(wrong), "logits"),
        (lambda wrong: theory.gradient_norms(wrong, LINEAR, EXAMPLES[0]), "generator"),
        (lambda wrong: theory.gradient_norms(LINEAR, wrong, EXAMPLES[0]), "discriminator"),
        (lambda wrong: theory.gradient_norms(LINEAR, LINEAR, wrong), "z"),
        (lambda wrong: theory.fit_discriminator(*PAIRS["equal"], hidden=wrong), "hidden"),
        (lambda wrong: theory.train_discriminator(wrong, lambda _: EXAMPLES, 1), "discriminator"),
        (lambda wrong: theory.train_discriminator(LINEAR, wrong, 1), "samples"),
        (lambda wrong: theory.train_discriminator(LINEAR, lambda _: wrong, 1), "samples"),
        (lambda wrong: theory.train_discriminator(LINEAR, lambda _: EXAMPLES, 1, callback=wrong or 1), "callback"),
        (lambda wrong: theory.descend([1.0], wrong), "p_g"),
    ],
)
def test_wrong_types_get_a_sentence_that_names_the_argument(call, argument, wrong):
    with pytest.raises((TypeError, ValueError), match=rf"^{argument} must (be|give) [^\n]*$"):
        call(wrong)


def test_numbers_may_come_as_objects():
    half = fractions.Fraction(1, 2)
    assert theory.jsd([half, half], [torch.tensor(0.5), torch.tensor(0.5)]) == 0


def test_it_is_there_without_being_asked_for_at_import():
    code = (
        "import pygan, sys; assert 'pygan.theory' not in sys.modules; "
        "assert pygan.theory.jsd([1, 0], [1, 0]) == 0; assert 'scipy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
    with pytest.raises(AttributeError, match="module 'pygan' has no attribute 'theorem'"):
        pygan.theorem  # noqa: B018


def test_the_examples_of_the_documentation_say_what_they_give():
    page = pathlib.Path(__file__).parents[1] / "docs" / "theory.md"
    block = re.search(r"```python\n(.*?)```", page.read_text(), re.DOTALL)[1]
    names = {}
    exec(block, names)
    p_data, p_g = names["p_data"], names["p_g"]
    assert round(theory.criterion(p_data, p_g), 4) == -1.1635
    assert round(theory.jsd(p_data, p_g), 4) == 0.1114
    for written in ("C(G) = -1.1635", "0.1114, 0.5, 0.5"):
        assert written in block
