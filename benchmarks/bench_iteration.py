"""A whole iteration of Algorithm 1: both of pygan's engines against the loop everybody writes.

`pygan bench` compares with torch.compile and JAX too, and draws scaling curves.
"""

import pytest
import torch

from pygan.bench import measure, workloads

PROVIDERS = ("native", "composed", "eager")


@pytest.mark.parametrize("name", workloads.DEFAULT)
def test_iteration(name, benchmark, iterations, device):
    torch.set_default_device(None)
    workload = workloads.get(name)
    measure.check(workload, PROVIDERS, device)
    native = measure.make(workload, "native", workload.data().to(device), device)
    if benchmark.disabled:
        benchmark(native.run, 1)
        return
    rows = measure.compare(workload, PROVIDERS, device, seconds=2.0)
    iterations.extend(rows)
    benchmark.extra_info |= {row.provider: vars(row) for row in rows} | measure.machine(device)
    benchmark.pedantic(native.run, args=(max(1, round(0.05 / rows[0].seconds)),), rounds=20, warmup_rounds=2)
