"""Rows of a benchmark as a table, as JSON, and as a picture."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from pygan._files import replacing
from pygan.bench.measure import Row, base


def table(rows: Sequence[Row]) -> str:
    """A line for each row: time, ratio to `measure.base`, rate, shares of the machine's."""
    compared = f"{base([row.provider for row in rows])} is"
    rates = f"{'GFLOP/s':>9}{'of peak':>9}{'bandwidth':>11}"
    lines = [f"{'workload':<14}{'provider':<17}{'ms/iteration':>13}{compared:>13}{rates}"]
    previous = None
    for row in rows:
        lines.append(
            f"{row.workload if row.workload != previous else '':<14}{row.provider:<17}{row.seconds * 1e3:>13.3f}"
            f"{row.ratio:>12.2f}x{row.gflops:>9.1f}{row.share:>9.0%}{row.traffic:>11.0%}"
        )
        previous = row.workload
    return "\n".join(lines)


def write_json(rows: Sequence[Row], machine: dict, memory: dict, path: Path) -> None:
    """All of it; the file appears whole or not at all."""
    content = {
        "machine": machine,
        "rows": [dataclasses.asdict(row) | {"gflops": row.gflops} for row in rows],
        "memory": memory,
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def plot(rows: Sequence[Row], machine: dict, path: Path) -> None:
    """Times as bars over `measure.base`'s, and that one under the machine's roofline."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    bars, roof = figure.subplots(1, 2)
    workloads = list(dict.fromkeys(row.workload for row in rows))
    providers = list(dict.fromkeys(row.provider for row in rows))
    width = 0.8 / len(providers)
    colors = matplotlib.colormaps["tab10"].colors
    for i, provider in enumerate(providers):
        mine = {row.workload: row.ratio for row in rows if row.provider == provider}
        places = [workloads.index(name) + (i - (len(providers) - 1) / 2) * width for name in mine]
        bars.bar(places, mine.values(), width, label=provider, color=colors[i % len(colors)])
    bars.set_yscale("log")
    bars.set_xticks(range(len(workloads)), workloads, rotation=20, ha="right")
    compared = base(providers)
    bars.set_ylabel(f"time of an iteration over that of {compared}")
    bars.axhline(1, color="black", linewidth=0.8)
    bars.legend(frameon=False, fontsize=8)
    native = [row for row in rows if row.provider == compared]
    peak = max(row.gflops / row.share for row in native)
    bandwidth = max(row.bytes / row.seconds / row.traffic for row in native) / 1e9
    low, high = (f(row.flops / row.bytes for row in native) for f in (min, max))
    intensities = [low / 4, peak / bandwidth, max(high * 4, 2 * peak / bandwidth)]
    roof.plot(intensities, [min(peak, bandwidth * x) for x in intensities], color="black", linewidth=1)
    for row in native:
        roof.plot(row.flops / row.bytes, row.gflops, "o", color=colors[0])
        roof.annotate(
            row.workload, (row.flops / row.bytes, row.gflops), xytext=(5, -9), textcoords="offset points", fontsize=8
        )
    roof.set_xscale("log")
    roof.set_yscale("log")
    roof.set_xlabel("FLOP a byte that must be moved")
    roof.set_ylabel("GFLOP/s")
    roof.set_title(f"{compared} under the machine's own rates", fontsize=10)
    figure.suptitle(f"{machine['machine']}, {machine['threads']} threads, torch {machine['torch']}", fontsize=9)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix[1:])
