"""Graph convolutions as maps: the normalized adjacency, norms and traces of each graph, refusals."""

import math

import pytest
import torch

import likelify as lk
from likelify.errors import DomainError, ShapeError, UnsupportedError
from likelify.linalg.bounds import gram_bound
from likelify.linalg.graph import limit_by_neighbours, normalized_adjacency
from tests.cases import normal, weighted_graphs
from tests.linalg.graphs import kinds, random_graph, random_map


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


@pytest.mark.parametrize("weighted", [False, True])
def test_edges_are_looked_at_in_blocks(weighted, monkeypatch):
    graph = random_graph(8, 0.5, weighted=weighted, loops=True)
    expected = normalized_adjacency(graph, torch.float64).to_dense()
    monkeypatch.setattr(lk.edges, "BLOCK", 3)
    order = torch.randperm(graph.edge_index.shape[1])
    weight = graph.edge_weight
    for edges, weights in (
        (graph.edge_index, weight),
        (graph.edge_index.int()[:, order], None if weight is None else weight[order]),
    ):
        again = lk.GraphBatch(graph.sizes, edges, weights)
        for found in (again, again.undirected()):
            assert torch.equal(normalized_adjacency(found, torch.float64).to_dense(), expected)
    for place in range(graph.edge_index.shape[1]):
        if graph.edge_index[0, place] != graph.edge_index[1, place]:
            kept = torch.arange(graph.edge_index.shape[1]) != place
            one_way = lk.GraphBatch(graph.sizes, graph.edge_index[:, kept], None if weight is None else weight[kept])
            with pytest.raises(DomainError, match="directed"):
                normalized_adjacency(one_way)
            twice = lk.GraphBatch(graph.sizes, torch.cat([graph.edge_index, graph.edge_index[:, [place]]], 1))
            with pytest.raises(DomainError, match="twice"):
                normalized_adjacency(twice)
    if weighted:
        place = int((graph.edge_index[0] != graph.edge_index[1]).nonzero()[-1])
        weight = weight.clone()
        weight[place] *= 2
        with pytest.raises(DomainError, match="directed"):
            normalized_adjacency(lk.GraphBatch(graph.sizes, graph.edge_index, weight))


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


def test_limits_by_the_number_of_neighbours():
    graph = random_graph(9, 0.6)
    most = int(torch.bincount(graph.edge_index[0]).max())
    for norm in (0.0, 0.05, 3.0):
        theta0, theta1 = (norm * m / torch.linalg.matrix_norm(m, 2).clamp_min(1e-9) for m in normal(2, 3, 3))
        theta0.requires_grad_()
        first, second = limit_by_neighbours(theta0, theta1, most)
        assert gram_bound(first) <= 1 / most
        assert gram_bound(second) <= 1
        if norm == 0.05:
            torch.testing.assert_close(first, theta0)
        first.sum().backward()
        assert theta0.grad is not None
        assert theta0.grad.isfinite().all()
    assert limit_by_neighbours(torch.eye(2), torch.eye(2), 2)[0][0, 0] <= 0.5
