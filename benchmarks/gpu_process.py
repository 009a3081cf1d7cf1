"""Processes with a time limit, whose output is kept, and the file in which their results are."""

import contextlib
import importlib.util
import json
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# The module alone: the package that it is of may not be built yet.
_spec = importlib.util.spec_from_file_location("pygan_files", ROOT / "pygan" / "_files.py")
_files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_files)
replacing = _files.replacing


@dataclass
class Done:
    """How a process ended: its exit code, the end of its output, and what ended it before its own end, if anything."""

    code: int
    seconds: float
    output: str
    ended: str | None = None  # "limit", "stalled"


running: set[subprocess.Popen] = set()


def run(
    command: list[str],
    *,
    seconds: float,
    environ: dict[str, str],
    log: Path,
    stalled: Callable[[], bool] = lambda: False,
) -> Done:
    """Run a command in the root, with its output in `log`, for so many seconds or until it is `stalled`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    start, ended = time.monotonic(), None
    with log.open("ab") as file:
        file.write(f"$ {' '.join(command)}\n".encode())
        file.flush()
        begin = file.tell()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | environ,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        running.add(process)
        try:
            while process.poll() is None:
                if time.monotonic() - start > seconds:
                    ended = "limit"
                elif stalled():
                    ended = "stalled"
                if ended:
                    end(process)
                    break
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
        finally:
            end(process)
            running.discard(process)
    with log.open("rb") as file:
        file.seek(max(begin, log.stat().st_size - 4000))
        output = file.read().decode(errors="replace")
    return Done(process.returncode, time.monotonic() - start, output, ended)


def end(process: subprocess.Popen) -> None:
    """End a process and all that it started."""
    for number, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 30)):  # its children may outlive the first
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)


def plain(value):
    """What JSON has: numbers that are not finite become their names."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


class Results:
    """The file of all results; each is written as it comes, whole or not at all."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        self.content = json.loads(path.read_text()) if path.exists() else {"format": 1, "parts": {}, "calls": []}

    def unit(self, part: str, name: str) -> dict:
        return self.content["parts"].get(part, {}).get(name, {})

    def put(self, part: str, name: str, record: dict) -> None:
        with self._lock:
            self.content["parts"].setdefault(part, {})[name] = plain(record)
            self._write()

    def set(self, **entries) -> None:
        with self._lock:
            self.content |= plain(entries)
            self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(self.content, indent=1, allow_nan=False) + "\n")
