"""The curve of docs/reproduction.md: a recipe trained for long, its log-likelihood by the paper's protocol on the way.

    python benchmarks/reproduce.py runs/mnist-0 --update simultaneous --seed 0 --epochs 500

Each line of FOLDER/curve.jsonl is one look at the generator: 10,000 samples, sigma chosen on 1000 validation examples,
mean and standard error over the 10,000 test examples. FOLDER/checkpoint.safetensors is the last state, best.safetensors
that of the highest validation log-likelihood; the same command continues a run that was stopped.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

import pygan
from pygan import evaluation, recipes
from pygan.history import STATISTICS

_MEASURED = ("sigma", "validation", "log_likelihood", "standard_error")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", default="mnist_paper")
    parser.add_argument("--update", default="simultaneous", choices=("alternating", "simultaneous"))
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
        start = time.monotonic()
        history = trainer.run(arguments.every * per_epoch)
        seconds += time.monotonic() - start
        row = {"epoch": trainer.iteration // per_epoch, "seconds": round(seconds, 1)}
        result = evaluation.evaluate(trainer, validation, test)
        result["validation"] = max(result["validation"])
        row |= {name: round(result[name], 4) for name in _MEASURED}
        row |= {name: round(float(getattr(history, name).mean()), 4) for name in STATISTICS}
        print(row, flush=True)
        rows.append(row)
        trainer.save(state, overwrite=True)
        if row["validation"] == max(r["validation"] for r in rows):
            shutil.copyfile(state, best)
        with curve.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
