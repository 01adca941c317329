import pytest
import torch

import likelify as lk
from likelify.errors import ShapeError, UnsupportedError
from likelify.structure import as_context, join_condition, sum_constant, sum_items

NO_EDGES = torch.empty(2, 0, dtype=torch.long)


def test_sums_over_items_and_over_graphs():
    x = torch.arange(12.0).reshape(3, 2, 2)
    assert sum_items(x).tolist() == [6.0, 22.0, 38.0]
    graphs = lk.GraphBatch(sizes=torch.tensor([1, 0, 2]), edge_index=NO_EDGES)
    assert sum_items(x, lk.Context(structure=graphs)).tolist() == [6.0, 0.0, 60.0]
    assert sum_constant(torch.tensor(2.0), x, lk.Context(structure=graphs)).tolist() == [2.0, 0.0, 4.0]


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


def test_seeded_repeats_draws_and_restores_the_generator():
    state = torch.get_rng_state()
    with lk.seeded(7):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), state)
    with lk.seeded(7):
        assert torch.equal(torch.rand(3), first)
    with lk.seeded(8):
        assert not torch.equal(torch.rand(3), first)
