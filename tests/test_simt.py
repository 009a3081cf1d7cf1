"""The SIMT emulator of tests/simt: right kernels pass under every thread order, each kind of mistake is found."""

import concurrent.futures
import ctypes
import os
import re
import shutil
import subprocess

import pytest

from simt_builds import ACCESS_CHECKS, EMULATOR, HOOKS, SANITIZE, SIMT, Builder

CASES = SIMT / "cases"
KERNELS = sorted(CASES.glob("*.cu"))
SEEDS = range(5)

pytestmark = pytest.mark.slow

RIGHT = [
    "warp_reduction",
    "block_reduction",
    "last_block",
    "shuffles_and_votes",
    "padded_transpose",
    "unpadded_transpose",
    "rotation",
    "warp_barrier",
    "shared_in_bounds",
    "shared_with_opt_in",
    "aligned_vectors",
    "many_barriers",
    "ldmatrix",
    "ldmatrix_transposed",
    "mma_8_tf32",
    "mma_of_nan",
    "mma_16_bf16",
    "mma_16_f16",
    "double_buffer",
]

# The result is wrong or NaN under some seed.
WRONG = [
    "missing_read_barrier",
    "missing_write_barrier",
    "missing_warp_barrier",
    "missing_async_wait",
    "uninitialised_shared",
]

# The launch fails under every seed, with these words.
FAILING = {
    "divergent_barrier": r"divergent barrier: threads 0-47 at __syncthreads \(.*block\.cu:\d+\); threads 48-63 at .",
    "exited_before_barrier": r"divergent barrier: threads 0-39 at .*block\.cu:\d+\); threads 40-63 exited",
    "divergent_shuffle": r"divergent warp operation: threads 0-19, 32-51 at a shuffle \(.*block\.cu:\d+, mask 0xf{8}",
    "divergent_mma": r"divergent warp operation: threads 0-15 at mma_tf32 \(.*ptx\.cu:\d+",
    "misaligned_ldmatrix": r"ldmatrix of a row that is not aligned to 16 bytes.*ptx\.cu:\d+",
    "misaligned_async_copy": r"cp\.async address is not aligned to 16 bytes.*ptx\.cu:\d+",
    "shared_beyond_request": r"storage has 80000 bytes, the launch gave 40000.*block\.cu:\d+",
    "shared_without_opt_in": r"invalid argument: 80000 bytes of shared memory without cudaFuncSetAttribute",
    "shared_above_limit": r"invalid argument: 233472 bytes of shared memory are above the limit",
    "block_too_large": r"invalid configuration: .* block \(64, 17, 1\)",
    "empty_grid": r"invalid configuration: grid \(0, 1, 1\)",
    "endless_spin": r"threads spin and nobody makes progress",
}

SANITIZER_REPORTS = {
    "shared_out_of_bounds": r"AddressSanitizer: use-after-poison[\s\S]*? in shared_beyond .*block\.cu:\d+",
    "global_out_of_bounds": r"AddressSanitizer: heap-buffer-overflow[\s\S]*? in copy_beyond .*block\.cu:\d+",
    "misaligned_vectors": r"block\.cu:\d+:\d+: runtime error: .* misaligned address .* requires 16 byte alignment",
}

# The access hooks find these under every seed. A read that came before the write is a read of nothing.
FOUND_BY_HOOKS = {
    "missing_read_barrier": r"(race on byte \d+: thread \d+ (reads|writes)|uninitialised shared memory).*block\.cu:\d+",
    "missing_write_barrier": r"race on byte \d+: thread \d+ (reads|writes) after .*block\.cu:\d+; .*block\.cu:\d+",
    "missing_warp_barrier": r"(race on byte \d+: thread \d+ (reads|writes)|uninitialised shared memory).*block\.cu:\d+",
    "missing_async_wait": r"destination of a cp\.async that was not waited for.*ptx\.cu:\d+; .*ptx\.cu:\d+",
    "uninitialised_shared": r"uninitialised shared memory: thread \d+ reads byte \d+.*block\.cu:\d+",
    "shared_out_of_bounds": r"out of bounds: 4 bytes at 1024 of 1024.*block\.cu:\d+",
    "misaligned_vectors": r"misaligned access of 16 bytes.*block\.cu:\d+",
}

# Transactions over the least possible number, by kind of access; what is not named is ideal.
TRANSACTIONS = {
    "coalesced_copy": {},
    "strided_copy": {("global", "read"): 8.0},
    "padded_transpose": {},
    "unpadded_transpose": {("shared", "read"): 32.0},
}


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    return Builder(tmp_path_factory.mktemp("simt"))


def load(path):
    """A function that runs a case in this process, from a shared library."""
    library = ctypes.CDLL(str(path))
    library.run_case.restype = ctypes.c_char_p

    def run(case: str, seed: int) -> str:
        library.set_seed(seed)
        return library.run_case(case.encode()).decode()

    return run


