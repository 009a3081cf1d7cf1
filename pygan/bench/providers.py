"""Ways to run iterations of a workload: pygan's two engines, eager and compiled PyTorch, JAX."""

from __future__ import annotations

import importlib.util
import warnings
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
            offset = random.offset(stream, 0)
            return ops.noise((m, length), seed=SEED, offset=offset, dtype=values.dtype, device=values.device)

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
        linear = nn.Linear(inside, out, device=layer.weight.device, dtype=layer.weight.dtype)
        with torch.no_grad():
            linear.weight.copy_(layer.weight)
            linear.bias.copy_(layer.bias)
        modules += [linear, activations[activation]()]
    return nn.Sequential(*modules)


class Eager:
    """The loop that everybody writes, with torch's fused optimizers, its best form."""

    _capturable = False  # of Adam: its counts stay on the device

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
        self._ones, self._zeros = (values.new_full((m, 1), v) for v in (1, 0))
        self._d_loss, self._g_loss = compiled(self._d_loss), compiled(self._g_loss)

    def _optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        rule, parameters = self.workload.rule, network.parameters()
        if isinstance(rule, Adam):
            settings = {"lr": rule.lr, "betas": rule.betas, "eps": rule.eps, "capturable": self._capturable}
            return torch.optim.Adam(parameters, **settings, fused=True)
        right = self.values.device.type != "cpu" or self.values.dtype == torch.float32  # torch's own is not, in bf16
        return torch.optim.SGD(parameters, lr=rule.lr, momentum=rule.momentum, fused=right)

    def _d_loss(self, x: Tensor, z: Tensor) -> Tensor:
        fake = self.generator(z).detach()
        real_loss = F.binary_cross_entropy_with_logits(self.discriminator(x), self._ones)
        return real_loss + F.binary_cross_entropy_with_logits(self.discriminator(fake), self._zeros)

    def _g_loss(self, z: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(self.discriminator(self.generator(z)), self._ones)

    def _d_step(self, x: Tensor, z: Tensor) -> Tensor:
        self._steps[1].zero_grad()
        loss = self._d_loss(x, z)
        loss.backward()
        self._steps[1].step()
        return loss.detach()

    def _g_step(self, z: Tensor) -> Tensor:
        self._steps[0].zero_grad()
        self.discriminator.requires_grad_(False)  # torch.compile would make its weights' gradients, wanted or not
        loss = self._g_loss(z)
        loss.backward()
        self.discriminator.requires_grad_(True)
        self._steps[0].step()
        return loss.detach()

    def iteration(self, inputs: Inputs) -> None:
        """One iteration on given numbers."""
        self._d_step(inputs.x, inputs.z_d)
        self._g_step(inputs.z_g)

    def draw(self) -> Inputs:
        """Fresh noise and rows, from torch's generator."""
        m, device = self.workload.batch, self.values.device
        shape = (m, self.workload.generator.sizes[0])
        rows = torch.randint(len(self.values), (m,), device=device)
        z_d, z_g = (torch.randn(shape, dtype=self.values.dtype, device=device) for _ in range(2))
        return Inputs(z_d, self.values[rows], z_g)

    def run(self, n: int) -> None:
        """So many iterations."""
        for _ in range(n):
            self.iteration(self.draw())

    def step(self, inputs: Inputs) -> tuple[float, float]:
        """One iteration, whose random numbers are `inputs`; both losses."""
        d_loss = float(self._d_step(inputs.x, inputs.z_d))  # read at once: with reduce-overhead what comes next takes
        return d_loss, float(self._g_step(inputs.z_g))  # its memory

    def parameters(self) -> list[Tensor]:
        """The generator's, then the discriminator's."""
        return [*self.generator.parameters(), *self.discriminator.parameters()]


class Rounded(Eager):
    """Eager whose parameters are rounded after each step: what training in `dtype` is, but for the arithmetic."""

    def __init__(self, workload: Workload, networks: tuple[MLP, MLP], values: Tensor, dtype: torch.dtype):
        super().__init__(workload, networks, values)
        self._dtype = dtype
        self._round(self.generator, self.discriminator)

    @torch.no_grad()
    def _round(self, *networks: nn.Module) -> None:
        for network in networks:
            for p in network.parameters():
                p.copy_(p.to(self._dtype))

    def _d_step(self, x: Tensor, z: Tensor) -> Tensor:
        loss = super()._d_step(x, z)
        self._round(self.discriminator)
        return loss

    def _g_step(self, z: Tensor) -> Tensor:
        loss = super()._g_step(z)
        self._round(self.generator)
        return loss


def _warm_up(function: Callable[[], object], device: torch.device) -> None:
    """Call it three times on a stream of its own, as a capture wants it before."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream), warnings.catch_warnings(action="ignore"):  # of capturable without a capture
        for _ in range(3):
            function()
    torch.cuda.current_stream(device).wait_stream(stream)


def _capture(function: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """What replays a function, which is not run by this."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device), torch.cuda.graph(graph):
        function()
    return graph.replay


class EagerGraph(Eager):
    """The eager iteration captured in a CUDA graph."""

    _capturable = True

    def __init__(self, workload: Workload, networks: tuple[MLP, MLP], values: Tensor):
        super().__init__(workload, networks, values)
        self._replay: Callable[[], object] | None = None

    @torch.no_grad()
    def _put_back(self, parameters: list[Tensor]) -> None:
        """These parameters, and optimizers as before their first step: all of what they remember is then zero."""
        for p, value in zip(self.parameters(), parameters, strict=True):
            p.copy_(value)
        for optimizer in self._steps:
            for state in optimizer.state.values():
                for remembered in state.values():
                    if isinstance(remembered, Tensor):
                        remembered.zero_()

    def _captured(self, function: Callable[[], object]) -> Callable[[], object]:
        """What replays the function; after it the state is as it was before."""
        before = [p.detach().clone() for p in self.parameters()]
        _warm_up(function, self.values.device)
        self._put_back(before)
        return _capture(function, self.values.device)

    def run(self, n: int) -> None:
        """So many iterations."""
        if self._replay is None:
            self._replay = self._captured(lambda: self.iteration(self.draw()))
        for _ in range(n):
            self._replay()

    def step(self, inputs: Inputs) -> tuple[float, float]:
        """One iteration, captured with `inputs` as its random numbers; both losses."""
        losses = self.values.new_zeros(2)

        def iteration() -> None:
            losses[0].copy_(self._d_step(inputs.x, inputs.z_d))
            losses[1].copy_(self._g_step(inputs.z_g))

        self._captured(iteration)()
        d_loss, g_loss = losses.tolist()
        return d_loss, g_loss


class Jax:
    """The same iteration in JAX, compiled; `scanned`: many iterations in one call, by lax.scan."""

    def __init__(self, workload: Workload, networks: tuple[MLP, MLP], values: Tensor, scanned: bool):
        import jax

        jax.config.update("jax_default_matmul_precision", "float32")  # on a GPU it would be TF32
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


def why_not(name: str, device: torch.device, precision: str = "fp32") -> str | None:
    """Why a provider cannot run here in this precision, or None."""
    if name.startswith("jax") and importlib.util.find_spec("jax") is None:
        return "jax is not installed (pip install 'pygan[bench]')"
    if name.startswith("jax") and precision != "fp32":
        return "jax runs in fp32 alone here"
    if name == "native" and device.type == "cpu" and precision == "bf16":
        return "the native engine runs fp32 and fp64 networks on the CPU"
    if name in ("reduce-overhead", "eager graph") and device.type != "cuda":
        return "it is for CUDA"
    if name in ("compile", "reduce-overhead") and (reason := _compiler_missing()) is not None:
        return reason
    if name in ("compile", "reduce-overhead") and device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "torch.compile needs triton for CUDA, and it is not installed"
    if name == "eager graph" and not torch.cuda.is_available():
        return "torch sees no GPU"
    return None
