"""Exponentials of graph convolutions: in the adjacency, and in closed form on complete graphs."""

import math

import pytest
import torch

import likelify as lk
from likelify.errors import ConvergenceError, DomainError
from likelify.linalg.expm.chebyshev import bessel_tail
from likelify.linalg.expm.graphs import adjacency_exponential, log_det_error
from tests.cases import normal
from tests.linalg.graphs import kinds, random_graph, random_map
from tests.linalg.reference import exponential


def dense_exponential(map_, x, time=1.0):
    return (exponential(time * map_.materialize(x.shape[1:])) @ x.flatten()).view_as(x)


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("norm", [0.01, 0.45, 2.0, 5.0])
def test_error_is_within_the_certificate(kind, norm):
    graph = kinds()[kind]
    map_ = random_map(graph, 3, norm)
    x = normal(map_.rows, 3)
    for time in (1.0, -0.7):
        exact = dense_exponential(map_, x, time)
        for tol in (1e-2, 1e-4, 1e-12):
            value, degree, bound = adjacency_exponential(map_, x, time, tol)
            assert bound <= tol
            assert (bound == degree == 0) or not graph.is_complete
            allowed = bound + 3e-15 * math.exp(2 * norm)
            assert (map_.item_norms(value - exact) <= allowed * map_.item_norms(x)).all()


def test_log_determinant_is_within_its_certificate():
    graph = random_graph(4, 0.8)
    map_ = random_map(graph, 2, 1.0)
    units = torch.eye(8, dtype=torch.float64).reshape(8, 4, 2)
    for tol in (0.3, 1e-2, 1e-5):
        error = adjacency_exponential(map_, units[0], 1.0, tol)[2]
        columns = [adjacency_exponential(map_, unit, 1.0, tol)[0].flatten() for unit in units]
        gap = torch.linalg.slogdet(torch.stack(columns))[1] - map_.trace((2,)).sum()
        assert abs(gap) <= log_det_error(map_, 1.0, error)[0]
    assert log_det_error(map_, 1.0, 1.0).tolist() == [math.inf]
    assert log_det_error(random_map(lk.GraphBatch.complete([0, 2])), 1.0, 1.0).tolist() == [0.0, math.inf]


def test_bessel_tail_bounds_the_sum():
    special = pytest.importorskip("scipy.special")
    for norm in (1e-3, 0.5, 3.0, 20.0):
        for degree in range(60):
            true = sum(special.iv(k, norm) for k in range(degree + 1, degree + 80))
            assert bessel_tail(norm, degree, skew=False) >= 2 * true * (1 - 1e-12)
    assert bessel_tail(0.0, 0, skew=False) == 0.0


@pytest.mark.parametrize("kind", kinds())
def test_gradients_of_any_order(kind):
    graph = kinds()[kind]
    if len(graph.owner) > 20:
        graph = lk.GraphBatch.complete([23])
    map_ = random_map(graph, 3, 1.0)
    time = torch.tensor(0.7, dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (normal(map_.rows, 3), map_.theta0, map_.theta1)]

    def function(x, theta0, theta1, time=0.7):
        return adjacency_exponential(lk.GraphMap(theta0, theta1, graph), x, time, 1e-10)[0]

    fast = len(graph.owner) > 20
    assert torch.autograd.gradcheck(function, leaves, fast_mode=fast)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=fast)
    assert torch.autograd.gradcheck(function, (*leaves, time.requires_grad_()), fast_mode=fast)
    assert torch.autograd.gradcheck(map_.apply, leaves[:1])
    for i, leaf in enumerate(leaves):
        alone = [t if j == i else t.detach() for j, t in enumerate(leaves)]
        found = torch.autograd.grad(function(*alone).square().sum(), leaf)[0]
        torch.testing.assert_close(found, torch.autograd.grad(function(*leaves).square().sum(), leaf)[0])


