"""What people write in networks of their own, and what `flowify` makes of it or says."""

import pytest
import torch
from torch import nn

import likelify as lk
from likelify import flowify
from likelify.errors import ConvergenceError, DomainError, UnsupportedError


class Written(nn.Module):
    """A network of vectors whose forward is a function of itself and the input."""

    def __init__(self, forward):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(0.2), nn.Linear(4, 4))
        self.apart = {"c": nn.Linear(4, 4).double()}
        self.gru = nn.GRU(4, 4, batch_first=True)
        self.written = forward

    def forward(self, x):
        return self.written(self, x)


def converted(forward, **options):
    torch.manual_seed(0)
    return flowify(Written(forward).double(), torch.randn(6, 4, dtype=torch.float64), **options)


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: net.a(nn.Flatten()(x)),
        lambda net, x: net.layers[:2](x),
        lambda net, x: nn.LeakyReLU(0.1)(net.a(x)),
        lambda net, x: torch.hstack([x, net.a(x)]),
        lambda net, x: x.subtract(0.1 * net.a(x)),
    ],
)
def test_what_is_made_in_the_forward_is_looked_into(forward):
    torch.manual_seed(0)
    net, x = Written(forward).double(), torch.randn(6, 4, dtype=torch.float64)
    layer = flowify(net, x)
    assert torch.allclose(layer.mean_forward(x), net(x))
    assert layer(x)[1].isfinite().all()


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: x + 0.1 * torch.tanh(net.a(x.view(x.size(0), -1))),
        lambda net, x: x + 0.1 * torch.tanh(net.a(x.reshape(x.shape[0], x.shape[1]))),
        lambda net, x: x + torch.tanh(net.a(x)) / 8,
        lambda net, x: x + 0.2 * torch.tanh(net.a(x) - 1),
        lambda net, x: x + 0.2 * torch.tanh(1.5 - net.a(x)),
    ],
)
def test_branches_that_are_contractions_are_exact(forward):
    layer = converted(forward, residual="lipschitz")
    x = torch.randn(5, 4, dtype=torch.float64)
    z, log_det = layer(x)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda row: layer.mean_forward(row[None])[0]))(x)
    assert torch.allclose(log_det, jacobians.slogdet().logabsdet)
    assert torch.allclose(layer.inverse(z)[0], x)


@pytest.mark.parametrize(
    ("forward", "said", "options"),
    [
        (lambda net, x: net.apart["c"](x), "the Linear that it calls is no attribute.*nn.ModuleDict", {}),
        (lambda net, x: net.a(x) * torch.ones(x.shape[0], 4), r"Give them as a tuple: torch\.ones\(\(rows, n\)\)", {}),
        (lambda net, x: net.a(x) ** 3, "flat at zero if it is odd", {}),
        (lambda net, x: x[:, 0], r"a channel as x\[:, :1\]", {}),
        (
            lambda net, x: x + 0.1 * net.a(x) + 0.1 * net.b(x),
            "adds 3 branches, and an exact",
            {"residual": "lipschitz"},
        ),
        (
            lambda net, x: torch.add(net.a(x), x, alpha=2),
            "adds the input times 2 and a branch",
            {"residual": "lipschitz"},
        ),
        (lambda net, x: x + 1 / (8 + net.a(x)), "no bound of the slope is known", {"residual": "lipschitz"}),
    ],
)
def test_refusals_say_what_is_the_matter(forward, said, options):
    with pytest.raises(UnsupportedError, match=said):
        converted(forward, **options)


def test_a_state_beside_the_outputs_is_no_mix_of_rows():
    with pytest.raises(UnsupportedError) as refused:
        converted(lambda net, x: torch.softmax(net.gru(x[:, None])[0].flatten(1), 1))
    assert "carries a state" in str(refused.value)
    assert "softmax" in str(refused.value)
    assert "mixes the" not in str(refused.value)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_scripted_parts_are_named():
    net = nn.Sequential(nn.Linear(4, 4))
    net.add_module("script", torch.jit.script(nn.Linear(4, 4)))
    with pytest.raises(UnsupportedError, match="The part 'script' is scripted"):
        flowify(net, torch.randn(3, 4))


def test_normalizations_that_start_at_zero_are_branches():
    norms = [nn.BatchNorm2d(2) for _ in range(2)]
    nn.init.zeros_(norms[1].weight)
    branch = nn.Sequential(norms[0], nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1), norms[1])

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.branch = branch

        def forward(self, x):
            return x + self.branch(x)

    layer = flowify(Block(), torch.randn(6, 2, 4, 4), residual="lipschitz")
    assert isinstance(layer[0], lk.LipschitzResidual)
    x = torch.randn(3, 2, 4, 4)
    assert torch.allclose(layer(x)[0], x)


def test_digits_that_many_layers_lose_together_are_seen():
    torch.manual_seed(0)
    net = nn.Sequential(*[part for _ in range(4) for part in (nn.Linear(64, 64), nn.LeakyReLU(0.2))])
    layer = flowify(net, torch.randn(100, 64))
    flow = lk.Flow(lk.Normal(64), layer)
    with pytest.raises(ConvergenceError, match="cannot be trusted in float32"):
        flow.sample(5)
    x, log_prob = flow.double().sample_and_log_prob(5)
    assert torch.allclose(flow.log_prob(x), log_prob, rtol=1e-4)


def test_ill_conditioned_weights_have_a_density_in_double_precision():
    u, v = (torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0] for _ in range(2))
    net = nn.Linear(6, 6).double()
    net.weight.data = u @ torch.diag(torch.logspace(0, -6, 6, dtype=torch.float64)) @ v
    layer = flowify(nn.Sequential(net), torch.randn(9, 6, dtype=torch.float64))
    assert torch.allclose(layer(torch.randn(3, 6, dtype=torch.float64))[1], net.weight.slogdet().logabsdet.expand(3))


def test_rows_that_are_not_finite_are_lost_alone():
    flow = lk.Flow(lk.Normal(3), lk.LipschitzResidual(lk.nets.LipschitzMLP(3, (8,)), log_det="exact"))
    x = torch.randn(4, 3)
    x[1, 0], x[2, 1] = torch.nan, torch.inf
    assert flow.log_prob(x).isfinite().tolist() == [True, False, False, True]
    with pytest.raises(ConvergenceError, match="residual is not finite. Either the input"):
        flow.transform.inverse(x)


def test_windows_may_be_larger_than_the_image():
    x = torch.randn(3, 1, 2, 2)
    layer = flowify(nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True)), x)
    assert torch.allclose(layer.mean_forward(x), nn.MaxPool2d(3, 2, ceil_mode=True)(x))


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AvgPool2d(2)])
def test_samples_with_missing_values_are_refused(pool):
    x = torch.randn(20, 1, 4, 4)
    layer = flowify(nn.Sequential(pool), x)
    x[3, 0, 0, 0] = torch.nan
    with pytest.raises(DomainError, match="not finite|NaN|nan"):
        layer.initialize(x)


def test_weights_that_become_their_own_are_named():
    mask = torch.ones(4, 4, dtype=torch.float64).tril()
    layer = converted(lambda net, x: nn.functional.linear(x, net.a.weight * mask, net.a.bias))
    assert len(layer.conversion.freed) == 1
    assert "of which training keeps no mask and nothing equal: linear" in layer.conversion.sentence()
    assert converted(lambda net, x: nn.functional.linear(x, net.a.weight, net.a.bias)).conversion.freed == ()
