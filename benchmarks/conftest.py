"""What every benchmark shares: a device, a seed, and a table of ratios at the end of the run."""

import platform

import pytest
import torch

import pygan
from harness import Comparison, seconds
from pygan.bench.measure import Row
from pygan.bench.report import table

_comparisons: list[Comparison] = []
_iterations: list[Row] = []


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="where benchmarks run: cpu or cuda")


@pytest.fixture
def device(request):
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(autouse=True)
def seeded(device):
    """A seed, and tensors that a benchmark makes on its device."""
    torch.manual_seed(0)
    if device.type != "cpu":
        torch.set_default_device(device)
    yield
    torch.set_default_device(None)


@pytest.fixture
def compare(benchmark, device):
    """Checks that ours and the baseline agree, times them by turns, then lets pytest-benchmark time ours."""

    def run(name, ours, baseline, *, flops=0.0, tolerance=1e-4):
        torch.set_default_device(None)  # it would cost every call of torch's some time
        comparison = Comparison.measure(name, ours, baseline, flops, tolerance, device=device, quick=benchmark.disabled)
        _comparisons.append(comparison)
        benchmark.extra_info |= comparison.extra_info()
        slow = benchmark.disabled or comparison.ours > 0.5
        benchmark.pedantic(
            lambda: seconds(ours, device), rounds=1 if slow else 20, iterations=1, warmup_rounds=0 if slow else 2
        )

    return run


@pytest.fixture
def iterations():
    """Rows of whole iterations, for the table at the end."""
    return _iterations


def pytest_terminal_summary(terminalreporter, config):
    if _iterations:
        terminalreporter.section("whole iterations, medians of rounds in which providers took turns")
        terminalreporter.write_line(table(_iterations))
    if not _comparisons:
        return
    info, device = pygan.build_info(), torch.device(config.getoption("--device"))
    terminalreporter.section("pygan against eager PyTorch, medians of interleaved pairs")
    terminalreporter.write_line(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, {info['cpu_isa']}, "
        f"torch {torch.__version__}" + (f", on {torch.cuda.get_device_name(device)}" if device.type == "cuda" else "")
    )
    for comparison in _comparisons:
        terminalreporter.write_line(str(comparison))
