"""What a GPU alone can show: streams, a second device, graphs, synchronisation, exhausted memory, tensors of more than
2^31 elements, and bits equal to the CPU's."""

import gc
import math

import pytest
import torch

import pygan
from cases import DTYPES, dtype_id, normal, over_dtypes, words

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda", 0)


def mlp(x, first, first_bias, second, second_bias, *, dropout):
    return pygan.ops.mlp(
        x, [first, second], [first_bias, second_bias], activations=["relu", "tanh"], dropout=dropout, seed=1, offset=2
    )


# op -> the shapes of the tensors that it takes and is differentiated by, and a function of them with one result. Sizes
# with splits of the inner dimension, a second launch for the head, more samples than go together, and scratch.
NARROW = [(64, 32), (48, 32), (48,), (2, 48), (2,)]
OPS = {
    "linear_act": ([(64, 1024), (72, 1024), (72,)], lambda x, w, b: pygan.ops.linear_act(x, w, b, activation="tanh")),
    "maxout": ([(64, 1024), (80, 1024), (80,)], lambda x, w, b: pygan.ops.maxout(x, w, b, pieces=5)),
    "linear_batch_norm_act": (
        [(64, 1024), (72, 1024), (72,), (72,)],
        lambda x, w, gamma, beta: pygan.ops.linear_batch_norm_act(
            x, w, None, gamma, beta, training=True, activation="tanh"
        ),
    ),
    "dropout": ([(100, 33)], lambda x: pygan.ops.dropout(x, p=0.5, seed=1, offset=2)),
    "mlp": (NARROW, lambda *tensors: mlp(*tensors, dropout=0.5)),
    "narrow mlp": (NARROW, lambda *tensors: mlp(*tensors, dropout=0.0)),
    "discriminator_loss": ([(30000,), (30000,)], lambda real, fake: pygan.ops.discriminator_loss(real, fake)),
    "generator_loss": ([(100,)], lambda fake: pygan.ops.generator_loss(fake)),
    "head_loss": ([(900, 100), (1, 100), (1,)], lambda h, w, b: pygan.ops.head_loss(h, w, b, real_rows=400)[0]),
    "parzen": ([(70, 100), (9000, 100)], lambda x, samples: pygan.ops.parzen_log_likelihood(x, samples, sigma=0.5)),
}
over_ops = pytest.mark.parametrize("op", OPS)


def inputs_of(op, device=CUDA, seed=0):
    shapes, _ = OPS[op]
    return [normal(*shape, device=device, seed=10 * seed + i, scale=0.3) for i, shape in enumerate(shapes)]


def both_ways(op, inputs):
    """The result of an op, and the gradients of its sum where it has them."""
    leaves = [tensor.requires_grad_() for tensor in inputs]
    result = OPS[op][1](*leaves)
    if not result.requires_grad:
        return [result]
    return [result.detach(), *torch.autograd.grad(result, leaves, torch.ones_like(result))]


UPDATES = {
    "momentum_": lambda param, grad, one, two: pygan.ops.momentum_(param, grad, one, lr=0.1, momentum=0.9),
    "adam_": lambda param, grad, one, two: pygan.ops.adam_(param, grad, one, two, step=3, lr=0.1),
}
over_updates = pytest.mark.parametrize("update", UPDATES)


def state_of(device=CUDA):
    """Two parameters, their gradients, and two lists of what rules remember."""
    return [[normal(n, device=device, seed=10 * i + n).abs() for n in (1000, 33)] for i in range(4)]


def copied(lists):
    return [[tensor.clone() for tensor in tensors] for tensors in lists]


FACTORIES = {
    "normal": lambda device: pygan.ops.noise((10001,), kind="normal", seed=3, offset=4, device=device),
    "uniform": lambda device: pygan.ops.noise((10001,), kind="uniform", seed=3, offset=4, device=device),
    "minibatch_indices": lambda device: pygan.ops.minibatch_indices(777, 10001, start=5, seed=3, device=device),
}
over_factories = pytest.mark.parametrize("factory", FACTORIES)


