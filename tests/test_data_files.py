"""Files of data sets: idx, and where those of MNIST, Fashion-MNIST and CIFAR-10 lie and what they hold."""

import gzip
import hashlib
import io
import struct
import tarfile

import numpy as np
import pytest
import torch

from datafiles import idx_bytes, isolate, replace_mirrors, write_mnist
from pygan import data
from pygan.data import files

IDX_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: "i2", 0x0C: "i4", 0x0D: "f4", 0x0E: "f8"}
IDX_SHAPES = [(3,), (0,), (2, 0), (5, 7), (2, 3, 4), (1, 2, 3, 2), ()]


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path_factory):
    isolate(monkeypatch, tmp_path_factory)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("shape", IDX_SHAPES)
@pytest.mark.parametrize("code", IDX_DTYPES)
def test_idx_reads_every_dtype_and_rank(tmp_path, code, shape, compressed):
    values = (np.random.default_rng(0).integers(0, 100, shape) - 30 * (code != 8)).astype(IDX_DTYPES[code])
    content = idx_bytes(np.asarray(values), code)
    path = tmp_path / "values"  # no suffix: the content says that it is compressed
    path.write_bytes(gzip.compress(content) if compressed else content)
    read = data.idx(path)
    assert read.dtype == values.dtype
    assert read.dtype.isnative
    assert read.flags.writeable
    np.testing.assert_array_equal(read, values)


GOOD = idx_bytes(np.arange(200, dtype=np.uint8).reshape(20, 10))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not an idx file: it must begin with the bytes 00 00, a type and a rank, got nothing"),
        (b"\0\0\x08", "is not an idx file"),
        (b"\x89PNG\r\n\x1a\n", "is not an idx file.* got 89 50 4e 47"),
        (b"\0\0\x0a\x01\0\0\0\0", "is not an idx file"),
        (b"\0\0\x08\xff" + bytes(2000), "is not an idx file"),
        (GOOD[:9], "is truncated: expected a header of 12 bytes, got 9"),
        (GOOD[:-1], r"is truncated: expected 212 bytes for uint8 of shape \(20, 10\), got 211"),
        (
            struct.pack(">HBB3I", 0, 8, 3, *(3 * [2**32 - 1])),
            "is truncated: expected 79228162458924105385300197391",
        ),
        (GOOD + b"\0", "has bytes after its last value: expected 212 bytes.* got 213"),
        (gzip.compress(GOOD)[:-30], "is truncated: its gzip stream ends early"),
        (gzip.compress(GOOD)[:-8] + bytes(8), "is corrupt: its gzip stream cannot be unpacked"),
        (gzip.compress(GOOD)[:20] + b"\xff" * 40 + gzip.compress(GOOD)[60:], "is corrupt: its gzip stream"),
        (gzip.compress(GOOD[:-5]), "is truncated: expected 212 bytes.* got 207"),
    ],
)
def test_idx_refuses_in_a_sentence_with_the_path(tmp_path, content, words):
    path = tmp_path / "broken-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} {words}"):
        data.idx(path)


def test_idx_of_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent: there is no such file"):
        data.idx(tmp_path / "absent")
    with pytest.raises(ValueError, match="is a folder, not an idx file"):
        data.idx(tmp_path)


def test_mnist_splits(tmp_path):
    write_mnist(tmp_path)
    for split, name, rows, first in [
        ("train", "mnist", 12_000, 0),
        ("fit", "mnist:fit", 2_000, 0),
        ("valid", "mnist:valid", 10_000, 2_000),
        ("test", "mnist:test", 7, 0),
    ]:
        made = data.mnist(tmp_path, split)
        assert (made.name, made.values.shape, made.image_shape) == (name, (rows, 784), (28, 28))
        assert made.values.dtype == torch.uint8
        assert (made.values[0, 0], made.labels[0]) == (first % 256, first % 10)
    write_mnist(tmp_path, n=10_000)
    with pytest.raises(ValueError, match="mnist:fit needs more than 10000 training rows, the files have 10000"):
        data.mnist(tmp_path, "fit")


def test_where_mnist_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("PYGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYGAN_DATA", str(tmp_path / "data"))
    places = ["system/mnist", "cache/mnist", "data/mnist", "root/MNIST/raw", "root/mnist", "root"]
    monkeypatch.setattr(files, "_SYSTEM_FOLDER", tmp_path / "system")
    for fill, place in enumerate(places, start=1):
        write_mnist(tmp_path / place, n=1, fill=fill)
        made = data.mnist(tmp_path / "root" if place.startswith("root") else None)
        assert made.values[0, 1] == fill, f"{place} comes before the ones so far"
    assert data.load("mnist").values[0, 1] == places.index("data/mnist") + 1


