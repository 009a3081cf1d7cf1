"""Whether the CUDA backend is built, with which nvcc and for which GPUs.

Decided by what is installed and by the environment, never by a GPU in the machine: a package may be built on one
machine for another.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# CMake's spelling: -real is machine code alone, without a suffix there is PTX too, which newer GPUs compile.
DEFAULT_ARCHS = ("80-real", "90-real", "100-real", "120")
OLDEST_ARCH = 80


@dataclass(frozen=True)
class Nvcc:
    """A CUDA compiler: its path, its version (13.0.88), the architectures it knows (80, 90, ...)."""

    path: Path
    version: str
    archs: frozenset[int]

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])


@dataclass(frozen=True)
class Cuda:
    """What the CUDA backend is built with: the compiler, and architectures in CMake's spelling."""

    nvcc: Nvcc
    archs: tuple[str, ...]

    @property
    def codes(self) -> list[str]:
        """The architectures as compilers and drivers name them: machine code sm_80, PTX compute_120."""
        codes = []
        for arch in self.archs:
            name = arch.removesuffix("-real").removesuffix("-virtual")
            codes += [] if arch.endswith("-virtual") else [f"sm_{name}"]
            codes += [] if arch.endswith("-real") else [f"compute_{name}"]
        return codes


def parse_version(text: str) -> str | None:
    """The version in what `nvcc --version` prints."""
    found = re.search(r"\bV(\d+(?:\.\d+)+)", text)
    return found and found.group(1)


def read_nvcc(path: Path) -> Nvcc | None:
    """The compiler at this path, or None if it is none."""

    def says(option: str) -> str:
        try:
            done = subprocess.run(
                [path, option], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
            )
        except OSError:
            return ""
        return done.stdout if done.returncode == 0 else ""

    version = parse_version(says("--version"))
    archs = frozenset(map(int, re.findall(r"\bsm_(\d+)\b", says("--list-gpu-code"))))
    return Nvcc(path, version, archs) if version and archs else None


def nvcc_paths(environ: Mapping[str, str]) -> list[Path]:
    """Where an nvcc may be, the most deliberate place first."""
    places = [environ.get("CUDACXX") and shutil.which(environ["CUDACXX"])]
    places += [f"{environ[name]}/bin/nvcc" for name in ("CUDA_HOME", "CUDA_PATH") if environ.get(name)]
    places += [shutil.which("nvcc", path=environ.get("PATH", "")), "/usr/local/cuda/bin/nvcc"]
    files = [Path(place) for place in places if place and Path(place).is_file()]
    return list(dict.fromkeys(files))


def parse_archs(text: str) -> tuple[str, ...]:
    """TORCH_CUDA_ARCH_LIST in CMake's spelling: "8.0;9.0+PTX" is 80-real, 90."""
    archs, older = {}, []
    for entry in re.split(r"[;\s]+", text.strip()):
        found = re.fullmatch(r"(\d+)\.(\d)(a?)(\+PTX)?", entry)
        if not found:
            raise SystemExit(
                f"TORCH_CUDA_ARCH_LIST names {entry!r}, which pygan's build does not know: "
                f"name compute capabilities, as in '8.0;9.0+PTX'."
            )
        major, minor, suffix, ptx = found.groups()
        if int(major + minor) < OLDEST_ARCH:
            older.append(entry)
            continue
        arch = f"{major}{minor}{suffix}"
        archs[arch] = archs.get(arch, "-real") and ("" if ptx else "-real")
    hint = "pygan's kernels need 8.0 or newer (on older GPUs it uses torch's own operations)"
    if not archs:
        raise SystemExit(f"TORCH_CUDA_ARCH_LIST names {' and '.join(older)}, but {hint}.")
    if older:
        print(f"pygan: {' and '.join(older)} of TORCH_CUDA_ARCH_LIST left out: {hint}", flush=True)
    return tuple(arch + suffix for arch, suffix in archs.items())


def number(arch: str) -> int:
    return int(re.match(r"\d+", arch).group())


