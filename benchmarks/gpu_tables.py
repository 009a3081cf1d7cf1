"""Tables of what has been measured on GPUs: of the files that benchmarks/gpu_check.py writes."""

import json

from table_text import RESULTS, markdown, ops, three_digits

# What an H200 is to do: workload and precision, the most seconds an iteration or the least share of the card's own rate
# of products, and how often at least it runs one while eager does.
TARGETS = (
    ("snippet", "fp32", 30e-6, None, 15),
    ("mnist_paper", "tf32", 80e-6, None, 8),
    ("wide", "bf16", None, 0.75, 1.3),
)
GRAPHS = ("reduce-overhead", "eager graph")
PEERS = {
    "eager": "eager",
    "compile": "torch.compile",
    "reduce-overhead": "torch.compile, reduce-overhead",
    "eager graph": "eager in a CUDA graph",
}
NAMES = {"fp32": "fp32", "tf32": "TF32", "bf16": "bf16", "fp16": "fp16"}
NOT_MEASURED = "There is no row for a GPU: not measured.\n"


def gpu_results() -> list[dict]:
    """What has been measured on GPUs, a card each."""
    found = []
    for path in sorted(RESULTS.glob("*/results.json")):
        results = json.loads(path.read_text())
        if results["device"] != "cuda" or results["dry_run"]:
            raise SystemExit(f"{path} is of a dry run, not of a GPU: it cannot stay there")
        found.append(results | {"folder": path.parent.name})
    return found


def _units(results: dict, part: str) -> dict[str, dict]:
    """What the units of a part found, where they found something."""
    units = results["parts"].get(part, {})
    return {name: unit["result"] for name, unit in units.items() if unit.get("result")}


def _iterations(results: dict) -> dict[tuple[str, str], dict]:
    """Rows by provider, and that of the engine which runs where nobody chooses, by workload and precision."""
    found = {}
    for name, unit in _units(results, "iterations").items():
        workload, _, precision = name.partition(" ")
        rows = {row["provider"]: row for row in unit["rows"]}
        found[workload, precision] = {"rows": rows, "ours": rows.get(unit["auto"])}
    return found


def _microseconds(row: dict | None) -> str:
    return three_digits(row["seconds"] * 1e6) if row else "not measured"


def _times_ours(measured: dict, peer: str) -> float | None:
    """How often pygan runs an iteration while the peer runs one."""
    ours, row = measured["ours"], measured["rows"].get(peer)
    return row["ratio"] / ours["ratio"] if ours and row else None


def summary(results: dict) -> str:
    """Pygan beside its peers: microseconds, and how often it runs an iteration while they run one."""
    lines = []
    for (name, precision), measured in _iterations(results).items():
        cells = []
        for peer in PEERS:
            ratio = _times_ours(measured, peer)
            cells.append("–" if ratio is None else f"{_microseconds(measured['rows'][peer])} ({ratio:.1f}×)")
        lines.append([f"`{name}`", NAMES[precision], _microseconds(measured["ours"]), *cells])
    return markdown(["workload", "precision", "pygan, µs an iteration", *PEERS.values()], lines)


def targets(results: dict) -> str:
    """What was asked for, what was measured, whether that is enough."""
    lines, found = [], _iterations(results)
    nothing = {"rows": {}, "ours": None}

    def line(asked: str, measured: str | None, met: bool | None) -> None:
        said = "–" if met is None else "yes" if met else "no"
        lines.append([asked, "not measured" if measured is None else measured, said])

    def ratio(workload: str, precision: str, peer: str, least: float) -> None:
        value = _times_ours(found.get((workload, precision), nothing), peer)
        asked = f"`{workload}` in {NAMES[precision]}, against {PEERS[peer]} ≥ {least:g}×"
        line(asked, None if value is None else f"{value:.2f}×", None if value is None else value >= least)

    for workload, precision, most, share, against_eager in TARGETS:
        ours, name = found.get((workload, precision), nothing)["ours"], f"`{workload}` in {NAMES[precision]}"
        if most is not None:
            asked, value = f"{name} ≤ {most * 1e6:g} µs", f"{_microseconds(ours)} µs" if ours else None
            line(asked, value, ours["seconds"] <= most if ours else None)
        else:
            asked = f"{name} ≥ {share:.0%} of the card's rate of products"
            line(asked, f"{ours['share']:.0%}" if ours else None, ours["share"] >= share if ours else None)
        ratio(workload, precision, "eager", against_eager)
        for peer in GRAPHS if most is not None else ():
            ratio(workload, precision, peer, 2)
    for peer in GRAPHS:
        ratios = {key: value for key, measured in found.items() if (value := _times_ours(measured, peer)) is not None}
        worst = min(ratios, key=ratios.get, default=None)
        said = worst and f"{ratios[worst]:.2f}× or more in {len(ratios)}; least: `{worst[0]}` in {NAMES[worst[1]]}"
        line(f"every workload, against {PEERS[peer]} ≥ 1×", said, worst and ratios[worst] >= 1)
    return markdown(["asked for on an H200", "measured", "met"], lines)


