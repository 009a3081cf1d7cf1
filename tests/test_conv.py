"""The paper's convolutional networks: shapes, sums written out, dropout, and what is refused."""

import pytest
import torch

from cases import normal
from pygan.conv import ConvDiscriminator, DeconvGenerator, MaxoutConv

PAPER = ((32, 2, 8, 4, 4), (32, 2, 8, 3, 4), (192, 2, 5, 3, 2))


def test_the_deconvolution_written_out():
    G = DeconvGenerator([3, 24], maps=(2, 3, 4), image_shape=(3, 11, 14), dtype=torch.float64)
    with torch.no_grad():
        G.bias.copy_(normal(3 * 11 * 14, seed=1))
    z = normal(5, 3, seed=2, dtype=torch.float64)
    expected = G.bias.reshape(1, 3, 11, 14).repeat(5, 1, 1, 1)
    maps = torch.relu(z @ G.hidden.layers[0].weight.T + G.hidden.layers[0].bias).reshape(5, 2, 3, 4)
    for i in range(3):
        for j in range(4):  # each unit of a map paints its kernel, three pixels from its neighbour's
            painted = torch.einsum("mc,cohw->mohw", maps[:, :, i, j], G.deconv.weight)
            expected[:, :, 3 * i : 3 * i + 5, 3 * j : 3 * j + 5] += painted
    torch.testing.assert_close(G(z), expected.flatten(1))


def test_maxout_takes_consecutive_channels_and_windows_over_the_edge():
    layer = MaxoutConv(2, 3, 2, kernel=2, padding=1, pool=3, dtype=torch.float64)
    x = normal(4, 2, 5, 6, dtype=torch.float64)
    z = layer.conv(x)  # (4, 6, 6, 7)
    rows = []
    for u in range(3):
        units = torch.maximum(z[:, 2 * u], z[:, 2 * u + 1])
        windows = [units[:, i : i + 3, j : j + 3].amax((1, 2)) for i in (0, 2, 4) for j in (0, 2, 4)]
        rows.append(torch.stack(windows, dim=1).reshape(4, 3, 3))
    assert torch.equal(layer(x), torch.stack(rows, dim=1))


def test_the_papers_sides():
    D = ConvDiscriminator((3, 32, 32), PAPER, [5], pieces=5)
    x = torch.zeros(1, 3, 32, 32)
    shapes = [tuple((x := conv(x)).shape[1:]) for conv in D.convs]
    assert shapes == [(32, 16, 16), (32, 7, 7), (192, 5, 5)]


@pytest.mark.parametrize("shape", [(9, 8), (1, 9, 8), (3, 9, 8), (3, 4, 4)])
@pytest.mark.parametrize("pool", [2, 3, 4])
@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_any_image(shape, pool, kernel):
    D = ConvDiscriminator(shape, [(2, 3, kernel, 1, pool)], [], dropout=0.5)
    x = normal(2, int(torch.tensor(shape).prod()))
    assert D(x).shape == (2, 1)


def test_dropout_is_of_every_layers_input():
    D = ConvDiscriminator((3, 12, 12), [(2, 2, 3, 1, 2), (2, 2, 3, 1, 2)], [4], pieces=2, dropout=[0.2, 0.5, 0.5, 0.5])
    seen = []
    for conv in D.convs:
        conv.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    x = 1 + normal(50, 432).abs()
    torch.manual_seed(3)
    one = D(x)
    for given, p in zip(seen[:2], (0.2, 0.5), strict=True):
        assert (given == 0).double().mean().item() == pytest.approx(p, abs=0.05)
    kept = seen[0].flatten(1)[seen[0].flatten(1) != 0]
    torch.testing.assert_close(kept, (x / 0.8)[seen[0].flatten(1) != 0])
    assert D.dense.dropout == (0.5, 0.5)
    torch.manual_seed(3)
    assert torch.equal(D(x), one)
    assert not torch.equal(D(x), one)
    D.eval()
    state = torch.get_rng_state()
    assert torch.equal(D(x), D(x))
    assert torch.equal(torch.get_rng_state(), state)


def test_gradients():
    G = DeconvGenerator([2, 8], maps=(2, 2, 2), image_shape=(8, 8), activation="tanh", dtype=torch.float64)
    D = ConvDiscriminator((8, 8), [(2, 2, 3, 1, 2)], [3], pieces=2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: D(G(z)), normal(3, 2, dtype=torch.float64).requires_grad_())
    D(G(normal(3, 2, dtype=torch.float64))).sum().backward()
    assert all(p.grad is not None for network in (G, D) for p in network.parameters())


def test_configs_make_the_same_networks():
    G = DeconvGenerator([3, 4, 8], maps=(2, 2, 2), image_shape=(7, 7), activation=("relu", "tanh"), kernel=4)
    D = ConvDiscriminator((7, 7), [(2, 2, 3, 1, 2)], [4, 3], activation="leaky_relu", slope=0.2, dropout=0.5)
    for network in (G, D):
        again = type(network)(**network.config())
        again.load_state_dict(network.state_dict())
        assert again.config() == network.config()
        x = normal(4, 3 if network is G else 49)
        assert torch.equal(again.eval()(x), network.eval()(x))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: DeconvGenerator([3, 8], maps=(2, 2), image_shape=(8, 8)), r"maps must be \(channels, height, width\)"),
        (lambda: DeconvGenerator([3, 8], maps=(2, 2, 3), image_shape=(8, 8)), "maps must have product 8, the last"),
        (lambda: DeconvGenerator([3, 8], maps=(2, 2, 2), image_shape=(9, 8)), r"images of 8 x 8 pixels.*\(9, 8\)"),
        (lambda: DeconvGenerator([3, 8], maps=(2, 2, 2), image_shape=None), "image_shape must be"),
        (lambda: DeconvGenerator([3, 8], maps=(2, 2, 2), image_shape=(8, 8), stride=0), "stride must be"),
        (lambda: DeconvGenerator([3, 8], maps=(2, 2, 2), image_shape=(8, 8), activation="rleu"), "did you mean 'relu'"),
        (lambda: ConvDiscriminator((64,), [], [5]), r"image_shape must be \(h, w\) or \(c, h, w\), got \(64,\)"),
        (lambda: ConvDiscriminator((8, 8), [(2, 2, 3)], [5]), "convolutions must be groups of five whole numbers"),
        (lambda: ConvDiscriminator((8, 8), 5, [5]), "convolutions must be groups of five whole numbers"),
        (lambda: ConvDiscriminator((8, 8), [(2, 2, 3, 0, 7)], [5]), "images of .8, 8. are too small for"),
        (lambda: ConvDiscriminator((8, 8), [(2, 2, 3, 1, 2)], [5], dropout=[0.5]), "one for each of 3 layers, got 1"),
    ],
)
def test_what_does_not_fit_gets_a_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
