"""Data sets: what is in them, and what is refused and how."""

import gzip
import subprocess
import sys

import numpy as np
import pytest
import torch

from datafiles import idx_bytes, isolate
from pygan import data


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path_factory):
    isolate(monkeypatch, tmp_path_factory)


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        (np.uint8, torch.uint8),
        (np.float32, torch.float32),
        (np.float64, torch.float32),
        (np.float16, torch.float32),
        (np.longdouble, torch.float32),
        (np.int8, torch.float32),
        (np.uint16, torch.float32),
        (np.int64, torch.float32),
        (np.bool_, torch.float32),
        (">f4", torch.float32),
        (">i2", torch.float32),
        (torch.uint8, torch.uint8),
        (torch.bfloat16, torch.float32),
        (torch.float64, torch.float32),
        (torch.int32, torch.float32),
        (torch.bool, torch.float32),
    ],
)
def test_as_dataset_takes_every_numeric_dtype(given, dtype):
    values = np.arange(12).reshape(3, 4) % 2
    array = torch.tensor(values).to(given) if isinstance(given, torch.dtype) else values.astype(given)
    made = data.as_dataset(array)
    assert made.values.dtype == dtype
    assert made.values.tolist() == values.tolist()


@pytest.mark.parametrize(
    ("shape", "image_shape"),
    [
        ((1, 1), None),
        ((5, 3), None),
        ((5, 2, 3), (2, 3)),
        ((5, 1, 2, 3), (1, 2, 3)),
        ((5, 3, 2, 4), (3, 2, 4)),
    ],
)
def test_as_dataset_flattens_images_and_keeps_their_shape(shape, image_shape):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    made = data.as_dataset(array, name="pictures")
    assert (made.image_shape, made.name, len(made)) == (image_shape, "pictures", shape[0])
    assert made.dimension == np.prod(shape[1:])
    np.testing.assert_array_equal(made.values.numpy(), array.reshape(shape[0], -1))
    assert data.as_dataset(made) is made


@pytest.mark.parametrize(
    "strided",
    [
        lambda x: x.T,
        lambda x: x[::2, ::3],
        lambda x: x[::-1],
        lambda x: torch.from_numpy(x).T,
        lambda x: torch.from_numpy(x).requires_grad_(),
    ],
)
def test_as_dataset_makes_any_layout_contiguous(strided):
    x = strided(np.arange(48, dtype=np.float32).reshape(6, 8))
    made = data.as_dataset(x)
    assert made.values.is_contiguous()
    assert not made.values.requires_grad
    assert made.values.tolist() == x.tolist()


def test_as_dataset_shares_memory_only_where_it_may_be_written():
    array = np.zeros((2, 2), np.float32)
    assert data.as_dataset(array).values.data_ptr() == array.ctypes.data
    array.flags.writeable = False
    assert data.as_dataset(array).values.data_ptr() != array.ctypes.data


NAN = np.ones((4, 5))
NAN[2, 3] = np.nan
NAN[3, 0] = np.inf
INF = np.ones((4, 2, 3), np.float32)
INF[1, 1, 2] = -np.inf
LARGE = np.full((2, 2), 3e38)
LARGE[1, 0] = 1e300


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ([[1.0, 2.0]], TypeError, "must be a Dataset, a torch.Tensor or a numpy array, got list"),
        (np.ma.masked_array(np.ones((2, 2)), [[0, 0], [0, 1]]), TypeError, "must have all its values, got a masked"),
        (np.array([["a"]]), TypeError, "must hold real numbers, got an array of dtype <U1"),
        (np.ones((2, 2), complex), TypeError, "must hold real numbers, got an array of dtype complex128"),
        (torch.ones(2, 2, dtype=torch.complex64), TypeError, "must be a dense tensor of real numbers"),
        (torch.eye(2).to_sparse(), TypeError, "must be a dense tensor of real numbers"),
        (np.ones(5), ValueError, r"must be \(n, d\), \(n, h, w\) or \(n, c, h, w\), got shape \(5,\)"),
        (torch.ones(1, 1, 1, 1, 1), ValueError, r"got shape \(1, 1, 1, 1, 1\)"),
        (np.ones((0, 3)), ValueError, r"must have at least one row and one column, got shape \(0, 3\)"),
        (np.ones((3, 0)), ValueError, r"must have at least one row and one column, got shape \(3, 0\)"),
        (np.ones((2, 8, 8, 3)), ValueError, r"got shape \(2, 8, 8, 3\); move the last axis to place 1"),
        (np.ones((2, 4, 8, 8)), ValueError, r"with 1 or 3 channels, got shape \(2, 4, 8, 8\)$"),
        (NAN, ValueError, "row 2, column 3 is nan; every value must be finite"),
        (torch.from_numpy(NAN).bfloat16(), ValueError, "row 2, column 3 is nan; every value must be finite"),
        (INF, ValueError, "row 1, column 5 is -inf; every value must be finite"),
        (LARGE, ValueError, r"row 1, column 0 is 1e\+300; too large for float32"),
    ],
)
def test_as_dataset_refuses_in_a_sentence(given, error, words):
    with pytest.raises(error, match=f"^mine:? .*{words}"):
        data.as_dataset(given, name="mine")