@pytest.fixture(scope="module")
def plain(builder):
    sources = [*EMULATOR, CASES / "cases.cpp", *KERNELS]
    return load(builder.link("cases.so", builder.objects(sources, ["-O2"], "plain"), "-shared"))


def run_case(executable, case: str, seed: int = 0) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYGAN_SIMT_SEED": str(seed)}
    return subprocess.run([executable, case], capture_output=True, text=True, env=environment, timeout=60)


@pytest.fixture(scope="module")
def sanitized(builder):
    sources = [*EMULATOR, CASES / "cases.cpp", *KERNELS]
    return builder.link("cases-sanitized", builder.objects(sources, SANITIZE, "sanitized"), *SANITIZE)


@pytest.fixture(scope="module")
def hooked_objects(builder):
    host = builder.objects([*EMULATOR, *ACCESS_CHECKS, CASES / "cases.cpp"], ["-O2"], "plain")
    return [*host, *builder.objects(KERNELS, HOOKS, "hooked")]


@pytest.fixture(scope="module")
def hooked(builder, hooked_objects):
    return builder.link("cases-hooked", hooked_objects)


@pytest.mark.parametrize("case", RIGHT)
def test_right_kernels_pass_under_every_order(plain, case):
    for seed in SEEDS:
        assert plain(case, seed) == "ok", f"seed {seed}"


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_give_wrong_results(plain, case):
    results = [plain(case, seed) for seed in SEEDS]
    assert any(result.startswith("wrong result") for result in results), results


@pytest.mark.parametrize("case", FAILING)
def test_launch_fails_with_words_and_the_emulator_goes_on(plain, case):
    for seed in SEEDS:
        assert re.search(FAILING[case], plain(case, seed)), f"seed {seed}"
        assert plain("double_buffer", seed) == "ok"


def test_seed_fixes_the_order(plain):
    results = [plain("missing_write_barrier", seed) for seed in range(8)]
    assert results == [plain("missing_write_barrier", seed) for seed in range(8)]
    assert len(set(results)) > 1


@pytest.mark.parametrize("case", RIGHT)
def test_right_kernels_pass_under_sanitizers(sanitized, case):
    done = run_case(sanitized, case)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


@pytest.mark.parametrize("case", SANITIZER_REPORTS)
def test_sanitizers_name_the_line(sanitized, case):
    done = run_case(sanitized, case)
    assert done.returncode != 0
    assert re.search(SANITIZER_REPORTS[case], done.stderr), done.stderr


@pytest.mark.parametrize("case", ["divergent_barrier", "divergent_shuffle", "endless_spin"])
def test_failed_launches_are_no_sanitizer_errors(sanitized, case):
    done = run_case(sanitized, case)
    assert done.returncode == 0, done.stderr
    assert re.search(FAILING[case], done.stdout)


@pytest.mark.parametrize("case", RIGHT)
def test_right_kernels_pass_under_access_hooks(hooked, case):
    done = run_case(hooked, case)
    assert done.stdout.startswith("ok\n"), done.stdout + done.stderr


@pytest.mark.parametrize("case", FOUND_BY_HOOKS)
def test_access_hooks_find_mistakes_under_every_order(hooked, case):
    for seed in SEEDS:
        output = run_case(hooked, case, seed).stdout
        assert re.search(FOUND_BY_HOOKS[case], output), f"seed {seed}: {output}"


def test_launches_of_several_threads(builder, plain, hooked_objects):
    for run in plain, load(builder.link("cases-hooked.so", hooked_objects, "-shared")):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            assert set(pool.map(lambda _, run=run: run("rotation", 0), range(100))) == {"ok"}


@pytest.mark.parametrize("case", TRANSACTIONS)
def test_counters_of_transactions(hooked, case):
    result, *lines = run_case(hooked, case).stdout.splitlines()
    assert result == "ok"
    ratios = {}
    for line in lines:
        memory, direction, actual, ideal, where = line.split()
        assert re.search(r"block\.cu:\d+$", where), line
        ratios[memory, direction] = int(actual) / int(ideal)
    assert ratios == {kind: TRANSACTIONS[case].get(kind, 1.0) for kind in ratios}
    assert ratios.keys() >= TRANSACTIONS[case].keys() | {("global", "read"), ("global", "write")}


@pytest.mark.parametrize("kernels", KERNELS, ids=lambda path: path.name)
def test_cases_are_cuda(kernels, tmp_path):
    """The emulator must not accept what nvcc refuses."""
    nvcc = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if nvcc is None:
        pytest.skip("no nvcc")
    command = [nvcc, "-arch=sm_80", "-std=c++17", "-Werror", "all-warnings", "-c", kernels, "-o", tmp_path / "cases.o"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
