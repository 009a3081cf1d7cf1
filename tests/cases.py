"""The tables that the op tests share: shapes, dtypes with their tolerances, memory layouts, and the judges.

Accuracy is judged against float64 on the same rounded inputs, as relative Frobenius error:

* float64: a few units in the last place, growing with the square root of the summed length.
* float32: 1e-7 * sqrt(length), the random walk of that many roundings, or twice eager torch's own error; the
  elementary functions and their derivatives, right to a few units each, set its floor.
* bfloat16, float16: twice eager torch's own error. Both round at the same places; sums are in float32 here.
"""

import math

import pytest
import torch

# (m, k, n): nothing, one, primes, past any tile, and the named workloads' kind of narrow and wide.
SHAPES = [
    (0, 3, 4),
    (3, 0, 4),
    (3, 4, 0),
    (1, 1, 1),
    (1, 7, 1),
    (2, 3, 5),
    (7, 13, 17),
    (31, 37, 41),
    (64, 100, 128),
    (129, 257, 65),
    (33, 784, 1),
    (5, 1009, 3),
    (1009, 3, 7),
    (1, 100, 1201),
]
SMALL_SHAPES = [shape for shape in SHAPES if math.prod(shape) < 1000]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
LOW = (torch.bfloat16, torch.float16)
REDUCTIONS = ("mean", "sum", "none")
ACTIVATIONS = ["identity", "relu", "leaky_relu", "tanh", "sigmoid", "elu", "softplus"]

# A rejected argument may raise any of these; what counts is that the sentence names the argument.
REJECTED = (ValueError, TypeError, RuntimeError, NotImplementedError)


def dtype_id(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def shape_id(shape) -> str:
    return "x".join(map(str, shape))


over_shapes = pytest.mark.parametrize("shape", SHAPES, ids=shape_id)
over_reductions = pytest.mark.parametrize("reduction", REDUCTIONS)
over_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
over_activations = pytest.mark.parametrize("activation", ACTIVATIONS)


# What inductor imports warns about itself.
COMPILER_WARNINGS = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


def words(*needed) -> str:
    """A regular expression for a message in which each of the words stands, in any order."""
    return "(?is)" + "".join(rf"(?=.*(?<!\w)(?:{word})(?!\w))" for word in needed)


def normal(*shape, dtype=torch.float32, device="cpu", seed=0, scale=1.0) -> torch.Tensor:
    """The same numbers on each device, rounded to dtype."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype).to(device)


def layer(m, k, n, dtype=torch.float32, device="cpu", bias=True) -> list[torch.Tensor]:
    """x (m, k), weight (n, k), bias (n): of a size that keeps pre-activations near one."""
    tensors = [
        normal(m, k, dtype=dtype, device=device, seed=1),
        normal(n, k, dtype=dtype, device=device, seed=2, scale=max(k, 1) ** -0.5),
    ]
    return [*tensors, normal(n, dtype=dtype, device=device, seed=3)] if bias else tensors


LAYOUTS = {
    "transposed": lambda x: x.mT.contiguous().mT,
    "every second column": lambda x: torch.stack((x, x + 1), dim=-1).flatten(-2)[..., ::2],
    "every second row": lambda x: torch.stack((x, x - 1), dim=-2).flatten(-3, -2)[..., ::2, :],
    "columns of a wider one": lambda x: torch.cat((x + 1, x, x - 1), dim=-1)[..., x.shape[-1] : 2 * x.shape[-1]],
    "one past alignment": lambda x: torch.cat((x.flatten()[:1], x.flatten()))[1:].view(x.shape),
}


def three_orders(function, inputs, dtype=None) -> dict[str, torch.Tensor]:
    """Value, gradients, and gradients of the gradients, all against fixed random cotangents.

    The inputs are taken in ``dtype`` (default: their own); cotangents are rounded to the inputs' own dtype
    first, so that runs in different precisions answer the same question.
    """
    own, device = inputs[0].dtype, inputs[0].device
    leaves = [tensor.detach().to(dtype or own).requires_grad_() for tensor in inputs]

    def cotangent(like, seed):
        return normal(*like.shape, dtype=own, device=device, seed=seed).to(like.dtype)

    value = function(*leaves)
    incoming = cotangent(value, 100).requires_grad_()
    firsts = torch.autograd.grad(value, leaves, incoming, create_graph=True)
    seconds = torch.autograd.grad(
        firsts,
        [*leaves, incoming],
        [cotangent(g, 200 + i) for i, g in enumerate(firsts)],
        materialize_grads=True,
    )
    result = {"value": value}
    result |= {f"gradient {i}": tensor for i, tensor in enumerate(firsts)}
    result |= {f"second gradient {i}": tensor for i, tensor in enumerate(seconds)}
    return {name: tensor.detach() for name, tensor in result.items()}


def error(got, truth) -> float:
    """Relative Frobenius error, in float64; absolute where the truth is zero."""
    distance = torch.linalg.vector_norm(got.double() - truth.double()).item()
    return distance / (torch.linalg.vector_norm(truth.double()).item() or 1.0)


def assert_accurate(got, eager, truth, *, length, name="value"):
    """``got`` is as near to the float64 ``truth`` as its dtype's row of the table above asks."""
    assert got.shape == truth.shape, f"{name}: shape {tuple(got.shape)}, expected {tuple(truth.shape)}"
    assert got.dtype == eager.dtype, f"{name}: {got.dtype}, expected {eager.dtype}"
    root = math.sqrt(max(length, 1))
    bound = 2.0 * error(eager, truth)
    if got.dtype == torch.float64:
        bound = 2e-15 * max(root, 8.0)
    elif got.dtype == torch.float32:
        # A lone number may be a sum that all but cancels.
        bound = max(bound, 1e-7 * max(root, 8.0) * (4.0 if truth.numel() == 1 else 1.0))
    else:
        # Eager may be lucky, the more so with few numbers: some units in the last place are always allowed.
        bound = max(bound, (4.0 if truth.numel() < 100 else 1.0) * torch.finfo(got.dtype).eps)
    assert error(got, truth) <= bound, f"{name}: error {error(got, truth):.3g} above {bound:.3g}"


def assert_twins(ours, twin, inputs, *, length):
    """Value, first and second gradients of an op against its twin run in float64."""
    got = three_orders(ours, inputs)
    eager = three_orders(twin, inputs)
    truth = three_orders(twin, inputs, torch.float64)
    for name in truth:
        assert_accurate(got[name], eager[name], truth[name], length=length, name=name)


def leaves(*tensors) -> list[torch.Tensor]:
    """Fresh copies that ask for gradients."""
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def value_and_gradients(function, tensors) -> list[torch.Tensor]:
    fresh = leaves(*tensors)
    value = function(*fresh)
    return [value.detach(), *torch.autograd.grad(value, fresh, normal(*value.shape, seed=9).to(value))]


def assert_same_bits(first, second):
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


def assert_checked(op, args, kwargs=None):
    """All of torch.library.opcheck: schema, autograd registration, fake tensors, symbolic shapes."""
    torch.library.opcheck(op, args, kwargs or {})
