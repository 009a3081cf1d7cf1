"""Layers on CUDA kernels may leave the product to torch's library: the same results, by either way."""

import pytest
import torch

import pygan
from cases import DTYPES, assert_twins, dtype_id, layer
from pygan import ops, reference

SIMT = pygan.build_info()["simt"]
KINDS = ["fused", "library"]
over_kinds = pytest.mark.parametrize("kind", KINDS)

# (m, k, n); in small tiles, ragged, empty, n of 150 pieces
SHAPES = [(5, 7, 6), (64, 100, 128), (33, 65, 72), (0, 4, 6), (3, 0, 6), (9, 17, 150)]


@over_kinds
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linear_act(shape, dtype, kind, device):
    with ops.products(kind):
        assert_twins(
            lambda *tensors: ops.linear_act(*tensors, activation="tanh"),
            lambda *tensors: reference.linear_act(*tensors, activation="tanh"),
            layer(*shape, dtype, device),
            length=max(shape),
        )


@over_kinds
@pytest.mark.parametrize("pieces", [1, 2, 3, 150])
def test_maxout(pieces, kind, device):
    with ops.products(kind):
        assert_twins(
            lambda *tensors: ops.maxout(*tensors, pieces=pieces),
            lambda *tensors: reference.maxout(*tensors, pieces=pieces),
            layer(9, 17, 300, torch.float32, device),
            length=300,
        )


def test_dropout_is_the_same_by_either_way(device):
    x, weight, bias = layer(20, 31, 15, torch.float32, device)
    results = []
    for kind in KINDS:
        with ops.products(kind):
            inputs = [tensor.detach().clone().requires_grad_() for tensor in (x, weight, bias)]
            y = torch.ops.pygan.linear_act(*inputs, activation="elu", dropout=0.4, seed=3, offset=5)
            results.append([y, *torch.autograd.grad(y.square().sum(), inputs)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not SIMT, reason="TF32 is for CUDA kernels; on a GPU it is test_tf32 below")
def test_tf32_rounds_the_factors_alone():
    check_tf32(torch.device("cpu"))


@pytest.mark.gpu
def test_tf32():
    check_tf32(torch.device("cuda"))


def check_tf32(device):
    """At most one part in 2^11 off for each factor, and exact where the factors are TF32 already."""
    inputs = layer(64, 100, 48, torch.float32, device)
    truth = reference.linear_act(*(tensor.double() for tensor in inputs), activation="identity")
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        rounded = ops.linear_act(*inputs, activation="identity")
        coarse = [tensor.bfloat16().float() for tensor in inputs]
        exact = ops.linear_act(*coarse, activation="identity")
    finally:
        torch.set_float32_matmul_precision(before)
    error = ((rounded - truth).norm() / truth.norm()).item()
    assert 1e-5 < error < 2e-3
    torch.testing.assert_close(exact, reference.linear_act(*coarse, activation="identity"))


def test_unknown_kind_and_restoring():
    with pytest.raises(ValueError, match="kind must be one of auto, fused, library"), ops.products("cublas"):
        pass
    with ops.products("fused"):
        with ops.products("library"):
            assert pygan._C.product_choice() == 2
        assert pygan._C.product_choice() == 1
    assert pygan._C.product_choice() == 0
