"""The paper's convolutional networks: torch's convolutions between pygan's maxout, dropout and dense layers.

Both take and give rows, as an MLP does, so that `pygan.Trainer` trains them with the composed engine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pygan import ops, random
from pygan._names import check_whole, check_wholes
from pygan.nn import MLP, check_dropout

__all__ = ["ConvDiscriminator", "DeconvGenerator", "MaxoutConv"]


class DeconvGenerator(nn.Module):
    """A multilayer perceptron whose last layer, seen as maps, is deconvolved to an image: x = h * W + b.

    The bias has a value for each pixel and channel, and the output is linear, as in the authors' published
    configuration.

    Args:
        sizes: the lengths of the rows from the noise to the maps, two or more.
        maps: (channels, height, width) of the last of them, whose product it is.
        image_shape: (h, w) or (c, h, w) of the result, each side (maps' side - 1) · stride + kernel.
        activation: of each layer of the perceptron: one name, or a name for each.
        slope: of leaky_relu below zero.
        kernel, stride: of the deconvolution.
        device, dtype: of the parameters.

    Raises:
        ValueError: sizes that do not fit one another, and what `pygan.nn.MLP` refuses.

    >>> generator = DeconvGenerator([100, 32, 200], maps=(2, 10, 10), image_shape=(3, 32, 32))
    >>> generator(torch.zeros(5, 100)).shape
    torch.Size([5, 3072])

    Source: Goodfellow et al. 2014, section 5 (Figure 2d); cifar10_convolutional.yaml in the authors' repository.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        maps: Sequence[int],
        image_shape: Sequence[int],
        activation: str | Sequence[str] = "relu",
        slope: float = 0.01,
        kernel: int = 5,
        stride: int = 3,
        device=None,
        dtype=None,
    ):
        super().__init__()
        self.maps, self.image_shape = _check_maps(maps), check_image_shape(image_shape)
        self.kernel, self.stride = check_whole(kernel, "kernel"), check_whole(stride, "stride")
        made = {"device": device, "dtype": dtype}
        hidden, last = (activation, activation) if isinstance(activation, str) else (activation[:-1], activation[-1])
        self.hidden = MLP(sizes, activation=hidden, output=last, slope=slope, **made)
        if self.hidden.sizes[-1] != math.prod(self.maps):
            raise ValueError(f"maps must have product {self.hidden.sizes[-1]}, the last of sizes, got {self.maps}")
        sides = tuple((side - 1) * self.stride + self.kernel for side in self.maps[1:])
        if self.image_shape[-2:] != sides:
            raise ValueError(
                f"maps {self.maps} become images of {sides[0]} x {sides[1]} pixels, expected {self.image_shape}"
            )
        channels = 1 if len(self.image_shape) == 2 else self.image_shape[0]
        self.deconv = nn.ConvTranspose2d(self.maps[0], channels, self.kernel, stride=self.stride, bias=False, **made)
        self.bias = nn.Parameter(torch.zeros(math.prod(self.image_shape), **made))

    def config(self) -> dict:
        """The arguments that make a generator of this architecture, as plain values."""
        return {
            "sizes": list(self.hidden.sizes),
            "maps": list(self.maps),
            "image_shape": list(self.image_shape),
            "activation": list(self.hidden.activations),
            "slope": self.hidden.slope,
            "kernel": self.kernel,
            "stride": self.stride,
        }

    def forward(self, z: Tensor) -> Tensor:
        """Images as rows, (m, c·h·w), of noise (m, sizes[0])."""
        return self.deconv(self.hidden(z).unflatten(1, self.maps)).flatten(1) + self.bias