def test_finite_values_whose_sum_is_not_are_taken():
    assert len(data.as_dataset(np.full((4, 4), 3e38, np.float32))) == 4


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"values": np.ones((2, 2))}, TypeError, "values must be a torch.Tensor, got ndarray"),
        ({"values": torch.ones(2, 2).double()}, TypeError, "must be uint8 or float32, got torch.float64"),
        ({"values": torch.ones(3, 2).T}, TypeError, "must be contiguous on the CPU"),
        ({"values": torch.ones(2, 2, device="meta")}, TypeError, "must be contiguous on the CPU"),
        ({"values": torch.ones(4)}, ValueError, r"must be \(n, d\) .* got shape \(4,\)"),
        ({"values": torch.tensor([[0.0, torch.nan]])}, ValueError, "row 0, column 1 is nan"),
        ({"image_shape": (3, 3)}, ValueError, r"image_shape .* product 6, got \(3, 3\)"),
        ({"image_shape": (6,)}, ValueError, "image_shape must be"),
        ({"labels": [0, 1]}, TypeError, "labels must be a torch.Tensor, got list"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, ValueError, r"labels must be int64 of shape \(2,\)"),
        ({"labels": torch.zeros(2)}, ValueError, "got torch.float32"),
        ({"modes": torch.zeros(4, 6)}, ValueError, "with mode_std and mode_weights"),
        (
            {"modes": torch.zeros(4, 2), "mode_std": 1.0, "mode_weights": torch.ones(4)},
            ValueError,
            r"\(k, 6\)",
        ),
    ],
)
def test_dataset_holds_its_contract(fields, error, words):
    with pytest.raises(error, match=f"^data: .*{words}"):
        data.Dataset(**{"values": torch.ones(2, 6), **fields})


def test_dataset_subset_and_as_float():
    whole = data.Dataset(
        torch.arange(12, dtype=torch.uint8).reshape(6, 2), torch.arange(6), "whole", image_shape=(1, 2)
    )
    part = whole.subset(slice(1, 4), "part")
    assert part.values.data_ptr() == whole.values[1].data_ptr(), "consecutive rows are not copied"
    assert (part.labels.tolist(), part.name, part.image_shape) == ([1, 2, 3], "part", (1, 2))
    assert whole.subset(torch.tensor([5, 0])).labels.tolist() == [5, 0]
    assert whole.subset(torch.arange(6) > 3).values.tolist() == [[8, 9], [10, 11]]
    assert whole.subset(slice(None, None, 3)).values.is_contiguous()
    with pytest.raises(ValueError, match=r"whole: values must be .* got shape \(0, 2\)"):
        whole.subset(slice(6, 9))
    as_float = whole.as_float()
    assert as_float.dtype == torch.float32
    assert as_float[5, 1] == torch.tensor(11 / 255)
    assert whole.values.dtype == torch.uint8, "the data set itself is not converted"
    floats = data.Dataset(torch.rand(2, 2))
    assert floats.as_float() is floats.values
    assert repr(whole) == "Dataset('whole': 6 x 2 uint8, images 1 x 2, 6 classes)"


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    made, bunch = data.digits(), load_digits()
    np.testing.assert_array_equal(made.values.numpy() * 16, bunch.data)
    np.testing.assert_array_equal(made.labels.numpy(), bunch.target)
    assert (made.values.min(), made.values.max(), made.image_shape) == (0, 1, (8, 8))


def test_importing_data_imports_no_scikit_learn_and_no_matplotlib():
    code = "import pygan.data, pygan.figures, sys; print({'sklearn', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(("name", "k", "std"), [("ring8", 8, 0.02), ("grid25", 25, 0.05)])
def test_mixtures_have_their_moments(name, k, std):
    n = 20_000
    made = data.mixture(name, n=n, seed=3)
    assert made.modes.shape == (k, 2)
    assert len(made.modes.unique(dim=0)) == k
    assert made.mode_std == std
    assert made.mode_weights.sum() == pytest.approx(1)
    if name == "ring8":
        torch.testing.assert_close(made.modes.norm(dim=1), torch.full((k,), 2.0))
    else:
        assert set(made.modes.flatten().tolist()) == {-4.0, -2.0, 0.0, 2.0, 4.0}
    counts = torch.bincount(made.labels, minlength=k).double()
    chi2 = ((counts - n / k) ** 2 / (n / k)).sum()
    assert chi2 < (k - 1) + 4 * (2 * (k - 1)) ** 0.5, "labels are uniform (4 standard deviations of chi squared)"
    noise = (made.values - made.modes[made.labels]).double()
    assert noise.mean(0).abs().max() < 4 * std / n**0.5
    assert noise.std(0).sub(std).abs().max() < 4 * std / (2 * n) ** 0.5
    assert noise.T.corrcoef()[0, 1].abs() < 4 / n**0.5


