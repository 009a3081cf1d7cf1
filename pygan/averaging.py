"""A generator's weights averaged over the iterations: what they circle about."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

_STEPS = 50  # iterations from one look at the weights to the next


class Average:
    """An exponential average of a network's parameters, in a network of its own; buffers are copied.

    Every 50 iterations it moves towards the parameters by w = 1 - decay^50, at first by more, so that until 1 / w looks
    it is their plain mean:

        average += max(w, 1 / n) (parameters - average)     at the n-th look

    It depends on the number of the iteration alone: a run in parts gives the same bits as one in a piece.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self._least = 1 - decay**_STEPS

    @staticmethod
    def until_due(iteration: int) -> int:
        """Iterations from this one to the next look."""
        return _STEPS - iteration % _STEPS

    @torch.no_grad()
    def follow(self, network: nn.Module, iteration: int) -> None:
        """Look at a network where so many iterations are done, if it is time to."""
        looks, rest = divmod(iteration, _STEPS)
        if rest or not looks:
            return
        now = [p.detach() for p in network.parameters()]
        torch._foreach_lerp_(list(self.network.parameters()), now, max(self._least, 1 / looks))
        for mine, its in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(its)

    def state(self) -> dict[str, Tensor]:
        """Its tensors by the names of the network's own, sharing memory."""
        return {name: tensor.detach() for name, tensor in self.network.state_dict().items()}
