"""Ways to run iterations of a workload: pygan's two engines, eager and compiled PyTorch, JAX."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pygan import ops, random
from pygan.bench.workloads import Network, Workload
from pygan.nn import MLP
from pygan.optim import Adam
from pygan.trainer import Trainer

SEED = 1


@dataclass(frozen=True)
class Inputs:
    """The random numbers of one iteration: z and x of D's step, z of G's."""

    z_d: Tensor
    x: Tensor
    z_g: Tensor

    @classmethod
    def of(cls, workload: Workload, values: Tensor) -> Inputs:
        """Those that the trainer's first iteration takes."""
        m, length = workload.batch, workload.generator.sizes[0]

        def noise(stream: int) -> Tensor:
            return ops.noise((m, length), seed=SEED, offset=random.offset(stream, 0), device=values.device)

        rows = ops.minibatch_indices(len(values), m, start=0, seed=SEED, offset=random.offset(random.MINIBATCH, 0))
        return cls(noise(random.NOISE_D), values[rows.to(values.device)], noise(random.NOISE_G))


class Pygan:
    """The trainer with one of its engines."""

    def __init__(self, workload: Workload, networks: tuple[MLP, MLP], values: Tensor, engine: str):
        self.trainer = Trainer(
            *networks, values, batch_size=workload.batch, optimizer=workload.rule, seed=SEED, engine=engine
        )

    def run(self, n: int) -> None:
        """So many iterations."""
        self.trainer.run(n)

    def step(self, inputs: Inputs) -> tuple[float, float]:
        """One iteration, whose random numbers are `inputs`; both losses."""
        history = self.trainer.run(1)
        return float(history.d_loss[0]), float(history.g_loss[0])

    def parameters(self) -> list[Tensor]:
        """The generator's, then the discriminator's."""
        return [*self.trainer.generator.parameters(), *self.trainer.discriminator.parameters()]


class MaxPool(nn.Module):
    """The largest of the pieces of each unit."""

    def __init__(self, pieces: int):
        super().__init__()
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        """(m, units * pieces) -> (m, units)."""
        return x.unflatten(1, (-1, self.pieces)).amax(2)


def plain(network: Network, like: MLP) -> nn.Sequential:
    """The network in torch's modules, with the same parameters."""
    activations = {
        "relu": nn.ReLU,
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
        "identity": nn.Identity,
        "leaky_relu": lambda: nn.LeakyReLU(network.slope),
        "maxout": lambda: MaxPool(network.pieces),
    }
    modules = []
    for layer, activation in zip(like.layers, like.activations, strict=True):
        if network.dropout:
            modules.append(nn.Dropout(network.dropout))
        out, inside = layer.weight.shape
        linear = nn.Linear(inside, out, device=layer.weight.device)
        with torch.no_grad():
            linear.weight.copy_(layer.weight)
            linear.bias.copy_(layer.bias)
        modules += [linear, activations[activation]()]
    return nn.Sequential(*modules)


