"""Loads the compiled part, pygan._C, after making sure that it was built for the torch that is installed."""

import re

import torch

try:
    from pygan import _build_info
except ImportError:
    raise ImportError(
        "pygan is not built here: this is its source folder. Run `pip install .` in the folder above and "
        "import pygan from elsewhere, or install it for development: pip install -e . --no-build-isolation"
    ) from None


def check_torch(installed: str, built: str) -> None:
    """Refuse a torch of another minor version: the C++ interface changes with each.

    Args:
        installed: the version of the torch that is installed, such as ``"2.13.0+cpu"``.
        built: the version that pygan was built with.

    Raises:
        ImportError: when the minor versions differ.

    >>> check_torch("2.13.1+cu130", built="2.13.0+cpu")
    """
    minor = re.match(r"\d+\.\d+", built).group()
    if re.match(r"\d+\.\d+", str(installed)).group() != minor:
        raise ImportError(
            f"pygan was built for torch {minor} and torch {installed} is installed: build pygan again beside "
            f"this torch (pip install --force-reinstall --no-deps --no-cache-dir and where it came from), "
            f"or pip install 'torch=={minor}.*'"
        )


check_torch(torch.__version__, _build_info.TORCH)

from pygan import _C  # noqa: E402  torch is imported by now, and with it the libraries that _C links to

__version__ = _build_info.VERSION


def build_info() -> dict:
    """What this copy of pygan was built with.

    Returns:
        A dict: ``torch``, the version built with; ``cuda``, the version of the CUDA compiler or None;
        ``archs``, the GPU architectures compiled for, ``sm_80`` for machine code and ``compute_80`` for PTX;
        ``simt``, whether emulated CUDA kernels stand in for the CPU's; ``compiler``, the C++ compiler;
        ``cpu_isa``, the instruction set of the CPU kernels, chosen on this machine, or ``simt``.

    >>> sorted(build_info())
    ['archs', 'compiler', 'cpu_isa', 'cuda', 'simt', 'torch']
    """
    return {
        "torch": _build_info.TORCH,
        "cuda": _build_info.CUDA,
        "archs": list(_build_info.ARCHS),
        "simt": _build_info.SIMT,
        "compiler": _build_info.COMPILER,
        "cpu_isa": _C.cpu_isa(),
    }


_composed = None


def _serve_gpus() -> None:
    """Where the GPUs of this machine have no kernels in this build, plain torch operations take their place."""
    global _composed
    from pygan import composed

    gpus = [torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())]
    reason = composed.missing(build_info(), gpus)
    _composed = composed.install(reason) if reason else None


if torch.backends.cuda.is_built():
    # Runs when torch sets CUDA up, so before any tensor is on a GPU. Asking for GPUs here would start the driver in
    # programs that never use it, and those could not fork any more.
    torch.cuda._lazy_call(_serve_gpus)
