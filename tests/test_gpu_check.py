"""benchmarks/gpu_check.py: a real dry run of its cheap parts, and its bookkeeping on processes that are made up."""

import json
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

import gpu_check
import gpu_parts
import gpu_process
import gpu_tables
import one_by_one
import tables

ROOT = pathlib.Path(__file__).parents[1]
CARD = {
    "card": "NVIDIA Made Up",
    "capability": "9.0",
    "torch": "2.11.0+cu130",
    "missing": ["typer"],
    "cpus": 16,
    "driver": {"driver_version": "580"},
}


def pygan_in(folder):
    return {"file": str(folder / "pygan" / "__init__.py"), "without_cuda_kernel": [], "machine": {}}


def row(provider, seconds, ratio, share=0.5):
    return {"provider": provider, "seconds": seconds, "ratio": ratio, "share": share, "gflops": 1e3, "traffic": 0.1}


class Machine:
    """Stands in for `gpu_process.run`: processes that leave the result, or end as, `answers` says of them."""

    def __init__(self, **answers):
        self.answers = answers
        self.commands = []

    def __call__(self, command, *, seconds, environ, log, stalled):
        self.commands.append(command)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("")
        self.log = log
        what = command[command.index(str(gpu_parts.WORK)) + 1] if str(gpu_parts.WORK) in command else "pip"
        answer = self.answers.get(what, {})
        answer = answer(command) if callable(answer) else answer
        if isinstance(answer, gpu_process.Done):
            return answer
        if "--result" in command:
            pathlib.Path(command[command.index("--result") + 1]).write_text(json.dumps(answer))
        return gpu_process.Done(0, 1.0, "all well\n")

    def did(self, what):
        return sum(what in command for command in self.commands)


@pytest.fixture
def call(tmp_path, monkeypatch):
    """A call of the program on a machine that is made up: its exit code, and the results so far."""
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    monkeypatch.setattr(gpu_parts, "SITE", tmp_path / "site")

    def run(machine, *arguments):
        known = CARD | {"pygan": pygan_in(gpu_parts.SITE)} | machine.answers.get("machine", {})
        machine.answers["about"] = machine.answers.get("look", known)
        code = gpu_check.main([*arguments, "--out", str(tmp_path / "out")], runner=machine)
        return code, json.loads((tmp_path / "out" / "results.json").read_text())

    return run


RATES = {"flops_per_second": {"fp32": 50e12}, "copied_bytes_per_second": 4e12}
NOT_WELL = gpu_process.Done(1, 2.0, "much\nRuntimeError: no luck\n")


# ---- a real run ----


