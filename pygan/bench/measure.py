"""Timing by turns: on a noisy machine two loops timed one after the other see different machines, pairs do not."""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

import pygan
from pygan.bench import providers as ways
from pygan.bench.workloads import Workload

# Relative, of the losses of an iteration in fp32 and of the change of each parameter. Adam's first step is the
# gradient's sign: where that is a matter of rounding, single elements differ by all of it.
LOSS_TOLERANCE, UPDATE_TOLERANCE = 1e-4, 0.05


@dataclasses.dataclass(frozen=True)
class Row:
    """One provider on one workload: medians over rounds in which all providers took turns.

    `seconds` an iteration; `ratio`: of these to the seconds of `base`'s provider, the median over rounds;
    `share` of the rate of the machine's best square product, measured in the same rounds; `traffic`: bytes that must
    be moved, over the time, as a share of the bandwidth of a copy.
    """

    workload: str
    provider: str
    seconds: float
    ratio: float
    flops: int
    bytes: int
    share: float
    traffic: float

    @property
    def gflops(self) -> float:
        """Of the products alone."""
        return self.flops / self.seconds / 1e9


def machine(device: torch.device) -> dict[str, object]:
    """What a figure depends on."""
    build = pygan.build_info()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return {
        "machine": name,
        "threads": torch.get_num_threads(),
        "kernels": build["cpu_isa"] if device.type == "cpu" else ", ".join(build["archs"]),
        "pygan": pygan.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class Machine:
    """The machine's own rates: a square product by torch, and a copy too large for any cache."""

    def __init__(self, device: torch.device):
        side = 8192 if device.type == "cuda" else 1024
        self._device, self._flops = device, 2 * side**3
        self._a, self._b = (torch.rand(side, side, device=device) for _ in range(2))
        self._out = torch.empty_like(self._a)
        self._from = torch.ones(1 << 25, device=device)
        self._to = torch.zeros_like(self._from)

    def gemm(self) -> float:
        """FLOP/s now."""
        times = 3
        return times * self._flops / timed(lambda: self._multiply(times), self._device)

    def _multiply(self, times: int) -> None:
        for _ in range(times):
            torch.mm(self._a, self._b, out=self._out)

    def bandwidth(self) -> float:
        """Bytes/s read and written now."""
        return 2 * self._from.nbytes / timed(lambda: self._to.copy_(self._from), self._device)


def timed(function: Callable[[], object], device: torch.device) -> float:
    """Seconds that a call takes, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def check(workload: Workload, names: Sequence[str], device: torch.device) -> None:
    """That all providers make the same of one iteration with the same random numbers, but for dropout.

    Raises:
        ArithmeticError: two of them differ.
    """
    workload = workload.without_dropout()
    values = workload.data().to(device)
    inputs, first, expected = ways.Inputs.of(workload, values), names[0], None
    for name in names:
        if name == "eager graph":  # the eager one, captured
            continue
        provider = make(workload, name, values, device)
        before = [_numbers(p) for p in provider.parameters()]
        losses = torch.tensor(provider.step(inputs), dtype=torch.float64)
        changes = [_numbers(p) - q for p, q in zip(provider.parameters(), before, strict=True)]
        expected = expected or [losses, *changes]
        tolerances = [LOSS_TOLERANCE, *[UPDATE_TOLERANCE] * len(changes)]
        for ours, theirs, tolerance in zip([losses, *changes], expected, tolerances, strict=True):
            error = float((ours - theirs).norm() / theirs.norm().clamp_min(1e-12))
            if not error <= tolerance:
                raise ArithmeticError(
                    f"{workload.name}: in one iteration {name} differs from {first} by {error:.1e}, relative"
                )


def base(names: Sequence[str]) -> str:
    """The provider that the others are compared with."""
    return "native" if "native" in names else names[0]


def _numbers(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().double().clone()


def make(workload: Workload, name: str, values: Tensor, device: torch.device):
    """A provider at work on fresh networks, the same for all providers."""
    torch.manual_seed(0)
    networks = (workload.generator.build(device), workload.discriminator.build(device))
    return ways.PROVIDERS[name](workload, networks, values)


def compare(
    workload: Workload, names: Sequence[str], device: torch.device, *, seconds: float, rounds: int = 7
) -> list[Row]:
    """Check providers against each other, then time them by turns.

    Args:
        workload: what to run.
        names: of `providers.PROVIDERS`.
        device: where.
        seconds: for all rounds of a provider, about.
        rounds: turns; the first ones, which compile and warm up, come on top.
    """
    check(workload, names, device)
    values, machine = workload.data().to(device), Machine(device)
    made = {name: make(workload, name, values, device) for name in names}
    counts = {}
    for name, provider in made.items():
        counts[name] = _iterations(provider, device, seconds / rounds)
        provider.run(counts[name])
    times: dict[str, list[float]] = {name: [] for name in names}
    peaks, bandwidths = [], []
    for _ in range(rounds):
        peaks.append(machine.gemm())
        bandwidths.append(machine.bandwidth())
        for name, provider in made.items():
            n = counts[name]
            times[name].append(timed(functools.partial(provider.run, n), device) / n)
    first, peak, bandwidth = times[base(names)], statistics.median(peaks), statistics.median(bandwidths)
    rows = []
    for name in names:
        median = statistics.median(times[name])
        rows.append(
            Row(
                workload.name,
                name,
                median,
                statistics.median(t / f for t, f in zip(times[name], first, strict=True)),
                workload.flops,
                workload.bytes,
                workload.flops / median / peak,
                workload.bytes / median / bandwidth,
            )
        )
    return rows


def _iterations(provider, device: torch.device, seconds: float) -> int:
    """How many iterations take so long, when they are not the first of that number: some compile for each."""
    n = 1
    while True:
        provider.run(n)
        taken = timed(functools.partial(provider.run, n), device)
        if taken >= min(seconds, 0.2) / 4:
            return max(1, round(n * seconds / taken))
        n = max(2 * n, int(n * seconds / 4 / max(taken, 1e-6)))


_MEMORY = """
import resource, sys, torch
from pygan.bench import measure, workloads
name, way, device = sys.argv[1:]
device = torch.device(device)
workload = workloads.get(name)
torch.set_num_threads(int({threads}))
values = workload.data().to(device)
small = measure.make(workloads.WORKLOADS["ring"], way, workloads.WORKLOADS["ring"].data().to(device), device)
small.run(2)
if device.type == "cuda":
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
else:
    before = measure.resident()
measure.make(workload, way, values, device).run(10)
peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else measure.most_resident()
print(peak - before)
"""


def resident() -> int:
    """Bytes of this process in memory now; forgets what it once had."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def most_resident() -> int:
    """The most bytes of this process in memory since `resident`."""
    return _status("VmHWM")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def memory(workload: Workload, name: str, device: torch.device) -> int:
    """Bytes that 10 iterations need above data and libraries, at most, in a process of their own."""
    program = _MEMORY.format(threads=torch.get_num_threads())
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, workload.name, name, str(device)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # the pygan that is running, no other
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise RuntimeError(f"memory of {name} on {workload.name}: {last}")
    return int(done.stdout.split()[-1])
