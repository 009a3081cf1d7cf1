"""What a person sees while a run trains: one live line in a terminal, else a plain line now and then."""

from __future__ import annotations

import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

from pygan.history import History

_PLAIN_SECONDS = 5.0


class Progress:
    """A context manager; call it with the number of iterations done and the statistics since the last call.

    Args:
        total: the iterations of the run.
        console: where to write; a live line needs a terminal.
        first: the iterations done before, in a run that is continued.
    """

    def __init__(self, total: int, console: Console, first: int = 0):
        self._total, self._console, self._first = total, console, first
        self._live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None
        self._start = self._printed = time.monotonic()

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, done: int, news: History, likelihood: str = "") -> None:
        """Show how far the run is, and how likely its samples make held-out data where that is known."""
        now = time.monotonic()
        line = describe(done, self._total, now - self._start, news, self._first, likelihood)
        if self._live:
            self._live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)
        elif done == self._total or now - self._printed >= _PLAIN_SECONDS:
            self._console.print(line, soft_wrap=True, highlight=False)
            self._printed = now


def describe(done: int, total: int, seconds: float, news: History, first: int = 0, likelihood: str = "") -> str:
    """The line: iteration, iterations a second, losses, D(x), D(G(z)), the likelihood in words, time left.

    The seconds are those since iteration `first`.

    >>> import numpy as np
    >>> describe(500, 2000, 2.0, History(*np.full((4, 10), 0.5)))
    ' 500/2000  250 it/s  D loss 0.500  G loss 0.500  D(x) 0.50  D(G(z)) 0.50  0:06 left'
    """
    rate = (done - first) / seconds if seconds > 0 else 0.0
    left = round((total - done) / rate) if rate else 0
    hours, minutes = divmod(left // 60, 60)
    clock = f"{hours}:{minutes:02}:{left % 60:02}" if hours else f"{minutes}:{left % 60:02}"
    return (
        f"{done:>{len(str(total))}}/{total}  {rate:.{0 if rate >= 10 else 1}f} it/s  "
        f"D loss {news.d_loss.mean():.3f}  G loss {news.g_loss.mean():.3f}  "
        f"D(x) {news.d_real.mean():.2f}  D(G(z)) {news.d_fake.mean():.2f}  {likelihood}{clock} left"
    )
