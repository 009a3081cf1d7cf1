"""The CUDA backend's kernels on the emulator: their memory accesses cost the least possible, and nothing races.

Results are compared with plain loops in double, exactly: the driver's numbers make every sum exact in fp32.
"""

import dataclasses
import os
import re
import shutil
import subprocess

import pytest

from simt_builds import ACCESS_CHECKS, EMULATOR, HOOKS, SANITIZE, SIMT, Builder

CSRC = SIMT.parent.parent / "csrc"
MATHS = ["tf32", "bf16", "fp32"]
KERNELS = [CSRC / "cuda" / f"{name}.cu" for name in (*(f"layer_{math}" for math in MATHS), "dropout", "noise")]
KERNELS += [
    CSRC / "cuda" / f"{name}.cu"
    for name in (
        "optimizer",
        "gan_loss",
        "small_mlp",
        "head_loss",
        "linear_batch_norm_act",
        "parzen",
        "engine",
        "engine_head",
    )
]
# No case is of these, but linear_batch_norm_act chooses among all layers.
KERNELS += [CSRC / "cuda" / f"layer_{name}.cu" for name in ("f16", "fp64")]
KERNELS += [CSRC / "cuda" / f"engine_{name}.cu" for name in ("prepare", "fp32", "tf32", "bf16", "f16", "fp64")]
DRIVER = SIMT / "kernels.cpp"

ELEMENT_BYTES = {"tf32": 4, "fp32": 4, "bf16": 2}
SECTOR = 32
# Transactions over the least possible number, of each source line.
COALESCED, CONFLICT_FREE = 1.1, 1.0

PASSES = ["forward", "grad_x", "grad_w"]
TILES = {"large": 128, "medium": 64, "small": 32}
# How many multiprocessors make the tile table choose the tile at m, n, k of the tables below.
WHOLE = {"large": 1, "medium": 8, "small": 132}
RAGGED = {"large": 1, "medium": 4, "small": 132}

OPS = ["dropout", "noise", "momentum", "adam", "gan_loss_values", "gan_loss_mean", "gan_loss_backward"]
MLP_PASSES = ["mlp_forward", "mlp_backward"]

pytestmark = pytest.mark.slow


def layer(product: str, math: str, rows: int, cols: int, inner: int, variant: str) -> str:
    """A case whose product is rows x cols, and inner deep."""
    m, n, k = {
        "forward": (rows, cols, inner),
        "grad_x": (rows, inner, cols),
        "grad_w": (inner, rows, cols),
    }[product]
    return f"{product} {math} {m} {n} {k} {variant}"


def ragged_layers(math: str) -> list[str]:
    """Products of no whole tile, of every number of slices modulo a tile's stages: with copied and made operands."""
    depth = 128 // ELEMENT_BYTES[math]
    return [
        case
        for product in PASSES
        for slices in (1, 2, 3, 4)
        for case in (
            layer(product, math, 100, 72, slices * depth, "identity"),
            layer(product, math, 99, 71, slices * depth - 3, "dropout"),
        )
    ]


# Splits, pieces that a tile cannot hold together, single elements, and an empty inner dimension.
ODD_LAYERS = [
    case
    for math in MATHS
    for case in (
        layer("forward", math, 33, 31, 1001, "relu"),
        layer("grad_x", math, 31, 33, 1001, "relu"),
        layer("grad_w", math, 35, 30, 1001, "dropout"),
        layer("forward", math, 33, 161, 1001, "dropout"),
        layer("grad_w", math, 161, 33, 1001, "dropout"),
        f"forward {math} 33 70 65 maxout5",
        f"forward {math} 33 72 1200 maxout2",
        f"forward {math} 9 80 70 maxout40",
        f"forward {math} 5 300 70 maxout150",
        f"finish {math} 33 70 65 maxout5",
        f"finish {math} 5 300 3 maxout150",
        f"grad_x {math} 33 70 65 maxout5",
        f"grad_w {math} 33 70 65 maxout5",
        f"forward {math} 1 1 1 relu",
        f"grad_w {math} 1 1 1 relu",
        f"forward {math} 3 5 0 relu",
        f"grad_w {math} 0 3 5 relu",
    )
]
# On 132 multiprocessors the discriminator's first product is split and its blocks finish it; on one, blocks of the head
# take several tiles of rows, and a wide head's sums are added up by a launch of their own.
ENGINES = [
    "engine fp32 alternating 40 0.3 40",
    "engine fp32 simultaneous 33 0 40",
    "engine fp32 alternating 150 0 700",
    "engine tf32 alternating 40 0 40",
    "engine bf16 simultaneous 40 0.3 40",
    "engine f16 alternating 33 0 40",
    "engine fp64 alternating 33 0.3 40",
]
HEADS = [f"head {dtype} {rows} {width}" for dtype in ("f32", "bf16") for rows, width in ((128, 128), (301, 77), (3, 1))]
HEADS += ["head f32 40 5000"]
# A whole panel of 32 columns, a last one of few, fewer rows than warps.
BATCH_NORMS = [f"batch_norm {dtype} {size}" for dtype in ("f32", "bf16") for size in ("64 64 32", "37 45 9", "2 1 3")]
# Fewer samples than a warp has lanes, no whole tile, more samples than go together, rows that no vector fits.
PARZENS = [f"parzen {dtype} 133 77 65" for dtype in ("f32", "bf16", "f64")]
PARZENS += ["parzen f32 1 1 1", "parzen f32 5 8300 4", "parzen bf16 300 200 33"]
ODD_ELEMENTS = [f"{op} {dtype} {n}" for op in OPS for dtype in ("f32", "bf16") for n in (1, 1021)]
ODD_MLPS = [
    f"{op} {dtype} {rows} {width}"
    for op in MLP_PASSES
    for dtype in ("f32", "bf16")
    for rows, width in ((33, 128), (17, 33), (1, 1))
]


