"""Algorithm 1 against a plain-torch loop with the same random numbers, and what surrounds it."""

import _thread
import math
import threading
import time
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pygan
from cases import normal
from pygan import Adam, Momentum, Trainer, ops, random, reference
from pygan.data import Dataset
from pygan.history import DivergenceError
from trainers import ROWS, SEED, make, networks

CLOSE = {"rtol": 1e-9, "atol": 1e-12}  # float64 through a few updates: Adam divides by small roots


# -------------------------------------------------------------------------- one iteration, in plain torch


def plain_forward(network, weights, x, stream, step):
    """An MLP in torch's words: dropout by its mask, linear, max or activation."""
    for i, activation in enumerate(network.activations):
        if network.dropout[i]:
            offset = random.offset(stream, step) + (i << 48)
            keep = reference.dropout_mask(x.shape, p=network.dropout[i], seed=SEED, offset=offset)
            x = x * keep / (1 - network.dropout[i])
        y = F.linear(x, weights[2 * i], weights[2 * i + 1])
        x = {
            "maxout": lambda y: y.unflatten(1, (-1, network.pieces)).amax(2),
            "relu": torch.relu,
            "sigmoid": torch.sigmoid,
            "identity": lambda y: y,
        }[activation](y)
    return x


class PlainRule:
    """The update rules in torch's words."""

    def __init__(self, rule, weights):
        self.rule, self.weights = rule, weights
        self.velocities = [torch.zeros_like(w) for w in weights]
        if isinstance(rule, Adam):
            self.adam = torch.optim.Adam(weights, lr=rule.lr, betas=rule.betas, eps=rule.eps)

    @torch.no_grad()
    def step(self, gradients, t, epoch):
        rule = self.rule
        if isinstance(rule, Adam):
            for weight, gradient in zip(self.weights, gradients, strict=True):
                weight.grad = gradient
            self.adam.step()
            return
        lr = max(rule.lr / rule.lr_decay**t, rule.lr_floor)
        share = min(max((epoch - 1) / 249, 0), 1)
        momentum = rule.momentum + share * ((rule.final_momentum or rule.momentum) - rule.momentum)
        for weight, gradient, velocity in zip(self.weights, gradients, self.velocities, strict=True):
            velocity.mul_(momentum).sub_(lr * gradient)
            weight.add_(velocity)
            if rule.max_column_norm and weight.dim() > 1:
                norms = weight.norm(dim=1, keepdim=True)
                weight.mul_(torch.where(norms > rule.max_column_norm, rule.max_column_norm / (norms + 1e-7), 1.0))


def plain_run(data, iterations, *, update, generator_loss, k, rules, smoothing=0.0, noise="normal", m=8, dropout=True):
    """Algorithm 1 written out; the weights after it and the losses of its last iteration."""
    G, D = networks(dropout=dropout)
    g, d = ([p.detach().clone().requires_grad_() for p in net.parameters()] for net in (G, D))
    g_rule, d_rule = PlainRule(rules[0], g), PlainRule(rules[1], d)

    def draw(stream, step):
        return ops.noise((m, 4), kind=noise, seed=SEED, offset=random.offset(stream, step), dtype=torch.float64)

    def cross_entropy(logits, target):
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))

    def loss_of_g(logits):
        return cross_entropy(logits, 1.0) if generator_loss == "non_saturating" else -cross_entropy(logits, 0.0)

    for i in range(iterations):
        for j in range(k):
            t = i * k + j
            epoch = 1 + t * m // len(data)
            start = random.offset(random.MINIBATCH, 0)
            rows = ops.minibatch_indices(len(data), m, start=t * m, seed=SEED, offset=start)
            x, z = data[rows].double(), draw(random.NOISE_D, t)
            fake = plain_forward(G, g, z, random.DROPOUT_G_IN_D, t)
            real_logits = plain_forward(D, d, x, random.DROPOUT_D_REAL, t)
            fake_logits = plain_forward(D, d, fake, random.DROPOUT_D_FAKE, t)
            d_loss = cross_entropy(real_logits, 1.0 - smoothing) + cross_entropy(fake_logits, 0.0)
            if update == "simultaneous":
                g_loss = loss_of_g(fake_logits)
                g_gradients = torch.autograd.grad(g_loss, g, retain_graph=True)
                d_rule.step(torch.autograd.grad(d_loss / 2, d), t, epoch)
            else:
                d_rule.step(torch.autograd.grad(d_loss, d), t, epoch)
        if update == "alternating":
            fake = plain_forward(G, g, draw(random.NOISE_G, i), random.DROPOUT_G, i)
            g_loss = loss_of_g(plain_forward(D, d, fake, random.DROPOUT_D_IN_G, i))
            g_gradients = torch.autograd.grad(g_loss, g)
        g_rule.step(g_gradients, i, epoch)
    means = torch.sigmoid(real_logits).mean(), torch.sigmoid(fake_logits).mean()
    return g, d, [value.item() for value in (d_loss, g_loss, *means)]


