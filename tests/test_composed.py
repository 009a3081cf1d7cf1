"""The plain torch operations that stand in on GPUs without kernels: run here on CPU tensors, against the ops."""

import inspect
import subprocess
import sys

import pytest
import torch

from cases import ACTIVATIONS, DTYPES, dtype_id, error, layer, normal, shape_id
from pygan import composed, random
from pygan.losses import DISCRIMINATOR_KINDS, GENERATOR_KINDS

RANDOM = {"dropout": 0.3, "seed": 5, "offset": random.offset(random.DROPOUT_G, 9)}
MASKS = [(True, True, True), (True, False, False), (False, True, True)]

SHAPES = [(0, 3, 4), (3, 0, 4), (3, 4, 0), (1, 1, 1), (7, 13, 17), (64, 100, 128)]

over_shapes = pytest.mark.parametrize("shape", SHAPES, ids=shape_id)
over_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)


def assert_like_the_op(name, *args, **keywords):
    """The same shapes and dtypes, values equal up to roundings of the dtype."""
    expected = getattr(torch.ops.pygan, name)(*args, **keywords)
    got = composed.KERNELS[name](*args, **keywords)
    several = not isinstance(expected, torch.Tensor)
    for one, other in zip(got if several else [got], expected if several else [expected], strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        tolerance = 8 * torch.finfo(other.dtype).eps if other.dtype.is_floating_point else 0
        if other.isfinite().all():
            assert error(one, other) <= tolerance
        else:
            assert torch.equal(one.isnan(), other.isnan())
    return got


@over_shapes
@over_dtypes
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_linear_act(shape, dtype, activation):
    x, weight, bias = layer(*shape, dtype=dtype)
    keywords = {"activation": activation, "slope": 0.2, **RANDOM}
    y = assert_like_the_op("linear_act", x, weight, bias, **keywords)
    grad_y = normal(*y.shape, dtype=dtype, seed=4)
    for mask in MASKS:
        assert_like_the_op("linear_act_backward", grad_y, x, weight, y, output_mask=mask, **keywords)


@pytest.mark.parametrize("leading", [(), (2, 3), (2, 0, 4)], ids=str)
def test_leading_dimensions(leading):
    x, (_, weight, bias) = normal(*leading, 13), layer(1, 13, 6)
    keywords = {"activation": "tanh", "slope": 0.0, **RANDOM}
    y = assert_like_the_op("linear_act", x, weight, bias, **keywords)
    assert_like_the_op("linear_act_backward", y, x, weight, y, output_mask=MASKS[0], **keywords)
    y, winner = assert_like_the_op("maxout_forward", x, weight, None, pieces=3, **RANDOM)
    assert_like_the_op("maxout_backward", y, x, weight, winner, pieces=3, output_mask=MASKS[0], **RANDOM)


@over_shapes
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=dtype_id)  # in half types near ties round apart
@pytest.mark.parametrize("pieces", [1, 5])
def test_maxout(shape, dtype, pieces):
    m, k, n = shape
    x, weight, bias = layer(m, k, n * pieces, dtype=dtype)
    y, winner = assert_like_the_op("maxout_forward", x, weight, bias, pieces=pieces, **RANDOM)
    grad_y = normal(*y.shape, dtype=dtype, seed=4)
    for mask in MASKS:
        keywords = {"pieces": pieces, "output_mask": mask, **RANDOM}
        assert_like_the_op("maxout_backward", grad_y, x, weight, winner, **keywords)


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (7, 13, 17), (64, 100, 128)], ids=shape_id)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=dtype_id)  # half types: variances near zero
@pytest.mark.parametrize("given", [False, True], ids=["batch", "running"])
def test_linear_batch_norm_act(shape, dtype, given):
    n = shape[2]
    x, weight, bias = layer(*shape, dtype=dtype)
    gamma, beta, mean = (normal(n, dtype=dtype, seed=seed) for seed in (5, 6, 7))
    statistics = (mean, gamma.abs() + 1) if given else (None, None)
    for keep in (True, False):
        settings = {"activation": "tanh", "slope": 0.0}
        y, h, used, inverse, _ = assert_like_the_op(
            "linear_batch_norm_act_forward", x, weight, bias, gamma, beta, *statistics, eps=0.1, keep=keep, **settings
        )
        if not keep:
            continue
        grad_y = normal(*y.shape, dtype=dtype, seed=4)
        for mask in MASKS:
            keywords = {"batch_statistics": not given, "output_mask": mask, **settings}
            saved = (x, weight, h, y, gamma, used, inverse)
            assert_like_the_op("linear_batch_norm_act_backward", grad_y, *saved, **keywords)


