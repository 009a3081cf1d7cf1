"""The folder of a run: its settings, metrics, pictures and checkpoint.

config.json               the recipe and where it ran
metrics.jsonl             at most about a thousand lines, each the means over as many iterations
checkpoint.safetensors    see `pygan.checkpoint`
samples.png, losses.png   what the generator draws, and the curves
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from pygan.history import STATISTICS, History
from pygan.trainer import Trainer

CHECKPOINT = "checkpoint.safetensors"


def check_vacant(out: Path | None) -> None:
    """That a run may be written to this folder.

    Raises:
        FileExistsError: something is there: runs are never overwritten.
    """
    if out is None or not out.exists():
        return
    if not out.is_dir():
        raise FileExistsError(f"{out} is a file; a run needs a folder of its own")
    if any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; a run is never written over another: choose a new folder")


def create(out: Path | None, recipe: str, *, root: Path = Path("runs")) -> Path:
    """Make the folder `out`, or by default the first free one of runs/<recipe>-1, -2, ...

    Raises:
        FileExistsError: `out` is not empty.
        OSError: it cannot be made.
    """
    if out is not None:
        check_vacant(out)
        out.mkdir(parents=True, exist_ok=True)
        return out
    root.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        try:
            folder = root / f"{recipe}-{number}"
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


class RunFolder:
    """Writes a run down as it goes: hand it the statistics, and at the end the trainer.

    Args:
        path: of an existing empty folder.
        config: plain values for config.json, which is written at once.
        iterations: how many the run will have, which spaces the lines of metrics.jsonl.
    """

    def __init__(self, path: Path, config: dict, iterations: int):
        self.path = path
        self._every = max(1, iterations // 1000)
        self._pending = np.empty((0, len(STATISTICS)))
        self._parts: list[np.ndarray] = []
        self._iteration = 0
        self._start = self._saved = time.monotonic()
        (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        self._metrics = (path / "metrics.jsonl").open("w")

    def add(self, trainer: Trainer, news: History) -> None:
        """Statistics of the iterations since the last call; every minute, a checkpoint too."""
        rows = np.stack([getattr(news, name) for name in STATISTICS], axis=1)
        self._parts.append(rows)
        self._pending = np.concatenate([self._pending, rows])
        while len(self._pending) >= self._every:
            self._write_line(self._pending[: self._every])
            self._pending = self._pending[self._every :]
        self._metrics.flush()
        if time.monotonic() - self._saved > 60:
            self.save(trainer)

    def save(self, trainer: Trainer) -> Path:
        """Write the checkpoint."""
        path = self.path / CHECKPOINT
        trainer.save(path)
        self._saved = time.monotonic()
        return path

    def finish(self, trainer: Trainer) -> list[Path]:
        """The checkpoint first, then the rest of the metrics and the pictures; which files there are now."""
        written = [self.save(trainer)]
        if len(self._pending):
            self._write_line(self._pending)
        self._metrics.close()
        written += [self.path / "metrics.jsonl", self.path / "config.json"]
        history = History(*np.concatenate(self._parts).T) if self._parts else None
        return [*self._pictures(trainer, history), *written]

    def _write_line(self, rows: np.ndarray) -> None:
        self._iteration += len(rows)
        means = {name: float(f"{value:.6g}") for name, value in zip(STATISTICS, rows.mean(axis=0), strict=True)}
        seconds = round(time.monotonic() - self._start, 3)
        self._metrics.write(json.dumps({"iteration": self._iteration, "seconds": seconds, **means}) + "\n")

    def _pictures(self, trainer: Trainer, history: History | None) -> list[Path]:
        from pygan import figures

        written = []
        data, samples = trainer.data, self.path / "samples.png"
        if data.image_shape is not None:
            drawn = trainer.sample(100, step=0).cpu()
            written.append(figures.sample_grid(drawn, data.image_shape, samples, value_range=trainer.value_range))
        elif data.dimension == 2:
            written.append(figures.scatter_2d(trainer.sample(2000, step=0).cpu(), data, samples))
        if history is not None:
            written.append(figures.loss_curves(history, self.path / "losses.png"))
        return written
