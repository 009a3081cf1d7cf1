"""What benchmarks/gpu_check.py runs in processes of their own: each writes what it found to a file, as JSON.

    python benchmarks/gpu_work.py WHAT --device cuda --result FILE ...

A process apart, because an error on a GPU spoils all that its process does there later.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

# pygan's and theirs, and what runs the tests.
DEPENDENCIES = (
    *("numpy", "typer", "rich", "matplotlib", "PIL", "sklearn", "scipy", "safetensors"),
    *("pytest", "pytest_benchmark"),
)


def about(device: torch.device, arguments) -> dict:
    """The machine, and what it has."""
    found = {
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "python": sys.version.split()[0],
        "missing": [name for name in DEPENDENCIES if importlib.util.find_spec(name) is None],
        "cpus": len(os.sched_getaffinity(0)),
    }
    if device.type == "cuda":
        found |= _card(device)
    try:
        found["pygan"] = _pygan(device)
    except Exception as error:  # whatever a build of another torch, or none, does
        found["pygan"] = None
        found["why_no_pygan"] = f"{type(error).__name__}: {error}"
    return found


def _card(device: torch.device) -> dict:
    if not torch.cuda.is_available():
        return {"card": None}
    properties = torch.cuda.get_device_properties(device)
    asked = "driver_version,power.limit,clocks.max.sm,clocks.max.mem,ecc.mode.current,mig.mode.current"
    try:
        query = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"]
        says = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False).stdout.splitlines()
    except (OSError, subprocess.TimeoutExpired):
        says = []
    return {
        "card": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory": properties.total_memory,
        "driver": {
            name: value.strip()
            for line in says[:1]
            for name, value in zip(asked.split(","), line.split(","), strict=False)
        },
    }


def _pygan(device: torch.device) -> dict:
    import pygan
    from pygan import composed
    from pygan.bench import measure

    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return {
        "machine": measure.machine(device),
        "build": pygan.build_info(),
        "file": pygan.__file__,
        "without_cuda_kernel": [name for name in composed.KERNELS if not has(f"pygan::{name}", "CUDA")],
    }


def ceilings(device: torch.device, arguments) -> dict:
    """The machine's own rates: what nothing on it can exceed."""
    from pygan.bench import measure

    kinds = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if device.type == "cpu":
        del kinds["tf32"], kinds["fp16"]
    rates, copies = {}, []
    for precision, dtype in kinds.items():
        with measure.multiplying(precision):
            machine = measure.Machine(device, dtype)
            machine.gemm()
            machine.bandwidth()
            rates[precision] = statistics.median(machine.gemm() for _ in range(arguments.rounds))
            copies += [machine.bandwidth() for _ in range(arguments.rounds)]
            del machine
    return {"flops_per_second": rates, "copied_bytes_per_second": statistics.median(copies)}


def iterations(device: torch.device, arguments) -> dict:
    """One workload in one precision by all providers that run here."""
    import pygan
    from pygan.bench import measure, providers, report, workloads

    workload, precision = workloads.get(arguments.workload), arguments.precision
    left_out, chosen = {}, []
    for name in arguments.provider or providers.PROVIDERS:
        reason = providers.why_not(name, device, precision)
        chosen += [] if reason or name in arguments.without else [name]
        left_out |= {name: reason} if reason else {}
    failures: dict[str, str] = {}

    def doing(name: str) -> None:
        arguments.doing.write_text(name)

    rows = measure.compare(
        workload,
        chosen,
        device,
        seconds=arguments.seconds,
        rounds=arguments.rounds,
        precision=precision,
        failures=failures,
        doing=doing,
    )
    if not rows:
        raise RuntimeError(f"no provider ran: {failures}")
    print(report.table(rows))
    values = workload.data().to(device, measure.PRECISIONS[precision])
    with measure.multiplying(precision):
        networks = measure.make(workload, "composed", values, device).trainer
        auto = pygan.Trainer(networks.generator, networks.discriminator, values, batch_size=workload.batch)
    return {
        "rows": [{**vars(row), "gflops": row.gflops} for row in rows],
        "auto": auto.engine,
        "failed": failures,
        "left_out": left_out,
    }