def choose_archs(nvcc: Nvcc, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Those of TORCH_CUDA_ARCH_LIST, else the default ones that this nvcc knows, the newest of them with PTX."""
    if asked := environ.get("TORCH_CUDA_ARCH_LIST", "").strip(" ;"):
        archs = parse_archs(asked)
        if unknown := [arch for arch in archs if number(arch) not in nvcc.archs]:
            raise SystemExit(
                f"TORCH_CUDA_ARCH_LIST asks for sm_{number(unknown[0])}, which {nvcc.path} {nvcc.version} cannot "
                f"compile for: leave it out, or install a newer CUDA toolkit {nvcc.major}."
            )
        return archs
    known = [arch for arch in DEFAULT_ARCHS if number(arch) in nvcc.archs]
    if not known:
        raise SystemExit(
            f"{nvcc.path} {nvcc.version} compiles for none of {', '.join(f'sm_{number(a)}' for a in DEFAULT_ARCHS)}: "
            f"install a newer CUDA toolkit {nvcc.major}, or set PYGAN_CUDA=0."
        )
    return (*known[:-1], known[-1].removesuffix("-real"))


def find_nvcc(torch, environ: Mapping[str, str]) -> tuple[Nvcc | None, str]:
    """The nvcc for this torch, or None and why there is none."""
    if not torch.cuda:
        return None, f"torch {torch.version} was built without CUDA: install a torch with CUDA beside an nvcc"
    wanted = int(torch.cuda.split(".")[0])
    found = [nvcc for path in nvcc_paths(environ) if (nvcc := read_nvcc(path))]
    for nvcc in found:
        if nvcc.major == wanted:
            return nvcc, ""
    have = " and ".join(f"{nvcc.path} is of CUDA {nvcc.version}" for nvcc in found) or "no nvcc was found"
    return None, (
        f"torch {torch.version} is of CUDA {torch.cuda} and {have}: install the CUDA toolkit {wanted}, "
        f"or name its nvcc in the environment variable CUDACXX"
    )


def decide(torch, environ: Mapping[str, str] = os.environ) -> Cuda | None:
    """What to build the CUDA backend with, or None; says which in the build's log."""
    asked = environ.get("PYGAN_CUDA", "")
    if asked not in ("", "0", "1"):
        raise SystemExit(f"PYGAN_CUDA must be 1 (build the CUDA backend), 0 (do not) or unset, got {asked!r}.")
    if environ.get("PYGAN_SIMT", "") not in ("", "0", "1"):
        raise SystemExit(f"PYGAN_SIMT must be 1 (emulate the CUDA kernels) or unset, got {environ['PYGAN_SIMT']!r}.")
    if environ.get("PYGAN_SIMT") == "1":
        if asked == "1":
            raise SystemExit("PYGAN_SIMT=1 emulates the CUDA kernels in place of building them: unset PYGAN_CUDA.")
        return None
    if asked == "0":
        print("pygan: the CUDA backend is left out: PYGAN_CUDA=0", flush=True)
        return None
    nvcc, lacking = find_nvcc(torch, environ)
    named = environ.get("CUDACXX")
    if nvcc and named and shutil.which(named) != str(nvcc.path):
        passed_over = (
            f"CUDACXX={named} is no nvcc of CUDA {torch.cuda.split('.')[0]}, which torch {torch.version} needs"
        )
        if asked == "1":
            raise SystemExit(f"PYGAN_CUDA=1, but {passed_over}.")
        print(f"pygan: {passed_over}: passed over", flush=True)
    if nvcc:
        cuda = Cuda(nvcc, choose_archs(nvcc, environ))
        print(f"pygan: the CUDA backend is built by {nvcc.path} {nvcc.version} for {', '.join(cuda.codes)}", flush=True)
        return cuda
    if asked == "1":
        raise SystemExit(f"PYGAN_CUDA=1, but {lacking}.")
    print(f"pygan: the CUDA backend is left out: {lacking}", flush=True)
    return None
