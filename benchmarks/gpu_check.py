"""Everything that a GPU alone can show, in one command that needs no network; run it from the repository's root.

    python -m benchmarks.gpu_check                    # on a GPU: all parts, 25 minutes
    python -m benchmarks.gpu_check --parts build,tests --time-limit 500     # some of it; a later call goes on
    python -m benchmarks.gpu_check --dry-run          # without a GPU: the same code on the CPU, small

Builds pygan beside the torch that is installed, runs the tests, compute-sanitizer, the benchmarks with their peers and
the card's own rates, trains mnist_paper to its end and evaluates it. All figures go to OUT/results.json as they come,
tables (results.md) and pictures are made of it. What fails is recorded and the rest goes on; the exit code is then 1.
docs/gpu.md says more.
"""

import argparse
import concurrent.futures
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from gpu_parts import PARTS, ROWS, SITE, Check, Unit, outcome
from gpu_process import ROOT, Done, Results, end, replacing, run, running
from gpu_tables import page
from table_text import RESULTS

DONE = ("ok", "failed", "skipped")  # what is kept; "stopped" by the time limit is not
TOGETHER = ("tests", "sanitizer")  # parts whose pieces may share the machine: they take no times
LEAST = 10.0  # seconds: nothing is begun with less time left


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def do(check: Check, units: list[Unit], jobs: int, again: str | None) -> None:
    """The units of a part that are not done yet, so many at a time; each is recorded as it ends."""

    def one(unit: Unit) -> None:
        kept = check.results.unit(unit.part, unit.name).get("status")
        if kept in DONE and not (again == "all" or (again == "failed" and kept == "failed")) and unit.part != "build":
            return
        if unit.skip or unit.work is None:
            record = {"status": "skipped", "reason": unit.skip}
        elif check.left() < LEAST:
            record = {"status": "stopped", "reason": "the time limit came before it; the next call begins it"}
        elif unit.part != "build" and check.machine["pygan"] is None:
            record = {"status": "stopped", "reason": f"there is no pygan to run: {check.machine['why_no_pygan']}"}
        else:
            try:
                record = unit.work()
            except Exception as error:  # of this program: the other units go on
                record = {"status": "failed", "reason": f"gpu_check itself: {type(error).__name__}: {error}"}
        check.results.put(unit.part, unit.name, record)
        words = f" ({record['reason']})" if record.get("reason") else ""
        print(
            f"{unit.part:<11}{unit.name:<32}{record['status']:<8}{record.get('seconds', 0):>6.0f} s{words}", flush=True
        )

    pool = concurrent.futures.ThreadPoolExecutor(jobs)
    try:
        for future in [pool.submit(one, unit) for unit in units]:
            future.result()
    except BaseException:  # Ctrl-C, SIGTERM
        check.interrupted = True
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(running):
            end(process)
        raise
    finally:
        pool.shutdown()


def is_built(check: Check) -> bool:
    """Whether an earlier call's build is still there and runs: another machine may have been lent meanwhile."""
    return check.machine["pygan"] is not None and not check.machine["pygan"]["without_cuda_kernel"]


def write_report(check: Check) -> None:
    """Tables and pictures of what there is."""
    results = check.results
    with replacing(results.path.with_name("results.md")) as temporary:
        temporary.write_text(page(results.content))
    if "matplotlib" in check.machine["missing"]:
        results.set(pictures="none: matplotlib is not installed")
    elif check.machine["pygan"] and results.content["parts"].get("iterations"):
        done, found = check.work("plots", "plots", "--json", str(results.path), seconds=120)
        results.set(pictures=found["written"] if found else outcome(done).get("reason", "none"))


