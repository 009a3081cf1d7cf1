"""The folder of a run: its settings, metrics, pictures and checkpoint.

config.json               the recipe, its data and where it ran
metrics.jsonl             about a thousand lines at most, each the means over as many iterations (at most 10,000)
checkpoint.safetensors    see `pygan.checkpoint`
best.safetensors          the same where the log-likelihood was highest, of runs whose data have a validation set
samples.png               what the generator draws, where the data are images or points in the plane
losses.png                the curves
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pygan import checkpoint, data
from pygan._files import naming, replacing
from pygan._names import check_number, check_whole
from pygan.data import Dataset
from pygan.evaluation import Tracker
from pygan.history import STATISTICS, History
from pygan.recipe import Recipe
from pygan.trainer import Trainer

CHECKPOINT, BEST, CONFIG, METRICS = "checkpoint.safetensors", "best.safetensors", "config.json", "metrics.jsonl"
SAMPLES, LOSSES = "samples.png", "losses.png"


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


def data_source(source: str) -> str:
    """A data set's name as it is, or the whole path of its file, which another working directory leaves true.

    >>> data_source("mnist:test")
    'mnist:test'
    """
    return source if source.partition(":")[0] in data.names() else str(Path(source).expanduser().absolute())


def read_config(run: Path) -> dict:
    """What config.json of a run says.

    Raises:
        FileNotFoundError: `run` is no folder of a run.
        ValueError: the file is damaged.
    """
    path = run / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"no run at {run}: there is no {CONFIG} in it")
    try:
        config = json.loads(path.read_text())
        if isinstance(config["data"], str) and isinstance(config["recipe"]["iterations"], int):
            return config
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__} {error}") from error
    raise ValueError(f"{path} is damaged: data must be a string and the recipe's iterations a whole number")


def checkpoint_of(run: Path) -> Path:
    """The checkpoint in the folder of a run; another path is a checkpoint's own."""
    return run / CHECKPOINT if run.is_dir() else run


def best_file(run: Path) -> str:
    """The name of a run's checkpoint where its log-likelihood was highest; the last one, where none was measured."""
    return BEST if (run / BEST).exists() else CHECKPOINT


def load_data(config: dict, rows: int) -> Dataset:
    """The data set that a run of this config, and of so many rows, was trained on."""
    recipe, loaded = Recipe.from_dict(config["recipe"]), data.load(config["data"])
    return recipe.prepare(loaded.subset(slice(0, rows)) if rows == recipe.rows else loaded)


def load_examples(run: Path, header: dict, path: Path) -> Dataset:
    """The data set of a run, which the checkpoint at `path`, of this header, was trained on.

    Raises:
        CheckpointError: config.json and the checkpoint are of different runs.
    """
    examples = load_data(read_config(run), header["data"]["rows"])
    checkpoint.check_data(header, examples, path)
    return examples


def load_validation(config: dict) -> Dataset | None:
    """The validation set of a run's data, if there is one here."""
    try:
        return Recipe.from_dict(config["recipe"]).load_validation(config["data"])
    except (ValueError, OSError):
        return None


def resume(
    run: Path, *, engine: str | None = None, device: str | None = None, file: str = CHECKPOINT
) -> tuple[Trainer, dict]:
    """The trainer of a run where its checkpoint stands, and the run's config.

    Args:
        run: the folder.
        engine: in place of the run's.
        device: in place of the run's.
        file: the checkpoint's name.

    Raises:
        FileNotFoundError: no run, no checkpoint, or no data where they were.
        ValueError: a file is damaged, or files that do not fit one another.
    """
    config, path = read_config(run), run / file
    header, _ = checkpoint.read(path)
    examples = load_data(config, header["data"]["rows"])
    trainer = checkpoint.resume(path, examples, engine=engine, device=device or config.get("device"))
    for name, value in header["config"].items():
        if name != "engine" and config["recipe"].get(name) != value:
            said = config["recipe"].get(name)
            raise ValueError(f"{path} is of another run: its {name} is {value}, but {CONFIG} says {said}")
    return trainer, config


