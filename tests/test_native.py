"""The native engine against the composed one: the same numbers from the same seed, whatever is combined."""

import itertools
import math
import os
import warnings

import numpy as np
import pytest
import torch

import pygan
from pygan import _C, Adam, DivergenceError, Momentum, Trainer, native
from pygan.nn import MLP

M = 12
RULES = {
    "adam": Adam(lr=1e-3, betas=(0.5, 0.9)),
    "momentum": Momentum(lr=0.05, momentum=0.4),
    "schedules": Momentum(
        lr=0.05, lr_decay=1.1, lr_floor=0.03, final_momentum=0.9, momentum_epochs=(1, 4), max_column_norm=0.5
    ),
}
# (generator's sizes and options, discriminator's)
NETWORKS = {
    "plain": (([5, 7, 9, 6], {"output": "tanh"}), ([6, 10, 8, 1], {"activation": "leaky_relu", "slope": 0.2})),
    "maxout": (([4, 6, 6], {"output": "sigmoid"}), ([6, 5, 4, 1], {"activation": "maxout", "pieces": 3})),
    "dropout": (([5, 8, 6], {"dropout": 0.3}), ([6, 10, 8, 1], {"dropout": [0.2, 0.5, 0.4]})),
    "all": (
        ([6, 8, 8, 6], {"activation": "softplus", "output": "sigmoid", "dropout": [0.1, 0.3, 0.5]}),
        ([6, 8, 4, 1], {"activation": "maxout", "pieces": 2, "dropout": [0.2, 0.5, 0.5]}),
    ),
    "shallow": (([5, 6], {"output": "elu"}), ([6, 1], {"dropout": 0.25})),
    "no bias": (([5, 9, 6], {"bias": False, "activation": "elu"}), ([6, 8, 1], {"bias": False, "activation": "tanh"})),
}
DATA = {
    "uint8": torch.arange(40 * 6, dtype=torch.int64).mul(37).remainder(256).to(torch.uint8).view(40, 6),
    "float": torch.linspace(-1, 1, 31 * 6, dtype=torch.float64).sin().view(31, 6),
}


@pytest.fixture(autouse=True)
def _there_is_an_engine(device):
    if not _C.has_engine(device.type):
        pytest.skip(f"this build has no native engine for {device.type}")


def trainers(device, networks="plain", data="float", dtype=torch.float64, engines=("native", "composed"), **options):
    """A trainer for each engine, all from the same parameters."""
    made = []
    for engine in engines:
        pairs = []
        for i, (sizes, settings) in enumerate(NETWORKS[networks] if isinstance(networks, str) else networks):
            torch.manual_seed(i)
            pairs.append(MLP(sizes, dtype=dtype, device=device, **settings))
        values = DATA[data] if isinstance(data, str) else data
        values = values if values.dtype == torch.uint8 else values.to(dtype)
        made.append(Trainer(*pairs, values, **{"batch_size": M, "engine": engine, "seed": 3} | options))
    return made


def assert_equal(one: Trainer, other: Trainer, tolerance: float):
    others = other.state()
    for name, value in one.state().items():
        scale = float(others[name].abs().max()) or 1.0
        error = float((value - others[name]).abs().max()) / scale
        assert error <= tolerance, f"{name} differs by {error:.1e}"


def rows(history) -> np.ndarray:
    return np.stack([history.d_loss, history.g_loss, history.d_real, history.d_fake], axis=1)


def compare(device, iterations=1, tolerance=1e-9, **options):
    one, other = trainers(device, **options)
    assert one.engine == "native"
    assert other.engine == "composed"
    left, right = rows(one.run(iterations)), rows(other.run(iterations))
    np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance / 10)
    assert_equal(one, other, tolerance)


COMBINATIONS = list(
    itertools.product(
        ("alternating", "simultaneous"), ("non_saturating", "minimax"), (1, 3), RULES, NETWORKS, DATA, (0.0, 0.1)
    )
)


# A Latin-like choice: every pair of values occurs, and the whole table would take minutes on the emulator.
@pytest.mark.parametrize(
    ("update", "loss", "k", "rule", "networks", "data", "smoothing"),
    COMBINATIONS[::5],
    ids=lambda value: str(value),
)
def test_one_iteration_is_the_composed_ones(device, update, loss, k, rule, networks, data, smoothing):
    compare(
        device,
        update=update,
        generator_loss=loss,
        k=k,
        optimizer=RULES[rule],
        networks=networks,
        data=data,
        label_smoothing=smoothing,
        noise="uniform" if k == 1 else "normal",
        pixel_range=(-1.0, 1.0),
    )


