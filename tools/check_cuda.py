"""Checks the compiled CUDA kernels without a GPU: nothing spilled, every architecture there, the instructions seen.

    python tools/check_cuda.py [--log BUILD_LOG] [--json] [EXTENSION]

The resources are the compiler's own report: read from the log of a build with CMAKE_ARGS=-DCMAKE_CUDA_FLAGS=-Xptxas=-v,
or, without a log, from compiling csrc/cuda once more. The instructions are those of the extension, disassembled;
default: that of the installed pygan. Exits with 1 and a line for each fault.
"""

import argparse
import importlib.util
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from find_cuda import DEFAULT_ARCHS, Cuda, nvcc_paths, read_nvcc  # noqa: E402

# Instructions, as regular expressions on the opcodes of the disassembly.
ASYNC_COPY = r"LDGSTS\."
MATRIX_LOAD = r"LDSM\."
WIDE_LOAD = r"LDG\.E\.(?:\w+\.)*128\b"
WIDE_STORE = r"STG\.E\.(?:\w+\.)*128\b"

# Which kernels (a regular expression on the demangled name, where an enumerator is its number) must hold which
# instructions. Every row must match a kernel in every architecture's machine code, and every kernel it matches must
# have all of its instructions. Products are gemm_kernel<Math, Tile, Along, Along, ...> of csrc/cuda/gemm.h.
EXPECTED = (
    ("fp32 products", r"\bgemm_kernel<\(Math\)0,", (r"FFMA\b", ASYNC_COPY)),
    ("TF32 products", r"\bgemm_kernel<\(Math\)1,", (r"HMMA\.1688\.F32\.TF32", ASYNC_COPY)),
    # ldmatrix transposes 16-bit elements alone: of TF32, only operands that lie along the inner dimension
    ("TF32 products of rows", r"\bgemm_kernel<\(Math\)1, \w+, .*\(Along\)0", (MATRIX_LOAD,)),
    ("bf16 products", r"\bgemm_kernel<\(Math\)2,", (r"HMMA\.16816\.F32\.BF16", ASYNC_COPY, MATRIX_LOAD)),
    ("fp16 products", r"\bgemm_kernel<\(Math\)3,", (r"HMMA\.16816\.F32$", ASYNC_COPY, MATRIX_LOAD)),
    ("fp64 products", r"\bgemm_kernel<\(Math\)4,", (r"DFMA\b", ASYNC_COPY)),
    ("fp32 updates of layers", r"\bgemm_group_kernel<\(Math\)0,", (r"FFMA\b", ASYNC_COPY)),
    ("TF32 updates of layers", r"\bgemm_group_kernel<\(Math\)1,", (r"HMMA\.1688\.F32\.TF32", ASYNC_COPY)),
    ("bf16 updates of layers", r"\bgemm_group_kernel<\(Math\)2,", (r"HMMA\.16816\.F32\.BF16", ASYNC_COPY, MATRIX_LOAD)),
    ("fp16 updates of layers", r"\bgemm_group_kernel<\(Math\)3,", (r"HMMA\.16816\.F32$", ASYNC_COPY, MATRIX_LOAD)),
    ("the engine's head", r"\bengine_head_kernel<(?:float|double)>", (WIDE_LOAD, WIDE_STORE)),
    ("dropout", r"\bdropout_kernel<", (WIDE_LOAD, WIDE_STORE)),
    ("losses", r"\b(?:values|backward)_kernel<", (WIDE_LOAD, WIDE_STORE)),
    ("the discriminator's head", r"\bhead_(?:sums_)?kernel<", (WIDE_LOAD,)),
    ("gradients of the head", r"\bhead_gradients_kernel<", (WIDE_LOAD, WIDE_STORE)),
    ("narrow networks", r"\bmlp_(?:forward|backward)_kernel<", (r"FFMA\b", ASYNC_COPY)),
    ("noise", r"\bnoise_kernel<", (WIDE_STORE,)),
    ("centred rows", r"\bcentred_kernel<", (WIDE_LOAD, WIDE_STORE)),
    ("updates", r"\bupdate_kernel<", (WIDE_LOAD, WIDE_STORE)),
)


@dataclass
class Resources:
    """What the compiler gave a kernel on one architecture; sizes in bytes, shared memory without the launch's own."""

    kernel: str
    arch: str
    registers: int = 0
    shared: int = 0
    stack: int = 0
    spill_stores: int = 0
    spill_loads: int = 0


