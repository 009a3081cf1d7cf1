"""`fuse` against the module that it was given: the same numbers, the same object, all around it still at work."""

import copy
import io
import pickle

import pytest
import torch
import torch.distributed
import torch.utils.checkpoint
from torch import nn
from torch.nn.utils import parametrizations

from pygan import fusion, ops, random
from pygan.fusion import fuse, fusions, unfuse

K = 6


class Scaled(nn.Linear):
    """A layer with a forward of its own."""

    def forward(self, x):
        return 2 * super().forward(x)


class Renamed(nn.Linear):
    """A layer with torch's forward."""


class Block(nn.Sequential):
    """A container that only has another name."""


class Twice(nn.Sequential):
    """A container with a forward of its own."""

    def forward(self, x):
        return super().forward(x) * 2


class Residual(nn.Module):
    """A body inside a larger module, and a layer that stands alone."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(K, 8), nn.ELU(), nn.Linear(8, K), nn.Tanh())
        self.head = nn.Linear(K, 2)

    def forward(self, x):
        return self.head(x + self.body(x))


def shared():
    layer = nn.Linear(K, K)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.Tanh(), nn.Linear(K, 2), nn.Sigmoid())


PATTERNS = {
    "generator": lambda: nn.Sequential(nn.Linear(K, 9), nn.ReLU(inplace=True), nn.Linear(9, 5), nn.Tanh()),
    "critic": lambda: nn.Sequential(
        nn.Linear(K, 9), nn.LeakyReLU(0.2), nn.Linear(9, 4), nn.LeakyReLU(0.2), nn.Linear(4, 1)
    ),
    "one layer": lambda: nn.Sequential(nn.Linear(K, 9), nn.Sigmoid()),
    "two slopes": lambda: nn.Sequential(nn.Linear(K, 9), nn.LeakyReLU(0.2), nn.Linear(9, 4), nn.LeakyReLU(0.1)),
    "batch norm": lambda: nn.Sequential(
        nn.Linear(K, 9),
        nn.LeakyReLU(0.2),
        nn.Linear(9, 8),
        nn.BatchNorm1d(8),
        nn.LeakyReLU(0.2),
        nn.Linear(8, 3),
        nn.Tanh(),
    ),
    "batch norms": lambda: nn.Sequential(
        nn.Linear(K, 9),
        nn.BatchNorm1d(9, affine=False),
        nn.ReLU(),
        nn.Linear(9, 8, bias=False),
        nn.BatchNorm1d(8, track_running_stats=False),
        nn.Tanh(),
        nn.Linear(8, 7),
        nn.BatchNorm1d(7, momentum=None, eps=0.1),
        nn.Linear(7, 2),
    ),
    "layer norm": lambda: nn.Sequential(
        nn.Linear(K, 9), nn.Softplus(), nn.LayerNorm(9), nn.Linear(9, 2), nn.Identity()
    ),
    "maxout": lambda: nn.Sequential(
        nn.Linear(K, 20), nn.MaxPool1d(5), nn.Linear(4, 6), nn.MaxPool1d(2), nn.Linear(3, 1)
    ),
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Linear(K, 9), nn.ReLU()), Block(nn.Linear(9, 2), nn.Sigmoid())),
    "inside": Residual,
    "no bias": lambda: nn.Sequential(nn.Linear(K, 9, bias=False), nn.ReLU(), nn.Linear(9, 2, bias=False), nn.Tanh()),
    "spectral norm": lambda: nn.Sequential(
        parametrizations.spectral_norm(nn.Linear(K, 9)), nn.ReLU(), parametrizations.spectral_norm(nn.Linear(9, 1))
    ),
    "weight norm": lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(K, 9)), nn.ReLU(), nn.Linear(9, 1)),
    "older norms": lambda: nn.Sequential(
        nn.utils.spectral_norm(nn.Linear(K, 9)), nn.ReLU(), nn.utils.spectral_norm(nn.Linear(9, 1)), nn.Tanh()
    ),
    "shared": shared,
    "own forward": lambda: nn.Sequential(
        Scaled(K, 9), nn.ReLU(), Renamed(9, 4), nn.Tanh(), Twice(nn.Linear(4, 2), nn.ReLU())
    ),
    "other activations": lambda: nn.Sequential(
        nn.Linear(K, 9), nn.ELU(2.0), nn.Linear(9, 5), nn.GELU(), nn.Linear(5, 1)
    ),
    "norm at the end": lambda: nn.Sequential(nn.Linear(K, 9), nn.BatchNorm1d(9)),
    "nothing": lambda: nn.Sequential(nn.Linear(K, 9), nn.GroupNorm(3, 9)),
}


def pair(name, dtype=torch.float64):
    torch.manual_seed(0)
    module = PATTERNS[name]().to(dtype)
    if name == "older norms":  # torch cannot copy them once they were called
        torch.manual_seed(0)
        return module, fuse(PATTERNS[name]().to(dtype))
    return module, fuse(copy.deepcopy(module))


def close(left, right, tolerance=1e-11):
    for one, other in zip(left, right, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", PATTERNS)
def test_outputs_gradients_and_second_gradients(name, training, dtype):
    results = []
    for module in pair(name, dtype):
        module.train(training)
        x = torch.linspace(-2, 2, 7 * K, dtype=dtype).sin().view(7, K).requires_grad_()
        y = module(x)
        inputs = [x, *module.parameters()]
        first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
        penalty = (first[0].norm(dim=1) - 1).square().sum()
        second = torch.autograd.grad(penalty, list(module.parameters()), materialize_grads=True)
        results.append([y, *first, *second])
    close(*results, tolerance=1e-11 if dtype == torch.float64 else 2e-4)


@pytest.mark.parametrize("name", PATTERNS)
def test_state_after_ten_steps(name):
    states = []
    for module in pair(name):
        # eps: the gradient of a bias before a BatchNorm1d is zero but for rounding, which a smaller one would blow up
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-2, eps=1e-4)
        for i in range(10):
            optimizer.zero_grad()
            x = torch.linspace(i, i + 3, 5 * K, dtype=torch.float64).cos().view(5, K)
            module(x).square().mean().backward()
            optimizer.step()
        states.append(module.state_dict())
    assert list(states[0]) == list(states[1])
    close(states[0].values(), states[1].values(), 1e-9)


@pytest.mark.parametrize("name", [name for name in PATTERNS if name != "older norms"])
def test_is_what_it_was(name):
    torch.manual_seed(0)
    module = PATTERNS[name]()
    parameters, keys, shown, kind = list(module.parameters()), list(module.state_dict()), repr(module), type(module)
    assert fuse(module) is module
    assert all(one is other for one, other in zip(parameters, module.parameters(), strict=True))
    assert list(module.state_dict()) == keys
    assert repr(module) == shown
    assert isinstance(module, kind)
    assert fuse(module) is module  # once more changes nothing
    unfuse(module)
    assert type(module) is kind
    assert not any(isinstance(m, fusion._FusedSequential) for m in module.modules())


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


def test_what_was_fused_is_told(capsys):
    module = fuse(PATTERNS["batch norm"](), verbose=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["0", "2", "5"]
    assert lines[0].endswith("Linear + LeakyReLU                   linear_act")
    assert lines[1].endswith("Linear + BatchNorm1d + LeakyReLU     linear_batch_norm_act")
    assert [str(entry) for entry in fusions(module)] == lines


def hooked(at):
    module = nn.Sequential(nn.Linear(K, 3), nn.ReLU())
    module[at].register_forward_hook(lambda *_: None)
    return module


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (shared, "it is used twice"),
        (lambda: hooked(0), "it has hooks"),
        (lambda: hooked(1), "the ReLU has hooks"),
        (lambda: nn.Sequential(nn.LazyLinear(3), nn.ReLU()), "it has no shape yet: call the module once, then fuse it"),
        (lambda: nn.Sequential(Scaled(K, 3), nn.ReLU()), "a Scaled has a forward of its own"),
        (lambda: Twice(nn.Linear(K, 3), nn.ReLU()), "its container, a Twice, has a forward of its own"),
        (lambda: nn.Sequential(nn.Linear(K, 3, dtype=torch.complex64), nn.Tanh()), "its parameters are complex64"),
        (lambda: nn.Sequential(nn.Linear(K, 3), nn.ELU(2.0)), "ELU(alpha=2.0) is no activation of the ops"),
        (
            lambda: nn.Sequential(nn.Linear(K, 3), nn.Softplus(2.0)),
            "Softplus(beta=2.0, threshold=20.0) is no activation",
        ),
        (lambda: nn.Sequential(nn.Linear(K, 3), nn.LeakyReLU(-0.1)), "LeakyReLU(negative_slope=-0.1) is no activation"),
        (lambda: nn.Sequential(nn.Linear(K, 3), nn.GELU()), "GELU follows"),
        (lambda: nn.Sequential(nn.Linear(K, 3), nn.MaxPool1d(2)), "is no maxout"),
        (lambda: nn.Sequential(nn.Linear(K, 4), nn.MaxPool1d(2, stride=1)), "is no maxout"),
        (lambda: nn.Sequential(nn.Linear(K, 3)), "nothing follows"),
        (lambda: nn.Linear(K, 3), "its container is no nn.Sequential"),
        (lambda: nn.ModuleList([nn.Linear(K, 3), nn.ReLU()]), "its container is no nn.Sequential"),
    ],
)
def test_what_is_left_has_a_reason(make, reason):
    entry = fusions(fuse(make()))[0]
    assert entry.op is None
    assert reason in entry.reason


def normed(*parts, features=8):
    return nn.Sequential(nn.Linear(K, 8), nn.BatchNorm1d(features), *parts)


def test_what_of_a_batch_norm_is_left_has_a_reason():
    module = normed()
    module[1].register_forward_pre_hook(lambda *_: None)
    assert fusions(fuse(module))[0].reason == "the BatchNorm1d has hooks"
    assert "BatchNorm1d(5" in fusions(fuse(normed(features=5)))[0].reason
    assert fusions(fuse(nn.Sequential(nn.Linear(K, 8), nn.SyncBatchNorm(8))))[0].reason == "SyncBatchNorm follows"
    assert fusions(fuse(nn.Sequential(nn.Linear(K, 8), nn.LazyBatchNorm1d())))[0].reason == "LazyBatchNorm1d follows"
    module = normed(nn.ReLU())
    module[2].register_forward_hook(lambda *_: None)
    assert fusions(fuse(module))[0].layers == ("Linear", "BatchNorm1d")


def test_a_frozen_batch_norm_beside_a_training_net():
    module = normed(nn.ReLU()).double()
    module(torch.randn(9, K, dtype=torch.float64))
    module[1].eval()
    fused, x = fuse(copy.deepcopy(module)), torch.randn(4, K, dtype=torch.float64)
    close([module(x)], [fused(x)])
    close(module.state_dict().values(), fused.state_dict().values(), 0)


def test_batches_that_torchs_batch_norm_refuses_or_takes_otherwise():
    module, fused = normed(nn.Tanh()), fuse(normed(nn.Tanh()))
    for one in (module, fused):
        with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
            one(torch.randn(1, K))
        with pytest.raises(RuntimeError, match="running_mean should contain 3 elements not 8"):
            one(torch.randn(2, 3, K))
    assert fused.eval()(torch.randn(1, K)).shape == (1, 8)
    assert fused(torch.randn(0, K)).shape == (0, 8)


def test_batch_norm_settings_are_read_at_each_call():
    module = normed(nn.LeakyReLU(0.2)).double()
    fused, x = fuse(copy.deepcopy(module)), torch.randn(9, K, dtype=torch.float64)
    for one in (module, fused):
        one[1].eps, one[1].momentum = 0.5, 0.7
    close([module(x)], [fused(x)])
    close(module.state_dict().values(), fused.state_dict().values())


def test_before_it_is_called_nothing_is_fused():
    assert fusions(nn.Sequential(nn.Linear(K, 3), nn.ReLU()))[0].reason == "fuse has not been called"


def test_lazy_layers_are_fused_once_they_have_a_shape():
    module = nn.Sequential(nn.LazyLinear(3), nn.ReLU())
    fuse(module)
    module(torch.randn(2, K))
    assert fusions(fuse(module))[0].op == "linear_act"


def test_hooks_that_come_later_are_called():
    module, seen = fuse(PATTERNS["critic"]()), []
    x = torch.randn(4, K)
    expected = module(x)
    handle = module[0].register_forward_hook(lambda layer, inputs, output: seen.append(output))
    close([module(x)], [expected], 1e-6)
    close(seen, [nn.functional.linear(x, module[0].weight, module[0].bias)], 1e-6)
    handle.remove()
    module(x)
    assert len(seen) == 1
    module[1].register_full_backward_hook(lambda *_: seen.append("backward"))
    module(x).sum().backward()
    assert seen[1:] == ["backward"]


def test_hooks_of_all_modules_are_called():
    module, seen = fuse(PATTERNS["critic"]()), []
    handle = nn.modules.module.register_module_forward_hook(lambda layer, *_: seen.append(type(layer).__name__))
    try:
        module(torch.randn(4, K))
    finally:
        handle.remove()
    assert seen[:2] == ["Linear", "LeakyReLU"]


def test_changes_are_seen_at_the_next_call():
    module, x = fuse(PATTERNS["critic"]()), torch.randn(4, K)

    def check():
        left = module(x)
        close([left], [unfuse(copy.deepcopy(module))(x)], 1e-6)

    module[1].negative_slope = 0.5
    check()
    module[1].negative_slope = -0.5  # no op has that
    check()
    module[2] = nn.Linear(9, 4)
    check()
    module[3] = nn.Hardtanh()
    check()
    module.append(nn.Sigmoid())
    check()
    assert len(module[:2]) == 2
    close([module[:2](x)], [module[1](module[0](x))], 1e-6)
    module.to(torch.float64)
    x = x.double()
    check()


@pytest.mark.parametrize("layers", [1, 3])
def test_dropout_is_the_ops(layers):
    parts = [nn.Linear(K, 9), nn.ReLU(), nn.Dropout(0.4)]
    for _ in range(layers - 1):
        parts += [nn.Linear(9, 9), nn.ReLU(), nn.Dropout(0.2)]
    module = fuse(nn.Sequential(*parts).double())
    x = torch.randn(50, K, dtype=torch.float64)
    torch.manual_seed(5)
    y = module(x)
    torch.manual_seed(5)
    seed = int(torch.randint(2**63 - 1, ()))
    expected = x
    for i in range(layers):
        linear, dropout = parts[3 * i], parts[3 * i + 2]
        expected = linear(expected).relu()
        expected = expected * ops.dropout(
            torch.ones_like(expected), p=dropout.p, seed=seed, offset=random.offset(i + 1)
        )
    close([y], [expected])
    assert not torch.equal(module(x), y)
    module.eval()
    close([module(x)], [unfuse(module)(x)])


def test_dropout_of_everything_is_torchs():
    module = fuse(nn.Sequential(nn.Linear(K, 3), nn.ReLU(), nn.Dropout(1.0)))
    assert not module(torch.randn(2, K)).any()


@pytest.mark.parametrize("shape", [(K,), (0, K), (2, 3, K), (2, 1, 3, K)], ids=str)
def test_shapes(shape):
    module, fused = pair("generator")
    x = torch.randn(shape, dtype=torch.float64)
    close([module(x)], [fused(x)])


@pytest.mark.parametrize(
    "x",
    [
        torch.ones(2, K, dtype=torch.int64),
        torch.ones(2, K, dtype=torch.complex64),
        torch.ones(2, K),
        torch.ones(2, K + 1),
    ],
    ids=["integer", "complex", "another dtype", "another length"],
)
def test_wrong_inputs_raise(x):
    module, fused = pair("generator")
    with pytest.raises((RuntimeError, ValueError, TypeError)):
        module(x)
    with pytest.raises((RuntimeError, ValueError, TypeError)):
        fused(x)


def test_a_tensor_of_inference_mode_and_of_meta():
    module, fused = pair("generator")
    with torch.inference_mode():
        x = torch.randn(2, K, dtype=torch.float64)
        close([module(x)], [fused(x)])
    for one in (module, fused):
        with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
            one(x)
    assert fused.to("meta")(torch.empty(2, K, dtype=torch.float64, device="meta")).shape == (2, 5)


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


IN_PLACE = {
    "SiLU": lambda: [nn.Linear(K, 8), nn.BatchNorm1d(8), nn.SiLU(inplace=True)],
    "ReLU6": lambda: [nn.Linear(K, 8), nn.BatchNorm1d(8), nn.ReLU6(inplace=True), nn.Linear(8, 2)],
    "after dropout": lambda: [nn.Linear(K, 8), nn.BatchNorm1d(8), nn.Dropout(0.0), nn.ReLU(True)],
    "twice": lambda: [nn.Linear(K, 8), nn.LeakyReLU(0.2), nn.LeakyReLU(0.2, inplace=True)],
    "after maxout": lambda: [nn.Linear(K, 8), nn.MaxPool1d(2), nn.ReLU(inplace=True)],
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_what_follows_may_write_in_place(name):
    module = nn.Sequential(*IN_PLACE[name]()).double()
    fused, x = fuse(copy.deepcopy(module)), torch.randn(9, K, dtype=torch.float64)
    left, right = module(x), fused(x)
    close([left], [right])
    left.square().sum().backward()
    right.square().sum().backward()
    # a bias before a BatchNorm1d has a gradient of zero, but for torch's rounding
    close([p.grad for p in module.parameters()], [p.grad for p in fused.parameters()], 1e-10)


@pytest.mark.parametrize("parts", [(nn.Linear(K, K), nn.BatchNorm1d(K)), (nn.Linear(K, 4), nn.ReLU(), nn.Linear(4, K))])
def test_a_residual_may_be_added_in_place(parts):
    fused, x = fuse(nn.Sequential(*parts)), torch.randn(5, K)
    y = fused(x)
    y += x
    y.sum().backward()
    assert all(p.grad is not None for p in fused.parameters())


def test_an_in_place_module_behind_an_activation_is_said():
    entry = fusions(fuse(nn.Sequential(nn.Linear(K, 3), nn.Tanh(), nn.ReLU(inplace=True))))[0]
    assert entry.reason == "an in-place ReLU follows its activation"


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_forward_that_is_replaced_later_is_called(at):
    module = fuse(normed(nn.ReLU()))
    x = torch.randn(5, K)
    own = module[at].forward
    module[at].forward = lambda x: own(x) + 1
    close([module.eval()(x)], [unfuse(copy.deepcopy(module)).eval()(x)], 1e-6)
    del module[at].forward
    module[0].__class__ = Scaled
    close([module(x)], [unfuse(copy.deepcopy(module))(x)], 1e-6)


def test_export_of_any_batch():
    fused, size = fuse(normed(nn.Tanh())).eval(), torch.export.Dim("m", min=2)
    program = torch.export.export(fused, (torch.randn(8, K),), strict=False, dynamic_shapes=({0: size},))
    x = torch.randn(5, K)
    close([program.module()(x)], [fused(x)], 1e-6)


def test_a_call_that_fails_is_not_counted():
    module = fuse(normed(nn.Tanh()))
    with pytest.raises(ValueError, match="last dimension"):
        module(torch.randn(4, K + 1))
    assert module[1].num_batches_tracked == 0


def test_dropout_where_no_seed_can_be_drawn():
    module = fuse(nn.Sequential(nn.Linear(K, 8), nn.ReLU(), nn.Dropout(0.5)))
    with torch.device("meta"):
        assert module(torch.randn(4, K, device="cpu")).shape == (4, 8)
    y = torch.vmap(module, randomness="different")(torch.ones(3, 4, K))
    assert not torch.equal(y[0], y[1])


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


@pytest.mark.parametrize("call", [fuse, unfuse, fusions])
def test_what_is_no_module_is_refused(call):
    with pytest.raises(TypeError, match=r"module must be a torch\.nn\.Module, got list"):
        call([nn.Linear(2, 2)])
