"""Faces: the Toronto Face Database from its own file, which is not public, and the Olivetti faces, which are."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import numpy as np
import torch

from .._names import check_name, check_whole
from .dataset import Dataset
from .download import DownloadError, locked
from .files import cache_folder, find, part, places_in_words
from .idx_format import idx

_SIDE = 48
_TFD_FILE, _TFD_FOLDERS = "TFD_48x48.mat", ("tfd", "TFD", "faces/TFD")
TFD_SPLITS = ("unlabelled", "train", "valid", "test")  # a column of `folds` has their places here
_TFD_FOLDS = 5
_OLIVETTI_FILE, _OLIVETTI_FOLDERS = "olivetti-images-idx3-ubyte.gz", ("olivetti",)
OLIVETTI_SPLITS = ("train", "fit", "valid")
_OLIVETTI_VALID_ROWS = 50
_OLIVETTI_WHITE = 242  # the largest value in the original files, which scikit-learn divides by


def tfd(path: str | os.PathLike | None = None, split: str = "unlabelled", fold: int = 0) -> Dataset:
    """The Toronto Face Database: 102,236 faces of 48 x 48 pixels, 4,178 of them with an expression.

    It is not public: its authors give the file to those who ask. Nothing is downloaded.

    Args:
        path: the file, TFD_48x48.mat, or a folder that holds it. By default it is looked for in the folder tfd of
            $PYGAN_DATA and of the cache folder, as `mnist`.
        split: `unlabelled` (98,058 faces, on which the paper trains), or `train`, `valid`, `test`: the parts of the
            others.
        fold: which of the five ways to part them, from 0; the unlabelled are the same in all.

    Returns:
        values (n, 2304) uint8; labels 0 to 6, the expressions, where the split has them.

    Raises:
        ValueError: another split or fold, or a file of the wrong form.
        FileNotFoundError: no such file; the message says where to put it.

    >>> tfd("TFD_48x48.mat")  # doctest: +SKIP
    Dataset('tfd:unlabelled': 98058 x 2304 uint8, images 48 x 48)

    Source: Susskind, Anderson and Hinton, The Toronto Face Database, UTML TR 2010-001; the form of the file as
    pylearn2's and fuel's readers have it.
    """
    number = TFD_SPLITS.index(check_name(split, TFD_SPLITS, "split of tfd"))
    if check_whole(fold, "fold", least=0) >= _TFD_FOLDS:
        raise ValueError(f"fold must be from 0 to {_TFD_FOLDS - 1}, got {fold}")
    path = _tfd_path(path)
    images, folds, expressions = _tfd_arrays(path)
    chosen = folds[:, fold] == number
    if not chosen.any():
        raise ValueError(f"{path} has no faces in split {split} of fold {fold}")
    labels = None
    if split != "unlabelled":
        labels = torch.from_numpy(expressions[chosen].astype(np.int64) - 1)  # in the file they count from 1
        if labels.min() < 0:
            raise ValueError(f"{path} has faces without an expression in split {split} of fold {fold}")
    return Dataset(_rows(images[chosen]), labels, f"tfd:{split}", (_SIDE, _SIDE))


def _tfd_path(path: str | os.PathLike | None) -> Path:
    if path is not None and not Path(path).expanduser().is_dir():
        if not (path := Path(path).expanduser()).is_file():
            raise FileNotFoundError(f"{path}: there is no such file")
        return path
    if found := find(_TFD_FILE, _TFD_FOLDERS, path):
        return found
    raise FileNotFoundError(
        f"tfd: {_TFD_FILE} is not on this machine, and not public: ask its authors for it.\n"
        f"  Looked in\n    {places_in_words(_TFD_FOLDERS, path)}\n"
        f"  Put it into {_TFD_FOLDERS[0]}/ inside the folder that the environment variable PYGAN_DATA names."
    )


def _tfd_arrays(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The images (n, 48, 48) uint8, the folds (n, 5) and the expressions (n,)."""
    from scipy.io import loadmat

    names = ("images", "folds", "labs_ex")
    try:
        content = loadmat(path, variable_names=names)
    except NotImplementedError:
        raise ValueError(f"{path} is a MATLAB file of version 7.3, expected one of version 5") from None
    except Exception as error:  # scipy's reader has no one kind of its own for what is damaged
        raise ValueError(f"{path} is not a readable MATLAB file: {error}") from error
    for name in names:
        if name not in content:
            raise ValueError(f"{path} is not {_TFD_FILE}: it holds no {name}")
    images, folds, expressions = (content[name] for name in names)
    if images.dtype != np.uint8 or images.shape[1:] != (_SIDE, _SIDE):
        raise ValueError(f"{path}: images must be uint8 (n, {_SIDE}, {_SIDE}), got {images.dtype} {images.shape}")
    n = len(images)
    if folds.dtype.kind not in "iuf" or folds.shape != (n, _TFD_FOLDS):
        raise ValueError(f"{path}: folds must be numbers ({n}, {_TFD_FOLDS}), got {folds.dtype} {folds.shape}")
    if expressions.dtype.kind not in "iuf" or expressions.size != n:
        raise ValueError(f"{path}: labs_ex must be {n} numbers, got {expressions.dtype} {expressions.shape}")
    return images, folds, expressions.reshape(-1)


