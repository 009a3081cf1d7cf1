"""A generator's weights averaged over the iterations: what they circle about."""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEPS = 50  # iterations from one look at the weights to the next


class Average:
    """An exponential average of a network's parameters, by their names; 16-bit ones are averaged in float32.

    Every 50 iterations it moves towards the parameters by w = 1 - decay^50, at first by more, so that until 1 / w looks
    it is their plain mean:

        average += max(w, 1 / n) (parameters - average)     at the n-th look

    It depends on the number of the iteration alone: a run in parts gives the same bits as one in a piece. Parameters
    that are not finite are not looked at.
    """

    def __init__(self, network: nn.Module, decay: float):
        if isinstance(network, torch.jit.ScriptModule):
            raise ValueError(
                "ema_decay needs a generator whose weights can be replaced for a call: a scripted one's cannot"
            )
        self._least = 1 - decay**STEPS
        self.tensors = {name: _wide(p).clone() for name, p in network.named_parameters()}

    @staticmethod
    def until_due(iteration: int) -> int:
        """Iterations from this one to the next look."""
        return STEPS - iteration % STEPS

    @torch.no_grad()
    def follow(self, network: nn.Module, iteration: int) -> None:
        """Look at a network where so many iterations are done, if it is time to."""
        looks, rest = divmod(iteration, STEPS)
        if rest or not looks:
            return
        now = dict(network.named_parameters())
        now = [_wide(now[name]) for name in self.tensors]
        if all(p.isfinite().all() for p in now):
            torch._foreach_lerp_(list(self.tensors.values()), now, max(self._least, 1 / looks))

    def weights(self, network: nn.Module) -> dict[str, Tensor]:
        """The average in the types of the network's own parameters."""
        return {name: self.tensors[name].to(p.dtype) for name, p in network.named_parameters()}


def _wide(parameter: Tensor) -> Tensor:
    now = parameter.detach()
    return now.float() if now.dtype in (torch.float16, torch.bfloat16) else now
