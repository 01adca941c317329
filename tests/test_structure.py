import copy
import pickle
from dataclasses import replace

import pytest
import torch

import likelify as lk
from likelify.errors import DataError, ShapeError, UnsupportedError
from likelify.structure import Context, GraphBatch, as_context, join_condition, sum_constant, sum_items

NO_EDGES = torch.empty(2, 0, dtype=torch.long)


def test_sums_over_items_and_over_graphs():
    x = torch.arange(12.0).reshape(3, 2, 2)
    assert sum_items(x).tolist() == [6.0, 22.0, 38.0]
    graphs = lk.GraphBatch(sizes=torch.tensor([1, 0, 2]), edge_index=NO_EDGES)
    assert sum_items(x, lk.Context(structure=graphs)).tolist() == [6.0, 0.0, 60.0]
    assert sum_constant(torch.tensor(2.0), x, lk.Context(structure=graphs)).tolist() == [2.0, 0.0, 4.0]


def test_sums_over_large_graphs_are_exact_to_single_precision():
    graphs = lk.GraphBatch(torch.tensor([200_000, 1]), NO_EDGES)
    values = torch.full((200_001, 1), 0.1)
    total, one = sum_items(values, lk.Context(structure=graphs)).tolist()
    assert total == pytest.approx(200_000 * values[0].item(), rel=1e-7)
    assert one == values[0].item()


def test_graphs_are_validated():
    with pytest.raises(ShapeError, match="names a node outside 0..2"):
        lk.GraphBatch(sizes=torch.tensor([3]), edge_index=torch.tensor([[0], [3]]))
    with pytest.raises(ShapeError, match="one per edge"):
        lk.GraphBatch(torch.tensor([3]), torch.tensor([[0], [1]]), torch.ones(2))
    with pytest.raises(ShapeError, match="integers"):
        lk.GraphBatch(torch.tensor([3.0]), NO_EDGES)
    graphs = lk.GraphBatch(sizes=torch.tensor([2]), edge_index=NO_EDGES)
    with pytest.raises(ShapeError, match="3 rows, its GraphBatch has 2 nodes"):
        sum_items(torch.ones(3), lk.Context(structure=graphs))


def test_conditions_are_joined_and_checked():
    features = torch.zeros(2, 3, 4, 4)
    joined = join_condition(features, torch.tensor([[1.0], [2.0]]))
    assert joined.shape == (2, 4, 4, 4)
    assert joined[1, 3].unique().tolist() == [2.0]
    with pytest.raises(ShapeError, match="one-hot"):
        join_condition(features, torch.tensor([1, 2]))
    with pytest.raises(ShapeError, match="positions"):
        join_condition(features, torch.zeros(2, 1, 2, 2))
    with pytest.raises(UnsupportedError, match="context is a list"):
        as_context([1])


def test_complete_graphs():
    graphs = lk.GraphBatch.complete([3, 0, 1, 4])
    assert graphs.is_complete
    assert graphs.edge_index.shape[1] == 6 + 12
    adjacency = torch.zeros(8, 8, dtype=torch.long)
    adjacency[tuple(graphs.edge_index)] += 1
    same = graphs.owner[:, None] == graphs.owner
    assert torch.equal(adjacency, same.long() - torch.eye(8, dtype=torch.long))
    assert lk.GraphBatch.complete(torch.tensor([2, 2])).undirected().is_complete
    assert lk.GraphBatch.complete([]).edge_index.shape == (2, 0)
    rebuilt = lk.GraphBatch(graphs.sizes, graphs.edge_index)
    assert not rebuilt.is_complete
    assert not replace(graphs, edge_weight=torch.rand(18)).is_complete
    with pytest.raises(ShapeError, match="integers from 0"):
        lk.GraphBatch.complete([2, -1])


def test_edges_between_graphs_are_refused():
    with pytest.raises(DataError, match="1 edges join two graphs .* edge 1 from node 1 to node 2"):
        lk.GraphBatch(torch.tensor([2, 2]), torch.tensor([[0, 1], [1, 2]]))


def test_undirected_merges_by_the_largest_weight():
    edges = torch.tensor([[1, 0, 2, 0, 2], [0, 1, 1, 1, 2]])
    clean = lk.GraphBatch(torch.tensor([3]), edges, torch.tensor([1.0, 4.0, 2.0, 3.0, 5.0])).undirected()
    assert clean.edge_index.tolist() == [[0, 1, 1, 2, 2], [1, 0, 2, 1, 2]]
    assert clean.edge_weight is not None
    assert clean.edge_weight.tolist() == [4.0, 4.0, 2.0, 2.0, 5.0]
    again = clean.undirected()
    assert torch.equal(again.edge_index, clean.edge_index)
    assert torch.equal(again.edge_weight, clean.edge_weight)
    plain = lk.GraphBatch(torch.tensor([3]), edges).undirected()
    assert torch.equal(plain.edge_index, clean.edge_index)
    assert plain.edge_weight is None


