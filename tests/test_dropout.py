"""Dropout: the mask of the twin bit for bit, scaled, recomputed in backward and never stored."""

import pytest
import torch

import pygan
from cases import DTYPES, LAYOUTS, REJECTED, assert_checked, dtype_id, leaves, normal, over_dtypes, words
from pygan import reference

KEY = {"seed": 123456789012345, "offset": (0x103 << 48) + 42}
SHAPES = [(), (0,), (1,), (5,), (3, 0), (7, 13), (2, 3, 5), (129, 257), (100003,)]


@over_dtypes
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 0.9])
def test_value_and_gradients_have_the_bits_of_the_twin(shape, p, dtype, device):
    x = normal(*shape, dtype=dtype, device=device)
    grad = normal(*shape, dtype=dtype, device=device, seed=1)
    results = []
    for dropout in (pygan.ops.dropout, reference.dropout):
        (leaf,) = leaves(x)
        (cotangent,) = leaves(grad)
        y = dropout(leaf, p=p, **KEY)
        (first,) = torch.autograd.grad(y, leaf, cotangent, create_graph=True)
        (second,) = torch.autograd.grad(first, cotangent, grad)
        results.append((y, first, second))
    for ours, twin in zip(*results, strict=True):
        assert ours.dtype == dtype
        assert torch.equal(ours, twin)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, device):
    x = normal(12, 7, device=device)
    got = pygan.ops.dropout(LAYOUTS[layout](x), p=0.3, **KEY)
    assert torch.equal(got, reference.dropout(x, p=0.3, **KEY))


def test_expanded_input_and_gradient(device):
    row = normal(1, 9, device=device).requires_grad_()
    y = pygan.ops.dropout(row.expand(50, 9), p=0.5, **KEY)
    y.sum().backward()
    mask = reference.dropout_mask((50, 9), p=0.5, **KEY, device=device)
    assert torch.equal(y, torch.where(mask, 2.0 * row, 0.0))
    torch.testing.assert_close(row.grad, 2.0 * mask.sum(0, keepdim=True).float())


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_keeps_its_share(p):
    n = 200_000
    kept = (pygan.ops.dropout(torch.ones(n), p=p, **KEY) != 0).double().mean().item()
    assert abs(kept - (1.0 - p)) < 4.0 * (p * (1.0 - p) / n) ** 0.5


def test_extreme_probabilities():
    x = torch.ones(10_000)
    assert (pygan.ops.dropout(x, p=2.0**-40, **KEY) == 1.0).all()
    assert (pygan.ops.dropout(x, p=1.0 - 1e-12, **KEY) == 0.0).all()


def test_seed_and_offset_are_64_bits_wide():
    x = torch.ones(1000)

    def kept(seed, offset):
        return tuple(pygan.ops.dropout(x, p=0.5, seed=seed, offset=offset).tolist())

    keys = [(0, 0), (1, 0), (2**32, 0), (-1, 0), (0, 1), (0, 2**32), (0, -1), (2**63 - 1, 2**63 - 1)]
    assert len({kept(*key) for key in keys}) == len(keys)
    assert kept(5, 6) == kept(5, 6)


def test_thread_counts_give_the_same_bits(set_threads):
    x = normal(1000, 300)
    set_threads(1)
    one = pygan.ops.dropout(x, p=0.5, **KEY)
    set_threads(2)
    assert torch.equal(one, pygan.ops.dropout(x, p=0.5, **KEY))


def test_nothing_is_saved_for_backward():
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda _: None):
        pygan.ops.dropout(torch.ones(10, requires_grad=True), p=0.5, **KEY)
    assert not saved


def test_result_is_a_new_tensor():
    x = torch.ones(10)
    for p in (0.0, 0.5):
        assert pygan.ops.dropout(x, p=p, **KEY).data_ptr() != x.data_ptr()


def test_nan_and_infinity_stay_where_they_are_kept(device):
    x = torch.tensor([float("nan"), float("inf"), -float("inf")], device=device).repeat(100)
    torch.testing.assert_close(
        pygan.ops.dropout(x, p=0.5, **KEY), reference.dropout(x, p=0.5, **KEY), equal_nan=True, rtol=0, atol=0
    )


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_gradcheck(p):
    x = normal(4, 5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pygan.ops.dropout(x, p=p, **KEY), x)
    assert torch.autograd.gradgradcheck(lambda x: pygan.ops.dropout(x, p=p, **KEY), x)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_opcheck(dtype):
    for x in (
        normal(3, 5, dtype=dtype).requires_grad_(),
        normal(0, 5, dtype=dtype),
        normal(5, 3, dtype=dtype).mT,
    ):
        assert_checked(torch.ops.pygan.dropout.default, (x,), {"p": 0.3, **KEY})


BAD = {
    "p of one": (lambda: pygan.ops.dropout(torch.ones(3), p=1.0, **KEY), ("p", "1")),
    "p below zero": (lambda: pygan.ops.dropout(torch.ones(3), p=-0.1, **KEY), ("p", r"-0\.1")),
    "p is nan": (lambda: pygan.ops.dropout(torch.ones(3), p=float("nan"), **KEY), ("p", "nan")),
    "integers": (lambda: pygan.ops.dropout(torch.ones(3, dtype=torch.int64), p=0.5, **KEY), ("x",)),
    "complex": (lambda: pygan.ops.dropout(torch.ones(3, dtype=torch.complex64), p=0.5, **KEY), ("x",)),
}


@pytest.mark.parametrize(("call", "named"), BAD.values(), ids=BAD)
def test_bad_input_gets_a_sentence(call, named):
    with pytest.raises(REJECTED, match=words(*named)):
        call()