def test_maxout_takes_the_first_of_equals_and_nan():
    weight = torch.tensor([[1.0], [1.0], [0.0], [0.0], [float("nan")], [2.0]])
    _, winner = assert_like_the_op(
        "maxout_forward", torch.ones(1, 1), weight, None, pieces=3, **RANDOM | {"dropout": 0}
    )
    assert winner.tolist() == [[0, 1]]


@over_dtypes
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7, 3)], ids=str)
@pytest.mark.parametrize("p", [0.0, 0.5, 0.9])
def test_dropout_has_the_ops_bits(shape, dtype, p):
    x = normal(*shape, dtype=dtype)
    got = assert_like_the_op("dropout", x, p=p, seed=1, offset=2)
    assert torch.equal(got, torch.ops.pygan.dropout(x, p=p, seed=1, offset=2))


@over_dtypes
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("shape", [(0, 1), (1, 1), (33, 1)], ids=str)
def test_losses(shape, dtype, reduction):
    real, fake = normal(*shape, dtype=dtype, seed=1, scale=20.0), normal(*shape, dtype=dtype, seed=2, scale=20.0)
    for kind in DISCRIMINATOR_KINDS:
        smoothing = 0.1 if kind == "logistic" else 0.0
        settings = {"kind": kind, "label_smoothing": smoothing, "reduction": reduction}
        grad = torch.ones_like(assert_like_the_op("discriminator_loss", real, fake, **settings))
        assert_like_the_op("discriminator_loss_backward", grad, real, fake, **settings)
    for kind in GENERATOR_KINDS:
        assert_like_the_op("generator_loss", fake, kind=kind, reduction=reduction)
        assert_like_the_op("generator_loss_backward", grad, fake, kind=kind, reduction=reduction)


@over_dtypes
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("shape", [(0, 1), (1, 1), (33, 1)], ids=str)
def test_binary_cross_entropy(shape, dtype, reduction):
    a, target = normal(*shape, dtype=dtype, seed=1, scale=20.0), normal(*shape, dtype=dtype, seed=2).sigmoid()
    for logits, x in ((True, a), (False, a.sigmoid())):
        settings = {"logits": logits, "reduction": reduction}
        grad = torch.ones_like(assert_like_the_op("binary_cross_entropy", x, target, **settings))
        assert_like_the_op("binary_cross_entropy_backward", grad, x, target, **settings)
    outside = torch.tensor([-0.5, 0.5, 1.5, float("nan")], dtype=dtype)
    got = assert_like_the_op("binary_cross_entropy", outside, outside.new_ones(4), logits=False, reduction="none")
    assert got.isnan().tolist() == [True, False, True, True]


@over_dtypes
@pytest.mark.parametrize("kind", ["discriminator", "non_saturating", "minimax"])
@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (33, 17)], ids=str)
def test_head_loss(shape, dtype, kind):
    hidden, weight, bias = layer(*shape, 1, dtype=dtype)
    real_rows = len(hidden) // 2 if kind == "discriminator" else 0
    settings = {"real_rows": real_rows, "kind": kind, "label_smoothing": 0.1 if real_rows else 0.0}
    for with_sums in (True, False):
        outputs = assert_like_the_op("head_loss_forward", hidden, weight, bias, with_sums=with_sums, **settings)
    loss, *rest = outputs
    grad_loss, grad_logits = torch.full_like(loss, 0.7), normal(shape[0], dtype=dtype, seed=4)
    for given in ((grad_loss, None), (None, grad_logits), (grad_loss, grad_logits)):
        for mask in MASKS:
            assert_like_the_op("head_loss_backward", *given, hidden, weight, *rest, output_mask=mask, **settings)