@dataclasses.dataclass
class Accesses:
    """What a source line's accesses of one kind cost in a case."""

    memory: str
    direction: str
    actual: int
    ideal: int
    where: str

    def fault(self) -> str | None:
        ratio = self.actual / self.ideal
        if ratio <= (COALESCED if self.memory == "global" else CONFLICT_FREE):
            return None
        return f"{self.memory} {self.direction} at {self.where}: {self.actual} for {self.ideal}, {ratio:.2f}"


@dataclasses.dataclass
class Outcome:
    case: str
    result: str
    accesses: list[Accesses]

    def faults(self) -> list[str]:
        found = [] if self.result == "ok" else [self.result]
        found += filter(None, (accesses.fault() for accesses in self.accesses))
        return [f"{self.case}: {fault}" for fault in found]

    def sectors(self, direction: str) -> int:
        return sum(a.actual for a in self.accesses if (a.memory, a.direction) == ("global", direction))


def run_cases(executable, cases, multiprocessors: int, seed: int = 0, counted: bool = False) -> list[Outcome]:
    settings = {"PYGAN_SIMT_MULTIPROCESSORS": str(multiprocessors), "PYGAN_SIMT_SEED": str(seed)}
    command = [executable, *(["counted"] if counted else [])]
    text = "".join(f"{case}\n" for case in cases)
    # Some take a minute on a core of their own; the limit is for what hangs.
    done = subprocess.run(command, input=text, capture_output=True, text=True, env=os.environ | settings, timeout=1800)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr
    outcomes = []
    for line in done.stdout.splitlines():
        if line.startswith("case "):
            outcomes.append(Outcome(*line.removeprefix("case ").split(": ", 1), []))
        else:
            memory, direction, actual, ideal, where = line.split()
            outcomes[-1].accesses.append(Accesses(memory, direction, int(actual), int(ideal), where))
    assert [outcome.case for outcome in outcomes] == cases
    return outcomes


def faults(outcomes: list[Outcome]) -> list[str]:
    return [fault for outcome in outcomes for fault in outcome.faults()]


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    return Builder(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="module")
def host_objects(builder):
    return builder.objects([*EMULATOR, *ACCESS_CHECKS, DRIVER], ["-O2"], "plain")


@pytest.fixture(scope="module")
def hooked(builder, host_objects):
    return builder.link("kernels-hooked", [*host_objects, *builder.objects(KERNELS, HOOKS, "hooked")])


@pytest.fixture(scope="module")
def sanitized(builder):
    objects = builder.objects([*EMULATOR, DRIVER, *KERNELS], SANITIZE, "sanitized")
    return builder.link("kernels-sanitized", objects, *SANITIZE)


@pytest.mark.parametrize("math", MATHS)
@pytest.mark.parametrize("tile", TILES)
def test_products_of_whole_tiles(hooked, tile, math):
    rows, cols, inner = 128, 256, 256
    cases = [layer(product, math, rows, cols, inner, kind) for kind in ("identity", "dropout") for product in PASSES]
    outcomes = run_cases(hooked, cases, WHOLE[tile], counted=True)
    assert faults(outcomes) == []

    # That this was the tile: an operand is read once for each tile of the other, the bias by each warp, 128 elements
    # at a time, once for each of its columns.
    forward = outcomes[0]
    elements = 2 * rows * cols * inner / TILES[tile] + rows * cols * TILES[tile] / 128
    assert forward.sectors("read") == elements * ELEMENT_BYTES[math] / SECTOR
    assert forward.sectors("write") == rows * cols * ELEMENT_BYTES[math] / SECTOR