def assert_equal(got, expected):
    assert len(got) == len(expected)
    for i, (one, other) in enumerate(zip(got, expected, strict=True)):
        assert torch.equal(one, other), f"tensor {i} differs"


# ---- streams ----


def keep_busy():
    """Some ten milliseconds of the current stream, in which whatever does not wait for it goes ahead."""
    torch.cuda._sleep(30_000_000)


@over_ops
def test_an_op_waits_for_its_stream(op):
    expected = both_ways(op, inputs_of(op))
    inputs = inputs_of(op)
    late = [torch.zeros_like(tensor) for tensor in inputs]
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        keep_busy()
        for tensor, value in zip(late, inputs, strict=True):
            tensor.copy_(value)
        got = both_ways(op, late)
    stream.synchronize()
    assert_equal(got, expected)


@over_updates
def test_an_update_waits_for_its_stream(update):
    expected = state_of()
    UPDATES[update](*expected)
    state = state_of()
    gradients = [torch.zeros_like(gradient) for gradient in state[1]]
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        keep_busy()
        for gradient, value in zip(gradients, state[1], strict=True):
            gradient.copy_(value)
        UPDATES[update](state[0], gradients, *state[2:])
    stream.synchronize()
    assert_equal(state[0], expected[0])


@over_factories
def test_a_factory_waits_for_its_stream(factory):
    expected = FACTORIES[factory](CUDA)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        keep_busy()
        before = torch.ones_like(expected)  # written late, into memory that the factory then gets
        place = before.data_ptr()
        del before
        got = FACTORIES[factory](CUDA)
    stream.synchronize()
    assert got.data_ptr() == place
    assert torch.equal(got, expected)


# ---- devices ----


@pytest.fixture
def second_device():
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU alone")
    with torch.cuda.device(0):
        yield torch.device("cuda", 1)
        assert torch.cuda.current_device() == 0


@over_ops
def test_an_op_runs_where_its_tensors_are(op, second_device):
    got = both_ways(op, inputs_of(op, second_device))
    assert {tensor.device for tensor in got} == {second_device}
    for one, other in zip(got, both_ways(op, inputs_of(op)), strict=True):
        torch.testing.assert_close(one.cpu(), other.cpu())


@over_updates
def test_an_update_runs_where_its_tensors_are(update, second_device):
    state, expected = state_of(second_device), state_of()
    UPDATES[update](*state)
    UPDATES[update](*expected)
    assert_equal([tensor.cpu() for tensor in state[0]], [tensor.cpu() for tensor in expected[0]])


@over_factories
def test_a_factory_runs_where_it_is_told(factory, second_device):
    got = FACTORIES[factory](second_device)
    assert got.device == second_device
    assert torch.equal(got.cpu(), FACTORIES[factory](CUDA).cpu())


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("weight", lambda x: pygan.ops.linear_act(x, x.cpu())),
        ("weight", lambda x: pygan.ops.linear_act(x.cpu(), x)),
        ("bias", lambda x: pygan.ops.linear_act(x, x, x[0].cpu())),
        ("weight", lambda x: pygan.ops.maxout(x, x.cpu(), pieces=2)),
        ("fake_logits", lambda x: pygan.ops.discriminator_loss(x, x.cpu())),
        ("weight", lambda x: pygan.ops.head_loss(x, x[:1].cpu(), real_rows=1)),
        ("samples", lambda x: pygan.ops.parzen_log_likelihood(x, x.cpu(), sigma=1.0)),
        ("grads", lambda x: pygan.ops.momentum_(x, x.cpu(), x.clone(), lr=0.1, momentum=0.5)),
        ("v", lambda x: pygan.ops.adam_(x, x.clone(), x.clone(), x.cpu(), step=1)),
    ],
)
def test_tensors_on_two_devices_get_a_sentence(argument, call):
    with pytest.raises(ValueError, match=words(argument, "must be on", "cuda:0", "cpu")):
        call(torch.ones(4, 4, device=CUDA))


# ---- graphs ----


