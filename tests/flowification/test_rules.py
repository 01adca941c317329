"""Rules of the user's."""

import pytest
import torch
from torch import nn

import likelify as lk
from likelify.errors import UnsupportedError
from likelify.flowification import DATA, Call, flowify, rule
from likelify.transforms.elementwise import ChannelAffine


class Quarter(nn.Module):
    """A quarter of a turn, which there is no rule for."""

    def __init__(self):
        super().__init__()
        self.turns = 1

    def forward(self, x):
        return torch.stack([-x[:, 1], x[:, 0]], 1)


class Net(nn.Module):
    """A module and a function without rules, and a parameter that is not used."""

    def __init__(self):
        super().__init__()
        self.rotate = Quarter()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return torch.asinh(self.rotate(x))


class Asinh(lk.Transform):
    """The bijection `z = asinh(x)`."""

    def forward(self, x, context=None):
        return torch.asinh(x), -0.5 * (1 + x * x).log().flatten(1).sum(1)

    def inverse(self, z, context=None):
        return torch.sinh(z), z.cosh().log().flatten(1).sum(1)


def test_a_rule_of_the_user():
    x = torch.randn(3, 2)
    with pytest.raises(UnsupportedError, match=r"asinh.*there is no rule for asinh. Write one: @flowification.rule"):
        flowify(Net(), x)
    seen = []

    @rule(Quarter)
    def quarter(module, in_shape, options):
        seen.append((module.turns, in_shape, options.noise))
        return lk.Chain([lk.Permute([1, 0]), ChannelAffine(torch.tensor([-1.0, 1.0]))])

    @rule(torch.asinh)
    def asinh(call, in_shape, options):
        assert isinstance(call, Call)
        assert call.args == (DATA,)
        return Asinh()

    layer = flowify(Net(), x)
    assert seen == [(1, (2,), "normal")]
    assert layer.likelihood == "exact"
    assert layer.conversion.unused == ("factor",)
    assert "factor" in str(layer.conversion)


def test_a_rule_that_computes_something_else_is_found_out():
    class Wrong(nn.Module):
        def forward(self, x):
            return 3 * x

    @rule(Wrong)
    def wrong(module, in_shape, options):
        return lk.Affine(scale=2.0)

    with pytest.raises(UnsupportedError, match="noise-free path of the result is off by"):
        flowify(Wrong(), torch.randn(2, 3))