def test_fashion_mnist_is_not_taken_from_mnists_files(tmp_path, monkeypatch):
    write_mnist(tmp_path, n=1)
    write_mnist(tmp_path / "mnist", n=1)
    monkeypatch.setenv("PYGAN_DATA", str(tmp_path))
    monkeypatch.setattr(files, "_FASHION_MNIST", replace_mirrors(files._FASHION_MNIST))
    with pytest.raises(data.DownloadError, match=r"fashion_mnist: train-images-idx3-ubyte.gz is not on this machine"):
        data.fashion_mnist()
    write_mnist(tmp_path / "fashion-mnist", n=1, fill=9)
    assert data.fashion_mnist().values[0, 1] == 9


def test_mnist_files_of_another_form(tmp_path):
    write_mnist(tmp_path, n=3)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(idx_bytes(np.zeros(4, np.uint8)))
    with pytest.raises(ValueError, match=rf"{labels} must hold uint8 \(3,\), got uint8 \(4,\)"):
        data.mnist(tmp_path)
    images = tmp_path / "train-images-idx3-ubyte.gz"
    images.write_bytes(idx_bytes(np.zeros((4, 8, 8), np.uint8)))
    with pytest.raises(ValueError, match=rf"{images} must hold uint8 \(n, 28, 28\), got uint8 \(4, 8, 8\)"):
        data.mnist(tmp_path)


CIFAR10_BATCHES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


def cifar10_batches(n=4):
    """Records in the true form; the label and the first value of each plane are known."""
    for b, name in enumerate(CIFAR10_BATCHES):
        records = np.zeros((n, 3073), np.uint8)
        records[:, 0] = np.arange(n) % 10
        records[:, [1, 1025, 2049]] = [b, 100 + b, 200 + b]
        yield name, records.tobytes()


@pytest.mark.parametrize("form", ["folder", "archive"])
def test_cifar10_in_the_true_form(tmp_path, form):
    if form == "folder":
        (tmp_path / "cifar10/cifar-10-batches-bin").mkdir(parents=True)
        for name, content in cifar10_batches():
            (tmp_path / "cifar10/cifar-10-batches-bin" / name).write_bytes(content)
    else:
        with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
            for name, content in cifar10_batches():
                info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    train, test = data.cifar10(tmp_path), data.cifar10(tmp_path, "test")
    assert (train.values.shape, test.values.shape, train.image_shape) == ((20, 3072), (4, 3072), (3, 32, 32))
    assert train.labels.tolist() == 5 * [0, 1, 2, 3]
    assert train.values[7, [0, 1024, 2048]].tolist() == [1, 101, 201]
    assert test.values[0, [0, 1024, 2048]].tolist() == [5, 105, 205]


def test_cifar10_refuses_in_a_sentence(tmp_path):
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=f"{archive} is not the binary version of CIFAR-10"):
        data.cifar10(tmp_path)
    with tarfile.open(archive, "w:gz"):
        pass
    with pytest.raises(ValueError, match=r"is not the binary version of CIFAR-10.*data_batch_1.bin"):
        data.cifar10(tmp_path)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name, content, words in [
        ("test_batch.bin", bytes(3000), "test_batch.bin must hold records of 3073 bytes, got 3000 bytes"),
        ("test_batch.bin", bytes(3073) + b"\x0a" + bytes(3072), "has a label above 9, record 1"),
        ("data_batch_1.bin", bytes(3073), "data_batch_2.bin is missing"),
    ]:
        (folder / name).write_bytes(content)
        with pytest.raises(ValueError, match=words):
            data.cifar10(tmp_path, "test" if name.startswith("test") else "train")


MNIST_ROWS = {"train": 60_000, "fit": 50_000, "valid": 10_000, "test": 10_000}


@pytest.mark.parametrize("split", MNIST_ROWS)
def test_the_real_mnist(pygan_data, split):
    if not (pygan_data / "mnist").is_dir():
        pytest.skip("PYGAN_DATA has no folder mnist")
    made = data.mnist(pygan_data, split)
    assert made.values.shape == (MNIST_ROWS[split], 784)
    assert made.labels.unique().tolist() == list(range(10))
    first = {
        "train": [5, 0, 4, 1, 9],
        "fit": [5, 0, 4, 1, 9],
        "valid": [3, 8, 6, 9, 6],
        "test": [7, 2, 1, 0, 4],
    }
    assert made.labels[:5].tolist() == first[split]
    # 0.1307 and 0.3081 are the training images' well-known mean and standard deviation.
    if split == "train":
        values = made.as_float()
        assert values.mean() == pytest.approx(0.1307, abs=1e-4)
        assert values.std() == pytest.approx(0.3081, abs=1e-4)


def test_the_checksums_are_those_of_the_original_files(pygan_data):
    if not (pygan_data / "mnist").is_dir():
        pytest.skip("PYGAN_DATA has no folder mnist")
    for name, md5 in files._MNIST.md5.items():
        assert hashlib.md5((pygan_data / "mnist" / name).read_bytes()).hexdigest() == md5
