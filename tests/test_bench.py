"""`pygan bench`: its count of the work, its check of the providers, its table and files, its errors."""

import importlib.util
import json
import math
import pathlib
import re
import subprocess
import sys
import time
from typing import ClassVar

import pytest
import torch

from pygan.bench import command, measure, providers, report, workloads
from pygan.bench.workloads import Network, Workload
from pygan.optim import Momentum

CPU = torch.device("cpu")
SMALL = Workload("small", Network((3, 5, 4), output="tanh"), Network((4, 6, 1), "leaky_relu"), 4)
SMALL_MAXOUT = Workload(
    "small maxout", Network((3, 5, 4), output="sigmoid"), Network((4, 3, 2, 1), "maxout", pieces=2, dropout=0.5), 4,
    Momentum(lr=0.1, momentum=0.5),
)  # fmt: skip


@pytest.mark.parametrize("name", workloads.WORKLOADS)
def test_flops_are_the_published_formula(name):
    workload = workloads.get(name)
    g, d = workload.generator.weights, workload.discriminator.weights
    assert workload.flops == 2 * workload.batch * (4 * sum(g) - g[0] + 8 * sum(d) - 2 * d[0])


@pytest.mark.parametrize("network", [SMALL.generator, SMALL.discriminator, SMALL_MAXOUT.discriminator], ids=str)
def test_parameters_are_counted(network):
    built = network.build()
    assert network.parameters == sum(p.numel() for p in built.parameters())
    assert network.weights == tuple(layer.weight.numel() for layer in built.layers)


@pytest.mark.parametrize("workload", [SMALL, SMALL_MAXOUT], ids=lambda w: w.name)
def test_providers_agree(workload):
    measure.check(workload, ("native", "composed", "eager", "eager"), CPU)


@pytest.mark.parametrize("workload", ["ring", "mnist_paper"])
@pytest.mark.parametrize("name", ["jax", "jax scan"])
def test_jax_agrees(workload, name):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    program = (
        "import torch; from pygan.bench import measure, workloads; "
        f"measure.check(workloads.get({workload!r}), ('native', {name!r}), torch.device('cpu'))"
    )
    # JAX warns of every later fork of the process that it is in
    subprocess.run([sys.executable, "-P", "-c", program], check=True)


class Other(providers.Eager):
    """Trains on other rows than it is given."""

    def step(self, inputs):
        return super().step(providers.Inputs(inputs.z_d, inputs.x * 1.5, inputs.z_g))


def test_a_provider_that_computes_something_else_is_caught(monkeypatch):
    monkeypatch.setitem(providers.PROVIDERS, "other", Other)
    with pytest.raises(ArithmeticError, match="small: in one iteration other differs from native by"):
        measure.check(SMALL, ("native", "other"), CPU)
    with pytest.raises(ArithmeticError, match=r"other differs from eager's arithmetic in fp32 by .* is allowed"):
        measure.check(SMALL, ("composed", "other"), CPU, "bf16")


@pytest.mark.parametrize("workload", [SMALL, SMALL_MAXOUT, workloads.get("ring")], ids=lambda w: w.name)
def test_providers_agree_in_bf16(workload):
    measure.check(workload, ("composed", "eager"), CPU, "bf16")


