"""Modules against what they replace: values, parameters, state, copies, dropout, compilation."""

import copy
import io
import itertools
import json
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import pygan
from cases import normal
from pygan import reference
from pygan.nn import ACTIVATIONS, MLP, FusedLinear, Maxout, flatten_, logit, uniform_

TORCH = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
}
CLOSE = {"rtol": 1e-12, "atol": 1e-12}  # float64, a few roundings apart


def sequential(sizes, activation="relu", output="identity", **options):
    """The nn.Sequential that an MLP of these arguments replaces."""
    parts = []
    for i, (k, n) in enumerate(itertools.pairwise(sizes)):
        parts += [nn.Linear(k, n, **options), TORCH[output if i == len(sizes) - 2 else activation]()]
    return nn.Sequential(*parts)


def is_flat(module):
    """Whether the parameters are views of the one buffer that flatten_ returns, without its copying them."""
    pointers = [p.data_ptr() for p in module.parameters()]
    flat = flatten_(module)
    assert torch.equal(flat, torch.cat([p.detach().flatten() for p in module.parameters()]))
    return pointers == [p.data_ptr() for p in module.parameters()] and flat.data_ptr() == pointers[0]


def test_activation_names_are_those_of_the_reference():
    assert tuple(reference.ACTIVATIONS) == ACTIVATIONS


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 3, 7), (0, 7)], ids=str)
def test_fused_linear_is_linear_then_activation(activation, shape):
    layer = FusedLinear(7, 4, activation=activation, dtype=torch.float64)
    plain = nn.Linear(7, 4, dtype=torch.float64)
    plain.load_state_dict(layer.state_dict())
    x = normal(*shape, dtype=torch.float64)
    torch.testing.assert_close(layer(x), TORCH[activation]()(plain(x)), **CLOSE)


def test_fused_linear_starts_as_linear_does():
    torch.manual_seed(3)
    layer = FusedLinear(7, 4)
    torch.manual_seed(3)
    plain = nn.Linear(7, 4)
    assert torch.equal(layer.weight, plain.weight)
    assert torch.equal(layer.bias, plain.bias)
    assert isinstance(layer, nn.Linear)
    assert repr(layer) == "FusedLinear(in_features=7, out_features=4, bias=True, activation='relu')"
    assert repr(FusedLinear(7, 4, activation="leaky_relu", slope=0.2, bias=False)).endswith("slope=0.2)")


@pytest.mark.parametrize("bias", [True, False])
def test_maxout_is_the_largest_of_consecutive_pieces(bias):
    layer = Maxout(5, 3, pieces=4, bias=bias, dtype=torch.float64)
    x = normal(6, 5, dtype=torch.float64)
    y = nn.functional.linear(x, layer.weight, layer.bias)
    expected = torch.stack([y[:, 4 * u : 4 * u + 4].max(dim=1).values for u in range(3)], dim=1)
    torch.testing.assert_close(layer(x), expected, **CLOSE)
    assert layer.weight.shape == (12, 5)
    assert layer.weight.abs().max() <= 5**-0.5


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("sizes", [(3, 2), (3, 8, 2), (3, 8, 5, 1)], ids=str)
def test_mlp_is_the_sequential_it_loads(sizes, activation):
    plain = sequential(sizes, activation, "tanh", dtype=torch.float64)
    mlp = MLP(sizes, activation=activation, output="tanh", dtype=torch.float64)
    mlp.load_state_dict(plain.state_dict())
    x = normal(6, 3, dtype=torch.float64).requires_grad_()
    torch.testing.assert_close(mlp(x), plain(x), **CLOSE)
    ours = torch.autograd.grad(mlp(x).square().sum(), [x, *mlp.parameters()])
    theirs = torch.autograd.grad(plain(x).square().sum(), [x, *plain.parameters()])
    torch.testing.assert_close(ours, theirs, **CLOSE)


