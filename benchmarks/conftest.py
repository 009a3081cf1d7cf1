"""What every benchmark shares: a seed, and a table of ratios at the end of the run."""

import platform

import pytest
import torch

import pygan
from harness import Comparison
from pygan.bench.measure import Row
from pygan.bench.report import table

_comparisons: list[Comparison] = []
_iterations: list[Row] = []


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def compare(benchmark):
    """Checks that ours and the baseline agree, times them by turns, then lets pytest-benchmark time ours."""

    def run(name, ours, baseline, *, flops=0.0, tolerance=1e-4):
        comparison = Comparison.measure(name, ours, baseline, flops, tolerance, quick=benchmark.disabled)
        _comparisons.append(comparison)
        benchmark.extra_info |= comparison.extra_info()
        slow = benchmark.disabled or comparison.ours > 0.5
        benchmark.pedantic(ours, rounds=1 if slow else 20, iterations=1, warmup_rounds=0 if slow else 2)

    return run


@pytest.fixture
def iterations():
    """Rows of whole iterations, for the table at the end."""
    return _iterations


def pytest_terminal_summary(terminalreporter):
    if _iterations:
        terminalreporter.section("whole iterations, medians of rounds in which providers took turns")
        terminalreporter.write_line(table(_iterations))
    if not _comparisons:
        return
    info = pygan.build_info()
    terminalreporter.section("pygan against eager PyTorch, medians of interleaved pairs")
    terminalreporter.write_line(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, {info['cpu_isa']}, "
        f"torch {torch.__version__}"
    )
    for comparison in _comparisons:
        terminalreporter.write_line(str(comparison))
