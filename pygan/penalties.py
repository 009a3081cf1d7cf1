"""Gradient penalties: of the norm of the discriminator's gradient by its input. `pygan.losses` has them too.

Any module or function can be the discriminator. That of a fused one, or of `pygan.nn.MLP`, runs on the ops three times:
forward, back to the input, and back through both.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pygan import ops, random
from pygan._names import check_number


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    *,
    center: float = 1.0,
    seed: int | None = None,
    offset: int = 0,
) -> Tensor:
    """The mean of (‖∇D(x̂)‖ - center)² over x̂ = ε·x + (1 - ε)·x̃, ε uniform in [0, 1] for each example.

    Multiply it by λ (the paper: 10) and add it to the discriminator's loss. Its gradient goes through the
    discriminator's backward pass, on the fused ops where the discriminator runs on them; real and fake get none.
    With `center=0`, the zero-centred penalty on interpolates. DRAGAN's, about real examples alone:
    ``gradient_penalty(D, x, x + 0.5 * x.std() * torch.rand_like(x))``.

    Args:
        discriminator: a module or function that takes (m, ...) to one output an example.
        real: x, (m, ...).
        fake: x̃, like real.
        center: the norm that is not penalised, >= 0.
        seed: of ε, the same numbers on every device; None draws one from torch's default generator.
        offset: 64-bit counter of ε, see `pygan.random.offset`.

    Returns:
        A scalar of real's dtype, float32 for half types. NaN for no examples. Where gradients are disabled, its value
        alone.

    Raises:
        ValueError: shapes or devices that differ, a center below zero.
        TypeError: dtypes that differ.

    >>> slope = torch.nn.Linear(3, 1)
    >>> _ = torch.nn.init.constant_(slope.weight, 1.0)
    >>> gradient_penalty(slope, torch.ones(4, 3), torch.zeros(4, 3), center=0.0, seed=1).item()
    3.0

    Source: Gulrajani et al. 2017, equation 3 and Algorithm 1; zero-centred: Thanh-Tung et al. 2019; Kodali et al. 2017
    (DRAGAN).
    """
    center = check_number(center, "center", "at least 0", lambda value: value >= 0)
    _check_examples("real", real)
    if real.dtype != fake.dtype:
        raise TypeError(f"fake must have real's dtype {real.dtype}, got {fake.dtype}")
    if real.shape != fake.shape:
        raise ValueError(f"fake must have real's shape {list(real.shape)}, got {list(fake.shape)}")
    if real.device != fake.device:
        raise ValueError(f"fake must be on real's device {real.device}, got {fake.device}")
    if seed is None:
        seed = random.fresh_seed()
    size = (len(real), *[1] * (real.dim() - 1))
    # noise's uniform numbers are in ±√3
    uniform = ops.noise(size, kind="uniform", seed=seed, offset=offset, dtype=real.dtype, device=real.device)
    share = uniform * (0.5 / math.sqrt(3.0)) + 0.5
    gradient = _input_gradient(discriminator, torch.lerp(fake.detach(), real.detach(), share))
    if center == 0:  # no square root, whose derivative is infinite at zero
        return gradient.square().sum(1).mean()
    return (torch.linalg.vector_norm(gradient, dim=1) - center).square().mean()


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """½ the mean of ‖∇D(x)‖² over real examples x: multiply it by γ, and add it to the discriminator's loss.

    Its gradient goes through the discriminator's backward pass, on the fused ops where the discriminator runs on them;
    the examples get none. R2 is the same of generated examples, `r2_penalty`.

    Args:
        discriminator: a module or function that takes (m, ...) to one output an example.
        real: x, (m, ...).

    Returns:
        A scalar of real's dtype, float32 for half types. NaN for no examples. Where gradients are disabled, its value
        alone.

    >>> slope = torch.nn.Linear(3, 1)
    >>> _ = torch.nn.init.constant_(slope.weight, 1.0)
    >>> r1_penalty(slope, torch.ones(4, 3)).item()
    1.5

    Source: Mescheder et al. 2018, section 4.1.
    """
    return _half_square(discriminator, "real", real)


def r2_penalty(discriminator: Callable[[Tensor], Tensor], fake: Tensor) -> Tensor:
    """½ the mean of ‖∇D(x̃)‖² over generated examples: `r1_penalty` of them.

    >>> slope = torch.nn.Linear(3, 1)
    >>> _ = torch.nn.init.constant_(slope.weight, 2.0)
    >>> r2_penalty(slope, torch.ones(4, 3)).item()
    6.0

    Source: Mescheder et al. 2018, section 4.1.
    """
    return _half_square(discriminator, "fake", fake)


def _half_square(discriminator: Callable[[Tensor], Tensor], name: str, x: Tensor) -> Tensor:
    _check_examples(name, x)
    return 0.5 * _input_gradient(discriminator, x.detach()).square().sum(1).mean()


def _check_examples(name: str, x: Tensor) -> None:
    if x.dim() == 0 or not x.dtype.is_floating_point:
        raise ValueError(f"{name} must have shape (m, ...) and a floating dtype, got {list(x.shape)} of {x.dtype}")


def _input_gradient(discriminator: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """∇D at each example as a row, differentiable where gradients are enabled. (m, ...) -> (m, k)."""
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x.requires_grad_()
        (gradient,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=differentiable)
    rows = gradient.reshape(len(x), math.prod(x.shape[1:]))
    return rows if rows.dtype == torch.float64 else rows.float()