def test_mixtures_depend_on_the_seed_alone():
    first, again, other = (data.mixture("ring8", n=50, seed=seed) for seed in (7, 7, 8))
    assert torch.equal(first.values, again.values)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.values, other.values)


def test_gaussian():
    made = data.gaussian(3.0, 0.5, n=10_000, seed=1)
    assert made.values.shape == (10_000, 1)
    assert made.values.mean() == pytest.approx(3, abs=0.02)
    assert made.values.std() == pytest.approx(0.5, abs=0.02)
    assert data.gaussian([1.0, -2.0, 0.0], n=5).modes.tolist() == [[1.0, -2.0, 0.0]]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: data.mixture("ring"),
            "mixture must be one of ring8, grid25, got 'ring'; did you mean 'ring8'",
        ),
        (lambda: data.mixture("ring8", n=0), "n must be a whole number of at least 1, got 0"),
        (lambda: data.mixture("ring8", seed=-1), "seed must be a whole number of at least 0, got -1"),
        (lambda: data.gaussian(std=0.0), "std must be a finite number above 0, got 0.0"),
        (lambda: data.gaussian(std="a"), "std must be a finite number above 0, got 'a'"),
        (lambda: data.gaussian([0, 1], [[1, 0], [0, 1]]), "std must be a finite number above 0, got"),
        (lambda: data.gaussian("a"), "mean must be a finite number or a flat sequence of them, got 'a'"),
        (lambda: data.gaussian([[1.0]]), "mean must be a finite number or a flat sequence"),
        (lambda: data.gaussian(float("nan")), "mean must be a finite number"),
    ],
)
def test_synthetic_data_refuse_in_a_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_load_knows_names_and_files(tmp_path, monkeypatch):
    assert data.load("digits").name == "digits"
    assert len(data.load("grid25").modes) == 25
    images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "pictures.idx.gz").write_bytes(gzip.compress(idx_bytes(images)))
    np.save(tmp_path / "rows.npy", images.reshape(2, 12).astype(float))
    read = data.load(tmp_path / "pictures.idx.gz")
    assert (read.name, read.image_shape, read.values.dtype) == ("pictures", (3, 4), torch.uint8)
    assert data.load(str(tmp_path / "rows.npy")).values.tolist() == images.reshape(2, 12).tolist()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").write_bytes(idx_bytes(images))
    assert len(data.load("digits")) == 1797
    assert len(data.load("./digits")) == 2


def test_load_refuses_in_a_sentence(tmp_path):
    (tmp_path / "broken.npy").write_bytes(b"no array")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "nan.npy", np.array([[0.0], [np.nan]]))
    np.savez(tmp_path / "arrays.npz", images=np.zeros((4, 2)))
    (tmp_path / "labels").write_bytes(idx_bytes(np.zeros(4, np.uint8)))
    for given, error, words in [
        ("mnits", ValueError, "'mnits' is neither a known name nor a file; did you mean 'mnist'?"),
        ("Digits", ValueError, "did you mean 'digits'?"),
        ("xyzzy", ValueError, "the names are digits, ring8, grid25, mnist, fashion_mnist, cifar10"),
        (
            "mnist:tset",
            ValueError,
            "split of mnist must be one of train, fit, valid, test, got 'tset'; did you",
        ),
        ("mnist:", ValueError, "got ''"),
        ("ring8:test", ValueError, "'ring8:test': ring8 has no splits"),
        ("digits:tset", ValueError, "split of digits must be one of train, fit, valid, test, got 'tset'"),
        (str(tmp_path / "absent"), FileNotFoundError, "absent': there is no such file"),
        ("absent.npy", FileNotFoundError, "'absent.npy': there is no such file"),
        (tmp_path / "broken.npy", ValueError, "is not a readable .npy file"),
        (tmp_path / "objects.npy", ValueError, "is not a readable .npy file"),
        (tmp_path / "nan.npy", ValueError, "nan: row 1, column 0 is nan"),
        (tmp_path / "labels", ValueError, r"labels must be \(n, d\)"),
        (tmp_path, ValueError, "is a folder"),
        ("", ValueError, "data must be a name or the path of a file, got ''"),
        (tmp_path / "arrays.npz", ValueError, r"arrays\.npz is an archive of arrays: save the one to train on"),
    ]:
        with pytest.raises(error, match=words):
            data.load(given)
