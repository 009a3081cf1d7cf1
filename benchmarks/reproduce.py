"""The curve of docs/reproduction.md: a recipe trained for long, its log-likelihood by the paper's protocol on the way.

    python benchmarks/reproduce.py runs/mnist-0 --update alternating --seed 0 --epochs 500

Each line of FOLDER/curve.jsonl is one look at the generator: 10,000 samples, sigma chosen on 1000 validation examples,
mean and standard error over the 10,000 test examples; and the same of the average of its weights, where the recipe
keeps one, which the paper does not have. FOLDER/checkpoint.safetensors is the last state, best.safetensors that of the
highest validation log-likelihood, the average's where there is one; the same command continues a run that was stopped.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

import numpy as np

import pygan
from pygan import evaluation, recipes
from pygan.history import STATISTICS

_MEASURED = ("sigma", "log_likelihood", "standard_error")


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
    state, best, curve = folder / "checkpoint.safetensors", folder / "best.safetensors", folder / "curve.jsonl"
    recipe = recipes.get(arguments.recipe, update=arguments.update, seed=arguments.seed)
    data, validation, test = recipe.load_data(), recipe.load_validation(), recipe.load_test()
    trainer = pygan.Trainer.resume(state, data) if state.exists() else recipe.build(data)
    rows = [json.loads(line) for line in curve.read_text().splitlines()] if curve.exists() else []
    seconds = rows[-1]["seconds"] if rows else 0.0
    per_epoch = len(data) // trainer.config.batch_size

    while trainer.iteration < arguments.epochs * per_epoch:
        begin = time.monotonic()
        history = trainer.run(arguments.every * per_epoch, rollback=False)
        seconds += time.monotonic() - begin
        result = evaluation.evaluate(trainer, validation, test)
        sampled = {name: round(result[name], 4) for name in _MEASURED}
        sampled["validation"] = round(max(result["validation"]), 4)
        row = {"epoch": trainer.iteration // per_epoch, "seconds": round(seconds, 1)}
        row |= {name: round(float(np.mean(getattr(history, name))), 4) for name in STATISTICS}
        if "not_averaged" in result:
            row |= {name: round(value, 4) for name, value in (result["not_averaged"] or {}).items()}
            row["averaged"] = sampled
        else:  # a recipe without an average
            row |= sampled
        trainer.save(state, overwrite=True)
        if all(sampled["validation"] > earlier.get("averaged", earlier)["validation"] for earlier in rows):
            shutil.copyfile(state, best)
        print(row, flush=True)
        rows.append(row)
        with curve.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