class Eager:
    """The loop that everybody writes, with torch's fused optimizers, its best form."""

    def __init__(
        self,
        workload: Workload,
        networks: tuple[MLP, MLP],
        values: Tensor,
        compiled: Callable[[Callable], Callable] = lambda function: function,
    ):
        self.workload, self.values = workload, values
        self.generator = plain(workload.generator, networks[0])
        self.discriminator = plain(workload.discriminator, networks[1])
        self._steps = [self._optimizer(network) for network in (self.generator, self.discriminator)]
        m = workload.batch
        self._ones, self._zeros = (torch.full((m, 1), float(v), device=values.device) for v in (1, 0))
        self._d_loss, self._g_loss = compiled(self._d_loss), compiled(self._g_loss)

    def _optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        rule = self.workload.rule
        if isinstance(rule, Adam):
            return torch.optim.Adam(network.parameters(), lr=rule.lr, betas=rule.betas, eps=rule.eps, fused=True)
        return torch.optim.SGD(network.parameters(), lr=rule.lr, momentum=rule.momentum, fused=True)

    def _d_loss(self, x: Tensor, z: Tensor) -> Tensor:
        fake = self.generator(z).detach()
        real_loss = F.binary_cross_entropy_with_logits(self.discriminator(x), self._ones)
        return real_loss + F.binary_cross_entropy_with_logits(self.discriminator(fake), self._zeros)

    def _g_loss(self, z: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(self.discriminator(self.generator(z)), self._ones)

    def iteration(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """One iteration on given numbers; both losses."""
        g_step, d_step = self._steps
        d_step.zero_grad()
        d_loss = self._d_loss(inputs.x, inputs.z_d)
        d_loss.backward()
        d_step.step()
        g_step.zero_grad()
        g_loss = self._g_loss(inputs.z_g)
        g_loss.backward(inputs=list(self.generator.parameters()))
        g_step.step()
        return d_loss, g_loss

    def draw(self) -> Inputs:
        """Fresh noise and rows, from torch's generator."""
        m, device = self.workload.batch, self.values.device
        shape = (m, self.workload.generator.sizes[0])
        rows = torch.randint(len(self.values), (m,), device=device)
        return Inputs(torch.randn(shape, device=device), self.values[rows], torch.randn(shape, device=device))

    def run(self, n: int) -> None:
        """So many iterations."""
        for _ in range(n):
            self.iteration(self.draw())

    def step(self, inputs: Inputs) -> tuple[float, float]:
        """One iteration, whose random numbers are `inputs`; both losses."""
        d_loss, g_loss = self.iteration(inputs)
        return float(d_loss.detach()), float(g_loss.detach())

    def parameters(self) -> list[Tensor]:
        """The generator's, then the discriminator's."""
        return [*self.generator.parameters(), *self.discriminator.parameters()]


class EagerGraph(Eager):
    """The eager iteration captured in a CUDA graph."""

    def __init__(self, workload: Workload, networks: tuple[MLP, MLP], values: Tensor):
        super().__init__(workload, networks, values)
        self._steps = [self._optimizer(network) for network in (self.generator, self.discriminator)]
        for optimizer in self._steps:
            for group in optimizer.param_groups:
                if isinstance(optimizer, torch.optim.Adam):
                    group["capturable"] = True
        self._graph: torch.cuda.CUDAGraph | None = None

    def run(self, n: int) -> None:
        """So many iterations."""
        if self._graph is None:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                super().run(3)
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                super().run(1)
        for _ in range(n):
            self._graph.replay()


class Jax:
    """The same iteration in JAX, compiled; `scanned`: many iterations in one call, by lax.scan."""

    def __init__(self, workload: Workload, networks: tuple[MLP, MLP], values: Tensor, scanned: bool):
        import jax

        self._jax, self._workload, self._scanned = jax, workload, scanned
        numpy = jax.numpy

        def array(tensor: Tensor):
            return numpy.asarray(tensor.detach().cpu().numpy())

        self._values = array(values)
        params = tuple([(array(layer.weight), array(layer.bias)) for layer in network.layers] for network in networks)
        states = 2 if isinstance(workload.rule, Adam) else 1
        zeros = tuple(jax.tree.map(numpy.zeros_like, params) for _ in range(states))
        self._state = (params, zeros, numpy.zeros((), numpy.int32), jax.random.key(SEED))
        self._given = jax.jit(self._iteration)
        self._drawn = jax.jit(self._with_draws, donate_argnums=0)
        self._many: dict[int, Callable] = {}

    def _forward(self, network: Network, layers, x, key):
        jax, last = self._jax, len(layers) - 1
        for i, (weight, bias) in enumerate(layers):
            if network.dropout:
                key, own = jax.random.split(key)
                keep = jax.random.bernoulli(own, 1 - network.dropout, x.shape)
                x = x * keep / (1 - network.dropout)
            y = x @ weight.T + bias
            name = network.output if i == last else network.activation
            x = {
                "identity": lambda y: y,
                "relu": jax.nn.relu,
                "tanh": jax.numpy.tanh,
                "sigmoid": jax.nn.sigmoid,
                "leaky_relu": lambda y: jax.nn.leaky_relu(y, network.slope),
                "maxout": lambda y: y.reshape(len(y), -1, network.pieces).max(2),
            }[name](y)
        return x

    def _update(self, which: int, params, grads, states, step):
        numpy, rule = self._jax.numpy, self._workload.rule
        new, kept = list(params), [list(state) for state in states]
        tree = self._jax.tree.map
        if isinstance(rule, Adam):
            b1, b2 = rule.betas
            kept[0][which] = tree(lambda m, g: b1 * m + (1 - b1) * g, kept[0][which], grads)
            kept[1][which] = tree(lambda v, g: b2 * v + (1 - b2) * g * g, kept[1][which], grads)
            c1, c2 = 1 - b1**step, 1 - b2**step
            new[which] = tree(
                lambda p, m, v: p - rule.lr / c1 * m / (numpy.sqrt(v) / numpy.sqrt(c2) + rule.eps),
                new[which], kept[0][which], kept[1][which],
            )  # fmt: skip
        else:
            kept[0][which] = tree(lambda v, g: rule.momentum * v - rule.lr * g, kept[0][which], grads)
            new[which] = tree(lambda p, v: p + v, new[which], kept[0][which])
        return tuple(new), tuple(tuple(state) for state in kept)

    def _iteration(self, state, z_d, x, z_g):
        jax, workload = self._jax, self._workload
        params, states, count, key = state
        step = (count + 1).astype(jax.numpy.float32)
        key, *keys = jax.random.split(key, 6)

        def d_loss(d):
            fake = jax.lax.stop_gradient(self._forward(workload.generator, params[0], z_d, keys[0]))
            real = self._forward(workload.discriminator, d, x, keys[1])
            generated = self._forward(workload.discriminator, d, fake, keys[2])
            return jax.nn.softplus(-real).mean() + jax.nn.softplus(generated).mean()

        def g_loss(g):
            fake = self._forward(workload.generator, g, z_g, keys[3])
            return jax.nn.softplus(-self._forward(workload.discriminator, params[1], fake, keys[4])).mean()

        d_value, grads = jax.value_and_grad(d_loss)(params[1])
        params, states = self._update(1, params, grads, states, step)
        g_value, grads = jax.value_and_grad(g_loss)(params[0])
        params, states = self._update(0, params, grads, states, step)
        return (params, states, count + 1, key), (d_value, g_value)

    def _with_draws(self, state, _=None):
        jax, m = self._jax, self._workload.batch
        key, a, b, c = jax.random.split(state[3], 4)
        shape = (m, self._workload.generator.sizes[0])
        x = self._values[jax.random.randint(b, (m,), 0, len(self._values))]
        return self._iteration((*state[:3], key), jax.random.normal(a, shape), x, jax.random.normal(c, shape))

    def run(self, n: int) -> None:
        """So many iterations."""
        jax = self._jax
        if self._scanned:
            if n not in self._many:
                scan = lambda state: jax.lax.scan(self._with_draws, state, None, length=n)  # noqa: E731
                self._many[n] = jax.jit(scan, donate_argnums=0)
            self._state, _ = self._many[n](self._state)
        else:
            for _ in range(n):
                self._state, _ = self._drawn(self._state)
        jax.block_until_ready(self._state)

    def step(self, inputs: Inputs) -> tuple[float, float]:
        """One iteration, whose random numbers are `inputs`; both losses."""
        numbers = [self._jax.numpy.asarray(t.cpu().numpy()) for t in (inputs.z_d, inputs.x, inputs.z_g)]
        self._state, (d_loss, g_loss) = self._given(self._state, *numbers)
        return float(d_loss), float(g_loss)

    def parameters(self) -> list[Tensor]:
        """The generator's, then the discriminator's."""
        flat = [array for network in self._state[0] for layer in network for array in layer]
        return [torch.tensor(self._jax.device_get(array)) for array in flat]


def compiled(mode: str | None = None) -> Callable:
    """torch.compile as `Eager` takes it."""
    return lambda function: torch.compile(function, mode=mode, dynamic=False)


PROVIDERS: dict[str, Callable[[Workload, tuple[MLP, MLP], Tensor], object]] = {
    "native": lambda *given: Pygan(*given, engine="native"),
    "composed": lambda *given: Pygan(*given, engine="composed"),
    "eager": Eager,
    "compile": lambda *given: Eager(*given, compiled()),
    "reduce-overhead": lambda *given: Eager(*given, compiled("reduce-overhead")),
    "eager graph": EagerGraph,
    "jax": lambda *given: Jax(*given, scanned=False),
    "jax scan": lambda *given: Jax(*given, scanned=True),
}


def _compiler_missing() -> str | None:
    """Why torch.compile cannot make code for the CPU."""
    from torch._inductor import cpp_builder

    try:
        cpp_builder.get_cpp_compiler()
    except Exception as error:  # torch's own, of a private class
        return f"torch.compile finds no C++ compiler ({type(error).__name__})"
    return None


def why_not(name: str, device: torch.device) -> str | None:
    """Why a provider cannot run here, or None."""
    if name.startswith("jax") and importlib.util.find_spec("jax") is None:
        return "jax is not installed (pip install 'pygan[bench]')"
    if name in ("reduce-overhead", "eager graph") and device.type != "cuda":
        return "it is for CUDA"
    if name in ("compile", "reduce-overhead") and (reason := _compiler_missing()) is not None:
        return reason
    if name == "eager graph" and not torch.cuda.is_available():
        return "torch sees no GPU"
    return None
