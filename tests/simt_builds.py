"""How the emulator of tests/simt and what runs on it are compiled: plain, under sanitizers, with access hooks."""

import concurrent.futures
import os
import pathlib
import shutil
import subprocess

import pytest

SIMT = pathlib.Path(__file__).parent / "simt"
EMULATOR = [SIMT / f"{name}.cpp" for name in ("machine", "fiber", "simt", "simt_ptx", "cuda_runtime")]
ACCESS_CHECKS = [SIMT / "access.cpp", SIMT / "transactions.cpp"]

COMMON = [
    *("-std=c++17", "-g1", "-fPIC", "-fno-strict-aliasing"),  # of debug information, the lines alone
    *("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-function"),
]
SANITIZE = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
HOOKS = ["-O1", "-fsanitize=thread", "-fno-tree-sra", "--param", "tsan-instrument-func-entry-exit=0"]


class Builder:
    """Compiles what a build needs, each object once."""

    def __init__(self, folder: pathlib.Path):
        self.compiler = shutil.which("g++")
        if self.compiler is None:
            pytest.skip("the emulator needs g++")
        self.folder = folder

    def run(self, *arguments):
        done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, cwd=self.folder)
        assert done.returncode == 0, done.stderr

    def object(self, source, flags, tag):
        target = self.folder / f"{source.stem}.{tag}.o"
        as_nvcc_does = ["-include", "cuda_runtime.h"] if source.suffix == ".cu" else []
        if not target.exists():
            includes = [f"-I{SIMT}", *as_nvcc_does]
            self.run(self.compiler, *COMMON, *flags, *includes, "-x", "c++", "-c", source, "-o", target)
        return target

    def objects(self, sources, flags, tag):
        with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            return list(pool.map(lambda source: self.object(source, flags, tag), sources))

    def link(self, name, objects, *flags):
        target = self.folder / name
        self.run(self.compiler, *objects, *flags, "-ldl", "-o", target)
        return target
