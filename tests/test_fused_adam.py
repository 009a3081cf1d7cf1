"""FusedAdam against torch.optim.Adam: the same parameters, the same state, in the same loops."""

import copy

import pytest
import torch
from torch import nn

import pygan
from cases import words


def network(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 3)).to(dtype)


def train(net, optimizer, steps, first=0):
    for i in range(first, first + steps):
        x = torch.linspace(i, i + 3, 30, dtype=torch.float64).cos().view(5, 6).to(next(net.parameters()))
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()


def close(one, other, tolerance=1e-12):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


SETTINGS = [{}, {"lr": 2e-4, "betas": (0.5, 0.999)}, {"lr": 0.05, "betas": (0.0, 0.9), "eps": 1e-3}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_is_torchs_adam(settings, dtype):
    nets = network(dtype), network(dtype)
    optimizers = torch.optim.Adam(nets[0].parameters(), **settings), pygan.FusedAdam(nets[1].parameters(), **settings)
    for net, optimizer in zip(nets, optimizers, strict=True):
        train(net, optimizer, 7)
    close(nets[0].parameters(), nets[1].parameters(), 1e-12 if dtype == torch.float64 else 2e-6)


@pytest.mark.parametrize("order", [(torch.optim.Adam, pygan.FusedAdam), (pygan.FusedAdam, torch.optim.Adam)])
def test_goes_on_from_the_others_state(order):
    alone, passed_on = network(), network()
    whole = torch.optim.Adam(alone.parameters(), lr=0.01)
    train(alone, whole, 9)
    first = order[0](passed_on.parameters(), lr=0.01)
    train(passed_on, first, 4)
    second = order[1](passed_on.parameters(), lr=0.5)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(passed_on, second, 5, first=4)
    close(alone.parameters(), passed_on.parameters())


def test_schedulers_groups_and_parameters_without_gradients():
    nets = network(), network()
    for net, kind in zip(nets, (torch.optim.Adam, pygan.FusedAdam), strict=True):
        optimizer = kind([{"params": net[0].parameters(), "lr": 0.1}, {"params": net[2].parameters()}], lr=0.01)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7)
        net[0].bias.requires_grad_(False)
        for i in range(6):
            if i == 3:
                net[0].bias.requires_grad_()  # its own step counts from here
            train(net, optimizer, 1, first=i)
            scheduler.step()
    close(nets[0].parameters(), nets[1].parameters())


def test_a_closure_and_its_loss():
    net = network()
    optimizer = pygan.FusedAdam(net.parameters())

    def closure():
        optimizer.zero_grad()
        loss = net(torch.ones(2, 6, dtype=torch.float64)).square().mean()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(5)]
    assert losses[-1] < losses[0]


def test_a_gradient_scaler_leaves_out_what_is_not_finite():
    net = network(torch.float32)
    optimizer, scaler = pygan.FusedAdam(net.parameters()), torch.amp.GradScaler("cpu")
    before = [p.detach().clone() for p in net.parameters()]
    scaler.scale(net(torch.full((2, 6), float("inf"))).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    close(before, [p.detach() for p in net.parameters()], 0)
    assert scaler.get_scale() < 65536


def test_a_saved_tensor_that_is_updated_is_noticed():
    net = network()
    optimizer = pygan.FusedAdam(net.parameters())
    loss = net(torch.ones(2, 6, dtype=torch.float64)).sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lr": -1.0}, ("lr", "at least 0")),
        ({"betas": (1.0, 0.9)}, ("betas",)),
        ({"betas": 0.9}, ("betas",)),
        ({"eps": -1e-8}, ("eps",)),
    ],
)
def test_rejected(settings, said):
    with pytest.raises((ValueError, TypeError), match=words(*said)):
        pygan.FusedAdam(network().parameters(), **settings)


def test_what_torchs_has_and_this_has_not_is_said():
    net = network()
    optimizer = pygan.FusedAdam(net.parameters())
    decaying = torch.optim.Adam(net.parameters(), weight_decay=0.1)
    optimizer.load_state_dict(decaying.state_dict())
    with pytest.raises(ValueError, match=r"weight_decay must be 0, got 0\.1"):
        train(net, optimizer, 1)
    embedding = nn.Embedding(4, 2, sparse=True)
    optimizer = pygan.FusedAdam(embedding.parameters())
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()
