"""Around a run: interrupts between iterations, torch's random state, the last good state."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from pygan.trainer import Trainer


class Terminated(BaseException):
    """SIGTERM came, inside `termination_raises`."""


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[Callable[[], bool]]:
    """Inside, SIGINT and SIGTERM are only noted (the function given tells); the first's handler runs on the way out.

    Outside the main thread, where no signal arrives, and for a signal without a handler in Python, nothing changes.
    """
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    received = []
    for number in handlers:
        signal.signal(number, lambda *arguments: received.append(arguments))
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if received:
            number, frame = received[0]
            handlers[number](number, frame)


@contextlib.contextmanager
def termination_raises() -> Iterator[None]:
    """Inside, SIGTERM raises `Terminated`, as SIGINT raises KeyboardInterrupt, unless someone else handles it."""

    def terminate(number, frame):
        raise Terminated

    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, the module is in evaluation mode; afterwards each part is in the mode it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


class TorchRandomness:
    """A state of torch's generators that belongs to one trainer, for modules that draw from them.

    Args:
        seed: where it starts.
        device: the CPU's generator is always kept; a CUDA device's beside it.
    """

    def __init__(self, seed: int, device: torch.device):
        self._cuda = device if device.type == "cuda" else None
        with self._forked():
            torch.manual_seed(seed)
            self._read()
        self._live = False

    def state(self) -> dict[str, Tensor]:
        """The state as tensors by name."""
        if self._live:
            self._read()
        return {f"rng.{name}": tensor for name, tensor in self._tensors.items()}

    def put_back(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave."""
        self._tensors = {name: state[f"rng.{name}"].cpu().clone() for name in self._tensors}
        if self._live:
            self._write()

    @staticmethod
    @contextlib.contextmanager
    def installed(randomness: TorchRandomness | None) -> Iterator[None]:
        """Inside, torch's generators continue from the trainer's state; afterwards from where they were."""
        if randomness is None:
            yield
            return
        with randomness._forked():
            randomness._write()
            randomness._live = True
            try:
                yield
            finally:
                randomness._read()
                randomness._live = False

    def _forked(self):
        return torch.random.fork_rng(devices=[self._cuda] if self._cuda else [])

    def _read(self) -> None:
        self._tensors = {"cpu": torch.get_rng_state()}
        if self._cuda:
            self._tensors["cuda"] = torch.cuda.get_rng_state(self._cuda)

    def _write(self) -> None:
        torch.set_rng_state(self._tensors["cpu"])
        if self._cuda:
            torch.cuda.set_rng_state(self._tensors["cuda"], self._cuda)


class LastGood:
    """A copy of the trainer's state from a moment when all of it was finite; costs 2 % of a run's time."""

    def __init__(self, trainer: Trainer):
        self._trainer = trainer
        self._copy: dict[str, Tensor] = {}
        self._due = 0.0
        self.keep()

    def keep(self) -> None:
        """Copy the state as it is now, unless the last copy is recent or a parameter is not finite."""
        start = time.monotonic()
        if start < self._due:
            return
        state = self._trainer.state()
        if self._copy and not all(t.isfinite().all() for t in state.values() if t.is_floating_point()):
            return
        self._copy = {name: tensor.clone() for name, tensor in state.items()}
        self._iteration = self._trainer.iteration
        now = time.monotonic()
        self._due = now + max(1.0, 50 * (now - start))

    def put_back(self) -> None:
        """Give the trainer the copied state."""
        restore(self._trainer, self._copy)
        self._trainer.iteration = self._iteration


@torch.no_grad()
def restore(trainer: Trainer, state: dict[str, Tensor]) -> None:
    """Copy a state, of the names and shapes of `trainer.state()`, into a trainer."""
    for name, tensor in trainer.state().items():
        if not name.startswith("rng."):
            tensor.copy_(state[name])
    if trainer.torch_randomness is not None:
        trainer.torch_randomness.put_back(state)
