"""Algorithm 1 of the paper, and around it what a run needs: data, noise, statistics, interrupts, samples."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pygan import averaging, native, ops, random
from pygan._names import check_whole
from pygan.config import TrainerConfig, check_device, check_modules, check_networks, infer_noise_dim
from pygan.data import Dataset, as_dataset
from pygan.history import DivergenceError, History, Recorder
from pygan.nn import MLP
from pygan.optim import Adam, Optimizer, Rule
from pygan.running import LastGood, TorchRandomness, evaluating, interrupts_deferred

__all__ = ["Trainer"]

# After a call of the native engine an interrupt is seen and statistics are shown.
_SECONDS_OF_A_CALL = 0.1
_MOST_IN_A_CALL = 1 << 16

News = tuple[History, int | None]

# Why the composed engine was chosen: said once.
_reasons_told: set[str] = set()


class Trainer:
    """Trains a generator against a discriminator on a data set.

    Each iteration takes k steps of the discriminator, then one of the generator:

        D descends  mean softplus(-a(x)) + mean softplus(a(G(z)))     a = logit of D
        G descends  mean softplus(-a(G(z)))                           or -softplus(a(G(z))), "minimax"

    "alternating" is the paper's Algorithm 1: the generator's step sees the discriminator just updated, and
    fresh noise. "simultaneous" is what the authors ran: the last of the k discriminator steps and the
    generator's start from the same parameters and the same noise, the generator's gradient passes through the
    discriminator under the dropout masks of its generated half, and the discriminator's loss is halved.

    All randomness follows from `seed` and the number of the iteration: the same seed gives the same bits.
    Only modules other than pygan's MLPs draw from torch's generators, of which the trainer keeps a state of
    its own.

    Args:
        generator: (m, noise_dim) -> (m, d).
        discriminator: (m, d) -> (m, 1) or (m,), logits.
        data: a `pygan.data.Dataset`, or a tensor or array of n rows.
        batch_size: m, examples in a step.
        k: discriminator steps in an iteration.
        update: "alternating" or "simultaneous".
        generator_loss: "non_saturating" or "minimax".
        optimizer: a `pygan.Momentum` or `pygan.Adam`, or a pair of them: the generator's, the
            discriminator's.
        noise: "normal", N(0, 1), or "uniform", U(±√3).
        noise_dim: the length of a noise vector; by default the input length of the generator's first layer.
        label_smoothing: ε of the discriminator's loss.
        ema_decay: of an exponential average of the generator's weights, for each iteration, in (0, 1), as 0.9999 over
            some 10,000; taken every 50, of parameters alone. Training does not see it: `sample` draws from it. None
            keeps none.
        pixel_range: what 0 and 255 of uint8 data stand for.
        seed: of all randomness.
        engine: "native" runs whole iterations in compiled code, for two `pygan.nn.MLP`s; "composed" calls op
            after op, for any modules; "auto" is native where it can be, and warns once, with the reason, where it
            cannot.
        device: where to train; by default where the generator is.

    Raises:
        ValueError: an unknown name, a number out of range, data or networks that do not fit one another.
        TypeError: an argument of another type.

    >>> import pygan
    >>> generator, discriminator = pygan.nn.MLP([8, 32, 2]), pygan.nn.MLP([2, 32, 1])
    >>> trainer = Trainer(generator, discriminator, pygan.data.mixture("ring8"), batch_size=64)
    >>> history = trainer.run(10)
    >>> len(history), trainer.iteration, trainer.sample(5).shape
    (10, 10, torch.Size([5, 2]))

    Source: Goodfellow et al. 2014, Algorithm 1 and the authors' published configuration.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        data: Dataset | Tensor | np.ndarray,
        *,
        batch_size: int = 100,
        k: int = 1,
        update: str = "alternating",
        generator_loss: str = "non_saturating",
        optimizer: Rule | tuple[Rule, Rule] = Adam(),
        noise: str = "normal",
        noise_dim: int | None = None,
        label_smoothing: float = 0.0,
        ema_decay: float | None = None,
        pixel_range: tuple[float, float] = (0.0, 1.0),
        seed: int = 0,
        engine: str = "auto",
        device: torch.device | str | None = None,
    ):
        check_modules(generator=generator, discriminator=discriminator)
        self.config = TrainerConfig(
            batch_size=batch_size,
            k=k,
            update=update,
            generator_loss=generator_loss,
            optimizer=optimizer,
            noise=noise,
            noise_dim=infer_noise_dim(generator) if noise_dim is None else noise_dim,
            label_smoothing=label_smoothing,
            ema_decay=ema_decay,
            pixel_range=pixel_range,
            seed=seed,
            engine=engine,
        )
        self._data = as_dataset(data)
        self._running = False
        self.iteration = 0
        self.samples_drawn = 0
        self.checkpoints: set[Path] = set()
        self._set_up(generator, discriminator, device)

    def _set_up(self, generator: nn.Module, discriminator: nn.Module, device) -> None:
        """Bring networks, data and optimizers to one device."""
        check_device(next(generator.parameters()).device if device is None else device)
        if device is not None:
            generator, discriminator = generator.to(device), discriminator.to(device)
        self.generator, self.discriminator = generator, discriminator
        first = check_networks(generator, discriminator, self.data, self.config)
        self.device, self.dtype = first.device, first.dtype
        values = self.data.values.to(self.device)
        self._values = values if values.dtype == torch.uint8 else values.to(self.dtype)
        self._shape = self._values.shape
        self._g = Optimizer(self.config.optimizer[0], generator.parameters())
        self._d = Optimizer(self.config.optimizer[1], discriminator.parameters())
        decay = self.config.ema_decay
        self._average = None if decay is None else averaging.Average(generator, decay)
        foreign = not (isinstance(generator, MLP) and isinstance(discriminator, MLP))
        self.torch_randomness = TorchRandomness(self.config.seed, self.device) if foreign else None
        self.engine  # noqa: B018  the native one is refused here, not when training begins

    @property
    def data(self) -> Dataset:
        """What is trained on; a trainer keeps its data for life."""
        return self._data

    @property
    def average(self) -> dict[str, Tensor] | None:
        """The average of the generator's parameters by name; None without `ema_decay`, and before iteration 50."""
        if self._average is None or self.iteration < averaging.STEPS:
            return None
        return self._average.weights(self.generator)

    @property
    def engine(self) -> str:
        """The engine that `run` uses, "native" or "composed".

        Raises:
            ValueError: the native one was asked for and cannot run these networks.
        """
        return self._choose_engine()[0]

    def _choose_engine(self) -> tuple[str, str | None]:
        """The engine, and why it is not the native one where that was left to the trainer."""
        asked = self.config.engine
        if asked == "composed":
            return asked, None
        reason = native.why_not(self)
        if reason is None:
            slower = asked == "auto" and native.slower_than_composed(self)
            return ("composed" if slower else "native"), None
        if asked == "native":
            raise ValueError(f"engine must be composed or auto here: {reason}")
        return "composed", reason

    # ------------------------------------------------------------------------------------------ Algorithm 1

    def _alternating(self, i: int) -> tuple[Tensor, ...]:
        """Iteration i as the paper prints it: k steps of D, then one of G with fresh noise."""
        config, k = self.config, self.config.k
        for j in range(k):
            t = i * k + j
            z = self._noise(random.NOISE_D, t)
            x = self._minibatch(t)
            with torch.no_grad():
                fake = self._G(z, random.DROPOUT_G_IN_D, t)
            d_loss, real_logits, fake_logits = self._d_loss(x, fake, t)
            self._d.update_(gradients(d_loss, self._d), update=t, epoch=self._epoch(t))
        z = self._noise(random.NOISE_G, i)
        logits = self._D(self._G(z, random.DROPOUT_G, i), random.DROPOUT_D_IN_G, i)
        g_loss = ops.generator_loss(logits, kind=config.generator_loss)
        self._g.update_(gradients(g_loss, self._g), update=i, epoch=self._epoch(t))
        return statistics(d_loss, g_loss, real_logits, fake_logits)

    def _d_loss(self, x: Tensor, fake: Tensor, t: int) -> tuple[Tensor, Tensor, Tensor]:
        """What D descends, and its logits: both halves in one batch where D's last layer and loss are one op."""
        smoothing = self.config.label_smoothing
        if isinstance(self.discriminator, MLP) and self.discriminator.has_fused_head():
            both = torch.cat((x, fake))
            d_loss, logits = self.discriminator.head_loss(both, real_rows=len(x), label_smoothing=smoothing)
            return d_loss, logits[: len(x)], logits[len(x) :]
        real_logits = self._D(x, random.DROPOUT_D_REAL, t)
        fake_logits = self._D(fake, random.DROPOUT_D_FAKE, t)
        return (
            ops.discriminator_loss(real_logits, fake_logits, label_smoothing=smoothing),
            real_logits,
            fake_logits,
        )

    def _simultaneous(self, i: int) -> tuple[Tensor, ...]:
        """Iteration i as the authors ran it: G steps with D's last step, from the same parameters and z."""
        config, k = self.config, self.config.k
        for j in range(k):
            t, with_g = i * k + j, j == k - 1
            z = self._noise(random.NOISE_D, t)
            x = self._minibatch(t)
            with torch.set_grad_enabled(with_g):
                fake = self._G(z, random.DROPOUT_G_IN_D, t)
            real_logits = self._D(x, random.DROPOUT_D_REAL, t)
            fake_logits = self._D(fake, random.DROPOUT_D_FAKE, t)
            d_loss = ops.discriminator_loss(real_logits, fake_logits, label_smoothing=config.label_smoothing)
            d_gradients = gradients(0.5 * d_loss, self._d, retain_graph=with_g)
            if with_g:
                g_loss = ops.generator_loss(fake_logits, kind=config.generator_loss)
                g_gradients = gradients(g_loss, self._g)
            self._d.update_(d_gradients, update=t, epoch=self._epoch(t))
        self._g.update_(g_gradients, update=i, epoch=self._epoch(t))
        return statistics(d_loss, g_loss, real_logits, fake_logits)

    def _noise(self, stream: int, step: int) -> Tensor:
        """z, (m, noise_dim)."""
        config = self.config
        size, offset = (config.batch_size, config.noise_dim), random.offset(stream, step)
        return ops.noise(size, kind=config.noise, seed=config.seed, offset=offset, dtype=self.dtype, device=self.device)

    def _minibatch(self, t: int) -> Tensor:
        """x, (m, d): each epoch runs through all rows once, in an order of its own."""
        n, m, seed = len(self.data), self.config.batch_size, self.config.seed
        offset = random.offset(random.MINIBATCH, 0)
        rows = ops.minibatch_indices(n, m, start=t * m, seed=seed, offset=offset)
        x = self._values.index_select(0, rows.to(self.device))
        if x.dtype == torch.uint8:
            low, high = self.config.pixel_range
            x = x.to(self.dtype).mul_((high - low) / 255).add_(low)
        return x

    def _epoch(self, t: int) -> int:
        """The epoch, counted from 1, in which discriminator step t begins."""
        return 1 + t * self.config.batch_size // len(self.data)

    def _G(self, z: Tensor, stream: int, step: int) -> Tensor:
        return _forward(self.generator, z, self.config.seed, random.offset(stream, step))

    def _D(self, x: Tensor, stream: int, step: int) -> Tensor:
        return _forward(self.discriminator, x, self.config.seed, random.offset(stream, step))

    # ---------------------------------------------------------------------------------------------- running

    def run(
        self,
        iterations: int,
        callback: Callable[[Trainer, History], None] | None = None,
        *,
        rollback: bool = True,
    ) -> History:
        """Train for so many iterations, from where the trainer stands.

        An interrupt (Ctrl-C, or SIGTERM where Python handles it) waits for the end of the iteration: the trainer is
        then left between two iterations, can be saved, and can run on.

        Args:
            iterations: at least 1.
            callback: called a few times a second with this trainer and the statistics since its last call.
            rollback: keep a copy of the last good state, as large as parameters, their average and optimizer state
                together, to put back should a loss become infinite or NaN. Without it such a run leaves the state as it
                then is.

        Returns:
            The statistics of these iterations.

        Raises:
            ValueError: fewer than one iteration.
            ValueError: a network's parameters have changed in number, shape, dtype or device since the trainer was
                made.
            RuntimeError: called where torch computes no gradients, or while the trainer is running.
            DivergenceError: a loss became infinite or NaN; with `rollback` the last good state is put back first.
            KeyboardInterrupt: after the callback has seen all statistics.
        """
        iterations = check_whole(iterations, "iterations")
        if not torch.is_grad_enabled():
            raise RuntimeError("Trainer.run needs gradients: call it outside torch.no_grad() and inference_mode()")
        if self._running:
            raise RuntimeError("this trainer is running: let a run end, or its callback return, before the next")
        self._running = True
        try:
            return self._run(iterations, callback, rollback)
        finally:
            self._running = False

    def _run(self, iterations: int, callback: Callable[[Trainer, History], None] | None, rollback: bool) -> History:
        self._follow_networks()
        engine, reason = self._choose_engine()
        if reason is not None and reason not in _reasons_told:
            _reasons_told.add(reason)
            warnings.warn(f'engine="auto" is composed here, the slower one: {reason}', stacklevel=2)
        recorder = Recorder(self.iteration, torch.empty((), device=self.device, dtype=self.dtype))
        last_good = LastGood(self) if rollback else None
        with interrupts_deferred() as interrupted, TorchRandomness.installed(self.torch_randomness):
            batches = self._run_native if engine == "native" else self._run_composed
            for news, bad in batches(iterations, recorder, interrupted):
                if bad is not None:
                    if last_good is not None:
                        last_good.put_back()
                    restored = self.iteration if last_good is not None else None
                    raise DivergenceError(bad, recorder.at(bad), recorder.at(bad - 1), restored)
                if last_good is not None:
                    last_good.keep()
                if callback is not None:
                    callback(self, news)
                    self._follow_networks()
        return recorder.history()

    def _follow_networks(self) -> None:
        """Train what the networks are now: parameters may have been replaced by others of the same shapes.

        Data may have moved, too, but not grown. A callback may have left a network in evaluation mode.
        """
        self.generator.train()
        self.discriminator.train()
        self._g.follow(self.generator.parameters(), "generator")
        self._d.follow(self.discriminator.parameters(), "discriminator")
        if self._values.shape != self._shape:
            was, now = tuple(self._shape), tuple(self._values.shape)
            raise ValueError(f"data must stay as it was when the trainer was made, {was}, and is now {now}")

    def _run_composed(self, iterations: int, recorder: Recorder, interrupted: Callable[[], bool]) -> Iterator[News]:
        """Iterations as ops that Python calls; yields the statistics a few times a second."""
        step = self._alternating if self.config.update == "alternating" else self._simultaneous
        for n in range(1, iterations + 1):
            recorder.write(step(self.iteration))
            self.iteration += 1
            if self._average is not None:
                self._average.follow(self.generator, self.iteration)
            if n == iterations or interrupted() or recorder.due():
                yield recorder.fetch()
            if interrupted():
                return

    def _run_native(self, iterations: int, recorder: Recorder, interrupted: Callable[[], bool]) -> Iterator[News]:
        """Iterations in calls of the native engine."""
        session, end = native.Session(self), self.iteration + iterations
        while self.iteration < end and not interrupted():
            if native.why_not(self) is not None:  # since the callback
                yield from self._run_composed(end - self.iteration, recorder, interrupted)
                return
            if not session.is_of(self):
                session = native.Session(self)
            yield recorder.add(self._native_call(session, end))

    def _native_call(self, session: native.Session, end: int) -> np.ndarray:
        """Iterations for some time, at most up to number `end`: with an average as many calls as it has looks."""
        if self._average is None:
            rows = session.run(self.iteration, min(end - self.iteration, _MOST_IN_A_CALL), _SECONDS_OF_A_CALL)
            self.iteration += len(rows)
            return rows
        start, parts = time.monotonic(), []
        while True:
            left = start + _SECONDS_OF_A_CALL - time.monotonic()
            due = self._average.until_due(self.iteration)
            parts.append(session.run(self.iteration, min(end - self.iteration, due), max(left, 0.0)))
            self.iteration += len(parts[-1])
            self._average.follow(self.generator, self.iteration)
            if left <= 0 or self.iteration == end or not np.isfinite(parts[-1]).all():
                return np.concatenate(parts)

    def sample(self, n: int, *, step: int | None = None, averaged: bool = True) -> Tensor:
        """Examples from the generator in evaluation mode.

        Args:
            n: how many, at least 1.
            step: numbers the draw: the same number gives the same noise. By default each call takes the next.
            averaged: with the average of its weights, where `ema_decay` keeps one and 50 iterations are done; else with
                those that training left.

        Returns:
            (n, d) on the trainer's device.

        Raises:
            ValueError: n below 1, or step below 0.
        """
        if step is None:
            step = self.samples_drawn
            self.samples_drawn += 1
        step = check_whole(step, "step", least=0)
        return generate(
            self.generator,
            n,
            self.config,
            step=step,
            like=next(self.generator.parameters()),
            weights=self.average if averaged else None,
        )

    # ------------------------------------------------------------------------------------------- checkpoints

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a checkpoint, from which `resume` continues to the same bits; see `pygan.checkpoint`.

        The file appears whole or not at all. One that this trainer did not write is replaced only on request.

        Raises:
            FileExistsError: the file is not this trainer's, and `overwrite` is False.
            OSError: it cannot be written.
        """
        from pygan import checkpoint

        checkpoint.save(self, path, overwrite=overwrite)

    @classmethod
    def resume(cls, path: str | Path, data: Dataset | Tensor | np.ndarray, **options) -> Trainer:
        """The trainer that `save` wrote down, on the same data; options as in `pygan.checkpoint.resume`."""
        from pygan import checkpoint

        return checkpoint.resume(path, data, **options)

    @property
    def value_range(self) -> tuple[float, float]:
        """What pictures show as black and as white: the data's own range, or its lowest and highest value, apart."""
        if self._values.dtype == torch.uint8:
            return self.config.pixel_range
        if self.data.value_range is not None:
            return self.data.value_range
        low, high = float(self._values.min()), float(self._values.max())
        around = 0.0 if low < high else max(0.5, abs(low) / 2)
        return low - around, high + around

    def state(self) -> dict[str, Tensor]:
        """Every tensor that training changes, by name, sharing memory with the trainer."""
        state = {}
        for name, network, optimizer in (
            ("generator", self.generator, self._g),
            ("discriminator", self.discriminator, self._d),
        ):
            for key, value in network.state_dict().items():
                if not isinstance(value, Tensor):
                    raise TypeError(f"{name} keeps {key!r} in its state, a {type(value).__name__}: only tensors can be")
                state[f"{name}.{key}"] = value.detach()
            state |= {f"optimizer.{name}.{key}": buffer for key, buffer in optimizer.buffers.items()}
        if self._average is not None:
            state |= {f"average.{name}": tensor for name, tensor in self._average.tensors.items()}
        if self.torch_randomness is not None:
            state |= self.torch_randomness.state()
        return state