class MaxoutConv(nn.Module):
    """A convolution whose units are maxout over consecutive channels, then the maximum in windows of the image.

    Windows that reach over the edge count, as they did in the authors' library (cuda-convnet): the result's side is
    ceil((s - pool) / pool_stride) + 1, where s = side + 2·padding - kernel + 1.

    Args:
        in_channels: of the image.
        channels: of the result.
        pieces: p, convolutions whose maximum is a channel: channel u of channels u·p to u·p + p - 1.
        kernel, padding: of the convolution, whose bias is one value a channel.
        pool, pool_stride: the window's side, and how far apart windows lie.
        device, dtype: of the parameters.

    >>> MaxoutConv(3, 32, 2, kernel=8, padding=4, pool=4)(torch.zeros(5, 3, 32, 32)).shape
    torch.Size([5, 32, 16, 16])

    Source: Goodfellow et al. 2013, Maxout Networks, section 5.2.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        pieces: int,
        *,
        kernel: int,
        padding: int,
        pool: int,
        pool_stride: int = 2,
        device=None,
        dtype=None,
    ):
        super().__init__()
        self.channels, self.pieces, self.pool, self.pool_stride = channels, pieces, pool, pool_stride
        made = {"device": device, "dtype": dtype}
        self.conv = nn.Conv2d(in_channels, channels * pieces, kernel, padding=padding, **made)

    def forward(self, x: Tensor) -> Tensor:
        """(m, channels, h', w') of x, (m, in_channels, h, w)."""
        units = self.conv(x).unflatten(1, (self.channels, self.pieces)).max(dim=2).values
        return nn.functional.max_pool2d(units, self.pool, self.pool_stride, ceil_mode=True)


class ConvDiscriminator(nn.Module):
    """Maxout convolutions, then a multilayer perceptron that ends in one logit, with dropout of every layer's input.

    Its masks follow from a seed that each call in training draws from torch's default generator, of which a
    `pygan.Trainer` keeps a state of its own.

    Args:
        image_shape: (h, w) or (c, h, w) of the rows.
        convolutions: of each the numbers (channels, pieces, kernel, padding, pool), see `MaxoutConv`.
        hidden: the sizes of the perceptron's hidden layers.
        activation, slope, pieces: of them, as in `pygan.nn.MLP`.
        dropout: the probability of dropping an element of a layer's input: one for all, or one for each
            convolution, hidden layer and the output.
        device, dtype: of the parameters.

    Raises:
        ValueError: an image that is too small, and what `pygan.nn.MLP` refuses.

    >>> discriminator = ConvDiscriminator((3, 32, 32), [(4, 2, 8, 4, 4)], [10], pieces=5, dropout=0.5)
    >>> discriminator(torch.zeros(6, 3072)).shape
    torch.Size([6, 1])

    Source: Goodfellow et al. 2014, section 5; cifar10_convolutional.yaml in the authors' repository.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        convolutions: Sequence[Sequence[int]],
        hidden: Sequence[int],
        *,
        activation: str | Sequence[str] = "relu",
        slope: float = 0.01,
        pieces: int = 1,
        dropout: float | Sequence[float] = 0.0,
        device=None,
        dtype=None,
    ):
        super().__init__()
        self.image_shape, self.convolutions = check_image_shape(image_shape), check_convolutions(convolutions)
        self.dropout = check_dropout(dropout, len(self.convolutions) + len(hidden) + 1)
        made = {"device": device, "dtype": dtype}
        self.convs = nn.ModuleList()
        shape = (1, *self.image_shape)[-3:]
        for channels, p, kernel, padding, pool in self.convolutions:
            self.convs.append(MaxoutConv(shape[0], channels, p, kernel=kernel, padding=padding, pool=pool, **made))
            shape = (channels, *(_pooled(side + 2 * padding - kernel + 1, pool) for side in shape[1:]))
            if min(shape) < 1:
                raise ValueError(f"images of {self.image_shape} are too small for convolutions {self.convolutions}")
        self.dense = MLP(
            (math.prod(shape), *hidden, 1),
            activation=activation,
            slope=slope,
            pieces=pieces,
            dropout=self.dropout[len(self.convs) :],
            **made,
        )

    def config(self) -> dict:
        """The arguments that make a discriminator of this architecture, as plain values."""
        dense = self.dense.config()
        return {
            "image_shape": list(self.image_shape),
            "convolutions": [list(numbers) for numbers in self.convolutions],
            "hidden": dense["sizes"][1:-1],
            "activation": dense["activation"],
            "slope": dense["slope"],
            "pieces": dense["pieces"],
            "dropout": list(self.dropout),
        }

    def forward(self, x: Tensor) -> Tensor:
        """Logits (m, 1) of images as rows, (m, c·h·w)."""
        dropping = self.training and any(self.dropout)
        seed = int(torch.randint(2**63 - 1, ())) if dropping else 0
        x = x.unflatten(1, (1, *self.image_shape)[-3:])
        for i, (conv, p) in enumerate(zip(self.convs, self.dropout, strict=False)):
            x = conv(ops.dropout(x, p=p, seed=seed, offset=random.offset(i)) if dropping and p else x)
        return self.dense(x.flatten(1), seed=seed, offset=random.offset(len(self.convs)))


def _pooled(side: int, pool: int, stride: int = 2) -> int:
    """How many windows cover a side, the last of them perhaps in part; below 1 if not even one fits."""
    return 0 if side < pool else math.ceil((side - pool) / stride) + 1


def _check_maps(maps: Sequence[int]) -> tuple[int, ...]:
    checked = check_wholes(maps, "maps")
    if len(checked) != 3:
        raise ValueError(f"maps must be (channels, height, width), got {maps!r}")
    return checked


def check_image_shape(image_shape: Sequence[int] | None) -> tuple[int, ...]:
    """The shape of images, (h, w) or (c, h, w)."""
    checked = () if image_shape is None else check_wholes(image_shape, "image_shape")
    if len(checked) not in (2, 3):
        raise ValueError(f"image_shape must be (h, w) or (c, h, w), got {image_shape!r}")
    return checked


def check_convolutions(convolutions: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Each convolution as five whole numbers: (channels, pieces, kernel, padding, pool)."""
    try:
        return tuple(
            tuple(check_whole(number, "", least=least) for number, least in zip(group, (1, 1, 1, 0, 2), strict=True))
            for group in convolutions
        )
    except (TypeError, ValueError):
        raise ValueError(
            "convolutions must be groups of five whole numbers, (channels, pieces, kernel, padding, pool) with pool at "
            f"least 2, got {convolutions!r}"
        ) from None
