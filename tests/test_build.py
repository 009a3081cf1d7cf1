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
def cuda():
    return load("find_cuda", ROOT / "tools" / "find_cuda.py")


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
    assert all(re.fullmatch(r"(sm|compute)_\d+a?", arch) for arch in info["archs"])
    assert info["cpu_isa"] in (("simt",) if info["simt"] else ("portable", "avx2", "avx512"))


def test_version_is_the_installed_one():
    assert pygan.__version__ == importlib.metadata.version("pygan")


def test_installed_package_is_pinned_to_the_minor_of_torch():
    requirements = importlib.metadata.requires("pygan")
    minor = ".".join(pygan.build_info()["torch"].split(".")[:2])
    assert f"torch=={minor}.*" in requirements


def test_one_openmp_runtime():
    """Two libgomps are two thread pools on the same cores."""
    code = "import pygan, pathlib; print(pathlib.Path('/proc/self/maps').read_text())"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert len({line.split()[-1] for line in done.stdout.splitlines() if "libgomp" in line}) == 1


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


# ---- whether CUDA is built ----

OLD_CUDA = "75 80 86 89 90"
NEW_CUDA = "75 80 86 89 90 100 103 120 121"


def fake_nvcc(path: pathlib.Path, version="13.0.88", archs=NEW_CUDA) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    release = version.rpartition(".")[0]
    codes = " ".join(f"sm_{arch}" for arch in archs.split())
    path.write_text(f"""#!/bin/sh
[ "$1" = --version ] && echo 'Cuda compilation tools, release {release}, V{version}'
[ "$1" = --list-gpu-code ] && printf '%s\\n' {codes}
exit 0
""")
    path.chmod(0o755)
    return path


@pytest.fixture
def no_system_cuda(cuda, monkeypatch):
    """Only what a test puts there: not the toolkit of this machine."""
    found = cuda.nvcc_paths
    hidden = pathlib.Path("/usr/local/cuda/bin/nvcc")
    monkeypatch.setattr(cuda, "nvcc_paths", lambda environ: [path for path in found(environ) if path != hidden])


def cuda_torch(backend, cuda="13.0"):
    return backend.Torch(pathlib.Path("/nowhere"), "2.14.1+cu130" if cuda else "2.13.0+cpu", cuda)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Cuda compilation tools, release 13.0, V13.0.88\nBuild cuda_13.0.r13.0/compiler.36424714_0", "13.0.88"),
        ("Cuda compilation tools, release 12.6, V12.6.20", "12.6.20"),
        ("nvcc: command not found", None),
        ("", None),
    ],
)
def test_version_of_nvcc(cuda, text, version):
    assert cuda.parse_version(text) == version


def test_nvcc_is_sought_from_the_most_deliberate_place(cuda, tmp_path, no_system_cuda):
    places = {
        "CUDACXX": tmp_path / "named" / "my-nvcc",
        "CUDA_HOME": tmp_path / "home" / "bin" / "nvcc",
        "CUDA_PATH": tmp_path / "path" / "bin" / "nvcc",
        "PATH": tmp_path / "on-path" / "nvcc",
    }
    environ = {"CUDACXX": str(places["CUDACXX"]), "PATH": str(tmp_path / "on-path")}
    environ |= {name: str(places[name].parents[1]) for name in ("CUDA_HOME", "CUDA_PATH")}
    expected = [fake_nvcc(path) for path in places.values()]
    assert cuda.nvcc_paths(environ) == expected
    for i, name in enumerate(places):
        environ.pop(name)
        assert cuda.nvcc_paths(environ) == expected[i + 1 :]


@pytest.mark.parametrize("content", ["#!/bin/sh\nexit 1\n", "#!/bin/sh\necho hello\n", "not a program"])
def test_what_is_no_nvcc_is_passed_over(cuda, tmp_path, content):
    path = tmp_path / "nvcc"
    path.write_text(content)
    path.chmod(0o755)
    assert cuda.read_nvcc(path) is None


def test_nvcc_of_torchs_major_version_is_taken(backend, cuda, tmp_path, no_system_cuda):
    fake_nvcc(tmp_path / "12" / "bin" / "nvcc", "12.9.41", OLD_CUDA)
    new = fake_nvcc(tmp_path / "13" / "bin" / "nvcc", "13.2.1")
    environ = {"CUDA_HOME": str(tmp_path / "12"), "CUDA_PATH": str(tmp_path / "13")}
    found = cuda.decide(cuda_torch(backend), environ)
    assert found.nvcc.path == new
    assert found.nvcc.version == "13.2.1"
    assert cuda.decide(cuda_torch(backend, "12.6"), environ).nvcc.version == "12.9.41"