@pytest.mark.parametrize("workload", [SMALL, SMALL_MAXOUT], ids=lambda w: w.name)
def test_a_captured_iteration_begins_where_the_networks_were_given(workload, monkeypatch):
    def three_times(function, device):
        for _ in range(3):
            function()

    monkeypatch.setattr(providers, "_warm_up", three_times)
    monkeypatch.setattr(providers, "_capture", lambda function, device: function)
    measure.check(workload, ("native", "eager graph"), CPU)
    provider = measure.make(workload, "eager graph", workload.data(), CPU)
    before = [p.detach().clone() for p in provider.parameters()]
    provider.run(2)
    assert not any(torch.equal(p, q) for p, q in zip(provider.parameters(), before, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", measure.PRECISIONS)
@pytest.mark.parametrize("name", [name for name in providers.PROVIDERS if not name.startswith("jax")])
def test_providers_agree_on_a_gpu(name, precision):
    device = torch.device("cuda", 0)
    if (reason := providers.why_not(name, device, precision)) is not None:
        pytest.skip(reason)
    for workload in (SMALL, workloads.get("ring"), workloads.get("snippet")):
        measure.check(workload, ("eager", name), device, precision)
        measure.make(workload, name, workload.data().to(device, measure.PRECISIONS[precision]), device).run(3)


def test_a_provider_that_fails_is_left_out_where_that_is_asked(monkeypatch):
    class Broken(providers.Eager):
        def run(self, n):
            raise RuntimeError("no luck")

    monkeypatch.setitem(providers.PROVIDERS, "broken", Broken)
    monkeypatch.setitem(providers.PROVIDERS, "other", Other)
    failures, told = {}, []
    names = ("native", "broken", "eager", "other")
    rows = measure.compare(SMALL, names, CPU, seconds=0.02, rounds=3, failures=failures, doing=told.append)
    assert [row.provider for row in rows] == ["native", "eager"]
    assert failures["broken"] == "RuntimeError: no luck"
    assert failures["other"].startswith("ArithmeticError: small: in one iteration other differs from eager")
    assert set(told) == set(names)
    with pytest.raises(RuntimeError, match="no luck"):
        measure.compare(SMALL, names, CPU, seconds=0.02, rounds=3)


def test_bf16_moves_half_the_bytes_and_leaves_torchs_setting_alone():
    before = torch.get_float32_matmul_precision()
    rows = measure.compare(SMALL, ("composed", "eager"), CPU, seconds=0.02, rounds=3, precision="bf16")
    assert {row.precision for row in rows} == {"bf16"}
    assert {row.bytes for row in rows} == {SMALL.bytes // 2}
    assert torch.get_float32_matmul_precision() == before


def test_the_native_engine_is_the_base_wherever_it_stands():
    rows = measure.compare(SMALL, ("eager", "native"), CPU, seconds=0.02, rounds=3)
    assert [row.provider for row in rows] == ["eager", "native"]
    assert rows[1].ratio == 1.0 != rows[0].ratio
    assert "native is" in report.table(rows)
    assert "eager is" in report.table(rows[:1])


def test_the_first_run_of_each_number_is_not_timed():
    class Compiling:
        seen: ClassVar[set[int]] = set()

        def run(self, n):
            time.sleep(n * 1e-4 + (0 if n in self.seen else 0.3))
            self.seen.add(n)

    assert 20 < measure._iterations(Compiling(), CPU, 0.02) < 500


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"json": "."}, "cannot write .: it is a folder"),
        ({"json": "absent/a.json"}, "its folder does not exist"),
        ({"json": "a.png", "plot": "a.png"}, "json and plot must be two files, got a.png for both"),
        ({"plot": "a.txt"}, "plot must be a .png, .pdf or .svg file"),
        ({"names": ["rign"]}, "did you mean 'ring'"),
    ],
)
def test_what_cannot_be_written_or_run_is_said_first(options, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "compare", pytest.fail)
    paths = {name: pathlib.Path(options[name]) if name in options else None for name in ("json", "plot")}
    rest = {"scaling": None, "seconds": 0.02, "device": "cpu", "memory": False}
    with pytest.raises((OSError, ValueError), match=re.escape(sentence)):
        command.run(options.get("names", ["ring"]), ["native"], **rest, **paths)


def test_rows_are_consistent():
    rows = measure.compare(SMALL, ("native", "eager"), CPU, seconds=0.02, rounds=3)
    assert [row.provider for row in rows] == ["native", "eager"]
    for row in rows:
        assert row.workload == "small"
        assert row.seconds > 0
        assert math.isclose(row.gflops * 1e9, SMALL.flops / row.seconds)
    assert rows[0].ratio == 1.0