@over_ops
def test_a_captured_op_follows_its_inputs(op):
    static = inputs_of(op)
    aside = torch.cuda.Stream()  # capture wants everything used once before, on a stream of its own
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        both_ways(op, static)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = both_ways(op, static)
    for seed in (1, 2):
        with torch.no_grad():
            for tensor, value in zip(static, inputs_of(op, seed=seed), strict=True):
                tensor.copy_(value)
        graph.replay()
        assert_equal(captured, both_ways(op, inputs_of(op, seed=seed)))


@over_updates
def test_a_captured_update_follows_its_gradients(update):
    state, twin = state_of(), state_of()
    UPDATES[update](*state_of())
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        UPDATES[update](*state)
    for factor in (2.0, -0.5):
        for tensors in (state, twin):
            for gradient in tensors[1]:
                gradient.mul_(factor)
        graph.replay()
        UPDATES[update](*twin)
        for got, expected in zip(state, twin, strict=True):
            assert_equal(got, expected)


@over_factories
def test_a_captured_factory_repeats_itself(factory):
    expected = FACTORIES[factory](CUDA)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = FACTORIES[factory](CUDA)
    for _ in range(2):
        captured.zero_()
        graph.replay()
        assert torch.equal(captured, expected)


# ---- the host ----


@pytest.fixture
def synchronising_fails():
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


@over_ops
def test_an_op_does_not_wait(op, synchronising_fails):
    inputs = inputs_of(op)
    synchronising_fails()
    both_ways(op, inputs)


@over_updates
def test_an_update_does_not_wait(update, synchronising_fails):
    state = state_of()
    synchronising_fails()
    UPDATES[update](*state)


@over_factories
def test_a_factory_does_not_wait(factory, synchronising_fails):
    synchronising_fails()
    FACTORIES[factory](CUDA)


# ---- memory ----


def one(count):
    """A column of `count` ones that takes the room of one."""
    return torch.ones(1, 1, device=CUDA).expand(count, 1)


TOO_MUCH = {
    "linear_act": lambda n: pygan.ops.linear_act(one(n), one(1)),
    "maxout": lambda n: pygan.ops.maxout(one(n), one(2), pieces=2),
    "dropout": lambda n: pygan.ops.dropout(one(n), p=0.5, seed=0, offset=0),
    "generator_loss": lambda n: pygan.ops.generator_loss(one(n), reduction="none"),
    "head_loss": lambda n: pygan.ops.head_loss(one(n), one(1), real_rows=1),
    "parzen": lambda n: pygan.ops.parzen_log_likelihood(one(n), one(1), sigma=1.0),
    "noise": lambda n: pygan.ops.noise((n,), seed=0, offset=0, device=CUDA),
    "minibatch_indices": lambda n: pygan.ops.minibatch_indices(10, n, start=0, seed=0, device=CUDA),
}


@pytest.mark.parametrize("op", TOO_MUCH)
def test_too_much_memory_is_torchs_error_and_leaks_nothing(op):
    TOO_MUCH[op](4)
    gc.collect()
    before = torch.cuda.memory_allocated(CUDA)
    total = torch.cuda.get_device_properties(CUDA).total_memory
    with pytest.raises(torch.OutOfMemoryError):
        TOO_MUCH[op](total)  # a byte for each number
    gc.collect()
    assert torch.cuda.memory_allocated(CUDA) == before
    TOO_MUCH[op](4)


MANY = 2**31 + 1000


@pytest.fixture
def room():
    """A check that so many bytes are free."""
    gc.collect()
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(CUDA)

    def check(needed):
        if free < needed + 2**30:
            pytest.skip(f"{needed / 2**30:.0f} GiB of the GPU's memory are needed, {free / 2**30:.0f} are free")

    yield check
    gc.collect()
    torch.cuda.empty_cache()


