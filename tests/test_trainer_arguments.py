"""What `Trainer` and its rules take, and the sentence that anything else gets."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from cases import normal
from pygan import Adam, Momentum, Trainer
from pygan.nn import MLP
from trainers import ROWS, make, networks


def bad_rows(row):
    rows = ROWS.clone()
    rows[row, 2] = float("nan")
    return rows


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3)

    def forward(self, x):
        return self.conv(x[:, None])[:, 0]


class Pair(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


G, D = networks(torch.float32)
BAD = [
    ({"batch_size": 51}, "batch_size 51 is larger than the data set, which has 50 rows"),
    ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
    ({"k": 0}, "k must be a whole number of at least 1, got 0"),
    ({"k": 1.5}, "k must be a whole number"),
    ({"update": "simultanous"}, "update must be .* did you mean 'simultaneous'"),
    ({"generator_loss": "minmax"}, "generator_loss must be .* did you mean 'minimax'"),
    ({"noise": "gaussian"}, "noise must be one of normal, uniform, got 'gaussian'"),
    ({"engine": "naive"}, "engine must be .* did you mean 'native'"),
    (
        {"engine": "native", "generator": nn.Linear(4, 6)},
        "engine must be composed or auto here: (the generator is a Linear, not|this build has no native engine)",
    ),
    ({"device": "gpu"}, "device must be cpu, cuda or cuda:N, got 'gpu'"),
    ({"device": "cuda:99"}, "device cuda:99 is not there"),
    *(
        ({"device": name}, "device must be cpu, cuda or cuda:N")
        for name in ("xpu", "mps", "meta", "cpu:3", "cuda:x", 3)
    ),
    (
        {"generator": MLP([4, 6], device="meta"), "discriminator": MLP([6, 1], device="meta")},
        "device must be cpu, cuda or cuda:N, got 'meta'",
    ),
    ({"seed": -1}, "seed must be a whole number of at least 0"),
    ({"seed": 2**63}, "seed must be below"),
    ({"label_smoothing": 1.0}, "label_smoothing must be in"),
    ({"label_smoothing": "a"}, r"label_smoothing must be in \[0, 1\), got 'a'"),
    ({"label_smoothing": None}, r"label_smoothing must be in \[0, 1\), got None"),
    ({"noise_dim": 3}, "generator takes rows of 4 numbers, but noise_dim is 3"),
    ({"pixel_range": (1, 0)}, "pixel_range must be"),
    ({"pixel_range": 5}, r"pixel_range must be \(low, high\), rising, got 5"),
    ({"pixel_range": ("a", "b")}, r"pixel_range must be .* got \('a', 'b'\)"),
    ({"pixel_range": (0, math.inf)}, r"pixel_range must be .* got \(0, inf\)"),
    ({"optimizer": (Adam(),) * 3}, "optimizer must be one rule or a pair of them, got 3"),
    ({"data": normal(50, 7)}, "generator gives rows of 6 numbers, expected 7, the data's 7 columns"),
    ({"data": bad_rows(13)}, "row 13"),
    ({"generator": MLP([4, 5])}, "generator gives rows of 5 numbers, expected 6"),
    ({"discriminator": MLP([5, 1])}, "discriminator takes rows of 5 numbers, but .* 6"),
    ({"discriminator": MLP([6, 2])}, "discriminator gives rows of 2 numbers, expected 1"),
    ({"discriminator": MLP([6, 1], output="sigmoid")}, 'output="identity", got .sigmoid'),
    (
        {"discriminator": MLP([6, 1]).double()},
        "generator is torch.float32 on cpu, but discriminator is torch.float64",
    ),
    ({"discriminator": nn.Linear(7, 1)}, "discriminator cannot take rows of 6 numbers"),
    ({"discriminator": nn.Linear(6, 2)}, r"discriminator must turn \(2, 6\) into \(2, 1\)"),
    ({"generator": nn.Identity()}, "generator has no parameters"),
    ({"generator": nn.Linear(4, 6).requires_grad_(False)}, "generator has no parameters .* all of them are frozen"),
    ({"discriminator": MLP([6, 1]).requires_grad_(False)}, "discriminator has no parameters .* frozen"),
    ({"generator": Convolution()}, "noise_dim cannot be read off"),
]


@pytest.mark.parametrize(("change", "sentence"), BAD, ids=[next(iter(change)) for change, _ in BAD])
def test_bad_arguments_get_a_sentence(change, sentence):
    arguments = {"generator": G, "discriminator": D, "data": ROWS, "batch_size": 8, **change}
    with pytest.raises(ValueError, match=sentence):
        Trainer(**arguments)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"generator": print}, "generator must be a torch.nn.Module"),
        ({"data": [1, 2]}, "must be a Dataset, a torch.Tensor or a numpy array"),
        ({"discriminator": Pair(6, 1)}, "discriminator must give a tensor, one logit, got tuple"),
        ({"optimizer": "adam"}, "optimizer must be a pygan.Momentum or a pygan.Adam, got str"),
        ({"optimizer": torch.optim.Adam}, "optimizer must be a pygan.Momentum or a pygan.Adam"),
    ],
)
def test_arguments_of_another_type_get_a_sentence(change, sentence):
    arguments = {"generator": G, "discriminator": D, "data": ROWS, "batch_size": 8, **change}
    with pytest.raises(TypeError, match=sentence):
        Trainer(**arguments)


@pytest.mark.parametrize("iterations", [0, -1, 2.5])
def test_iterations_must_be_whole(iterations):
    with pytest.raises(ValueError, match="iterations must be a whole number of at least 1"):
        make().run(iterations)
    with pytest.raises(ValueError, match="n must be a whole number"):
        make().sample(iterations)


@pytest.mark.parametrize("step", [-1, 0.5])
def test_the_number_of_a_draw_must_be_whole(step):
    with pytest.raises(ValueError, match="step must be a whole number of at least 0"):
        make().sample(2, step=step)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_training_needs_gradients(mode):
    trainer = make()
    with mode(), pytest.raises(RuntimeError, match=r"Trainer\.run needs gradients: call it outside torch\.no_grad"):
        trainer.run(1)


def test_numpys_scalars_are_taken(tmp_path):
    one = np.int64(1)
    rules = (
        Adam(lr=np.float32(0.1), betas=np.array([0.5, 0.9])),
        Momentum(np.float32(0.1), momentum_epochs=(one, one * 9)),
    )
    trainer = make(
        batch_size=one * 10,
        k=one,
        seed=one,
        optimizer=rules,
        pixel_range=(np.float32(0), one),
        label_smoothing=np.float32(0.1),
    )
    trainer.run(one)
    trainer.save(tmp_path / "run.safetensors")
    assert Trainer.resume(tmp_path / "run.safetensors", ROWS).config == trainer.config
    assert type(trainer.config.batch_size) is int


def test_a_convolution_trains_with_noise_dim_given():
    trainer = Trainer(Convolution(), nn.Linear(6, 1), ROWS, batch_size=8, noise_dim=8)
    assert len(trainer.run(2)) == 2


BAD_RULES = [
    (lambda: Momentum(lr=0), "lr must be above 0, got 0"),
    (lambda: Momentum(lr=math.nan), "lr must be above 0"),
    (lambda: Momentum(lr=math.inf), "lr must be above 0"),
    (lambda: Momentum(momentum=1.0), r"momentum must be in \[0, 1\)"),
    (lambda: Momentum(final_momentum=-0.1), "final_momentum must be"),
    (lambda: Momentum(lr_decay=0.9), "lr_decay must be at least 1"),
    (lambda: Momentum(lr_floor=1.0), "lr_floor must be between 0 and lr = 0.1"),
    (lambda: Momentum(momentum_epochs=(250, 1)), "momentum_epochs must be"),
    (lambda: Momentum(max_column_norm=0), "max_column_norm must be above 0"),
    (lambda: Adam(lr=-1), "lr must be above 0, got -1"),
    (lambda: Adam(betas=(0.9, 1.0)), "betas must be two numbers"),
    (lambda: Adam(betas=(0.9,)), "betas must be two numbers"),
    (lambda: Adam(eps=0), "eps must be above 0"),
    (lambda: Adam(lr="a"), "lr must be above 0, got 'a'"),
    (lambda: Adam(lr=True), "lr must be above 0, got True"),
    (lambda: Adam(betas=0.5), r"betas must be two numbers in \[0, 1\), got 0.5"),
    (lambda: Adam(betas=("a", "b")), "betas must be two numbers"),
    (lambda: Momentum(lr_floor=None), "lr_floor must be between 0 and lr = 0.1, got None"),
    (lambda: Momentum(momentum_epochs=3), r"momentum_epochs must be \(first, last\), rising, got 3"),
]


@pytest.mark.parametrize(("make_rule", "sentence"), BAD_RULES)
def test_bad_rules_get_a_sentence(make_rule, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_rule()
