"""The two losses of the game as modules; they take logits, and are exact for logits of any finite size."""

from __future__ import annotations

import torch
from torch import nn

from pygan import ops
from pygan._names import check_name, check_number

GENERATOR_LOSSES = ("non_saturating", "minimax")
REDUCTIONS = ("mean", "sum", "none")


class DiscriminatorLoss(nn.Module):
    """What the discriminator minimises: -V, from the logits a = logit D(x) and b = logit D(G(z)).

    L = mean[softplus(-a) + ε·a] + mean[softplus(b)], which is -E log D(x) - E log(1 - D(G(z))) for ε = 0.
    With ε the target of real examples is 1 - ε (one-sided label smoothing).

    Args:
        label_smoothing: ε, in [0, 1).
        reduction: "mean" (mean over real plus mean over fake), "sum", or "none" (the elementwise sum of the
            two terms; shapes must then be equal).

    Raises:
        ValueError: ε outside [0, 1) or an unknown reduction.

    >>> DiscriminatorLoss()(torch.zeros(4, 1), torch.zeros(4, 1))
    tensor(1.3863)

    Source: Goodfellow et al. 2014, Algorithm 1; Salimans et al. 2016 (smoothing).
    """

    def __init__(self, label_smoothing: float = 0.0, reduction: str = "mean"):
        super().__init__()
        self.label_smoothing = check_smoothing(label_smoothing)
        self.reduction = check_name(reduction, REDUCTIONS, "reduction")

    def forward(self, real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
        """The loss of logits of real and of generated examples, each of any shape."""
        return ops.discriminator_loss(
            real_logits, fake_logits, label_smoothing=self.label_smoothing, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        """The settings, for repr."""
        return f"label_smoothing={self.label_smoothing}, reduction={self.reduction!r}"


class GeneratorLoss(nn.Module):
    """What the generator minimises, from the logits b = logit D(G(z)).

    non_saturating: softplus(-b) = -log D(G(z)); minimax: -softplus(b) = log(1 - D(G(z))), the printed one.
    Both have the same fixed point; the first has the stronger gradient while D rejects G's examples.

    Args:
        kind: "non_saturating" or "minimax".
        reduction: "mean", "sum" or "none".

    Raises:
        ValueError: an unknown kind or reduction.

    >>> GeneratorLoss()(torch.zeros(4, 1))
    tensor(0.6931)

    Source: Goodfellow et al. 2014, section 3.
    """

    def __init__(self, kind: str = "non_saturating", reduction: str = "mean"):
        super().__init__()
        self.kind = check_name(kind, GENERATOR_LOSSES, "kind")
        self.reduction = check_name(reduction, REDUCTIONS, "reduction")

    def forward(self, fake_logits: torch.Tensor) -> torch.Tensor:
        """The loss of logits of generated examples, of any shape."""
        return ops.generator_loss(fake_logits, kind=self.kind, reduction=self.reduction)

    def extra_repr(self) -> str:
        """The settings, for repr."""
        return f"kind={self.kind!r}, reduction={self.reduction!r}"


def check_smoothing(value: float) -> float:
    """`value` if it can smooth a label."""
    return check_number(value, "label_smoothing", "in [0, 1)", lambda smoothing: 0 <= smoothing < 1)
