"""mlp: a whole network as one op, equal to its layers one by one."""

import itertools

import pytest
import torch

import pygan
from cases import (
    COMPILER_WARNINGS,
    DTYPES,
    REJECTED,
    assert_checked,
    assert_same_bits,
    assert_twins,
    dtype_id,
    leaves,
    normal,
    over_dtypes,
    three_orders,
    value_and_gradients,
    words,
)
from pygan import reference

KEY = {"seed": 77, "offset": (0x100 << 48) + 5}
# (rows, sizes of the layers' outputs after the input, keywords); maxout's sizes count units.
NETWORKS = {
    "one layer": (5, (7, 3), {"activations": ["tanh"]}),
    "generator": (9, (5, 17, 13, 11), {"activations": ["relu", "leaky_relu", "sigmoid"], "slope": 0.2}),
    "discriminator": (16, (23, 14, 9, 1), {"activations": ["leaky_relu", "softplus", "identity"]}),
    "dropped": (8, (20, 11, 1), {"activations": ["elu", "identity"], "dropout": [0.2, 0.5], **KEY}),
    "one p for all": (8, (20, 11, 1), {"activations": ["elu", "identity"], "dropout": 0.5, **KEY}),
    "maxout": (6, (19, 7, 5, 1), {"activations": ["maxout", "maxout", "identity"], "pieces": 3}),
    "the paper's": (6, (19, 7, 5, 1), {
        "activations": ["maxout", "maxout", "identity"], "pieces": 5, "dropout": [0.2, 0.5, 0.5], **KEY,
    }),
    "no rows": (0, (7, 5, 3), {"activations": ["tanh", "identity"]}),
    "no columns": (4, (0, 5, 3), {"activations": ["tanh", "identity"]}),
    "an empty layer": (4, (5, 0, 3), {"activations": ["tanh", "identity"]}),
    "ones": (1, (1, 1, 1), {"activations": ["softplus", "sigmoid"]}),
    "wide": (33, (100, 300, 1), {"activations": ["relu", "identity"]}),
}  # fmt: skip
over_networks = pytest.mark.parametrize("name", NETWORKS)


def network(name, dtype=torch.float32, device="cpu", bias=True):
    """x, weights and biases flat in one list, and the two functions of it."""
    rows, sizes, keywords = NETWORKS[name]
    tensors = [normal(rows, sizes[0], dtype=dtype, device=device)]
    for i, (k, n) in enumerate(itertools.pairwise(sizes)):
        n *= keywords.get("pieces", 1) if keywords["activations"][i] == "maxout" else 1
        tensors.append(normal(n, k, dtype=dtype, device=device, seed=10 + i, scale=max(k, 1) ** -0.5))
        if bias:
            # Spread wide enough that the order of a unit's pieces is beyond doubt in any dtype.
            spread = 20.0 if keywords["activations"][i] == "maxout" else 1.0
            tensors.append(normal(n, dtype=dtype, device=device, seed=20 + i, scale=spread))

    def on_lists(function):
        def run(x, *flat):
            weights, biases = (flat[::2], flat[1::2]) if bias else (flat, [None] * len(flat))
            return function(x, list(weights), list(biases), **keywords)

        return run

    return tensors, on_lists(pygan.ops.mlp), on_lists(reference.mlp)


