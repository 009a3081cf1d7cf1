"""Timing by turns: on a noisy machine two loops timed one after the other see different machines, pairs do not."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

import pygan
from pygan.bench import providers as ways
from pygan.bench.workloads import Workload
from pygan.nn import MLP

# Relative, of the losses of an iteration in fp32 and of the change of each parameter. Adam's first step is the
# gradient's sign: where that is a matter of rounding, single elements differ by all of it.
LOSS_TOLERANCE, UPDATE_TOLERANCE = 1e-4, 0.05
# Of networks and data. TF32 is how a GPU may multiply fp32.
PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
# In these, the relative errors of losses and of changes that are allowed whatever luck eager had: a rounding, and some
# signs of a small network's gradients. None above the last is, however large eager's.
_LEAST_ALLOWED = {"tf32": (2.0**-10, 0.1), "bf16": (torch.finfo(torch.bfloat16).eps, 0.25)}
_MOST_ALLOWED = (0.05, 0.5)


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
    precision: str = "fp32"

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

    def __init__(self, device: torch.device, dtype: torch.dtype = torch.float32):
        cuda = device.type == "cuda"
        side = 8192 if cuda else 1024
        self._device, self._flops = device, 2 * side**3
        self._a, self._b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
        self._out = torch.empty_like(self._a)
        self._from = torch.ones(1 << (28 if cuda else 25), device=device)
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


@contextlib.contextmanager
def multiplying(precision: str) -> Iterator[None]:
    """Inside, torch may multiply fp32 on CUDA in TF32 where `precision` says so, and else not; afterwards as before.

    >>> with multiplying("tf32"):
    ...     torch.get_float32_matmul_precision()
    'high'
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class Check:
    """What an iteration makes of a workload but for dropout, whose bits differ from library to library.

    In fp32 all providers must leave the same losses and the same change of each parameter as `first`. In other
    precisions the truth is eager in fp32 with parameters that are rounded after each step, and the error of no
    provider, of the losses and of the change of each network, may be above twice that of eager in this precision.
    """

    def __init__(self, workload: Workload, first: str, device: torch.device, precision: str = "fp32"):
        self._workload, self._device, self._precision = workload.without_dropout(), device, precision
        self._dtype = PRECISIONS[precision]
        self._values = workload.data().to(device, self._dtype)
        self._inputs = ways.Inputs.of(workload, self._values)
        if precision == "fp32":
            self._first, self._expected = first, self._outcome(first)
            self._allowed = [LOSS_TOLERANCE, *[UPDATE_TOLERANCE] * (len(self._expected) - 1)]
        else:
            self._first = "eager's arithmetic in fp32"
            with multiplying("fp32"):
                self._expected = self._exact()
            own = self._errors(self._outcome("eager"))
            of_losses, of_changes = zip(_LEAST_ALLOWED[precision], _MOST_ALLOWED, strict=True)
            self._allowed = [
                min(max(2 * error, least), most)
                for error, (least, most) in zip(own, (of_losses, of_changes, of_changes), strict=True)
            ]

    def __call__(self, name: str) -> None:
        """That a provider computes it.

        Raises:
            ArithmeticError: it does not.
        """
        for error, allowed in zip(self._errors(self._outcome(name)), self._allowed, strict=True):
            if not error <= allowed:
                raise ArithmeticError(
                    f"{self._workload.name}: in one iteration {name} differs from {self._first} by {error:.1e}, "
                    f"relative; {allowed:.1e} is allowed"
                )

    def _errors(self, outcome: list[Tensor]) -> list[float]:
        pairs = zip(outcome, self._expected, strict=True)
        return [float((ours - theirs).norm() / theirs.norm().clamp_min(1e-12)) for ours, theirs in pairs]

    def _outcome(self, name: str) -> list[Tensor]:
        return self._after_a_step(make(self._workload, name, self._values, self._device), self._inputs)

    def _exact(self) -> list[Tensor]:
        networks, inputs = _networks(self._workload, self._device, torch.float32), self._inputs
        provider = ways.Rounded(self._workload, networks, self._values.float(), self._dtype)
        return self._after_a_step(provider, ways.Inputs(inputs.z_d.float(), inputs.x.float(), inputs.z_g.float()))

    def _after_a_step(self, provider, inputs: ways.Inputs) -> list[Tensor]:
        """Both losses, then the change of each parameter, or in other precisions than fp32 of each network."""
        before = [_numbers(p) for p in provider.parameters()]
        losses = torch.tensor(provider.step(inputs), dtype=torch.float64)
        changes = [_numbers(p) - q for p, q in zip(provider.parameters(), before, strict=True)]
        if self._precision != "fp32":
            n = 2 * (len(self._workload.generator.sizes) - 1)
            changes = [torch.cat([change.flatten() for change in part]) for part in (changes[:n], changes[n:])]
        return [losses, *changes]