def test_derived_values_are_computed_once_and_stay_with_their_object():
    graphs, calls = lk.GraphBatch.complete([2]), []

    def compute(graphs):
        calls.append(torch.is_inference_mode_enabled())
        return graphs.sizes * 2

    with torch.inference_mode():
        first = graphs.derived("double", compute)
    assert graphs.derived("double", compute) is first
    assert calls == [False]
    assert not first.is_inference()
    for other in (copy.copy(graphs), copy.deepcopy(graphs), pickle.loads(pickle.dumps(graphs))):
        assert other.is_complete
        assert other.derived("double", compute) is not first
    assert graphs.to("cpu") is graphs


def test_a_condition_has_all_positions_or_none():
    images = torch.zeros(2, 1, 4, 4)
    assert join_condition(images, torch.zeros(2, 3)).shape == (2, 4, 4, 4)
    assert join_condition(images, torch.zeros(2, 3, 4, 4)).shape == (2, 4, 4, 4)
    for shape in ((2, 3, 4), (2, 3, 1), (2, 3, 4, 4, 1), (2, 3, 4, 2)):
        with pytest.raises(ShapeError, match="The condition has positions"):
            join_condition(images, torch.zeros(shape))
    residual = lk.LipschitzResidual(lk.nets.LipschitzConvNet(1, (4, 4), context_features=3))
    with pytest.raises(ShapeError, match="The condition must be"):
        residual(images, torch.zeros(2, 3, 4))


def test_edges_put_in_pairs_are_known_to_be(monkeypatch):
    monkeypatch.setattr(lk.edges, "BLOCK", 3)
    edges = torch.tensor([[4, 0, 1, 1, 3, 3], [3, 1, 2, 0, 3, 4]])
    graph = lk.GraphBatch(torch.tensor([3, 2]), edges)
    assert not graph.in_pairs
    pairs = graph.undirected()
    assert pairs.edge_index.tolist() == [[0, 1, 1, 2, 3, 3, 4], [1, 0, 2, 1, 3, 4, 3]]
    assert pairs.in_pairs
    assert pairs.to("cpu").in_pairs
    assert copy.deepcopy(pairs).in_pairs
    twice = pairs.repeated(2)
    assert twice.in_pairs
    assert twice.sizes.tolist() == [3, 2, 3, 2]
    assert torch.equal(twice.undirected().edge_index, twice.edge_index)
    assert torch.equal(twice.edge_index[:, 7:], pairs.edge_index + 5)
    assert not graph.repeated(2).in_pairs
    assert lk.GraphBatch.complete([2]).repeated(3).is_complete
    assert not replace(pairs, edge_weight=torch.rand(7)).in_pairs
    weighted = lk.GraphBatch(graph.sizes, edges.int(), torch.tensor([1.0, 2, 3, 4, 5, 6])).undirected()
    assert torch.equal(weighted.edge_index, pairs.edge_index)
    assert weighted.edge_weight.tolist() == [4, 4, 3, 3, 5, 6, 6]
    empty = lk.GraphBatch(torch.tensor([2]), NO_EDGES).undirected()
    assert empty.edge_index.shape == (2, 0)
    with pytest.raises(DataError, match="2 edges join two graphs of the batch, the first of them edge 3 from node 2"):
        lk.GraphBatch(graph.sizes, torch.tensor([[0, 1, 3, 2, 3], [1, 0, 4, 3, 2]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_over_graphs_in_half_precision_lose_no_terms(dtype):
    context = Context(structure=GraphBatch.complete([1000, 500]))
    assert sum_items(torch.ones(1500, 1, dtype=dtype), context).tolist() == [1000.0, 500.0]


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.uint8, torch.int32])
def test_edges_of_short_integers_are_edges(dtype):
    edges = torch.tensor([[0, 2], [1, 3]], dtype=dtype)
    graphs = GraphBatch([2, 2], edges, [0.5, 2.0]).undirected()
    assert graphs.edge_index.tolist() == [[0, 1, 2, 3], [1, 0, 3, 2]]
    assert [part.tolist() for part, _ in graphs.edges_by_graph()] == [[[0, 1], [1, 0]]] * 2


def test_truth_values_are_no_edges_and_lists_are_no_structure():
    with pytest.raises(ShapeError, match="edge_index must be integers"):
        GraphBatch(torch.tensor([2]), torch.tensor([[True], [False]]))
    with pytest.raises(UnsupportedError, match="takes a GraphBatch as structure, not a list"):
        Context(structure=[2, 3])
