"""The average of a generator's weights: its numbers, and that nothing else sees it."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import pygan
from pygan import DivergenceError, Momentum, Trainer, checkpoint, evaluation
from pygan.averaging import Average
from trainers import ROWS, make

DECAY = 0.99
ENGINES = ("native", "composed")


def averaged(trainer):
    return {name: tensor.clone() for name, tensor in trainer.average.items()}


def on(device, engine, **options):
    if engine == "native" and not pygan._C.has_engine(device.type):
        pytest.skip(f"this build has no native engine for {device.type}")
    return make(device=device, engine=engine, **options)


@pytest.mark.parametrize("engine", ENGINES)
def test_it_is_the_mean_of_the_first_looks_then_exponential(device, engine):
    trainer, plain = on(device, engine, ema_decay=DECAY), on(device, engine)
    expected = None
    for look in range(1, 6):
        trainer.run(50)
        plain.run(50)
        now = {name: tensor.detach().clone() for name, tensor in plain.generator.named_parameters()}
        weight = max(1 - DECAY**50, 1 / look)
        expected = now if expected is None else {k: v + weight * (now[k] - v) for k, v in expected.items()}
        torch.testing.assert_close(averaged(trainer), expected, rtol=1e-12, atol=1e-14)
    assert weight == 1 - DECAY**50 != 1 / look
    torch.testing.assert_close(trainer.generator.state_dict(), plain.generator.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_in_parts_through_a_file_gives_the_same_bits(device, engine, tmp_path):
    whole, parts = (on(device, engine, ema_decay=DECAY) for _ in range(2))
    whole.run(173)
    for number, iterations in enumerate((7, 43, 60, 63)):
        parts.run(iterations)
        path = tmp_path / f"{number}.safetensors"
        parts.save(path)
        parts = Trainer.resume(path, ROWS, device=device)
    torch.testing.assert_close(averaged(parts), averaged(whole), rtol=0, atol=0)


def test_a_callback_sees_it_up_to_date():
    trainer = make(ema_decay=DECAY)
    seen = {}
    trainer.run(100, lambda trainer, _: seen.update({trainer.iteration: averaged(trainer)}))
    once = make(ema_decay=DECAY)
    once.run(100)
    torch.testing.assert_close(seen[100], averaged(once), rtol=0, atol=0)


def test_before_the_first_look_there_is_none(tmp_path):
    trainer = make(ema_decay=DECAY)
    trainer.run(49)
    assert trainer.average is None
    assert torch.equal(trainer.sample(5, step=1), trainer.sample(5, step=1, averaged=False))
    trainer.save(tmp_path / "early.safetensors")
    generator, _, _ = checkpoint.load_generator(tmp_path / "early.safetensors")
    torch.testing.assert_close(generator.state_dict(), trainer.generator.state_dict(), rtol=0, atol=0)
    trainer.run(1)
    torch.testing.assert_close(averaged(trainer), dict(trainer.generator.named_parameters()), rtol=0, atol=0)


def test_a_divergence_puts_it_back_with_the_rest():
    trainer = make(ema_decay=DECAY, dtype=torch.float32, engine="composed")
    trainer.run(60)
    before = averaged(trainer)
    original = trainer._average.follow

    def follow(network, iteration):
        original(network, iteration)
        if iteration == 100:
            assert not torch.equal(trainer.average["0.weight"], before["0.weight"])
            with torch.no_grad():
                network.layers[0].weight.fill_(torch.inf)

    trainer._average.follow = follow
    with pytest.raises(DivergenceError):
        trainer.run(100)
    assert trainer.iteration == 60
    torch.testing.assert_close(averaged(trainer), before, rtol=0, atol=0)


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_that_are_not_finite_are_not_looked_at(engine, device):
    trainer = on(device, engine, ema_decay=DECAY, dtype=torch.float32)
    trainer.run(60)
    before = averaged(trainer)
    with torch.no_grad():
        trainer.generator.layers[0].weight.fill_(torch.inf)
    with pytest.raises(DivergenceError):
        trainer.run(100, rollback=False)
    torch.testing.assert_close(averaged(trainer), before, rtol=0, atol=0)


def test_samples_and_files_give_it(tmp_path):
    trainer = make(ema_decay=DECAY)
    trainer.run(120)
    path = tmp_path / "run.safetensors"
    trainer.save(path)
    generator, config, _ = checkpoint.load_generator(path)
    assert config.ema_decay == DECAY
    torch.testing.assert_close(dict(generator.named_parameters()), trainer.average, rtol=0, atol=0)
    z = pygan.trainer.sample_noise(7, config, step=3, like=next(generator.parameters()))
    assert torch.equal(trainer.sample(7, step=3), generator(z))
    assert torch.equal(trainer.sample(7, step=3, averaged=False), trainer.generator.eval()(z))
    assert not torch.equal(trainer.generator.layers[0].weight, generator.layers[0].weight)


def test_without_it_samples_are_the_generators_own():
    trainer = make()
    trainer.run(60)
    assert trainer.average is None
    assert not any(name.startswith("average.") for name in trainer.state())


def test_native_calls_are_no_shorter_for_it(monkeypatch):
    monkeypatch.setattr(pygan.trainer, "_SECONDS_OF_A_CALL", 1e9)
    told = []
    make(ema_decay=DECAY, engine="native").run(230, lambda _, news: told.append(len(news)))
    assert told == [230]


# ---- generators of all kinds ----


class Growing(nn.Module):
    """A forward that depends on more than parameters: an attribute, and a buffer that appears in training."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 6)
        self.share = 0.0
        self.register_buffer("mean", None)

    def forward(self, z):
        y = self.layer(z)
        if self.training:
            self.mean = y.detach().mean(0)
        return self.share * y + (0 if self.mean is None else self.mean)