class RunFolder:
    """Writes a run down as it goes: hand it the statistics, and at the end the trainer.

    Args:
        path: of an existing folder: an empty one, or that of the run to continue.
        config: plain values for config.json, which is written at once.
        iterations: how many the run will have, which spaces the lines of metrics.jsonl.
        first: the iterations done before, whose metrics are kept.
        validation: to follow the log-likelihood on, at intervals; None where the data have no such set.
    """

    def __init__(self, path: Path, config: dict, iterations: int, *, first: int = 0, validation: Dataset | None = None):
        self.path = path
        self._made: list[Path] | None = None
        self._every = min(max(1, iterations // 1000), 10_000)
        self._pending = np.empty((0, len(STATISTICS)))
        self._iteration = first
        lines = list(_metrics(path / METRICS, first))
        self._parts = [_rows(lines, first)]
        best = max((line.get("log_likelihood", -math.inf) for line in lines), default=-math.inf)
        self.tracker = None if validation is None else Tracker(validation, best=best)
        self._likelihood: dict[str, float] = {}  # measured, not yet in a line
        self._saved = time.monotonic()
        self._start = self._saved - (lines[-1]["seconds"] if lines else 0.0)
        with replacing(path / CONFIG) as temporary:
            temporary.write_text(json.dumps(config, indent=2) + "\n")
        with replacing(path / METRICS) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
        self._metrics = (path / METRICS).open("a")

    @classmethod
    def create(
        cls,
        out: Path | None,
        config: dict,
        iterations: int,
        *,
        root: Path = Path("runs"),
        validation: Dataset | None = None,
    ) -> RunFolder:
        """In the folder `out`, or by default the first free one of runs/<recipe>-1, -2, ...

        Raises:
            FileExistsError: `out` is not empty.
            OSError: it cannot be made, or written to.
        """
        path, made = _make(out, config["recipe"]["name"], root)
        try:
            folder = cls(path, config, iterations, validation=validation)
        except BaseException:
            _remove(path, made)
            raise
        folder._made = made
        return folder

    def discard(self) -> None:
        """Remove a new run that never began, with the folders that were made for it; one that was continued stays."""
        if self._made is not None:
            self._metrics.close()
            _remove(self.path, self._made)

    def add(self, trainer: Trainer, news: History) -> None:
        """Statistics of the iterations since the last call; now and then the log-likelihood, or a checkpoint."""
        self._follow(trainer)
        rows = np.stack([getattr(news, name) for name in STATISTICS], axis=1)
        self._parts.append(rows)
        self._pending = np.concatenate([self._pending, rows])
        while len(self._pending) >= self._every:
            self._write_line(self._pending[: self._every])
            self._pending = self._pending[self._every :]
        with naming(self.path / METRICS):
            self._metrics.flush()
        if time.monotonic() - self._saved > 60:
            self.save(trainer)

    def likelihood_in_words(self) -> str:
        """The last log-likelihood and the best, for a line of progress; empty before there is one."""
        if self.tracker is None or self.tracker.last is None:
            return ""
        return f"LL {self.tracker.last['log_likelihood']:.1f} (best {self.tracker.best:.1f})  "

    def _follow(self, trainer: Trainer, *, now: bool = False) -> None:
        if self.tracker is not None and self.tracker.follow(trainer, lambda: self._save_best(trainer), now=now):
            self._likelihood = self.tracker.last or {}

    def _save_best(self, trainer: Trainer) -> None:
        trainer.save(self.path / BEST, overwrite=True)

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint."""
        self._saved = time.monotonic()
        trainer.save(self.path / CHECKPOINT)

    def finish(self, trainer: Trainer) -> tuple[list[str], dict[str, Exception]]:
        """Write the checkpoint, the rest of the metrics and the pictures, whatever becomes of the others.

        Returns:
            The names of the files that are there now, and what kept the others from being written.
        """
        written, failed = [CONFIG], {}
        try:
            self._follow(trainer, now=True)
        except Exception as error:
            failed[BEST] = error
        for name, write in self._last_files(trainer).items():
            try:
                write()
                written.append(name)
            except Exception as error:
                failed[name] = error
        if (self.path / BEST).exists():
            written.append(BEST)
        return sorted(written, key=(SAMPLES, LOSSES, METRICS, CONFIG, CHECKPOINT, BEST).index), failed

    def _last_files(self, trainer: Trainer) -> dict[str, Callable[[], object]]:
        files = {CHECKPOINT: lambda: self.save(trainer), METRICS: self._close_metrics}
        history = History(*np.concatenate(self._parts).T)
        if trainer.data.image_shape is not None or trainer.data.dimension == 2:
            files[SAMPLES] = lambda: self._draw_samples(trainer)
        if len(history):
            files[LOSSES] = lambda: self._draw_losses(history)
        return files

    def _write_line(self, rows: np.ndarray) -> None:
        self._iteration += len(rows)
        means = {name: float(f"{value:.6g}") for name, value in zip(STATISTICS, rows.mean(axis=0), strict=True)}
        seconds = round(time.monotonic() - self._start, 3)
        line = {"iteration": self._iteration, "seconds": seconds, **means, **self._likelihood}
        self._metrics.write(json.dumps(line) + "\n")
        self._likelihood = {}

    def _close_metrics(self) -> None:
        with naming(self.path / METRICS):
            if len(self._pending):
                self._write_line(self._pending)
            self._metrics.close()

    def _draw_samples(self, trainer: Trainer) -> None:
        from pygan import figures

        examples, path = trainer.data, self.path / SAMPLES
        if examples.image_shape is None:
            figures.scatter_2d(trainer.sample(2000, step=0), examples, path)
        else:
            samples = trainer.sample(100, step=0)
            figures.sample_grid(samples, examples.image_shape, path, value_range=trainer.value_range)

    def _draw_losses(self, history: History) -> None:
        from pygan import figures

        figures.loss_curves(history, self.path / LOSSES)


def _make(out: Path | None, recipe: str, root: Path) -> tuple[Path, list[Path]]:
    """The folder of a new run, and all folders that were made for it, the innermost first."""
    check_vacant(out)
    base = root if out is None else out
    made = [folder for folder in (base, *base.parents) if not folder.exists()]
    base.mkdir(parents=True, exist_ok=True)
    if out is not None:
        return out, made
    for number in itertools.count(1):
        with contextlib.suppress(FileExistsError):
            (root / f"{recipe}-{number}").mkdir()
            return root / f"{recipe}-{number}", [root / f"{recipe}-{number}", *made]


def _remove(path: Path, made: Sequence[Path]) -> None:
    for name in (CONFIG, METRICS):
        (path / name).unlink(missing_ok=True)
    for folder in made:
        with contextlib.suppress(OSError):  # of someone else's, it is not empty
            folder.rmdir()


def _metrics(path: Path, stop: int) -> Iterator[dict]:
    """The lines of a metrics.jsonl up to iteration `stop`; the last may not have been written to its end."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    for number, text in enumerate(lines, 1):
        try:
            line = json.loads(text)
            check_whole(line["iteration"], "iteration")
            for name in ("seconds", *STATISTICS, *(name for name in ("log_likelihood",) if name in line)):
                check_number(line[name], name, "finite", math.isfinite)
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                return
            raise ValueError(f"{path} is damaged at line {number}: {error}; mend it, or take it away") from error
        if line["iteration"] > stop:
            return
        yield line


def _rows(lines: Sequence[dict], count: int) -> np.ndarray:
    """(count, 4): for each iteration the means that its line holds, NaN where there is no line."""
    rows, start = np.full((count, len(STATISTICS)), np.nan), 0
    for line in lines:
        rows[start : line["iteration"]] = [line[name] for name in STATISTICS]
        start = line["iteration"]
    return rows
