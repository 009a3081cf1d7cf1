"""A thin shim: finds torch, lets CMake and Ninja compile csrc/, puts the result where setuptools wants it."""

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tools"))
from build_backend import TORCH_RANGE, Torch, find_torch, tool  # noqa: E402
from find_cuda import Cuda, decide  # noqa: E402

BUILD_INFO = "_build_info.py"
SIMT = os.environ.get("PYGAN_SIMT") == "1"
SANITIZE = os.environ.get("PYGAN_SANITIZE") == "1"


def cuda_variables(cuda: Cuda | None) -> dict[str, str]:
    if cuda is None:
        return {"PYGAN_CUDA": "OFF"}
    return {
        "PYGAN_CUDA": "ON",
        "PYGAN_CUDA_VERSION": cuda.nvcc.version,
        "PYGAN_CUDA_CODES": ";".join(cuda.codes),
        "CMAKE_CUDA_COMPILER": str(cuda.nvcc.path),
        "CMAKE_CUDA_ARCHITECTURES": ";".join(cuda.archs),
    }


def cmake_arguments(torch: Torch, cuda: Cuda | None, version: str) -> list[str]:
    import pybind11

    variables = {
        "CMAKE_MAKE_PROGRAM": tool("ninja"),
        "CMAKE_BUILD_TYPE": os.environ.get("CMAKE_BUILD_TYPE", "Release"),
        "PYGAN_VERSION": version,
        "PYGAN_SIMT": "ON" if SIMT else "OFF",
        "PYGAN_SANITIZE": "ON" if SANITIZE else "OFF",
        **cuda_variables(cuda),
        "PYGAN_PYTHON_INCLUDE": sysconfig.get_path("include"),
        "PYGAN_PYBIND11_INCLUDE": pybind11.get_include(),
        "PYGAN_EXT_SUFFIX": sysconfig.get_config_var("EXT_SUFFIX"),
        "PYGAN_TORCH_ROOT": torch.root,
        "PYGAN_TORCH_VERSION": torch.version,
        "PYGAN_OPENMP_LIBRARY": torch.openmp or "gomp",
    }
    more = shlex.split(os.environ.get("CMAKE_ARGS", ""))
    return [f"-D{name}={value}" for name, value in variables.items()] + more


def jobs() -> str:
    asked = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or os.environ.get("MAX_JOBS")
    return asked or str(len(os.sched_getaffinity(0)))


def build_folder(torch: Torch, cuda: Cuda | None) -> Path:
    """One for each kind of build: CMake would compile everything again when the kind changes.

    Sanitizers are no kind of their own beside the emulator: they instrument the kernels alone.
    """
    kind = "simt" if SIMT else f"cuda{cuda.nvcc.version}" if cuda else "cpu"
    name = f"cmake-{sys.implementation.cache_tag}-torch{torch.version}-{kind}"
    return ROOT / "build" / (name + ("-sanitize" if SANITIZE and not SIMT else ""))


class CMakeBuild(build_ext):
    """Builds in build/cmake-*, which stays: a later build compiles only what changed."""

    def build_extension(self, ext: Extension) -> None:
        self.force = True  # copy what was built even over files that look newer: another build's
        torch = find_torch()
        cuda = decide(torch)
        folder = build_folder(torch, cuda)
        arguments = cmake_arguments(torch, cuda, self.distribution.get_version())
        cmake = tool("cmake")
        self._run(cmake, "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", *arguments)
        self._run(cmake, "--build", str(folder), "--parallel", jobs())
        built = Path(self.get_ext_fullpath(ext.name))
        built.parent.mkdir(parents=True, exist_ok=True)
        self.copy_file(str(folder / built.name), str(built))
        self.info = folder / BUILD_INFO
        self.copy_file(str(self.info), str(built.parent / BUILD_INFO))

    def copy_extensions_to_source(self) -> None:
        """An editable install imports from the source folder, so what was built is put there."""
        for old in (ROOT / "pygan").glob("_C*.so"):
            old.unlink()  # a new file in its place: a process that has it loaded keeps what it has
        super().copy_extensions_to_source()
        self.copy_file(str(self.info), str(ROOT / "pygan" / BUILD_INFO))

    @staticmethod
    def _run(*command: str) -> None:
        done = subprocess.run(command, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise SystemExit(f"pygan was not built: the command above failed ({command[0]} {command[1]} ...)")


def torch_requirement() -> str:
    """A built package needs the torch it was built with; the source alone, any that is supported."""
    torch = None if "sdist" in sys.argv else find_torch()
    return torch.requirement if torch else TORCH_RANGE


setup(
    ext_modules=[Extension("pygan._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
    install_requires=[
        torch_requirement(),
        "numpy>=1.26",
        "typer>=0.12",
        "rich>=13",
        "matplotlib>=3.8",
        "scikit-learn>=1.4",
        "safetensors>=0.4.3",
    ],
)