@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
@pytest.mark.parametrize("networks", NETWORKS)
def test_many_iterations_are_the_composed_ones(device, update, networks):
    compare(device, 23, 1e-7, update=update, networks=networks, k=2, optimizer=RULES["schedules"], data="uint8")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
def test_curves_of_float32_stay_together(device, update, rule):
    one, other = trainers(device, dtype=torch.float32, networks="all", optimizer=RULES[rule], update=update)
    left, right = rows(one.run(25)), rows(other.run(25))
    np.testing.assert_allclose(left, right, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_curves_of_half_types_stay_together(device, dtype, monkeypatch):
    if device.type == "cpu" and not pygan.build_info()["simt"]:
        pytest.skip("the CPU's engine trains float32 and float64 networks")
    monkeypatch.setattr(native, "_DTYPES", {})
    optimizer = Momentum(lr=0.05)
    for networks, update in (("all", "alternating"), ("plain", "simultaneous")):
        one, other = trainers(device, dtype=dtype, networks=networks, optimizer=optimizer, update=update, data="uint8")
        left, right = rows(one.run(10)), rows(other.run(10))
        np.testing.assert_allclose(left, right, rtol=0.05, atol=0.02)


# More than a tile each way, a split product, rows that are no multiple of anything.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "networks",
    [
        (([33, 65, 70], {"output": "tanh"}), ([70, 37, 1], {"dropout": 0.5})),
        (([40, 48, 640], {"dropout": 0.2}), ([640, 40, 44, 1], {})),
        (([40, 48, 96], {}), ([96, 24, 6, 1], {"activation": "maxout", "pieces": 40})),
    ],
    ids=["odd", "deep products", "many pieces"],
)
def test_larger_networks(device, networks, dtype):
    data = torch.linspace(0, 30, 50 * networks[1][0][0], dtype=torch.float64).sin().view(50, -1)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    for update in ("alternating", "simultaneous"):
        compare(
            device, 2, tolerance, networks=networks, data=data, dtype=dtype, batch_size=37, update=update,
            optimizer=Momentum(lr=0.01),
        )  # fmt: skip


@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
@pytest.mark.parametrize("networks", NETWORKS)
def test_two_hundred_iterations(device, update, networks):
    if pygan.build_info()["simt"]:
        pytest.skip("too slow on the emulator")
    compare(device, 200, 1e-5, update=update, networks=networks, optimizer=RULES["momentum"], data="uint8")


@pytest.mark.parametrize("networks", ["all", "dropout"])
@pytest.mark.parametrize("batch", [1, 5, 150, 1500, 12_000])
def test_batches_of_any_size(device, batch, networks):
    if pygan.build_info()["simt"] and batch > 5:
        pytest.skip("too slow on the emulator")
    data = torch.linspace(0, 30, 12_500 * 6, dtype=torch.float64).sin().view(12_500, 6)
    for update, rule in itertools.product(("alternating", "simultaneous"), ("adam", "schedules")):
        compare(
            device, 2, 1e-8, networks=networks, data=data, batch_size=batch, update=update, optimizer=RULES[rule]
        )  # fmt: skip


@pytest.mark.parametrize(
    ("networks", "batch"),
    [
        ((([20, 300, 260], {"output": "tanh", "dropout": 0.2}), ([260, 200, 30, 1], {"dropout": 0.3})), 40),
        ((([20, 70, 60], {"output": "tanh", "dropout": 0.2}), ([60, 50, 30, 1], {"dropout": 0.3})), 401),
    ],
    ids=["large", "small"],
)
@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
def test_threads_do_not_change_the_bits(device, networks, batch, update):
    data = torch.linspace(0, 30, 450 * networks[1][0][0]).sin().view(450, -1)
    states, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            (trainer,) = trainers(device, networks, data, torch.float32, ("native",), batch_size=batch, update=update)
            trainer.run(3)
            states.append(trainer)
    finally:
        torch.set_num_threads(before)
    for other in states[1:]:
        assert_equal(states[0], other, 0.0)


