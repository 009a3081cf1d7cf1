"""momentum_ and adam_: against torch's own Adam, a plain loop of the paper's rule, and the twin."""

import pytest
import torch

import pygan
from cases import DTYPES, LOW, REJECTED, assert_checked, dtype_id, normal, words
from pygan import reference

SHAPES = [(7, 5), (), (0, 3), (1,), (1009,), (33, 65)]
STEPS = 30
ADAM = {"lr": 2e-3, "betas": (0.5, 0.999), "eps": 1e-8}
# float32: a few units for each of 30 steps; bfloat16 and float16: one unit, for both compute in float32.
CLOSE = {
    torch.float64: {"rtol": 1e-12, "atol": 1e-14},
    torch.float32: {"rtol": 2e-6, "atol": 5e-7},
    torch.bfloat16: {"rtol": 2e-2, "atol": 1e-4},
    torch.float16: {"rtol": 4e-3, "atol": 1e-5},
}
over_exact = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=dtype_id)


def parameters(dtype, device="cpu", shapes=SHAPES):
    return [normal(*shape, dtype=dtype, device=device, seed=i) for i, shape in enumerate(shapes)]


def gradients(step, like):
    return [normal(*t.shape, seed=1000 * step + i).to(t) for i, t in enumerate(like)]


def zeros(like):
    return [torch.zeros_like(t) for t in like]


def assert_all_close(got, expected, dtype):
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, **CLOSE[dtype])


@over_exact
def test_adam_is_torchs(dtype, device):
    ours = parameters(dtype, device)
    theirs = [p.clone().requires_grad_() for p in ours]
    m, v = zeros(ours), zeros(ours)
    optimizer = torch.optim.Adam(theirs, **ADAM)
    for step in range(1, STEPS + 1):
        grads = gradients(step, ours)
        pygan.ops.adam_(ours, grads, m, v, step=step, **ADAM)
        for p, g in zip(theirs, grads, strict=True):
            p.grad = g
        optimizer.step()
    assert_all_close(ours, [p.detach() for p in theirs], dtype)
    assert_all_close(m, [optimizer.state[p]["exp_avg"] for p in theirs], dtype)
    assert_all_close(v, [optimizer.state[p]["exp_avg_sq"] for p in theirs], dtype)


