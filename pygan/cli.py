"""The command `pygan`: train a recipe, sample and measure what came of it, time the ops, say what is installed.

Whatever goes wrong is said in one sentence. Exit codes: 0 done, 1 something failed, 2 what was asked for
cannot be, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import contextlib
import functools
import platform
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

_INTERRUPTED, _TERMINATED = 130, 143  # as shells have it: 128 and the number of the signal

app = typer.Typer(
    name="pygan",
    help="Generative adversarial nets with fused kernels (Goodfellow et al. 2014).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        import pygan

        print(f"pygan {pygan.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version and exit.")
    ] = False,
) -> None:
    pass


def _path(text: str) -> Path:
    if not text:
        raise typer.BadParameter("expected a path, got ''")
    return Path(text)


@app.command()
def train(
    recipe: Annotated[str | None, typer.Option(help="What to train; `pygan info` lists them; default: digits.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Another data set: a name, an idx or .npy file, or TFD's .mat file.")
    ] = None,
    stage1: Annotated[
        Path | None,
        typer.Option(
            parser=_path,
            metavar="RUN",
            help="For a second stage: the run or checkpoint whose generator it starts from.",
        ),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(help="Iterations of Algorithm 1; default: the recipe's. With --resume, how many more."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of all randomness; the same seed gives the same bits.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=_path, metavar="PATH", help="A new folder for the run; default: runs/<recipe>-<n>."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            parser=_path, metavar="RUN", help="Go on with the run in this folder: same data, recipe and settings."
        ),
    ] = None,
    engine: Annotated[str | None, typer.Option(help="auto, native or composed.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; default: cpu.")] = None,
    update: Annotated[str | None, typer.Option(help="alternating or simultaneous.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples in a step.")] = None,
    k: Annotated[int | None, typer.Option(help="Discriminator steps in an iteration.")] = None,
    generator_loss: Annotated[str | None, typer.Option(help="non_saturating or minimax.")] = None,
    ema_decay: Annotated[
        float | None,
        typer.Option(help="Average the generator's weights over the iterations, and sample from that; as 0.9999."),
    ] = None,
) -> int:
    """Train a recipe, and write samples, curves, metrics and a checkpoint. Ctrl-C ends it cleanly."""
    settings = {
        "seed": seed,
        "update": update,
        "batch_size": batch_size,
        "k": k,
        "generator_loss": generator_loss,
        "ema_decay": ema_decay,
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    if resume is None:
        settings |= {name: v for name, v in (("iterations", iterations), ("engine", engine)) if v is not None}
        return _begin("digits" if recipe is None else recipe, settings, data, stage1, out, device)
    options = {"recipe": recipe, "data": data, "stage1": stage1, "out": out}
    given = [name for name, value in options.items() if value is not None]
    for name in (*given, *settings):
        raise ValueError(f"--resume goes on with the run's own settings: leave out --{name.replace('_', '-')}")
    return _continue(resume, iterations, engine, device)


def _begin(
    recipe: str, settings: dict, data: str | None, stage1: Path | None, out: Path | None, device: str | None
) -> int:
    from pygan import recipes, run_folder

    chosen = recipes.get(recipe, **settings)
    run_folder.check_vacant(out)
    trainer = chosen.build(data, stage1=stage1, device=device)
    config = {
        "recipe": chosen.to_dict(),
        "data": run_folder.data_source(chosen.data if data is None else data),
        "stage1": None if stage1 is None else str(stage1.absolute()),
        **_surroundings(),
        "device": str(trainer.device),
    }
    validation = run_folder.load_validation(config)
    folder = run_folder.RunFolder.create(out, config, chosen.iterations, validation=validation)
    return _train(trainer, folder, chosen.iterations)


def _continue(run: Path, iterations: int | None, engine: str | None, device: str | None) -> int:
    from pygan import run_folder
    from pygan._names import check_whole

    trainer, config = run_folder.resume(run, engine=engine, device=device)
    done = trainer.iteration
    more = config["recipe"]["iterations"] - done if iterations is None else check_whole(iterations, "iterations")
    if more < 1:
        raise ValueError(f"{run} is done, with {done} iterations: say how many more with --iterations")
    config["recipe"]["iterations"] = done + more
    config |= {**_surroundings(), "device": str(trainer.device)}
    validation = run_folder.load_validation(config)
    return _train(trainer, run_folder.RunFolder(run, config, done + more, first=done, validation=validation), more)


def _train(trainer, folder, iterations: int) -> int:
    """Run, show, write down; whatever ends the run, the folder is completed, and signals wait for that."""
    from pygan.running import Terminated, interrupts_deferred

    console = Console()
    console.print(f"{trainer.data!r} -> {folder.path}", soft_wrap=True, highlight=False, markup=False)
    failed = {}
    try:
        with interrupts_deferred() as interrupted:
            code, ending = _run(trainer, folder, iterations, console, interrupted)
            written, failed = folder.finish(trainer)
            names = ", ".join(written)
            console.print(f"{ending}written to {folder.path}: {names}", soft_wrap=True, highlight=False, markup=False)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except Terminated:
        code = _TERMINATED
    if failed:
        reasons = ", ".join(f"{name} ({_sentence(error)})" for name, error in failed.items())
        print(f"pygan: not written: {reasons}", file=sys.stderr)
    return code or int(not failed.keys().isdisjoint(("checkpoint.safetensors", "metrics.jsonl")))


def _run(trainer, folder, iterations: int, console: Console, interrupted) -> tuple[int, str]:
    """The exit code, and the words on how it ended."""
    from pygan.history import DivergenceError
    from pygan.progress import Progress

    first = trainer.iteration
    with Progress(first + iterations, console, first) as progress:

        def report(trainer, news):
            progress(trainer.iteration, news, folder.likelihood_in_words())
            folder.add(trainer, news)

        try:
            if not interrupted():
                trainer.run(iterations, report)
        except DivergenceError as error:
            return 1, f"{_sentence(error)}; "
        except OSError as error:  # from writing, between two iterations: what can be written still is
            return 1, f"{_sentence(error)}; "
        except BaseException:
            if trainer.iteration == 0:
                folder.discard()
            raise
    return 0, f"interrupted after {trainer.iteration} iterations; " if interrupted() else ""


@app.command()
def sample(
    run: Annotated[Path, typer.Argument(help="The folder of a run, or a checkpoint.")],
    n: Annotated[int, typer.Option(help="How many samples.")] = 100,
    out: Annotated[
        Path, typer.Option(parser=_path, metavar="PATH", help="A new .png, .pdf or .svg picture, or a .npy array.")
    ] = Path("samples.png"),
    seed: Annotated[int | None, typer.Option(help="Of the noise; default: the run's.")] = None,
) -> int:
    """Draw samples from a trained generator."""
    import dataclasses

    import numpy as np

    from pygan import checkpoint, figures, run_folder
    from pygan._files import replacing
    from pygan.trainer import generate

    if out.exists():
        raise FileExistsError(f"{out} exists; choose a new file")
    path = run_folder.checkpoint_of(run)
    generator, config, header = checkpoint.load_generator(path)
    if seed is not None:
        config = dataclasses.replace(config, seed=seed)
    samples = generate(generator, n, config, step=0, like=next(generator.parameters()))
    about = header["data"]
    if out.suffix == ".npy":
        with replacing(out) as temporary, temporary.open("wb") as file:
            np.save(file, samples.numpy())
    elif about["image_shape"] is not None:
        figures.sample_grid(samples, tuple(about["image_shape"]), out, value_range=tuple(about["value_range"]))
    elif about["columns"] == 2:
        examples = run_folder.load_examples(path.parent, header, path)
        figures.scatter_2d(samples, examples, out)
    else:
        raise ValueError(f"{out}: samples of this run are no images, nor points in the plane; give a .npy file")
    print(f"{n} samples written to {out}")
    return 0


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    samples: Annotated[int, typer.Option(help="Of the generator, for the Parzen window.")] = 10_000,
    sigma: Annotated[
        list[float] | None,
        typer.Option(help="A width of the window to try; repeatable; default: ten from 0.1 to 1, as the authors."),
    ] = None,
    last: Annotated[
        bool, typer.Option("--last", help="Where the run ended, not where its log-likelihood was highest.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; default: the run's.")] = None,
) -> int:
    """Measure a trained generator as the paper does: log-likelihood of the test set under a Parzen window."""
    from pygan import evaluation, parzen, run_folder
    from pygan._files import check_place
    from pygan.recipe import Recipe

    file = run_folder.CHECKPOINT if last else run_folder.best_file(run)
    result_path = run / evaluation.RESULT
    trainer, config = run_folder.resume(run, device=device, engine="auto", file=file)
    check_place(result_path)
    recipe = Recipe.from_dict(config["recipe"])
    sets = recipe.load_validation(config["data"]), recipe.load_test(config["data"])
    result = evaluation.evaluate(trainer, *sets, samples=samples, sigmas=sigma or parzen.SIGMAS)
    print(evaluation.describe(result, config["data"]))
    evaluation.write({"checkpoint": file, **result}, result_path)
    print(f"written to {result_path}")
    return 0


@app.command()
def figure(
    name: Annotated[str, typer.Argument(help="Which: 1, 2, 3, loss or modes.", metavar="NAME")],
    run: Annotated[
        Path | None, typer.Argument(help="The folder of a run: for 2 and 3, and for modes in place of a training.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=_path, metavar="PATH", help="A new .png, .pdf or .svg; default: figure-NAME.png and .pdf."),
    ] = None,
    animation: Annotated[
        Path | None, typer.Option(parser=_path, metavar="PATH", help="1 and modes: a new .gif of the whole training.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="modes: what to train, default ring8. loss: whose generator, default digits.")
    ] = None,
    iterations: Annotated[int | None, typer.Option(help="1 and modes: how long to train.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the training that 1, loss and modes show.")] = None,
) -> int:
    """Draw a figure of the paper.

    1: the game on the line. 2: samples beside their nearest training examples. 3: samples between two z. loss: the two
    losses of a generator, and their gradients. modes: a mixture in the plane.
    """
    from pygan.figures import command

    options = {"out": out, "animation": animation, "recipe": recipe, "iterations": iterations, "seed": seed}
    written = command.run(name, run, **options)
    print(f"written: {', '.join(map(str, written))}")
    return 0


@app.command()
def bench(
    workload: Annotated[
        list[str] | None,
        typer.Option(help="ring, ring_wide, snippet, stack, mnist_relu, mnist_paper, cifar_paper, wide; repeatable."),
    ] = None,
    provider: Annotated[
        list[str] | None,
        typer.Option(
            help="native, composed, eager, compile, jax, 'jax scan', and on CUDA 'eager graph', reduce-overhead; "
            "repeatable; default: all that can run here."
        ),
    ] = None,
    scaling: Annotated[
        str | None, typer.Option(help="A curve in place of workloads: batch, width, depth or threads.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="For each provider on each workload, about.")] = 3.0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    precision: Annotated[str, typer.Option(help="Of networks and data: fp32, bf16, and on CUDA tf32.")] = "fp32",
    memory: Annotated[bool, typer.Option("--memory", help="Measure memory too, each in a process of its own.")] = False,
    json: Annotated[Path | None, typer.Option(parser=_path, metavar="PATH", help="All figures in a file.")] = None,
    plot: Annotated[
        Path | None, typer.Option(parser=_path, metavar="PATH", help="A picture: bars, and the roofline.")
    ] = None,
) -> int:
    """Time whole iterations side by side with eager and compiled PyTorch and JAX, after checking that all agree."""
    from pygan.bench import command

    return command.run(
        workload or (),
        provider or (),
        scaling=scaling,
        seconds=seconds,
        device=device,
        memory=memory,
        json=json,
        plot=plot,
        precision=precision,
    )


@app.command()
def info() -> int:
    """Say what is installed: versions, what the kernels were built for, recipes and data sets."""
    from pygan import data, recipes

    for name, value in _surroundings().items():
        print(f"{name:<12} {value}")
    print("recipes")
    for name in recipes.names():
        print(f"  {name:<16} {recipes.get(name).about}")
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
    from pygan.running import Terminated, termination_raises

    try:
        with termination_raises(), _warnings_as_sentences():
            return app(arguments, prog_name="pygan", standalone_mode=False) or 0
    except Terminated:
        return _TERMINATED
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
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


@contextlib.contextmanager
def _warnings_as_sentences():
    """Inside, a warning is a line on standard error, without the code that it comes from, and each is said once.

    Python's own record of what was said is void whenever someone ignores warnings for a while, as runs do.
    """

    @functools.cache
    def say(sentence: str) -> None:
        print(f"pygan: {sentence}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: say(" ".join(str(message).split()))
        yield


def _fail(error: BaseException, code: int) -> int:
    print(f"pygan: {_sentence(error)}", file=sys.stderr)
    return code


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