@pytest.mark.parametrize("sizes", [[5], [3, 1, 4], [4, 4], [2] * 3])
def test_complete_graphs_equal_the_same_graphs_in_general(sizes):
    complete = lk.GraphBatch.complete(sizes)
    general = lk.GraphBatch(complete.sizes, complete.edge_index)
    one = random_map(complete, 3, 1.0)
    two = lk.GraphMap(one.theta0, one.theta1, general)
    x = normal(one.rows, 3)
    torch.testing.assert_close(one.apply(x), two.apply(x))
    values = [adjacency_exponential(map_, x, 1.0, 1e-13)[0] for map_ in (one, two)]
    torch.testing.assert_close(*values, rtol=0, atol=1e-12)
    assert one.norm_bound((3,)) <= two.norm_bound((3,))


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("nodes", range(2, 17))
def test_exponential_is_that_of_the_kronecker_matrix_and_its_trace_is_counted_by_node(nodes, complete):
    graph = lk.GraphBatch.complete([nodes]) if complete else random_graph(nodes, 0.5)
    map_, x = random_map(graph, 2, 0.9), normal(nodes, 2)
    weights = torch.zeros(nodes, nodes, dtype=torch.float64)
    start, end = graph.edge_index
    weights[start, end] = 1.0 if graph.edge_weight is None else graph.edge_weight
    scale = torch.where(weights.sum(1) > 0, weights.sum(1), 1).rsqrt()
    adjacency = scale[:, None] * weights * scale
    theta0, theta1 = map_.theta0.T.contiguous(), map_.theta1.T.contiguous()
    matrix = torch.kron(torch.eye(nodes).double(), theta0) + torch.kron(adjacency, theta1)
    layer = lk.Exponential(map_, tol=1e-13)
    value, log_det = layer(x, lk.Context(structure=graph))
    expected = (exponential(matrix) @ x.flatten()).view_as(x)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(log_det, nodes * map_.theta0.trace()[None], rtol=1e-14, atol=0)
    torch.testing.assert_close(matrix.trace(), nodes * map_.theta0.trace(), rtol=1e-13, atol=1e-13)


def test_permutations_of_the_nodes_commute_with_the_exponential():
    for kind in ("plain", "weighted", "complete of one size"):
        graph = kinds()[kind]
        map_ = random_map(graph)
        x, order = normal(map_.rows, 3), torch.randperm(int(graph.sizes[0]))
        order = torch.cat([order, torch.arange(len(order), map_.rows)])
        edges = order.argsort()[graph.edge_index]
        moved = lk.GraphMap(map_.theta0, map_.theta1, lk.GraphBatch(graph.sizes, edges, graph.edge_weight))
        value = adjacency_exponential(map_, x, 1.0, 1e-12)[0]
        torch.testing.assert_close(adjacency_exponential(moved, x[order], 1.0, 1e-12)[0], value[order])


@pytest.mark.parametrize("complete", [True, False])
def test_saved_memory_does_not_grow_with_the_degree(complete):
    graph = lk.GraphBatch.complete([50, 50]) if complete else random_graph(100, 0.1)
    saved = []
    for tol in (1e-1, 1e-12):
        map_ = random_map(graph, 3)
        leaves = [t.requires_grad_() for t in (normal(100, 3), map_.theta0, map_.theta1)]
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            adjacency_exponential(map_, leaves[0], 1.0, tol)
        saved.append(sum(size for size in sizes if size >= 300))
    assert saved == [300, 300]


def test_single_precision_gradients_are_accurate():
    for graph in (random_graph(30, 0.2), lk.GraphBatch.complete([30]), lk.GraphBatch.complete([4, 4])):
        map_ = random_map(graph, 4)
        leaves, upstream = (normal(map_.rows, 4), map_.theta0, map_.theta1), normal(map_.rows, 4)
        grads = []
        for dtype in (torch.float64, torch.float32):
            own = [leaf.to(dtype).requires_grad_() for leaf in leaves]
            value = adjacency_exponential(lk.GraphMap(*own[1:], graph), own[0], 1.0, 1e-9)[0]
            assert value.dtype == dtype
            grads.append(torch.autograd.grad(value, own, upstream.to(dtype)))
        for exact, found in zip(*grads, strict=True):
            assert (found - exact).norm() <= 2e-6 * exact.norm()
        half = adjacency_exponential(map_, leaves[0].bfloat16(), 1.0, 1e-2)[0]
        assert half.dtype == torch.bfloat16


def test_norms_beyond_the_range_are_refused():
    for norm, error in ((1e3, ConvergenceError), (math.nan, DomainError)):
        with pytest.raises(error):
            adjacency_exponential(random_map(random_graph(), 2, norm), normal(7, 2), 1.0, 1e-6)


def test_traces_of_products_of_graph_maps_are_counted_once_for_each_node():
    graph = lk.GraphBatch.complete([3, 2])
    eye = torch.eye(1)
    map_ = lk.GraphMap(eye, 0 * eye, graph)
    for product in (map_ @ map_, lk.Dense(eye) @ map_, map_ + map_ @ map_ - map_):
        _, log_det = lk.Exponential(product)(torch.ones(5, 1), lk.Context(structure=graph))
        assert torch.allclose(log_det, torch.tensor([3.0, 2.0]))
