"""Conversions that would compute something else than the network are found out, however small or hidden it is."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import likelify as lk
from likelify.errors import UnsupportedError
from likelify.flowification import flowify, rule
from likelify.flowification.rules_linear import check_rank
from likelify.zoo import converted_flow


class Applied(nn.Module):
    """`call(self, x)` with two layers and a constant at hand."""

    def __init__(self, call, sizes=(2, 2), act=None):
        super().__init__()
        self.call, self.act = call, act
        self.one, self.two = nn.Conv2d(*sizes, 1), nn.Conv2d(sizes[1], sizes[1], 1)
        self.register_buffer("c", torch.tensor([0.5, -2.0]).reshape(2, 1, 1))
        self.register_buffer("k", torch.tensor([2, 3]).reshape(2, 1, 1))
        self.register_buffer("wide", torch.tensor([1 / 3, 2 / 3], dtype=torch.float64).reshape(2, 1, 1))

    def forward(self, x):
        return self.call(self, x)


def means_agree(net, x, **options):
    layer = flowify(net, x, **options)
    with torch.no_grad():
        expected = net.eval()(x)
    torch.testing.assert_close(layer.mean_forward(x).detach(), expected.to(x.dtype), atol=1e-5, rtol=1e-5)
    return layer


@pytest.mark.parametrize(
    "call",
    [
        lambda self, x: 1e-5 * torch.add(self.c, x, alpha=2),
        lambda self, x: torch.sub(self.c, x, alpha=2),
        lambda self, x: torch.add(x, self.c, alpha=-3),
        lambda self, x: torch.sub(x, self.c, alpha=3),
        lambda self, x: 1.5 - x,
    ],
)
def test_alpha_belongs_to_the_second_operand(call):
    net, x = Applied(call), torch.randn(3, 2, 2, 2)
    with torch.no_grad():
        torch.testing.assert_close(flowify(net, x).mean_forward(x), net(x), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("size", [1.0, 1e-5, 1e-12])
@pytest.mark.parametrize("channels", ["all", "one"])
def test_wrong_rules_are_found_out_at_every_size(size, channels):
    class Wrong(nn.Module):
        def forward(self, x):
            return 1.01 * size * x

    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.wrong = Wrong()

        def forward(self, x):
            return self.wrong(x) if channels == "all" else torch.cat([self.wrong(x), size * 20 * x], 1)

    @rule(Wrong)
    def wrong(module, in_shape, options):
        return lk.Affine(scale=size)

    with pytest.raises(UnsupportedError, match="is off by"):
        flowify(Beside(), torch.randn(3, 2))


def test_hooks_that_change_results_are_named_and_others_are_let_be():
    net, x = nn.Sequential(nn.Linear(3, 3), nn.LeakyReLU(0.1), nn.Linear(3, 2)), torch.randn(3, 3)
    net[0].register_forward_hook(lambda module, inputs, output: None)
    flowify(net, x)
    net[2].register_forward_hook(lambda module, inputs, output: 2 * output)
    with pytest.raises(UnsupportedError, match=r"There are forward hooks \(0, 2\); do in forward what they change"):
        flowify(net, x)


def test_round_off_of_large_numbers_in_between_is_no_fault():
    def call(self, x):
        return self.two((self.one(x) + 1e4) - 1e4) * 1e-3

    flowify(Applied(call), torch.randn(3, 2, 2, 2))
    norm = nn.BatchNorm1d(3)
    norm.running_mean.fill_(3e3)
    flowify(nn.Sequential(norm, nn.Linear(3, 3)), 3e3 + torch.randn(4, 3))


def test_networks_that_draw_numbers_are_found_out():
    def call(self, x):
        return self.one(x) + 0.01 * torch.randn(2, 1, 1)

    with pytest.raises(UnsupportedError, match="random draws"):
        flowify(Applied(call), torch.randn(3, 2, 2, 2))


@pytest.mark.parametrize(
    "call",
    [
        lambda self, x: x + self.one(self.act(x)),
        lambda self, x: self.two(self.act(self.act(x)) + self.one(x)),
        lambda self, x: torch.cat([y := self.one(x), self.act(y.flatten(1)).view(y.shape)], 1),
        lambda self, x: (y := self.one(x), self.act(y), y)[2],
        lambda self, x: (y := self.one(x), self.act(y[:, :1]), y * 2)[2],
        lambda self, x: (y := F.dropout(x, training=self.training), y + self.one(F.leaky_relu_(x, 0.1)))[1],
        lambda self, x: (y := self.one(x), torch.cat([y.add_(1), y.mul_(2)], 1))[1],
    ],
)
@pytest.mark.parametrize("residual", ["repeat", "auto"])
def test_changes_in_place_are_seen_on_examples_without_negative_numbers(call, residual):
    net = Applied(call, act=nn.LeakyReLU(0.1, inplace=True))
    with torch.no_grad():
        for layer in (net.one, net.two):
            layer.weight.abs_().mul_(0.1)
            layer.bias.abs_()
    with pytest.raises(UnsupportedError, match="reads again what '.*' has changed in place.*inplace=False"):
        flowify(net, torch.rand(2, 2, 4, 4), residual=residual)


@pytest.mark.parametrize(
    "call",
    [
        lambda self, x: self.act(self.one(x)),
        lambda self, x: (y := self.act(self.one(x)), y.add_(x))[1],
        lambda self, x: (y := self.one(x), self.act(y).reshape(y.size(0), -1))[1],
        lambda self, x: (p := self.one(x).chunk(2, 1), torch.cat([self.act(p[0]), p[1]], 1))[1],
        lambda self, x: self.act(x),
    ],
)
def test_changes_in_place_that_nobody_else_reads_are_allowed(call):
    net, x = Applied(call, act=nn.LeakyReLU(0.1, inplace=True)), torch.randn(2, 2, 4, 4)
    layer = flowify(net, x)
    with torch.no_grad():
        torch.testing.assert_close(layer.mean_forward(x), net(x.clone()), atol=1e-5, rtol=1e-5)


def test_rules_that_are_right_on_positive_numbers_only_are_found_out():
    class Absolute(nn.Module):
        def forward(self, x):
            return x.abs() + x

    @rule(Absolute)
    def absolute(module, in_shape, options):
        return lk.Affine(scale=2.0)

    with pytest.raises(UnsupportedError, match="is off by"):
        flowify(Absolute(), torch.rand(3, 2))


def test_layers_with_a_domain_are_checked_inside_it():
    class Logarithm(nn.Module):
        def forward(self, x):
            assert torch.is_tensor(x)
            return x.log()

    @rule(Logarithm)
    def logarithm(module, in_shape, options):
        return lk.Inverse(Exponential())

    class Exponential(lk.Transform):
        def forward(self, x, context=None):
            return x.exp(), x.flatten(1).sum(1)

        def inverse(self, z, context=None):
            if not bool((z > 0).all()):
                raise lk.errors.DomainError("not positive")
            return z.log(), -z.log().flatten(1).sum(1)

    assert flowify(Logarithm(), 0.1 + torch.rand(3, 2)).likelihood == "exact"


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.to(torch.uint8).float(),
        lambda x: x.to(dtype=torch.int64).float(),
        lambda x: x.type(torch.int32).float(),
        lambda x: x.type("torch.LongTensor").float(),
        lambda x: x.type_as(torch.ones(1, dtype=torch.int16)).float(),
    ],
)
def test_casts_to_integers_are_refused(call):
    class Cast(nn.Module):
        def forward(self, x):
            return 2 * call(x)

    with pytest.raises(UnsupportedError, match=r"rounds to torch\.u?int"):
        flowify(Cast(), torch.zeros(2, 3))
    kept = means_agree(Applied(lambda self, x: self.one(x.to(torch.float32).type_as(self.c))), torch.rand(2, 2, 2, 2))
    assert kept.likelihood == "exact"


def test_constants_of_other_types():
    x = torch.randn(3, 2, 2, 2)
    means_agree(Applied(lambda self, x: x * self.k + self.k), x)
    means_agree(Applied(lambda self, x: (self.k - x) / self.k), x)
    layer = means_agree(Applied(lambda self, x: self.wide * x + self.wide), x)
    assert {p.dtype for p in layer.parameters()} == {torch.float32}
    with pytest.raises(UnsupportedError, match="tensor as alpha"):
        flowify(Applied(lambda self, x: torch.add(x, self.one(x), alpha=self.c[0, 0, 0])), x)


def test_types_that_do_not_fit_are_named():
    with pytest.raises(UnsupportedError, match=r"fails on the example .* is torch\.float32 where .* torch\.float64"):
        flowify(nn.Linear(4, 3).double(), torch.randn(2, 4))
    with pytest.raises(UnsupportedError, match=r"example is torch\.bfloat16.*float32"):
        flowify(nn.Linear(6, 6).bfloat16(), torch.randn(2, 6).bfloat16())

    class Broken(nn.Module):
        def forward(self, x):
            return x @ torch.ones(7, 7)

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        flowify(Broken(), torch.randn(2, 4))


@pytest.mark.parametrize(
    "call",
    [
        lambda self, x: x[..., 1:3],
        lambda self, x: x[..., :1],
        lambda self, x: x[:, 1:2, ...],
        lambda self, x: x[..., 1:, :, :],
        lambda self, x: x[:, :, ..., 1:-1],
        lambda self, x: x.flatten(2)[..., 2:9],
        lambda self, x: x.flatten(1)[..., 2:9],
    ],
)
def test_slices_with_dots(call):
    means_agree(Applied(call), torch.randn(3, 2, 4, 4))


@pytest.mark.parametrize("last", [nn.Sigmoid(), nn.ReLU()])
def test_rearrangements_may_follow_a_bounded_last_step(last):
    net = nn.Sequential(nn.Conv2d(4, 4, 1), last, nn.PixelShuffle(2), nn.ChannelShuffle(1))
    x = torch.randn(3, 4, 2, 2)
    flow = converted_flow(net, x)
    torch.testing.assert_close(flow.transform.mean_forward(x), net(x))
    assert flow.log_prob(flow.sample((3,))).shape == (3,)


def test_fresh_square_layers_of_usual_sizes_have_full_rank():
    for _ in range(3):
        check_rank(nn.Linear(640, 640).weight)
    thin = torch.randn(300, 299) @ torch.randn(299, 300)
    with pytest.raises(UnsupportedError, match="has rank 299, not 300"):
        check_rank(thin)