def test_a_pair_of_rules(device):
    compare(device, 3, optimizer=(RULES["adam"], RULES["schedules"]))
    compare(device, 3, optimizer=(RULES["schedules"], RULES["adam"]))


def test_two_runs_are_one(device):
    one, other = trainers(device, "all", engines=("native", "native"), k=2, data="uint8")
    whole = rows(one.run(15))
    parts = np.concatenate([rows(other.run(n)) for n in (1, 9, 5)])
    assert np.array_equal(whole, parts)
    assert_equal(one, other, 0.0)


def test_engines_can_take_turns(device):
    one, other = trainers(device, "all", k=2)
    one.run(3)
    other.config = pygan.trainer.TrainerConfig(**vars(other.config) | {"engine": "native"})
    other.run(1)
    other.config = pygan.trainer.TrainerConfig(**vars(other.config) | {"engine": "composed"})
    other.run(2)
    assert_equal(one, other, 1e-8)


def test_a_checkpoint_goes_on_to_the_same_bits(device, tmp_path):
    one, other = trainers(device, "dropout", engines=("native", "native"), optimizer=RULES["schedules"])
    one.run(9)
    other.run(4)
    other.save(tmp_path / "c")
    resumed = Trainer.resume(tmp_path / "c", DATA["float"].to(torch.float64), device=device)
    resumed.run(5)
    assert_equal(one, resumed, 0.0)


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_stops_at_what_is_not_finite(device, network):
    (trainer,) = trainers(device, engines=("native",))
    trainer.run(2)
    with torch.no_grad():
        next(getattr(trainer, network).parameters()).fill_(math.nan)
    with pytest.raises(DivergenceError):
        trainer.run(20)
    assert trainer.iteration == 2


def test_nothing_changes_after_an_iteration_that_is_not_finite(device):
    one, other = trainers(device, engines=("native", "native"), batch_size=3)
    for trainer in (one, other):
        trainer._values[17] = math.inf
    numbers = native.Session(one).run(0, 50, 10.0)
    assert len(numbers) <= 11  # an epoch is 10 minibatches and a third
    assert np.isfinite(numbers[:-1]).all()
    assert not np.isfinite(numbers[-1]).all()
    again = native.Session(other).run(0, len(numbers), 10.0)
    np.testing.assert_array_equal(numbers, again)
    for name, value in one.state().items():
        assert torch.equal(torch.nan_to_num(value), torch.nan_to_num(other.state()[name])), name


def test_without_rollback_the_state_stays_as_it_is(device):
    (trainer,) = trainers(device, engines=("native",))
    trainer.run(2, rollback=False)
    with torch.no_grad():
        next(trainer.generator.parameters()).fill_(math.nan)
    with pytest.raises(DivergenceError, match=r"iteration 2: .*; no earlier state was kept") as caught:
        trainer.run(20, rollback=False)
    assert caught.value.restored is None
    assert trainer.iteration == 3
    assert next(trainer.generator.parameters()).isnan().all()


def test_auto_leaves_large_products_to_the_library(device):
    (trainer,) = trainers(device, engines=("auto",))
    assert trainer.engine == "native"
    with pygan.ops.products("library"):
        library = device.type == "cuda" or pygan.build_info()["simt"]
        assert trainer.engine == ("composed" if library else "native")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            trainer.run(1)


def test_time_ends_a_call(device):
    (trainer,) = trainers(device, engines=("native",))
    session = native.Session(trainer)
    assert len(session.run(0, 1 << 14, 0.0)) == 1
    assert 1 <= len(session.run(1, 1 << 14, 0.05)) < 1 << 14


# What docs/kernels.md states, of fp32 on a GPU of 132 multiprocessors: the emulator's, and an H200's.
LAUNCHES = [
    ("snippet", [100, 128, 784], [784, 128, 1], 64, {}, 11),
    ("snippet, simultaneous", [100, 128, 784], [784, 128, 1], 64, {"update": "simultaneous"}, 9),
    ("snippet, k = 3", [100, 128, 784], [784, 128, 1], 64, {"k": 3}, 17),
    ("ring", [2, 32, 32, 2], [2, 32, 32, 1], 64, {}, 17),
]


