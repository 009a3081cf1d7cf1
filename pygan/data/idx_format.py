"""The idx format of MNIST and its kin: a big-endian header (type, rank, sizes), then values in C order."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"


def idx(path: str | os.PathLike) -> np.ndarray:
    """Reads an idx file, plain or compressed by gzip, of any of its dtypes and any rank.

    Args:
        path: the file. Compression is known by the content, not by the name.

    Returns:
        An array in the machine's byte order with the file's shape: uint8, int8, int16, int32, float32 or
        float64. It may be written to.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not an idx file, corrupt gzip, fewer values than its header says, or bytes after them.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "labels"
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    ...     idx(path)
    array([7, 2, 1], dtype=uint8)
    """
    path = Path(path)
    content = _content(path)
    rank = content[3] if len(content) >= 4 else 0
    # 32 is the rank that every numpy can hold; a longer header is a sign of some other file.
    if content[:2] != b"\0\0" or len(content) < 4 or content[2] not in _DTYPES or rank > 32:
        raise ValueError(
            f"{path} is not an idx file: it must begin with the bytes 00 00, a type and a rank, "
            f"got {content[:4].hex(' ') or 'nothing'}"
        )
    start = 4 + 4 * rank
    if len(content) < start:
        raise ValueError(f"{path} is truncated: expected a header of {start} bytes, got {len(content)}")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", count=rank, offset=4))
    dtype = np.dtype(_DTYPES[content[2]])
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        wrong = "is truncated" if len(content) < expected else "has bytes after its last value"
        raise ValueError(
            f"{path} {wrong}: expected {expected} bytes for {dtype.newbyteorder('=')} of shape {shape}, "
            f"got {len(content)}"
        )
    values = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return values.astype(dtype.newbyteorder("="))


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder, not an idx file") from None
    if content[:2] != _GZIP_MAGIC:
        return content
    try:
        return gzip.decompress(content)
    except EOFError:
        raise ValueError(f"{path} is truncated: its gzip stream ends early, after {len(content)} bytes") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is corrupt: its gzip stream cannot be unpacked ({error})") from None
