"""What tables share: where their figures lie, and how they are written."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def three_digits(value: float) -> str:
    """12345 as 12,345, 1.2345 as 1.23."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}" if value >= 1 else f"{value:.3f}"


def ops(results: dict) -> str:
    """Ours beside eager, op by op."""
    lines = [
        [op["name"], three_digits(op["ours"] * 1e6), three_digits(op["eager"] * 1e6), f"{op['ratio']:.2f}"]
        for op in results["ops"]
    ]
    return markdown(["op", "pygan µs", "eager µs", "ratio"], lines)