def check(workload: Workload, names: Sequence[str], device: torch.device, precision: str = "fp32") -> None:
    """That all providers make the same of one iteration with the same random numbers, as `Check` says.

    Raises:
        ArithmeticError: two of them differ.
    """
    with multiplying(precision):
        one = Check(workload, names[0], device, precision)
        for name in names if precision != "fp32" else names[1:]:
            one(name)


def base(names: Sequence[str]) -> str:
    """The provider that the others are compared with."""
    return "native" if "native" in names else names[0]


def _numbers(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().double().clone()


def make(workload: Workload, name: str, values: Tensor, device: torch.device):
    """A provider at work on fresh networks of the values' dtype, the same for all providers."""
    return ways.PROVIDERS[name](workload, _networks(workload, device, values.dtype), values)


def _networks(workload: Workload, device: torch.device, dtype: torch.dtype) -> tuple[MLP, MLP]:
    torch.manual_seed(0)
    return tuple(network.build(device).to(dtype) for network in (workload.generator, workload.discriminator))


def compare(
    workload: Workload,
    names: Sequence[str],
    device: torch.device,
    *,
    seconds: float,
    rounds: int = 7,
    precision: str = "fp32",
    failures: dict[str, str] | None = None,
    doing: Callable[[str], object] = lambda name: None,
) -> list[Row]:
    """Check providers against each other, then time them by turns.

    Args:
        workload: what to run.
        names: of `providers.PROVIDERS`.
        device: where.
        seconds: for all rounds of a provider, about.
        rounds: turns; the first ones, which compile and warm up, come on top.
        precision: of `PRECISIONS`.
        failures: where given, a provider that fails before the rounds is left out of them, and why is put here.
        doing: told the name of the provider that is run next.

    Raises:
        ArithmeticError: a provider does not compute what it should, and `failures` is None.
    """
    if {"compile", "reduce-overhead"} & set(names):
        torch.compiler.reset()  # after a few workloads torch would stop compiling, and run what it was given
    with multiplying(precision):
        made, counts = _made(workload, names, device, seconds / rounds, precision, failures, doing)
        times: dict[str, list[float]] = {name: [] for name in made}
        machine, peaks, bandwidths = Machine(device, PRECISIONS[precision]), [], []
        machine.gemm(), machine.bandwidth()  # the first ones set libraries up
        for _ in range(rounds if made else 0):
            peaks.append(machine.gemm())
            bandwidths.append(machine.bandwidth())
            for name, provider in made.items():
                doing(name)
                n = counts[name]
                times[name].append(timed(functools.partial(provider.run, n), device) / n)
    return _rows(workload, times, peaks, bandwidths, precision)


def _made(workload, names, device, seconds, precision, failures, doing) -> tuple[dict[str, object], dict[str, int]]:
    """Providers that have been checked and warmed up, and how many iterations each runs in so many seconds."""
    values = workload.data().to(device, PRECISIONS[precision])
    first = "eager" if failures is not None and "eager" in names else names[0]
    doing(first)
    one = Check(workload, first, device, precision)
    made, counts = {}, {}
    for name in names:
        doing(name)
        try:
            one(name)
            provider = make(workload, name, values, device)
            counts[name] = _iterations(provider, device, seconds)
            provider.run(counts[name])
        except Exception as error:
            if failures is None:
                raise
            failures[name] = f"{type(error).__name__}: {error}"
        else:
            made[name] = provider
    return made, counts


def _rows(workload: Workload, times: dict[str, list[float]], peaks, bandwidths, precision: str) -> list[Row]:
    if not times:
        return []
    first, peak, bandwidth = times[base(list(times))], statistics.median(peaks), statistics.median(bandwidths)
    moved = workload.bytes * PRECISIONS[precision].itemsize // 4
    rows = []
    for name, taken in times.items():
        median = statistics.median(taken)
        rows.append(
            Row(
                workload.name,
                name,
                median,
                statistics.median(t / f for t, f in zip(taken, first, strict=True)),
                workload.flops,
                moved,
                workload.flops / median / peak,
                moved / median / bandwidth,
                precision,
            )
        )
    return rows


def _iterations(provider, device: torch.device, seconds: float) -> int:
    """How many iterations take so long, when they are not the first of that number: some compile for each."""
    n = 1
    for _ in range(2):  # CUDA graphs of torch.compile are recorded in the second
        provider.run(n)
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