def gradients(loss: Tensor, optimizer: Optimizer, *, retain_graph: bool = False) -> tuple[Tensor, ...]:
    """∂loss/∂θ for the parameters of one network; nothing is computed for the other's."""
    return torch.autograd.grad(loss, optimizer.parameters, retain_graph=retain_graph, materialize_grads=True)


@torch.no_grad()
def statistics(d_loss: Tensor, g_loss: Tensor, real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, ...]:
    """The four numbers of an iteration, on the device."""
    return (
        d_loss.detach(),
        g_loss.detach(),
        torch.sigmoid(real_logits).mean(),
        torch.sigmoid(fake_logits).mean(),
    )


def generate(
    generator: nn.Module,
    n: int,
    config: TrainerConfig,
    *,
    step: int,
    like: Tensor,
    weights: dict[str, Tensor] | None = None,
) -> Tensor:
    """(n, d): the generator in evaluation mode at noise numbered by `step`, with its own or other weights."""
    return generate_from(generator, sample_noise(n, config, step=step, like=like), weights)


@torch.no_grad()
def generate_from(generator: nn.Module, z: Tensor, weights: dict[str, Tensor] | None = None) -> Tensor:
    """(n, d): the generator in evaluation mode at z, (n, noise_dim), some thousand rows at a time."""

    def call(part: Tensor) -> Tensor:
        return generator(part) if weights is None else torch.func.functional_call(generator, weights, (part,))

    with evaluating(generator):
        return torch.cat([call(part) for part in z.split(4096)])


def sample_noise(n: int, config: TrainerConfig, *, step: int, like: Tensor) -> Tensor:
    """(n, noise_dim): what the draw numbered `step` is made of, of which a longer one with that number begins."""
    return ops.noise(
        (check_whole(n, "n"), config.noise_dim),
        kind=config.noise,
        seed=config.seed,
        offset=random.offset(random.SAMPLE, step),
        dtype=like.dtype,
        device=like.device,
    )


def _forward(network: nn.Module, x: Tensor, seed: int, offset: int) -> Tensor:
    """A network in training: MLPs of ours take their dropout masks from the seed, others from torch."""
    return network(x, seed=seed, offset=offset) if isinstance(network, MLP) else network(x)