PAPER_RULE = Momentum(0.1, 0.5, lr_decay=1.01, lr_floor=0.05, final_momentum=0.9, max_column_norm=0.9)
RULES = {
    "momentum": (Momentum(lr=0.1), Momentum(lr=0.1)),
    "paper": (PAPER_RULE, PAPER_RULE),
    "adam": (Adam(lr=1e-2), Adam(lr=1e-2)),
    "a pair": (Adam(lr=1e-2, betas=(0.9, 0.99)), Momentum(lr=0.05, momentum=0.9)),
}


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("generator_loss", ["non_saturating", "minimax"])
@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
@pytest.mark.parametrize("iterations", [1, 8])
def test_equals_plain_torch(update, generator_loss, k, rules, iterations):
    settings = {"update": update, "generator_loss": generator_loss, "k": k}
    trainer = make(optimizer=RULES[rules], **settings)
    history = trainer.run(iterations)
    g, d, numbers = plain_run(ROWS, iterations, rules=RULES[rules], **settings)
    torch.testing.assert_close([p.detach() for p in trainer.generator.parameters()], [p.detach() for p in g], **CLOSE)
    torch.testing.assert_close(
        [p.detach() for p in trainer.discriminator.parameters()], [p.detach() for p in d], **CLOSE
    )
    last = [history.d_loss[-1], history.g_loss[-1], history.d_real[-1], history.d_fake[-1]]
    assert last == pytest.approx(numbers, rel=1e-9)


@pytest.mark.parametrize("rules", ["momentum", "adam"])
@pytest.mark.parametrize("generator_loss", ["non_saturating", "minimax"])
@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
def test_without_dropout_equals_plain_torch(update, generator_loss, rules):
    """Then, in alternating updates, both halves go through D as one batch, its last layer and loss being one op."""
    settings = {"update": update, "generator_loss": generator_loss, "k": 2}
    trainer = make(optimizer=RULES[rules], dropout=False, label_smoothing=0.1, **settings)
    assert trainer.discriminator.has_fused_head()
    history = trainer.run(8)
    g, d, numbers = plain_run(ROWS, 8, rules=RULES[rules], dropout=False, smoothing=0.1, **settings)
    for network, plain in ((trainer.generator, g), (trainer.discriminator, d)):
        torch.testing.assert_close([p.detach() for p in network.parameters()], [p.detach() for p in plain], **CLOSE)
    last = [history.d_loss[-1], history.g_loss[-1], history.d_real[-1], history.d_fake[-1]]
    assert last == pytest.approx(numbers, rel=1e-9)


@pytest.mark.parametrize("options", [{"smoothing": 0.1}, {"noise": "uniform"}], ids=str)
def test_other_options_equal_plain_torch(options):
    names = {"smoothing": "label_smoothing", "noise": "noise"}
    trainer = make(optimizer=Momentum(), **{names[key]: value for key, value in options.items()})
    trainer.run(2)
    settings = {"update": "alternating", "generator_loss": "non_saturating", "k": 1}
    g, _, _ = plain_run(ROWS, 2, rules=(Momentum(), Momentum()), **settings, **options)
    flat = torch.cat([p.detach().flatten() for p in g])
    torch.testing.assert_close(trainer.generator.flat_parameters(), flat, **CLOSE)


@pytest.mark.parametrize("pixel_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_bytes_are_scaled(pixel_range):
    pixels = (ROWS.sigmoid() * 255).to(torch.uint8)
    low, high = pixel_range
    results = []
    for data in (pixels, pixels.float() / 255 * (high - low) + low):
        trainer = make(data, pixel_range=pixel_range)
        trainer.run(3)
        results.append(trainer.discriminator.flat_parameters().clone())
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)  # the floats were rounded to float32
    assert make(pixels, pixel_range=pixel_range).value_range == pixel_range


def test_schedules():
    rule = Momentum(0.1, 0.5, lr_decay=1.000004, lr_floor=1e-6, final_momentum=0.7)
    assert [rule.momentum_at(epoch) for epoch in (1, 250, 10_000)] == pytest.approx([0.5, 0.7, 0.7])
    assert rule.momentum_at(125.5) == pytest.approx(0.6)
    assert rule.lr_at(0) == 0.1
    assert rule.lr_at(10**6) == pytest.approx(0.1 * math.exp(-math.log(1.000004) * 1e6))
    assert rule.lr_at(10**9) == 1e-6
    assert Momentum().lr_at(10**9) == 0.1