def test_memory_grows_with_the_network():
    small, large = (measure.memory(workloads.get(name), "native", CPU) for name in ("ring", "mnist_paper"))
    assert large > small + 8 * workloads.get("mnist_paper").generator.parameters  # a parameter and its velocity


def test_table_and_files(tmp_path, capsys):
    files = {"json": tmp_path / "b.json", "plot": tmp_path / "b.png"}
    options = {"scaling": None, "seconds": 0.02, "device": "cpu", "memory": False}
    assert command.run(["ring"], ["native", "eager"], **options, **files) == 0
    printed = capsys.readouterr().out
    content = json.loads(files["json"].read_text())
    assert [row["provider"] for row in content["rows"]] == ["native", "eager"]
    assert content["machine"]["torch"] == torch.__version__
    for row in content["rows"]:
        assert f"{row['seconds'] * 1e3:.3f}" in printed
        assert row["flops"] == workloads.get("ring").flops
    assert files["plot"].read_bytes()[:4] == b"\x89PNG"


def test_scaling_curves():
    assert [w.batch for w in workloads.scaling("batch")] == [16, 64, 256, 1024, 4096, 16384, 65536]
    assert [len(w.generator.weights) for w in workloads.scaling("depth")] == [2, 3, 4, 6, 8, 10]
    assert [w.generator.sizes[1] for w in workloads.scaling("width")] == [2**n for n in range(5, 14)]


def test_what_cannot_run_here_is_left_out_with_a_reason(monkeypatch, capsys):
    monkeypatch.setattr(providers.importlib.util, "find_spec", lambda name: None)
    assert "jax" not in command._available(tuple(providers.PROVIDERS), CPU, False)
    printed = capsys.readouterr().out
    assert "without jax: jax is not installed (pip install 'pygan[bench]')" in printed
    assert "without eager graph: it is for CUDA" in printed


BAD = {
    "workload": (["--workload", "rng"], "workload must be .* did you mean 'ring'"),
    "provider": (["--provider", "egaer"], "provider must be .* did you mean 'eager'"),
    "not here": (["--provider", "eager graph"], "provider eager graph cannot run here: it is for CUDA"),
    "scaling": (["--scaling", "batches"], "did you mean 'batch'"),
    "both": (["--scaling", "batch", "--workload", "ring"], "leave out the names"),
    "memory": (["--scaling", "batch", "--memory"], "leave out the scaling curve"),
    "seconds": (["--seconds", "0"], "seconds must be .*above 0"),
    "plot": (["--plot", "b.gif"], "plot must be a .png, .pdf or .svg file"),
    "precision": (["--precision", "bf61"], "did you mean 'bf16'"),
    "no TF32": (["--precision", "tf32"], "precision must be fp32 or bf16 on the CPU"),
    "memory in bf16": (["--precision", "bf16", "--memory"], "memory is measured in fp32"),
    "native in bf16": (["--precision", "bf16", "--provider", "native"], "runs fp32 and fp64 networks on the CPU"),
    "device": (["--device", "tpu"], "device must be cpu, cuda or cuda:N"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_sentence(name, capsys):
    from pygan import cli  # here, so that the other tests need no typer

    arguments, sentence = BAD[name]
    assert cli.main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(sentence, error), error


def test_a_folder_that_is_not_there(capsys):
    from pygan import cli

    assert cli.main(["bench", "--json", "nowhere/b.json"]) == 1
    assert "its folder does not exist" in capsys.readouterr().err


def test_report_has_a_line_for_each_row():
    row = measure.Row("ring", "native", 1e-4, 1.0, 10**6, 10**5, 0.5, 0.1)
    lines = report.table([row, row]).splitlines()
    assert len(lines) == 3
    assert "0.100" in lines[1]
