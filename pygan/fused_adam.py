"""`torch.optim.Adam` on the op that updates all parameters in one call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from pygan import ops
from pygan._names import check_number, check_pair


class FusedAdam(torch.optim.Optimizer):
    r"""Adam for any training loop, a drop-in for `torch.optim.Adam`: a network is updated in one call.

    State and `state_dict` are torch's (`step`, `exp_avg`, `exp_avg_sq`), so either goes on from the other's; learning
    rate schedulers, parameter groups and `GradScaler` work as with torch's.

    Args:
        params: parameters or parameter groups, of float32, float64, bfloat16 or float16.
        lr: learning rate, at least 0.
        betas: both in [0, 1).
        eps: at least 0.

    Raises:
        ValueError: a number out of range; at a step, a setting of torch's that this has not (of a state that was
            loaded).

    >>> layer = torch.nn.Linear(3, 2)
    >>> optimizer = FusedAdam(layer.parameters(), lr=2e-4, betas=(0.5, 0.999))
    >>> layer(torch.ones(1, 3)).sum().backward()
    >>> optimizer.step()

    Source: Kingma & Ba 2015, Algorithm 1.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ):
        check_number(float(lr), "lr", "at least 0", lambda value: value >= 0)
        betas = check_pair(betas, "betas", "two numbers in [0, 1)", lambda one, two: 0 <= one < 1 and 0 <= two < 1)
        check_number(eps, "eps", "at least 0", lambda value: value >= 0)
        # torch's other settings as they are there by default, for a state that torch's Adam goes on from
        others = {"weight_decay": 0, "amsgrad": False, "maximize": False}
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, **others})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One update of every parameter that has a gradient.

        Args:
            closure: computes the loss and the gradients anew.

        Returns:
            The closure's loss.

        Raises:
            RuntimeError: a sparse gradient.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for name in ("weight_decay", "amsgrad", "maximize"):
                if group.get(name):
                    raise ValueError(f"{name} must be {0 if name == 'weight_decay' else False}, got {group[name]}")
            for (step, _, _), params in self._by_step(group["params"]).items():
                states = [self.state[p] for p in params]
                ops.adam_(
                    params,
                    [p.grad for p in params],
                    [state["exp_avg"] for state in states],
                    [state["exp_avg_sq"] for state in states],
                    step=step,
                    lr=float(group["lr"]),
                    betas=group["betas"],
                    eps=group["eps"],
                )
        return loss

    def _by_step(self, params: list[Tensor]) -> dict[tuple, list[Tensor]]:
        """The parameters that have a gradient by the number of this update, dtype and device: one call each."""
        found: dict[tuple, list[Tensor]] = {}
        for p in params:
            if p.grad is None:
                continue
            if p.grad.layout is not torch.strided:
                raise RuntimeError("FusedAdam takes no sparse gradients: torch.optim.SparseAdam does")
            state = self.state[p]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32)
                state["exp_avg"] = torch.zeros_like(p)
                state["exp_avg_sq"] = torch.zeros_like(p)
            state["step"] += 1
            found.setdefault((int(state["step"]), p.dtype, p.device), []).append(p)
        return found