def whole(results: dict) -> str:
    """Every provider of every workload in every precision."""
    lines = []
    for (name, precision), measured in _iterations(results).items():
        for i, (provider, row) in enumerate(measured["rows"].items()):
            times = [_microseconds(row), f"{row['ratio']:.2f}×", f"{row['gflops'] / 1e3:.2f}"]
            first = ["", ""] if i else [f"`{name}`", NAMES[precision]]
            lines.append([*first, provider, *times, f"{row['share']:.0%}", f"{row['traffic']:.0%}"])
    head = ["workload", "precision", "provider", "µs an iteration", "native is", "TFLOP/s", "of peak", "bandwidth"]
    return markdown(head, lines)


def ceilings(results: dict) -> str:
    """The card's own rates."""
    lines = []
    for rates in _units(results, "ceilings").values():
        products = rates["flops_per_second"].items()
        lines += [[f"product, {NAMES[precision]}", f"{rate / 1e12:.1f} TFLOP/s"] for precision, rate in products]
        lines.append(["copy", f"{rates['copied_bytes_per_second'] / 1e12:.2f} TB/s"])
    return markdown(["torch's own", "measured"], lines)


def all_ops(results: dict) -> str:
    """The ops beside eager, one by one."""
    return ops({"ops": [op for unit in _units(results, "ops").values() for op in unit["ops"]]})


def training(results: dict) -> str:
    """Runs of recipes, and what the paper's measure says of them."""
    lines = []
    for run in _units(results, "train").values():
        cells = [f"{run['iterations']:,}, {run['engine']}", f"{run['seconds']:.0f} s"]
        for which in ("best", "last"):
            value = run.get(which)
            cells.append(f"{value['log_likelihood']:.1f} ± {value['standard_error']:.1f}" if value else "not measured")
        lines.append([f"`{run['recipe']}` on {run['data']}", *cells])
    return markdown(["recipe", "iterations, engine", "time", "log-likelihood where best", "at the end"], lines)


def checks(results: dict) -> str:
    """How all units ended."""
    lines = []
    for part, units in results["parts"].items():
        for name, unit in units.items():
            found = (unit.get("result") or {}) if part == "tests" else {}
            said = [f"{found[kind]} {kind}" for kind in ("passed", "failed", "skipped", "lacking") if found.get(kind)]
            said = ", ".join([*said, *filter(None, [unit.get("reason")])])
            said = " ".join(said.replace("|", "/").split())
            lines.append([part, name, unit["status"], f"{unit.get('seconds', 0):.0f}", said])
    return markdown(["part", "unit", "ended", "s", ""], lines)


KINDS = {
    "summary": summary,
    "targets": targets,
    "whole": whole,
    "ceilings": ceilings,
    "ops": all_ops,
    "training": training,
    "checks": checks,
}


def everything(results: dict) -> str:
    """What has been measured, under captions."""
    kinds = {"Rates": ceilings, "Targets": targets, "Iterations": whole, "Ops": all_ops, "Training": training}
    return "\n".join(f"**{caption}**\n\n{table(results)}" for caption, table in kinds.items())


def name_of(results: dict) -> str:
    """What a table is of, in words."""
    machine = results["machine"]
    if results["device"] != "cuda":
        return f"A dry run on a CPU, no card, torch {machine['torch']}"
    return f"{machine['card']}, torch {machine['torch']}, driver {machine['driver'].get('driver_version', 'unknown')}"


def page(results: dict) -> str:
    """All tables of a file; of a dry run none that says what a card has reached."""
    kinds = [kind for kind in KINDS if kind != "targets" or results["device"] == "cuda"]
    about = "Written by `python -m benchmarks.gpu_check`; every figure is in results.json.\n"
    return "\n".join([f"# {name_of(results)}\n", about, *(f"## {kind}\n\n{KINDS[kind](results)}" for kind in kinds)])


def on_gpus(kind: str) -> str:
    """A table of each card that has been measured; one sentence where none has."""
    found = []
    for results in gpu_results():
        file = f"benchmarks/results/{results['folder']}/results.json"
        table = everything if kind == "everything" else KINDS[kind]
        found.append(f"{name_of(results)} (`{file}`):\n\n{table(results)}")
    return "\n".join(found) or NOT_MEASURED
