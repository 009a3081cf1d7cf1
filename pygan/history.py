"""What a run leaves behind: its statistics, and the error that ends one which diverged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False, repr=False)
class History:
    """Statistics of consecutive iterations, each from the iteration's last discriminator step.

    Args:
        d_loss: (n,), the discriminator's loss, mean over real plus mean over generated examples (whatever
            factor the update puts before it); log 4 where neither wins.
        g_loss: (n,), the generator's loss; log 2 (non-saturating) or -log 2 (minimax) where neither wins.
        d_real: (n,), the mean of D(x), in [0, 1].
        d_fake: (n,), the mean of D(G(z)), in [0, 1].
        first: the number of the first of these iterations, counted from 0.

    >>> History(*np.zeros((4, 3)), first=100)
    History(3 iterations from 100: d_loss 0, g_loss 0, d_real 0, d_fake 0)
    """

    d_loss: np.ndarray
    g_loss: np.ndarray
    d_real: np.ndarray
    d_fake: np.ndarray
    first: int = 0

    def __len__(self) -> int:
        return len(self.d_loss)

    @property
    def iteration(self) -> np.ndarray:
        """(n,), the numbers of the iterations, counted from 1 as people count."""
        return np.arange(self.first + 1, self.first + 1 + len(self))

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {getattr(self, name)[-1]:.4g}" for name in STATISTICS) if len(self) else "none"
        return f"History({len(self)} iterations from {self.first}: {last})"


STATISTICS = tuple(field.name for field in fields(History))[:4]
_UNFETCHED = 4096  # iterations whose statistics the device holds at most


class DivergenceError(ArithmeticError):
    """A loss stopped being a finite number.

    Attributes:
        iteration: the first iteration with such a loss, counted from 0.
        values: its statistics by name.
        restored: the iteration whose state, the last good one kept, was put back; None if none was kept.
    """

    def __init__(self, iteration: int, values: dict[str, float], before: dict[str, float] | None, restored: int | None):
        self.iteration, self.values, self.restored = iteration, values, restored
        past = f" (the iteration before: {_written(before)})" if before else ""
        state = "no earlier state was kept" if restored is None else f"the state of iteration {restored} was put back"
        super().__init__(
            f"training diverged at iteration {iteration}: {_written(values)}{past}; {state}; "
            "a lower learning rate may help"
        )


def _written(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


class Recorder:
    """Collects statistics on the device and fetches them now and then, so that no iteration waits for one.

    Args:
        first: the number of the first iteration.
        like: a tensor whose device and dtype the statistics have.
        interval: seconds between fetches.
    """

    def __init__(self, first: int, like: Tensor, interval: float = 0.2):
        self._rows = torch.zeros(_UNFETCHED, len(STATISTICS), device=like.device, dtype=like.dtype)
        self._fetched = [np.empty((0, len(STATISTICS)))]
        self._first, self._interval = first, interval
        self._written = self._seen = 0
        self._last_fetch = time.monotonic()

    def write(self, statistics: Sequence[Tensor]) -> None:
        """Keep the four numbers of the next iteration, tensors without dimensions; there is room while not `due`."""
        torch.stack(list(statistics), out=self._rows[self._written])
        self._written += 1

    def due(self) -> bool:
        """Whether it is time to fetch."""
        return self._written == len(self._rows) or time.monotonic() - self._last_fetch >= self._interval

    def fetch(self) -> tuple[History, int | None]:
        """What was written since the last fetch, and the number of the first iteration that is not finite."""
        news = self._rows[: self._written].cpu().double().numpy().copy()
        self._written = 0
        return self.add(news)

    def add(self, news: np.ndarray) -> tuple[History, int | None]:
        """Keep the numbers of the next iterations, (n, 4), as if they had been fetched."""
        first = self._first + self._seen
        self._fetched.append(news)
        self._seen += len(news)
        self._last_fetch = time.monotonic()
        bad = np.flatnonzero(~np.isfinite(news).all(axis=1))
        return History(*news.T.copy(), first=first), first + int(bad[0]) if len(bad) else None

    def at(self, iteration: int) -> dict[str, float] | None:
        """The fetched statistics of one iteration by name, or None if it was not in this run."""
        if iteration < self._first:
            return None
        return {name: float(getattr(self.history(), name)[iteration - self._first]) for name in STATISTICS}

    def history(self) -> History:
        """All that was fetched."""
        return History(*np.concatenate(self._fetched).T.copy(), first=self._first)
