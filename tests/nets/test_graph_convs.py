import copy
import gc
import math
import weakref

import pytest
import torch

import likelify as lk
from likelify.errors import ConfigError, DomainError, ShapeError, UnsupportedError
from likelify.nets.graph_convs import as_graph
from tests.cases import normal
from tests.linalg.graphs import random_graph
from tests.linalg.reference import exponential


class Data:
    """What the layers look at of PyTorch Geometric's class of that name."""

    def __init__(self, edge_index, edge_weight=None):
        self.edge_index, self.edge_weight = edge_index, edge_weight


def convolutions(features):
    return {
        "heat": lk.nets.HeatKernel(1.5),
        "heat, trained": lk.nets.HeatKernel(1.5, features=features, trained=True),
        "heat, of each feature": lk.nets.HeatKernel([0.1 * (i + 1) for i in range(features)]),
        "pagerank": lk.nets.GraphKernel("pagerank"),
        "band": lk.nets.GraphKernel("band", centre=0.0, width=0.5),
        "own": lk.nets.GraphKernel(torch.exp, ellipse=(4.0, math.exp(2.125))),
        "unitary": lk.nets.UnitaryConv(features),
    }


@pytest.mark.parametrize("name", convolutions(3))
def test_convolutions_take_edges_in_any_form_and_tell_their_bound(name):
    conv, x = convolutions(3)[name].double(), normal(7, 3)
    graph = random_graph(weighted=True)
    index, weight = graph.edge_index, graph.edge_weight
    values = [conv(x, index, weight), conv(x, graph), conv(x, Data(index, weight)), conv(x, Data(index), weight)]
    for value in values[1:]:
        torch.testing.assert_close(value, values[0])
    assert not torch.allclose(values[0], x)
    assert not torch.allclose(conv(x, index), values[0])
    assert 0 < conv.error_bound <= (1e-12 if any(True for _ in conv.parameters()) else 1e-6)
    assert f"degree={conv.degree}, error_bound=" in repr(conv)
    order = torch.randperm(7)
    moved = lk.GraphBatch(graph.sizes, order.argsort()[index], weight)
    torch.testing.assert_close(conv(x[order], moved), values[0][order], rtol=0, atol=1e-11)
    with pytest.raises(DomainError, match="directed"):
        conv(x, index[:, 1:], weight[1:])
    copied = copy.deepcopy(conv)
    copied.load_state_dict(conv.state_dict())
    assert torch.equal(copied(x, graph), conv(x, graph))


def test_trained_times_learn_and_keep_their_bound():
    graph, x = random_graph(30, 0.2), normal(30, 2)
    target = lk.nets.HeatKernel([0.3, 4.0])(x, graph)
    conv = lk.nets.HeatKernel(1.0, features=2, trained=True).double()
    optimizer = torch.optim.Adam(conv.parameters(), 0.1)
    for _ in range(150):
        optimizer.zero_grad()
        (conv(x, graph) - target).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(conv.time.detach(), torch.tensor([0.3, 4.0], dtype=torch.float64), rtol=0.02, atol=0)
    assert conv.degree > lk.nets.HeatKernel(1.0).degree
    assert conv.error_bound <= 1e-12


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_unitary_convolutions_keep_norms_and_equal_the_dense_exponential(scale):
    for graph in (random_graph(weighted=True), lk.GraphBatch.complete([3, 4])):
        conv = lk.nets.UnitaryConv(3).double()
        with torch.no_grad():
            conv.weight.mul_(scale)
            conv.own_weight.copy_(torch.randn(3, 3))
        x = normal(7, 3)
        value = conv(x, graph)
        assert abs(value.norm() - x.norm()) <= (conv.error_bound + 1e-13) * x.norm()
        torch.testing.assert_close(conv.inverse(value, graph), x, rtol=0, atol=1e-11)
        exact = exponential(lk.GraphMap(*conv.thetas(), graph).materialize((3,))) @ x.flatten()
        torch.testing.assert_close(value.flatten(), exact, rtol=0, atol=1e-11)
        assert torch.autograd.gradcheck(lambda x, conv=conv, graph=graph: conv(x, graph), x.requires_grad_())
    single = lk.nets.UnitaryConv(2, own=False, tol=1e-2)
    assert single.error_bound <= 1e-2
    assert [name for name, _ in single.named_parameters()] == ["weight"]


