"""What `pygan bench` does: providers by turns on every workload, one table, files on request."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from pygan._files import check_place
from pygan._names import check_name, check_number, check_whole
from pygan.bench import measure, providers, report, workloads
from pygan.bench.measure import Row
from pygan.config import check_device

_SCALING_PROVIDERS = ("native", "composed", "eager")
_PLOTS = (".png", ".pdf", ".svg")


def run(
    names: Sequence[str],
    ways: Sequence[str],
    *,
    scaling: str | None,
    seconds: float,
    device: str,
    memory: bool,
    json: Path | None,
    plot: Path | None,
    precision: str = "fp32",
) -> int:
    """Time what was asked for and print the table.

    Args:
        names: of workloads; none: those of `workloads.DEFAULT`.
        ways: providers; none: all that can run here, on a scaling curve pygan's and eager.
        scaling: "batch", "width", "depth" or "threads", in place of named workloads.
        seconds: for each provider on each workload, about.
        device: where.
        memory: whether to measure memory too.
        json: a file for all figures.
        plot: a picture.
        precision: of `measure.PRECISIONS`.

    Raises:
        ValueError: an unknown name, or a number out of range.
        ArithmeticError: two providers do not compute the same.
    """
    seconds = check_number(seconds, "seconds", "above 0", lambda value: value > 0)
    where = check_device(device)
    check_name(precision, measure.PRECISIONS, "precision")
    if precision == "tf32" and where.type == "cpu":
        raise ValueError("precision must be fp32 or bf16 on the CPU, which has no TF32")
    if precision != "fp32" and memory:
        raise ValueError("memory is measured in fp32: leave out the precision")
    _check_paths(json, plot)
    if plot is not None and plot.suffix not in _PLOTS:
        raise ValueError(f"plot must be a {', '.join(_PLOTS[:-1])} or {_PLOTS[-1]} file, got {plot}")
    if scaling is not None and memory:
        raise ValueError("memory is measured of named workloads: leave out the scaling curve")
    if scaling is not None:
        check_name(scaling, ("batch", "width", "depth", "threads"), "scaling")
        if names:
            raise ValueError("scaling has workloads of its own: leave out the names of others")
    candidates = ways or (_SCALING_PROVIDERS if scaling else tuple(providers.PROVIDERS))
    chosen = _available(candidates, where, bool(ways), precision)
    names = [workloads.get(name).name for name in dict.fromkeys(names)] or workloads.DEFAULT
    machine = measure.machine(where)
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    rows = []
    if scaling == "threads":
        rows = _over_threads(chosen, where, seconds, precision)
    else:
        for workload in workloads.scaling(scaling) if scaling else map(workloads.get, names):
            rows += _measured(workload, chosen, where, seconds, precision)
    print(report.table(rows))
    used = {}
    if memory:
        for name in names:
            used[name] = {way: measure.memory(workloads.get(name), way, where) for way in chosen if way in _IN_MEMORY}
            print(f"{name:<14}memory  " + ", ".join(f"{way} {n / 2**20:.1f} MiB" for way, n in used[name].items()))
    if json is not None:
        report.write_json(rows, machine, used, json)
    if plot is not None:
        report.plot(rows, machine, plot)
    return 0


_IN_MEMORY = ("native", "composed", "eager")


def _check_paths(json: Path | None, plot: Path | None) -> None:
    for path in (json, plot):
        if path is None:
            continue
        check_place(path)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(f"cannot write {path}: its folder cannot be written to")
    if json is not None and plot is not None and json.absolute() == plot.absolute():
        raise ValueError(f"json and plot must be two files, got {json} for both")


def _available(ways: Sequence[str], device: torch.device, asked: bool, precision: str = "fp32") -> list[str]:
    chosen = []
    for way in dict.fromkeys(ways):
        check_name(way, providers.PROVIDERS, "provider")
        reason = providers.why_not(way, device, precision)
        if reason is None:
            chosen.append(way)
        elif asked:
            raise ValueError(f"provider {way} cannot run here: {reason}")
        else:
            print(f"without {way}: {reason}")
    return chosen


def _measured(
    workload: workloads.Workload, chosen: list[str], device: torch.device, seconds: float, precision: str
) -> list[Row]:
    print(f"{workload.name} ...", file=sys.stderr, flush=True)
    return measure.compare(workload, chosen, device, seconds=seconds, precision=precision)


def _over_threads(chosen: list[str], device: torch.device, seconds: float, precision: str) -> list[Row]:
    before, rows = torch.get_num_threads(), []
    try:
        for threads in range(1, check_whole(before, "threads") + 1):
            torch.set_num_threads(threads)
            for workload in (workloads.get("snippet"), workloads.get("stack")):
                found = _measured(workload, chosen, device, seconds, precision)
                rows += [Row(**{**vars(row), "workload": f"{row.workload} / {threads}"}) for row in found]
    finally:
        torch.set_num_threads(before)
    return rows
