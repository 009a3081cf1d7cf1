"""The PEP 517 backend: setuptools, and the one thing setuptools cannot know: the torch to build against.

pygan is built against the torch that will run it. An isolated build does not see the packages of the
environment it builds for, so the interpreter itself is asked; only where it has no torch that pygan supports
does the build require one, and then the same requirement brings one into the environment.
"""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  the hooks that are not redefined below

TORCH_RANGE = "torch>=2.11,<2.15"
TORCH_MINORS = ((2, 11), (2, 14))

# torch is read, not imported: its version file alone says what is needed, in milliseconds.
PROBE = """
import importlib.util, json, pathlib, runpy
spec = importlib.util.find_spec("torch")
root = pathlib.Path(spec.origin).parent if spec and spec.origin else None
found = runpy.run_path(str(root / "version.py")) if root and (root / "version.py").is_file() else None
print(json.dumps(found and {"root": str(root), "version": found["__version__"], "cuda": found.get("cuda")}))
"""


@dataclass(frozen=True)
class Torch:
    """A torch that is installed: its package folder, its version, the CUDA it was built with or None."""

    root: Path
    version: str
    cuda: str | None

    @property
    def minor(self) -> tuple[int, int]:
        major, minor = re.match(r"(\d+)\.(\d+)", self.version).groups()
        return int(major), int(minor)

    @property
    def supported(self) -> bool:
        return TORCH_MINORS[0] <= self.minor <= TORCH_MINORS[1]

    @property
    def requirement(self) -> str:
        """What a wheel built against this torch needs to run: the C++ interface changes with each minor."""
        return "torch=={}.{}.*".format(*self.minor)

    @property
    def openmp(self) -> Path | None:
        """The libgomp that this torch brings, or None where it uses the system's."""
        for folder in (self.root / "lib", self.root.parent / "torch.libs"):
            for path in sorted(folder.glob("libgomp*.so*")):
                return path
        return None


def find_torch(python: str = sys.executable) -> Torch | None:
    """The torch of the interpreter, else the one that only this build sees, else None.

    -E hides PYTHONPATH, by which pip shows an isolated build its own packages; -P hides the current folder.
    """
    for flags in ("-EP", "-P"):
        done = subprocess.run([python, flags, "-c", PROBE], stdin=subprocess.DEVNULL, capture_output=True)
        found = json.loads(done.stdout) if done.returncode == 0 else None
        if found:
            torch = Torch(Path(found["root"]), found["version"], found["cuda"])
            if torch.supported:
                return torch
    return None


def tool(name: str) -> str | None:
    """The path of cmake or ninja: from its Python package, else from PATH."""
    if importlib.util.find_spec(name):
        package = importlib.import_module(name)
        folder = getattr(package, "CMAKE_BIN_DIR", None) or getattr(package, "BIN_DIR", None)
        if folder and (path := shutil.which(name, path=folder)):
            return path
    return shutil.which(name)


def missing_on_machine() -> str | None:
    """One sentence that says what this machine must be given before anything can be compiled, or None."""
    named = shlex.split(os.environ.get("CXX", ""))[:1]
    compilers = named or ["c++", "g++", "clang++"]
    if not any(map(shutil.which, compilers)):
        return (
            f"pygan compiles C++ and found no compiler ({', '.join(compilers)}): install one, for instance "
            "with 'apt install g++' or 'dnf install gcc-c++', or name yours in the environment variable CXX."
        )
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return (
            "pygan compiles against Python's C headers and Python.h is not installed: 'apt install "
            "python3-dev' or 'dnf install python3-devel' brings it for the system's Python."
        )
    return None


def missing_in_environment() -> str | None:
    """One sentence that says which packages a build without isolation must be given first, or None."""
    found = {"cmake": tool("cmake"), "ninja": tool("ninja"), "pybind11": importlib.util.find_spec("pybind11")}
    found[TORCH_RANGE] = find_torch()
    missing = [f"'{name}'" for name in found if not found[name]]
    if not missing:
        return None
    return f"A build of pygan without isolation needs these packages first: pip install {' '.join(missing)}"


def refuse(*sentences: str | None) -> None:
    for sentence in sentences:
        if sentence:
            raise SystemExit(sentence)


def torch_to_require() -> list[str]:
    refuse(missing_on_machine())
    return [] if find_torch() else [TORCH_RANGE]


def get_requires_for_build_wheel(config_settings=None) -> list[str]:
    return build_meta.get_requires_for_build_wheel(config_settings) + torch_to_require()


def get_requires_for_build_editable(config_settings=None) -> list[str]:
    return build_meta.get_requires_for_build_editable(config_settings) + torch_to_require()


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None) -> str:
    refuse(missing_on_machine(), missing_in_environment())
    for stale in Path("build").glob("lib*"):  # setuptools would pack modules that have left the source
        shutil.rmtree(stale)
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None) -> str:
    refuse(missing_on_machine(), missing_in_environment())
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