@pytest.mark.parametrize(
    ("generator", "discriminator", "batch", "options", "launches"), [pytest.param(*r[1:], id=r[0]) for r in LAUNCHES]
)
def test_launches_of_an_iteration(device, generator, discriminator, batch, options, launches):
    simt = device.type == "cpu" and pygan.build_info()["simt"]
    multiprocessors = (
        int(os.environ.get("PYGAN_SIMT_MULTIPROCESSORS", 132))
        if simt
        else torch.cuda.get_device_properties(device).multi_processor_count
        if device.type == "cuda"
        else 0
    )
    if multiprocessors != 132:
        pytest.skip("the numbers are those of 132 multiprocessors")
    networks = ((generator, {"output": "tanh"}), (discriminator, {}))
    data = torch.zeros(2 * batch, generator[-1], dtype=torch.uint8)
    (trainer,) = trainers(device, networks, data, torch.float32, ("native",), batch_size=batch, **options)
    session = native.Session(trainer)
    session.run(0, 1, 10.0)
    assert session.launches == launches


def test_says_why_it_cannot(device):
    generator, discriminator = MLP([5, 6]), torch.nn.Linear(6, 1)
    with pytest.raises(ValueError, match="discriminator is a Linear"):
        Trainer(generator, discriminator, DATA["float"].float(), batch_size=4, engine="native", device=device)


def test_auto_says_once_why_it_cannot(device, monkeypatch):
    monkeypatch.setattr(pygan.trainer, "_reasons_told", set())
    generator, discriminator = (torch.nn.Linear(5, 6).to(device), torch.nn.Linear(6, 1).to(device))
    trainer = Trainer(generator, discriminator, DATA["float"].float(), batch_size=4)
    assert trainer.engine == "composed"
    with pytest.warns(UserWarning, match="the generator is a Linear, not a pygan.nn.MLP"):
        trainer.run(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.run(1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda net: next(net.parameters()).register_hook(lambda g: g * 0), "has hooks on its parameters"),
        (lambda net: setattr(net, "forward", lambda x, **_: x[:, :1]), "has a forward of its own"),
        (lambda net: setattr(net.layers[0], "forward", lambda x: x), "has a forward of its own"),
        (lambda net: net.register_forward_hook(lambda *a: None), "has hooks"),
    ],
    ids=["parameter's hook", "forward", "layer's forward", "hook"],
)
def test_what_python_would_run_is_the_composed_engines(device, change, reason):
    (trainer,) = trainers(device, engines=("auto",))
    assert trainer.engine == "native"
    change(trainer.discriminator)
    assert trainer.engine == "composed"
    assert reason in native.why_not(trainer)


def test_a_callback_may_add_a_hook(device):
    (trainer,) = trainers(device, engines=("native",))
    calls, iterations = [], 40 if pygan.build_info()["simt"] else 1 << 13

    def callback(trainer, news):
        if not calls:
            trainer.discriminator.register_forward_hook(lambda *a: calls.append(a))

    history = trainer.run(iterations, callback=callback)
    assert calls
    assert len(history) == iterations


def test_epochs_of_a_schedule_may_be_fractions(device):
    rule = Momentum(lr=0.05, momentum=0.1, final_momentum=0.9, momentum_epochs=(1.5, 3.5))
    compare(device, 9, optimizer=rule)


def test_autocast_is_the_composed_engines(device):
    (trainer,) = trainers(device, dtype=torch.float32, engines=("auto",))
    assert trainer.engine == "native"
    with torch.autocast(device.type, torch.bfloat16):
        assert trainer.engine == "composed"


# ---- networks that change between runs ----


@pytest.mark.parametrize("engine", ["native", "composed"])
@pytest.mark.parametrize("network", ["generator", "discriminator"])
@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.to(torch.float32),
        lambda net: setattr(net.layers[0], "bias", None),
        lambda net: setattr(net.layers[0], "weight", torch.nn.Parameter(net.layers[0].weight.detach()[:, :2].clone())),
    ],
    ids=["dtype", "fewer", "shape"],
)
def test_a_network_that_no_longer_fits_is_refused(device, engine, network, change):
    (trainer,) = trainers(device, engines=(engine,))
    trainer.run(2)
    change(getattr(trainer, network))
    with pytest.raises(ValueError, match=f"the {network}'s parameters are no longer those"):
        trainer.run(1)


