import math

import pytest
import torch

import likelify as lk
from likelify.errors import ConvergenceError, DomainError, ShapeError, UnsupportedError
from likelify.linalg.bounds import gram_bound
from likelify.linalg.expm.chebyshev import bessel_tail
from likelify.linalg.expm.graphs import adjacency_exponential, log_det_error
from likelify.linalg.expm.matrix import SmallExponential
from likelify.linalg.graph import limit_by_neighbours, normalized_adjacency
from tests.cases import normal, weighted_graphs
from tests.linalg.reference import exponential


def random_graph(nodes=7, density=0.4, *, weighted=False, loops=False):
    dense = torch.rand(nodes, nodes).lt(density).triu(0 if loops else 1).double()
    if weighted:
        dense = dense * torch.rand(nodes, nodes).double()
    dense = dense + dense.triu(1).T
    edges = dense.nonzero().T
    return lk.GraphBatch(torch.tensor([nodes]), edges, dense[tuple(edges)] if weighted else None)


def random_map(graph, features=3, norm=0.45):
    thetas = (norm * m / torch.linalg.matrix_norm(m, 2) for m in normal(2, features, features))
    return lk.GraphMap(*thetas, graph)


def dense_exponential(map_, x, time=1.0):
    return (exponential(time * map_.materialize(x.shape[1:])) @ x.flatten()).view_as(x)


def kinds():
    return {
        "plain": random_graph(),
        "weighted": random_graph(weighted=True, loops=True),
        "batch": weighted_graphs(),
        "complete": lk.GraphBatch.complete([3, 1, 0, 2, 3]),
        "complete of one size": lk.GraphBatch.complete([4, 4]),
        "complete of one large size": lk.GraphBatch.complete([25, 25]),
        "single nodes": lk.GraphBatch.complete([1, 1, 1]),
    }


def test_adjacency_is_normalized():
    graph = weighted_graphs()
    weights = torch.zeros(5, 5, dtype=torch.float64)
    weights[tuple(graph.edge_index)] = graph.edge_weight.double()
    degree = weights.sum(1)
    assert degree.tolist() == [2.5, 0.5, 3.0, 4.0, 0.0]
    root = torch.where(degree > 0, degree, 1).sqrt()
    adjacency = normalized_adjacency(graph, torch.float64)
    torch.testing.assert_close(adjacency.to_dense(), weights / root[:, None] / root, rtol=1e-15, atol=0)
    assert normalized_adjacency(graph, torch.float64) is adjacency
    assert normalized_adjacency(graph).dtype == torch.float32
    assert torch.linalg.eigvalsh(adjacency.to_dense()).abs().max() <= 1 + 1e-12


def test_order_of_edges_does_not_matter():
    graph = random_graph(weighted=True)
    order = torch.randperm(graph.edge_index.shape[1])
    shuffled = lk.GraphBatch(graph.sizes, graph.edge_index[:, order].int(), graph.edge_weight[order])
    found, expected = (normalized_adjacency(g, torch.float64).to_dense() for g in (shuffled, graph))
    assert torch.equal(found, expected)


def test_graphs_that_are_not_undirected_are_refused():
    three = torch.tensor([3])
    for edges, weight, message in (
        ([[0, 1, 1], [1, 0, 2]], None, "directed"),
        ([[0, 1], [1, 0]], [1.0, 2.0], "directed"),
        ([[0, 0, 1, 1], [1, 1, 0, 0]], None, "twice"),
        ([[0, 1], [1, 0]], [-1.0, -1.0], "negative"),
        ([[0, 1], [1, 0]], [math.inf, math.inf], "non-finite"),
    ):
        graph = lk.GraphBatch(three, torch.tensor(edges), None if weight is None else torch.tensor(weight))
        with pytest.raises(DomainError, match=message):
            normalized_adjacency(graph)
        if "negative" not in message and "non-finite" not in message:
            normalized_adjacency(graph.undirected())
    learned = lk.GraphBatch(three, torch.tensor([[0, 1], [1, 0]]), torch.ones(2, requires_grad=True))
    with pytest.raises(UnsupportedError, match="Detach"):
        normalized_adjacency(learned)


def test_maps_refuse_other_shapes():
    with pytest.raises(ShapeError, match="two square matrices"):
        lk.GraphMap(torch.eye(2), torch.eye(3), weighted_graphs())
    with pytest.raises(ShapeError, match=r"\(nodes, features\)"):
        lk.GraphMap(torch.eye(2), torch.eye(2), weighted_graphs()).apply(torch.ones(4, 2))


@pytest.mark.parametrize("kind", kinds())
def test_trace_and_norms_belong_to_each_graph(kind):
    graph = kinds()[kind]
    map_ = random_map(graph, 2)
    x = normal(map_.rows, 2)
    matrix, nodes = map_.materialize((2,)), torch.arange(map_.rows).repeat_interleave(2)
    trace = lk.structure.sum_items(map_.trace((2,)), lk.Context(structure=graph))
    for item in range(len(graph)):
        own = graph.owner[nodes] == item
        block = matrix[own][:, own]
        torch.testing.assert_close(block.trace(), trace[item])
        assert torch.linalg.matrix_norm(block) <= map_.frobenius_bound((2,))[item]
        if len(block):
            assert torch.linalg.matrix_norm(block, 2) <= map_.norm_bound((2,))
        torch.testing.assert_close(map_.item_norms(x)[item], x[graph.owner == item].norm())
    assert torch.equal(map_.item_size((2,)), 2 * graph.sizes)


def test_norms_do_not_leave_the_range():
    map_ = random_map(lk.GraphBatch.complete([2, 2]), 1)
    x = torch.tensor([[3e-200], [4e-200], [3e200], [4e200]], dtype=torch.float64)
    torch.testing.assert_close(map_.item_norms(x), torch.tensor([5e-200, 5e200], dtype=torch.float64))


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


def test_small_exponentials():
    for norm in (0.0, 1e-8, 0.03, 1.0, 30.0):
        matrices = normal(4, 3, 3)
        matrices = norm * matrices / torch.linalg.matrix_norm(matrices, 2)[:, None, None]
        value = SmallExponential.apply(matrices)
        scale = float(torch.linalg.matrix_norm(value, 2).max())
        torch.testing.assert_close(value, exponential(matrices), rtol=0, atol=1e-13 * scale)
    matrices = normal(2, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(SmallExponential.apply, matrices)
    assert torch.autograd.gradgradcheck(SmallExponential.apply, matrices)
    assert SmallExponential.apply(torch.full((1, 2, 2), math.nan)).isnan().all()


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


def test_limits_by_the_number_of_neighbours():
    graph = random_graph(9, 0.6)
    most = int(torch.bincount(graph.edge_index[0]).max())
    for norm in (0.0, 0.05, 3.0):
        theta0, theta1 = (norm * m / torch.linalg.matrix_norm(m, 2).clamp_min(1e-9) for m in normal(2, 3, 3))
        theta0.requires_grad_()
        first, second = limit_by_neighbours(theta0, theta1, graph)
        assert gram_bound(first) <= 1 / most
        assert gram_bound(second) <= 1
        if norm == 0.05:
            torch.testing.assert_close(first, theta0)
        first.sum().backward()
        assert theta0.grad is not None
        assert theta0.grad.isfinite().all()
    assert limit_by_neighbours(torch.eye(2), torch.eye(2), lk.GraphBatch.complete([3]))[0][0, 0] <= 0.5
