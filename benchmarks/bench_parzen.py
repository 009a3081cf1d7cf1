"""The Parzen window's log-likelihood, against torch.cdist by blocks of rows and scikit-learn's KernelDensity."""

import math

import pytest
import torch

import pygan


def points(n, s):
    """Mostly dark, as digits are."""
    return torch.rand(n, 784).pow(4), torch.rand(s, 784).pow(4)


def by_cdist(x, samples, sigma):
    log_scale = math.log(len(samples)) + 784 * (math.log(sigma) + 0.5 * math.log(2 * math.pi))
    exponents = (torch.cdist(rows, samples).square() / (-2 * sigma**2) for rows in x.split(1000))
    return torch.cat([torch.logsumexp(e, dim=1) for e in exponents]) - log_scale


def by_kernel_density(x, samples, sigma):
    """In one leaf: between the leaves of a tree scikit-learn's bounds lose all digits in so many dimensions."""
    from sklearn.neighbors import KernelDensity

    density = KernelDensity(bandwidth=sigma, leaf_size=len(samples) + 1).fit(samples.cpu().numpy())
    return torch.from_numpy(density.score_samples(x.cpu().numpy()))


@pytest.mark.parametrize(
    ("peer", "n", "s", "sigma"),
    [
        (by_cdist, 1000, 1000, 0.2),
        (by_cdist, 10_000, 10_000, 0.2),
        (by_kernel_density, 100, 10_000, 0.2),
    ],
)
def test_parzen_log_likelihood(compare, peer, n, s, sigma):
    if peer is by_kernel_density:
        pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    x, samples = points(n, s)
    compare(
        f"parzen_log_likelihood {n}x{s}x784, {peer.__name__}",
        lambda: pygan.ops.parzen_log_likelihood(x, samples, sigma=sigma),
        lambda: peer(x, samples, sigma),
        flops=2.0 * n * s * 784,
    )
