"""MNIST, Fashion-MNIST and CIFAR-10: found on this machine, or downloaded once into the cache folder."""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .._names import check_name
from .dataset import Dataset
from .download import DownloadError, download
from .idx_format import idx

SPLITS = ("train", "fit", "valid", "test")
_VALID_ROWS = 10_000
_SYSTEM_FOLDER = Path("/usr/share/datasets")  # where Debian's data set packages install


@dataclass(frozen=True)
class _Source:
    """The folders (below a base, the first being the one to download to) and the mirrors of a data set."""

    name: str
    folders: tuple[str, ...]
    mirrors: tuple[str, ...]
    md5: dict[str, str]


_IDX_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def _idx_md5(*sums: str) -> dict[str, str]:
    return dict(zip(_IDX_FILES, sums, strict=True))


_MNIST = _Source(
    "mnist",
    ("mnist", "MNIST/raw"),
    (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://raw.githubusercontent.com/fgnt/mnist/master/",
    ),
    _idx_md5(
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
)
_FASHION_MNIST = _Source(
    "fashion_mnist",
    ("fashion_mnist", "fashion-mnist", "FashionMNIST/raw"),
    (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
    _idx_md5(
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
)
_CIFAR10_ARCHIVE = "cifar-10-binary.tar.gz"
_CIFAR10_FOLDER = "cifar-10-batches-bin"
_CIFAR10 = _Source(
    "cifar10",
    ("cifar10", ""),
    ("https://www.cs.toronto.edu/~kriz/",),
    {_CIFAR10_ARCHIVE: "c32a1d4ab5d03f1284b67883e8d87530"},
)


def mnist(root: str | os.PathLike | None = None, split: str = "train") -> Dataset:
    """MNIST: 70,000 handwritten digits of 28 x 28 pixels.

    The four original idx files are looked for in `root`, `root`/mnist, $PYGAN_DATA/mnist and mnist in the
    cache folder ($PYGAN_CACHE, else pygan below $XDG_CACHE_HOME or ~/.cache). If they are nowhere, they are
    downloaded (11 MB, checksum verified) into `root`/mnist, or into the cache folder when `root` is None.

    Args:
        root: a folder to look in first, or None.
        split: `train` (60,000 images), `test` (10,000), or the two parts of `train` that the paper uses:
            `fit` (the first 50,000) and `valid` (the last 10,000).

    Returns:
        values (n, 784) uint8, labels 0 to 9.

    Raises:
        ValueError: another split, or a file of the wrong form.
        DownloadError: not on this machine, and no mirror gave it; the message says where to put the files.

    >>> mnist(split="valid")  # doctest: +SKIP
    Dataset('mnist:valid': 10000 x 784 uint8, images 28 x 28, 10 classes)

    Source: LeCun, Bottou, Bengio and Haffner, 1998; the split as in the paper, section 5.
    """
    return _idx_images(_MNIST, root, split)


def fashion_mnist(root: str | os.PathLike | None = None, split: str = "train") -> Dataset:
    """Fashion-MNIST: 70,000 pictures of clothes in MNIST's form, 28 x 28 pixels, 10 classes.

    Looked for and downloaded (31 MB) as `mnist`, in folders named fashion_mnist or fashion-mnist.

    Args:
        root: a folder to look in first, or None.
        split: `train` (60,000), `test` (10,000), `fit` (the first 50,000 of train) or `valid` (its last
            10,000).

    Returns:
        values (n, 784) uint8, labels 0 to 9.

    Raises:
        ValueError: another split, or a file of the wrong form.
        DownloadError: not on this machine, and no mirror gave it; the message says where to put the files.

    >>> fashion_mnist(split="test")  # doctest: +SKIP
    Dataset('fashion_mnist:test': 10000 x 784 uint8, images 28 x 28, 10 classes)

    Source: Xiao, Rasul and Vollgraf, arXiv 1708.07747.
    """
    return _idx_images(_FASHION_MNIST, root, split)


def cifar10(root: str | os.PathLike | None = None, split: str = "train") -> Dataset:
    """CIFAR-10: 60,000 colour photographs of 32 x 32 pixels, 10 classes, from the binary version.

    Looked for as `mnist`, in folders named cifar10: cifar-10-binary.tar.gz, or the folder
    cifar-10-batches-bin unpacked from it. Downloaded (170 MB) if it is nowhere.

    Args:
        root: a folder to look in first, or None.
        split: `train` (50,000), `test` (10,000), `fit` (the first 40,000 of train, as the paper) or `valid`
            (its last 10,000).

    Returns:
        values (n, 3072) uint8, the red plane first, then green and blue; labels 0 to 9.

    Raises:
        ValueError: another split, or a file of the wrong form.
        DownloadError: not on this machine, and no mirror gave it; the message says where to put the files.

    >>> cifar10(split="fit")  # doctest: +SKIP
    Dataset('cifar10:fit': 40000 x 3072 uint8, images 3 x 32 x 32, 10 classes)

    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    check_name(split, SPLITS, "split of cifar10")
    batches = ["test_batch.bin"] if split == "test" else [f"data_batch_{i}.bin" for i in range(1, 6)]
    records = np.concatenate(list(_cifar10_batches(batches, root)))
    labels = torch.from_numpy(records[:, 0].astype(np.int64))
    values = torch.from_numpy(np.ascontiguousarray(records[:, 1:]))
    return part(Dataset(values, labels, "cifar10", (3, 32, 32)), split)


def cache_folder() -> Path:
    """Where downloads are kept: $PYGAN_CACHE, else pygan below $XDG_CACHE_HOME or ~/.cache."""
    if os.environ.get("PYGAN_CACHE"):
        return Path(os.environ["PYGAN_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pygan"


def part(data: Dataset, split: str, valid_rows: int = _VALID_ROWS) -> Dataset:
    """The part of a set that a split names: of training rows, `valid` is the last so many and `fit` the others."""
    name = data.name if split == "train" else f"{data.name}:{split}"
    if split in ("train", "test"):
        return data.subset(slice(None), name)
    if len(data) <= valid_rows:
        raise ValueError(f"{name} needs more than {valid_rows} training rows, the files have {len(data)}")
    cut = len(data) - valid_rows
    return data.subset(slice(cut) if split == "fit" else slice(cut, None), name)


def _idx_images(source: _Source, root: str | os.PathLike | None, split: str) -> Dataset:
    check_name(split, SPLITS, f"split of {source.name}")
    prefix = "t10k" if split == "test" else "train"
    image_path = _locate(source, f"{prefix}-images-idx3-ubyte.gz", root)
    label_path = _locate(source, f"{prefix}-labels-idx1-ubyte.gz", root)
    images, labels = idx(image_path), idx(label_path)
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28):
        raise ValueError(f"{image_path} must hold uint8 (n, 28, 28), got {images.dtype} {images.shape}")
    if labels.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise ValueError(f"{label_path} must hold uint8 ({len(images)},), got {labels.dtype} {labels.shape}")
    values = torch.from_numpy(images.reshape(len(images), -1))
    return part(Dataset(values, torch.from_numpy(labels.astype(np.int64)), source.name, (28, 28)), split)


def _places(folders: tuple[str, ...], root: str | os.PathLike | None) -> list[tuple[Path, tuple[str, ...]]]:
    """Base folders with the folders below each that may hold the files, in the order of looking."""
    data = os.environ.get("PYGAN_DATA")
    bases = [*([Path(data).expanduser()] if data else []), cache_folder(), _SYSTEM_FOLDER]
    places = [(base, folders) for base in bases]
    # Only a root that the caller names may hold the files itself: MNIST and Fashion-MNIST share file names.
    return places if root is None else [(Path(root).expanduser(), ("", *folders)), *places]


def places_in_words(folders: tuple[str, ...], root: str | os.PathLike | None) -> str:
    """Where `find` looks, a line for each base folder."""
    return "\n    ".join(f"{base} ({', '.join(f or '.' for f in below)})" for base, below in _places(folders, root))


def _folders(folders: tuple[str, ...], root: str | os.PathLike | None) -> list[Path]:
    return [base / folder for base, below in _places(folders, root) for folder in below]


def _first(folders: list[Path], name: str) -> Path | None:
    """The first of `folders` that has the file, as it is or unpacked."""
    candidates = (folder / variant for folder in folders for variant in (name, name.removesuffix(".gz")))
    return next((path for path in candidates if path.is_file()), None)


def find(name: str, folders: tuple[str, ...], root: str | os.PathLike | None) -> Path | None:
    """The path of a data set's file, as it is or unpacked, if it is on this machine.

    Args:
        name: of the file.
        folders: that may hold it, below `root`, $PYGAN_DATA, the cache folder and the system's.
        root: a folder to look in first, or None.
    """
    return _first(_folders(folders, root), name)


def _locate(source: _Source, name: str, root: str | os.PathLike | None) -> Path:
    """The path of one of the source's files, downloaded if it is nowhere on this machine."""
    if found := find(name, source.folders, root):
        return found
    base = cache_folder() if root is None else Path(root).expanduser()
    target = base / source.folders[0]
    try:
        return download([mirror + name for mirror in source.mirrors], target / name, source.md5[name])
    except DownloadError as error:
        tried, failures = [f"{url} ({reason})" for url, reason in error.failures], error.failures
    except OSError as error:
        tried, failures = [f"to write to {target} ({error.strerror or error})"], []
    raise DownloadError(
        f"{source.name}: {name} is not on this machine and could not be downloaded.\n"
        f"  Looked in\n    {places_in_words(source.folders, root)}\n  Tried\n    " + "\n    ".join(tried) + "\n"
        f"  Put {', '.join(source.md5)} into {target},\n"
        f"  or into {source.folders[0]}/ inside the folder that the environment variable PYGAN_DATA names.",
        failures,
    ) from None


def _cifar10_batches(names: list[str], root: str | os.PathLike | None) -> Iterator[np.ndarray]:
    unpacked = [folder / _CIFAR10_FOLDER for folder in _folders(_CIFAR10.folders, root)]
    if (first := _first(unpacked, names[0])) is not None:
        for name in names:
            path = first.parent / name
            if not path.is_file():
                raise ValueError(f"{path} is missing")
            yield _records(path.read_bytes(), path)
        return
    path = _locate(_CIFAR10, _CIFAR10_ARCHIVE, root)
    try:
        with tarfile.open(path) as archive:
            contents = [archive.extractfile(f"{_CIFAR10_FOLDER}/{name}").read() for name in names]
    except (tarfile.TarError, KeyError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is not the binary version of CIFAR-10: {error}") from error
    for name, content in zip(names, contents, strict=True):
        yield _records(content, f"{path}: {name}")


def _records(content: bytes, where: Path | str) -> np.ndarray:
    """A batch: records of one label byte and 3072 values."""
    size = 1 + 3 * 32 * 32
    if not content or len(content) % size:
        raise ValueError(f"{where} must hold records of {size} bytes, got {len(content)} bytes")
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    if records[:, 0].max() > 9:
        raise ValueError(f"{where} has a label above 9, record {int(records[:, 0].argmax())}")
    return records
