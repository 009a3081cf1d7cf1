"""The theory of the paper, in numbers: densities, what the game is worth on them, and its propositions measured.

Everything is float64 by quadrature, and in nats; a pair of densities may be two `Mixture`s or two vectors of
probabilities.
"""

from .densities import Mixture, gaussian
from .divergences import (
    criterion,
    jsd,
    jsd_from_logits,
    kl,
    optimal_discriminator,
    optimal_logit,
    value,
)
from .gradients import GradientStudy, generator_gradient, gradient_norms, gradient_study
from .propositions import (
    Descent,
    DiscriminatorFit,
    criterion_gradient,
    descend,
    fit_discriminator,
    train_discriminator,
)

__all__ = [
    "Descent",
    "DiscriminatorFit",
    "GradientStudy",
    "Mixture",
    "criterion",
    "criterion_gradient",
    "descend",
    "fit_discriminator",
    "gaussian",
    "generator_gradient",
    "gradient_norms",
    "gradient_study",
    "jsd",
    "jsd_from_logits",
    "kl",
    "optimal_discriminator",
    "optimal_logit",
    "train_discriminator",
    "value",
]
