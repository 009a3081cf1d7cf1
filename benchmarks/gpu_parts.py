"""The parts of benchmarks/gpu_check.py: what each does, in which pieces, and what is recorded of them."""

import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import one_by_one
import tables
from gpu_process import ROOT, Done, Results, run

PARTS = ("build", "tests", "ceilings", "iterations", "train", "ops", "sanitizer")
SITE = ROOT / "build" / "gpu_check" / "site"
WORK = ROOT / "benchmarks" / "gpu_work.py"

# The most that is wanted first: a time limit takes from the end.
ROWS = (
    ("snippet", "fp32"),
    ("mnist_paper", "tf32"),
    ("wide", "bf16"),
    ("mnist_paper", "fp32"),
    ("ring", "fp32"),
    ("ring_wide", "fp32"),
    ("stack", "fp32"),
    ("cifar_paper", "tf32"),
    ("snippet", "tf32"),
    ("stack", "tf32"),
    ("wide", "tf32"),
)
FIRST_TESTS = ("gpu", "native", "linear_act", "maxout", "mlp", "head_loss", "small_mlp", "optimizer", "parzen", "noise")
LAST_TESTS = ("build", "cuda_access", "simt", "check_cuda", "download")  # which say nothing about a card
DRY_TESTS = ("philox", "losses")
DRY_ROWS = (("ring", "fp32"), ("ring", "bf16"))
WORDY = 20  # failures of a file that are kept with their traceback
TOOLS = ("memcheck", "racecheck", "initcheck")

# Seconds, at most.
A_BUILD, A_FILE, A_TEST, A_SANITIZER, A_WORKLOAD, A_PROVIDER, AN_OP, A_TRAINING = 900, 480, 300, 300, 400, 150, 240, 480


@dataclass
class Unit:
    """Something that is done and recorded as one: a function that makes its record, or why it is left out."""

    part: str
    name: str
    work: Callable[[], dict] | None = None
    skip: str = ""