@pytest.mark.parametrize(
    ("name", "states", "keywords"),
    [
        ("momentum_", 1, {"lr": 0.1, "momentum": 0.9}),
        ("adam_", 2, {"step": 3, "lr": 0.1, "beta1": 0.5, "beta2": 0.999, "eps": 1e-8}),
    ],
)
@over_dtypes
def test_updates(name, states, keywords, dtype):
    shapes = [(3, 4), (0,), (5,)]
    groups = [[normal(*shape, dtype=dtype, seed=i).abs() for shape in shapes] for i in range(2 + states)]
    twins = [[tensor.clone() for tensor in group] for group in groups]
    getattr(torch.ops.pygan, name)(*twins, **keywords)
    versions = [tensor._version for tensor in groups[0]]
    composed.KERNELS[name](*groups, **keywords)
    assert all(tensor._version > version for tensor, version in zip(groups[0], versions, strict=True))
    for group, twin in zip(groups, twins, strict=True):
        for one, other in zip(group, twin, strict=True):
            assert error(one, other) <= 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_random_numbers_are_the_ops(kind):
    keywords = {"kind": kind, "seed": 3, "offset": 4, "dtype": None, "device": torch.device("cpu")}
    assert torch.equal(composed.noise([5, 3], **keywords), torch.ops.pygan.noise([5, 3], **keywords))
    keywords = {"start": 7, "seed": 3, "offset": 4, "device": torch.device("cpu")}
    assert torch.equal(
        composed.minibatch_indices(10, 25, **keywords), torch.ops.pygan.minibatch_indices(10, 25, **keywords)
    )


BAD = {
    "activation": lambda x, w: composed.linear_act(x, w, activation="rellu"),
    "same last dimension": lambda x, w: composed.linear_act(x, w[:, 1:]),
    "dtype": lambda x, w: composed.linear_act(x, w.double()),
    "pieces": lambda x, w: composed.maxout_forward(x, w, None, pieces=4, **RANDOM),
    "real_rows": lambda x, w: composed.head_loss_forward(
        x, w[:1], None, real_rows=3, kind="discriminator", label_smoothing=0.0, with_sums=True
    ),
    "reduction": lambda x, w: composed.generator_loss(x, reduction="avg"),
    "p must be": lambda x, w: composed.dropout(x, p=1.0, seed=0, offset=0),
    "lr": lambda x, w: composed.momentum_([x], [x], [x], lr=-1.0, momentum=0.5),
    "step": lambda x, w: composed.adam_([x], [x], [x], [x], step=0, lr=1.0, beta1=0.5, beta2=0.9, eps=0.0),
    "kind": lambda x, w: composed.noise([1], kind="gaussian", seed=0, offset=0),
}


@pytest.mark.parametrize("words", BAD)
def test_arguments_are_checked_as_the_ops_check_them(words):
    with pytest.raises((ValueError, TypeError), match=words):
        BAD[words](torch.ones(2, 3), torch.ones(6, 3))


def test_small_mlp():
    """Against the layers' own ops: the CPU has no kernel for a whole network."""
    weights, biases, names = [normal(5, 4), normal(2, 5, seed=1)], [normal(5, seed=2), None], ["tanh", "elu"]
    x, grad = normal(3, 4, seed=3), normal(3, 2, seed=4)
    outputs = composed.small_mlp(x, weights, biases, activations=names)
    h, expected = x, []
    for weight, bias, name in zip(weights, biases, names, strict=True):
        expected.append(h := torch.ops.pygan.linear_act(h, weight, bias, activation=name))
    torch.testing.assert_close(outputs, expected)
    grad_x, *of_sums = composed.small_mlp_backward(grad, weights, outputs, activations=names, slope=0.01, input=True)
    for i in (1, 0):
        settings = {"activation": names[i], "slope": 0.01, "dropout": 0.0, "seed": 0, "offset": 0}
        inputs = (grad, outputs[0] if i else x, weights[i], outputs[i])
        grad, _, summed = torch.ops.pygan.linear_act_backward(*inputs, **settings, output_mask=[True] * 3)
        torch.testing.assert_close(of_sums[i].sum(0), summed)
    torch.testing.assert_close(grad_x, grad)


