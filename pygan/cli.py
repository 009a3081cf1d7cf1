"""The command `pygan`: train a recipe, draw samples from a run, say what is installed.

Whatever goes wrong is said in one sentence. Exit codes: 0 done, 1 something failed, 2 what was asked for
cannot be, 130 interrupted.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(
    name="pygan",
    help="Generative adversarial nets with fused kernels (Goodfellow et al. 2014).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def train(
    recipe: Annotated[str, typer.Option(help="What to train; `pygan info` lists the recipes.")] = "digits",
    data: Annotated[str | None, typer.Option(help="Another data set: a name, or an idx or .npy file.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Iterations of Algorithm 1; default: the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of all randomness; the same seed gives the same bits.")] = None,
    out: Annotated[Path | None, typer.Option(help="A new folder for the run; default: runs/<recipe>-<n>.")] = None,
    engine: Annotated[str | None, typer.Option(help="auto or composed.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; default: cpu.")] = None,
    update: Annotated[str | None, typer.Option(help="alternating or simultaneous.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples in a step.")] = None,
    k: Annotated[int | None, typer.Option(help="Discriminator steps in an iteration.")] = None,
    generator_loss: Annotated[str | None, typer.Option(help="non_saturating or minimax.")] = None,
) -> int:
    """Train a recipe, and write samples, curves, metrics and a checkpoint. Ctrl-C ends it cleanly."""
    from pygan import recipes, run_folder

    overrides = {
        "iterations": iterations,
        "seed": seed,
        "engine": engine,
        "update": update,
        "batch_size": batch_size,
        "k": k,
        "generator_loss": generator_loss,
    }
    chosen = recipes.get(recipe, **{name: value for name, value in overrides.items() if value is not None})
    run_folder.check_vacant(out)
    trainer = chosen.build(data, device=device)
    config = {
        "recipe": chosen.to_dict(),
        "data": data or chosen.data,
        **_surroundings(),
        "device": str(trainer.device),
    }
    path = run_folder.create(out, chosen.name)
    return _train(trainer, run_folder.RunFolder(path, config, chosen.iterations), chosen.iterations)


def _train(trainer, folder, iterations: int) -> int:
    """Run, show, write down; whatever ends the run, the folder is completed."""
    from pygan.history import DivergenceError
    from pygan.progress import Progress

    console = Console()
    console.print(f"{trainer.data!r} -> {folder.path}", soft_wrap=True, highlight=False)
    code, ending = 0, ""
    with Progress(iterations, console) as progress:

        def report(trainer, news):
            progress(trainer.iteration, news)
            folder.add(trainer, news)

        try:
            trainer.run(iterations, report)
        except KeyboardInterrupt:
            code, ending = 130, f"interrupted after {trainer.iteration} iterations; "
        except DivergenceError as error:
            code, ending = 1, f"{_sentence(error)}; "
    written = folder.finish(trainer)
    names = ", ".join(file.name for file in written)
    console.print(f"{ending}written to {folder.path}: {names}", soft_wrap=True, highlight=False)
    return code


@app.command()
def sample(
    run: Annotated[Path, typer.Argument(help="The folder of a run, or a checkpoint.")],
    n: Annotated[int, typer.Option(help="How many samples.")] = 100,
    out: Annotated[Path, typer.Option(help="A new .png, .pdf or .svg picture, or a .npy array.")] = Path("samples.png"),
    seed: Annotated[int | None, typer.Option(help="Of the noise; default: the run's.")] = None,
) -> int:
    """Draw samples from a trained generator."""
    import dataclasses

    import numpy as np

    from pygan import checkpoint, figures, run_folder
    from pygan.trainer import generate

    if out.exists():
        raise FileExistsError(f"{out} exists; choose a new file")
    path = run / run_folder.CHECKPOINT if run.is_dir() else run
    generator, config, header = checkpoint.load_generator(path)
    if seed is not None:
        config = dataclasses.replace(config, seed=seed)
    samples = generate(generator, n, config, step=0, like=generator.flat_parameters())
    shape, low_high = header["data"]["image_shape"], header["data"]["value_range"]
    if out.suffix == ".npy":
        np.save(out, samples.numpy())
    elif shape is None:
        raise ValueError(f"{out}: samples of this run are no images; give a .npy file")
    else:
        figures.sample_grid(samples, tuple(shape), out, value_range=tuple(low_high))
    print(f"{n} samples written to {out}")
    return 0


@app.command()
def info() -> int:
    """Say what is installed: versions, what the kernels were built for, recipes and data sets."""
    from pygan import data, recipes

    for name, value in _surroundings().items():
        print(f"{name:<12} {value}")
    print("recipes")
    for name in recipes.names():
        print(f"  {name:<12} {recipes.get(name).about}")
    print(f"data sets    {', '.join(data.names())}")
    return 0


def _surroundings() -> dict:
    import torch

    import pygan

    return {
        "pygan": pygan.__version__,
        "python": platform.python_version(),
        "build": pygan.build_info(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        return app(arguments, prog_name="pygan", standalone_mode=False) or 0
    except (ValueError, TypeError) as error:
        return _fail(error, 2)
    except (OSError, ArithmeticError, ImportError, MemoryError, RuntimeError) as error:
        return _fail(error, 1)
    except Exception as error:
        # Misused options: the class depends on typer's version, the method does not.
        if not hasattr(error, "format_message"):
            raise
        if message := error.format_message():
            print(f"pygan: {message} (see pygan --help)", file=sys.stderr)
        return error.exit_code


def _fail(error: BaseException, code: int) -> int:
    print(f"pygan: {_sentence(error)}", file=sys.stderr)
    return code


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
