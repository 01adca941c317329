import sys

import numpy as np
import pytest
import torch

from likelify.data import open_source
from likelify.data.simulated.examples import POINTS
from likelify.errors import MissingDependencyError


def test_the_atlas_holds_every_small_graph_with_counts_that_its_edges_tell():
    source = open_source("atlas")
    assert sum(source.size(split) for split in ("train", "validation", "test")) == 1252
    assert source.graphs.nodes == (1, 7)
    assert source.columns == ("degree", "triangles")
    batch = source.read_all("test")
    start, end = batch.structure.edge_index
    nodes = len(batch.x)
    assert torch.equal(batch.x[:, 0].floor().long(), torch.bincount(start, minlength=nodes))
    adjacency = torch.zeros(nodes, nodes, dtype=torch.float64)
    adjacency[start, end] = 1
    triangles = (adjacency @ adjacency @ adjacency).diagonal() / 2
    assert torch.equal(batch.x[:, 1].floor(), triangles)
    noise = source.read_all("train").x % 1
    assert float((noise.mean(0) - 0.5).abs().max()) < 0.02
    assert float((noise.var(0) - 1 / 12).abs().max()) < 0.005


def test_the_karate_club_is_34_circles_of_two_sides():
    source = open_source("karate")
    assert [source.size(split) for split in ("train", "validation", "test")] == [28, 3, 3]
    assert source.class_names == ("Mr. Hi", "Officer")
    batches = [source.read_all(split) for split in ("train", "validation", "test")]
    labels, sizes = (torch.cat([get(b) for b in batches]) for get in (lambda b: b.labels, lambda b: b.structure.sizes))
    assert torch.bincount(labels).tolist() == [17, 17]
    # The president has 17 friends, the instructor 16, and everybody is in the own circle.
    assert sorted(sizes.tolist())[-2:] == [17, 18]
    assert int(sizes.sum()) == 34 + 2 * 78


def test_digits_are_drawn_by_their_grey_values():
    source, images = open_source("digit-points"), open_source("digits")
    batch, image = source.read_all("test"), images.read_all("test")
    assert batch.structure.is_complete
    assert torch.equal(batch.labels, image.labels)
    points = batch.x.reshape(-1, POINTS, 2)
    column, row = points[..., 0].floor().long(), 7 - points[..., 1].floor().long()
    grey = image.x[:, 0].double()
    item = torch.arange(len(grey))[:, None].expand_as(row)
    assert (grey[item, row, column] > 0).all(), "no point is in a black pixel"
    counts = torch.zeros_like(grey)
    counts.index_put_((item, row, column), torch.ones(1, dtype=torch.float64), accumulate=True)
    share = grey / grey.sum((1, 2), keepdim=True)
    assert np.corrcoef(counts.sum(0).ravel(), share.sum(0).ravel())[0, 1] > 0.995
    assert float((points % 1 - 0.5).mean().abs()) < 0.01


def test_networkx_is_asked_for_by_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(MissingDependencyError, match=r"likelify\[graphs\]"):
        open_source("atlas")