@over_networks
@over_dtypes
def test_three_orders(name, dtype, device):
    tensors, ours, twin = network(name, dtype, device)
    assert_twins(ours, twin, tensors, length=max(tensors[0].shape) * (len(tensors) // 2))


@over_networks
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=dtype_id)
def test_without_biases(name, dtype, device):
    tensors, ours, twin = network(name, dtype, device, bias=False)
    assert_twins(ours, twin, tensors, length=max(tensors[0].shape) * len(tensors))


@over_dtypes
def test_some_biases(dtype):
    x, w0, w1, b1 = (normal(*s, dtype=dtype, seed=i) for i, s in enumerate([(5, 6), (7, 6), (3, 7), (3,)]))

    def run(mlp):
        return lambda x, w0, w1, b1: mlp(x, [w0, w1], [None, b1], activations=["tanh", "identity"])

    assert_twins(run(pygan.ops.mlp), run(reference.mlp), [x, w0 * 0.4, w1 * 0.4, b1], length=14)


@over_networks
def test_equals_its_layers_one_by_one(name, device):
    """The same function of the same dropout bits, whichever way it is written."""
    tensors, ours, _ = network(name, device=device)
    keywords = dict(NETWORKS[name][2])
    activations = keywords.pop("activations")
    pieces, rates = keywords.pop("pieces", 1), keywords.pop("dropout", 0.0)
    rates = [rates] * len(activations) if isinstance(rates, float) else rates

    def layers(x, *flat):
        for i, activation in enumerate(activations):
            random = {"dropout": rates[i], "seed": KEY["seed"], "offset": KEY["offset"] + (i << 48)}
            if activation == "maxout":
                x = torch.ops.pygan.maxout(x, *flat[2 * i : 2 * i + 2], pieces=pieces, **random)
            else:
                slope = keywords.get("slope", 0.01)
                x = torch.ops.pygan.linear_act(
                    x, *flat[2 * i : 2 * i + 2], activation=activation, slope=slope, **random
                )
        return x

    one, other = three_orders(ours, tensors), three_orders(layers, tensors)
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("leading", [(), (2, 3), (2, 0)], ids=str)
def test_leading_dimensions(leading):
    tensors, ours, twin = network("generator", torch.float64)
    tensors[0] = normal(*leading, 5, dtype=torch.float64)
    assert_twins(ours, twin, tensors, length=60)


def test_strided_parameters_and_input():
    tensors, ours, twin = network("dropped", torch.float64)

    def strided(function):
        def run(*tensors):
            return function(*(t.mT.contiguous().mT if t.dim() == 2 else t.repeat_interleave(2)[::2] for t in tensors))

        return run

    assert_twins(strided(ours), strided(twin), tensors, length=60)


@pytest.mark.parametrize("name", ["generator", "dropped", "the paper's"])
def test_gradcheck(name):
    tensors, ours, _ = network(name, torch.float64)
    small = [tensors[0][:3], *tensors[1:]]
    assert torch.autograd.gradcheck(ours, leaves(*small), fast_mode=True)
    assert torch.autograd.gradgradcheck(ours, leaves(*small), fast_mode=True)


def test_gradcheck_entry_by_entry():
    x, w0, b0, w1 = (normal(*s, dtype=torch.float64, seed=i) for i, s in enumerate([(2, 3), (4, 3), (4,), (1, 2)]))

    def run(x, w0, b0, w1):
        return pygan.ops.mlp(x, [w0, w1], [b0, None], activations=["maxout", "softplus"], pieces=2, dropout=0.3, **KEY)

    assert torch.autograd.gradcheck(run, leaves(x, w0, b0, w1))
    assert torch.autograd.gradgradcheck(run, leaves(x, w0, b0, w1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_id)
@pytest.mark.parametrize("name", ["wide", "the paper's"])
def test_thread_counts_and_repeats_give_the_same_bits(name, dtype, set_threads):
    tensors, ours, _ = network(name, dtype)
    tensors[0] = normal(500, tensors[0].shape[1], dtype=dtype)
    set_threads(1)
    with pygan.ops.products("fused"):
        one = value_and_gradients(ours, tensors)
        set_threads(2)
        assert_same_bits(one, value_and_gradients(ours, tensors))
        assert_same_bits(one, value_and_gradients(ours, tensors))


def test_frozen_network_passes_the_gradient_through():
    """The generator's step: gradient to x, none to the discriminator's parameters."""
    tensors, ours, twin = network("discriminator")
    x = tensors[0].clone().requires_grad_()
    (got,) = torch.autograd.grad(ours(x, *tensors[1:]).sum(), x)
    (expected,) = torch.autograd.grad(twin(x, *tensors[1:]).sum(), x)
    torch.testing.assert_close(got, expected)


def test_saved_state_is_one_output_a_layer():
    tensors, ours, _ = network("generator")
    tensors = leaves(*tensors)
    own = {tensor.data_ptr() for tensor in tensors}
    extra = {}

    def pack(tensor):
        if tensor.data_ptr() not in own:
            extra[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ours(*tensors)
    assert sum(extra.values()) <= 9 * (17 + 13 + 11)


def test_nan_reaches_its_row_and_no_other():
    tensors, ours, _ = network("discriminator")
    tensors[0][3, 2] = float("nan")
    value = ours(*tensors)
    assert value[3].isnan().all()
    assert value.isnan().sum() == 1


def test_autocast():
    tensors, ours, _ = network("generator")
    fresh = leaves(*tensors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = ours(*fresh)
        assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert all(tensor.grad.dtype == torch.float32 for tensor in fresh)


@COMPILER_WARNINGS
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_without_graph_break(backend):
    tensors, ours, _ = network("the paper's")

    def loss(*flat):
        return ours(*flat).square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    fresh, plain = leaves(*tensors), leaves(*tensors)
    compiled(*fresh).backward()
    loss(*plain).backward()
    for one, other in zip(fresh, plain, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


# mlp is made of its layers: opcheck then meets tensors inside, and looks at their .grad.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_opcheck(dtype, bias):
    x, w0, w1 = leaves(*(normal(*s, dtype=dtype, seed=i) for i, s in enumerate([(3, 4), (6, 4), (2, 3)])))
    biases = leaves(normal(6, dtype=dtype), normal(2, dtype=dtype)) if bias else [None, None]
    keywords = {"activations": ["maxout", "tanh"], "pieces": 2, "dropout": [0.2, 0.5], **KEY}
    assert_checked(torch.ops.pygan.mlp.default, (x, [w0, w1], biases), keywords)


def call(x=None, weights=None, biases=None, **keywords):
    """mlp on (5, 6) with layers (7, 6) and (3, 7), with some argument replaced."""
    x = torch.ones(5, 6) if x is None else x
    weights = [torch.ones(7, 6), torch.ones(3, 7)] if weights is None else weights
    biases = [torch.ones(7), torch.ones(3)] if biases is None else biases
    return pygan.ops.mlp(x, weights, biases, **{"activations": ["relu", "identity"]} | keywords)


W = [torch.ones(7, 6), torch.ones(3, 7)]
BAD = {
    "first inner dimension": (lambda: call(x=torch.ones(5, 4)), ("x", "4", "6")),
    "second inner dimension": (
        lambda: call(weights=[W[0], torch.ones(3, 8)]),
        (r"weights?\[?1?\]?", "8", "7"),
    ),
    "bias length": (lambda: call(biases=[torch.ones(7), torch.ones(4)]), ("3", "4")),
    "too few biases": (lambda: call(biases=[None]), ("biases", "1", "2")),
    "too few activations": (lambda: call(activations=["relu"]), ("activations", "1", "2")),
    "too many dropouts": (lambda: call(dropout=[0.1, 0.1, 0.1]), ("dropout", "3", "2")),
    "no layers": (lambda: call(weights=[], biases=[], activations=[]), ("weights",)),
    "unknown activation": (lambda: call(activations=["rleu", "identity"]), ("activations?", "rleu", "relu")),
    "near maxout": (lambda: call(activations=["maxuot", "identity"]), ("maxuot", "maxout")),
    "pieces": (lambda: call(activations=["maxout", "identity"], pieces=2), ("pieces", "2", "7")),
    "no pieces": (lambda: call(activations=["maxout", "identity"], pieces=0), ("pieces", "0")),
    "dropout": (lambda: call(dropout=[0.1, 1.0]), ("dropout", "1")),
    "slope": (lambda: call(activations=["leaky_relu", "identity"], slope=-1.0), ("slope", "-1")),
    "mixed dtypes": (lambda: call(weights=[W[0], W[1].double()]), ("float64|double",)),
    "mixed bias": (lambda: call(biases=[torch.ones(7).double(), None]), ("float64|double",)),
    "integer x": (lambda: call(x=torch.ones(5, 6, dtype=torch.int64)), ("x",)),
    "scalar x": (lambda: call(x=torch.ones(())), ("x",)),
    "weight of rank 1": (lambda: call(weights=[torch.ones(6), W[1]]), (r"weights?\[?0?\]?",)),
}


@pytest.mark.parametrize(("bad", "named"), BAD.values(), ids=BAD)
def test_bad_input_gets_a_sentence(bad, named):
    with pytest.raises(REJECTED, match=words(*named)):
        bad()
