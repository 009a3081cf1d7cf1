"""The average of a generator's weights: its numbers, and that nothing else sees it."""

import copy
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
    return {name: tensor.clone() for name, tensor in trainer.sampler.state_dict().items()}


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
        now = {name: tensor.clone() for name, tensor in plain.generator.state_dict().items()}
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


def test_before_the_first_look_it_is_the_generator_at_its_start():
    trainer = make(ema_decay=DECAY)
    start = copy.deepcopy(trainer.generator.state_dict())
    trainer.run(49)
    torch.testing.assert_close(averaged(trainer), start, rtol=0, atol=0)


@pytest.mark.parametrize("rollback", [True, False])
def test_a_divergence_puts_it_back_with_the_rest(rollback):
    trainer = make(ema_decay=DECAY, dtype=torch.float32)
    trainer.run(60)
    before = averaged(trainer)
    with torch.no_grad():
        trainer.generator.layers[0].weight.fill_(torch.inf)
    finite = copy.deepcopy(before)
    with pytest.raises(DivergenceError):
        trainer.run(100, rollback=rollback)
    torch.testing.assert_close(averaged(trainer), finite, rtol=0, atol=0)


def test_samples_and_files_give_it(tmp_path):
    trainer = make(ema_decay=DECAY)
    trainer.run(120)
    path = tmp_path / "run.safetensors"
    trainer.save(path)
    generator, config, _ = checkpoint.load_generator(path)
    assert config.ema_decay == DECAY
    torch.testing.assert_close(generator.state_dict(), trainer.sampler.state_dict(), rtol=0, atol=0)
    z = pygan.trainer.sample_noise(7, config, step=3, like=next(generator.parameters()))
    assert torch.equal(trainer.sample(7, step=3), generator(z))
    assert not torch.equal(trainer.generator.layers[0].weight, generator.layers[0].weight)


def test_without_it_samples_are_the_generators_own():
    trainer = make()
    assert trainer.sampler is trainer.generator
    assert not any(name.startswith("average.") for name in trainer.state())


def test_buffers_are_copied_and_the_generator_stays_in_training():
    generator = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6))
    trainer = Trainer(generator, nn.Linear(6, 1), ROWS.float(), batch_size=8, engine="composed", ema_decay=DECAY)
    trainer.run(50)
    assert torch.equal(trainer.sampler[1].running_mean, generator[1].running_mean)
    assert trainer.sampler[1].num_batches_tracked == generator[1].num_batches_tracked == 51 + 49
    assert generator[1].training
    assert not trainer.sampler[1].training
    assert not any(p.requires_grad for p in trainer.sampler.parameters())


def test_float16_weights_are_averaged_in_their_own_type():
    network = nn.Linear(3, 2).half()
    average = Average(network, DECAY)
    average.follow(network, 50)
    assert average.state()["weight"].dtype == torch.float16
    assert torch.equal(average.state()["weight"], network.weight)


@pytest.mark.parametrize("bad", [0, 1, -0.1, 1.5, float("nan"), "0.9", True])
def test_decays_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=r"ema_decay must be None or in \(0, 1\), got"):
        make(ema_decay=bad)


def test_a_file_without_it_is_refused_where_it_should_hold_one(tmp_path):
    import safetensors.torch

    trainer = make(ema_decay=DECAY)
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
    assert "this run, last" in printed
    result = json.loads((run / evaluation.RESULT).read_text())
    trainer, _ = pygan.run_folder.resume(run, file="checkpoint.safetensors")
    held_out = [pygan.data.held_out("ring8", split) for split in ("valid", "test")]
    for network, stored in ((trainer.sampler, result), (trainer.generator, result["last_weights"])):
        drawn = evaluation.sample(trainer, 500, of=network)
        mean = pygan.parzen.log_likelihood(held_out[1].as_float(), drawn, 0.5).mean
        np.testing.assert_allclose(stored["log_likelihood"], mean)
    assert result["last_weights"]["log_likelihood"] != result["log_likelihood"]


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
    torch.testing.assert_close(averaged(trainer), dict(trainer.generator.state_dict()), rtol=0, atol=0)