@pytest.mark.parametrize(
    ("known", "asked", "archs", "codes"),
    [
        (NEW_CUDA, "", "80-real 90-real 100-real 120", "sm_80 sm_90 sm_100 sm_120 compute_120"),
        (OLD_CUDA, "", "80-real 90", "sm_80 sm_90 compute_90"),
        (NEW_CUDA, "9.0", "90-real", "sm_90"),
        (NEW_CUDA, "8.0;9.0+PTX", "80-real 90", "sm_80 sm_90 compute_90"),
        (NEW_CUDA, " 8.0  8.6;12.0+PTX; ", "80-real 86-real 120", "sm_80 sm_86 sm_120 compute_120"),
        (NEW_CUDA, "9.0a", "90a-real", "sm_90a"),
        (NEW_CUDA, "9.0 9.0", "90-real", "sm_90"),
        (NEW_CUDA, "8.0 8.0+PTX", "80", "sm_80 compute_80"),
        (NEW_CUDA, "5.2;7.5;8.0", "80-real", "sm_80"),
    ],
)
def test_architectures(backend, cuda, tmp_path, known, asked, archs, codes):
    environ = {"CUDACXX": str(fake_nvcc(tmp_path / "nvcc", archs=known)), "TORCH_CUDA_ARCH_LIST": asked}
    found = cuda.decide(cuda_torch(backend), environ)
    assert found.archs == tuple(archs.split())
    assert found.codes == codes.split()


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("80", "TORCH_CUDA_ARCH_LIST names '80'"),
        ("8.0,9.0", "as in '8.0;9.0+PTX'"),
        ("8.0;Hopper", "names 'Hopper'"),
        ("9.0+ptx", "names '9.0+ptx'"),
        ("7.5", "names 7.5, but pygan's kernels need 8.0 or newer"),
        ("5.0+PTX 7.0", "names 5.0+PTX and 7.0, but pygan's kernels need 8.0 or newer"),
        ("10.0", "asks for sm_100, which"),
    ],
)
def test_architectures_that_cannot_be_built(backend, cuda, tmp_path, asked, sentence):
    environ = {"CUDACXX": str(fake_nvcc(tmp_path / "nvcc", archs=OLD_CUDA)), "TORCH_CUDA_ARCH_LIST": asked}
    with pytest.raises(SystemExit, match=re.escape(sentence)) as refused:
        cuda.decide(cuda_torch(backend), environ)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("torch_cuda", "nvcc", "reason"),
    [
        (None, "13.0.88", "torch 2.13.0+cpu was built without CUDA"),
        (
            "13.0",
            "12.9.41",
            "torch 2.14.1+cu130 is of CUDA 13.0 and {nvcc} is of CUDA 12.9.41: install the CUDA toolkit",
        ),
        ("13.0", None, "torch 2.14.1+cu130 is of CUDA 13.0 and no nvcc was found: install the CUDA toolkit 13"),
    ],
)
def test_without_a_fitting_nvcc_the_build_is_for_the_cpu(
    backend, cuda, tmp_path, capsys, no_system_cuda, torch_cuda, nvcc, reason
):
    environ = {"CUDACXX": str(fake_nvcc(tmp_path / "nvcc", nvcc))} if nvcc else {}
    reason = reason.format(nvcc=tmp_path / "nvcc")
    assert cuda.decide(cuda_torch(backend, torch_cuda), environ) is None
    assert f"pygan: the CUDA backend is left out: {reason}" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=re.escape(f"PYGAN_CUDA=1, but {reason}")) as refused:
        cuda.decide(cuda_torch(backend, torch_cuda), environ | {"PYGAN_CUDA": "1"})
    assert "\n" not in str(refused.value)


def test_a_compiler_for_older_gpus_alone(backend, cuda, tmp_path):
    environ = {"CUDACXX": str(fake_nvcc(tmp_path / "nvcc", archs="75"))}
    with pytest.raises(SystemExit, match="compiles for none of sm_80, sm_90, sm_100, sm_120"):
        cuda.decide(cuda_torch(backend), environ)


@pytest.mark.parametrize("named", ["nowhere", "12/bin/nvcc"])
def test_a_named_compiler_that_does_not_fit_is_not_passed_over_in_silence(backend, cuda, tmp_path, capsys, named):
    fake_nvcc(tmp_path / "12" / "bin" / "nvcc", "12.9.41", OLD_CUDA)
    fake_nvcc(tmp_path / "13" / "bin" / "nvcc", "13.2.1")
    environ = {"CUDA_HOME": str(tmp_path / "13"), "CUDACXX": str(tmp_path / named)}
    assert cuda.decide(cuda_torch(backend), environ).nvcc.version == "13.2.1"
    assert f"CUDACXX={tmp_path / named} is no nvcc of CUDA 13" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="PYGAN_CUDA=1, but CUDACXX="):
        cuda.decide(cuda_torch(backend), environ | {"PYGAN_CUDA": "1"})


@pytest.mark.parametrize(
    ("environ", "built", "log"),
    [
        ({}, True, "for sm_80, sm_90, sm_100, sm_120, compute_120"),
        ({"PYGAN_CUDA": "1"}, True, "the CUDA backend is built by"),
        ({"PYGAN_CUDA": "0"}, False, "left out: PYGAN_CUDA=0"),
        ({"PYGAN_SIMT": "1"}, False, ""),
    ],
)
def test_environment_decides(backend, cuda, tmp_path, capsys, environ, built, log):
    environ = environ | {"CUDACXX": str(fake_nvcc(tmp_path / "nvcc"))}
    assert (cuda.decide(cuda_torch(backend), environ) is not None) == built
    assert log in capsys.readouterr().out


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"PYGAN_CUDA": "yes"}, "PYGAN_CUDA must be 1"),
        ({"PYGAN_CUDA": "1", "PYGAN_SIMT": "1"}, "unset PYGAN_CUDA"),
        ({"PYGAN_SIMT": "true"}, "PYGAN_SIMT must be 1"),
    ],
)
def test_environment_that_makes_no_sense(backend, cuda, environ, sentence):
    with pytest.raises(SystemExit, match=sentence):
        cuda.decide(cuda_torch(backend), environ)


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
