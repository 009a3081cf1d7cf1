"""Two ways to compute the same thing, checked against each other, then timed by turns.

On a noisy machine two loops timed one after the other see different machines: pairs do not.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pygan.bench.measure import timed

PAIRS = 60
WARM_UP = 5
SECONDS = 30.0  # for the pairs of a slow comparison, of which there are at least FEWEST
FEWEST = 5
ON_A_GPU = 2e-3  # seconds that calls fill which are timed as one: waiting for a GPU takes longer than most ops


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Seconds of ours and of the baseline (medians), and the median of the ratios of the pairs."""

    name: str
    ours: float
    baseline: float
    ratio: float
    flops: float

    @classmethod
    def measure(
        cls, name, ours, baseline, flops: float, tolerance: float, *, device: torch.device, quick: bool
    ) -> Comparison:
        check(name, ours(), baseline(), tolerance)
        pairs = [(seconds(ours, device), seconds(baseline, device))]
        if not quick:
            calls = [1 if device.type == "cpu" else calls_of(function, device) for function in (ours, baseline)]
            taken = sum(n * took for n, took in zip(calls, pairs[0], strict=True))
            count = int(min(WARM_UP + PAIRS, max(1 + FEWEST, SECONDS / taken)))
            pairs += [(seconds(ours, device, calls[0]), seconds(baseline, device, calls[1])) for _ in range(count - 1)]
            pairs = pairs[min(WARM_UP, count - FEWEST) :]
        return cls(
            name,
            statistics.median(a for a, _ in pairs),
            statistics.median(b for _, b in pairs),
            statistics.median(b / a for a, b in pairs),
            flops,
        )

    def extra_info(self) -> dict[str, float | str]:
        info = dataclasses.asdict(self) | {"torch": torch.__version__, "threads": torch.get_num_threads()}
        return info | {"gflops": self.flops / self.ours / 1e9}

    def __str__(self):
        rate = f"{self.flops / self.ours / 1e9:8.1f} GFLOP/s" if self.flops else " " * 16
        return (
            f"{self.name:<58} ours {self.ours * 1e6:9.1f} us {rate}   eager {self.baseline * 1e6:9.1f} us"
            f"   {self.ratio:5.2f}x"
        )


def seconds(function: Callable[[], object], device: torch.device, calls: int = 1) -> float:
    """Of a call, the device's work included; of many in a row, one's share."""

    def several():
        for _ in range(calls):
            function()

    return timed(several, device) / calls


def calls_of(function: Callable[[], object], device: torch.device) -> int:
    """How many calls fill `ON_A_GPU` seconds."""
    calls = 1
    while (taken := calls * seconds(function, device, calls)) < ON_A_GPU:
        calls = max(2 * calls, int(calls * ON_A_GPU / taken))
    return calls


def check(name: str, ours: Tensor | Sequence[Tensor], baseline: Tensor | Sequence[Tensor], tolerance: float) -> None:
    """Relative Frobenius distance of every output."""
    ours, baseline = ([x] if isinstance(x, Tensor) else list(x) for x in (ours, baseline))
    assert len(ours) == len(baseline), name
    for a, b in zip(ours, baseline, strict=True):
        a, b = a.double().cpu(), b.double().cpu()
        distance = (a - b).norm() / b.norm().clamp_min(1e-30)
        assert distance <= tolerance, f"{name}: outputs differ by {distance:.1e}, relative"
