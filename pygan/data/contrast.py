"""Global contrast normalisation, as the paper's experiments on CIFAR-10 have it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch

from .._names import check_number
from .dataset import Dataset, as_dataset

_LEAST_DIVISOR = 1e-8


def contrast_normalize(data: Dataset | torch.Tensor | np.ndarray, scale: float = 55.0) -> Dataset:
    """Each example less its mean, divided by what makes its norm `scale`: x ← scale · (x - x̄) / ‖x - x̄‖.

    An example whose norm is below scale · 1e-8 (all its values are equal) is not divided.

    Args:
        data: what `as_dataset` takes.
        scale: the norm of every example, above 0.

    Returns:
        float32 values of the same shape. Pictures of them show ± two root mean squares of a value,
        ± 2·scale/√d, as black and white: `value_range` says so.

    Raises:
        ValueError: a scale that is not above 0.

    >>> data = contrast_normalize(torch.tensor([[0, 255], [9, 9]], dtype=torch.uint8), scale=2)
    >>> data.values
    tensor([[-1.4142,  1.4142],
            [ 0.0000,  0.0000]])

    Source: pylearn2's global_contrast_normalize with the settings of the authors' published configuration.
    """
    scale = check_number(scale, "scale", "above 0", lambda scale: scale > 0)
    data = as_dataset(data)
    values = data.values.to(torch.float32, copy=True)
    values.sub_(values.mean(dim=1, keepdim=True))
    divisors = values.norm(dim=1, keepdim=True).div_(scale)
    values.div_(divisors.masked_fill_(divisors < _LEAST_DIVISOR, 1.0))
    shown = 2 * scale / math.sqrt(data.dimension)
    return dataclasses.replace(
        data, values=values, value_range=(-shown, shown), modes=None, mode_std=None, mode_weights=None
    )
