"""Fill the tables of README.md and docs/ from the files in benchmarks/results.

    python benchmarks/tables.py            # writes them
    python benchmarks/tables.py --check    # says which of them are not what the files say
    python benchmarks/tables.py --keep raw.json benchmarks/results/CARD-ops.json
                                           # of `pytest benchmarks --benchmark-json raw.json`, what the tables need

A table stands between `<!-- table KIND FILE -->` and `<!-- end of table -->`. What is between `<!-- gpu KIND -->` and
`<!-- end of gpu -->` is made of all benchmarks/results/CARD/results.json, which benchmarks/gpu_check.py writes; what is
between `<!-- curves -->` and `<!-- end of curves -->`, and likewise `windows`, of docs/reproduction/*.jsonl.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import reproduction_curves
from gpu_tables import on_gpus
from table_text import RESULTS, ROOT, markdown, ops, three_digits

PAGES = (ROOT / "README.md", ROOT / "docs" / "performance.md", ROOT / "docs" / "reproduction.md")
TABLE = re.compile(r"(<!-- table (\S+) (\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
CURVES = re.compile(r"(<!-- (curves|windows) -->\n).*?(<!-- end of \2 -->)", re.DOTALL)
ON_GPUS = re.compile(r"(<!-- gpu (\S+) -->\n).*?(<!-- end of gpu -->)", re.DOTALL)

SHAPES = {
    "ring": "2-32-32-2 / 2-32-32-1, m = 64",
    "ring_wide": "2-128-128-2 / 2-128-128-1, m = 256",
    "snippet": "100-128-784 / 784-128-1, m = 64",
    "stack": "100-128-256-512-1024-784 / 784-512-256-1, m = 64",
    "mnist_relu": "100-1200-1200-784 / 784-240-240-1, m = 100",
    "mnist_paper": "100-1200-1200-784 / maxout 240×5 twice, m = 100",
}
JAX = ("jax", "jax scan")
SOME_OPS = (
    "snippet linear_act 64x784->128 relu forward",
    "snippet linear_act 64x784->128 relu forward+backward",
    "mnist_paper linear_act 100x1200->1200 relu forward+backward",
    "snippet linear_act 64x128->1 identity forward",
    "mnist_paper dropout+maxout 100x784->240x5 forward+backward",
    "head_loss snippet 128x128 forward+backward",
    "discriminator_loss m=64 forward+backward",
    "snippet G adam_ 114064 parameters",
    "mnist_paper G momentum_ 2504184 parameters",
)


def by_workload(results: dict) -> dict[str, dict[str, dict]]:
    """The rows of a file, by workload and provider."""
    rows = {}
    for row in results["rows"]:
        rows.setdefault(row["workload"], {})[row["provider"]] = row
    return rows


def summary(results: dict) -> str:
    """Native beside eager and the better of JAX's two forms."""
    lines = []
    for name, rows in by_workload(results).items():
        jax = min((rows[provider] for provider in JAX if provider in rows), key=lambda row: row["ratio"])
        cells = [f"{three_digits(row['seconds'] * 1e3)} ({row['ratio']:.1f}×)" for row in (rows["eager"], jax)]
        lines.append([f"`{name}` {SHAPES[name]}", three_digits(rows["native"]["seconds"] * 1e3), *cells])
    return markdown(
        ["workload", "native", "eager, fused optimizers", "JAX, the faster of a jitted step and a scan of many"], lines
    )


def whole(results: dict) -> str:
    """Every provider of every workload."""
    lines = []
    for name, rows in by_workload(results).items():
        for i, (provider, row) in enumerate(rows.items()):
            times = [three_digits(row["seconds"] * 1e3), f"{row['ratio']:.2f}×", f"{row['gflops']:.1f}"]
            lines.append(["" if i else f"`{name}`", provider, *times, f"{row['share']:.0%}", f"{row['traffic']:.0%}"])
    return markdown(["workload", "provider", "ms an iteration", "native is", "GFLOP/s", "of peak", "bandwidth"], lines)


def curve(results: dict) -> str:
    """Along one axis: native, and how many times as long the others take."""
    workloads = by_workload(results)
    peers = [p for p in ("eager", *JAX) if all(p in rows for rows in workloads.values())]
    lines = []
    for name, rows in workloads.items():
        axis, _, value = name.partition(" ")  # "batch 16", "snippet / 2"
        threads = value.startswith("/")
        first = f"{axis}, {value[2:]} thread{'s' * (value != '/ 1')}" if threads else f"{int(value):,}"
        ratios = [f"{rows[peer]['ratio']:.2f}×" for peer in peers]
        native = rows["native"]
        lines.append([first, three_digits(native["seconds"] * 1e3), *ratios, f"{native['share']:.0%}"])
    names = {"eager": "eager", "jax": "JAX, jitted", "jax scan": "JAX, scan"}
    return markdown(["workload" if threads else axis, "native", *(names[peer] for peer in peers), "of peak"], lines)


def some_ops(results: dict) -> str:
    """One of each family."""
    wanted = [op for op in results["ops"] if op["name"] in SOME_OPS]
    return ops({"ops": sorted(wanted, key=lambda op: SOME_OPS.index(op["name"]))})


KINDS = {"summary": summary, "whole": whole, "curve": curve, "ops": ops, "some_ops": some_ops}


def filled(text: str) -> str:
    """A page with its tables as the files say."""

    def table(match: re.Match) -> str:
        begin, kind, file, end = match.groups()
        return begin + KINDS[kind](json.loads((RESULTS / file).read_text())) + end

    curves = {"curves": reproduction_curves.table, "windows": reproduction_curves.windows}
    text = CURVES.sub(lambda match: match.group(1) + curves[match.group(2)]() + match.group(3), TABLE.sub(table, text))
    return ON_GPUS.sub(lambda match: match.group(1) + on_gpus(match.group(2)) + match.group(3), text)


def measured_ops(raw: dict) -> list[dict]:
    """Of what pytest-benchmark writes, ops beside eager."""
    measured = [benchmark["extra_info"] for benchmark in raw["benchmarks"]]
    return [
        {"name": m["name"], "ours": m["ours"], "eager": m["baseline"], "ratio": m["ratio"]}
        for m in measured
        if "baseline" in m
    ]


def keep(raw: Path, path: Path) -> None:
    """Of pytest-benchmark's file, what the tables need."""
    content = json.loads(raw.read_text())
    rows, measured = measured_ops(content), content["benchmarks"][0]["extra_info"]
    machine = {key: measured[key] for key in ("torch", "threads")}
    path.write_text(json.dumps({"machine": machine, "ops": rows}, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a table is not its file's")
    parser.add_argument("--keep", nargs=2, type=Path, metavar=("RAW", "FILE"), help="shorten pytest-benchmark's file")
    arguments = parser.parse_args()
    if arguments.keep:
        keep(*arguments.keep)
        return 0
    wrong = 0
    for page in PAGES:
        text = page.read_text()
        if filled(text) == text:
            continue
        if arguments.check:
            print(f"{page.relative_to(ROOT)}: its tables are not those of the files: run benchmarks/tables.py")
            wrong = 1
        else:
            page.write_text(filled(text))
    return wrong


if __name__ == "__main__":
    sys.exit(main())