def trained_with(generator, iterations=60):
    trainer = Trainer(generator, nn.Linear(6, 1), ROWS.float(), batch_size=8, engine="composed", ema_decay=DECAY)
    trainer.run(iterations)
    return trainer


def test_the_generator_is_called_as_it_is_now_with_other_weights():
    generator = Growing()
    trainer = trained_with(generator)
    generator.share = 2.0
    z = pygan.trainer.sample_noise(5, trainer.config, step=1, like=generator.layer.weight)
    expected = 2 * (z @ trainer.average["layer.weight"].T + trainer.average["layer.bias"]) + generator.mean
    torch.testing.assert_close(trainer.sample(5, step=1), expected, rtol=1e-5, atol=1e-6)
    calls = []
    generator.register_forward_hook(lambda *_: calls.append(1))
    inner = generator.forward
    generator.forward = lambda z: inner(z) + 1
    torch.testing.assert_close(trainer.sample(5, step=1), expected + 1, rtol=1e-5, atol=1e-6)
    assert calls
    assert generator.training


GENERATORS = {
    "batch norm": lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6)),
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 6)),
    "older weight norm": lambda: nn.utils.weight_norm(nn.Linear(4, 6)),
    "fused": lambda: pygan.fuse(nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.2), nn.Linear(8, 6), nn.Tanh())),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize("name", GENERATORS)
def test_generators_of_all_kinds(name, tmp_path):
    torch.manual_seed(0)
    trainer = trained_with(GENERATORS[name](), 120)
    drawn = trainer.sample(6, step=2)
    with torch.no_grad():
        for parameter, mean in zip(trainer.generator.parameters(), trainer.average.values(), strict=True):
            parameter.copy_(mean)
    torch.testing.assert_close(trainer.sample(6, step=2, averaged=False), drawn)
    trainer.save(tmp_path / "run.safetensors")
    torch.manual_seed(0)
    networks = {"generator": GENERATORS[name](), "discriminator": nn.Linear(6, 1)}
    resumed = Trainer.resume(tmp_path / "run.safetensors", ROWS.float(), **networks)
    torch.testing.assert_close(resumed.sample(6, step=2), drawn)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_small_steps_of_short_types_are_not_lost(dtype):
    network = nn.Linear(8, 8).to(dtype)
    average = Average(network, 0.9999)
    average.follow(network, 50)
    with torch.no_grad():
        network.weight.add_(1)
    for look in range(2, 2002):
        average.follow(network, 50 * look)
    left = (network.weight - average.weights(network)["weight"]).abs().max()
    assert average.weights(network)["weight"].dtype == dtype
    assert left <= 2 * torch.finfo(dtype).eps * network.weight.abs().max()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_a_scripted_generator_is_refused():
    generator = torch.jit.script(nn.Linear(4, 6))
    with pytest.raises(ValueError, match="ema_decay needs a generator whose weights can be replaced"):
        Trainer(generator, nn.Linear(6, 1), ROWS.float(), batch_size=8, engine="composed", ema_decay=DECAY)