def arguments_of(command_line: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {','.join(PARTS)}; default: all")
    parser.add_argument("--time-limit", type=float, default=1500, metavar="SECONDS", help="of this call; default: 1500")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: benchmarks/results/<the card's name>")
    parser.add_argument("--again", nargs="?", const="all", choices=("all", "failed"), help="do what is done once more")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu is a dry run")
    parser.add_argument("--dry-run", action="store_true", help="the same on the CPU, small")
    parser.add_argument("--jobs", type=int, help="files of tests at a time; default: a quarter of the CPUs, 4 at most")
    parser.add_argument("--workload", action="append", default=[], help="of the part iterations; repeatable")
    parser.add_argument("--provider", action="append", default=[], help="of the part iterations; repeatable")
    parser.add_argument("--data", help="to train on; default: MNIST, in a dry run the digits of scikit-learn")
    arguments = parser.parse_args(command_line)
    arguments.parts = arguments.parts.split(",")
    if unknown := [part for part in arguments.parts if part not in PARTS]:
        parser.error(f"--parts must be of {','.join(PARTS)}, got {','.join(unknown)}")
    if unknown := [name for name in arguments.workload if name not in dict(ROWS)]:
        parser.error(f"--workload must be of {','.join(dict(ROWS))}, got {','.join(unknown)}")
    arguments.dry_run = arguments.dry_run or arguments.device == "cpu"
    return arguments


def main(command_line: list[str] | None = None, runner: Callable[..., Done] = run) -> int:
    arguments, start = arguments_of(command_line), time.monotonic()
    device = "cpu" if arguments.dry_run else "cuda"
    paths = [*([str(SITE)] if device == "cuda" else []), *filter(None, [os.environ.get("PYTHONPATH")])]
    environ = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if "PYGAN_DATA" not in os.environ:
        for folder in (ROOT / "shared" / "data", ROOT.parent / "shared" / "data"):
            if folder.is_dir():
                environ["PYGAN_DATA"] = str(folder)
    with tempfile.TemporaryDirectory() as folder:  # until the card is known, and with it the place of the results
        check = Check(Results(Path(folder) / "results.json"), device, arguments.dry_run, start + arguments.time_limit)
        check.run, check.environ = runner, environ
        machine = check.look()
    if device == "cuda" and machine["card"] is None:
        raise SystemExit("gpu_check: torch sees no GPU; --dry-run runs the same on the CPU, small")
    default = ROOT / "build" / "gpu_check" / "dry-run"
    if device == "cuda":
        default = RESULTS / slug(machine["card"])
    out = (arguments.out or default).absolute()
    out.mkdir(parents=True, exist_ok=True)
    check.results = Results(out / "results.json")
    check.workloads, check.providers = tuple(arguments.workload), tuple(arguments.provider)
    check.data, check.jobs = arguments.data, arguments.jobs or max(1, min(4, machine["cpus"] // 4))
    before = check.results.content.get("machine")
    if before and (before.get("card"), before["torch"]) != (machine.get("card"), machine["torch"]):
        raise SystemExit(
            f"gpu_check: {check.results.path} is of {before.get('card') or 'a CPU'} and torch {before['torch']}, this "
            f"is {machine.get('card') or 'a CPU'} and torch {machine['torch']}: choose another folder with --out"
        )
    calls = check.results.content["calls"]
    calls.append({"arguments": sys.argv[1:] if command_line is None else command_line, "commit": commit()})
    check.results.set(device=device, dry_run=arguments.dry_run, machine=machine, calls=calls)
    try:
        for part in PARTS:
            if part not in arguments.parts:
                continue
            units = list(getattr(check, part)())
            kept = part == "build" and is_built(check) and check.results.unit(part, units[0].name).get("status") == "ok"
            if not (kept and not arguments.again):
                do(check, units, check.jobs if part in TOGETHER else 1, arguments.again)
    finally:
        if check.machine["pygan"]:
            check.results.set(machine=check.machine)
        calls[-1]["seconds"] = round(time.monotonic() - start, 1)
        check.results.set(calls=calls)
        check.deadline, check.interrupted = max(check.deadline, time.monotonic() + 60), False
        write_report(check)
    return summary(check, arguments.parts)


def summary(check: Check, parts: list[str]) -> int:
    """Say what did not go well; 1 if anything did not."""
    wrong = [
        f"{part} {name}: {unit['status']}: {unit.get('reason', '')}"
        for part, units in check.results.content["parts"].items()
        for name, unit in units.items()
        if part in parts and unit["status"] not in ("ok", "skipped")
    ]
    print(f"\n{check.results.path}: {len(wrong)} not well" + "".join(f"\n  {line}" for line in wrong))
    return 1 if wrong else 0


def commit() -> str:
    """The commit that is checked out, with + where files differ from it; empty where there is no git."""
    if not (ROOT / ".git").exists():
        return ""
    try:
        head, changes = (
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + "+" * bool(changes)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