@pytest.mark.slow
def test_a_dry_run(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--dry-run", "--parts", "build,iterations"]
    command += ["--workload", "ring", "--provider", "native", "--provider", "eager", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["device"], results["dry_run"]) == ("cpu", True)
    assert results["parts"]["build"]["pip install"]["status"] == "skipped"
    rows = results["parts"]["iterations"]["ring fp32"]["result"]["rows"]
    assert [row["provider"] for row in rows] == ["native", "eager"]
    page = (tmp_path / "results.md").read_text()
    assert page.startswith("# A dry run on a CPU, no card")
    assert "asked for on an H200" not in page
    assert (tmp_path / "iterations-fp32.png").read_bytes()[:4] == b"\x89PNG"


# ---- what is kept, and what is done again ----


def test_a_failure_is_recorded_and_the_rest_goes_on(call):
    code, results = call(Machine(ceilings=RATES, train=NOT_WELL), "--parts", "ceilings,train,ops")
    assert code == 1
    failed = results["parts"]["train"]["mnist_paper"]
    assert (failed["status"], failed["exit"]) == ("failed", 1)
    assert failed["reason"] == "exit code 1: RuntimeError: no luck"
    assert failed["output"] == NOT_WELL.output
    assert results["parts"]["ceilings"]["rates"] == {"status": "ok", "seconds": 1.0, "result": RATES}
    assert results["parts"]["ops"]["bench_maxout.py"]["status"] == "ok"


def test_a_later_call_goes_on(call):
    machine = Machine(ceilings=RATES, train=NOT_WELL)
    call(machine, "--parts", "ceilings")
    code, results = call(machine, "--parts", "train")
    assert code == 1
    assert set(results["parts"]) == {"ceilings", "train"}
    assert [call["arguments"][1] for call in results["calls"]] == ["ceilings", "train"]
    machine.answers["train"] = {"iterations": 1, "recipe": "mnist_paper", "engine": "native", "seconds": 1, "data": "x"}
    call(machine, "--parts", "ceilings,train")
    assert (machine.did("ceilings"), machine.did("train")) == (1, 1)  # both are done
    code, _ = call(machine, "--parts", "ceilings,train", "--again", "failed")
    assert (code, machine.did("ceilings"), machine.did("train")) == (0, 1, 2)
    call(machine, "--parts", "ceilings,train", "--again")
    assert (machine.did("ceilings"), machine.did("train")) == (2, 3)


def test_what_the_time_limit_stops_is_done_by_the_next_call(call):
    code, results = call(Machine(), "--parts", "ceilings", "--time-limit", "1")
    assert (code, results["parts"]["ceilings"]["rates"]["status"]) == (1, "stopped")
    code, results = call(Machine(ceilings=RATES), "--parts", "ceilings")
    assert (code, results["parts"]["ceilings"]["rates"]["status"]) == (0, "ok")


def test_a_process_that_the_time_limit_ends_is_stopped_not_failed(call):
    machine = Machine(ceilings=lambda command: gpu_process.Done(-15, 1.0, "", ended="limit"))
    _, results = call(machine, "--parts", "ceilings", "--time-limit", "100")
    assert results["parts"]["ceilings"]["rates"]["status"] == "stopped"
    _, results = call(machine, "--parts", "ceilings")
    assert results["parts"]["ceilings"]["rates"]["reason"] == "killed after 1 s"


def test_results_of_another_card_are_not_continued(call):
    call(Machine(ceilings=RATES), "--parts", "ceilings")
    with pytest.raises(SystemExit, match=r"is of NVIDIA Made Up .* this is NVIDIA Other .* another folder"):
        call(Machine(machine={"card": "NVIDIA Other"}), "--parts", "ceilings")


def test_numbers_that_are_none_are_written(call):
    _, results = call(Machine(ceilings={**RATES, "copied_bytes_per_second": float("nan")}), "--parts", "sanitizer")
    call(Machine(**{"every-op": {"a": [float("inf")]}}), "--parts", "sanitizer", "--again")
    _, results = call(Machine(), "--parts", "sanitizer")
    assert results["parts"]["sanitizer"]["every-op alone"]["result"] == {"a": ["inf"]}


def test_without_a_gpu_it_says_so(call):
    with pytest.raises(SystemExit, match="torch sees no GPU; --dry-run"):
        call(Machine(machine={"card": None}))


# ---- the build ----


def test_the_build_is_for_this_card_and_nothing_runs_on_another_pygan(call, tmp_path):
    machine = Machine(machine={"pygan": pygan_in(tmp_path / "elsewhere")})
    code, results = call(machine, "--parts", "build,ceilings")
    built = results["parts"]["build"]["pip install"]
    assert built["result"]["TORCH_CUDA_ARCH_LIST"] == "9.0"
    assert "is another than what the part build makes" in built["reason"]
    assert results["parts"]["ceilings"]["rates"]["status"] == "stopped"
    assert (code, machine.did("ceilings")) == (1, 0)


def test_a_build_that_crashes_when_it_is_imported_is_a_failure(call):
    looks = iter([CARD | {"pygan": None, "why_no_pygan": "not built"}])
    machine = Machine(look=lambda command: next(looks, gpu_process.Done(-11, 1.0, "Segmentation fault\n")))
    _, results = call(machine, "--parts", "build")
    assert results["parts"]["build"]["pip install"]["reason"] == "exit code -11: Segmentation fault"


def test_a_build_that_runs_is_kept_and_one_that_is_gone_is_made_again(call):
    machine = Machine(ceilings=RATES)
    call(machine, "--parts", "build")
    call(machine, "--parts", "build")
    assert machine.did("pip") == 1
    machine.answers["machine"] = {"pygan": None, "why_no_pygan": "ModuleNotFoundError"}
    call(machine, "--parts", "build")
    assert machine.did("pip") == 2


def test_builds_of_another_folder_are_dropped(tmp_path):
    for name, home in (("mine", tmp_path), ("copied", "/elsewhere"), ("begun", None)):
        folder = tmp_path / "build" / f"cmake-{name}"
        folder.mkdir(parents=True)
        if home:
            (folder / "CMakeCache.txt").write_text(f"A:STRING=b\nCMAKE_HOME_DIRECTORY:INTERNAL={home}\n")
    assert gpu_parts.drop_strange_builds(tmp_path / "build") == ["cmake-begun", "cmake-copied"]
    assert [path.name for path in (tmp_path / "build").iterdir()] == ["cmake-mine"]


# ---- iterations ----


def test_a_provider_that_kills_its_process_is_left_out(call):
    def iterations(command):
        without = [command[i + 1] for i, word in enumerate(command) if word == "--without"]
        for name in ("eager graph", "compile"):
            if name not in without:
                pathlib.Path(command[command.index("--doing") + 1]).write_text(name)
                return gpu_process.Done(-11, 3.0, "Segmentation fault\n")
        return {"rows": [row("native", 1e-5, 1.0)], "auto": "native", "failed": {"eager": "no"}, "left_out": {}}

    code, results = call(Machine(iterations=iterations), "--parts", "iterations", "--workload", "ring")
    unit = results["parts"]["iterations"]["ring fp32"]
    assert (code, unit["status"]) == (1, "failed")
    assert unit["result"]["failed"] == {
        "eager graph": "Segmentation fault\n", "compile": "Segmentation fault\n", "eager": "no",
    }  # fmt: skip
    assert [row["provider"] for row in unit["result"]["rows"]] == ["native"]


def test_a_process_that_dies_without_a_provider_is_not_run_for_ever(call):
    machine = Machine(iterations=NOT_WELL)
    call(machine, "--parts", "iterations", "--workload", "ring")
    assert machine.did("iterations") == 1


# ---- tests ----


TESTS = """
import os, pytest
def test_good(): pass
def test_bad(): assert 1 == 2
def test_dies(): os._exit(3)
def test_after(): pass
def test_spoils(): raise RuntimeError("CUDA error: an illegal memory access was encountered")
def test_lacks(): import typer_that_is_not_here
@pytest.mark.skip(reason="not today")
def test_skipped(): pass
@pytest.mark.xfail
def test_known(): assert False
def test_last(): pass
"""


@pytest.fixture
def check(tmp_path):
    """A check of a real machine, without a GPU."""
    results = gpu_process.Results(tmp_path / "out" / "results.json")
    check = gpu_parts.Check(results, "cpu", True, time.monotonic() + 300)
    check.environ = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    check.machine = {"missing": ["typer_that_is_not_here"], "cpus": 2}
    return check


def test_tests_go_on_behind_a_crash(check, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k test_none")  # what is set for this run is not for that one
    path = tmp_path / "test_some.py"
    path.write_text(TESTS)
    record = check._test_file(path)
    result = record["result"]
    counts = {key: result[key] for key in ("passed", "failed", "skipped", "xfailed", "lacking", "processes")}
    assert counts == {"passed": 3, "failed": 3, "skipped": 1, "xfailed": 1, "lacking": 1, "processes": 3}
    names = [name.partition("::")[2] for name in result["failures"]]
    assert names == ["test_bad", "test_dies", "test_spoils"]
    assert "the process died (exit code 3)" in result["failures"][next(n for n in result["failures"] if "dies" in n)]
    assert record["reason"] == "3 of 9 tests failed"
    assert result["lacking_packages"] == ["typer_that_is_not_here"]


def test_a_file_that_lacks_a_package_is_told_from_one_that_fails(check, tmp_path):
    path = tmp_path / "test_some.py"
    path.write_text("import typer_that_is_not_here\n")
    record = check._test_file(path)
    assert (record["status"], record["result"]["lacking"]) == ("ok", 1)
    assert record["reason"] == "1 tests need typer_that_is_not_here, not installed here"
    path.write_text("import another_that_is_not_here\n")
    assert check._test_file(path)["status"] == "failed"


def test_a_test_that_does_not_end_is_a_failure_of_its_own(check, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_parts, "A_TEST", 6)
    path = tmp_path / "test_some.py"
    path.write_text("import time\ndef test_hangs(): time.sleep(600)\ndef test_after(): pass\n")
    result = check._test_file(path)["result"]
    assert (result["passed"], result["failed"]) == (1, 1)
    assert "no end after 6 s" in next(iter(result["failures"].values()))


def test_a_line_that_a_kill_cut_off_is_passed_over(tmp_path):
    path = tmp_path / "outcomes"
    passed = {"test": "a", "outcome": "passed", "why": ""}
    path.write_text('{"begins": "a"}\n' + json.dumps(passed) + '\n{"begins": "b"}\n{"test": "b", "ou')
    assert one_by_one.read(path) == ({"a": passed}, "b")


# ---- the sanitizer ----


REPORT = """========= COMPUTE-SANITIZER
========= Invalid __global__ read of size 4 bytes
=========     at {kernel}(float *)+0x90
=========     Host Frame: pygan::cuda::launch [0x1234] in _C.so
=========
========= ERROR SUMMARY: 2 errors
"""


@pytest.mark.parametrize(
    ("kernel", "mine"),
    [("void pygan::cuda::<unnamed>::gemm_kernel<float>", 1), ("pygan::cuda::noise", 1), ("void at::native::fill", 0)],
)
def test_errors_are_told_by_whose_kernel_they_are_in(kernel, mine):
    found = gpu_parts.sanitizer_errors(REPORT.format(kernel=kernel))
    assert (found["errors"], found["in_pygan"]) == (2, mine)


def test_races_are_counted():
    text = "========= Error: Race reported between Write access at void pygan::cuda::a(int)+0x1 and Read\n=========\n"
    found = gpu_parts.sanitizer_errors(text + "========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)\n")
    assert (found["errors"], found["in_pygan"]) == (1, 1)


def test_errors_that_were_not_printed_may_be_ours(call, monkeypatch):
    monkeypatch.setattr(gpu_parts, "find_sanitizer", lambda environ: "/bin/compute-sanitizer")

    theirs = REPORT.format(kernel="void at::native::fill")
    for text, status in (
        (theirs, "ok"),
        (theirs + "========= ERROR SUMMARY: 1 errors were not printed.\n", "failed"),
        (REPORT.format(kernel="void pygan::cuda::gemm_kernel"), "failed"),
    ):
        machine = Machine()
        machine.answers["every-op"] = lambda command, m=machine, text=text: (
            m.log.write_text(text) and gpu_process.Done(86, 1.0, text) if "memcheck" in command else {}
        )
        _, results = call(machine, "--parts", "sanitizer", "--again")
        unit = results["parts"]["sanitizer"]["every-op memcheck"]
        assert (unit["status"], unit["result"]["errors"]) == (status, 2)


def test_a_missing_sanitizer_is_a_failure(call, monkeypatch):
    monkeypatch.setattr(gpu_parts, "find_sanitizer", lambda environ: None)
    code, results = call(Machine(), "--parts", "sanitizer")
    units = results["parts"]["sanitizer"]
    assert code == 1
    assert units["every-op alone"]["status"] == "ok"
    assert units["few-iterations racecheck"]["reason"].startswith("compute-sanitizer is not installed")


def test_a_sanitizer_that_says_nothing_is_a_failure(call, monkeypatch):
    monkeypatch.setattr(gpu_parts, "find_sanitizer", lambda environ: "/bin/compute-sanitizer")
    _, results = call(Machine(), "--parts", "sanitizer")
    assert results["parts"]["sanitizer"]["every-op memcheck"]["reason"] == "compute-sanitizer printed no summary"


# ---- processes ----


def test_a_process_ends_with_all_that_it_started(tmp_path):
    script = f"(trap '' TERM; sleep 600) & echo $! > {tmp_path}/child; echo said; touch {tmp_path}/ready; wait"
    ready = (tmp_path / "ready").exists
    done = gpu_process.run(["bash", "-c", script], seconds=300, environ={}, log=tmp_path / "log", stalled=ready)
    assert (done.ended, done.output) == ("stalled", "said\n")
    status = pathlib.Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
    while status.exists() and status.read_text().split()[2] != "Z":
        time.sleep(0.05)


def test_a_process_ends_at_its_limit(tmp_path):
    done = gpu_process.run(["sleep", "600"], seconds=0.1, environ={}, log=tmp_path / "log")
    assert (done.ended, done.code) == ("limit", -15)


# ---- tables ----


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_tables, "RESULTS", tmp_path)
    (tmp_path / "made-up").mkdir()
    return tmp_path / "made-up"


def results_of(device="cuda"):
    rows = {
        "snippet fp32": [row("native", 25e-6, 1.0), row("eager", 500e-6, 20.0), row("eager graph", 45e-6, 1.8)],
        "wide bf16": [row("native", 9e-3, 1.0, 0.4), row("composed", 4.5e-3, 0.5, 0.8), row("eager", 9e-3, 1.0)],
    }
    autos = {"snippet fp32": "native", "wide bf16": "composed"}
    units = {name: {"status": "ok", "result": {"rows": rows[name], "auto": autos[name]}} for name in rows}
    return {"device": device, "dry_run": device == "cpu", "machine": CARD, "parts": {"iterations": units}}


def test_targets_have_what_was_measured_beside_them(folder):
    (folder / "results.json").write_text(json.dumps(results_of()))
    page = tables.filled("before\n<!-- gpu targets -->\nold\n<!-- end of gpu -->\nafter\n")
    assert page.startswith("before\n<!-- gpu targets -->\nNVIDIA Made Up, torch 2.11.0+cu130, driver 580 (`benchmarks/")
    lines = dict(re.findall(r"^\| (.*?) \| (.*) \|$", page, re.M))
    assert lines["`snippet` in fp32 ≤ 30 µs"] == "25.0 µs | yes"
    assert lines["`snippet` in fp32, against eager ≥ 15×"] == "20.00× | yes"
    assert lines["`snippet` in fp32, against eager in a CUDA graph ≥ 2×"] == "1.80× | no"
    assert lines["`mnist_paper` in TF32 ≤ 80 µs"] == "not measured | –"
    assert lines["`wide` in bf16 ≥ 75% of the card's rate of products"] == "80% | yes"  # of the engine that runs it
    assert lines["`wide` in bf16, against eager ≥ 1.3×"] == "2.00× | yes"
    assert lines["every workload, against eager in a CUDA graph ≥ 1×"].endswith("`snippet` in fp32 | yes")


def test_everything_is_under_captions(folder):
    (folder / "results.json").write_text(json.dumps(results_of()))
    page = tables.filled("<!-- gpu everything -->\n<!-- end of gpu -->")
    assert re.findall(r"^\*\*(\w+)\*\*$", page, re.M) == ["Rates", "Targets", "Iterations", "Ops", "Training"]
    assert "| `wide` | bf16 | native | 9,000 | 1.00× | 1.00 | 40% | 10% |" in page


@pytest.mark.parametrize("kind", [*gpu_tables.KINDS, "everything"])
def test_without_results_nothing_is_measured(folder, kind):
    text = f"<!-- gpu {kind} -->\n<!-- end of gpu -->"
    assert tables.filled(text) == f"<!-- gpu {kind} -->\n{gpu_tables.NOT_MEASURED}<!-- end of gpu -->"


def test_a_dry_run_is_no_cards(folder):
    (folder / "results.json").write_text(json.dumps(results_of("cpu")))
    with pytest.raises(SystemExit, match="is of a dry run, not of a GPU"):
        tables.filled("<!-- gpu summary -->\n<!-- end of gpu -->")


@pytest.mark.parametrize("arguments", [["--parts", "build,test"], ["--workload", "rign"]])
def test_names_are_checked(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        gpu_check.main(arguments)
    assert "must be of" in capsys.readouterr().err
