import math

import numpy as np
import pytest
import torch

from likelify.data import entropy, open_source, true_log_prob
from likelify.data.simulated import patterns as module
from likelify.data.simulated.patterns import PROCESSES, matern, patterns, poisson, thomas
from likelify.errors import DataError


def nearest(points):
    apart = np.sqrt(((points[:, None] - points) ** 2).sum(-1))
    return (apart + np.eye(len(points)) * 9).min(1)


def several(draw, count=1500):
    rng = np.random.default_rng(5)
    return [draw(rng) for _ in range(count)]


@pytest.mark.parametrize(
    ("draw", "intensity"),
    [
        (poisson, module.POINTS),
        (thomas, module.PARENTS * module.CHILDREN),
        (matern, (1 - math.exp(-module.CANDIDATES * math.pi * module.APART**2)) / (math.pi * module.APART**2)),
    ],
    ids=["poisson", "thomas", "matern"],
)
def test_processes_have_their_intensity_everywhere_in_the_square(draw, intensity):
    drawn = several(draw)
    counts = np.array([len(points) for points in drawn])
    assert abs(counts.mean() - intensity) < 4 * counts.std() / math.sqrt(len(counts))
    points = np.concatenate(drawn)
    assert points.min() >= 0
    assert points.max() < 1
    # Of a strip at the border as of one in the middle: nothing is lost at the edges.
    shares = [((points[:, 0] >= low) & (points[:, 0] < low + 0.1)).mean() for low in (0.0, 0.45)]
    assert np.abs(np.array(shares) - 0.1).max() < 0.012


def test_counts_are_even_dispersed_or_regular():
    variance = {draw: np.var([len(points) for points in several(draw)]) for draw in (poisson, thomas, matern)}
    assert 16 < variance[poisson] < 24
    assert variance[thomas] > 60
    assert variance[matern] < 12


def test_points_of_matern_keep_their_distance_and_those_of_thomas_do_not():
    assert min(nearest(points).min() for points in several(matern, 200) if len(points) > 1) >= module.APART
    close, even = (np.concatenate([nearest(p) for p in several(d, 200) if len(p) > 1]) for d in (thomas, poisson))
    assert np.median(close) < 0.5 * np.median(even)


@pytest.mark.parametrize("name", PROCESSES)
def test_patterns_are_complete_graphs_of_many_sizes(name, monkeypatch):
    monkeypatch.setattr(module, "COUNTS", {"train": 60, "validation": 20, "test": 20})
    source = open_source(name)
    assert source.fingerprint() == patterns(name).fingerprint()
    assert source.fingerprint() != patterns(name, seed=1).fingerprint()
    assert source.graphs.complete
    assert len(source.graphs.sizes) > 5
    batch = source.read("train", torch.arange(3))
    assert batch.structure.is_complete
    assert batch.x.shape == (int(batch.structure.sizes.sum()), 2)
    assert min(source.node_counts("test")) >= 1


def test_a_pattern_without_points_is_drawn_again():
    drawn = iter([np.empty((0, 2)), np.ones((1, 2))])
    assert module._some(lambda rng: next(drawn), np.random.default_rng(0)).shape == (1, 2)
    with pytest.raises(DataError, match="Did you mean 'points-poisson'"):
        patterns("points-poison")


def test_the_density_of_independent_points_is_one_in_the_square():
    x, sizes = torch.tensor([[0.2, 0.3], [0.5, 0.5], [1.2, 0.5]]), torch.tensor([2, 1])
    assert true_log_prob("points-poisson", x, sizes).tolist() == [0.0, -math.inf]
    assert true_log_prob("points-poisson", x[None]).tolist() == [-math.inf]
    assert true_log_prob("points-poisson", torch.tensor([[[math.nan, 0.5]]])).tolist() == [-math.inf]
    assert entropy("points-poisson") == 0.0
    with pytest.raises(DataError, match="sizes= that add up to them"):
        true_log_prob("points-poisson", x)
    with pytest.raises(DataError, match="sizes= that add up to them"):
        true_log_prob("points-poisson", x, torch.tensor([2, 2]))
