"""Update rules, as frozen descriptions of what to do, and their state, held in flat buffers.

>>> Adam(lr=1e-3)
Adam(lr=0.001, betas=(0.5, 0.999), eps=1e-08)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pygan import ops
from pygan._names import check_name, check_number, check_pair


@dataclass(frozen=True)
class Momentum:
    """The paper's rule: v ← μ·v - lr·g, then θ ← θ + v.

    The learning rate stands inside the velocity: this differs from `torch.optim.SGD` as soon as it decays.

    Args:
        lr: the learning rate before the first update, above 0.
        momentum: μ, in [0, 1); what it starts from where it rises.
        lr_decay: the learning rate is divided by this at each update, 1 or above (the paper: 1.000004).
        lr_floor: below which the learning rate does not fall (the paper: 1e-6).
        final_momentum: where μ arrives, linearly over `momentum_epochs`; None leaves it constant (the paper:
            0.7).
        momentum_epochs: the epochs, counted from 1, between which μ moves (the paper: 1 to 250).
        max_column_norm: each unit's incoming weights are scaled back to this norm after an update; None
            leaves them (the paper: 1.9365 on faces).

    Raises:
        ValueError: a number out of its range.

    >>> rule = Momentum(lr=0.1, lr_decay=1.000004, lr_floor=1e-6, final_momentum=0.7)
    >>> rule.lr_at(0), round(rule.lr_at(250_000), 4), rule.momentum_at(1), rule.momentum_at(1000)
    (0.1, 0.0368, 0.5, 0.7)

    Source: Goodfellow et al. 2014, the authors' published configuration.
    """

    lr: float = 0.1
    momentum: float = 0.5
    lr_decay: float = 1.0
    lr_floor: float = 0.0
    final_momentum: float | None = None
    momentum_epochs: tuple[int, int] = (1, 250)
    max_column_norm: float | None = None

    def __post_init__(self):
        _store(self, "lr", "above 0", lambda lr: lr > 0)
        _store(self, "momentum", "in [0, 1)", lambda momentum: 0 <= momentum < 1)
        _store(self, "lr_decay", "at least 1", lambda decay: decay >= 1)
        _store(self, "lr_floor", f"between 0 and lr = {self.lr}", lambda floor: 0 <= floor <= self.lr)
        if self.final_momentum is not None:
            _store(self, "final_momentum", "in [0, 1)", lambda momentum: 0 <= momentum < 1)
        if self.max_column_norm is not None:
            _store(self, "max_column_norm", "above 0", lambda norm: norm > 0)
        epochs = check_pair(self.momentum_epochs, "momentum_epochs", "(first, last), rising", lambda a, b: a < b)
        object.__setattr__(self, "momentum_epochs", epochs)

    def lr_at(self, update: int) -> float:
        """max(lr / lr_decay^t, lr_floor) at update t, counted from 0."""
        return max(self.lr * self.lr_decay**-update, self.lr_floor)

    def momentum_at(self, epoch: int) -> float:
        """μ in an epoch, counted from 1."""
        if self.final_momentum is None:
            return self.momentum
        first, last = self.momentum_epochs
        share = min(max((epoch - first) / (last - first), 0.0), 1.0)
        return self.momentum * (1 - share) + self.final_momentum * share


@dataclass(frozen=True)
class Adam:
    """Adam: m ← β₁m + (1-β₁)g, v ← β₂v + (1-β₂)g², θ ← θ - lr·m̂ / (√v̂ + ε), as `torch.optim.Adam`.

    Args:
        lr: the learning rate, above 0.
        betas: β₁ and β₂, each in [0, 1).
        eps: ε, above 0.

    Raises:
        ValueError: a number out of its range.

    >>> Adam(lr=1e-3)
    Adam(lr=0.001, betas=(0.5, 0.999), eps=1e-08)

    Source: Kingma and Ba 2015; the defaults are those of Radford et al. 2016.
    """

    lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    eps: float = 1e-8

    def __post_init__(self):
        _store(self, "lr", "above 0", lambda lr: lr > 0)
        _store(self, "eps", "above 0", lambda eps: eps > 0)
        betas = check_pair(self.betas, "betas", "two numbers in [0, 1)", lambda a, b: 0 <= a < 1 and 0 <= b < 1)
        object.__setattr__(self, "betas", betas)


Rule = Momentum | Adam
_RULES = {"Momentum": Momentum, "Adam": Adam}
_BUFFERS = {Momentum: ("velocity",), Adam: ("m", "v")}


class Optimizer:
    """An update rule at work on one network: its state lies in flat buffers, an update is one fused op.

    Args:
        rule: a `Momentum` or an `Adam`.
        parameters: of the network, of one dtype and device; those that need no gradient are left out.

    Raises:
        TypeError: a rule of another type.
        ValueError: nothing to update, or parameters of several dtypes or devices.

    >>> p = torch.nn.Parameter(torch.zeros(2))
    >>> Optimizer(Momentum(lr=0.5), [p]).update_([torch.ones(2)], update=0, epoch=1)
    >>> p.data
    tensor([-0.5000, -0.5000])
    """

    def __init__(self, rule: Rule, parameters: Iterable[Tensor]):
        self.rule = check_rule(rule)
        self.parameters = [p for p in parameters if p.requires_grad]
        if len({(p.dtype, p.device) for p in self.parameters}) != 1:
            raise ValueError("optimizer needs at least one parameter, and all of one dtype on one device")
        sizes, like = [p.numel() for p in self.parameters], self.parameters[0]
        self.buffers = {
            name: torch.zeros(sum(sizes), dtype=like.dtype, device=like.device) for name in _BUFFERS[type(rule)]
        }
        self._views = [
            [part.view(p.shape) for part, p in zip(buffer.split(sizes), self.parameters, strict=True)]
            for buffer in self.buffers.values()
        ]

    def follow(self, parameters: Iterable[Tensor], network: str) -> None:
        """Take over parameters that were replaced by others of the same shapes.

        Raises:
            ValueError: they are other in number, shape, dtype or device than those the state was made for.
        """
        parameters, state = [p for p in parameters if p.requires_grad], self._views[0]
        like = next(iter(self.buffers.values()))
        kinds = {(p.dtype, p.device) for p in parameters}
        if [p.shape for p in parameters] != [view.shape for view in state] or kinds != {(like.dtype, like.device)}:
            raise ValueError(
                f"the {network}'s parameters are no longer those that this trainer was made for: their number, shapes, "
                f"dtype ({str(like.dtype).removeprefix('torch.')}) and device ({like.device}) must stay; make a new "
                f"trainer"
            )
        self.parameters = parameters

    @torch.no_grad()
    def update_(self, gradients: Sequence[Tensor], *, update: int, epoch: int) -> None:
        """Change the parameters by their gradients: update number `update` (from 0), in `epoch` (from 1)."""
        rule = self.rule
        if isinstance(rule, Adam):
            ops.adam_(
                self.parameters,
                gradients,
                *self._views,
                step=update + 1,
                lr=rule.lr,
                betas=rule.betas,
                eps=rule.eps,
            )
            return
        lr, momentum = rule.lr_at(update), rule.momentum_at(epoch)
        ops.momentum_(self.parameters, gradients, *self._views, lr=lr, momentum=momentum)
        if rule.max_column_norm is not None:
            for p in self.parameters:
                if p.dim() > 1:
                    p.renorm_(2, 0, rule.max_column_norm)


def rule_to_dict(rule: Rule) -> dict:
    """A rule as plain values, for a file."""
    return {"rule": type(rule).__name__, **dataclasses.asdict(rule)}


def rule_from_dict(values: dict) -> Rule:
    """The rule that `rule_to_dict` wrote down.

    >>> rule_from_dict(rule_to_dict(Adam(lr=1e-3)))
    Adam(lr=0.001, betas=(0.5, 0.999), eps=1e-08)
    """
    values = dict(values)
    return _RULES[check_name(values.pop("rule"), _RULES, "rule")](**values)


def check_rules(optimizer: Rule | Sequence[Rule]) -> tuple[Rule, Rule]:
    """The generator's rule and the discriminator's, of a pair or of one rule for both."""
    rules = tuple(optimizer) if isinstance(optimizer, (tuple, list)) else (optimizer, optimizer)
    if len(rules) != 2:
        raise ValueError(f"optimizer must be one rule or a pair of them, got {len(rules)}")
    return check_rule(rules[0]), check_rule(rules[1])


def check_rule(rule: Rule) -> Rule:
    """`rule` if it is one of pygan's."""
    if type(rule) not in _BUFFERS:
        raise TypeError(f"optimizer must be a pygan.Momentum or a pygan.Adam, got {type(rule).__name__}")
    return rule


def _store(rule: Rule, name: str, expected: str, valid: Callable[[float], bool]) -> None:
    object.__setattr__(rule, name, check_number(getattr(rule, name), name, expected, valid))