@pytest.mark.parametrize("math", MATHS)
def test_split_products(hooked, math):
    cases = [layer(product, math, 64, 64, 1024, "dropout") for product in PASSES]
    outcomes = run_cases(hooked, cases, 132, counted=True)
    assert faults(outcomes) == []
    for outcome in outcomes:  # that they were split: partial products were written
        assert outcome.sectors("write") > 2 * 64 * 64 * 4 / SECTOR, outcome.case


def test_elementwise(hooked):
    cases = [f"{op} {dtype} 65536" for op in OPS for dtype in ("f32", "bf16")]
    outcomes = run_cases(hooked, cases, 132, counted=True)
    assert faults(outcomes) == []
    assert all(outcome.sectors("write") for outcome in outcomes)


@pytest.mark.parametrize(
    ("dtype", "tile"), [(dtype, tile) for dtype in ("f32", "bf16") for tile in TILES] + [("f64", "small")]
)
def test_parzen_of_whole_tiles(hooked, tile, dtype):
    rows, samples, dim = 128, 256, 256
    (outcome,) = run_cases(hooked, [f"parzen {dtype} {rows} {samples} {dim}"], WHOLE[tile], counted=True)
    assert faults([outcome]) == []


def global_faults(outcomes: list[Outcome]) -> list[str]:
    """Without bank conflicts: the pieces of neighbouring units lie apart by their number."""
    for outcome in outcomes:
        outcome.accesses = [accesses for accesses in outcome.accesses if accesses.memory == "global"]
    return faults(outcomes)


