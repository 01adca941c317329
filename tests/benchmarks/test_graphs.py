"""The benchmarks of graphs, on small ones."""

import math

import pytest
import torch
from benchmarks.exponential_graphs import random_graph

from benchmarks import graph_scale
from likelify import seeded


def test_a_large_graph_is_measured_in_phases():
    with seeded(0):
        found = graph_scale.measure(200, 1000)
    assert 900 < found["edges"] <= 1000
    assert {name.split(", ")[1] for name in found if ", " in name} == {"seconds", "bytes"}
    # A process that is warm needs no more memory.
    found = {name: value or 1.0 for name, value in found.items()}
    entries = graph_scale.entries(1000, 5000, lambda nodes, edges: found)
    by_name = {entry.name: entry.value for entry in entries}
    assert by_name["bytes per edge, over those of a tenth of the graph"] == 1.0


@pytest.mark.slow
def test_kernels_are_within_their_bounds_and_rivals_have_the_fewest_terms():
    pytest.importorskip("torch_geometric")
    from benchmarks import graph_kernels

    graph = random_graph(60, 4)
    found = graph_kernels.heat_entries("tiny", graph, 2, 1) + graph_kernels.page_rank_entries("tiny", graph, 2, 1)
    over = [entry.value for entry in found if "over the bound" in entry.name]
    assert len(over) == 3
    assert max(over) <= 1

    def halved(terms):
        return lambda x: x * (1 + 0.5**terms)

    unit = graph_kernels.unit_features(5, 2)
    for error in (0.3, 1e-3, 1e-6):
        assert graph_kernels.fewest(halved, unit, unit, error) == math.ceil(-math.log2(error))
    assert graph_kernels.relative(unit + torch.eye(5)[:, :2], unit) == pytest.approx(1.0)
