"""Fixtures: devices (a GPU's absence may be a failure), thread counts, seeds, the folder of real data."""

import os
import pathlib
import signal

import pytest
import torch

REQUIRE_GPU = os.environ.get("PYGAN_REQUIRE_GPU") == "1"


def _missing_gpu() -> str | None:
    """Why GPU rows cannot run here, or None."""
    import pygan

    if not torch.cuda.is_available():
        return "no GPU is visible to torch"
    if not pygan.build_info().get("cuda"):
        return "pygan was built without CUDA"
    return None


MISSING_GPU = _missing_gpu()
DEVICES = ["cpu"]
if REQUIRE_GPU or MISSING_GPU is None:
    DEVICES.append(pytest.param("cuda", marks=pytest.mark.gpu))


def pytest_report_header(config):
    import pygan

    gpu = "GPU rows run" if MISSING_GPU is None else f"no GPU rows: {MISSING_GPU}"
    if pygan.build_info()["simt"]:
        gpu += f"; CPU rows run CUDA kernels, emulated, PYGAN_SIMT_SEED={os.environ.get('PYGAN_SIMT_SEED', 0)}"
    return f"pygan: {gpu}; torch {torch.__version__}, {torch.get_num_threads()} threads"


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and MISSING_GPU is not None:
        if REQUIRE_GPU:
            pytest.fail(f"PYGAN_REQUIRE_GPU=1, but {MISSING_GPU}", pytrace=False)
        pytest.skip(MISSING_GPU)


@pytest.fixture(params=DEVICES)
def device(request) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(autouse=True, scope="session")
def _interruptible():
    """In the background, shells start programs with SIGINT ignored, and tests of interrupts would wait for ever."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def set_threads():
    """torch.set_num_threads for one test; the number is restored after it."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pygan_data() -> pathlib.Path:
    """The folder of downloaded data sets named by PYGAN_DATA; a test that needs it is skipped without it."""
    folder = os.environ.get("PYGAN_DATA")
    if not folder or not pathlib.Path(folder).is_dir():
        pytest.skip("PYGAN_DATA names no folder of data sets")
    return pathlib.Path(folder)
