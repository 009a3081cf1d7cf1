"""Other people's modules on pygan's ops: `fuse` changes how a module runs, not what it is."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass

from torch import nn

from pygan.fused_layers import Chain, steps_of, why_not

__all__ = ["Entry", "fuse", "fusions", "unfuse"]


@dataclass(frozen=True)
class Entry:
    """What became of one linear layer.

    Args:
        name: of the layer in the module.
        layers: the classes of the layer and of what was fused with it.
        op: what runs them, or None.
        reason: why they run as before; empty where they do not.
    """

    name: str
    layers: tuple[str, ...]
    op: str | None
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.name:<16} {' + '.join(self.layers):<36} {self.op or 'left: ' + self.reason}"


def fuse(module: nn.Module, *, verbose: bool = False) -> nn.Module:
    """Run the linear layers of a module, with what follows them, as pygan's ops.

    In every `nn.Sequential` inside (or of) the module, Linear, activation and Dropout, or Linear, BatchNorm1d and
    activation, or Linear and `nn.MaxPool1d(p)`, which is maxout with p pieces, become one op; such layers in a row
    become one, too, where they have no BatchNorm1d. The module stays the object that it was, with its children,
    parameters, hooks and keys, and computes what it computed, up to rounding and to the bits of its dropout masks
    (whose seed is drawn from torch's generator). Hooks that are added and children that are exchanged later are seen
    at the next call.

    Args:
        module: any; it is changed in place.
        verbose: print what `fusions` tells.

    Returns:
        The module.

    Raises:
        TypeError: module is no `nn.Module`.

    >>> net = nn.Sequential(nn.Linear(3, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    >>> fuse(net) is net, list(net.state_dict())
    (True, ['0.weight', '0.bias', '2.weight', '2.bias'])
    """
    _check(module)
    shared = _used_twice(module)
    for container in list(module.modules()):
        if _is_plain_sequential(container):
            left = [name for name, child in container._modules.items() if id(child) in shared]
            if any(isinstance(step, Chain) for step in steps_of(container, left)):
                container.__class__ = _fused_class(type(container))
                container._left = tuple(left)
                container._current_steps()
    if verbose:
        print("\n".join(map(str, fusions(module))) or "no linear layer")
    return module


def unfuse(module: nn.Module) -> nn.Module:
    """Undo `fuse`: the module runs as it did, in place.

    Raises:
        TypeError: module is no `nn.Module`.

    >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU())
    >>> type(unfuse(fuse(net)))
    <class 'torch.nn.modules.container.Sequential'>
    """
    _check(module)
    for container in module.modules():
        if isinstance(container, _FusedSequential):
            for attribute in ("_left", "_cached"):
                container.__dict__.pop(attribute, None)
            container.__class__ = container.unfused
    return module


def fusions(module: nn.Module) -> list[Entry]:
    """What runs each linear layer of a module, and why those that torch runs are left to it.

    >>> for entry in fusions(fuse(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1), nn.LayerNorm(1)))):
    ...     print(entry)
    0                Linear + Tanh                        linear_act
    2                Linear                               left: LayerNorm follows
    """
    _check(module)
    shared, entries = _used_twice(module), {}
    for prefix, container in module.named_modules():
        prefix = prefix and prefix + "."
        chains = (
            [step for step in container._current_steps() if isinstance(step, Chain)] if _is_fused(container) else []
        )
        chained = {id(layer.linear): (layer, chain) for chain in chains for layer in chain.layers}
        children = list(container._modules.items())
        for i, (name, child) in enumerate(children):
            if not isinstance(child, nn.Linear):
                continue
            if id(child) in chained:
                layer, chain = chained[id(child)]
                names = tuple(type(part).__name__ for part in layer.modules)
                entries[id(child)] = Entry(prefix + name, names, chain.op)
                continue
            after = [other for _, other in children[i + 1 :]]
            if not isinstance(container, nn.Sequential):
                reason = "its container is no nn.Sequential"
            elif not (_is_fused(container) or _is_plain_sequential(container)):
                reason = f"its container, a {type(container).__name__}, has a forward of its own"
            elif id(child) in shared:
                reason = "it is used twice"
            else:
                reason = why_not(child, *after) or "fuse has not been called"
            entries.setdefault(id(child), Entry(prefix + name, (type(child).__name__,), None, reason))
    if isinstance(module, nn.Linear):
        entries[id(module)] = Entry("", (type(module).__name__,), None, "its container is no nn.Sequential")
    return [entries[id(m)] for m in module.modules() if id(m) in entries]


def _check(module: object) -> None:
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")


def _used_twice(module: nn.Module) -> set[int]:
    """The linear layers that stand in several places."""
    places = Counter(id(m) for _, m in module.named_modules(remove_duplicate=False) if isinstance(m, nn.Linear))
    return {one for one, count in places.items() if count > 1}


def _is_fused(container: nn.Module) -> bool:
    return isinstance(container, _FusedSequential)


def _is_plain_sequential(container: nn.Module) -> bool:
    plain = isinstance(container, nn.Sequential) and type(container).forward is nn.Sequential.forward
    return plain and "forward" not in vars(container)


class _FusedSequential(nn.Sequential):
    unfused: type  # what it was
    _left: tuple[str, ...] = ()  # names of children that stay as they are
    _cached: tuple[tuple, list] | None = None

    def _current_steps(self) -> list:
        children = tuple(self._modules.values())
        cached = self._cached
        if cached is None or len(cached[0]) != len(children) or any(map(_is_not, cached[0], children)):
            cached = self._cached = (children, steps_of(self, self._left))
        return cached[1]

    def forward(self, input):
        """The children one after the other, chains of them as one op."""
        for step in self._current_steps():
            input = step(input)
        return input

    def __reduce_ex__(self, protocol):
        state = {key: value for key, value in self.__dict__.items() if key != "_cached"}
        return _remade, (self.unfused,), state

    def __setstate__(self, state):
        super().__setstate__(state)
        self._current_steps()


def _is_not(one: object, other: object) -> bool:
    return one is not other


@functools.cache
def _fused_class(unfused: type) -> type:
    bases = (_FusedSequential,) if unfused is nn.Sequential else (_FusedSequential, unfused)
    return type(unfused.__name__, bases, {"unfused": unfused, "__module__": __name__, "__doc__": unfused.__doc__})


def _remade(unfused: type) -> nn.Module:
    fused = _fused_class(unfused)
    return fused.__new__(fused)
