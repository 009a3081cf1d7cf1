"""What `pygan figure` does: the paper's figures, each from a run or from a training of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pygan._files import together
from pygan._names import check_name, check_whole

from .canvas import check_path

NAMES = ("1", "2", "3", "loss", "modes")
_OF_A_RUN = ("2", "3")
_FILMED = ("1", "modes")
_SAMPLES = 72


def run(
    name: str,
    run: Path | None,
    *,
    out: Path | None = None,
    animation: Path | None = None,
    recipe: str | None = None,
    iterations: int | None = None,
    seed: int | None = None,
) -> list[Path]:
    """Draw a figure.

    Args:
        name: one of `NAMES`.
        run: the folder of a run, for those that show one.
        out: the picture; by default figure-<name>.png and .pdf.
        animation: a .gif of the whole training, for those that train.
        recipe: of the training that "modes" shows where no run is given, by default ring8, and of the generator that
            "loss" measures, by default digits.
        iterations: of the training that "1" or "modes" shows; by default as many as it needs.
        seed: of a training.

    Returns:
        The files that were written: all of them, or none if that fails or is interrupted.

    Raises:
        ValueError: an unknown name, or an option that the figure does not have.
        FileExistsError: a file that is there already.
        FileNotFoundError: no run there.
    """
    check_name(name, NAMES, "figure")
    _check_options(name, run, animation, recipe, iterations, seed)
    paths = [Path(f"figure-{name}.png"), Path(f"figure-{name}.pdf")] if out is None else [out]
    films = [] if animation is None else [animation]
    for path in paths:
        check_path(path)
    for path in films:
        check_path(path, (".gif",), "an animation")
    for path in (*paths, *films):
        if path.exists():
            raise FileExistsError(f"{path} exists; choose a new file")
    with together():
        if name == "1":
            return _game(paths, iterations, seed or 0, animation)
        if name == "loss":
            return _losses(paths, "digits" if recipe is None else recipe, seed or 0)
        if name == "modes":
            draw = _modes(run, "ring8" if recipe is None else recipe, iterations, seed or 0, animation)
        else:
            draw = _of_run(name, run)
        return [*films, *(draw(path) for path in paths)]


def _check_options(name: str, run, animation, recipe, iterations, seed) -> None:
    if name in _OF_A_RUN and run is None:
        raise ValueError(f"figure {name} shows a run: give its folder")
    takes_run = name in _OF_A_RUN or name == "modes"
    trains = name not in _OF_A_RUN and run is None
    for option, value, taken in (
        ("RUN", run, takes_run),
        ("--animation", animation, name in _FILMED and trains),
        ("--recipe", recipe, name in ("modes", "loss") and trains),
        ("--iterations", iterations, name in _FILMED and trains),
        ("--seed", seed, trains),
    ):
        if value is not None and not taken:
            raise ValueError(f"figure {name}{'' if run is None else ' of a run'} takes no {option}: leave it out")


def _game(paths: list[Path], iterations: int | None, seed: int, animation: Path | None) -> list[Path]:
    from pygan import figures

    options = {} if iterations is None else {"iterations": iterations}
    return figures.figure_1(*paths, animation=animation, seed=seed, **options)


def _losses(paths: list[Path], recipe: str, seed: int) -> list[Path]:
    from pygan import figures

    return figures.generator_losses(*paths, recipe=recipe, seed=seed)


def _of_run(name: str, run: Path) -> Callable[[Path], Path]:
    from pygan import checkpoint, figures, run_folder
    from pygan.trainer import generate

    run_folder.read_config(run)
    file = run / run_folder.best_file(run)
    generator, settings, header = checkpoint.load_generator(file)
    examples, about = run_folder.load_examples(run, header, file), header["data"]
    if about["image_shape"] is None:
        raise ValueError(f"figure {name} shows images, and {run} was trained on {about['name']}")
    shape, value_range = tuple(about["image_shape"]), tuple(about["value_range"])
    if name == "3":
        return lambda path: figures.interpolation_grid(
            generator, settings, path, image_shape=shape, value_range=value_range
        )
    samples = generate(generator, _SAMPLES, settings, step=0, like=next(generator.parameters()))
    return lambda path: figures.neighbour_grid(samples, examples, path, value_range=value_range)


def _modes(
    run: Path | None, recipe: str, iterations: int | None, seed: int, animation: Path | None
) -> Callable[[Path], Path]:
    from pygan import figures, recipes, run_folder

    if run is not None:
        trainer, _ = run_folder.resume(run, file=run_folder.best_file(run))
    else:
        chosen = recipes.get(recipe, seed=seed)
        trainer = chosen.build()
        iterations = chosen.iterations if iterations is None else check_whole(iterations, "iterations")
        if trainer.data.dimension != 2:
            raise ValueError(f"figure modes shows points in the plane, and {recipe} trains on {trainer.data.name}")
        if animation is None:
            trainer.run(iterations)
        else:
            figures.mode_film(trainer, animation, iterations=iterations)
    return lambda path: figures.mode_map(trainer, path)
