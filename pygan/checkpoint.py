"""Checkpoints: a safetensors file of every tensor that training changes, its settings in the header.

Tensors are named `generator.<key of state_dict>`, `discriminator.<...>`, `optimizer.generator.<buffer>`,
`optimizer.discriminator.<...>`, `average.<key>` where the generator's weights are averaged, and `rng.<...>` where a
network draws from torch's generators. The header's
entry `pygan` holds the settings, the number of the iteration, and the architectures of pygan's own networks.
Nothing in it is code.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pygan import averaging, running
from pygan._files import replacing
from pygan._names import check_name, check_pair, check_whole, check_wholes
from pygan.config import TrainerConfig, check_device
from pygan.conv import ConvDiscriminator, DeconvGenerator
from pygan.data import Dataset, as_dataset
from pygan.nn import MLP

if TYPE_CHECKING:
    from pygan.trainer import Trainer

FORMAT = 1
_DTYPES = ("float32", "float64", "bfloat16", "float16")
_CLASSES = {cls.__name__: cls for cls in (MLP, DeconvGenerator, ConvDiscriminator)}


class CheckpointError(ValueError):
    """A file that is no checkpoint, a damaged one, or one of another architecture or data set."""


def save(trainer: Trainer, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a trainer's state to a file, which appears whole or not at all.

    Args:
        trainer: between two iterations.
        path: of the file, in a folder that exists.
        overwrite: whether a file that this trainer did not write may be replaced.

    Raises:
        FileExistsError: it may not.
        OSError: the file cannot be written.

    >>> import tempfile
    >>> import pygan
    >>> trainer = pygan.recipes.get("ring8").build()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(trainer, f"{folder}/ring.safetensors")
    ...     resume(f"{folder}/ring.safetensors", trainer.data).iteration
    0
    """
    path = Path(path).absolute()
    if path.exists() and not path.is_dir() and not overwrite and path not in trainer.checkpoints:
        raise FileExistsError(f"{path} exists and is not this trainer's checkpoint; overwrite=True replaces it")
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in trainer.state().items()}
    with replacing(path) as temporary:
        # Not save_file: that makes files which only their owner may read.
        temporary.write_bytes(safetensors.torch.save(tensors, metadata={"pygan": json.dumps(_header(trainer))}))
    trainer.checkpoints.add(path)


def resume(
    path: str | Path,
    data,
    *,
    generator: nn.Module | None = None,
    discriminator: nn.Module | None = None,
    device: torch.device | str | None = None,
    engine: str | None = None,
) -> Trainer:
    """The trainer that `save` wrote down, which continues to the same bits as one that was never interrupted.

    Args:
        path: of the checkpoint.
        data: the data set it was training on.
        generator: a network of the same architecture, whose parameters are overwritten. One of pygan's own is made
            anew if left out; a module of another class must be given.
        discriminator: likewise.
        device: where to train; by default the networks' own, or the CPU.
        engine: by default the one in the checkpoint.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: not a checkpoint, a damaged one, or one that does not fit the networks or the data.
        ValueError: a network of another class that was not given.
    """
    from pygan.trainer import Trainer

    header, tensors = read(path)
    data = as_dataset(data)
    check_data(header, data, path)
    networks = {
        name: _network(name, given, header, tensors, path)
        for name, given in (("generator", generator), ("discriminator", discriminator))
    }
    config = TrainerConfig.from_dict(header["config"])
    if engine is not None:
        config = dataclasses.replace(config, engine=engine)
    trainer = Trainer(**networks, data=data, device=device, **config.arguments())
    _check_state(trainer.state(), tensors, path)
    running.restore(trainer, tensors)
    trainer.iteration, trainer.samples_drawn = header["iteration"], header["samples_drawn"]
    trainer.checkpoints.add(Path(path).absolute())
    return trainer


def check_data(header: dict, data: Dataset, path: str | Path) -> None:
    """Refuse data of another shape than those that the checkpoint at `path`, of this header, was trained on."""
    n, d = header["data"]["rows"], header["data"]["columns"]
    if data.values.shape != (n, d):
        raise CheckpointError(
            f"{path} was trained on {header['data']['name']}, {n} rows of {d}; the data given has "
            f"{data.values.shape[0]} rows of {data.values.shape[1]}"
        )


def load_generator(
    path: str | Path, *, device: torch.device | str = "cpu"
) -> tuple[MLP | DeconvGenerator, TrainerConfig, dict]:
    """The generator of a checkpoint alone, in evaluation mode, without the data: its average, where there is one.

    Args:
        path: of the checkpoint.
        device: where to put it.

    Returns:
        The generator, the settings of its training, and the checkpoint's header.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: not a checkpoint, a damaged one, or one whose generator is a class of the user's.
    """
    header, tensors = read(path)
    if header["generator"] is None:
        raise CheckpointError(f"{path} holds a generator that is not one of pygan's; resume it with generator=")
    network = _network("generator", None, header, tensors, path)
    config = TrainerConfig.from_dict(header["config"])
    _check_state(network.state_dict(), _part("generator.", tensors), path)
    network.load_state_dict(_part("generator.", tensors))
    if config.ema_decay is not None and header["iteration"] >= averaging.STEPS:
        average = averaging.Average(network, config.ema_decay)
        _check_state(average.tensors, _part("average.", tensors), path)
        network.load_state_dict(_part("average.", tensors), strict=False)
    return network.to(check_device(device)).eval(), config, header


