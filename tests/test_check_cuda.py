"""The check of the compiled CUDA kernels finds what it is there to find."""

import importlib.util
import pathlib
import sys

import pytest

PATH = pathlib.Path(__file__).parents[1] / "tools" / "check_cuda.py"

GEMM, FILL = "_Z4gemmIfEvPT_", "_Z4fillPf"
NAMES = {GEMM: "gemm<float>", FILL: "fill"}
EXPECTED = (("products", r"\bgemm<", (r"HMMA\.", r"LDGSTS\.")),)

REPORT = f"""
2026-01-01T00:00:00   ptxas info    : Compiling entry function '{GEMM}' for 'sm_80'
2026-01-01T00:00:00   ptxas info    : Function properties for {GEMM}
2026-01-01T00:00:00       0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
2026-01-01T00:00:00   ptxas info    : Used 96 registers, used 1 barriers, 1024 bytes smem, 400 bytes cmem[0]
ptxas info    : Compiling entry function '{FILL}' for 'sm_90'
ptxas info    : Function properties for {FILL}
    8 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Function properties for helper
    16 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers
"""

SASS = f"""
	code for sm_80
		Function : {GEMM}
	.headerflags	@"EF_CUDA_SM80"
        /*0000*/                   MOV R1, c[0x0][0x28] ;                   /* 0x00000a0000017a02 */
                                                                           /* 0x003fde0000000f00 */
        /*0010*/              @!P0 LDGSTS.E.BYPASS.128 [R5], [R2.64] ;      /* 0x0 */
        /*0020*/                   HMMA.1688.F32.TF32 R4, R8, R12, R4 ;     /* 0x0 */
		Function : {FILL}
        /*0000*/              @UP1 STG.E.128 [R2.64], R4 ;                  /* 0x0 */
"""


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("check_cuda", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_cuda"] = module  # dataclasses look their module up there
    path = sys.path[:]
    spec.loader.exec_module(module)
    sys.path[:] = path
    yield module
    del sys.modules["check_cuda"]


def test_report_is_read(check):
    gemm, fill = check.parse_report(REPORT.splitlines())
    assert gemm == check.Resources(GEMM, "sm_80", registers=96, shared=1024)
    assert fill == check.Resources(FILL, "sm_90", registers=255, stack=16, spill_stores=12, spill_loads=16)


def test_spills_are_faults(check):
    assert check.check_spills(check.parse_report(REPORT.splitlines()), NAMES) == [
        "fill spills registers on sm_90: 12 bytes stored, 16 loaded"
    ]


def test_report_without_kernels_is_a_fault(check):
    assert check.check_spills([], NAMES)


def test_code_is_read(check):
    assert check.parse_code(SASS.splitlines()) == {
        (GEMM, "sm_80"): {"MOV", "LDGSTS.E.BYPASS.128", "HMMA.1688.F32.TF32"},
        (FILL, "sm_80"): {"STG.E.128"},
    }


@pytest.mark.parametrize(
    ("sass", "fault"),
    [
        (SASS, None),
        (SASS.replace("HMMA", "FFMA"), "gemm<float> on sm_80 has no instruction like HMMA"),
        (SASS.replace("LDGSTS", "LDG"), "has no instruction like LDGSTS"),
        (SASS.replace(GEMM, FILL), "no kernel on sm_80 has a name like"),
        (SASS + SASS.replace("sm_80", "sm_90").replace(GEMM, FILL), "no kernel on sm_90"),
        ("", "no kernel on any architecture"),
    ],
)
def test_instructions_that_are_not_there_are_faults(check, sass, fault):
    faults = check.check_instructions(check.parse_code(sass.splitlines()), NAMES, EXPECTED)
    assert faults == [] if fault is None else (len(faults) == 1 and fault in faults[0])


@pytest.mark.parametrize(
    ("expected", "faults"),
    [
        (["sm_80", "sm_120", "compute_120"], 0),
        (["sm_80", "sm_90", "sm_120", "compute_120"], 1),
        (["sm_80", "compute_80"], 1),
        ([], 1),
    ],
)
def test_architectures_that_are_not_there_are_faults(check, expected, faults):
    assert len(check.check_archs({"sm_80", "sm_120"}, {"sm_120"}, expected)) == faults


@pytest.mark.parametrize(
    ("name", "readable"),
    [
        (
            "void pygan::cuda::(anonymous namespace)::gemm<(pygan::Activation)1, float>(float const*)",
            "gemm<(Activation)1, float>",
        ),
        ("pygan::cuda::_GLOBAL__N__c5_8_noise_cu_f5::minibatch_kernel(unsigned long, long*)", "minibatch_kernel"),
        ("void fill<f(1)>()", "fill<f(1)>"),
        ("fill", "fill"),
    ],
)
def test_names_are_readable(check, name, readable):
    assert check.readable(name) == readable
