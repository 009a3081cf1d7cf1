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
    from sklearn.neighbors import KernelDensity

    return torch.from_numpy(KernelDensity(bandwidth=sigma).fit(samples.numpy()).score_samples(x.numpy()))


@pytest.mark.parametrize(
    ("peer", "n", "s", "sigma"),
    [
        (by_cdist, 1000, 1000, 0.2),
        (by_cdist, 10_000, 10_000, 0.2),
        # At smaller widths KernelDensity's trees lose all digits in so many dimensions.
        (by_kernel_density, 200, 10_000, 1.0),
    ],
)
def test_parzen_log_likelihood(compare, peer, n, s, sigma):
    x, samples = points(n, s)
    compare(
        f"parzen_log_likelihood {n}x{s}x784, {peer.__name__}",
        lambda: pygan.ops.parzen_log_likelihood(x, samples, sigma=sigma),
        lambda: peer(x, samples, sigma),
        flops=2.0 * n * s * 784,
    )