@pytest.mark.parametrize("bad", [0, 1, -0.1, 1.5, float("nan"), "0.9", True])
def test_decays_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=r"ema_decay must be None or in \(0, 1\), got"):
        make(ema_decay=bad)


def test_a_file_without_it_is_refused_where_it_should_hold_one(tmp_path):
    import safetensors.torch

    trainer = make(ema_decay=DECAY)
    trainer.run(50)
    path, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    trainer.save(path)
    _, tensors = checkpoint.read(path)
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    safetensors.torch.save_file({k: v for k, v in tensors.items() if not k.startswith("average.")}, cut, metadata)
    with pytest.raises(checkpoint.CheckpointError, match=r"it lacks 'average\.0\.bias'"):
        Trainer.resume(cut, ROWS)
    with pytest.raises(checkpoint.CheckpointError, match=r"it lacks '0\.bias'"):
        checkpoint.load_generator(cut)


# ---- the command line ----


def test_a_run_is_measured_with_and_without(tmp_path, capsys):
    from pygan.cli import main

    run = tmp_path / "run"
    assert main(["train", "--recipe", "ring8", "--iterations", "500", "--ema-decay", "0.99", "--out", str(run)]) == 0
    assert json.loads((run / "config.json").read_text())["recipe"]["ema_decay"] == 0.99
    assert main(["evaluate", str(run), "--samples", "500", "--sigma", "0.5", "--last"]) == 0
    printed = capsys.readouterr().out
    assert "this run, averaged" in printed
    assert "not averaged" in printed
    result = json.loads((run / evaluation.RESULT).read_text())
    trainer, _ = pygan.run_folder.resume(run, file="checkpoint.safetensors")
    held_out = [pygan.data.held_out("ring8", split) for split in ("valid", "test")]
    for averaged, stored in ((True, result), (False, result["not_averaged"])):
        drawn = evaluation.sample(trainer, 500, averaged=averaged)
        mean = pygan.parzen.log_likelihood(held_out[1].as_float(), drawn, 0.5).mean
        np.testing.assert_allclose(stored["log_likelihood"], mean)
    assert result["not_averaged"]["log_likelihood"] != result["log_likelihood"]


def test_last_weights_that_are_far_off_are_no_failure_of_the_average():
    trainer = pygan.recipes.get("ring8", ema_decay=DECAY).build()
    trainer.run(100)
    with torch.no_grad():
        trainer.generator.layers[-1].bias.fill_(torch.inf)
    held_out = [pygan.data.held_out("ring8", split) for split in ("valid", "test")]
    result = evaluation.evaluate(trainer, *held_out, samples=100, sigmas=[1.0])
    assert result["not_averaged"] is None
    assert "not averaged" not in evaluation.table(result, "ring8")


def test_going_on_keeps_it(tmp_path, capsys):
    from pygan.cli import main

    run = tmp_path / "run"
    options = ["train", "--recipe", "ring8", "--ema-decay", "0.99"]
    assert main([*options, "--iterations", "70", "--out", str(run)]) == 0
    assert main(["train", "--resume", str(run), "--ema-decay", "0.9"]) == 2
    assert "leave out --ema-decay" in capsys.readouterr().err
    assert main(["train", "--resume", str(run), "--iterations", "50"]) == 0
    assert main([*options, "--iterations", "120", "--out", str(tmp_path / "whole")]) == 0
    parts, whole = (checkpoint.load_generator(r / "checkpoint.safetensors")[0] for r in (run, tmp_path / "whole"))
    torch.testing.assert_close(parts.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_momentum_runs_have_it_too():
    trainer = make(ema_decay=DECAY, optimizer=Momentum(lr=0.01, momentum=0.5))
    trainer.run(50)
    torch.testing.assert_close(averaged(trainer), dict(trainer.generator.named_parameters()), rtol=0, atol=0)
