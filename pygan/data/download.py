"""Brings a file from the first mirror that has it: resumed where it stopped, checked, put in place whole."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

_CHUNK = 1 << 16


class DownloadError(OSError):
    """No mirror gave the file.

    Args:
        message: what failed.
        failures: (url, reason) of each mirror tried.
    """

    def __init__(self, message: str, failures: Sequence[tuple[str, str]] = ()):
        super().__init__(message)
        self.failures = list(failures)


def download(urls: Sequence[str], path: Path, md5: str, *, timeout: float = 20.0) -> Path:
    """Downloads to `path` from the first of `urls` whose content has the checksum.

    What has arrived stays in `path` + ".part" when the connection or the program ends, and the next mirror or
    the next call goes on from there. Processes that want the same folder wait for each other.

    Args:
        urls: mirrors of the same file, the preferred one first.
        path: where it goes; its folder is made if need be.
        md5: the file's checksum, in hexadecimal.
        timeout: seconds without an answer after which a mirror is given up.

    Returns:
        path, which did not exist or was brought meanwhile by another process.

    Raises:
        DownloadError: every mirror failed; `failures` says how.
        OSError: the folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    failures = []
    with locked(path.parent / ".lock"):
        if path.exists():
            return path
        for url in urls:
            try:
                resumed = _fetch(url, part, timeout)
                if resumed and _md5(part) != md5:
                    # What was there before may be at fault: this mirror gets a second try from the start.
                    part.unlink()
                    _fetch(url, part, timeout)
            except (_MirrorError, http.client.HTTPException, OSError) as error:
                failures.append((url, _reason(error)))
                continue
            found = _md5(part)
            if found == md5:
                os.replace(part, path)
                return path
            part.unlink()
            failures.append((url, f"wrong checksum: expected {md5}, got {found}"))
    raise DownloadError(f"{path.name} could not be downloaded from {len(urls)} mirrors", failures)


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", error)
    return str(getattr(cause, "strerror", None) or cause) or type(cause).__name__


class _MirrorError(Exception):
    """A mirror answered, but not with the file."""


def _fetch(url: str, part: Path, timeout: float) -> bool:
    """Completes `part` from `url`. Returns whether it went on from bytes that were there before."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "pygan"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # nothing after what we have: it may be whole
            return True
        raise _MirrorError(f"HTTP {error.code} {error.reason}") from None
    with response:
        resumed = response.status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise _MirrorError("answered with another range than the one asked for")
        done = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length and length.isdigit() else None
        with open(part, "ab" if resumed else "wb") as file, _Progress(part.stem, total) as progress:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                progress.show(done)
    if total is not None and done < total:
        raise _MirrorError(f"the connection ended after {done} of {total} bytes")
    return resumed


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an advisory lock, where the system has one: two writers would garble a shared .part file."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(path, "w") as file:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Progress:
    """One line on standard error: live on a terminal, once at the end elsewhere."""

    def __init__(self, name: str, total: int | None):
        self.name, self.total = name, total
        self.live = sys.stderr.isatty()
        self.start = self.shown = time.monotonic()
        self.first = self.done = None

    def __enter__(self) -> Self:
        return self

    def show(self, done: int) -> None:
        self.done = done
        self.first = done if self.first is None else self.first
        if self.live and time.monotonic() - self.shown > 0.1:
            self.shown = time.monotonic()
            print(f"\r{self._line()}", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_) -> None:
        if self.done is not None:
            print(f"\r{self._line()}" if self.live else self._line(), file=sys.stderr, flush=True)

    def _line(self) -> str:
        rate = (self.done - self.first) / max(time.monotonic() - self.start, 1e-3)
        of = f" of {self.total / 1e6:.1f} MB  {self.done / self.total:4.0%}" if self.total else " MB"
        return f"downloading {self.name}  {self.done / 1e6:.1f}{of}  {rate / 1e6:.1f} MB/s "