# ---- when they are used ----


def has_kernel(name: str, key: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"pygan::{name}", key)


def test_every_op_with_a_kernel_has_a_composed_one():
    ops = {
        name.removeprefix("pygan::").partition(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("pygan::")
    }
    assert set(composed.KERNELS) == {name for name in ops if has_kernel(name, "CPU")}


@pytest.mark.parametrize("name", composed.KERNELS)
def test_arguments_have_the_schemas_names(name):
    """The dispatcher hands defaults and keywords over by name."""
    parameters = inspect.signature(composed.KERNELS[name]).parameters.values()
    schema = [argument.name for argument in getattr(torch.ops.pygan, name).default._schema.arguments]
    named = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    assert set(named) <= set(schema)
    if len(named) == len(parameters):
        assert named == schema


ARCHS = ["sm_80", "sm_90", "sm_100", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("archs", "capability", "served"),
    [
        (ARCHS, (8, 0), True),
        (ARCHS, (8, 9), True),
        (ARCHS, (12, 1), True),
        (ARCHS, (13, 0), True),
        (ARCHS, (11, 0), False),
        (ARCHS, (7, 5), False),
        (["sm_90a"], (9, 0), True),
        (["sm_90a", "compute_90a"], (10, 0), False),
        (["sm_89"], (8, 6), False),
        ([], (8, 0), False),
    ],
)
def test_what_code_runs_where(archs, capability, served):
    assert composed.serves(archs, capability) == served


@pytest.mark.parametrize(
    ("cuda", "gpus", "reason"),
    [
        ("13.0.88", [(9, 0)], None),
        ("13.0.88", [(8, 0), (12, 0)], None),
        ("13.0.88", [], None),
        ("13.0.88", [(9, 0), (7, 5)], "compute capability 8.0 or newer and one here has 7.5"),
        ("13.0.88", [(11, 0)], "Build pygan again with TORCH_CUDA_ARCH_LIST=11.0"),
        (None, [(9, 0)], "pygan was built without CUDA"),
    ],
)
def test_reason(cuda, gpus, reason):
    missing = composed.missing({"cuda": cuda, "archs": ARCHS if cuda else []}, gpus)
    assert (missing is None) if reason is None else (reason in missing)


REGISTERED = """
import warnings, torch, pygan
from pygan import composed

warnings.simplefilter("error")
first = composed.install("these are replaced")  # as a build's own kernels are
second = composed.install("no kernels for this GPU")
for name in composed.KERNELS:
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"pygan::{name}", "CUDA"), name

x, weight = torch.randn(4, 3), torch.randn(5, 3)
on_gpu = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for _ in range(2):
        y = torch.ops.pygan.linear_act.default.redispatch(on_gpu, x, weight, activation="tanh")
    noise = torch.ops.pygan.noise.default.redispatch(on_gpu, [3], seed=1, offset=2, device=torch.device("cpu"))
assert [str(warning.message) for warning in said] == ["no kernels for this GPU"], said
torch.testing.assert_close(y, pygan.ops.linear_act(x, weight, activation="tanh"))
assert torch.equal(noise, pygan.ops.noise([3], seed=1, offset=2))
"""


def test_registered_in_place_of_kernels_with_one_warning(tmp_path):
    done = subprocess.run([sys.executable, "-P", "-c", REGISTERED], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_gpus_are_asked_for_when_cuda_starts_not_at_import(tmp_path):
    code = (
        "import pygan, sys, torch; assert not torch.cuda.is_initialized(); assert 'pygan.composed' not in sys.modules"
    )
    subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, check=True)
