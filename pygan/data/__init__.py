"""Data sets: the digits inside scikit-learn, MNIST and its kin, faces, known mixtures, and a reader of idx files.

    >>> import pygan.data
    >>> pygan.data.digits()
    Dataset('digits': 1797 x 64 float32, images 8 x 8, 10 classes)

Everything returns a `Dataset`: an (n, d) tensor on the CPU with its labels and what is known of its origin.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import replace
from pathlib import Path

from .._names import check_name
from .contrast import contrast_normalize
from .dataset import Dataset, as_dataset
from .download import DownloadError
from .faces import olivetti, tfd
from .files import cifar10, fashion_mnist, mnist
from .idx_format import idx
from .synthetic import digits, gaussian, mixture

__all__ = [
    "Dataset",
    "DownloadError",
    "as_dataset",
    "cifar10",
    "contrast_normalize",
    "digits",
    "fashion_mnist",
    "gaussian",
    "held_out",
    "idx",
    "load",
    "mixture",
    "mnist",
    "names",
    "olivetti",
    "tfd",
]

_MIXTURES = ("ring8", "grid25")
_WITH_SPLITS = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
    "olivetti": olivetti,
    "tfd": tfd,
}
_MATLAB = ".mat"  # of files, TFD's alone


def names() -> tuple[str, ...]:
    """The names that `load` knows.

    Returns:
        All of them, the embedded ones first.

    >>> names()
    ('digits', 'ring8', 'grid25', 'mnist', 'fashion_mnist', 'cifar10', 'olivetti', 'tfd')
    """
    embedded = ("digits", *_MIXTURES)
    return (*embedded, *(name for name in _WITH_SPLITS if name not in embedded))


def load(name_or_path: str | os.PathLike) -> Dataset:
    """The data set of that name, or the one in that file.

    A name wins over a file of the same name; write `./digits` for the file.

    Args:
        name_or_path: one of `names()`, of which all but the mixtures may carry a split, as in `mnist:test`; or the
            path of an idx file (plain or gzip), of a `.npy` file with rows (n, d) or images (n, h, w) or
            (n, c, h, w), or of TFD's `.mat` file.

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
        return mixture(name)
    path = Path(text).expanduser()
    if path.exists():
        if path.suffix == _MATLAB:
            return tfd(path)
        return as_dataset(_read(path), name=path.name.split(".")[0])
    if isinstance(name_or_path, str) and not path.suffix and len(path.parts) == 1:
        near = difflib.get_close_matches(name.lower(), names(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"the names are {', '.join(names())}"
        raise ValueError(f"data {text!r} is neither a known name nor a file; {hint}")
    raise FileNotFoundError(f"data {text!r}: there is no such file")


def held_out(source: str | os.PathLike, split: str) -> Dataset:
    """The validation or test set of a training set: rows that it has not, or fresh draws of a known mixture.

    Args:
        source: what was trained on, as `load` takes it.
        split: `valid` or `test`.

    Returns:
        The data set.

    Raises:
        ValueError: another split; a data set without it, or one that was trained on these rows.
        FileNotFoundError, DownloadError: as `load`.

    >>> held_out("mnist:fit", "valid")  # doctest: +SKIP
    Dataset('mnist:valid': 10000 x 784 uint8, images 28 x 28, 10 classes)
    """
    check_name(split, ("valid", "test"), "split")
    wanted = {"valid": "validation", "test": "test"}[split]
    text = os.fspath(source)
    name, _, trained = text.partition(":")
    if text in _MIXTURES:
        return replace(mixture(text, n=10_000, seed={"valid": 1, "test": 2}[split]), name=f"{text}:{split}")
    if name not in _WITH_SPLITS and Path(text).suffix == _MATLAB:
        return tfd(text, split)
    if name not in _WITH_SPLITS or (name == "olivetti" and split == "test"):
        raise ValueError(f"data {text!r} has no {wanted} set")
    trained = trained or ("unlabelled" if name == "tfd" else "train")
    if trained == split:
        raise ValueError(f"data {text!r} is a {wanted} set itself: none is left beside it")
    if split == "valid" and trained == "train" and name != "tfd":
        raise ValueError(f"data {text!r} has no {wanted} set beside it: its last rows are that; train on {name}:fit")
    return _WITH_SPLITS[name](split=split)


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
