"""A plugin of pytest that writes each test's outcome down at once, so that it outlives a crash or a kill.

    ONE_BY_ONE=FILE pytest -p one_by_one

The file has a line of JSON for each beginning and each outcome. Tests that it already has outcomes of are left out, so
the same command again goes on behind the test that ended the process. After an error that spoils the process's GPU the
run ends with exit code 87, for the next one to go on.
"""

import json
import os
from pathlib import Path

import pytest

SPOILED = 87
_SPOILING = (
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "unspecified launch failure",
    "device-side assert",
    "hardware stack error",
)


def read(path: Path) -> tuple[dict[str, dict], str | None]:
    """The outcomes by test, and the test that began and has none."""
    outcomes, begun = {}, None
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:  # cut off by a kill
            continue
        if "begins" in entry:
            begun = entry["begins"]
            continue
        begun = None if entry["test"] == begun else begun
        if outcomes.get(entry["test"], {}).get("outcome") != "failed":
            outcomes[entry["test"]] = entry
    return outcomes, begun


def write(path: Path, entry: dict) -> None:
    with path.open("a") as file:
        file.write(json.dumps(entry) + "\n")


def _path() -> Path:
    return Path(os.environ["ONE_BY_ONE"])


def pytest_collection_modifyitems(config, items):
    done, _ = read(_path())
    left_out = [item for item in items if item.nodeid in done]
    if left_out:
        items[:] = [item for item in items if item.nodeid not in done]
        config.hook.pytest_deselected(items=left_out)


def pytest_runtest_logstart(nodeid):
    write(_path(), {"begins": nodeid})


def pytest_collectreport(report):
    if report.failed:
        write(_path(), {"test": report.nodeid, "outcome": "failed", "why": _why(report)})


def pytest_runtest_logreport(report):
    if report.when != "call" and report.passed:
        return
    why = "" if report.passed else _why(report)
    outcome = "xfailed" if hasattr(report, "wasxfail") and report.skipped else report.outcome
    write(_path(), {"test": report.nodeid, "outcome": outcome, "why": why})
    if report.failed and any(words in why for words in _SPOILING):
        pytest.exit(f"{report.nodeid} spoiled the GPU for this process", returncode=SPOILED)


def _why(report) -> str:
    longrepr = report.longrepr
    if isinstance(longrepr, tuple):  # of a skip: file, line, reason
        return longrepr[2]
    return str(longrepr)[-1500:]
