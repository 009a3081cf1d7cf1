"""What the examples share: data, the options, and the comparison of a run without and with `pygan.fuse`."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import nn

import pygan

Networks = tuple[nn.Module, nn.Module]
Step = Callable[[], tuple[torch.Tensor, torch.Tensor]]
_ROUND = 5  # steps that a run takes before the other has its turn


def images(low: float = -1.0, high: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """The handwritten digits of scikit-learn at MNIST's size, (1797, 1, 28, 28) in [low, high], and their labels."""
    digits = pygan.data.digits()
    small = digits.as_float().view(-1, 1, 8, 8)
    large = nn.functional.interpolate(small, size=(28, 28), mode="bilinear", align_corners=False)
    return large * (high - low) + low, digits.labels


def batches(*tensors: torch.Tensor, size: int, seed: int = 0) -> Iterator[list[torch.Tensor]]:
    """Minibatches for ever, drawn with replacement: any size will do."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        rows = torch.randint(len(tensors[0]), (size,), generator=generator)
        yield [tensor[rows] for tensor in tensors]


def main(about: str, make: Callable[[], Networks], start: Callable[[Networks, int, bool], Step]) -> None:
    """Run an example from the command line.

    Args:
        about: its docstring.
        make: builds generator and discriminator.
        start: from the networks, the batch size, and whether pygan is used, a function that takes one training step
            and returns both losses.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fuse", action="store_true", help="train a second time with pygan, and compare")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=64)
    arguments = parser.parse_args()
    if arguments.steps < 1 or arguments.batch_size < 2:
        parser.error("--steps must be at least 1 and --batch-size at least 2 (batch norm takes statistics)")

    runs = [_Run(make, start, arguments.batch_size, fused) for fused in ((False, True) if arguments.fuse else (False,))]
    done = 0
    while done < arguments.steps:  # by turns, so that both see the same machine
        count = min(_ROUND, arguments.steps - done)
        for run in runs:
            run.take(count)
        done += count
    for run in runs:
        print(run)
    if arguments.fuse:
        plain, fused = runs
        ratio = statistics.median(a / b for a, b in zip(plain.times, fused.times, strict=True))
        print(f"with pygan {ratio:.2f} times as fast; largest difference of a loss {plain.difference(fused):.1e}")


class _Run:
    """Training with a random state of its own."""

    def __init__(self, make: Callable[[], Networks], start: Callable, batch_size: int, fused: bool):
        torch.manual_seed(0)
        networks = make()
        if fused:
            networks = tuple(pygan.fuse(network) for network in networks)
        self._step = start(networks, batch_size, fused)
        self._fused, self._batch_size = fused, batch_size
        self._random = torch.get_rng_state()
        self.times: list[float] = []
        self.losses: list[torch.Tensor] = []

    def take(self, count: int) -> None:
        torch.set_rng_state(self._random)
        begin = time.perf_counter()
        self.losses += [torch.stack(self._step()) for _ in range(count)]
        self.times.append((time.perf_counter() - begin) / count)
        self._random = torch.get_rng_state()

    def difference(self, other: _Run) -> float:
        return (torch.stack(self.losses) - torch.stack(other.losses)).abs().max().item()

    def __str__(self) -> str:
        d_loss, g_loss = self.losses[-1].tolist()
        name = "pygan" if self._fused else "torch"
        return (
            f"{name}: {1e3 * statistics.median(self.times):.2f} ms a step of {self._batch_size}; "
            f"last losses D {d_loss:.4f}, G {g_loss:.4f}"
        )