def test_mlp_keys_are_the_numbers_of_its_layers():
    mlp = MLP([3, 8, 2])
    assert list(mlp.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    inside = nn.ModuleDict({"net": sequential([3, 8, 2])})
    outer = nn.ModuleDict({"net": mlp})
    outer.load_state_dict(inside.state_dict())
    assert torch.equal(mlp.layers[1].weight, inside["net"][2].weight)
    outer.load_state_dict(outer.state_dict())
    with pytest.raises(RuntimeError, match="size mismatch"):
        mlp.load_state_dict(sequential([3, 9, 2]).state_dict())
    with pytest.raises(RuntimeError, match=r"Unexpected key.*2\.weight"):
        mlp.load_state_dict(MLP([3, 8, 2, 2]).state_dict())


def test_mlp_of_maxout_layers():
    mlp = MLP([6, 4, 3, 1], pieces=5, dtype=torch.float64)
    assert mlp.activations == ("maxout", "maxout", "identity")
    assert [type(layer) for layer in mlp.layers] == [Maxout, Maxout, FusedLinear]
    h = x = normal(7, 6, dtype=torch.float64)
    for layer in mlp.layers:
        h = layer(h)
    torch.testing.assert_close(mlp(x), h, **CLOSE)
    assert MLP([6, 4, 3, 1], activation=["maxout", "tanh"], pieces=2).activations == (
        "maxout",
        "tanh",
        "identity",
    )


@pytest.mark.parametrize(
    "options",
    [{"activation": ["relu", "sigmoid"], "output": "sigmoid"}, {"pieces": 3, "dropout": [0.1, 0.2, 0]}],
)
def test_config_makes_the_same_architecture(options):
    mlp = MLP([4, 6, 5, 2], slope=0.1, **options)
    again = MLP(**mlp.config())
    assert again.config() == mlp.config()
    again.load_state_dict(mlp.state_dict())
    mlp.eval(), again.eval()
    x = normal(3, 4)
    assert torch.equal(mlp(x), again(x))


# ---------------------------------------------------------------------------------------- one flat buffer


def through_pickle(mlp):
    return pickle.loads(pickle.dumps(mlp))


def through_file(mlp):
    file = io.BytesIO()
    torch.save(mlp, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def loaded(mlp):
    mlp.load_state_dict(MLP(mlp.sizes).state_dict())
    return mlp


def assigned(mlp):
    mlp.load_state_dict({key: value.clone() for key, value in mlp.state_dict().items()}, assign=True)
    flatten_(mlp)
    return mlp


CHANGES = {
    "made": lambda mlp: mlp,
    "double": lambda mlp: mlp.double(),
    "to half and back": lambda mlp: mlp.half().float(),
    "deepcopy": copy.deepcopy,
    "pickle": through_pickle,
    "file": through_file,
    "loaded": loaded,
    "loaded by assignment": assigned,
    "inside another": lambda mlp: nn.Sequential(mlp).double()[0],
}


@pytest.mark.parametrize("mode", [FakeTensorMode, lambda: torch.device("meta")], ids=["fake", "meta"])
def test_parameters_without_memory_are_flat_too(mode):
    with mode():
        mlp = MLP([3, 4, 2])
        flat = mlp.flat_parameters()
    assert flat.shape == (26,)
    assert {p.untyped_storage()._cdata for p in mlp.parameters()} == {flat.untyped_storage()._cdata}


@pytest.mark.parametrize("change", CHANGES)
def test_parameters_stay_views_of_one_buffer(change):
    mlp = CHANGES[change](MLP([3, 4, 2]))
    assert is_flat(mlp)
    flat = mlp.flat_parameters()
    flat.zero_()
    assert all((p == 0).all() for p in mlp.parameters())
    assert mlp(torch.ones(1, 3, dtype=flat.dtype)).abs().max() == 0


def test_a_copy_has_a_buffer_of_its_own():
    mlp = MLP([3, 4, 2])
    before = mlp.flat_parameters().clone()
    copy.deepcopy(mlp).flat_parameters().zero_()
    assert torch.equal(mlp.flat_parameters(), before)


def test_flatten_any_module():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 1))
    parameters = list(module.parameters())
    before = [p.detach().clone() for p in parameters]
    module(torch.ones(2, 1, 4, 4)).sum().backward()
    gradients = [p.grad for p in parameters]
    flat = flatten_(module)
    assert is_flat(module)
    assert flat.numel() == sum(p.numel() for p in parameters)
    assert all(p is q and p.grad is g for p, q, g in zip(module.parameters(), parameters, gradients, strict=True))
    assert all(torch.equal(p, value) for p, value in zip(parameters, before, strict=True))
    assert flatten_(nn.ReLU()).numel() == 0
    with pytest.raises(ValueError, match="float32 on cpu, float64 on cpu"):
        flatten_(nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1).double()))