def read(path: str | Path) -> tuple[dict, dict[str, Tensor]]:
    """The header and the tensors of a checkpoint.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: not a checkpoint, or a damaged one, or one of a later version.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("pygan", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is damaged or no checkpoint: {error}") from error
    if not isinstance(header, dict) or "format" not in header:
        raise CheckpointError(f"{path} is a safetensors file, but not a checkpoint of pygan")
    if _checked("format", header, path, check_whole) > FORMAT:
        raise CheckpointError(f"{path} was written by pygan {header.get('pygan')}, which is later than this one")
    _check_header(header, path)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.isnan().any():
            raise CheckpointError(f"{path} is damaged: its {name} holds a NaN")
    return header, tensors


def _header(trainer: Trainer) -> dict:
    from pygan import __version__

    def architecture(network: nn.Module) -> dict | None:
        if type(network) is MLP:
            return network.config()
        name = type(network).__name__
        return {"class": name, **network.config()} if type(network) is _CLASSES.get(name) else None

    n, d = trainer.data.values.shape
    return {
        "format": FORMAT,
        "pygan": __version__,
        "iteration": trainer.iteration,
        "samples_drawn": trainer.samples_drawn,
        "dtype": str(trainer.dtype).removeprefix("torch."),
        "config": trainer.config.to_dict(),
        "generator": architecture(trainer.generator),
        "discriminator": architecture(trainer.discriminator),
        "data": {
            "name": trainer.data.name,
            "rows": n,
            "columns": d,
            "image_shape": trainer.data.image_shape,
            "value_range": trainer.value_range,
        },
    }


def _check_header(header: dict, path) -> None:
    """That the header's entries are what `_header` writes; architectures are checked when networks are made of them."""

    def count(value, name: str) -> int:
        return check_whole(value, name, least=0)

    def architecture(value, name: str) -> None:
        if not isinstance(value, dict | None):
            raise ValueError(f"{name} must be the settings of a network or null, got {value!r}")

    _checked("iteration", header, path, count)
    _checked("samples_drawn", header, path, count)
    _checked("dtype", header, path, lambda dtype, name: check_name(dtype, _DTYPES, name))
    _checked("config", header, path, lambda config, _: TrainerConfig.from_dict(config))
    _checked("generator", header, path, architecture)
    _checked("discriminator", header, path, architecture)
    data = _checked("data", header, path, lambda data, _: dict(data))
    _checked("name", data, path, lambda value, _: str(value))
    _checked("rows", data, path, check_whole)
    _checked("columns", data, path, check_whole)
    _checked("image_shape", data, path, lambda shape, name: None if shape is None else check_wholes(shape, name))
    _checked(
        "value_range",
        data,
        path,
        lambda ends, name: check_pair(ends, name, "(low, high)", lambda low, high: low <= high),
    )


def _checked(name: str, entries: dict, path, check: Callable[[object, str], Any]):
    """What `check` makes of an entry of the header and its name; its refusal says which file and entry it is."""
    if name not in entries:
        raise CheckpointError(f"{path} is damaged: its header lacks {name!r}")
    try:
        return check(entries[name], name)
    except KeyError as error:
        raise CheckpointError(f"{path} is damaged: its header's {name!r} lacks {error}") from error
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path} is damaged: its header's {name!r} is wrong: {error}") from error


def _network(name: str, given: nn.Module | None, header: dict, tensors: dict[str, Tensor], path) -> nn.Module:
    """The network to restore into: the one given, if it fits, or a new one of pygan's."""

    def make(config: dict, _) -> nn.Module:
        config = {"class": "MLP", **config}
        cls = _CLASSES[check_name(config.pop("class"), _CLASSES, "class")]
        return cls(**config, dtype=getattr(torch, header["dtype"]))

    if given is None:
        if header[name] is None:
            raise ValueError(f"{path} holds a {name} that is not one of pygan's: give {name}=, a module like it")
        return _checked(name, header, path, make)
    config = header[name]
    if config is not None and "class" not in config and type(given) is MLP and given.config() != config:
        raise CheckpointError(
            f"{path} is of another architecture: its {name} is {_in_words(config)}, "
            f"the one given {_in_words(given.config())}"
        )
    prefix = f"{name}."
    mine = {prefix + key: value for key, value in given.state_dict().items()}
    _check_state(mine, {key: value for key, value in tensors.items() if key.startswith(prefix)}, path)
    return given


def _part(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of that prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _check_state(mine: dict[str, Tensor], stored: dict[str, Tensor], path) -> None:
    """That both have the same names, and tensors of the same shapes and dtypes under them."""
    for name in sorted(mine.keys() ^ stored.keys()):
        where = "lacks" if name in mine else "holds"
        raise CheckpointError(f"{path} is of another architecture: it {where} {name!r}")
    for name, tensor in mine.items():
        other = stored[name]
        if tensor.shape != other.shape or tensor.dtype != other.dtype:
            raise CheckpointError(
                f"{path} is of another architecture: its {name} is {other.dtype} {tuple(other.shape)}, "
                f"expected {tensor.dtype} {tuple(tensor.shape)}"
            )


def _in_words(config: dict) -> str:
    sizes = "-".join(map(str, config["sizes"]))
    pieces = f", {config['pieces']} pieces" if config["pieces"] > 1 else ""
    dropout = f", dropout {config['dropout']}" if any(config["dropout"]) else ""
    return f"{sizes} ({', '.join([*config['activation'], config['output']])}{pieces}{dropout})"
