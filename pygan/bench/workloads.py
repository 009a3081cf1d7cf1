"""Named pairs of networks, and the work in an iteration on them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pygan._names import check_name
from pygan.nn import MLP
from pygan.optim import Adam, Momentum, Rule


@dataclass(frozen=True)
class Network:
    """A multilayer perceptron: `sizes` are the units of its layers, the input first."""

    sizes: tuple[int, ...]
    activation: str = "relu"
    output: str = "identity"
    slope: float = 0.2
    pieces: int = 1
    dropout: float = 0.0

    def build(self, device: torch.device | str = "cpu") -> MLP:
        """The network as pygan's module."""
        return MLP(
            self.sizes,
            activation=self.activation,
            output=self.output,
            slope=self.slope,
            pieces=self.pieces,
            dropout=self.dropout,
            device=device,
        )

    @property
    def weights(self) -> tuple[int, ...]:
        """Elements of each layer's weight."""
        hidden = [self.pieces * a * b for a, b in zip(self.sizes[:-2], self.sizes[1:-1], strict=True)]
        return (*hidden, self.sizes[-2] * self.sizes[-1])

    @property
    def parameters(self) -> int:
        """Elements of all weights and biases."""
        return sum(self.weights) + self.pieces * sum(self.sizes[1:-1]) + self.sizes[-1]


@dataclass(frozen=True)
class Workload:
    """Two networks, a batch and a rule, under a name.

    >>> WORKLOADS["ring"].flops
    1712128
    """

    name: str
    generator: Network
    discriminator: Network
    batch: int
    rule: Rule = Adam(lr=2e-4, betas=(0.5, 0.999))

    @property
    def products(self) -> tuple[tuple[str, int], ...]:
        """The matrix products of an alternating iteration with k = 1, and the FLOPs of each kind."""
        m, g, d = self.batch, self.generator.weights, self.discriminator.weights
        flops = {
            "D's step: G forward": m * sum(g),
            "D's step: D forward": 2 * m * sum(d),
            "D's step: D's inputs": 2 * m * sum(d[1:]),
            "D's step: D's weights": 2 * m * sum(d),
            "G's step: G forward": m * sum(g),
            "G's step: D forward": m * sum(d),
            "G's step: D's inputs": m * sum(d),
            "G's step: G's inputs": m * sum(g[1:]),
            "G's step: G's weights": m * sum(g),
        }
        return tuple((name, 2 * multiplications) for name, multiplications in flops.items())

    @property
    def flops(self) -> int:
        """Of an iteration's products."""
        return sum(flops for _, flops in self.products)

    @property
    def bytes(self) -> int:
        """What an iteration must read and write once: parameters and their state in fp32, a minibatch."""
        buffers = 3 if isinstance(self.rule, Adam) else 2
        updated = 2 * buffers * (self.generator.parameters + self.discriminator.parameters)
        return 4 * (updated + self.batch * self.generator.sizes[-1])

    def without_dropout(self) -> Workload:
        """The same without dropout, whose bits differ from library to library."""
        return replace(self, discriminator=replace(self.discriminator, dropout=0.0))

    def data(self) -> Tensor:
        """Examples to train on, (n, d) in [0, 1)."""
        generator = torch.Generator().manual_seed(0)
        rows = max(2 * self.batch, min(64 * self.batch, (1 << 23) // self.generator.sizes[-1]))
        return torch.rand(rows, self.generator.sizes[-1], generator=generator)


_PAPER = Network((784, 240, 240, 1), "maxout", pieces=5, dropout=0.5)
_ALL = (
    Workload("ring", Network((2, 32, 32, 2)), Network((2, 32, 32, 1)), 64),
    Workload("ring_wide", Network((2, 128, 128, 2)), Network((2, 128, 128, 1)), 256),
    Workload("snippet", Network((100, 128, 784), output="tanh"), Network((784, 128, 1)), 64),
    Workload(
        "stack",
        Network((100, 128, 256, 512, 1024, 784), "leaky_relu", "tanh"),
        Network((784, 512, 256, 1), "leaky_relu"),
        64,
    ),
    Workload("mnist_relu", Network((100, 1200, 1200, 784), output="sigmoid"), Network((784, 1200, 1200, 1)), 100),
    Workload(
        "mnist_paper",
        Network((100, 1200, 1200, 784), output="sigmoid"),
        _PAPER,
        100,
        Momentum(lr=0.1, momentum=0.5),
    ),
    Workload(
        "cifar_paper",
        Network((100, 8000, 8000, 3072), output="sigmoid"),
        Network((3072, 1600, 1600, 1), "maxout", pieces=5, dropout=0.5),
        100,
        Momentum(lr=0.1, momentum=0.5),
    ),
    Workload("wide", Network((512, 4096, 4096, 3072)), Network((3072, 4096, 4096, 1), "leaky_relu"), 4096),
)
WORKLOADS = {workload.name: workload for workload in _ALL}
# What a laptop's CPU does in a minute.
DEFAULT = ("ring", "ring_wide", "snippet", "stack", "mnist_paper")


def get(name: str) -> Workload:
    """A named workload.

    Raises:
        ValueError: an unknown name.
    """
    return WORKLOADS[check_name(name, WORKLOADS, "workload")]


def scaling(curve: str) -> list[Workload]:
    """The workloads of a scaling curve, by batch, width or depth; the names carry the number.

    >>> [workload.name for workload in scaling("depth")][:2]
    ['depth 2', 'depth 3']
    """
    check_name(curve, ("batch", "width", "depth"), "scaling")
    if curve == "batch":
        base = WORKLOADS["snippet"]
        return [replace(base, name=f"batch {m}", batch=m) for m in (16, 64, 256, 1024, 4096, 16384, 65536)]
    if curve == "width":
        return [
            Workload(f"width {w}", Network((100, w, w, 784), output="tanh"), Network((784, w, w, 1)), 64)
            for w in (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
        ]
    return [
        Workload(
            f"depth {n}",
            Network((100, *[256] * (n - 1), 784), output="tanh"),
            Network((784, *[256] * (n - 1), 1)),
            64,
        )
        for n in (2, 3, 4, 6, 8, 10)
    ]
