"""Faces: TFD's own file in its true form, the Olivetti faces from a file or through scikit-learn."""

import re
import types

import numpy as np
import pytest
import scipy.io
import sklearn.datasets
import torch

from datafiles import idx_bytes, isolate
from pygan import data

N = 40
FOLDS = np.stack([np.r_[np.zeros(20), 1 + (np.arange(20) + fold) % 3] for fold in range(5)], axis=1).astype(np.uint8)


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path_factory):
    isolate(monkeypatch, tmp_path_factory)


def tfd_arrays(**changes):
    """What TFD_48x48.mat holds, fewer of it: image i begins with i, expressions count from 1 and are -1 if unknown."""
    images = np.random.default_rng(0).integers(0, 256, (N, 48, 48)).astype(np.uint8)
    images[:, 0, 0] = np.arange(N)
    expressions = np.where(np.arange(N) < 20, -1, 1 + np.arange(N) % 7).astype(np.int16)
    arrays = {"images": images, "folds": FOLDS, "labs_ex": expressions[:, None], "labs_id": np.arange(N)[:, None]}
    return {name: array for name, array in {**arrays, **changes}.items() if array is not None}


def write_tfd(path, *, compressed=True, **changes):
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, tfd_arrays(**changes), do_compression=compressed)
    return path


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("fold", range(5))
@pytest.mark.parametrize("split", ["unlabelled", "train", "valid", "test"])
def test_tfd_in_the_true_form(tmp_path, split, fold, compressed):
    made = data.tfd(write_tfd(tmp_path / "TFD_48x48.mat", compressed=compressed), split, fold)
    rows = np.flatnonzero(FOLDS[:, fold] == ["unlabelled", "train", "valid", "test"].index(split))
    assert (made.name, made.image_shape, made.values.dtype) == (f"tfd:{split}", (48, 48), torch.uint8)
    assert made.values[:, 0].tolist() == rows.tolist()
    assert torch.equal(made.values, torch.from_numpy(tfd_arrays()["images"][rows].reshape(len(rows), 2304)))
    if split == "unlabelled":
        assert made.labels is None
    else:
        assert made.labels.tolist() == (rows % 7).tolist()


def test_where_tfd_is_looked_for(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"(?s)tfd: TFD_48x48.mat is not on this machine, and not public.*tfd"):
        data.tfd()
    with pytest.raises(FileNotFoundError, match=f"Looked in\n    {tmp_path} "):
        data.tfd(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/other.mat: there is no such file"):
        data.tfd(tmp_path / "other.mat")
    monkeypatch.setenv("PYGAN_DATA", str(tmp_path / "data"))
    write_tfd(tmp_path / "data/tfd/TFD_48x48.mat")
    assert len(data.load("tfd")) == 20
    assert data.load("tfd:valid").name == data.held_out("tfd", "valid").name == "tfd:valid"
    assert data.held_out("tfd:train", "valid").name == "tfd:valid"
    assert data.held_out("tfd", "test").name == "tfd:test"
    path = write_tfd(tmp_path / "elsewhere/faces.mat")
    assert data.tfd(tmp_path / "data").name == "tfd:unlabelled"
    assert data.load(path).name == data.load(str(path)).name == "tfd:unlabelled"
    assert data.held_out(str(path), "valid").name == "tfd:valid"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"images": None}, "is not TFD_48x48.mat: it holds no images"),
        ({"folds": None}, "is not TFD_48x48.mat: it holds no folds"),
        ({"labs_ex": None}, "is not TFD_48x48.mat: it holds no labs_ex"),
        ({"images": np.zeros((N, 96, 96), np.uint8)}, "images must be uint8 (n, 48, 48), got uint8 (40, 96, 96)"),
        ({"images": np.zeros((N, 48, 48))}, "images must be uint8 (n, 48, 48), got float64"),
        ({"folds": FOLDS[:-1]}, "folds must be numbers (40, 5), got uint8 (39, 5)"),
        ({"folds": FOLDS.astype(str)}, "folds must be numbers (40, 5), got <U"),
        ({"labs_ex": np.ones(3)}, "labs_ex must be 40 numbers, got float64 (1, 3)"),
        ({"labs_ex": np.full(N, -1)}, "has faces without an expression in split valid of fold 0"),
        ({"folds": 0 * FOLDS}, "has no faces in split valid of fold 0"),
    ],
)
def test_tfd_of_another_form_gets_a_sentence(tmp_path, changes, sentence):
    path = write_tfd(tmp_path / "TFD_48x48.mat", **changes)
    with pytest.raises(ValueError, match=f"^{path}:? {re.escape(sentence)}"):
        data.tfd(path, "valid")