@pytest.mark.parametrize("engine", ["native", "composed"])
def test_replaced_parameters_are_trained(device, engine):
    (trainer,) = trainers(device, engines=(engine,))
    (other,) = trainers(device, engines=(engine,))
    for each in (trainer, other):
        each.run(3)
    replace(trainer.generator)
    before = [p.detach().clone() for p in trainer.generator.parameters()]
    for each in (trainer, other):
        each.run(3)
    assert not any(torch.equal(p, q) for p, q in zip(before, trainer.generator.parameters(), strict=True))
    assert_equal(trainer, other, 0.0)


def test_a_callback_may_replace_parameters(device):
    one, other = trainers(device, engines=("native", "native"))
    calls, iterations = [], 40 if pygan.build_info()["simt"] else 1 << 13  # more than a tenth of a second

    def callback(trainer, news):
        calls.append(len(news))
        replace(trainer.generator)

    one.run(iterations, callback=callback)
    other.run(iterations)
    assert len(calls) > 1
    assert_equal(one, other, 0.0)


def replace(network: torch.nn.Module):
    """The same values in other parameters."""
    copies = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(copies, assign=True)


@pytest.mark.parametrize("what", ["data", "optimizer", "networks"])
def test_memory_that_moves_during_a_run_is_followed(device, what, monkeypatch):
    monkeypatch.setattr(pygan.trainer, "_MOST_IN_A_CALL", 2)
    data = torch.linspace(-1, 1, 31 * 6).sin().view(31, 6).to(device)
    other, one = (trainers(device, data=d, dtype=torch.float32, engines=("native",))[0] for d in (data.clone(), data))
    moved = []

    def move(trainer, news):
        if moved:
            return
        moved.append(trainer.iteration)
        if what == "data" and device.type == "cpu":
            trainer._values.share_memory_()
        elif what == "optimizer":
            for optimizer in (trainer._g, trainer._d):
                for name, buffer in optimizer.buffers.items():
                    optimizer.buffers[name] = buffer.clone()
        elif what == "networks":
            for parameter in trainer.generator.parameters():
                parameter.data = parameter.data.clone()

    one.run(6, move)
    other.run(6)
    assert moved == [2]
    for name, value in other.state().items():
        assert torch.equal(value, one.state()[name]), name


def test_data_that_grow_during_a_run_get_a_sentence(device, monkeypatch):
    monkeypatch.setattr(pygan.trainer, "_MOST_IN_A_CALL", 2)
    data = torch.linspace(-1, 1, 31 * 6).sin().view(31, 6)
    (trainer,) = trainers(device, data=data, dtype=torch.float32, engines=("native",))
    with pytest.raises(ValueError, match=r"data must stay as it was when the trainer was made, \(31, 6\), and is now"):
        trainer.run(6, lambda trainer, news: trainer._values.resize_(40, 6))
    with pytest.raises(AttributeError, match="data"):
        trainer.data = data


@pytest.mark.parametrize("engine", ["native", "composed"])
def test_a_callback_may_leave_evaluation_mode(device, engine, monkeypatch):
    monkeypatch.setattr("pygan.trainer._SECONDS_OF_A_CALL", 0.0)
    monkeypatch.setattr("pygan.history.Recorder.due", lambda recorder: True)
    one, other = trainers(device, "dropout", engines=(engine, engine))
    one.run(3)
    calls = []
    other.run(3, callback=lambda trainer, news: calls.append((trainer.generator.eval(), trainer.discriminator.eval())))
    assert len(calls) == 3
    assert_equal(one, other, 0.0)


@pytest.mark.parametrize("engine", ["native", "composed"])
def test_a_run_inside_a_run_gets_a_sentence(device, engine):
    (trainer,) = trainers(device, engines=(engine,))
    with pytest.raises(RuntimeError, match="this trainer is running"):
        trainer.run(3, lambda trainer, news: trainer.run(1))
    assert len(trainer.run(2)) == 2


def test_hooks_of_all_modules_are_called(device, monkeypatch):
    monkeypatch.setattr(pygan.trainer, "_reasons_told", set())
    (trainer,) = trainers(device, engines=("auto",))
    assert trainer.engine == "native"
    called = []
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *arguments: called.append(1))
    try:
        with pytest.warns(UserWarning, match="torch has hooks for all modules"):
            trainer.run(1)
    finally:
        handle.remove()
    assert called
