"""The curve of docs/reproduction.md: a recipe trained for long, its log-likelihood by the paper's protocol on the way.

    python benchmarks/reproduce.py runs/mnist-0 --update alternating --seed 0 --epochs 500

Each line of FOLDER/curve.jsonl is one look at the generator: 10,000 samples, sigma chosen on 1000 validation examples,
mean and standard error over the 10,000 test examples; and the same of the average of its weights over the last five
epochs or so, which the paper does not have. FOLDER/checkpoint.safetensors is the last state, average.safetensors the
same with the averaged generator, best.safetensors and best-average.safetensors those of the highest validation
log-likelihood; the same command continues a run that was stopped.
"""

import argparse
import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import pygan
from pygan import evaluation, recipes
from pygan.checkpoint import load_generator
from pygan.history import STATISTICS

_MEASURED = ("sigma", "validation", "log_likelihood", "standard_error")
_STEPS, _DECAY = 50, 0.98  # iterations between two looks at the weights, and what stays of the average at each


@contextlib.contextmanager
def averaged(generator: torch.nn.Module, average: AveragedModel) -> Iterator[None]:
    """Inside, the generator has the average's weights."""
    own = [p.detach().clone() for p in generator.parameters()]
    with torch.no_grad():
        torch._foreach_copy_(list(generator.parameters()), list(average.module.parameters()))
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(list(generator.parameters()), own)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", default="mnist_paper")
    parser.add_argument("--update", default="alternating", choices=("alternating", "simultaneous"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=500)
    parser.add_argument("--every", type=int, default=10, help="epochs between two looks")
    arguments = parser.parse_args()

    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    state, average_state, curve = (
        folder / "checkpoint.safetensors",
        folder / "average.safetensors",
        folder / "curve.jsonl",
    )
    recipe = recipes.get(arguments.recipe, update=arguments.update, seed=arguments.seed)
    data, validation, test = recipe.load_data(), recipe.load_validation(), recipe.load_test()
    trainer = pygan.Trainer.resume(state, data) if state.exists() else recipe.build(data)
    start = load_generator(average_state)[0] if average_state.exists() else trainer.generator
    average = AveragedModel(start, multi_avg_fn=get_ema_multi_avg_fn(_DECAY))
    average.n_averaged += 1  # it starts as the generator, not as its first look
    rows = [json.loads(line) for line in curve.read_text().splitlines()] if curve.exists() else []
    seconds = rows[-1]["seconds"] if rows else 0.0
    per_epoch = len(data) // trainer.config.batch_size

    def measure() -> dict:
        result = evaluation.evaluate(trainer, validation, test)
        result["validation"] = max(result["validation"])
        return {name: round(result[name], 4) for name in _MEASURED}

    def keep(path: Path, best: Path, validation: float, earlier: list[float]) -> None:
        trainer.save(path, overwrite=True)
        if not earlier or validation > max(earlier):
            shutil.copyfile(path, best)

    while trainer.iteration < arguments.epochs * per_epoch:
        begin = time.monotonic()
        histories = []
        for _ in range(max(1, arguments.every * per_epoch // _STEPS)):
            histories.append(trainer.run(_STEPS, rollback=False))
            average.update_parameters(trainer.generator)
        seconds += time.monotonic() - begin
        row = {"epoch": trainer.iteration // per_epoch, "seconds": round(seconds, 1)} | measure()
        for name in STATISTICS:
            row[name] = round(float(np.mean([getattr(history, name).mean() for history in histories])), 4)
        keep(state, folder / "best.safetensors", row["validation"], [r["validation"] for r in rows])
        with averaged(trainer.generator, average):
            row["averaged"] = measure()
            earlier = [r["averaged"]["validation"] for r in rows]
            keep(average_state, folder / "best-average.safetensors", row["averaged"]["validation"], earlier)
        print(row, flush=True)
        rows.append(row)
        with curve.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