def test_functions_with_parameters_are_trained():
    class Peak(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.centre = torch.nn.Parameter(torch.tensor(0.5))

        def forward(self, mu):
            return torch.exp(-((mu - self.centre) ** 2))

    conv = lk.nets.GraphKernel(Peak(), ellipse=(2.0, math.exp(0.75**2)))
    conv(torch.randn(7, 2), random_graph()).sum().backward()
    assert [name for name, _ in conv.named_parameters()] == ["function.centre"]
    assert conv.function.centre.grad.abs() > 0
    before = conv(torch.eye(7), graph := random_graph())
    with torch.no_grad():
        conv.function.centre.fill_(-0.5)
        assert not torch.allclose(conv(torch.eye(7), graph), before)


def test_the_graph_of_an_edge_index_is_kept_while_it_is_unchanged():
    index = random_graph().edge_index
    weight = torch.ones(index.shape[1])
    graph = as_graph(7, index)
    assert as_graph(7, index) is graph
    assert as_graph(8, index) is not graph
    weighted = as_graph(7, index, weight)
    assert as_graph(7, index, weight) is weighted
    assert as_graph(7, index, weight.clone()).edge_weight is not weighted.edge_weight
    assert as_graph(7, index.clone()) is not graph
    graph = as_graph(7, index, weight)
    weight.mul_(2)
    assert as_graph(7, index, weight) is not graph
    graph = as_graph(7, index, weight)
    index.copy_(index.flip(1))
    assert as_graph(7, index, weight) is not graph


def test_changed_edges_change_the_value():
    conv, x = lk.nets.HeatKernel(1.0), torch.eye(4)
    index = torch.tensor([[0, 1], [1, 0]])
    before = conv(x, index)
    index.add_(2)
    assert torch.equal(conv(x, index), before.roll((2, 2), (0, 1)))


def test_what_is_kept_of_an_edge_index_goes_with_it():
    index = random_graph().edge_index
    graph = weakref.ref(as_graph(7, index))
    gc.collect()
    assert graph() is not None
    del index
    gc.collect()
    assert graph() is None


def test_edges_of_inference_mode_are_not_kept():
    with torch.inference_mode():
        index = torch.tensor([[0, 1], [1, 0]])
        first = as_graph(3, index)
        index.add_(1)
        assert as_graph(3, index).edge_index.tolist() == [[1, 2], [2, 1]]
        assert as_graph(3, index) is not first
    conv, kept = lk.nets.HeatKernel(1.0, trained=True), torch.tensor([[0, 1], [1, 0]])
    with torch.inference_mode():
        conv(torch.eye(2), kept)
    conv(torch.eye(2), kept).sum().backward()
    assert conv.log_time.grad is not None


@pytest.mark.parametrize("name", ["heat, trained", "own", "unitary"])
def test_half_precision_stays_outside(name):
    conv, graph, x = convolutions(3)[name], random_graph(), torch.randn(7, 3, requires_grad=True)
    exact = conv(x, graph)
    (grad,) = torch.autograd.grad(exact.sum(), x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = conv(x, graph)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact)
        torch.testing.assert_close(torch.autograd.grad(value.sum(), x)[0], grad)
        half = conv(x.bfloat16(), graph)
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: lk.nets.GraphKernel("heta"), ConfigError, "Did you mean 'heat'"),
        (lambda: lk.nets.GraphKernel("band", center=0.0), ConfigError, "center"),
        (lambda: lk.nets.GraphKernel(3), ConfigError, "not a int"),
        (lambda: lk.nets.GraphKernel(torch.exp), ConfigError, "ellipse"),
        (lambda: lk.nets.GraphKernel(lk.linalg.BandFilter(), width=1.0), ConfigError, "leave out width"),
        (lambda: lk.nets.GraphKernel("heat", tol=-1.0), ConfigError, "tol"),
        (lambda: lk.nets.HeatKernel(-1.0), ConfigError, "from zero on"),
        (lambda: lk.nets.HeatKernel(0.0, trained=True), ConfigError, "positive"),
        (lambda: lk.nets.HeatKernel([1.0, 2.0], features=3), ConfigError, "features=3"),
        (lambda: lk.nets.UnitaryConv(1), ConfigError, "two features"),
        (lambda: lk.nets.UnitaryConv(2, tol=0.0), ConfigError, "tol"),
        (lambda: as_graph(3, random_graph()), ShapeError, "7 nodes, and the input has 3"),
        (lambda: as_graph(7, random_graph(), torch.ones(3)), UnsupportedError, "its own edge_weight"),
        (lambda: as_graph(3, "edges"), UnsupportedError, "not as a str"),
        (lambda: as_graph(3, torch.eye(3).to_sparse()), UnsupportedError, "layout"),
        (lambda: as_graph(3, torch.tensor([[0], [0]]), torch.ones(1, requires_grad=True)), UnsupportedError, "Detach"),
    ],
)
def test_what_cannot_be_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_data_of_pytorch_geometric_are_taken():
    data = pytest.importorskip("torch_geometric.data")
    graph = random_graph(weighted=True)
    conv, x = lk.nets.HeatKernel(1.0).double(), normal(7, 2)
    plain = data.Data(x=x, edge_index=graph.edge_index)
    torch.testing.assert_close(conv(x, plain), conv(x, graph.edge_index))
    weighted = data.Data(x=x, edge_index=graph.edge_index, edge_weight=graph.edge_weight)
    torch.testing.assert_close(conv(x, weighted), conv(x, graph))
    both = data.Batch.from_data_list([plain, plain])
    torch.testing.assert_close(conv(both.x, both), conv(x, plain).repeat(2, 1))


def test_a_time_that_is_a_parameter_is_trained_and_acts_as_the_state_says():
    path, x = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), torch.randn(3, 2)
    kernel = lk.nets.GraphKernel("heat", time=torch.nn.Parameter(torch.tensor(1.0)))
    assert [name for name, _ in kernel.named_parameters()] == ["filter_time"]
    for _ in range(2):
        kernel(x, path).square().sum().backward()
    assert kernel.filter_time.grad
    state = {"filter_time": torch.tensor(4.0)}
    expected = lk.nets.GraphKernel("heat", time=4.0)(x, path)
    torch.testing.assert_close(torch.func.functional_call(kernel, state, (x, path)), expected)
    kernel.load_state_dict(state, assign=True)
    torch.testing.assert_close(kernel(x, path), expected)
    assert "time 4" in repr(kernel)


def test_settings_of_other_kernels_are_numbers():
    with pytest.raises(ConfigError, match="restart must be numbers"):
        lk.nets.GraphKernel("pagerank", restart=torch.nn.Parameter(torch.tensor(0.2)))