def every_op(device: torch.device, arguments) -> dict:
    """Each op once, forward and backward, small and ragged, for a sanitizer to watch."""
    import pygan

    ops, done = pygan.ops, []
    # launches alone do not tell what these are: the small tile, splits of a deep inner dimension, a medium tile
    shapes = [(33, 40, 48), (64, 1040, 72), (130, 65, 200)]
    dtypes = [torch.float32, torch.bfloat16, torch.float16]
    if device.type == "cuda":
        dtypes.append(torch.float64)

    def draw(*shape: int, dtype: torch.dtype) -> torch.Tensor:
        return (torch.randn(shape) * 0.3).to(device, dtype).requires_grad_()

    def both_ways(name: str, function, *inputs: torch.Tensor) -> None:
        result = function(*inputs)
        result = result[0] if isinstance(result, tuple) else result
        torch.autograd.grad(result, inputs, torch.ones_like(result))
        done.append(name)

    for tf32 in (False, True):
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        for dtype in dtypes[:1] if tf32 else dtypes:
            with ops.products("fused"):
                for m, k, n in shapes:
                    x, bias = draw(m, k, dtype=dtype), draw(n, dtype=dtype)
                    weight = draw(n, k, dtype=dtype)
                    both_ways("linear_act", lambda *t: ops.linear_act(*t, activation="tanh"), x, weight, bias)
                    both_ways("maxout", lambda *t: ops.maxout(*t, pieces=4), x, weight, bias)
                layers = [draw(*shape, dtype=dtype) for shape in ((50, 24), (40, 24), (40,), (3, 40), (3,))]
                for dropout in (0.0, 0.5):
                    both_ways("mlp", lambda *t, p=dropout: _mlp(ops, p, *t), *layers)
            both_ways("dropout", lambda x: ops.dropout(x, p=0.5, seed=1, offset=2), draw(37, 19, dtype=dtype))
            logits = [draw(1001, dtype=dtype), draw(77, dtype=dtype)]
            both_ways("discriminator_loss", ops.discriminator_loss, *logits)
            both_ways("generator_loss", ops.generator_loss, logits[0])
            head = [draw(*shape, dtype=dtype) for shape in ((90, 100), (1, 100), (1,))]
            both_ways("head_loss", lambda *t: ops.head_loss(*t, real_rows=40), *head)
            with torch.no_grad():
                _without_gradient(ops, device, dtype, draw)
            done += ["momentum_", "adam_", "parzen_log_likelihood", "noise"]
    ops.minibatch_indices(777, 1001, start=5, seed=3, device=device)
    _wait(device)
    return {"ops": sorted({*done, "minibatch_indices"})}


def _mlp(ops, dropout, x, first, first_bias, second, second_bias):
    activations, biases = ["relu", "tanh"], [first_bias, second_bias]
    return ops.mlp(x, [first, second], biases, activations=activations, dropout=dropout, seed=1, offset=2)


def _without_gradient(ops, device, dtype, draw) -> None:
    one, two, three, four = ([draw(n, dtype=dtype).detach().abs() for n in (1000, 33)] for _ in range(4))
    ops.momentum_(one, two, three, lr=0.1, momentum=0.5)
    ops.adam_(one, two, three, four, step=3)
    ops.parzen_log_likelihood(draw(70, 100, dtype=dtype), draw(900, 100, dtype=dtype), sigma=0.5)
    for kind in ("normal", "uniform"):
        ops.noise((1001, 3), kind=kind, seed=3, offset=4, dtype=dtype, device=device)


