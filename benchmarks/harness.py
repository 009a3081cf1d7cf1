"""Two ways to compute the same thing, checked against each other, then timed by turns.

On a noisy machine two loops timed one after the other see different machines: pairs do not.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

PAIRS = 60
WARM_UP = 5
SECONDS = 30.0  # for the pairs of a slow comparison, of which there are at least FEWEST
FEWEST = 5


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Seconds of ours and of the baseline (medians), and the median of the ratios of the pairs."""

    name: str
    ours: float
    baseline: float
    ratio: float
    flops: float

    @classmethod
    def measure(cls, name, ours, baseline, flops: float, tolerance: float, *, quick: bool) -> Comparison:
        check(name, ours(), baseline(), tolerance)
        pairs = [(seconds(ours), seconds(baseline))]
        if not quick:
            count = int(min(WARM_UP + PAIRS, max(1 + FEWEST, SECONDS / sum(pairs[0]))))
            pairs += [(seconds(ours), seconds(baseline)) for _ in range(count - 1)]
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


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def check(name: str, ours: Tensor | Sequence[Tensor], baseline: Tensor | Sequence[Tensor], tolerance: float) -> None:
    """Relative Frobenius distance of every output."""
    ours, baseline = ([x] if isinstance(x, Tensor) else list(x) for x in (ours, baseline))
    assert len(ours) == len(baseline), name
    for a, b in zip(ours, baseline, strict=True):
        distance = (a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-30)
        assert distance <= tolerance, f"{name}: outputs differ by {distance:.1e}, relative"
