"""Data sets: the digits inside scikit-learn, MNIST and its kin, known mixtures, and a reader of idx files.

    >>> import pygan.data
    >>> pygan.data.digits()
    Dataset('digits': 1797 x 64 float32, images 8 x 8, 10 classes)

Everything returns a `Dataset`: an (n, d) tensor on the CPU with its labels and what is known of its origin.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from .dataset import Dataset, as_dataset
from .download import DownloadError
from .files import cifar10, fashion_mnist, mnist
from .idx_format import idx
from .synthetic import digits, gaussian, mixture

__all__ = [
    "Dataset",
    "DownloadError",
    "as_dataset",
    "cifar10",
    "digits",
    "fashion_mnist",
    "gaussian",
    "idx",
    "load",
    "mixture",
    "mnist",
    "names",
]

_WITHOUT_SPLITS = {
    "digits": digits,
    "ring8": lambda: mixture("ring8"),
    "grid25": lambda: mixture("grid25"),
}
_WITH_SPLITS = {"mnist": mnist, "fashion_mnist": fashion_mnist, "cifar10": cifar10}


def names() -> tuple[str, ...]:
    """The names that `load` knows.

    Returns:
        All of them, the embedded ones first.

    >>> names()
    ('digits', 'ring8', 'grid25', 'mnist', 'fashion_mnist', 'cifar10')
    """
    return (*_WITHOUT_SPLITS, *_WITH_SPLITS)


def load(name_or_path: str | os.PathLike) -> Dataset:
    """The data set of that name, or the one in that file.

    A name wins over a file of the same name; write `./digits` for the file.

    Args:
        name_or_path: one of `names()`; `mnist`, `fashion_mnist` and `cifar10` may carry a split, as in
            `mnist:test`; or the path of an idx file (plain or gzip) or of a `.npy` file with rows (n, d) or
            images (n, h, w) or (n, c, h, w).

    Returns:
        The data set.

    Raises:
        ValueError: no such name (the nearest is suggested), no such split, or a file that cannot be read.
        FileNotFoundError: no such file.
        DownloadError: the files are not on this machine and could not be downloaded.

    >>> load("ring8")
    Dataset('ring8': 50000 x 2 float32, 8 modes)
    """
    text = os.fspath(name_or_path)
    if not text:
        raise ValueError(f"data must be a name or the path of a file, got {text!r}; the names are {', '.join(names())}")
    name, colon, split = text.partition(":")
    if isinstance(name_or_path, str) and name in names():
        if name in _WITH_SPLITS:
            return _WITH_SPLITS[name](split=split) if colon else _WITH_SPLITS[name]()
        if colon:
            raise ValueError(f"data {text!r}: {name} has no splits; write {name!r}")
        return _WITHOUT_SPLITS[name]()
    path = Path(text).expanduser()
    if path.exists():
        return as_dataset(_read(path), name=path.name.split(".")[0])
    if isinstance(name_or_path, str) and not path.suffix and len(path.parts) == 1:
        near = difflib.get_close_matches(name.lower(), names(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"the names are {', '.join(names())}"
        raise ValueError(f"data {text!r} is neither a known name nor a file; {hint}")
    raise FileNotFoundError(f"data {text!r}: there is no such file")


def _read(path: Path):
    if path.suffix == ".npz":
        raise ValueError(f"{path} is an archive of arrays: save the one to train on as a .npy file")
    if path.suffix != ".npy":
        return idx(path)
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is not a readable .npy file: {error}") from error