def few_iterations(device: torch.device, arguments) -> dict:
    """Some iterations of the native engine on a few workloads, captured ones too, for a sanitizer to watch."""
    from pygan import native
    from pygan.bench import measure, workloads

    launches = {}
    cases = [("ring", "fp32")]
    if device.type == "cuda":
        cases += [("snippet", "fp32"), ("snippet", "bf16"), ("mnist_paper", "fp32"), ("mnist_paper", "tf32")]
    for name, precision in cases:
        workload = workloads.get(name)
        values = workload.data()[: 2 * workload.batch].to(device, measure.PRECISIONS[precision])
        with measure.multiplying(precision):
            session = native.Session(measure.make(workload, "native", values, device).trainer)
            for first, count in ((0, 1), (1, arguments.rounds)):  # eight at once are a graph
                if len(session.run(first, count, 1e6)) != count:
                    raise ArithmeticError(f"{name} in {precision}: a loss is not finite")
        launches[f"{name} {precision}"] = session.launches
    _wait(device)
    return {"launches": launches}


def train(device: torch.device, arguments) -> dict:
    """A recipe's whole run, and the paper's measure of what came of it: where it was best, and where it ended."""
    import pygan
    from pygan import evaluation
    from pygan.running import restore

    recipe = pygan.recipes.get(arguments.recipe)
    source, iterations = arguments.data or recipe.data, arguments.iterations or recipe.iterations
    trainer = recipe.build(source, device=device)
    tracker = evaluation.Tracker(recipe.load_validation(source), samples=min(1000, arguments.samples))
    kept = {}

    def keep() -> None:
        kept["state"] = {name: tensor.clone() for name, tensor in trainer.state().items()}
        kept["iteration"] = trainer.iteration

    result = {"recipe": recipe.name, "data": source, "engine": trainer.engine, "iterations": iterations}
    started, waited = time.monotonic(), 0.0

    def follow(trainer, news) -> None:
        nonlocal waited
        before = time.monotonic()
        tracker.follow(trainer, keep)
        waited += time.monotonic() - before

    history = trainer.run(iterations, follow)
    _wait(device)
    result["seconds"] = time.monotonic() - started - waited
    result["d_loss"], result["g_loss"] = (float(losses[-100:].mean()) for losses in (history.d_loss, history.g_loss))
    _write(arguments.result, result)  # should the rest fail
    tracker.follow(trainer, keep, now=True)
    sets = recipe.load_validation(source), recipe.load_test(source)
    last = evaluation.evaluate(trainer, *sets, samples=arguments.samples)
    result["last"] = last
    _write(arguments.result, result)
    if kept and kept["iteration"] != trainer.iteration:
        restore(trainer, kept["state"])
        result["best"] = evaluation.evaluate(trainer, *sets, samples=arguments.samples)
        result["best"]["iteration"] = kept["iteration"]
    else:
        result["best"] = last
    return result


def plots(device: torch.device, arguments) -> dict:
    """Bars and rooflines of what has been measured, a picture for each precision."""
    from pygan.bench import measure, report

    results = json.loads(arguments.json.read_text())
    rows = [
        measure.Row(**{key: value for key, value in row.items() if key != "gflops"})
        for unit in results["parts"].get("iterations", {}).values()
        for row in (unit.get("result") or {}).get("rows", ())
    ]
    written = []
    for precision in dict.fromkeys(row.precision for row in rows):
        path = arguments.json.parent / f"iterations-{precision}.png"
        machine = {**results["machine"]["pygan"]["machine"]}
        machine["machine"] = f"{machine['machine']}, {precision}"
        report.plot([row for row in rows if row.precision == precision], machine, path)
        written.append(path.name)
    return {"written": written}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _write(path: Path, result: dict) -> None:
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(result, default=str))
    os.replace(beside, path)


WORK = {
    function.__name__.replace("_", "-"): function
    for function in (about, ceilings, iterations, every_op, few_iterations, train, plots)
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=WORK)
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--workload")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--provider", action="append")
    parser.add_argument("--without", action="append", default=[])
    parser.add_argument("--doing", type=Path)
    parser.add_argument("--recipe")
    parser.add_argument("--data")
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    _write(arguments.result, WORK[arguments.what](arguments.device, arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