def parse_report(lines: Iterable[str]) -> list[Resources]:
    """The kernels in what `ptxas -v` says; spills of functions that a kernel calls count as the kernel's."""
    found: dict[tuple[str, str], Resources] = {}
    current = None
    for line in lines:
        if match := re.search(r"Compiling entry function '(\S+)' for '(sm_\w+)'", line):
            current = found[match.groups()] = Resources(*match.groups())
        elif current and (
            match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line)
        ):
            stack, stores, loads = map(int, match.groups())
            current.stack = max(current.stack, stack)
            current.spill_stores += stores
            current.spill_loads += loads
        elif current and (match := re.search(r"Used (\d+) registers", line)):
            current.registers = int(match.group(1))
            shared = re.search(r"(\d+) bytes smem", line)
            current.shared = int(shared.group(1)) if shared else 0
    return list(found.values())


def compile_report(folder: str) -> Iterator[str]:
    """What ptxas says while csrc/cuda is compiled for the default architectures."""
    nvcc = next((found for path in nvcc_paths(os.environ) if (found := read_nvcc(path))), None)
    if nvcc is None:
        raise SystemExit("no nvcc was found: install the CUDA toolkit, or give a build's log with --log")
    codes = [code for code in Cuda(nvcc, DEFAULT_ARCHS).codes if code.startswith("sm_")]
    targets = [f"-gencode=arch={code.replace('sm', 'compute')},code={code}" for code in codes]
    for source in sorted((ROOT / "csrc" / "cuda").glob("*.cu")):
        command = [nvcc.path, "-std=c++17", "-O3", "-Werror=all-warnings", "-Xptxas=-v", *targets]
        done = subprocess.run(
            [*command, "-c", source, "-o", f"{folder}/{source.stem}.o"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"{source.name} does not compile:\n{done.stdout}")
        yield from done.stdout.splitlines()


def cuobjdump() -> str:
    """The disassembler: of PATH, of a CUDA toolkit, or the one that comes with torch's Triton."""
    places = [shutil.which("cuobjdump"), *(path.with_name("cuobjdump") for path in nvcc_paths(os.environ))]
    if triton := importlib.util.find_spec("triton"):
        places.append(Path(triton.submodule_search_locations[0], "backends", "nvidia", "bin", "cuobjdump"))
    for place in places:
        if place and Path(place).is_file():
            return str(place)
    raise SystemExit("no cuobjdump was found: it comes with the CUDA toolkit, and with a torch built with CUDA")


def disassembly(extension: Path, option: str) -> Iterator[str]:
    """The lines of one of cuobjdump's listings."""
    with tempfile.TemporaryFile("w+") as said:
        with subprocess.Popen(
            [cuobjdump(), option, extension], stdout=subprocess.PIPE, stderr=said, text=True
        ) as process:
            yield from process.stdout
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"cuobjdump {option} {extension} failed: {said.read()}")


def parse_code(lines: Iterable[str]) -> dict[tuple[str, str], set[str]]:
    """(kernel, architecture) -> the opcodes in its machine code."""
    code: dict[tuple[str, str], set[str]] = {}
    arch, opcodes = "", set()
    for line in lines:
        if match := re.search(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)", line):
            opcodes.add(match.group(1))
        elif match := re.search(r"code for (sm_\w+)", line):
            arch = match.group(1)
        elif match := re.search(r"Function : (\S+)", line):
            opcodes = code.setdefault((match.group(1), arch), set())
    return code


def parse_archs(lines: Iterable[str]) -> set[str]:
    """The architectures in the names that cuobjdump lists."""
    return {match.group(1) for line in lines if (match := re.search(r"\.(sm_\w+)\.(?:cubin|ptx)", line))}


def demangled(names: Iterable[str]) -> dict[str, str]:
    """Each name as C++ writes it, without what all of them share."""
    names = sorted(set(names))
    done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return {name: readable(text) for name, text in zip(names, done.stdout.splitlines(), strict=True)}


def readable(name: str) -> str:
    """A demangled kernel without its namespaces, return type and parameters.

    >>> readable("void pygan::cuda::_GLOBAL__N__1::gemm<(Kind)1, float>(float const*)")
    'gemm<(Kind)1, float>'
    """
    name = re.sub(r"\(anonymous namespace\)::|_GLOBAL__N__\w+::|\bpygan::(?:cuda::)?", "", name.removeprefix("void "))
    depth = 0
    for i in range(len(name) - 1, -1, -1) if name.endswith(")") else ():
        depth += {")": 1, "(": -1}.get(name[i], 0)
        if depth == 0:
            return name[:i]
    return name