def olivetti(root: str | os.PathLike | None = None, split: str = "train") -> Dataset:
    """The Olivetti faces: 40 people, 10 photographs of each, reduced from 64 x 64 to TFD's 48 x 48 pixels.

    The public stand-in for TFD. The idx file olivetti-images-idx3-ubyte.gz is looked for in `root` and in folders
    olivetti, as `mnist`; if it is nowhere, scikit-learn downloads the faces (1.4 MB, checksum verified) into
    `root`/olivetti, or into the cache folder, and finds them there again.

    Args:
        root: a folder to look in first, or None.
        split: `train` (all 400), `fit` (the first 350) or `valid` (the last 50: five people who are not in `fit`).

    Returns:
        values (n, 2304) uint8, labels 0 to 39, the people.

    Raises:
        ValueError: another split, or a file of the wrong form.
        DownloadError: not on this machine, and not to be had; the message says where to put the file.

    >>> olivetti(split="fit")  # doctest: +SKIP
    Dataset('olivetti:fit': 350 x 2304 uint8, images 48 x 48, 35 classes)

    Source: Samaria and Harter, 1994, AT&T Laboratories Cambridge.
    """
    check_name(split, OLIVETTI_SPLITS, "split of olivetti")
    path = find(_OLIVETTI_FILE, _OLIVETTI_FOLDERS, root)
    images = _fetch_olivetti(root) if path is None else idx(path)
    if images.dtype != np.uint8 or images.shape[1:] != (64, 64):
        raise ValueError(f"{path} must hold uint8 (n, 64, 64), got {images.dtype} {images.shape}")
    labels = torch.arange(len(images)) // 10
    data = Dataset(_rows(_reduce(images)), labels, "olivetti", (_SIDE, _SIDE))
    return part(data, split, _OLIVETTI_VALID_ROWS)


def _reduce(images: np.ndarray) -> np.ndarray:
    """(n, 48, 48): each pixel a weighted mean of those it covers."""
    planes = torch.from_numpy(images[:, None].astype(np.float32))
    small = torch.nn.functional.interpolate(planes, size=(_SIDE, _SIDE), mode="bilinear", antialias=True)
    return small.round_().clamp_(0, 255).to(torch.uint8).numpy()


def _fetch_olivetti(root: str | os.PathLike | None) -> np.ndarray:
    """(400, 64, 64) uint8, through scikit-learn, which keeps what it downloads."""
    from sklearn.datasets import fetch_olivetti_faces

    folder = (cache_folder() if root is None else Path(root).expanduser()) / _OLIVETTI_FOLDERS[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"), contextlib.redirect_stdout(sys.stderr):
            faces = fetch_olivetti_faces(data_home=folder).images
    except OSError as error:
        raise DownloadError(
            f"olivetti: {_OLIVETTI_FILE} is not on this machine, and scikit-learn could not download the faces to "
            f"{folder}: {error}.\n  Looked in\n    {places_in_words(_OLIVETTI_FOLDERS, root)}\n"
            f"  Put the file into {folder}."
        ) from error
    return np.rint(_OLIVETTI_WHITE * faces).astype(np.uint8)


def _rows(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.reshape(len(images), -1)))
