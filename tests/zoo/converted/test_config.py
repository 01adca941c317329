"""What decides a flow's function is in its weights, and what decides its structure is not."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import likelify as lk
from likelify.errors import NonFiniteError, UnsupportedError
from likelify.flowification import flowify
from likelify.zoo import ConvertedConfig, converted_flow


class Branch(nn.Module):
    """`x + 0.3 b(leaky_relu(a(x)))` with given norms; dropout in the branch where asked for."""

    def __init__(self, first=1.0, second=1.0, factor=0.3, drop=None):
        super().__init__()
        self.a, self.b, self.drop, self.factor = nn.Linear(4, 4), nn.Linear(4, 4), drop or nn.Identity(), factor
        with torch.no_grad():
            for layer, norm in ((self.a, first), (self.b, second)):
                layer.weight.mul_(norm / torch.linalg.matrix_norm(layer.weight, 2))

    def forward(self, x):
        return x + self.factor * self.b(F.leaky_relu(self.drop(self.a(x))))


class Using(nn.Module):
    """`call(self, x)` behind a linear layer, with a tensor of its own."""

    def __init__(self, call, value, *, trained=False):
        super().__init__()
        self.layer, self.call = nn.Linear(4, 4), call
        if trained:
            self.value = nn.Parameter(value.clone())
        else:
            self.register_buffer("value", value.clone())

    def forward(self, x):
        return self.call(self, self.layer(x))


def rebuilt(flow, fresh):
    again = ConvertedConfig.of(flow).build(fresh)
    again.load_state_dict(flow.state_dict())
    return again


def same_means(flow, again, shape=(4,)):
    x = torch.randn(5, *shape)
    torch.testing.assert_close(again.transform.mean_forward(x), flow.transform.mean_forward(x), atol=0, rtol=0)


@pytest.mark.parametrize("norms", [(0.2, 1.0), (20.0, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("residual", ["lipschitz", "auto"])
def test_limits_of_contractions_are_saved(norms, residual):
    flow = converted_flow(Branch(2.5, 1.0), torch.randn(3, 4), residual=residual)
    assert flow.likelihood == "exact"
    again = rebuilt(flow, Branch(*norms))
    same_means(flow, again)
    assert again.likelihood == "exact"
    assert ConvertedConfig.of(again) == ConvertedConfig.of(flow)


def test_blocks_that_were_bounds_stay_bounds():
    flow = converted_flow(nn.Sequential(Branch(20.0), Branch()), torch.randn(3, 4), residual="auto")
    assert ConvertedConfig.of(flow).contractions == (False, True)
    same_means(flow, rebuilt(flow, nn.Sequential(Branch(), Branch(20.0))))


def test_the_number_of_contractions_is_part_of_the_fingerprint():
    texts = [flowify(Branch(n), torch.randn(3, 4), residual="auto").conversion.fingerprint for n in (1.0, 1.1, 20.0)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    "call",
    [
        lambda self, x: x * self.value,
        lambda self, x: x - self.value,
        lambda self, x: x / self.value,
        lambda self, x: self.value - x,
        lambda self, x: x * torch.abs(self.value),
    ],
)
@pytest.mark.parametrize("fresh", [2.0, 1.0])
def test_constants_of_one_number_are_saved(call, fresh):
    net = Using(call, torch.tensor(5.0))
    flow = converted_flow(net, torch.randn(3, 4))
    same_means(flow, rebuilt(flow, Using(call, torch.tensor(fresh))))
    names = {name for name, p in flow.named_parameters() if not p.requires_grad}
    assert {name.rsplit(".", 1)[1] for name in names} == {"log_scale", "shift"}


def test_parameters_are_trained_whatever_is_done_to_them_first():
    for call in (
        lambda self, x: x - self.value,
        lambda self, x: x / self.value,
        lambda self, x: torch.add(x, self.value, alpha=2),
    ):
        layer = flowify(Using(call, torch.full((4,), 1.5), trained=True), torch.randn(3, 4))
        assert all(p.requires_grad for p in layer.parameters())


def test_numbers_in_python_cost_nothing():
    layer = flowify(Using(lambda self, x: 2 * x, torch.tensor(1.0)), torch.randn(3, 4))
    assert [type(step).__name__ for step in layer][1:] == ["Affine"]


@pytest.mark.parametrize(
    ("shape", "numbers"), [((2, 4, 4), 32), ((4, 4), 32), ((4,), 32), ((2, 1, 1), 2), ((1, 2, 1, 1), 2), ((), 2)]
)
@pytest.mark.parametrize("start", [torch.zeros, torch.ones, torch.randn])
def test_the_shape_of_a_constant_decides_how_many_numbers_it_has(shape, numbers, start):
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.position = nn.Parameter(start(shape))

        def forward(self, x):
            return x + self.position

    layer = flowify(Positions(), torch.randn(3, 2, 4, 4))
    assert sum(p.numel() for p in layer.parameters()) == 2 * numbers
    assert len([p for p in layer.parameters() if p.numel() == numbers]) == 2


def test_trained_positions_can_be_loaded_into_zeros():
    class Positions(nn.Module):
        def __init__(self, start):
            super().__init__()
            self.position, self.layer = nn.Parameter(start(2, 4, 4)), nn.Conv2d(2, 2, 1)

        def forward(self, x):
            return self.layer(x + self.position)

    flow = converted_flow(Positions(torch.randn), torch.randn(3, 2, 4, 4))
    same_means(flow, rebuilt(flow, Positions(torch.zeros)), (2, 4, 4))


def test_a_fresh_network_with_a_head_of_zeros_can_be_loaded_into():
    def network(*, trained):
        net = nn.Sequential(nn.Conv2d(1, 2, 2, 2), nn.BatchNorm2d(2), nn.PReLU(2), nn.Flatten(), nn.Linear(8, 3))
        if not trained:
            nn.init.zeros_(net[4].weight)
            nn.init.zeros_(net[1].weight)
        return net

    flow = converted_flow(network(trained=True), torch.rand(3, 1, 4, 4))
    fresh = network(trained=False)
    before = copy.deepcopy(fresh.state_dict())
    # Until weights are loaded nothing comes out that could be taken for a result.
    with pytest.raises(NonFiniteError, match="weights have still to be loaded"):
        ConvertedConfig.of(flow).build(fresh).elbo(torch.rand(3, 1, 4, 4))
    same_means(flow, rebuilt(flow, fresh), (1, 4, 4))
    assert all(torch.equal(tensor, before[name]) for name, tensor in fresh.state_dict().items())
    with pytest.raises(UnsupportedError, match="rank 0.*\n.*GELU|GELU.*\n.*rank 0"):
        ConvertedConfig.of(flow).build(nn.Sequential(fresh, nn.GELU()))


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.view(x.size(0), -1),
        lambda x: x.reshape((x.shape[0], 16)),
        lambda x: torch.reshape(x, [x.shape[0], 4, 4]).flatten(1),
    ],
)
def test_the_rows_of_the_example_are_not_part_of_the_fingerprint(call):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 4)

        def forward(self, x):
            return self.layer(call(x))

    flows = [converted_flow(Net(), torch.rand(rows, 1, 4, 4), pixel_levels=17) for rows in (1, 2, 8)]
    assert len({ConvertedConfig.of(flow).fingerprint for flow in flows}) == 1
    x = torch.randint(17, (3, 1, 4, 4)).float()
    again = rebuilt(flows[2], Net())
    torch.testing.assert_close(again.transform.mean_forward(x), flows[2].transform.mean_forward(x))


def test_dropout_in_a_contraction_stays_out_in_training():
    for drop in (nn.Dropout(0.5), nn.AlphaDropout(0.5), nn.Sequential(nn.Dropout1d(0.3), nn.Tanh())):
        net, x = Branch(drop=drop), torch.randn(6, 4)
        flow = lk.Flow(lk.Normal((4,)), flowify(net, x, residual="lipschitz"))
        expected = flow.eval().log_prob(x)
        assert torch.equal(flow.train().log_prob(x), expected)
        assert not any(isinstance(part, nn.Dropout | nn.Dropout1d | nn.AlphaDropout) for part in flow.modules())


def test_dropout_that_acts_in_evaluation_is_refused_in_a_contraction():
    class Dropping(nn.Module):
        def __init__(self, *, training):
            super().__init__()
            self.layer, self.kind = nn.Linear(1, 1), training
            nn.init.constant_(self.layer.weight, 0.5)

        def forward(self, x):
            return x + 0.3 * F.dropout(torch.tanh(self.layer(x)), 1e-6, training=self.kind)

    with pytest.raises(UnsupportedError, match="drops values in evaluation too"):
        flowify(Dropping(training=True), torch.randn(2, 1), residual="lipschitz")
    assert flowify(Dropping(training=False), torch.randn(2, 1), residual="lipschitz").likelihood == "exact"


@pytest.mark.parametrize(("first", "second"), [(5.0, 0.0), (0.0, 5.0), (0.0, 0.0), (30.0, 0.0)])
def test_branches_with_layers_of_zeros_stay_contractions_in_training(first, second):
    net, x = Branch(first, second, factor=1.0), torch.randn(6, 4)
    layer = flowify(net, x, residual="lipschitz")
    with torch.no_grad():
        torch.testing.assert_close(layer.mean_forward(x), net(x))
        for p in layer.parameters():
            p.copy_(100 * torch.randn_like(p))
    assert 0.5 < layer[0].lipschitz_bound() <= 0.9801
    z = layer.mean_forward(x)
    torch.testing.assert_close(layer.mean_inverse(z), x, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (nn.AvgPool1d(3, 1, 1), nn.AvgPool1d(3, 1, 1, count_include_pad=False)),
        (nn.AvgPool2d(2), nn.AvgPool2d(2, divisor_override=3)),
    ],
)
def test_settings_that_a_module_does_not_show_tell_networks_apart(one, other):
    x = torch.randn(4, 2, *([6] if isinstance(one, nn.AvgPool1d) else [4, 4]))
    prints = {flowify(module, x).conversion.fingerprint for module in (one, other, one)}
    assert len(prints) == 2