def test_a_layer_of_more_than_2_31_results(room):
    width, inner, last = 64, 8, 100
    rows = MANY // width + 1
    room(2 * rows * (3 * width + 2 * inner))
    weight = normal(width, inner, dtype=torch.bfloat16, device=CUDA)
    x = torch.zeros(rows, inner, dtype=torch.bfloat16, device=CUDA)
    x[-last:] = normal(last, inner, dtype=torch.bfloat16, device=CUDA, seed=1)
    x.requires_grad_()
    with pygan.ops.products("fused"):
        y = pygan.ops.linear_act(x, weight, activation="tanh")
        (grad,) = torch.autograd.grad(y, x, torch.ones_like(y))
    tail = x.detach()[-last:].clone().requires_grad_()
    expected = pygan.ops.linear_act(tail, weight, activation="tanh")
    (expected_grad,) = torch.autograd.grad(expected, tail, torch.ones_like(expected))
    torch.testing.assert_close(y[-last:], expected)
    torch.testing.assert_close(grad[-last:], expected_grad)
    assert not y[0].any()


def test_dropout_and_noise_of_more_than_2_31_numbers(room):
    room(2 * 2 * MANY)
    x = torch.ones(MANY, dtype=torch.bfloat16, device=CUDA)
    dropped = pygan.ops.dropout(x, p=0.5, seed=1, offset=2)
    del x
    tail = dropped[-1000:].float()
    assert set(tail.unique().tolist()) == {0.0, 2.0}
    assert 350 < int((tail != 0).sum()) < 650
    assert not torch.equal(dropped[-1000:], dropped[:1000])
    del dropped
    drawn = pygan.ops.noise((MANY,), kind="uniform", seed=1, offset=2, dtype=torch.bfloat16, device=CUDA)
    assert 0.5 < float(drawn[-1000:].float().abs().max()) <= math.sqrt(3) + 0.01
    assert not torch.equal(drawn[-1000:], drawn[:1000])


def test_losses_of_more_than_2_31_logits(room):
    room(2 * 3 * MANY)
    logits = torch.zeros(MANY, dtype=torch.bfloat16, device=CUDA).requires_grad_()
    loss = pygan.ops.generator_loss(logits, reduction="sum")
    torch.testing.assert_close(loss.float(), torch.tensor(math.log(2) * MANY, device=CUDA), rtol=1e-2, atol=0)
    (grad,) = torch.autograd.grad(loss, logits)
    assert float(grad[-1]) == -0.5


@over_updates
def test_updates_of_more_than_2_31_parameters(update, room):
    room(2 * 4 * MANY)
    state = [torch.ones(MANY, dtype=torch.bfloat16, device=CUDA) for _ in range(4)]
    small = [torch.ones(1, dtype=torch.bfloat16, device=CUDA) for _ in range(4)]
    UPDATES[update](*state)
    UPDATES[update](*small)
    assert torch.equal(state[0][-1:], small[0])
    assert torch.equal(state[0][:1], small[0])


# ---- bits ----


@over_dtypes
@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_noise_has_the_cpus_bits(kind, dtype):
    def draw(device):
        return pygan.ops.noise((1001, 7), kind=kind, seed=2**40 + 7, offset=(3 << 48) + 5, dtype=dtype, device=device)

    assert torch.equal(draw(CUDA).cpu(), draw("cpu"))


@pytest.mark.parametrize("population", [1, 2, 1000, 2**40 + 1])
def test_minibatches_have_the_cpus_bits(population):
    def draw(device):
        return pygan.ops.minibatch_indices(population, 5000, start=777, seed=5, offset=6, device=device)

    assert torch.equal(draw(CUDA).cpu(), draw("cpu"))


@over_dtypes
def test_dropout_has_the_cpus_bits(dtype):
    x = normal(101, 37, dtype=dtype)
    expected = pygan.ops.dropout(x, p=0.3, seed=5, offset=6)
    assert torch.equal(pygan.ops.dropout(x.to(CUDA), p=0.3, seed=5, offset=6).cpu(), expected)


@pytest.mark.parametrize("inner", [32, 37, 320])
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_layers_drop_what_the_cpu_drops(dtype, inner):
    x, weight = torch.ones(70, inner, dtype=dtype), torch.eye(inner, dtype=dtype)

    def layer(device):
        settings = {"activation": "identity", "dropout": 0.5, "seed": 5, "offset": 6}
        return torch.ops.pygan.linear_act(x.to(device), weight.to(device), **settings)

    assert torch.equal(layer(CUDA).cpu(), layer("cpu"))
