"""What lies between Python and the ops: plain tensors go straight in, everything else by way of torch.ops; errors."""

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import pygan
from cases import COMPILER_WARNINGS
from pygan import ops

X = torch.randn(3, 4)
LIST = [torch.ones(2)]

CALLS = {
    "linear_act": lambda x: ops.linear_act(x, X, X[0, :3], activation="tanh"),
    "maxout": lambda x: ops.maxout(x, torch.ones(6, 4), pieces=3),
    "linear_batch_norm_act": lambda x: ops.linear_batch_norm_act(x, torch.ones(6, 4), training=True, activation="tanh"),
    "discriminator_loss": lambda x: ops.discriminator_loss(x, X),
    "hinge": lambda x: ops.discriminator_loss(x, X, kind="hinge"),
    "generator_loss": lambda x: ops.generator_loss(x, kind="minimax"),
    "binary_cross_entropy": lambda x: ops.binary_cross_entropy(x, X.sigmoid(), logits=True),
    "head_loss": lambda x: ops.head_loss(x, X[:1], X[0, :1], real_rows=2, label_smoothing=0.1)[0],
}
over_calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


class Marked(torch.Tensor):
    """A subclass: results keep the class, which only torch.ops' way brings about."""


@over_calls
def test_subclasses_keep_their_class(call):
    assert isinstance(call(X.as_subclass(Marked)), Marked)


@over_calls
def test_modes_see_the_op(call):
    seen = []

    class Functions(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    class Dispatches(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    for mode in (Functions(), Dispatches()):
        seen.clear()
        with mode:
            call(X)
        assert any("pygan" in name for name in seen)


@over_calls
@COMPILER_WARNINGS
def test_traces(call):
    traced = torch.jit.trace(call, X.clone())
    assert "pygan::" in str(traced.graph)


@over_calls
@COMPILER_WARNINGS
def test_torch_func(call):
    direct = torch.autograd.grad(call(x := X.clone().requires_grad_()).sum(), x)[0]
    torch.testing.assert_close(torch.func.grad(lambda x: call(x).sum())(X), direct)
    with pytest.raises(NotImplementedError, match="has no forward-mode derivative"):
        torch.func.jvp(call, (X,), (X,))


def test_vmap_over_networks():
    networks = [pygan.nn.MLP([4, 5, 1]) for _ in range(3)]
    parameters, buffers = torch.func.stack_module_state(networks)
    together = torch.func.vmap(
        lambda p, b: torch.func.functional_call(networks[0], (p, b), (X,)), in_dims=(0, 0), randomness="error"
    )(parameters, buffers)
    torch.testing.assert_close(together, torch.stack([network(X) for network in networks]))


def test_autocast_lets_dtypes_meet():
    with torch.autocast("cpu", torch.bfloat16):
        loss = ops.discriminator_loss(X, X.bfloat16())
    assert loss.dtype == torch.float32


def test_seeds_of_64_bits():
    assert torch.equal(
        ops.dropout(X, p=0.5, seed=2**64 - 1, offset=2**63), ops.dropout(X, p=0.5, seed=-1, offset=-(2**63))
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.linear_act(X, X[:, :3]), ValueError, "x [3, 4] and weight [3, 3] must have the same last"),
        (lambda: ops.linear_act(np.ones((3, 4)), X), TypeError, "linear_act: x must be a tensor, got numpy.ndarray"),
        (lambda: ops.linear_act(X, X, 1.0), TypeError, "linear_act: bias must be a tensor or None, got float"),
        (lambda: ops.linear_act(X, X, activation=None), TypeError, "linear_act: activation must be a string, got"),
        (lambda: ops.linear_act(X, X, slope="a"), TypeError, "linear_act: slope must be a number, got str"),
        (lambda: ops.linear_act(X.to_sparse(), X), NotImplementedError, "Could not run 'pygan::linear_act'"),
        (lambda: ops.maxout(X, X, pieces=2.5), TypeError, "maxout: pieces must be a whole number, got float"),
        (lambda: ops.maxout(X, X, pieces=2**70), ValueError, "maxout: pieces must be in [1, 256]"),
        (lambda: ops.generator_loss([1.0]), TypeError, "generator_loss: fake_logits must be a tensor, got list"),
        (lambda: ops.generator_loss(X, kind="minmax"), ValueError, "(did you mean 'minimax'?)"),
        (lambda: ops.head_loss(X, X[:1], real_rows=4), ValueError, "real_rows must be in [0, 3]"),
        (lambda: ops.discriminator_loss(X, X, label_smoothing=None), TypeError, "label_smoothing must be a number"),
        (lambda: ops.discriminator_loss(X, X, kind=1), TypeError, "discriminator_loss: kind must be a string, got int"),
        (lambda: ops.binary_cross_entropy(X, 1.0, logits=True), TypeError, "target must be a tensor, got float"),
        (lambda: ops.binary_cross_entropy(X, X, logits=1), TypeError, "logits must be True or False, got int"),
        (lambda: ops.minibatch_indices(5, 10, start=2**63 - 1, seed=0), ValueError, "start + count below 2^63"),
        (lambda: ops.dropout(X, p=0.5, seed=2**64, offset=0), ValueError, "dropout: seed must be a whole number of"),
        (lambda: ops.noise((2,), seed=0, offset=-(2**64)), ValueError, "noise: offset must be a whole number of"),
        (lambda: ops.adam_(LIST, LIST, LIST, LIST, step=1, betas=(0.5,)), ValueError, "betas must be two numbers"),
        (lambda: ops.adam_(LIST, LIST, LIST, LIST, step=1, lr=float("inf")), ValueError, "lr must be finite"),
        (
            lambda: ops.adam_(LIST * 2, LIST * 2, LIST * 2, LIST * 2, step=1),
            ValueError,
            "params[1] shares memory with params[0]",
        ),
        (lambda: ops.adam_([], LIST, [], [], step=1), ValueError, "grads must have one entry for each of the 0"),
    ],
)
def test_errors_are_one_sentence(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
    assert "frame #" not in str(raised.value)