def test_what_is_no_matlab_file_gets_a_sentence(tmp_path):
    path = write_tfd(tmp_path / "TFD_48x48.mat", compressed=False)
    whole = path.read_bytes()
    seven = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    for content in (b"", b"no matlab", whole[: len(whole) // 2], whole[:300]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{path} is not"):
            data.tfd(path)
    path.write_bytes(seven + bytes(1000))
    with pytest.raises(ValueError, match=f"{path} is a MATLAB file of version 7.3, expected one of version 5"):
        data.load(path)


def test_bad_splits_and_folds_get_a_sentence(tmp_path):
    path = write_tfd(tmp_path / "TFD_48x48.mat")
    with pytest.raises(ValueError, match=r"split of tfd must be one of .* did you mean 'unlabelled'"):
        data.tfd(path, "unlabeled")
    with pytest.raises(ValueError, match="fold must be from 0 to 4, got 5"):
        data.tfd(path, fold=5)
    with pytest.raises(ValueError, match="split of olivetti must be one of train, fit, valid, got 'test'"):
        data.olivetti(split="test")


def write_olivetti(folder, n=400, side=64):
    folder.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[:side, :side]
    images = np.stack([np.where(rows + columns < i % 100, 250, i % 200) for i in range(n)]).astype(np.uint8)
    (folder / "olivetti-images-idx3-ubyte").write_bytes(idx_bytes(images))
    return images


def test_olivetti_from_a_file(tmp_path, monkeypatch):
    images = write_olivetti(tmp_path / "olivetti")
    monkeypatch.setenv("PYGAN_DATA", str(tmp_path))
    whole, fit, valid = data.load("olivetti"), data.load("olivetti:fit"), data.held_out("olivetti:fit", "valid")
    assert [(d.name, len(d), d.image_shape) for d in (whole, fit, valid)] == [
        ("olivetti", 400, (48, 48)),
        ("olivetti:fit", 350, (48, 48)),
        ("olivetti:valid", 50, (48, 48)),
    ]
    assert torch.equal(torch.cat([fit.values, valid.values]), whole.values)
    assert whole.values.dtype == torch.uint8
    assert fit.labels.unique().tolist() == list(range(35))
    assert valid.labels.unique().tolist() == list(range(35, 40))
    # Reduced, not transposed: the light corner stays the upper left one, and the mean is kept.
    faces = whole.values.reshape(-1, 48, 48)
    assert (int(faces[99, 0, 0]), int(faces[99, -1, -1])) == (250, 99)
    assert torch.equal(faces[:, 0, -1], faces[:, -1, 0])
    means = torch.from_numpy(images.reshape(400, -1).astype(np.float32)).mean(dim=1)
    torch.testing.assert_close(whole.values.float().mean(dim=1), means, atol=0.5, rtol=0)


def test_olivetti_of_another_form_gets_a_sentence(tmp_path):
    write_olivetti(tmp_path, n=60, side=32)
    with pytest.raises(ValueError, match=r"olivetti-images-idx3-ubyte must hold uint8 \(n, 64, 64\), got uint8"):
        data.olivetti(tmp_path)
    write_olivetti(tmp_path, n=50)
    with pytest.raises(ValueError, match="olivetti:fit needs more than 50 training rows, the files have 50"):
        data.olivetti(tmp_path, "fit")


def test_olivetti_through_scikit_learn(tmp_path, monkeypatch, capsys):
    images = write_olivetti(tmp_path / "file/olivetti")
    images[0, 0, :2] = 0, 242  # the ends of the original files, to which scikit-learn stretches
    asked = []

    def fetch(data_home):
        asked.append(data_home)
        print("downloading Olivetti faces")
        return types.SimpleNamespace(images=np.minimum(images, 242).astype(np.float32) / 242)

    monkeypatch.setattr(sklearn.datasets, "fetch_olivetti_faces", fetch)
    (tmp_path / "file/olivetti/olivetti-images-idx3-ubyte").write_bytes(idx_bytes(np.minimum(images, 242)))
    fetched = data.olivetti(tmp_path / "root")
    assert asked == [tmp_path / "root/olivetti"]
    assert torch.equal(fetched.values, data.olivetti(tmp_path / "file").values)
    assert len(asked) == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "downloading Olivetti faces\n")


def test_olivetti_that_is_not_to_be_had(tmp_path, monkeypatch):
    def fetch(data_home):
        raise OSError("<urlopen error no route>")

    monkeypatch.setattr(sklearn.datasets, "fetch_olivetti_faces", fetch)
    with pytest.raises(data.DownloadError, match=r"(?s)olivetti: .* could not download.* no route.*Looked in.*Put the"):
        data.olivetti(tmp_path)


def test_the_real_olivetti_faces(pygan_data):
    if not (pygan_data / "olivetti").is_dir():
        pytest.skip("PYGAN_DATA has no folder olivetti")
    made = data.olivetti(pygan_data)
    assert (made.values.shape, made.labels.bincount().tolist()) == ((400, 2304), [10] * 40)
    assert made.as_float().mean().item() == pytest.approx(0.519, abs=0.001)
    # Pictures of one person are alike: nearer to one another than to others', on average.
    people = made.as_float().reshape(40, 10, 2304)
    within = (people - people.mean(dim=1, keepdim=True)).pow(2).mean()
    between = (people.mean(dim=1) - people.mean(dim=(0, 1))).pow(2).mean()
    assert between > within