def test_torch_optimizers_see_ordinary_parameters():
    plain = sequential([3, 4, 2], dtype=torch.float64)
    mlp = MLP([3, 4, 2], dtype=torch.float64)
    mlp.load_state_dict(plain.state_dict())
    x = normal(5, 3, dtype=torch.float64)
    for network in (mlp, plain):
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            network(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(list(mlp.parameters()), list(plain.parameters()), **CLOSE)
    assert is_flat(mlp)


# ----------------------------------------------------------------------------------------------- dropout


def test_dropout_bits_follow_from_seed_and_offset():
    mlp = MLP([6, 5, 4, 1], pieces=2, dropout=[0.2, 0.5, 0.5], dtype=torch.float64)
    x = normal(8, 6, dtype=torch.float64)
    h = x
    for i, layer in enumerate(mlp.layers):
        h = layer(reference.dropout(h, p=mlp.dropout[i], seed=7, offset=(i << 48) + 11))
    torch.testing.assert_close(mlp(x, seed=7, offset=11), h, **CLOSE)
    assert not torch.equal(mlp(x, seed=7, offset=12), h)


def test_dropout_without_a_seed_follows_torchs_generator():
    mlp, x = MLP([6, 5, 1], dropout=0.5), normal(8, 6)
    torch.manual_seed(1)
    first, second = mlp(x), mlp(x)
    torch.manual_seed(1)
    assert torch.equal(mlp(x), first)
    assert not torch.equal(first, second)
    mlp.eval()
    state = torch.get_rng_state()
    assert torch.equal(mlp(x), mlp(x))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(mlp(x, seed=1), mlp(x))


def test_hooks_on_layers_run_and_change_nothing_else():
    mlp, x, seen = MLP([6, 5, 1], dropout=0.5), normal(8, 6), []
    plain = mlp(x, seed=3)
    handle = mlp.layers[0].register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    assert torch.equal(mlp(x, seed=3), plain)
    assert seen == [(8, 5)]
    handle.remove()
    mlp(x)
    assert len(seen) == 1


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_compiles_without_a_graph_break(dropout):
    mlp, x = MLP([6, 5, 4, 1], dropout=dropout), normal(8, 6)
    compiled = torch.compile(mlp, fullgraph=True, backend="aot_eager")
    y = compiled(x)
    y.sum().backward()
    assert y.shape == (8, 1)
    assert mlp.layers[0].weight.grad is not None
    mlp.eval()
    torch.testing.assert_close(compiled(x), mlp(x))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("pieces", [1, 3])
def test_traces_layer_by_layer(pieces):
    mlp, x = MLP([6, 5, 4, 1], pieces=pieces, dropout=0.5).eval(), normal(8, 6)
    traced = torch.jit.trace(mlp, x)
    torch.testing.assert_close(traced(x[:3]), mlp(x[:3]))


# --------------------------------------------------------------------------------------- the fused head


@pytest.mark.parametrize("sizes", [[6, 7, 5, 1], [6, 1]], ids=str)
@pytest.mark.parametrize("pieces", [1, 2])
def test_head_loss_is_a_call_and_a_loss(sizes, pieces):
    mlp = MLP(sizes, pieces=pieces if len(sizes) > 2 else 1, dtype=torch.float64)
    x = normal(8, 6, dtype=torch.float64)
    loss, logits = mlp.head_loss(x, real_rows=3, label_smoothing=0.1)
    plain = mlp(x).squeeze(1)
    expected = pygan.ops.discriminator_loss(plain[:3], plain[3:], label_smoothing=0.1)
    torch.testing.assert_close((loss, logits), (expected, plain), **CLOSE)
    got, gradients = (torch.autograd.grad(value, list(mlp.parameters())) for value in (loss, expected))
    torch.testing.assert_close(got, gradients, **CLOSE)
    torch.testing.assert_close(
        mlp.head_loss(x, real_rows=0, kind="minimax")[0], pygan.ops.generator_loss(plain, kind="minimax"), **CLOSE
    )


def test_where_the_head_is_fused():
    class Other(MLP):
        def forward(self, x, **keywords):
            return -super().forward(x, **keywords)

    assert MLP([6, 5, 1]).has_fused_head()
    assert not MLP([6, 5, 2]).has_fused_head()
    assert not MLP([6, 5, 1], output="sigmoid").has_fused_head()
    assert not Other([6, 5, 1]).has_fused_head()
    dropping = MLP([6, 5, 1], dropout=[0.0, 0.5])
    assert not dropping.has_fused_head()
    assert dropping.eval().has_fused_head()
    for watched in (lambda mlp: mlp, lambda mlp: mlp.layers[-1]):
        mlp = MLP([6, 5, 1])
        watched(mlp).register_forward_hook(lambda *_: None)
        assert not mlp.has_fused_head()


# --------------------------------------------------------------------------------- initialisation, errors


def test_numpys_scalars_are_taken():
    mlp = MLP(np.array([3, 4, 1]), pieces=np.int64(2), slope=np.float32(0.5), dropout=np.float32(0.5))
    assert json.loads(json.dumps(mlp.config()))["sizes"] == [3, 4, 1]
    uniform_(mlp, np.float32(0.05), seed=0)
    assert mlp(normal(2, 3)).shape == (2, 1)


def test_uniform_initialisation():
    mlp = MLP([100, 50, 40])
    uniform_(mlp, [0.05, 0.5], seed=1)
    for layer, radius in zip(mlp.layers, (0.05, 0.5), strict=True):
        assert 0.98 * radius < layer.weight.abs().max() <= radius
        assert abs(layer.weight.mean()) < 0.03 * radius
        assert (layer.bias == 0).all()
    again = MLP([100, 50, 40], dtype=torch.float64)
    uniform_(again, [0.05, 0.5], seed=1)
    torch.testing.assert_close(again.flat_parameters().float(), mlp.flat_parameters())
    uniform_(again, [0.05, 0.5], seed=1, step=100)
    assert not torch.equal(again.flat_parameters().float(), mlp.flat_parameters())


def test_logit_inverts_the_sigmoid_and_stays_finite():
    means = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(torch.sigmoid(logit(means)), means.clamp(1e-7, 1 - 1e-7))


BAD = [
    (lambda: FusedLinear(2, 2, activation="rely"), "did you mean 'relu'"),
    (lambda: Maxout(2, 2, pieces=0), "pieces must be a whole number of at least 1, got 0"),
    (lambda: Maxout(3, 2, 2.0), "pieces must be a whole number of at least 1, got 2.0"),
    (lambda: Maxout(3, 2, 257), "pieces must be at most 256, got 257"),
    (lambda: Maxout(3.0, 2, 2), "in_features must be a whole number"),
    (lambda: FusedLinear(2, 2, slope=-1), "slope must be a number of at least 0, got -1"),
    (lambda: MLP(3), "sizes must be two or more .* got 3"),
    (lambda: MLP([True, 1]), "sizes must be two or more"),
    (lambda: MLP([3, 4, 1], activation=None), "activation must be one name, or one for each .* got None"),
    (lambda: MLP([3, 4, 1], slope=-1), "slope must be a number of at least 0"),
    (lambda: MLP([3, 4, 1], slope="a"), "slope must be a number of at least 0, got 'a'"),
    (lambda: MLP([3, 4, 1], pieces=1.5), "pieces must be a whole number"),
    (lambda: MLP([3, 4, 1], pieces=300), "pieces must be at most 256, got 300"),
    (lambda: MLP([3, 4, 1], dropout="a"), r"dropout must be in \[0, 1\), got 'a'"),
    (lambda: MLP([3, 4, 1], dropout=None), r"dropout must be in \[0, 1\), got None"),
    (lambda: MLP([3]), r"sizes must be two or more .* got \[3\]"),
    (lambda: MLP([3, 0, 1]), r"sizes must be .* got \[3, 0, 1\]"),
    (lambda: MLP([3, 4, 1], activation="tan"), "did you mean 'tanh'"),
    (lambda: MLP([3, 4, 1], output="maxout"), "output must be one of"),
    (lambda: MLP([3, 4, 1], activation=["relu", "relu"]), "one for each of 1 hidden layers, got 2"),
    (lambda: MLP([3, 4, 1], activation="tanh", pieces=2), "pieces=2 makes hidden layers maxout"),
    (lambda: MLP([3, 4, 1], activation="maxout"), "maxout needs pieces of at least 2"),
    (lambda: MLP([3, 4, 1], activation=["relu"], pieces=2), "maxout needs pieces of at least 2"),
    (lambda: MLP([3, 4, 1], pieces=0), "pieces must be a whole number of at least 1"),
    (lambda: MLP([3, 4, 1], dropout=1.0), r"dropout must be in \[0, 1\), got 1.0"),
    (lambda: MLP([3, 4, 1], dropout=[0.1]), "one for each of 2 layers, got 1"),
    (lambda: uniform_(MLP([3, 4, 1]), [0.1], seed=0), "one for each of 2 weights, got 1"),
]


@pytest.mark.parametrize(("make", "sentence"), BAD)
def test_bad_arguments_get_a_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_public_names():
    assert pygan.nn.MLP is MLP
    assert set(pygan.nn.__all__) >= {"MLP", "FusedLinear", "Maxout", "flatten_"}
