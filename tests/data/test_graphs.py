"""Graphs as items: reading by number, completeness, refusals, facts, what is made of them."""

import numpy as np
import pytest
import torch

from likelify.data import GraphItems, GraphSource, Source, as_source, graph_source, subset, weighted
from likelify.data.graphs import centred_features
from likelify.data.matching import matched
from likelify.errors import DataError
from likelify.structure import GraphBatch

SIZES = np.array([3, 1, 4, 2])


def made(edges: str = "given", *, seed: int = 0, labels: bool = True) -> GraphItems:
    """Return four graphs of different sizes with a path through the nodes of each."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(SIZES.sum(), 2))
    labelled = np.array([0, 2, 1, 0]) if labels else None
    if edges == "complete":
        return GraphItems(x, SIZES, labels=labelled)
    starts = np.cumsum(SIZES) - SIZES
    path = np.array(
        [(first + i, first + i + 1) for first, n in zip(starts, SIZES, strict=True) for i in range(n - 1)]
    ).T
    both = np.concatenate([path, path[::-1]], 1)
    weight = rng.uniform(size=path.shape[1])
    order = rng.permutation(both.shape[1])
    weights = np.tile(weight, 2)[order] if edges == "weighted" else None
    return GraphItems(x, SIZES, both[:, order], weights, labelled)


def source_of(edges: str = "given") -> GraphSource:
    """Return a source of such graphs."""
    return GraphSource("graphs", {"train": made(edges), "validation": made(edges, seed=1)})


def dense(graph: GraphBatch) -> torch.Tensor:
    """Return the weights of the edges as a matrix."""
    weight = torch.ones(graph.edge_index.shape[1]) if graph.edge_weight is None else graph.edge_weight
    matrix = torch.zeros(len(graph.owner), len(graph.owner), dtype=weight.dtype)
    return matrix.index_put_(tuple(graph.edge_index), weight, accumulate=True)


@pytest.mark.parametrize("edges", ["complete", "given", "weighted"])
def test_graphs_are_read_in_any_order(edges: str) -> None:
    items, source = made(edges), source_of(edges)
    whole = (
        GraphBatch.complete(SIZES)
        if edges == "complete"
        else GraphBatch(
            torch.tensor(items.sizes),
            torch.tensor(items.edges),
            None if items.edge_weight is None else torch.tensor(items.edge_weight),
        )
    )
    matrix, starts = dense(whole), np.cumsum(SIZES) - SIZES
    batch = source.read("train", torch.tensor([2, 0, 2, 1]))
    nodes = np.concatenate([np.arange(starts[g], starts[g] + SIZES[g]) for g in (2, 0, 2, 1)])
    assert batch.structure is not None
    assert batch.structure.is_complete is (edges == "complete")
    assert batch.structure.sizes.tolist() == [4, 3, 4, 1]
    torch.testing.assert_close(batch.x, torch.tensor(items.x)[nodes])
    inside = batch.structure.owner[:, None] == batch.structure.owner
    torch.testing.assert_close(dense(batch.structure), matrix[nodes][:, nodes] * inside)
    assert batch.labels is not None
    assert batch.labels.tolist() == [1, 0, 1, 2]
    assert source.read("train", torch.tensor([], dtype=torch.long)).x.shape == (0, 2)
    with pytest.raises(DataError, match="has the items 0..3"):
        source.read("train", torch.tensor([4]))


def test_graphs_of_one_size_share_their_structure() -> None:
    x = np.random.default_rng(0).normal(size=(30, 2))
    points = GraphItems(x, np.full(10, 3))
    source = GraphSource("points", {"train": points, "validation": points})
    first, second = (source.read("train", torch.tensor(numbers)) for numbers in ([0, 4], [7, 7]))
    assert first.structure is second.structure
    torch.testing.assert_close(second.x, torch.tensor(np.concatenate([x[21:24], x[21:24]])))


def test_edges_between_all_nodes_are_complete_graphs() -> None:
    whole = GraphBatch.complete([2, 3])
    items = GraphItems(np.zeros((5, 1)) + 0.5, [2, 3], whole.edge_index.flip(1))
    read = GraphSource("graphs", {"train": items, "validation": items}).read_all("train")
    assert read.structure is not None
    assert read.structure.is_complete


def test_facts_of_graphs_and_of_parts_of_them() -> None:
    source = source_of()
    facts = source.facts()
    assert (facts.kind, facts.event_shape, facts.classes, facts.items) == ("graph", (2,), 3, "graphs")
    assert facts.graphs is not None
    assert (facts.graphs.sizes, facts.graphs.complete, facts.graphs.weighted) == (
        {1: 1, 2: 1, 3: 1, 4: 1},
        False,
        False,
    )
    assert type(facts)(**facts.model_dump(mode="json")) == facts
    some = subset(source, train=2)
    assert some.facts().graphs.sizes == dict.fromkeys(sorted(some.node_counts("train").tolist()), 1)
    heavy = weighted(source, train=np.arange(4))
    assert heavy.facts().graphs == facts.graphs
    assert heavy.read("train", torch.tensor([3])).weights.tolist() == [2.0]
    assert matched(source, facts) is source
    assert len({source_of(edges).fingerprint() for edges in ("complete", "given", "weighted")}) == 3
    assert source_of().fingerprint() == source.fingerprint()


def test_sources_of_other_items_have_no_numbers_of_nodes() -> None:
    rows: Source = as_source(np.random.default_rng(0).normal(size=(20, 2)))
    assert rows.node_counts("train") is None
    assert rows.facts().graphs is None


def test_graphs_are_cut_into_splits_as_wholes() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 5, 20)
    x = np.repeat(np.arange(20.0), sizes)[:, None]
    source = graph_source(GraphItems(x, sizes, labels=np.arange(20) % 2))
    assert [source.size(split) for split in ("train", "validation", "test")] == [16, 2, 2]
    seen = []
    for split in ("train", "validation", "test"):
        batch = source.read_all(split)
        assert batch.structure is not None
        graphs = [part.unique().tolist() for part in batch.x.flatten().split(batch.structure.sizes.tolist())]
        assert batch.labels.tolist() == [graph % 2 for [graph] in graphs]
        assert [sizes[int(graph)] for [graph] in graphs] == batch.structure.sizes.tolist()
        seen += [graph for [graph] in graphs]
    assert sorted(seen) == list(range(20))
    with pytest.raises(DataError, match="1 graph, and at least 10 are needed"):
        graph_source(GraphItems(x, [len(x)]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"x": np.zeros((10, 2), int)}, "measurements that happen to be whole"),
        ({"x": np.zeros((9, 2)), "sizes": [3, 0, 4, 2, 1]}, r"graph 1 has 0 nodes.*add up to 10 nodes.*features of 9"),
        ({"x": np.full((10, 2), np.nan)}, "the value is nan"),
        ({"edges": np.array([[0], [3]])}, "node 0 of graph 0 to node 3 of graph 1"),
        ({"edges": np.array([[0, 1]])}, "integers of shape"),
        ({"edges": np.array([[0, 1, 2], [1, 2, 1]])}, "1 edges go in one direction only.*node 0 to node 1"),
        ({"edges": np.array([[0, 1, 0], [1, 0, 1]])}, "more than once"),
        ({"edges": np.array([[0, 10], [10, 0]])}, "nodes 0 to 9"),
        ({"edges": np.array([[0, 1], [1, 0]]), "edge_weight": [1.0, 2.0]}, "weighs differently"),
        ({"edges": np.array([[0, 1], [1, 0]]), "edge_weight": [-1.0, -1.0]}, "none below 0"),
        ({"edge_weight": [1.0]}, "no edges"),
        ({"labels": [0, 1]}, "Labels must be classes"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict, said: str) -> None:
    given = {"x": np.random.default_rng(0).normal(size=(10, 2)), "sizes": SIZES} | changes
    fine = made()
    with pytest.raises(DataError, match=said):
        GraphSource("graphs", {"train": GraphItems(**given), "validation": fine})


def test_edges_of_batches_are_known_to_be_in_pairs():
    """In any order of the file: each batch has them sorted, also with a graph that is read twice."""
    edges = np.array([[4, 0, 3, 1, 2, 1, 5, 3], [3, 1, 4, 0, 1, 2, 3, 5]])
    weight = np.array([4.0, 1, 4, 1, 2, 2, 3, 3])
    items = GraphItems(np.zeros((6, 1)), [3, 3], edges=edges, edge_weight=weight)
    source = GraphSource("pairs", {"train": items, "validation": items})
    graph = source.read("train", torch.tensor([1, 0, 1])).structure
    assert graph.in_pairs
    again = GraphBatch(graph.sizes, graph.edge_index, graph.edge_weight).undirected()
    assert torch.equal(again.edge_index, graph.edge_index)
    assert torch.equal(again.edge_weight, graph.edge_weight)


def test_positions_that_were_centred_and_then_rounded_are_centred():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 5, 3))
    x -= x.mean(1, keepdims=True)
    sizes = torch.full((40,), 5)
    for digits in (6, 4):
        assert bool(centred_features(torch.tensor(x.round(digits).reshape(-1, 3)), sizes).all())
    assert not bool(centred_features(torch.tensor(x.round(1).reshape(-1, 3)), sizes).any())


def test_the_graph_of_an_edge_counts_in_the_fingerprint():
    x = np.arange(8.0).reshape(4, 2)
    one, other = (
        GraphSource("g", {split: GraphItems(x, [2, 2], edges) for split in ("train", "validation", "test")})
        for edges in (np.array([[0, 1], [1, 0]]), np.array([[2, 3], [3, 2]]))
    )
    assert one.fingerprint() != other.fingerprint()
