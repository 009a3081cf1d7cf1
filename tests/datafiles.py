"""Small files in the true form of data sets, and tests kept to the folders that they make."""

import gzip
import http.server
import struct

import numpy as np

from pygan.data import files


def isolate(monkeypatch, tmp_path_factory):
    """Nothing of the machine's own is found, and nothing is written outside the test's folders."""
    monkeypatch.delenv("PYGAN_DATA", raising=False)
    monkeypatch.setenv("PYGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(files, "_SYSTEM_FOLDER", tmp_path_factory.mktemp("system"))


def idx_bytes(array, code=0x08):
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_mnist(folder, n=12_000, fill=0):
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, rows in (("train", n), ("t10k", 7)):
        images = np.full((rows, 28, 28), fill, np.uint8)
        images[:, 0, 0] = np.arange(rows) % 256
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images), 1))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes((np.arange(rows) % 10).astype(np.uint8)))


def closed_port():
    """An address of this machine at which nothing listens."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        return f"http://127.0.0.1:{server.server_port}"


def replace_mirrors(source, *mirrors, md5=None):
    """The source with mirrors of this machine only."""
    return files._Source(source.name, source.folders, mirrors or (closed_port() + "/",), md5 or source.md5)
