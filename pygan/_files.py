"""Files that appear whole or not at all, and errors that name them."""

from __future__ import annotations

import contextlib
import contextvars
import os
import re
from collections.abc import Iterator
from pathlib import Path

# Inside `together`, what waits for its place: the temporary file and the path of each.
_waiting: contextvars.ContextVar[list[tuple[Path, Path]] | None] = contextvars.ContextVar("waiting", default=None)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, which takes its place if all goes well and else leaves nothing.

    Temporary files that killed processes left beside it are removed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "words") as temporary:
    ...         _ = temporary.write_text("whole")
    ...     os.listdir(folder)
    ['words']
    """
    check_place(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with naming(path):
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            if (waiting := _waiting.get()) is not None:
                if (temporary, path) not in waiting:
                    waiting.append((temporary, path))
                return
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    _remove_leftovers(path)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """All files that `replacing` writes inside appear at the end, or none of them. One in another is part of that.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with contextlib.suppress(KeyboardInterrupt), together():
    ...         with replacing(Path(folder) / "words") as temporary:
    ...             _ = temporary.write_text("whole")
    ...         raise KeyboardInterrupt
    ...     os.listdir(folder)
    []
    """
    if _waiting.get() is not None:
        yield
        return
    waiting: list[tuple[Path, Path]] = []
    token = _waiting.set(waiting)
    try:
        yield
        from pygan.running import interrupts_deferred  # here: this module alone serves where pygan is not built

        with interrupts_deferred():
            while waiting:
                temporary, path = waiting[0]
                with naming(path):
                    os.replace(temporary, path)
                del waiting[0]
                _remove_leftovers(path)
    finally:
        _waiting.reset(token)
        for temporary, _ in waiting:
            with contextlib.suppress(OSError):
                temporary.unlink()


def check_place(path: Path) -> None:
    """That a file may be written there, as far as can be said before; else an OSError of one sentence."""
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: its folder does not exist")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"cannot write {path}: its folder is read-only")


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of writing inside name `path`: the system's own name no file, or a temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise OSError(f"cannot write {path}: {error}") from error
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def _remove_leftovers(path: Path) -> None:
    for other in path.parent.glob(".*"):
        match = re.fullmatch(rf"\.{re.escape(path.name)}\.(\d+)", other.name)
        if match and not _is_running(int(match.group(1))):
            with contextlib.suppress(OSError):
                other.unlink()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
