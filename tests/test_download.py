"""The download, over a server of this machine."""

import hashlib
import http.server
import threading

import numpy as np
import pytest

from datafiles import closed_port, isolate, replace_mirrors, write_mnist
from pygan import data
from pygan.data import download, files

CONTENT = np.random.default_rng(5).bytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path_factory):
    isolate(monkeypatch, tmp_path_factory)


class Handler(http.server.BaseHTTPRequestHandler):
    """A mirror whose ways are the first folder of the path."""

    def do_GET(self):
        way = self.path.split("/")[1]
        asked = self.headers.get("Range")
        self.server.asked.append((way, asked))
        content = self.server.files.get(self.path.rpartition("/")[2], CONTENT)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and way != "no_ranges" else 0
        if way == "absent":
            self.send_error(404)
            return
        if start >= len(content):
            self.send_error(416)
            return
        body = {"other": bytes(len(content)), "shifted": content}.get(way, content)[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if start:
            first = start + (way == "shifted")
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(body[: len(body) // 3] if way == "cut" else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.files = [], {}
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetch(server, path, *ways):
    return download.download([f"{server.url}/{way}/file" for way in ways], path, MD5, timeout=5)


def test_download_makes_the_folder_and_leaves_only_the_file(server, tmp_path, capfd):
    path = tmp_path / "new" / "folder" / "file"
    assert fetch(server, path, "good", "absent") == path
    assert path.read_bytes() == CONTENT
    assert server.asked == [("good", None)], "the second mirror is not asked"
    assert sorted(p.name for p in path.parent.iterdir()) == [".lock", "file"]
    err = capfd.readouterr().err
    assert "downloading file  0.3 of 0.3 MB  100%" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("ways", "asked"),
    [
        (["absent", "good"], [None, None]),
        (["other", "good"], [None, None]),
        (["cut", "good"], [None, "bytes=100000-"]),
        (["cut", "cut", "cut", "good"], [None, "bytes=100000-", "bytes=166666-", "bytes=211110-"]),
        (["cut", "shifted", "good"], [None, "bytes=100000-", "bytes=100000-"]),
        (["cut", "no_ranges"], [None, "bytes=100000-"]),
    ],
)
def test_download_falls_through_to_the_next_mirror(server, tmp_path, ways, asked):
    assert fetch(server, tmp_path / "file", *ways).read_bytes() == CONTENT
    assert server.asked == list(zip(ways, asked, strict=True))


@pytest.mark.parametrize("way", ["good", "no_ranges"])
@pytest.mark.parametrize("partial", [CONTENT[:123_456], CONTENT, b"x" * 1000, b"x" * 400_000, b""])
def test_download_goes_on_from_a_partial_file(server, tmp_path, partial, way):
    (tmp_path / "file.part").write_bytes(partial)
    assert fetch(server, tmp_path / "file", way).read_bytes() == CONTENT
    assert server.asked[0] == (way, f"bytes={len(partial)}-" if partial else None)
    resumable = CONTENT.startswith(partial) or way == "no_ranges"
    assert len(server.asked) == (1 if resumable else 2), "a bad beginning is thrown away, once"
    assert not (tmp_path / "file.part").exists()


def test_download_does_not_ask_for_what_another_process_brought(server, tmp_path):
    (tmp_path / "file").write_bytes(b"brought")
    assert fetch(server, tmp_path / "file", "good").read_bytes() == b"brought"
    assert not server.asked


def test_processes_that_download_at_once_wait_for_each_other(server, tmp_path):
    threads = [threading.Thread(target=fetch, args=(server, tmp_path / "file", "good")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_download_says_what_each_mirror_did(server, tmp_path):
    urls = [f"{server.url}/absent/file", f"{server.url}/other/file", f"{closed_port()}/file"]
    with pytest.raises(data.DownloadError, match="file could not be downloaded from 3 mirrors") as caught:
        download.download(urls, tmp_path / "file", MD5, timeout=5)
    reasons = [reason for _, reason in caught.value.failures]
    assert [url for url, _ in caught.value.failures] == urls
    assert reasons[0] == "HTTP 404 Not Found"
    found = hashlib.md5(bytes(len(CONTENT))).hexdigest()
    assert reasons[1] == f"wrong checksum: expected {MD5}, got {found}"
    assert "refused" in reasons[2]
    assert not (tmp_path / "file").exists()
    assert not (tmp_path / "file.part").exists()


def test_what_arrived_is_kept_for_the_next_call(server, tmp_path):
    with pytest.raises(data.DownloadError) as caught:
        fetch(server, tmp_path / "file", "cut")
    assert caught.value.failures[0][1] == "the connection ended after 100000 of 300000 bytes"
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:100_000]
    fetch(server, tmp_path / "file", "good")
    assert server.asked[-1] == ("good", "bytes=100000-")


@pytest.mark.parametrize("given_root", [False, True])
def test_mnist_is_downloaded_once(server, tmp_path, monkeypatch, given_root):
    write_mnist(tmp_path / "origin", n=2)
    for path in (tmp_path / "origin").iterdir():
        name = path.name.removesuffix(".gz") + ".gz"
        server.files[name] = path.read_bytes()
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in server.files.items()}
    mirrors = (f"{server.url}/absent/", f"{server.url}/good/")
    monkeypatch.setattr(files, "_MNIST", replace_mirrors(files._MNIST, *mirrors, md5=md5))
    monkeypatch.setenv("PYGAN_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "root" if given_root else None
    assert len(data.mnist(root)) == 2
    asked = len(server.asked)
    assert asked == 4, "two files, two mirrors; the test images are not fetched"
    assert len(data.mnist(root)) == 2
    assert len(server.asked) == asked
    target = tmp_path / ("root" if given_root else "cache") / "mnist"
    assert (target / "train-images-idx3-ubyte.gz").is_file()


def test_offline_the_error_says_what_was_tried_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_MNIST", replace_mirrors(files._MNIST))
    monkeypatch.setenv("PYGAN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PYGAN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(data.DownloadError) as caught:
        data.load("mnist")
    words = str(caught.value)
    url = f"{files._MNIST.mirrors[0]}train-images-idx3-ubyte.gz"
    for part in [
        "mnist: train-images-idx3-ubyte.gz is not on this machine and could not be downloaded.",
        f"{tmp_path / 'data'} (mnist, MNIST/raw)",
        f"{tmp_path / 'cache'} (mnist, MNIST/raw)",
        f"{url} (Connection refused)",
        f"Put {', '.join(files._IDX_FILES)} into {tmp_path / 'cache' / 'mnist'}",
        "PYGAN_DATA",
    ]:
        assert part in words
    assert caught.value.failures == [(url, "Connection refused")]


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(files, "_MNIST", replace_mirrors(files._MNIST))
    with pytest.raises(data.DownloadError, match=f"to write to {tmp_path / 'file' / 'mnist'} \\(Not a directory\\)"):
        data.mnist(tmp_path / "file")


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("PYGAN_CACHE", "~/mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("PYGAN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert files.cache_folder() == tmp_path / "xdg" / "pygan"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert files.cache_folder() == tmp_path / ".cache" / "pygan"