def check_spills(resources: list[Resources], names: dict[str, str]) -> list[str]:
    if not resources:
        return ["the compiler's report names no kernel: was it built with CMAKE_ARGS=-DCMAKE_CUDA_FLAGS=-Xptxas=-v?"]
    return [
        f"{names[r.kernel]} spills registers on {r.arch}: {r.spill_stores} bytes stored, {r.spill_loads} loaded"
        for r in resources
        if r.spill_stores or r.spill_loads
    ]


def check_archs(code: set[str], ptx: set[str], expected: list[str]) -> list[str]:
    built = code | {arch.replace("sm_", "compute_") for arch in ptx}
    faults = [f"{arch} was to be built and is not in the extension" for arch in expected if arch not in built]
    return faults or ([] if expected else ["the extension was built without CUDA"])


def check_instructions(code: dict[tuple[str, str], set[str]], names: dict[str, str], expected=EXPECTED) -> list[str]:
    faults = []
    archs = sorted({arch for _, arch in code}) or ["any architecture"]
    for title, pattern, instructions in expected:
        for arch in archs:
            matched = {
                names[kernel]: ops
                for (kernel, of), ops in code.items()
                if of == arch and re.search(pattern, names[kernel])
            }
            if not matched:
                faults.append(f"{title}: no kernel on {arch} has a name like {pattern}")
            faults += [
                f"{title}: {kernel} on {arch} has no instruction like {instruction}"
                for kernel, opcodes in matched.items()
                for instruction in instructions
                if not any(re.match(instruction, opcode) for opcode in opcodes)
            ]
    return faults


def table(resources: list[Resources], names: dict[str, str]) -> str:
    """A line a kernel: on each architecture registers, static shared memory, stack, spilled bytes."""
    archs = sorted({r.arch for r in resources}, key=lambda arch: int(re.search(r"\d+", arch).group()))
    rows: dict[str, dict[str, str]] = {}
    for r in resources:
        spilled = r.spill_stores + r.spill_loads
        rows.setdefault(names[r.kernel], {})[r.arch] = f"{r.registers}/{r.shared}/{r.stack}/{spilled}"
    width = max(map(len, rows), default=0)
    lines = [f"{'registers/shared/stack/spilled':{width}}  " + "".join(f"{arch:>16}" for arch in archs)]
    lines += [
        f"{name:{width}}  " + "".join(f"{rows[name].get(arch, '-'):>16}" for arch in archs) for name in sorted(rows)
    ]
    return "\n".join(lines)


def installed_extension() -> Path:
    spec = importlib.util.find_spec("pygan")
    folder = Path(spec.submodule_search_locations[0]) if spec else ROOT / "pygan"
    for path in folder.glob("_C*.so"):
        return path
    raise SystemExit(f"{folder} holds no compiled extension: name one")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extension", nargs="?", type=Path, help="default: that of the installed pygan")
    parser.add_argument("--log", type=Path, help="a build's log with the report of ptxas -v")
    parser.add_argument("--json", action="store_true", help="print the resources and faults as JSON")
    options = parser.parse_args()

    extension = options.extension or installed_extension()
    if options.log:
        resources = parse_report(options.log.read_text(errors="replace").splitlines())
    else:
        with tempfile.TemporaryDirectory() as folder:
            resources = parse_report(compile_report(folder))
    code = parse_code(disassembly(extension, "-sass"))
    ptx = parse_archs(disassembly(extension, "-lptx"))
    names = demangled([*(r.kernel for r in resources), *(kernel for kernel, _ in code)])
    expected = runpy.run_path(str(extension.with_name("_build_info.py")))["ARCHS"]

    faults = check_spills(resources, names)
    faults += check_archs({arch for _, arch in code}, ptx, expected)
    faults += check_instructions(code, names)
    if options.json:
        rows = [asdict(r) | {"kernel": names[r.kernel]} for r in resources]
        print(json.dumps({"archs": expected, "kernels": rows, "faults": faults}, indent=1))
    else:
        print(table(resources, names))
        print(
            "\n".join(faults) or f"{len(resources)} kernels, {', '.join(expected)}: no spills, all instructions there"
        )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