@dataclass
class Check:
    """What a call of this program knows: its options, its machine, its results."""

    results: Results
    device: str
    dry: bool
    deadline: float
    jobs: int = 1
    workloads: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    data: str | None = None
    run: Callable[..., Done] = run
    environ: dict[str, str] = field(default_factory=dict)
    machine: dict = field(default_factory=dict)
    interrupted: bool = False

    @property
    def logs(self) -> Path:
        return self.results.path.parent / "logs"

    def left(self) -> float:
        return self.deadline - time.monotonic()

    def child(self, log: str, command: list[str], seconds: float, stalled=lambda: False, **environ: str) -> Done:
        """Run a command for at most so long, and not beyond the deadline."""
        limit = max(0.0, min(seconds, self.left()))
        path = self.logs / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', log)}.log"
        done = self.run(command, seconds=limit, environ=self.environ | environ, log=path, stalled=stalled)
        if self.interrupted or (done.ended == "limit" and limit < seconds):
            done.ended = "deadline"
        return done

    def work(
        self, log: str, what: str, *options: str, seconds: float, stalled=lambda: False, before=(), **environ: str
    ):
        """Run a function of gpu_work.py: how it ended, and what it found (None where it did not get so far)."""
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "result.json"
            # -P: what is beside gpu_work.py is not imported by chance, and neither is the source folder's pygan
            command = [*before, sys.executable, "-P", str(WORK), what, "--device", self.device]
            done = self.child(log, [*command, "--result", str(result), *options], seconds, stalled, **environ)
            return done, json.loads(result.read_text()) if result.exists() else None

    # ------------------------------------------------------------------------------------------- the machine

    def look(self) -> dict:
        """What machine this is, and whether pygan can be imported here."""
        done, found = self.work("about", "about", seconds=120)
        if found is None and not self.machine:
            raise SystemExit(f"gpu_check: torch cannot be asked about this machine:\n{done.output}")
        if found is None:  # what was built ends the process
            found = self.machine | {"pygan": None, "why_no_pygan": outcome(done).get("reason", "no reason given")}
        if self.device == "cuda" and found["pygan"] and not Path(found["pygan"]["file"]).is_relative_to(SITE):
            found["why_no_pygan"] = f"{found['pygan']['file']} is another than what the part build makes"
            found["pygan"] = None
        self.machine = found
        return found

    # ------------------------------------------------------------------------------------------------- parts

    def build(self) -> Iterator[Unit]:
        if self.dry:
            yield Unit("build", "pip install", skip="a dry run takes the pygan that is installed")
            return
        yield Unit("build", "pip install", self._install)

    def _install(self) -> dict:
        dropped = drop_strange_builds(ROOT / "build")
        shutil.rmtree(SITE, ignore_errors=True)
        options = ["--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check", "--no-input"]
        command = [sys.executable, "-P", "-m", "pip", "install", *options, "--target", str(SITE), "."]
        environ = {"PYGAN_CUDA": "1"}
        if "TORCH_CUDA_ARCH_LIST" not in os.environ:
            environ["TORCH_CUDA_ARCH_LIST"] = self.machine["capability"]
        record = outcome(self.child("build", command, A_BUILD, **environ))
        record["result"] = {"dropped": dropped, **environ}
        found = self.look()
        if record["status"] == "ok":
            if found["pygan"] is None:
                record |= {"status": "failed", "reason": found["why_no_pygan"]}
            elif found["pygan"]["without_cuda_kernel"]:
                lacking = ", ".join(found["pygan"]["without_cuda_kernel"])
                record |= {"status": "failed", "reason": f"ops without a CUDA kernel: {lacking}"}
        return record

    def tests(self) -> Iterator[Unit]:
        paths = {path.stem.removeprefix("test_"): path for path in sorted((ROOT / "tests").glob("test_*.py"))}
        middle = [name for name in paths if name not in FIRST_TESTS + LAST_TESTS]
        for name in DRY_TESTS if self.dry else (*FIRST_TESTS, *middle, *LAST_TESTS):
            yield Unit("tests", paths[name].name, lambda path=paths[name]: self._test_file(path))
        if self.dry:
            yield Unit("tests", "the others", skip=f"a dry run runs {' and '.join(DRY_TESTS)}")

    def _test_file(self, path: Path) -> dict:
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "outcomes"
            log.touch()
            environ = {"ONE_BY_ONE": str(log), "OMP_NUM_THREADS": str(max(1, self.machine["cpus"] // self.jobs))}
            environ["PYTEST_ADDOPTS"] = ""  # an option -n would put processes of its own between a crash and this one
            # an empty place would be the working folder, where the source is
            environ["PYTHONPATH"] = os.pathsep.join(
                filter(None, (str(ROOT / "benchmarks"), self.environ["PYTHONPATH"]))
            )
            if self.device == "cuda":
                environ["PYGAN_REQUIRE_GPU"] = "1"
            command = [sys.executable, "-P", "-m", "pytest", "-q", "--tb=short", "-p", "one_by_one"]
            command += ["-p", "no:cacheprovider", os.path.relpath(path, ROOT)]
            start, runs, done = time.monotonic(), 0, None
            while True:
                known = len(one_by_one.read(log)[0])
                limit = A_FILE - (time.monotonic() - start)
                done = self.child(f"tests-{path.stem}", command, limit, lambda: _is_old(log, A_TEST), **environ)
                runs += 1
                outcomes, begun = one_by_one.read(log)
                if done.ended in ("limit", "deadline") or done.code in (0, 1, 2, 4, 5):
                    break
                if begun is not None:
                    why = f"no end after {A_TEST} s" if done.ended else f"the process died (exit code {done.code})"
                    one_by_one.write(log, {"test": begun, "outcome": "failed", "why": f"{why}\n{done.output[-1000:]}"})
                elif len(outcomes) == known:
                    break  # it dies without a test
            return self._judged(done, outcomes, runs)

    def _judged(self, done: Done, outcomes: dict[str, dict], runs: int) -> dict:
        """The record of a file of tests."""
        record = outcome(done)
        lacking = re.compile(rf"No module named '({'|'.join(map(re.escape, self.machine['missing'] or ['-']))})\b")
        counts = dict.fromkeys(("passed", "failed", "skipped", "xfailed", "lacking"), 0)
        failures, lacked = {}, set()
        for name, entry in outcomes.items():
            missed = lacking.search(entry["why"]) if entry["outcome"] == "failed" else None
            counts["lacking" if missed else entry["outcome"]] += 1
            if missed:
                lacked.add(missed.group(1))
            elif entry["outcome"] == "failed":  # a card on which all fail has thousands: the log has them
                failures[name] = entry["why"] if len(failures) < WORDY else entry["why"].strip()[-200:]
        record["result"] = {**counts, "failures": failures, "lacking_packages": sorted(lacked), "processes": runs}
        if record["status"] == "stopped":
            return record
        ran = done.ended is None and done.code in (0, 1, 2, 5, one_by_one.SPOILED)
        if failures or not ran or not outcomes:
            reason = f"{len(failures)} of {len(outcomes)} tests failed" if ran and outcomes else record.get("reason")
            return record | {"status": "failed", "reason": reason or "no test ran"}
        record["status"] = "ok"
        record.pop("reason", None)
        if lacked:
            record["reason"] = f"{counts['lacking']} tests need {', '.join(sorted(lacked))}, not installed here"
        return record

    def sanitizer(self) -> Iterator[Unit]:
        # every allocation is its own, so that one byte beyond it is seen
        environ = {} if self.dry else {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        tool, programs = find_sanitizer(os.environ), ("every-op", "few-iterations")
        rounds = ("--rounds", "1" if self.dry else "8")
        for what in programs:
            yield Unit("sanitizer", f"{what} alone", lambda what=what: self._watched(what, rounds, (), environ))
        for name in TOOLS:
            for what in programs:
                unit = Unit("sanitizer", f"{what} {name}")
                before = (str(tool), "--tool", name, "--error-exitcode", "86", "--report-api-errors", "no")
                before += ("--print-limit", "10000")
                if self.dry:
                    unit.skip = "compute-sanitizer watches kernels on a GPU"
                elif tool is None:
                    unit.work = lambda: {"status": "failed", "reason": NO_SANITIZER}
                else:
                    unit.work = lambda w=what, b=before: self._watched(w, rounds, b, environ)
                yield unit

    def _watched(self, what: str, options: tuple[str, ...], before: tuple[str, ...], environ: dict[str, str]) -> dict:
        log = f"sanitizer-{what}-{before[2] if before else 'alone'}"
        path = self.logs / f"{log}.log"
        path.unlink(missing_ok=True)
        done, found = self.work(log, what, *options, seconds=A_SANITIZER, before=before, **environ)
        record = outcome(done) | {"result": found}
        if before and record["status"] != "stopped":
            seen = sanitizer_errors(path.read_text(errors="replace"))
            record["result"] = {"found": found, **seen}
            if done.code == 86 and seen["errors"] and seen["all_printed"] and not seen["in_pygan"]:
                record |= {"status": "ok", "reason": f"{seen['errors']} errors, none in a kernel of pygan's"}
            elif record["status"] == "ok" and seen["errors"] is None:
                record |= {"status": "failed", "reason": "compute-sanitizer printed no summary"}
        return record

    def ceilings(self) -> Iterator[Unit]:
        rounds = "1" if self.dry else "9"
        yield Unit("ceilings", "rates", lambda: self._plain("ceilings", "--rounds", rounds, seconds=180))

    def _plain(self, what: str, *options: str, seconds: float) -> dict:
        done, found = self.work(what, what, *options, seconds=seconds)
        return outcome(done) | {"result": found}

    def iterations(self) -> Iterator[Unit]:
        rows = DRY_ROWS if self.dry and not self.workloads else ROWS
        for workload, precision in rows:
            if self.workloads and workload not in self.workloads:
                continue
            skip = "the CPU has no TF32" if self.dry and precision == "tf32" else ""
            name = f"{workload} {precision}"
            yield Unit("iterations", name, lambda w=workload, p=precision: self._workload(w, p), skip)
        if rows is DRY_ROWS:
            yield Unit("iterations", "the others", skip="a dry run runs ring")

    def _workload(self, workload: str, precision: str) -> dict:
        """A provider that kills the process, or never ends, is left out and the others are run again."""
        options = ["--workload", workload, "--precision", precision]
        options += ["--seconds", "0.05" if self.dry else "2", "--rounds", "3" if self.dry else "7"]
        options += [option for name in self.providers for option in ("--provider", name)]
        killed: dict[str, str] = {}
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            doing = Path(folder) / "doing"
            while True:
                doing.write_text("")
                without = [option for name in killed for option in ("--without", name)]
                done, found = self.work(
                    f"iterations-{workload}-{precision}",
                    "iterations",
                    *options,
                    *without,
                    "--doing",
                    str(doing),
                    seconds=A_WORKLOAD - (time.monotonic() - start),
                    stalled=lambda: _is_old(doing, A_PROVIDER),
                )
                culprit = doing.read_text()
                if found is not None or done.ended in ("limit", "deadline") or culprit in ("", *killed):
                    break
                killed[culprit] = f"no end after {A_PROVIDER} s" if done.ended else done.output[-1000:]
        record = outcome(done) | {"result": found}
        if found is not None:
            failed = found["failed"] = killed | found["failed"]
            if failed:
                record |= {"status": "failed", "reason": f"did not run: {', '.join(failed)}"}
        elif killed:
            record["reason"] = f"{record.get('reason')}; before, {', '.join(killed)} did not run"
        return record

    def ops(self) -> Iterator[Unit]:
        for path in sorted((ROOT / "benchmarks").glob("bench_*.py")):
            skip = "the part iterations has them" if path.stem == "bench_iteration" else ""
            if self.dry and path.stem not in ("bench_gan_loss", "bench_iteration"):
                skip = "a dry run runs the losses"
            if not skip and "pytest_benchmark" in self.machine["missing"]:
                skip = "pytest-benchmark is not installed"
            yield Unit("ops", path.name, lambda path=path: self._bench_file(path), skip)

    def _bench_file(self, path: Path) -> dict:
        with tempfile.TemporaryDirectory() as folder:
            raw = Path(folder) / "raw.json"
            command = [sys.executable, "-P", "-m", "pytest", str(path.relative_to(ROOT)), "-q", "--tb=short"]
            command += ["-p", "no:cacheprovider", "--device", self.device, "--benchmark-json", str(raw)]
            record = outcome(self.child(f"ops-{path.stem}", command, AN_OP))
            if raw.exists() and raw.stat().st_size:
                record["result"] = {"ops": tables.measured_ops(json.loads(raw.read_text()))}
        return record

    def train(self) -> Iterator[Unit]:
        built = (self.machine["pygan"] or {}).get("build", {})
        options = ["--recipe", "mnist_paper"]
        if self.dry and built.get("simt"):  # what a second of a GPU is takes the emulator hours
            options = ["--recipe", "ring8", "--iterations", "5", "--samples", "100"]
        elif self.dry:
            options += ["--iterations", "20", "--samples", "100", "--data", self.data or "digits:fit"]
            if not self.data and "sklearn" in self.machine["missing"]:
                yield Unit("train", options[1], skip="scikit-learn, which has the digits, is not installed")
                return
        elif self.data:
            options += ["--data", self.data]
        yield Unit("train", options[1], lambda: self._plain("train", *options, seconds=A_TRAINING))


NO_SANITIZER = (
    "compute-sanitizer is not installed: it is in the CUDA toolkit, and is looked for on PATH and in the bin of "
    "$CUDA_HOME, $CUDA_PATH and /usr/local/cuda"
)


def outcome(done: Done) -> dict:
    """The record of a process."""
    record = {"status": "ok" if done.code == 0 and not done.ended else "failed", "seconds": round(done.seconds, 1)}
    if done.ended == "deadline":
        record |= {"status": "stopped", "reason": "the time limit came; the next call begins it again"}
    elif done.ended:
        record["reason"] = f"killed after {done.seconds:.0f} s"
    elif done.code:
        last = ([line for line in done.output.splitlines() if line.strip()] or ["no output"])[-1]
        record["reason"] = f"exit code {done.code}: {last.strip()[:300]}"
    if record["status"] != "ok":
        record |= {"exit": done.code, "output": done.output}
    return record


def _is_old(path: Path, seconds: float) -> bool:
    return time.time() - path.stat().st_mtime > seconds


def drop_strange_builds(folder: Path) -> list[str]:
    """Remove builds that CMake made of another source folder, or began and did not configure: it would refuse them."""
    dropped = []
    for build in sorted(folder.glob("cmake-*")):
        cache = build / "CMakeCache.txt"
        home = re.search(r"^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$", cache.read_text(), re.M) if cache.exists() else None
        if home is None or Path(home.group(1)) != folder.parent:
            shutil.rmtree(build)
            dropped.append(build.name)
    return dropped


def find_sanitizer(environ) -> str | None:
    folders = [f"{environ[name]}/bin" for name in ("CUDA_HOME", "CUDA_PATH") if environ.get(name)]
    places = [environ.get("PATH", ""), *folders, "/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer"]
    return shutil.which("compute-sanitizer", path=os.pathsep.join(places))


def sanitizer_errors(text: str) -> dict:
    """How many errors compute-sanitizer counts, and the reports that name a kernel of pygan's."""
    counts = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)", text)
    # pygan's name is in the host's backtrace of whatever it calls, too: a kernel's is behind "at" or "in"
    mine = [r for r in re.split(r"\n=+ *\n", text) if re.search(r"\b(?:at|in) (?:void )?pygan::", r)]
    return {
        "errors": max(map(int, counts), default=None),
        "all_printed": "not printed" not in text,
        "in_pygan": len(mine),
        "first": mine[:3],
    }
