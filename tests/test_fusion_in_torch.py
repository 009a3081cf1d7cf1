"""What torch offers for any module, with fused ones: compile, autocast, export, checkpoints, DDP, functional forms."""

import copy
import io
import pickle

import pytest
import torch
import torch.distributed
import torch.utils.checkpoint
from torch import nn

from patterns import PATTERNS, K, Residual, close, normed, pair
from pygan.fusion import fuse, fusions, unfuse


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save"])
def test_copies_are_fused_and_stand_alone(how):
    module = fuse(Residual())
    if how == "deepcopy":
        other = copy.deepcopy(module)
    elif how == "pickle":
        other = pickle.loads(pickle.dumps(module))
    else:
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    x = torch.randn(3, K)
    close([module(x)], [other(x)], 0)
    assert [(entry.name, entry.op) for entry in fusions(other)] == [
        ("body.0", "mlp"),
        ("body.2", "mlp"),
        ("head", None),
    ]
    before = module(x)
    with torch.no_grad():
        for average, p in zip(other.parameters(), module.parameters(), strict=True):
            average.lerp_(p + 1, 0.5)
    close([module(x)], [before], 0)
    assert not torch.equal(other(x), before)
    assert type(unfuse(other.body)) is nn.Sequential


def test_hooks_of_all_modules_are_called():
    module, seen = fuse(PATTERNS["critic"]()), []
    handle = nn.modules.module.register_module_forward_hook(lambda layer, *_: seen.append(type(layer).__name__))
    try:
        module(torch.randn(4, K))
    finally:
        handle.remove()
    assert seen[:2] == ["Linear", "LeakyReLU"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(dtype):
    module, fused = pair("critic", torch.float32)
    x = torch.randn(4, K)
    with torch.autocast("cpu", dtype=dtype):
        left, right = module(x), fused(x)
    assert left.dtype == right.dtype == dtype
    close([left], [right], 3e-2)
    right.float().sum().backward()
    assert fused[0].weight.grad.dtype == torch.float32


@pytest.mark.parametrize("name", ["generator", "critic", "batch norm", "maxout", "inside", "spectral norm"])
def test_compiles_without_a_break(name):
    module, fused = pair(name, torch.float32)
    compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
    x = torch.randn(4, K)
    left, right = module(x), compiled(x)
    close([left], [right], 1e-5)
    left.square().sum().backward()
    right.square().sum().backward()
    close([p.grad for p in module.parameters()], [p.grad for p in fused.parameters()], 1e-4)


@pytest.mark.parametrize("name", ["one layer", "critic", "batch norm", "maxout"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed(name, reentrant):
    gradients = []
    for module in pair(name):
        x = torch.linspace(-1, 1, 8 * K, dtype=torch.float64).view(8, K).requires_grad_()
        y = torch.utils.checkpoint.checkpoint(module, x, use_reentrant=reentrant)
        gradients.append([y, *torch.autograd.grad(y.sum(), [x, *module.parameters()])] if not reentrant else [y])
    close(*gradients)


def test_what_a_hook_of_saved_tensors_raises_comes_through():
    class Boom(Exception):
        pass

    def pack(tensor):
        raise Boom

    module = fuse(PATTERNS["one layer"]())
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), pytest.raises(Boom):
        module(torch.randn(2, K))


def test_export_of_any_batch():
    fused, size = fuse(normed(nn.Tanh())).eval(), torch.export.Dim("m", min=2)
    program = torch.export.export(fused, (torch.randn(8, K),), strict=False, dynamic_shapes=({0: size},))
    x = torch.randn(5, K)
    close([program.module()(x)], [fused(x)], 1e-6)


def test_functional_forms():
    module, fused = pair("critic")
    x = torch.randn(4, K, dtype=torch.float64)
    state = {name: p + 1 for name, p in fused.named_parameters()}
    call = torch.func.functional_call
    close([call(module, state, (x,))], [call(fused, state, (x,))])
    loss = [torch.func.grad(lambda p, m=m: call(m, p, (x,)).sum())(state) for m in (module, fused)]
    close(loss[0].values(), loss[1].values())


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_over_networks():
    made = [pair("critic") for _ in range(3)]
    x = torch.randn(4, K, dtype=torch.float64)
    stacked, _ = torch.func.stack_module_state([fused for _, fused in made])
    fused = made[0][1]
    y = torch.vmap(lambda p: torch.func.functional_call(fused, p, (x,)))(stacked)
    close(y, [module(x) for module, _ in made])


def test_export():
    module, fused = pair("generator", torch.float32)
    x = torch.randn(4, K)
    program = torch.export.export(fused.eval(), (x,))
    close([program.module()(x)], [module(x)], 1e-6)


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_checkpointing_and_anomalies():
    module, fused = pair("critic")
    x = torch.randn(4, K, dtype=torch.float64, requires_grad=True)
    with torch.autograd.detect_anomaly(check_nan=True):
        y = torch.utils.checkpoint.checkpoint(fused, x, use_reentrant=False)
        (gradient,) = torch.autograd.grad(y.sum(), x)
    close([gradient], torch.autograd.grad(module(x).sum(), x))


def test_a_saved_tensor_that_changes_raises():
    module = fuse(nn.Sequential(nn.Linear(K, 3), nn.ReLU()))
    y = module(torch.randn(2, K))
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.fixture
def process_group(tmp_path):
    torch.distributed.init_process_group("gloo", f"file://{tmp_path / 'ddp'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", ["critic", "batch norm"])
def test_distributed_data_parallel(name, process_group):
    x, gradients = torch.randn(6, K, dtype=torch.float64), []
    for module in pair(name):
        parallel = nn.parallel.DistributedDataParallel(module)
        parallel(x).square().sum().backward()
        gradients.append([p.grad for p in module.parameters()])
    close(*gradients)


def test_data_parallel():
    module, fused = pair("batch norm")
    x = torch.randn(6, K, dtype=torch.float64)
    close([nn.DataParallel(module)(x)], [nn.DataParallel(fused)(x)])


def test_fp16_with_a_gradient_scaler():
    states = []
    for module in pair("batch norm", torch.float32):
        optimizer, scaler = torch.optim.SGD(module.parameters(), lr=0.1), torch.amp.GradScaler("cpu")
        for i in range(3):
            x = torch.linspace(i, i + 3, 8 * K).cos().view(8, K)
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.float16):
                loss = module(x).float().square().mean()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        states.append(module.state_dict())
    close(states[0].values(), states[1].values(), 2e-2)
    assert scaler.get_scale() == 65536  # no step was left out


def test_averages_of_weights():
    averages = []
    for module in pair("batch norm"):
        average = torch.optim.swa_utils.AveragedModel(module)
        with torch.no_grad():
            for p in module.parameters():
                p.add_(1)
        average.update_parameters(module)
        average.update_parameters(module)
        batches = [torch.linspace(i, i + 2, 5 * K, dtype=torch.float64).sin().view(5, K) for i in range(3)]
        torch.optim.swa_utils.update_bn(batches, average)
        averages.append(average.state_dict())
    close(averages[0].values(), averages[1].values())
