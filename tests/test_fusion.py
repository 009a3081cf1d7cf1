"""`fuse` against the module that it was given: the same numbers, the same object, all around it still at work."""

import copy

import pytest
import torch
from torch import nn

from patterns import PATTERNS, K, Scaled, Twice, close, normed, pair, shared
from pygan import fusion, ops, random
from pygan.fusion import fuse, fusions, unfuse


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", PATTERNS)
def test_outputs_gradients_and_second_gradients(name, training, dtype):
    def results(module):
        module.train(training)
        dtype = next(module.parameters()).dtype
        x = torch.linspace(-2, 2, 7 * K, dtype=torch.float64).sin().view(7, K).to(dtype).requires_grad_()
        y = module(x)
        inputs = [x, *module.parameters()]
        first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
        penalty = (first[0].norm(dim=1) - 1).square().sum()
        second = torch.autograd.grad(penalty, list(module.parameters()), materialize_grads=True)
        return [y, *first, *second]

    module, fused = pair(name, dtype)
    if dtype == torch.float64:
        close(results(module), results(fused))
        return
    # near the zero of a gradient, as behind a batch norm, rounding is all there is, and torch's own is the measure
    exact = results(pair(name, torch.float64)[0])
    for truth, plain, ours in zip(exact, results(module), results(fused), strict=True):
        error, allowed = (ours.double() - truth).norm(), (plain.double() - truth).norm()
        assert error <= 4 * allowed + 2e-5 * (truth.norm() + truth.numel() ** 0.5)


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


@pytest.mark.parametrize("call", [fuse, unfuse, fusions])
def test_what_is_no_module_is_refused(call):
    with pytest.raises(TypeError, match=r"module must be a torch\.nn\.Module, got list"):
        call([nn.Linear(2, 2)])
