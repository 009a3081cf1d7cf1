"""The build finds the torch that will run pygan, and says in one sentence what it lacks."""

import importlib.metadata
import importlib.util
import pathlib
import re
import subprocess
import sys
import venv

import pytest
import torch

import pygan
from pygan import _load

ROOT = pathlib.Path(__file__).parents[1]
TORCH_FOLDER = pathlib.Path(torch.__file__).parent


def load(name: str, path: pathlib.Path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


@pytest.fixture(scope="module")
def backend():
    return load("build_backend", ROOT / "tools" / "build_backend.py")


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """An interpreter without any package."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    return str(folder / "bin" / "python")


def fake_torch(site: pathlib.Path, version: str) -> pathlib.Path:
    (site / "torch" / "lib").mkdir(parents=True)
    (site / "torch" / "__init__.py").write_text("raise RuntimeError('the build imports torch')")
    (site / "torch" / "version.py").write_text(f"__version__ = {version!r}\ncuda = '13.0'\n")
    return site / "torch"


# ---- what was built ----


def test_build_info_names_what_runs():
    info = pygan.build_info()
    assert set(info) == {"torch", "cuda", "archs", "simt", "compiler", "cpu_isa"}
    assert info["torch"].split(".")[:2] == torch.__version__.split(".")[:2]
    assert (info["cuda"] is None) == (info["archs"] == [])
    assert re.fullmatch(r"\w+ [\d.]+", info["compiler"])
    assert info["cpu_isa"] in ("portable", "avx2", "avx512")


def test_version_is_the_installed_one():
    assert pygan.__version__ == importlib.metadata.version("pygan")


def test_installed_package_is_pinned_to_the_minor_of_torch():
    requirements = importlib.metadata.requires("pygan")
    minor = ".".join(pygan.build_info()["torch"].split(".")[:2])
    assert f"torch=={minor}.*" in requirements


def test_one_openmp_runtime():
    """Two libgomps are two thread pools on the same cores."""
    maps = pathlib.Path("/proc/self/maps").read_text()
    assert len({line.split()[-1] for line in maps.splitlines() if "libgomp" in line}) == 1


@pytest.mark.parametrize("installed", ["2.12.1", "2.14.0+cu130", "3.13.0", "2.130.0"])
def test_other_minor_is_refused(installed):
    sentence = f"pygan was built for torch 2.13 and torch {installed} is installed"
    with pytest.raises(ImportError, match=re.escape(sentence)):
        _load.check_torch(installed, built="2.13.0+cpu")


@pytest.mark.parametrize("installed", ["2.13.0", "2.13.7+cu130", "2.13.1.dev20260101"])
def test_same_minor_is_accepted(installed):
    _load.check_torch(installed, built="2.13.0+cpu")


def test_import_under_another_torch_is_one_clear_error(tmp_path):
    code = "import torch; torch.__version__ = '2.99.0'; import pygan"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: pygan was built for torch")


# ---- finding torch ----


def test_backend_finds_the_torch_that_runs(backend):
    found = backend.find_torch()
    assert found.root == TORCH_FOLDER
    assert found.version == str(torch.__version__)
    assert found.cuda == torch.version.cuda
    assert backend.get_requires_for_build_wheel() == []


def test_torch_of_the_interpreter_comes_before_the_isolated_builds(backend, tmp_path, monkeypatch):
    fake_torch(tmp_path, "2.14.1+cu130")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert backend.find_torch().root == TORCH_FOLDER


def test_isolated_build_falls_back_to_its_own_torch(backend, bare_python, tmp_path, monkeypatch):
    fake = fake_torch(tmp_path, "2.14.1+cu130")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = backend.find_torch(bare_python)
    assert found == backend.Torch(fake, "2.14.1+cu130", "13.0")
    assert found.requirement == "torch==2.14.*"


@pytest.mark.parametrize("version", ["2.10.0", "2.15.0", "1.13.1"])
def test_unsupported_torch_counts_as_none(backend, bare_python, tmp_path, monkeypatch, version):
    fake_torch(tmp_path, version)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert backend.find_torch(bare_python) is None


def test_without_torch_the_build_requires_one(backend, bare_python, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    found = backend.find_torch(bare_python)
    assert found is None
    monkeypatch.setattr(backend, "find_torch", lambda: found)
    assert backend.TORCH_RANGE in backend.get_requires_for_build_wheel()
    assert backend.TORCH_RANGE in backend.get_requires_for_build_editable()


@pytest.mark.parametrize("place", ["torch/lib/libgomp.so.1", "torch.libs/libgomp-98b21ff3.so.1.0.0", None])
def test_openmp_library_is_the_one_torch_ships(backend, tmp_path, place):
    root = fake_torch(tmp_path, "2.13.0")
    if place:
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).touch()
    assert backend.Torch(root, "2.13.0", None).openmp == (tmp_path / place if place else None)


# ---- one sentence for what is missing ----


def test_missing_compiler_is_one_sentence(backend, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    sentence = backend.missing_on_machine()
    assert "found no compiler (c++, g++, clang++): install one" in sentence
    assert "\n" not in sentence
    for hook in (backend.get_requires_for_build_wheel, backend.get_requires_for_build_editable):
        with pytest.raises(SystemExit, match="found no compiler"):
            hook()
    with pytest.raises(SystemExit, match="found no compiler"):
        backend.build_wheel("/nowhere")


def test_missing_compiler_that_was_named(backend, monkeypatch):
    monkeypatch.setenv("CXX", "g++-99 -flag")
    assert "found no compiler (g++-99)" in backend.missing_on_machine()


def test_missing_packages_without_isolation(backend, monkeypatch):
    monkeypatch.setattr(backend, "tool", lambda name: None if name == "ninja" else name)
    monkeypatch.setattr(backend, "find_torch", lambda: None)
    assert backend.missing_in_environment().endswith(f"pip install 'ninja' '{backend.TORCH_RANGE}'")


# ---- the source tree ----


def test_every_source_file_is_built():
    """Sources are listed by name; one that is missing from the list is code that nobody compiles."""
    listed = set(re.findall(r"csrc/[\w/]+\.(?:cpp|cu)", (ROOT / "CMakeLists.txt").read_text()))
    assert listed == {str(path.relative_to(ROOT)) for path in ROOT.glob("csrc/**/*.c[pu]*")}


def test_source_folder_imported_by_mistake_says_so(monkeypatch):
    """The folder pygan/ of a clone holds no compiled part unless it was installed for development."""
    monkeypatch.delattr(pygan, "_build_info")
    monkeypatch.setitem(sys.modules, "pygan._build_info", None)
    with pytest.raises(ImportError, match="pygan is not built here: this is its source folder"):
        load("_load_again", pathlib.Path(_load.__file__))
