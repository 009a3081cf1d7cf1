"""`Dataset`, the one form in which data reaches the trainer, and `as_dataset`, the door to it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from .._names import check_pair


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """n examples of d numbers each, with what is known about them.

    Args:
        values: (n, d), uint8 or float32, on the CPU, contiguous, finite; n and d at least 1.
        labels: (n,) int64, or None. For a mixture, the mode that each row was drawn from.
        name: what errors and figures call it.
        image_shape: (h, w) or (c, h, w) with d = c·h·w when a row is an image, else None.
        modes: (k, d) float32, the centres of a mixture, else None.
        mode_std: the standard deviation of each mode about its centre, in each coordinate.
        mode_weights: (k,) float32, the probabilities of the modes, summing to 1.
        value_range: of float32 images, the values that pictures show as black and as white; None: the lowest and the
            highest there are.

    Raises:
        TypeError: a tensor of another type, dtype or device.
        ValueError: a shape that does not fit, or a value that is not finite (named by row and column).

    >>> data = Dataset(torch.tensor([[0, 255], [51, 0]], dtype=torch.uint8))
    >>> data.as_float()
    tensor([[0.0000, 1.0000],
            [0.2000, 0.0000]])
    >>> len(data), data.dimension
    (2, 2)
    """

    values: torch.Tensor
    labels: torch.Tensor | None = None
    name: str = "data"
    image_shape: tuple[int, ...] | None = None
    modes: torch.Tensor | None = None
    mode_std: float | None = None
    mode_weights: torch.Tensor | None = None
    value_range: tuple[float, float] | None = None

    def __post_init__(self):
        values, labels = self.values, self.labels
        if not isinstance(values, torch.Tensor):
            raise TypeError(f"{self.name}: values must be a torch.Tensor, got {type(values).__name__}")
        if values.dtype not in (torch.uint8, torch.float32):
            raise TypeError(f"{self.name}: values must be uint8 or float32, got {values.dtype}")
        if values.device.type != "cpu" or not values.is_contiguous():
            raise TypeError(f"{self.name}: values must be contiguous on the CPU; as_dataset() makes them so")
        if values.dim() != 2 or values.numel() == 0:
            raise ValueError(
                f"{self.name}: values must be (n, d) with at least one row and one column, "
                f"got shape {tuple(values.shape)}"
            )
        if self.image_shape is not None and (
            len(self.image_shape) not in (2, 3) or math.prod(self.image_shape) != values.shape[1]
        ):
            raise ValueError(
                f"{self.name}: image_shape must be (h, w) or (c, h, w) with product {values.shape[1]}, "
                f"got {tuple(self.image_shape)}"
            )
        if self.modes is not None and (
            self.modes.dim() != 2
            or self.modes.shape[1] != values.shape[1]
            or self.mode_std is None
            or self.mode_weights is None
            or self.mode_weights.shape != self.modes.shape[:1]
        ):
            raise ValueError(f"{self.name}: modes must be (k, {values.shape[1]}), with mode_std and mode_weights (k,)")
        if labels is not None and not isinstance(labels, torch.Tensor):
            raise TypeError(f"{self.name}: labels must be a torch.Tensor, got {type(labels).__name__}")
        if labels is not None and (labels.dtype != torch.int64 or labels.shape != values.shape[:1]):
            raise ValueError(
                f"{self.name}: labels must be int64 of shape ({len(values)},), "
                f"got {labels.dtype} of shape {tuple(labels.shape)}"
            )
        if self.value_range is not None:
            check_pair(self.value_range, f"{self.name}: value_range", "(low, high), rising", lambda a, b: a < b)
        _check_finite(values, values, self.name)

    def __len__(self) -> int:
        return self.values.shape[0]

    def __repr__(self) -> str:
        n, d = self.values.shape
        words = [f"{n} x {d} {str(self.values.dtype).removeprefix('torch.')}"]
        if self.image_shape is not None:
            words.append("images " + " x ".join(map(str, self.image_shape)))
        if self.modes is not None:
            words.append(f"{len(self.modes)} mode" + "s" * (len(self.modes) != 1))
        elif self.labels is not None:
            words.append(f"{len(self.labels.unique())} classes")
        return f"Dataset({self.name!r}: {', '.join(words)})"

    @property
    def dimension(self) -> int:
        """d, the number of values in an example."""
        return self.values.shape[1]

    def as_float(self) -> torch.Tensor:
        """The values as (n, d) float32: uint8 divided by 255, so in [0, 1]; float32 as it is, not copied."""
        return self.values.float().div_(255) if self.values.dtype == torch.uint8 else self.values

    def subset(self, rows: slice | torch.Tensor, name: str | None = None) -> Dataset:
        """The same data set with only some of its rows.

        Args:
            rows: a slice (no copy when its step is 1), or an int64 or bool tensor of row numbers (a copy).
            name: what to call it; the same name if None.

        Returns:
            A data set with the same image shape and modes.

        Raises:
            ValueError: no row is left.

        >>> Dataset(torch.zeros(10, 3)).subset(slice(0, 4))
        Dataset('data': 4 x 3 float32)
        """
        labels = None if self.labels is None else self.labels[rows].contiguous()
        values = self.values[rows].contiguous()
        return replace(self, values=values, labels=labels, name=self.name if name is None else name)


def as_dataset(data: Dataset | torch.Tensor | np.ndarray, name: str = "data") -> Dataset:
    """Data of the user's as a `Dataset`.

    uint8 stays uint8 (and reads as [0, 1], see `Dataset.as_float`); every other numeric dtype becomes float32
    with its values unchanged. Memory is shared where no conversion is needed.

    Args:
        data: a `Dataset` (returned as it is), or a tensor or array: rows (n, d), images (n, h, w) or
            (n, c, h, w) with 1 or 3 channels; images are flattened and their shape kept.
        name: what errors and figures call it.

    Returns:
        The data set, on the CPU.

    Raises:
        TypeError: not a tensor or an array, or not of a real numeric dtype.
        ValueError: another rank, no row, no column, or a NaN or infinite value (named by row and column).

    >>> as_dataset(torch.rand(5, 1, 8, 8), name="noise")
    Dataset('noise': 5 x 64 float32, images 1 x 8 x 8)
    """
    if isinstance(data, Dataset):
        return data
    data, image_shape = _as_rows(data, name)
    values = data if data.dtype == torch.uint8 else data.float()
    # Checked before the conversion too: a float64 may be finite and yet too large for float32.
    _check_finite(values, data, name)
    return Dataset(values.contiguous(), name=name, image_shape=image_shape)


def as_rows(data: Dataset | torch.Tensor | np.ndarray, name: str) -> torch.Tensor:
    """(n, d): what `as_dataset` takes, and refuses, in the dtype in which it came."""
    if isinstance(data, Dataset):
        return data.values
    rows, _ = _as_rows(data, name)
    _check_finite(rows, rows, name)
    return rows


def _as_rows(data: torch.Tensor | np.ndarray, name: str) -> tuple[torch.Tensor, tuple[int, ...] | None]:
    """(n, d) on the CPU in any real dtype, and the shape of the image that a row is."""
    if isinstance(data, np.ma.MaskedArray):
        raise TypeError(f"{name} must have all its values, got a masked array; data.filled(value) fills the gaps")
    if isinstance(data, np.ndarray):
        data = _from_numpy(data, name)
    elif not isinstance(data, torch.Tensor):
        raise TypeError(f"{name} must be a Dataset, a torch.Tensor or a numpy array, got {type(data).__name__}")
    if data.is_complex() or data.is_quantized or data.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor of real numbers, got {data.dtype} {data.layout}")
    image_shape = _image_shape(tuple(data.shape), name)
    return data.detach().cpu().flatten(1), image_shape


def _from_numpy(array: np.ndarray, name: str) -> torch.Tensor:
    if array.dtype.kind not in "buif":
        raise TypeError(f"{name} must hold real numbers, got an array of dtype {array.dtype}")
    if array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    # torch takes native byte order and positive strides only, and warns of memory it may not write.
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _image_shape(shape: tuple[int, ...], name: str) -> tuple[int, ...] | None:
    if len(shape) not in (2, 3, 4):
        raise ValueError(f"{name} must be (n, d), (n, h, w) or (n, c, h, w), got shape {shape}")
    if math.prod(shape) == 0:
        raise ValueError(f"{name} must have at least one row and one column, got shape {shape}")
    if len(shape) == 4 and shape[1] not in (1, 3):
        hint = "; move the last axis to place 1" if shape[3] in (1, 3) else ""
        raise ValueError(f"{name}: images must be (n, c, h, w) with 1 or 3 channels, got shape {shape}{hint}")
    return shape[1:] if len(shape) > 2 else None


def _check_finite(values: torch.Tensor, original: torch.Tensor, name: str) -> None:
    """Refuses the first value of `values` that is not finite, showing it as it stood in `original`."""
    # The sum of finite values may overflow, but a value that is not finite always shows in it.
    if not values.is_floating_point() or values.sum().isfinite():
        return
    bad = torch.nonzero(~values.isfinite())
    if len(bad):
        row, column = bad[0].tolist()
        value = original[row, column].item()
        reason = "every value must be finite" if not math.isfinite(value) else "too large for float32"
        raise ValueError(f"{name}: row {row}, column {column} is {value}; {reason}")
