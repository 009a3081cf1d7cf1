"""Losses of GANs as modules, torch's cross entropies on the fused ops, and gradient penalties.

The losses take logits, or the plain outputs of a discriminator without a sigmoid, and are exact for any finite size.
"""

from __future__ import annotations

import torch
from torch import nn

from pygan import ops
from pygan._names import check_name, check_number
from pygan.penalties import gradient_penalty, r1_penalty, r2_penalty

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "DiscriminatorLoss",
    "GeneratorLoss",
    "gradient_penalty",
    "r1_penalty",
    "r2_penalty",
]

GENERATOR_LOSSES = ("non_saturating", "minimax")  # the game's own
GENERATOR_KINDS = (*GENERATOR_LOSSES, "hinge", "least_squares", "wasserstein")
DISCRIMINATOR_KINDS = ("logistic", "hinge", "least_squares", "wasserstein")
REDUCTIONS = ("mean", "sum", "none")


class DiscriminatorLoss(nn.Module):
    """What the discriminator minimises, from its outputs a for real and b for generated examples.

    logistic: softplus(-a) + ε·a and softplus(b), which is -V = -E log D(x) - E log(1 - D(G(z))) for ε = 0, a and b
    being logits. With ε the target of real examples is 1 - ε (one-sided label smoothing).
    hinge: max(1 - a, 0) and max(1 + b, 0). least_squares: ½(a - 1)² and ½b². wasserstein: -a and b.

    Args:
        label_smoothing: ε, in [0, 1); of kind "logistic" alone.
        reduction: "mean" (mean over real plus mean over fake), "sum", or "none" (the elementwise sum of the
            two terms; shapes must then be equal).
        kind: "logistic", "hinge", "least_squares" or "wasserstein".

    Raises:
        ValueError: ε outside [0, 1) or beside another kind, an unknown kind or reduction.

    >>> DiscriminatorLoss()(torch.zeros(4, 1), torch.zeros(4, 1))
    tensor(1.3863)
    >>> DiscriminatorLoss(kind="hinge")(torch.zeros(4, 1), torch.zeros(4, 1))
    tensor(2.)

    Source: Goodfellow et al. 2014, Algorithm 1; Salimans et al. 2016 (smoothing); Lim & Ye 2017 (hinge); Mao et al.
    2017 (least squares, a = 0, b = c = 1); Arjovsky et al. 2017 (Wasserstein).
    """

    def __init__(self, label_smoothing: float = 0.0, reduction: str = "mean", *, kind: str = "logistic"):
        super().__init__()
        self.kind = check_name(kind, DISCRIMINATOR_KINDS, "kind")
        self.label_smoothing = check_smoothing(label_smoothing)
        self.reduction = check_name(reduction, REDUCTIONS, "reduction")
        if self.label_smoothing and kind != "logistic":
            raise ValueError(f"label_smoothing must be 0 for kind {kind!r}, got {label_smoothing}")

    def forward(self, real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
        """The loss of the outputs for real and for generated examples, each of any shape."""
        return ops.discriminator_loss(
            real_logits, fake_logits, kind=self.kind, label_smoothing=self.label_smoothing, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        """The settings, for repr."""
        return f"label_smoothing={self.label_smoothing}, reduction={self.reduction!r}, kind={self.kind!r}"


class GeneratorLoss(nn.Module):
    """What the generator minimises, from the discriminator's outputs b for generated examples.

    On logits, non_saturating: softplus(-b) = -log D(G(z)); minimax: -softplus(b) = log(1 - D(G(z))), the printed one.
    Both have the same fixed point; the first has the stronger gradient while D rejects G's examples.
    Beside the discriminator's losses of the same names, hinge and wasserstein: -b; least_squares: ½(b - 1)².

    Args:
        kind: "non_saturating", "minimax", "hinge", "least_squares" or "wasserstein".
        reduction: "mean", "sum" or "none".

    Raises:
        ValueError: an unknown kind or reduction.

    >>> GeneratorLoss()(torch.zeros(4, 1))
    tensor(0.6931)

    Source: Goodfellow et al. 2014, section 3; Lim & Ye 2017 (hinge); Mao et al. 2017 (least squares); Arjovsky et al.
    2017 (Wasserstein).
    """

    def __init__(self, kind: str = "non_saturating", reduction: str = "mean"):
        super().__init__()
        self.kind = check_name(kind, GENERATOR_KINDS, "kind")
        self.reduction = check_name(reduction, REDUCTIONS, "reduction")

    def forward(self, fake_logits: torch.Tensor) -> torch.Tensor:
        """The loss of the outputs for generated examples, of any shape."""
        return ops.generator_loss(fake_logits, kind=self.kind, reduction=self.reduction)

    def extra_repr(self) -> str:
        """The settings, for repr."""
        return f"kind={self.kind!r}, reduction={self.reduction!r}"


class BCEWithLogitsLoss(nn.Module):
    """`torch.nn.BCEWithLogitsLoss` on a fused op: softplus(a) - t·a of logits a and targets t.

    Args:
        weight: None; what else torch takes here is refused.
        reduction: "mean", "sum" or "none".
        pos_weight: None.

    Raises:
        ValueError: an unknown reduction, a weight.

    >>> BCEWithLogitsLoss()(torch.zeros(4, 1), torch.ones(4, 1))
    tensor(0.6931)

    Source: Goodfellow et al. 2014, section 3, as most implementations write it: targets of ones and zeros.
    """

    _logits = True

    def __init__(self, weight: None = None, reduction: str = "mean", pos_weight: None = None):
        super().__init__()
        for name, value in (("weight", weight), ("pos_weight", pos_weight)):
            if value is not None:
                raise ValueError(f"{name} must be None, got {type(value).__name__}: torch.nn's own loss has weights")
        self.reduction = check_name(reduction, REDUCTIONS, "reduction")

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of an input of any shape and a target in [0, 1] of the same shape, dtype and device."""
        return ops.binary_cross_entropy(input, target, logits=self._logits, reduction=self.reduction)

    def extra_repr(self) -> str:
        """The settings, for repr."""
        return f"reduction={self.reduction!r}"


class BCELoss(BCEWithLogitsLoss):
    """`torch.nn.BCELoss` on a fused op: -t·log p - (1 - t)·log(1 - p) of probabilities p and targets t.

    Logarithms are at least -100 and the gradient is divided by at least 1e-12, as torch has it. After a sigmoid that
    has lost what a sure discriminator says: leave the sigmoid out and take `BCEWithLogitsLoss`. Under autocast torch
    refuses this loss on CUDA; here it runs in float32, on probabilities as rounded as they come.

    Args:
        weight: None; what else torch takes here is refused.
        reduction: "mean", "sum" or "none".

    Raises:
        ValueError: an unknown reduction, a weight.

    >>> BCELoss()(torch.full((4, 1), 0.5), torch.ones(4, 1))
    tensor(0.6931)

    Source: Goodfellow et al. 2014, section 3, as most implementations write it: targets of ones and zeros.
    """

    _logits = False

    def __init__(self, weight: None = None, reduction: str = "mean"):
        super().__init__(weight, reduction)


def check_smoothing(value: float) -> float:
    """`value` if it can smooth a label."""
    return check_number(value, "label_smoothing", "in [0, 1)", lambda smoothing: 0 <= smoothing < 1)
