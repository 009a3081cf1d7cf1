"""The runs in docs/reproduction as the tables of docs/reproduction.md, which tables.py fills in, and as its picture.

    python benchmarks/reproduction_curves.py   # draws docs/reproduction.png

A run is docs/reproduction/mnist-UPDATE-SEED[-WHICH].jsonl: the curve.jsonl that benchmarks/reproduce.py writes. Where
several averages were followed they are under "windows", by the epochs that each is over.
"""

import json

from table_text import ROOT, markdown

RUNS = ROOT / "docs" / "reproduction"
EPOCHS = (10, 20, 30, 40, 50, 60, 80, 100, 150, 200, 250, 300, 400, 500)
WINDOW = "100"  # epochs that the recipe's average is over


def runs() -> dict[str, list[dict]]:
    """The looks of each run by its name, UPDATE, seed SEED[, WHICH]."""
    found = {}
    for path in sorted(RUNS.glob("mnist-*-*.jsonl")):
        _, update, seed, *which = path.stem.split("-")
        name = ", ".join([update, f"seed {seed}", *which])
        found[name] = [json.loads(line) for line in path.read_text().splitlines()]
    return found


def curves() -> dict[str, dict[int, dict]]:
    """What was measured at each epoch: of each run's weights, and of their average where it was followed."""
    found = {}
    for name, rows in runs().items():
        found[name] = {row["epoch"]: row for row in rows}
        averages = {row["epoch"]: row.get("averaged") or row.get("windows", {}).get(WINDOW) for row in rows}
        if averaged := {epoch: look for epoch, look in averages.items() if look}:
            found[f"{name}, averaged"] = averaged
    return found


def windows() -> str:
    """The averages of the runs of which several were followed, by the epochs that they are over."""
    lines, over = [], ["5", "25", "50", "100"]
    for name, rows in runs().items():
        for row in rows:
            if row["epoch"] in EPOCHS and len(row.get("windows", {})) > 1:
                looks = [row, *(row["windows"].get(window) for window in over)]
                lines.append([name, str(row["epoch"]), *map(_cell, looks)])
    return markdown(["run", "epoch", "as it is", *(f"over {window}" for window in over)], lines)


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
    return f"{look['log_likelihood']:.1f}" + (f" ± {look['standard_error']:.1f}" if "standard_error" in look else "")


def draw() -> None:
    """The curves, and the paper's number."""
    from pygan.evaluation import PAPER  # here: the tables serve where pygan is not built
    from pygan.figures import canvas

    mean, error = PAPER["mnist"]["Adversarial nets"]
    # Okabe and Ito's, in the order in which they are told apart best
    palette = (*(canvas.COLOURS[key] for key in ("model", "data", "ink")), "#009E73", "#CC79A7", "#56B4E9")
    colours = dict(zip(runs(), palette, strict=False))
    with canvas.style():
        figure = canvas.new_figure(8, 4.2)
        axes = figure.subplots()
        axes.axhspan(mean - error, mean + error, color=canvas.COLOURS["faint"], alpha=0.4, lw=0)
        axes.annotate(
            f"the paper: {mean:g} ± {error:g}",
            (1, mean + error),
            (0, 2),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            ha="right",
            color=canvas.COLOURS["ink"],
        )
        for name, looks in curves().items():
            averaged = name.endswith(", averaged")
            axes.plot(
                list(looks),
                [look["log_likelihood"] for look in looks.values()],
                color=colours[name.removesuffix(", averaged")],
                ls="--" if averaged else "-",
                label=name,
            )
        axes.set(xlabel="epoch", ylabel="log-likelihood of the test set, nats", xlim=(0, None), ylim=(0, 250))
        axes.set_title("mnist_paper, Parzen window of 10,000 samples")
        axes.legend(loc="lower right")
        figure.tight_layout()
        canvas.save(figure, ROOT / "docs" / "reproduction.png")


if __name__ == "__main__":
    draw()