@pytest.mark.parametrize("math", MATHS)
@pytest.mark.parametrize("tile", TILES)
def test_maxout_of_whole_tiles(hooked, tile, math):
    rows, cols, inner = 128, 256, 256
    pieces = 4 if tile == "large" else 2
    (forward,) = run_cases(
        hooked, [layer("forward", math, rows, cols, inner, f"maxout{pieces}")], WHOLE[tile], counted=True
    )
    # A row of a small tile has fewer units than a transaction has bytes: one for its indices is the least.
    units = TILES[tile] // pieces
    of_row = -(-units * ELEMENT_BYTES[math] // SECTOR) + -(-units // SECTOR)
    assert forward.sectors("write") == rows * cols // TILES[tile] * of_row
    forward.accesses = [accesses for accesses in forward.accesses if accesses.direction == "read"]
    assert global_faults([forward]) == []

    if tile != "small":  # which makes what it multiplies in pieces of 128 bytes
        variant = f"maxout{16 // ELEMENT_BYTES[math]}"
        cases = [layer(product, math, rows, cols, inner, variant) for product in ("grad_x", "grad_w")]
        assert global_faults(run_cases(hooked, cases, WHOLE[tile], counted=True)) == []


@pytest.mark.parametrize("math", MATHS)
def test_maxout_of_finished_products(hooked, math):
    cases = [f"forward {math} 64 128 1024 maxout4", f"finish {math} 64 320 8 maxout5"]
    assert global_faults(run_cases(hooked, cases, 132, counted=True)) == []


@pytest.mark.parametrize("multiprocessors", [1, 132], ids=["one buffer of weights", "two"])
def test_narrow_networks(hooked, multiprocessors):
    cases = [f"{op} {dtype} 64 128" for op in MLP_PASSES for dtype in ("f32", "bf16")]
    assert faults(run_cases(hooked, cases, multiprocessors, counted=True)) == []


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("tile", TILES)
def test_no_race_at_ragged_shapes(hooked, tile, seed):
    cases = [case for math in MATHS for case in ragged_layers(math)]
    assert faults(run_cases(hooked, cases, RAGGED[tile], seed)) == []


@pytest.mark.parametrize("seed", [0, 1])
def test_no_race_at_odd_shapes(hooked, seed):
    assert faults(run_cases(hooked, ODD_LAYERS + ODD_ELEMENTS, 132, seed)) == []
    for multiprocessors in (1, 132):
        assert faults(run_cases(hooked, ODD_MLPS, multiprocessors, seed)) == []


@pytest.mark.parametrize("multiprocessors", [132, 1])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_race_in_the_head(hooked, seed, multiprocessors):
    assert faults(run_cases(hooked, HEADS, multiprocessors, seed)) == []


def test_batch_norm_of_whole_panels(hooked):
    cases = [f"batch_norm {dtype} 64 64 64" for dtype in ("f32", "bf16")]
    assert faults(run_cases(hooked, cases, 132, counted=True)) == []


@pytest.mark.parametrize("seed", [0, 1])
def test_no_race_in_batch_norm(hooked, seed):
    assert faults(run_cases(hooked, BATCH_NORMS, 132, seed)) == []


@pytest.mark.parametrize("multiprocessors", [132, 4, 1])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_race_in_parzen(hooked, seed, multiprocessors):
    assert faults(run_cases(hooked, PARZENS, multiprocessors, seed)) == []


@pytest.mark.parametrize("multiprocessors", [132, 8, 1])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_race_in_iterations(hooked, seed, multiprocessors):
    assert faults(run_cases(hooked, ENGINES, multiprocessors, seed)) == []


def test_sanitizers_in_iterations(sanitized):
    assert faults(run_cases(sanitized, ENGINES + HEADS + BATCH_NORMS + PARZENS, 132)) == []


@pytest.mark.parametrize("tile", TILES)
def test_sanitizers_at_ragged_shapes(sanitized, tile):
    cases = [case for math in MATHS for case in ragged_layers(math)]
    assert faults(run_cases(sanitized, cases, RAGGED[tile])) == []


def test_sanitizers_at_odd_shapes(sanitized):
    assert faults(run_cases(sanitized, ODD_LAYERS + ODD_ELEMENTS + ODD_MLPS, 132)) == []


# ---- that the checks above can fail: one mistake put into a header, and what is then found ----

RACE = r"race on byte \d+|uninitialised shared memory|cp\.async that was not waited for"
MISTAKES = {
    "no_barrier_before_slice": ("gemm.h", r"__syncthreads\(\);(?=  // slice s has arrived)", "", RACE),
    "no_barrier_before_result": ("gemm.h", r"__syncthreads\(\);(?=  // the ring becomes the result)", "", RACE),
    "no_barrier_after_result": ("gemm.h", r"(?<=units\.store\(shared\.result\);\n)  __syncthreads\(\);", "", RACE),
    "weak_wait": ("gemm.h", r"cp_async_wait<kStages - 2>", "cp_async_wait<kStages - 1>", RACE),
    "no_padding": (
        "gemm.h",
        r"(?<=static constexpr int kLd = kCols) \+ \(kAlong.*;",
        ";",
        r"shared read at .*gemm\.h:\d+",
    ),
    "no_vectors": (
        "epilogues.h",
        r"(?<=% \(kQuad \* sizeof\(S\)\)) == 0",
        " != 0",
        r"global read at .*runs\.h:\d+",
    ),
}
FORWARD = """#include "layer_passes.h"
template <>
void pygan::cuda::layer_forward<pygan::cuda::Math::tf32>(const LinearActForward& op) {
  forward_product<Math::tf32>(op);
}
"""


@pytest.fixture(scope="module")
def host_objects_alone(builder, host_objects):
    """With them, an executable may lack kernels that the driver knows."""
    weak = builder.folder / "weak.o"
    builder.run("objcopy", "--weaken", host_objects[-1], weak)
    return [*host_objects[:-1], weak]


@pytest.mark.parametrize("mistake", ["none", *MISTAKES])
def test_mistakes_are_found(builder, host_objects_alone, tmp_path, mistake):
    shutil.copytree(CSRC / "core", tmp_path / "core")
    shutil.copytree(CSRC / "cuda", tmp_path / "cuda")
    if mistake in MISTAKES:
        header, right, wrong, _ = MISTAKES[mistake]
        path = tmp_path / "cuda" / header
        text, count = re.subn(right, wrong, path.read_text())
        assert count, f"{header} has changed"
        path.write_text(text)
    source = tmp_path / "cuda" / f"{mistake}.cu"
    source.write_text(FORWARD)
    forward = builder.object(source, HOOKS, "hooked")
    executable = builder.link(mistake, [*host_objects_alone, forward])
    depth = 5 * 32  # the last slice is in the slot that the result takes
    for seed in (0, 1):
        found = faults(run_cases(executable, [layer("forward", "tf32", 64, 64, depth, "identity")], 132, seed, True))
        if mistake in MISTAKES:
            assert any(re.search(MISTAKES[mistake][-1], fault) for fault in found), f"seed {seed}: {found}"
        else:
            assert found == [], f"seed {seed}"