# -------------------------------------------------------------------------------------------- determinism


@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
def test_the_same_seed_gives_the_same_bits(update):
    first, second, other = (make(dtype=torch.float32, update=update, seed=seed) for seed in (3, 3, 4))
    histories = [first.run(20), second.run(20), other.run(20)]
    assert torch.equal(first.generator.flat_parameters(), second.generator.flat_parameters())
    assert np.array_equal(histories[0].d_loss, histories[1].d_loss)
    assert not np.array_equal(histories[0].d_loss, histories[2].d_loss)


def test_running_in_parts_changes_nothing():
    whole, parts = make(dtype=torch.float32), make(dtype=torch.float32)
    history = whole.run(20)
    pieces = [parts.run(n) for n in (1, 12, 7)]
    assert torch.equal(whole.generator.flat_parameters(), parts.generator.flat_parameters())
    assert np.array_equal(history.g_loss, np.concatenate([piece.g_loss for piece in pieces]))
    assert [piece.first for piece in pieces] == [0, 1, 13]
    assert pieces[1].iteration.tolist() == list(range(2, 14))


def test_each_epoch_sees_each_row_once():
    seen = []
    generator, discriminator = networks(torch.float32)
    rows = torch.arange(48.0)[:, None].expand(48, 6).contiguous()

    class Watching(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = discriminator

        def forward(self, x):
            seen.append(x[:, 0].tolist())
            return self.inner(x)

    trainer = Trainer(generator, Watching(), rows, batch_size=8, seed=1)
    seen.clear()
    trainer.run(12)
    real = seen[::3]  # of three passes an iteration, the first is of real rows
    epochs = [[row for batch in real[start : start + 6] for row in batch] for start in (0, 6)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(48))
    assert epochs[0] != epochs[1]


class Foreign(nn.Module):
    """A network that is not ours, with torch's dropout and batch normalisation."""

    def __init__(self, sizes, output):
        super().__init__()
        a, b, c = sizes
        self.net = nn.Sequential(
            nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU(), nn.Dropout(0.3), nn.Linear(b, c), output
        )

    def forward(self, x):
        return self.net(x)


def foreign(**options):
    torch.manual_seed(0)
    pair = Foreign((4, 8, 6), nn.Tanh()), Foreign((6, 8, 1), nn.Flatten(0))
    return Trainer(*pair, ROWS, batch_size=8, **options)


def test_other_modules_train_reproducibly_and_leave_torchs_generator_alone():
    first, second = foreign(seed=1), foreign(seed=1)
    torch.manual_seed(77)
    state = torch.get_rng_state()
    first.run(5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(78)
    second.run(2)
    second.run(3)
    for mine, other in zip(first.state().values(), second.state().values(), strict=True):
        assert torch.equal(mine, other)
    assert first.config.noise_dim == 4


def test_neither_step_computes_the_others_gradients():
    wanted = []

    class Spy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, weight, who):
            ctx.who = who
            return weight.clone()

        @staticmethod
        def backward(ctx, gradient):
            wanted.append(ctx.who)
            return gradient, None

    class Spied(nn.Module):
        def __init__(self, who, k, n):
            super().__init__()
            self.who, self.weight = who, nn.Parameter(normal(n, k, scale=0.1))

        def forward(self, x):
            return x @ Spy.apply(self.weight, self.who).T

    trainer = Trainer(Spied("G", 4, 6), Spied("D", 6, 1), ROWS, batch_size=8, noise_dim=4)
    trainer.run(1)
    assert wanted == ["D", "D", "G"]  # D's step passes twice through D; G's step touches G's weight alone
    wanted.clear()
    trainer = Trainer(Spied("G", 4, 6), Spied("D", 6, 1), ROWS, batch_size=8, noise_dim=4, update="simultaneous")
    trainer.run(1)
    assert sorted(wanted) == ["D", "D", "G"]


def test_frozen_parameters_stay():
    generator, discriminator = networks(torch.float32)
    generator.layers[0].weight.requires_grad_(False)
    before = generator.layers[0].weight.clone()
    Trainer(generator, discriminator, ROWS, batch_size=8).run(3)
    assert torch.equal(generator.layers[0].weight, before)


# ------------------------------------------------------------------------------------- statistics, samples


def test_history_has_a_number_for_each_iteration():
    calls = []
    trainer = make(dtype=torch.float32)
    history = trainer.run(30, lambda trainer, news: calls.append((trainer.iteration, len(news))))
    assert len(history) == 30
    assert trainer.iteration == 30
    assert sum(n for _, n in calls) == 30
    assert calls[-1][0] == 30
    for name in ("d_loss", "g_loss", "d_real", "d_fake"):
        values = getattr(history, name)
        assert values.shape == (30,)
        assert np.isfinite(values).all()
    assert repr(history).startswith("History(30 iterations from 0: d_loss ")


def test_statistics_take_room_as_they_come(monkeypatch):
    def stop(trainer, news):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make().run(10**13, stop)
    whole = make(engine="composed").run(30)
    monkeypatch.setattr("pygan.history._UNFETCHED", 4)
    monkeypatch.setattr("pygan.history.time", types.SimpleNamespace(monotonic=lambda: 0.0))  # no fetch for its age
    calls = []
    history = make(engine="composed").run(30, lambda trainer, news: calls.append(news))
    assert [len(news) for news in calls] == [4] * 7 + [2]
    assert [news.first for news in calls] == list(range(0, 30, 4))
    assert np.array_equal(history.d_loss, whole.d_loss)


@pytest.mark.parametrize(("value", "shown"), [(0.0, (-0.5, 0.5)), (3.0, (1.5, 4.5)), (-1e30, (-1.5e30, -0.5e30))])
def test_data_of_one_value_has_a_range(value, shown):
    assert make(torch.full((50, 6), value)).value_range == pytest.approx(shown)


def test_samples_follow_from_the_seed_and_the_draw():
    trainer, again = make(dtype=torch.float32), make(dtype=torch.float32)
    first, second = trainer.sample(10), trainer.sample(10)
    assert first.shape == (10, 6)
    assert not torch.equal(first, second)
    assert torch.equal(again.sample(10), first)
    assert torch.equal(trainer.sample(10, step=1), second)
    torch.testing.assert_close(trainer.sample(5000, step=0)[:10], first)  # sums in another order
    assert not first.requires_grad
    assert trainer.generator.training


def test_sampling_leaves_each_part_in_its_mode():
    trainer = foreign()
    trainer.generator.net[1].eval()
    trainer.sample(3)
    assert trainer.generator.training
    assert not trainer.generator.net[1].training


# ----------------------------------------------------------------------------------- interrupts, divergence


def test_an_interrupt_waits_for_the_end_of_the_iteration():
    trainer, twin = make(dtype=torch.float32), make(dtype=torch.float32)
    seen = []

    def interrupt():
        while trainer.iteration < 5:
            time.sleep(0.001)
        _thread.interrupt_main()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        trainer.run(1_000_000, lambda trainer, news: seen.append(len(news)))
    thread.join()
    assert 5 <= trainer.iteration == sum(seen) < 1_000_000
    twin.run(trainer.iteration)
    assert torch.equal(trainer.generator.flat_parameters(), twin.generator.flat_parameters())
    twin.run(3)
    trainer.run(3)
    assert torch.equal(trainer.generator.flat_parameters(), twin.generator.flat_parameters())


def test_runs_outside_the_main_thread():
    trainer = make(dtype=torch.float32)
    thread = threading.Thread(target=trainer.run, args=(3,))
    thread.start()
    thread.join()
    assert trainer.iteration == 3


def test_divergence_is_noticed_and_the_last_good_state_put_back():
    trainer = make(dtype=torch.float32, dropout=False, optimizer=Momentum(lr=1e-3))
    trainer.run(10)
    good = {name: tensor.clone() for name, tensor in trainer.state().items()}
    poisoned = []

    def poison(trainer, news):
        if not poisoned:
            trainer.discriminator.layers[0].weight.data[0, 0] = float("nan")
            poisoned.append(trainer.iteration)

    with pytest.raises(
        DivergenceError, match=r"diverged at iteration \d+: d_loss nan.* iteration 10 was put back"
    ) as caught:
        trainer.run(1_000_000, poison)
    assert caught.value.iteration == poisoned[0]
    assert caught.value.restored == trainer.iteration == 10
    assert math.isnan(caught.value.values["d_loss"])
    for name, tensor in trainer.state().items():
        assert torch.equal(tensor, good[name])
    assert np.isfinite(trainer.run(5).d_loss).all()


def test_a_learning_rate_out_of_bounds_diverges_with_numbers():
    trainer = make(dtype=torch.float32, dropout=False, optimizer=Momentum(lr=1e12))
    with pytest.raises(DivergenceError, match="the iteration before: d_loss") as caught:
        trainer.run(50)
    assert 0 < caught.value.iteration < 50
    assert torch.isfinite(trainer.generator.flat_parameters()).all()


def test_public_names():
    assert pygan.Trainer is Trainer
    assert isinstance(make().data, Dataset)
