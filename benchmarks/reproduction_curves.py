"""The runs in docs/reproduction as the table of docs/reproduction.md, which tables.py fills in, and as its picture.

    python benchmarks/reproduction_curves.py   # draws docs/reproduction.png

A run is docs/reproduction/mnist-UPDATE-SEED.jsonl: the curve.jsonl that benchmarks/reproduce.py writes.
"""

import json

from table_text import ROOT, markdown

RUNS = ROOT / "docs" / "reproduction"
EPOCHS = (10, 20, 50, 100, 150, 200, 250, 300, 400, 500)


def runs() -> dict[str, list[dict]]:
    """The looks of each run by its name, UPDATE, seed SEED."""
    found = {}
    for path in sorted(RUNS.glob("mnist-*-*.jsonl")):
        _, update, seed = path.stem.split("-")
        found[f"{update}, seed {seed}"] = [json.loads(line) for line in path.read_text().splitlines()]
    return found


def curves() -> dict[str, dict[int, dict]]:
    """What was measured at each epoch: of each run's weights, and of their average where it was followed."""
    found = {}
    for name, rows in runs().items():
        found[name] = {row["epoch"]: row for row in rows}
        if averaged := {row["epoch"]: row["averaged"] for row in rows if "averaged" in row}:
            found[f"{name}, averaged"] = averaged
    return found


def table() -> str:
    """Some epochs of each run, and the last."""
    found = curves()
    last = {max(looks) for looks in found.values()}
    lines = []
    for epoch in sorted({*EPOCHS, *last}):
        cells = [_cell(looks.get(epoch)) for looks in found.values()]
        if any(cells):
            lines.append([str(epoch), *cells])
    return markdown(["epoch", *found], lines)


def _cell(look: dict | None) -> str:
    if look is None:
        return ""
    return f"{look['log_likelihood']:.1f} ± {look['standard_error']:.1f} (σ {look['sigma']:.3f})"


def draw() -> None:
    """The curves, and the paper's number."""
    from pygan.evaluation import PAPER  # here: the tables serve where pygan is not built
    from pygan.figures import canvas

    mean, error = PAPER["mnist"]["Adversarial nets"]
    colours = {name: canvas.COLOURS[key] for name, key in zip(runs(), ("model", "data", "ink"), strict=False)}
    with canvas.style():
        figure = canvas.new_figure(8, 4.2)
        axes = figure.subplots()
        axes.axhspan(mean - error, mean + error, color=canvas.COLOURS["faint"], alpha=0.4, lw=0)
        axes.text(2, mean + error + 1, "the paper: 225 ± 2", va="bottom", color=canvas.COLOURS["ink"])
        for name, looks in curves().items():
            averaged = name.endswith(", averaged")
            axes.plot(
                list(looks),
                [look["log_likelihood"] for look in looks.values()],
                color=colours[name.removesuffix(", averaged")],
                ls="--" if averaged else "-",
                label=name,
            )
        axes.set(xlabel="epoch", ylabel="log-likelihood of the test set, nats", xlim=(0, None), ylim=(0, 240))
        axes.set_title("mnist_paper, Parzen window of 10,000 samples")
        axes.legend(loc="lower right")
        figure.tight_layout()
        canvas.save(figure, ROOT / "docs" / "reproduction.png")


if __name__ == "__main__":
    draw()
