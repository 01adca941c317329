"""What maps and exponentials claim stays true when tensors change, precision is low, and there is nothing to act on."""

import math

import pytest
import torch
from torch import nn

import likelify as lk
from likelify import transforms
from likelify.errors import ConfigError, DomainError, ShapeError, StateError
from likelify.linalg import ConvMap, Dense, Diagonal, GraphMap, HeatFilter, Recompute, Stored, exp_action
from likelify.linalg.expm import recorded
from tests.cases.common import normal


def test_norms_that_were_proved_for_other_tensors_are_not_believed():
    one, other = (transforms.axis_exponential(2, 5).double() for _ in range(2))
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.mul_(60).add_(0.3)
        maps = one.map(), other.map()
    a, b = (
        transforms.Exponential(map_.with_tensors({n: t.detach() for n, t in map_.tensors().items()})) for map_ in maps
    )
    b.load_state_dict(a.state_dict())
    x = normal(3, 2, 5, 5)
    for mine, own in zip(b(x), a(x), strict=True):
        torch.testing.assert_close(mine, own)


def test_bounds_of_sums_of_maps_on_nodes_count_all_nodes():
    graph = lk.GraphBatch.complete([40])
    map_ = GraphMap(1e-3 * normal(3, 3), 1e-3 * normal(3, 3), graph) + Dense(normal(3, 3))
    whole = map_.materialize((3,))
    bound = torch.as_tensor(map_.frobenius_bound((3,)))
    assert float(torch.linalg.matrix_norm(whole)) <= float(bound.max()) * (1 + 1e-9)
    exact = torch.linalg.matrix_exp(whole).slogdet()[1]
    for degree in (3, 6):
        report = exp_action(map_, normal(40, 3), degree=degree).diagnostics
        powers = [torch.linalg.matrix_power(whole, k) / math.factorial(k) for k in range(degree + 1)]
        off = (sum(powers).slogdet()[1] - exact).abs()
        assert bool(off <= torch.as_tensor(report.log_det_error_bound).max() + 1e-9)


def test_a_heat_kernel_follows_its_time():
    for trained in (True, False):
        time = torch.tensor(1.0, dtype=torch.float64, requires_grad=trained)
        filter_ = HeatFilter(time)
        filter_.polynomial(1e-12)
        with torch.no_grad():
            time.fill_(60.0)
        again = filter_.polynomial(1e-12)
        fresh = HeatFilter(time.detach().clone()).polynomial(1e-12)
        assert again.degree >= fresh.degree
        torch.testing.assert_close(again.coefficients[: len(fresh.coefficients)].detach(), fresh.coefficients)
        with torch.no_grad():
            time.fill_(-3.0)
        with pytest.raises(DomainError, match="no way back"):
            filter_.polynomial(1e-12)


def test_parameters_of_a_filter_are_those_of_its_layer():
    time = nn.Parameter(torch.tensor(2.0))
    layer = lk.nets.GraphKernel(HeatFilter(time))
    assert [parameter is time for parameter in layer.parameters()] == [True]


@pytest.mark.parametrize("gradient", [Stored(), Recompute()])
def test_gradients_of_small_items_in_half_precision(gradient):
    x = torch.full((2, 1, 4), 0.2)
    upstream = torch.tensor([1.0, -2.0, 3.0, 1.0]).expand(2, 1, 4)
    found = {}
    for dtype in (torch.float16, torch.float64):
        kernel = torch.tensor([[[0.4, 0.1, 0.3]]], dtype=dtype, requires_grad=True)
        value = exp_action(ConvMap(kernel), x.to(dtype), gradient=gradient).value
        (found[dtype],) = torch.autograd.grad((value * upstream.to(dtype)).sum(), kernel)
    torch.testing.assert_close(found[torch.float16].double(), found[torch.float64], rtol=2e-2, atol=0)


@pytest.mark.parametrize("graph", [lk.GraphBatch.complete([4, 4]), "ring"])
def test_backward_passes_inside_autocast_are_in_full_precision(graph):
    if graph == "ring":
        start = torch.arange(8)
        graph = lk.GraphBatch(torch.tensor([8]), torch.stack([start, (start + 1) % 8])).undirected()
    layer = transforms.graph_exponential(3)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    flow, x = lk.Flow(lk.Normal(3), layer), torch.randn(8, 3)
    context = lk.Context(structure=graph)
    (-flow.log_prob(x, context).mean()).backward()
    expected = [parameter.grad.clone() for parameter in flow.parameters()]
    flow.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        (-flow.log_prob(x, context).mean()).backward()
    for parameter, grad in zip(flow.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, grad, rtol=1e-4, atol=1e-6)


def test_what_is_formed_inside_frozen_is_no_call():
    layer, x = transforms.conv_exponential(2).double(), normal(3, 2, 4, 4)
    flow = lk.Flow(lk.Normal((2, 4, 4)), layer).double()
    expected = flow.certificate(x).nats
    with flow.frozen():
        torch.testing.assert_close(flow.certificate(x).nats, flow.certificate(x).nats)
        assert float((flow.certificate(x).nats - expected).abs().max()) <= float(expected.max())
        with recorded() as reports:
            flow.log_prob(x)
        assert [len(report.error_bound) for report in reports] == [3]
        x.mul_(1e3)
        with pytest.raises(StateError, match="was changed"):
            _ = reports[0].error_bound


def test_batches_without_rows_have_certificates_of_none():
    flow = lk.Flow(lk.Normal((2, 4, 4)), transforms.conv_exponential(2, context_features=3))
    x, condition = torch.randn(0, 2, 4, 4), torch.randn(0, 3)
    assert flow.certificate(x, condition).nats.shape == (0,)
    assert (Dense(torch.randn(0, 3, 3)) @ Diagonal(torch.randn(3))).trace((3,)).shape == (0,)


@pytest.mark.parametrize("method", ["adjacency", "closed-form"])
def test_methods_that_have_no_degree_refuse_one(method):
    graph = lk.GraphBatch.complete([4])
    map_ = Diagonal(normal(3)) if method == "closed-form" else GraphMap(normal(3, 3), normal(3, 3), graph)
    with pytest.raises(ConfigError, match="goes with the methods 'series' and 'chebyshev' only"):
        exp_action(map_, normal(4, 3), method=method, degree=1)


def test_factors_of_kronecker_sums_are_numbers():
    whole = transforms.axis_exponential(2, 5).double().map()
    for factor in (torch.tensor([1.0, 2.0, 3.0]).double(), torch.ones(5, 1, 1).double()):
        with pytest.raises(ShapeError, match="must be one number"):
            _ = whole * factor
    x = normal(2, 2, 5, 5)
    torch.testing.assert_close((whole * torch.full((1, 1, 1), 2.0).double()).apply(x), 2 * whole.apply(x))
