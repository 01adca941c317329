"""What is kept inside frozen(), and what becomes of it."""

import copy

import pytest
import torch

import likelify as lk
from likelify import nets, testing
from likelify.errors import StateError
from tests.test_flows import spline_flow


def test_frozen_caches_and_refuses_stale_parameters():
    layer = lk.Conv1x1(3)
    x = torch.randn(2, 3)
    with layer.frozen():
        first, _ = layer(x)
        with layer.frozen():
            assert torch.equal(layer(x)[0], first)
        assert torch.equal(layer(x)[0], first)
        with torch.no_grad():
            layer.log_diagonal.add_(1.0)
        with pytest.raises(StateError, match=r"inside frozen\(\)"):
            layer(x)
    assert not torch.equal(layer(x)[0], first)


def test_exponentials_are_cached_inside_flows():
    flow = lk.Flow(lk.Normal((2, 4, 4)), lk.Chain([lk.conv_exponential(2), lk.Conv1x1(2)]))
    x = torch.randn(3, 2, 4, 4)
    with flow.frozen():
        flow.log_prob(x)
        assert all(layer._cache for layer in flow.transform)
        assert not flow.log_prob(x).grad_fn or not any(
            torch.autograd.grad(flow.log_prob(x).sum(), flow.transform[0].parametrization.weight, allow_unused=True)
        )
        with torch.no_grad():
            flow.transform[0].parametrization.weight.add_(1.0)
        with pytest.raises(StateError, match="Exponential"):
            flow.log_prob(x)


def test_copies_made_inside_a_block_do_not_stay_in_it():
    flow = spline_flow().float()
    with flow.frozen(), nets.regularized(flow):
        flow.log_prob(torch.zeros(1, 2))
        twin = copy.deepcopy(flow)
    testing.randomize(twin)
    twin.log_prob(torch.zeros(1, 2)).sum().backward()
    assert all(p.grad is not None for p in twin.parameters())
    dropout = nets.Dropout(0.5)
    with nets.regularized(dropout):
        assert not copy.deepcopy(dropout).active
