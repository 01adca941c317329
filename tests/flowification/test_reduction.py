"""Graphs with branches, reduced to sums and concatenations."""

import pytest
import torch
from torch import nn

import likelify as lk
from likelify.flowification import flowify
from likelify.testing import check_mass
from tests.flowification.networks import Halves, Residual, evaluated


class Branching(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.f, self.g, self.h = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.kind = kind

    def forward(self, x):  # noqa: C901 - a list of cases
        f, g, h = self.f, self.g, self.h
        if self.kind == "three terms":
            return x + f(x) + g(x)
        if self.kind == "difference":
            return f(x) - 2 * g(x)
        if self.kind == "twice":
            y = f(x)
            return y + y + x
        if self.kind == "dense net":
            y = torch.cat([x, f(x)], 1)
            return torch.cat([y, torch.cat([g(x) * 3, h(x)], 1)], 1)
        if self.kind == "shared start":
            y = f(x)
            return torch.cat([g(y), x, h(y)], 1)
        if self.kind == "nested":
            y = x + f(x)
            return y + g(y) + h(y)
        if self.kind == "running sum":
            y = f(x)
            z = g(y)
            return y + z + h(z) - x
        if self.kind == "list of features":
            features = [x]
            for layer in (f, nn.functional.leaky_relu, lambda t: -t):
                features.append(layer(torch.cat(features, 1)[:, -4:]))
            return torch.cat(features, 1)[:, :, None].squeeze(2)
        if self.kind == "parts apart":
            a, b = x.chunk(2, 1)
            return torch.cat([b, a * 2, a + 1], 1)
        if self.kind == "parts mixed":
            a, b = x[:, :1], x[:, 1:3]
            return torch.cat([f(torch.cat([a, b, a], 1)), x[:, 3:]], 1)
        if self.kind == "parts dropped":
            a, b = x[:, :1], x[:, 2:3]
            return a + 3 * b
        a, b, c, d = x.split(1, dim=1)
        return torch.cat([a - 2 * c, b + d], 1)


@pytest.mark.parametrize(
    "kind",
    [
        "three terms",
        "difference",
        "twice",
        "dense net",
        "shared start",
        "nested",
        "running sum",
        "list of features",
        "parts apart",
        "parts mixed",
        "parts dropped",
        "couples",
    ],
)
def test_branches(kind):
    net, x = Branching(kind), torch.randn(4, 4)
    layer = flowify(net, x)
    torch.testing.assert_close(layer.mean_forward(x).detach(), evaluated(net, x), atol=1e-5, rtol=1e-5)
    flow = lk.Flow(lk.Normal(layer.conversion.out_shape), layer)
    assert flow.elbo(x).value.shape == (4,)
    assert flow.sample((3,)).shape == (3, 4)
    if kind in ("parts dropped", "couples"):
        assert flow.likelihood == "exact"


@pytest.mark.parametrize("kind", ["residual", "couples", "narrow", "noisy relu"])
def test_the_mass_of_tiny_networks_is_one(kind):
    nets = {
        "residual": nn.Sequential(Residual(nn.Linear(1, 1)), nn.Linear(1, 1)),
        "couples": nn.Sequential(nn.Linear(2, 3), nn.LeakyReLU(0.5), Halves()),
        "narrow": nn.Sequential(nn.Linear(2, 2), nn.LeakyReLU(0.5), nn.Linear(2, 1)),
        "noisy relu": nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)),
    }
    net, size = nets[kind].double(), 1 if kind in ("residual", "noisy relu") else 2
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.Linear):
                # Far from singular, or the draws reach far out.
                part.weight.copy_(0.9 * torch.eye(*part.weight.shape) + 0.2 * torch.rand_like(part.weight))
    layer = flowify(net, torch.randn(3, size, dtype=torch.float64), relu="noisy", hidden=4)
    flow = lk.Flow(lk.Normal(layer.conversion.out_shape), layer).double()
    for name, p in flow.named_parameters():
        if "net" in name:
            p.data += 0.1 * torch.randn_like(p)
    sample = flow.sample((4000,)).flatten(1)
    reach = 1.6 * float(sample.abs().max())
    points = 2000 if size == 1 else 160
    check_mass(flow, -reach, reach, points, event_shape=(size,), tol=5e-3, draws=60)
