"""Each instruction set that this machine has computes the same thing: the kernels exist once for each."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pygan

ISAS = ("portable", "avx2", "avx512")
# One process per set: it is chosen once, at the first op.
PROGRAM = """
import torch
from cases import ACTIVATIONS, assert_twins, layer, normal
import pygan
from pygan import reference

assert pygan.build_info()["cpu_isa"] == {isa!r}
for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
    for shape in ((7, 13, 17), (40, 801, 35)):
        for name in ACTIVATIONS:
            def run(module):
                return lambda *tensors: module.linear_act(*tensors, activation=name)
            assert_twins(run(pygan.ops), run(reference), layer(*shape, dtype=dtype), length=max(shape))
    x, weight, bias = layer(20, 30, 36, dtype=torch.float64)
    def run(module):
        return lambda *tensors: module.maxout(*tensors, pieces=3, dropout=0.5, seed=1, offset=2)
    assert_twins(run(torch.ops.pygan), run(reference), [x, weight, bias], length=30)
    logits = [normal(1001, dtype=dtype, seed=i) for i in range(2)]
    assert_twins(pygan.ops.discriminator_loss, reference.discriminator_loss, logits, length=1001)
uniform = {{"kind": "uniform", "seed": 3, "offset": 4}}
assert torch.equal(pygan.ops.noise((1001,), **uniform), reference.noise((1001,), **uniform))
got, exact = (module.noise((1001,), seed=3, offset=4) for module in (pygan.ops, reference))
torch.testing.assert_close(got, exact, rtol=4e-7, atol=5e-7)
"""


def run_with(isa):
    environment = {
        **os.environ,
        "PYGAN_CPU_ISA": isa,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])),
    }
    program = PROGRAM.format(isa=isa)
    return subprocess.run([sys.executable, "-P", "-c", program], env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("isa", ISAS)
def test_every_set_agrees_with_the_twins(isa):
    best = pygan.build_info()["cpu_isa"]
    if best not in ISAS or ISAS.index(isa) > ISAS.index(best):
        pytest.skip(f"this machine's best is {best}")
    done = run_with(isa)
    assert done.returncode == 0, done.stderr


def test_an_unknown_set_gets_a_sentence():
    done = run_with("sse9")
    assert done.returncode != 0
    assert "PYGAN_CPU_ISA: expected one of" in done.stderr
    assert "sse9" in done.stderr