@over_exact
def test_momentum_is_the_papers_rule(dtype, device):
    """The learning rate changes every step: it is inside the velocity, unlike torch.optim.SGD's."""
    ours = parameters(dtype, device)
    theirs, velocity, inc = [p.clone() for p in ours], zeros(ours), zeros(ours)
    for step in range(STEPS):
        lr, momentum = 0.1 / 1.5**step, 0.5 + 0.01 * step
        grads = gradients(step, ours)
        pygan.ops.momentum_(ours, grads, velocity, lr=lr, momentum=momentum)
        for p, g, i in zip(theirs, grads, inc, strict=True):
            i.mul_(momentum).sub_(lr * g)
            p.add_(i)
    assert_all_close(ours, theirs, dtype)
    assert_all_close(velocity, inc, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_twins(dtype, device):
    ours, twins = parameters(dtype, device), parameters(dtype, device)
    state, twin_state = [zeros(ours) for _ in range(3)], [zeros(ours) for _ in range(3)]
    for step in range(1, 4):
        grads = gradients(step, ours)
        pygan.ops.momentum_(ours, grads, state[0], lr=0.1, momentum=0.5)
        pygan.ops.adam_(ours, grads, *state[1:], step=step, **ADAM)
        reference.momentum_(twins, grads, twin_state[0], lr=0.1, momentum=0.5)
        reference.adam_(twins, grads, *twin_state[1:], step=step, **ADAM)
    assert_all_close(ours, twins, dtype)
    for one, other in zip(state, twin_state, strict=True):
        assert_all_close(one, other, dtype)


@pytest.mark.parametrize("dtype", LOW, ids=dtype_id)
def test_low_precision_rounds_once_a_step(dtype):
    """One step from the same rounded numbers, in float64, is at most half a unit away."""
    p, g, v = (normal(1000, dtype=dtype, seed=i) for i in range(3))
    exact_v = 0.7 * v.double() - 0.1 * g.double()
    exact_p = p.double() + exact_v
    pygan.ops.momentum_(p, g, v, lr=0.1, momentum=0.7)
    half = torch.finfo(dtype).eps / 2
    torch.testing.assert_close(v.double(), exact_v, rtol=1.01 * half, atol=1e-6)
    torch.testing.assert_close(p.double(), exact_p, rtol=1.01 * half, atol=1e-6)


def test_single_tensors_are_taken_too():
    p, g = parameters(torch.float32, shapes=[(5, 3)] * 2)
    listed, v, m, s = p.clone(), torch.zeros(5, 3), torch.zeros(5, 3), torch.zeros(5, 3)
    pygan.ops.momentum_(p, g, v, lr=0.1, momentum=0.5)
    pygan.ops.adam_(p, g, m, s, step=1, **ADAM)
    pygan.ops.momentum_([listed], [g], zeros([p]), lr=0.1, momentum=0.5)
    pygan.ops.adam_([listed], [g], zeros([p]), zeros([p]), step=1, **ADAM)
    assert torch.equal(p, listed)


def flat_and_views(count=3):
    """Parameters as views of one buffer, with a guard before and after them."""
    sizes = [shape for shape in SHAPES if 0 not in shape][:count]
    numels = [torch.Size(size).numel() for size in sizes]
    flat = normal(sum(numels) + 2, seed=5)
    views, start = [], 1
    for size, numel in zip(sizes, numels, strict=True):
        views.append(flat[start : start + numel].view(size))
        start += numel
    return flat, views


def test_views_of_a_flat_buffer_are_changed_in_place():
    flat, views = flat_and_views()
    before = flat.clone()
    apart = [view.clone() for view in views]
    grads = gradients(1, views)
    pygan.ops.momentum_(views, grads, zeros(views), lr=0.1, momentum=0.5)
    pygan.ops.adam_(views, grads, zeros(views), zeros(views), step=1, **ADAM)
    pygan.ops.momentum_(apart, grads, zeros(views), lr=0.1, momentum=0.5)
    pygan.ops.adam_(apart, grads, zeros(views), zeros(views), step=1, **ADAM)
    assert torch.equal(flat[1:-1], torch.cat([tensor.flatten() for tensor in apart]))
    assert flat[0] == before[0]
    assert flat[-1] == before[-1]


def test_strided_gradients_and_parameters():
    p, g = normal(6, 8), normal(6, 8, seed=1)
    expected = p.clone()
    reference.momentum_(expected, g, torch.zeros(6, 8), lr=0.1, momentum=0.5)
    transposed, v = p.mT.contiguous().mT, torch.zeros(8, 6).mT
    pygan.ops.momentum_(transposed, g.mT.contiguous().mT, v, lr=0.1, momentum=0.5)
    torch.testing.assert_close(transposed, expected)
    mixed = p.clone()
    pygan.ops.momentum_(mixed, g.mT.contiguous().mT, torch.zeros(6, 8), lr=0.1, momentum=0.5)
    torch.testing.assert_close(mixed, expected)
    every_second = torch.stack((p, p), dim=-1)[..., 0]
    m, s = torch.zeros(6, 8), torch.zeros(6, 8)
    pygan.ops.adam_(every_second, g[:1].expand(6, 8), m, s, step=1, **ADAM)
    again = p.clone()
    reference.adam_(again, g[:1].expand(6, 8), torch.zeros(6, 8), torch.zeros(6, 8), step=1, **ADAM)
    torch.testing.assert_close(every_second, again)


def test_thread_counts_give_the_same_bits(set_threads):
    p, g = normal(300, 301), normal(300, 301, seed=1)
    results = []
    for threads in (1, 2):
        set_threads(threads)
        state = [p.clone(), *zeros([p, p, p])]
        pygan.ops.momentum_(state[0], g, state[1], lr=0.1, momentum=0.5)
        pygan.ops.adam_(state[0], g, *state[2:], step=3, **ADAM)
        results.append(state)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_autograd_sees_the_change():
    """A parameter changed between forward and backward is an error, not a wrong gradient."""
    x, w = normal(3, 4), normal(5, 4, seed=1).requires_grad_()
    y = pygan.ops.linear_act(x.requires_grad_(), w, activation="tanh")
    with torch.no_grad():
        pygan.ops.momentum_([w], [torch.ones(5, 4)], [torch.zeros(5, 4)], lr=0.1, momentum=0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_adam_at_a_late_step_and_with_no_momentum():
    p, g = normal(50), normal(50, seed=1)
    twin = p.clone()
    for step in (1, 10**6):
        keywords = {"step": step, "lr": 0.01, "betas": (0.0, 0.0), "eps": 1e-8}
        pygan.ops.adam_(p, g, torch.zeros(50), torch.zeros(50), **keywords)
        reference.adam_(twin, g, torch.zeros(50), torch.zeros(50), **keywords)
    torch.testing.assert_close(p, twin)


def test_zero_gradients_change_nothing_in_adam():
    p = normal(10)
    before = p.clone()
    pygan.ops.adam_(p, torch.zeros(10), torch.zeros(10), torch.zeros(10), step=1, **ADAM)
    assert torch.equal(p, before)


def test_no_parameters_is_no_error():
    pygan.ops.momentum_([], [], [], lr=0.1, momentum=0.5)
    pygan.ops.adam_([], [], [], [], step=1, **ADAM)


def test_opcheck():
    p = parameters(torch.float32, shapes=[(3, 4), (5,)])
    grads = gradients(1, p)
    assert_checked(torch.ops.pygan.momentum_.default, (p, grads, zeros(p)), {"lr": 0.1, "momentum": 0.5})
    keywords = {"step": 1, "lr": 0.1, "beta1": 0.5, "beta2": 0.9, "eps": 1e-8}
    assert_checked(torch.ops.pygan.adam_.default, (p, grads, zeros(p), zeros(p)), keywords)


def momentum(p=None, g=None, v=None, lr=0.1, momentum=0.5):
    good = torch.ones(3, 2)
    pygan.ops.momentum_(*(good.clone() if t is None else t for t in (p, g, v)), lr=lr, momentum=momentum)


def adam(p=None, g=None, m=None, v=None, **keywords):
    good = torch.ones(3, 2)
    given = (good.clone() if t is None else t for t in (p, g, m, v))
    pygan.ops.adam_(*given, **{"step": 1, **ADAM} | keywords)


ONE, TWO = [torch.ones(3, 2)], [torch.ones(3, 2), torch.ones(3, 2)]
OTHER, DOUBLE, LONG = torch.ones(2, 3), torch.ones(3, 2).double(), torch.ones(3, 2).long()
GRAD, VELOCITY, PARAM = r"grads?(\[0\])?", r"velocit(y|ies)(\[0\])?", r"params?(\[0\])?"
BAD = {
    "momentum: a gradient missing": (lambda: momentum(TWO, ONE, TWO), (GRAD, "2", "1")),
    "momentum: a velocity missing": (lambda: momentum(TWO, TWO, []), (VELOCITY, "2", "0")),
    "momentum: gradient's shape": (lambda: momentum(g=OTHER), (GRAD,)),
    "momentum: velocity's shape": (lambda: momentum(v=OTHER), (VELOCITY,)),
    "momentum: gradient's dtype": (lambda: momentum(g=DOUBLE), (GRAD,)),
    "momentum: velocity's dtype": (lambda: momentum(v=DOUBLE), (VELOCITY,)),
    "momentum: integers": (lambda: momentum(LONG, LONG, LONG), (PARAM,)),
    "momentum: lr is nan": (lambda: momentum(lr=float("nan")), ("lr",)),
    "adam: a moment missing": (lambda: adam(TWO, TWO, ONE, TWO), ("m", "2", "1")),
    "adam: m's shape": (lambda: adam(m=OTHER), (r"m(\[0\])?",)),
    "adam: v's shape": (lambda: adam(v=OTHER), (r"v(\[0\])?",)),
    "adam: gradient's shape": (lambda: adam(g=OTHER), (GRAD,)),
    "adam: v's dtype": (lambda: adam(v=DOUBLE), (r"v(\[0\])?",)),
    "adam: step of zero": (lambda: adam(step=0), ("step", "0")),
    "adam: negative step": (lambda: adam(step=-3), ("step", "-3")),
    "adam: beta of one": (lambda: adam(betas=(1.0, 0.9)), (r"betas?(1|\[0\])?", "1")),
    "adam: beta below zero": (lambda: adam(betas=(0.9, -0.1)), (r"betas?(2|\[1\])?", r"-0\.1")),
    "adam: eps below zero": (lambda: adam(eps=-1e-8), ("eps",)),
}


@pytest.mark.parametrize(("bad", "named"), BAD.values(), ids=BAD)
def test_bad_input_gets_a_sentence(bad, named):
    with pytest.raises(REJECTED, match=words(*named)):
        bad()


def test_a_parameter_under_autograd_is_refused_by_the_bare_op():
    """pygan.ops turns autograd off, as torch's optimizers do; the schema itself does not."""
    p, g, v = torch.ones(3, requires_grad=True), torch.ones(3), torch.zeros(3)
    pygan.ops.momentum_(p, g, v, lr=0.1, momentum=0.5)
    with pytest.raises(REJECTED, match=words(r"params(\[0\])?", "no_grad|leaf")):
        torch.ops.pygan.momentum_([p], [g], [v], lr=0.1, momentum=0.5)


def test_nothing_is_changed_by_a_rejected_call():
    p = [torch.ones(3), torch.ones(2)]
    with pytest.raises(REJECTED):
        pygan.ops.momentum_(p, [torch.ones(3), torch.ones(9)], zeros(p), lr=0.1, momentum=0.5)
    assert all((tensor == 1.0).all() for tensor in p)


@pytest.mark.parametrize(
    ("lists", "sentence"),
    [
        (lambda b: ([b[:10], b[5:15]], [b[20:30], b[30:40]]), r"params\[1\] shares memory with params\[0\]"),
        (lambda b: ([b[:10], b[10:20]], [b[20:30], b[20:30]]), r"velocities\[1\] shares memory with velocities\[0\]"),
        (lambda b: ([b[:10]], [b[:10]]), r"velocities\[0\] shares memory with params\[0\]"),
        (lambda b: ([b.as_strided((3, 3), (1, 1))], [b[20:29].view(3, 3)]), "must not be expanded"),
    ],
    ids=["params overlap", "one state", "param is state", "overlaps itself"],
)
def test_what_is_updated_needs_memory_of_its_own(device, lists, sentence):
    params, velocities = lists(torch.zeros(40, device=device))
    grads = [torch.ones_like(p) for p in params]
    with pytest.raises(ValueError, match=sentence):
        pygan.ops.momentum_(params, grads, velocities, lr=0.1, momentum=0.5)


def test_interleaved_params_are_updated(device):
    whole = torch.zeros(6, 4, device=device)
    params, velocities = [whole[:, :2], whole[:, 2:]], [torch.zeros(6, 2, device=device) for _ in range(2)]
    pygan.ops.momentum_(params, [torch.ones(6, 2, device=device)] * 2, velocities, lr=0.5, momentum=0.0)
    assert torch.equal(whole, torch.full_like(whole, -0.5))
