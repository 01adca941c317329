"""How networks and layers are called, and what that costs."""

import inspect
import sys

import pytest
import torch
from torch import nn

import likelify as lk
from likelify import nets
from likelify.errors import UnsupportedError


class Joining(nn.Sequential):
    """A network with a condition that is a Sequential by its class alone."""

    def forward(self, x, context):
        return super().forward(torch.cat([x, context.condition], 1))


def test_networks_are_called_as_they_are_whatever_they_are_wrapped_in():
    split, bijector, x, condition = lk.ChannelSplit(3), lk.AffineBijector(), torch.randn(5, 3), torch.randn(5, 2)

    def wrapped(net):
        return net, torch.compile(net, backend="eager"), nn.DataParallel(net)

    for net in wrapped(Joining(nn.Linear(3, 4))):
        flow = lk.Flow(lk.Normal(3), lk.Coupling(split, bijector, net))
        assert flow.log_prob(x, condition).shape == (5,)
    for net in wrapped(nn.Sequential(nn.Linear(1, 4))):
        flow = lk.Flow(lk.Normal(3), lk.Coupling(split, bijector, net))
        assert flow.log_prob(x).shape == (5,)
        with pytest.raises(UnsupportedError, match="no part"):
            flow.log_prob(x, condition)
    for net in wrapped(nn.Sequential(nn.Linear(3, 3))):
        assert not nets.DeclaredNet(net, 0.9).net_takes_context
    layer = lk.Coupling(split, bijector, nn.Linear(1, 4))
    layer.net = nets.MLP(1, 4, (8,), context_features=2)
    assert lk.Flow(lk.Normal(3), layer).log_prob(x, condition).shape == (5,)
    layer.net = nn.Linear(1, 4)
    assert lk.Flow(lk.Normal(3), layer).log_prob(x).shape == (5,)


def test_what_calls_cost_in_python(monkeypatch):
    """Frames of `inputs` around a call of a layer, and looks at signatures, which cost as much as a small layer."""
    layer, x, frames = lk.ActNorm(2), torch.zeros(3, 2), []

    def count(frame, event, arg):
        if event == "call" and frame.f_code.co_filename.endswith("inputs.py"):
            frames.append(frame.f_code.co_name)

    sys.setprofile(count)
    try:
        layer(x, lk.Context())
    finally:
        sys.setprofile(None)
    assert frames == ["run", "_expected"]

    class Reader(nn.Module):
        def forward(self, x, context):
            return x.new_zeros(len(x), 2)

    flow = lk.Flow(lk.Normal(2), lk.Coupling(lk.ChannelSplit(2), lk.AffineBijector(), Reader()))
    flow.log_prob(x, torch.zeros(3, 1))
    monkeypatch.setattr(inspect, "signature", None)
    flow.log_prob(x, torch.zeros(3, 1))


def test_autocast_is_as_before_behind_a_layer_that_fails():
    class Failing(lk.Transform):
        def forward(self, x, context=None):
            assert not torch.is_autocast_enabled("cpu")
            raise ValueError("no good")

    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            with pytest.raises(ValueError, match="no good"):
                Failing()(torch.zeros(2, 2))
            assert torch.is_autocast_enabled("cpu")
