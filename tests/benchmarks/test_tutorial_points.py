"""The machinery behind the tutorial on point patterns, on few stands and steps."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import likelify as lk
from benchmarks import tutorial_points as points

PAGE = Path(__file__).parents[2] / "docs/tutorials/points.md"


def test_the_constant_of_two_trees_is_that_of_the_integral():
    value, error = points.log_constant(2, 5)
    known = math.log(1 - points.REACH**2 / (points.REACH**2 + 4 * points.SPREAD**2))
    assert value == pytest.approx(known, abs=4 * error)
    assert error < 0.01


def test_the_true_density_has_mass_one_and_is_that_of_the_stands():
    rng = np.random.default_rng(0)
    places = [points.SPREAD * rng.normal(size=(5, 2)) for _ in range(2000)]
    normal = torch.distributions.Normal(0.0, points.SPREAD)
    proposal = np.array([float(normal.log_prob(torch.from_numpy(x)).sum()) for x in places])
    weights = np.exp(points.true_log_prob(places, 5) - proposal)
    assert weights.mean() == pytest.approx(1, abs=4 * weights.std() / 2000**0.5)
    # Importance weights give the mean of anything: here of the smallest distance.
    distance = points.smallest_distance(places)
    drawn = points.smallest_distance(list(points.stands_of(5, 2000, rng)))
    assert drawn.mean() == pytest.approx((weights * distance).mean() / weights.mean(), rel=0.05)


def test_stands_have_all_sizes_and_a_table():
    some = points.stands(40, seed=0)
    assert {len(x) for x in some} == set(range(points.FEWEST, points.MOST + 1))
    source = points.as_source(some)
    assert source.columns == ("east", "north")
    assert points.as_batch(some).structure.is_complete


def test_a_table_of_stands_is_a_source_of_graphs(tmp_path):
    some = points.stands(20, seed=0)
    points.write(some, tmp_path / "trees.csv")
    lines = (tmp_path / "trees.csv").read_text().splitlines()
    assert lines[0] == "graph,node,east,north"
    assert len(lines) == 1 + sum(map(len, some))


def area(score, some, others):
    return float(points.Placements.of(torch.from_numpy(score(some)), torch.from_numpy(score(others))).known.mean())


def test_spoilt_stands_keep_their_sizes_and_the_truth_tells_them():
    some = points.stands(60, seed=0)
    truth = points.per_tree(lambda stands: points.true_log_prob(stands, 2))
    ratio = points.less(truth, points.per_tree(points.alone(points.as_source(some))))
    wrong = {how: points.spoilt(some, how, seed=1) for how in points._SPOILING}
    for stands in wrong.values():
        assert [len(x) for x in stands] == [len(x) for x in some]
    assert area(truth, some, wrong[points.FAR]) > 0.8
    # What a single tree hides, the ratio to trees that do not see one another shows.
    assert area(ratio, some, wrong[points.DOUBLE]) > 0.9
    assert area(ratio, some, wrong[points.NO_RULE]) > area(truth, some, wrong[points.NO_RULE]) + 0.1
    # Trees in rows are not told by a low density: theirs is a high one.
    assert area(truth, some, wrong[points.ROWS]) < 0.2
    mixed, odd = points.with_odd(some, seed=0)
    assert len(odd) == 1
    assert [at for at, (a, b) in enumerate(zip(mixed, some, strict=True)) if not np.array_equal(a, b)] == sorted(odd)


def test_the_tree_that_was_entered_twice_gains_most_elsewhere():
    some = points.stands(20, seed=0)
    places = np.concatenate(points.stands(10, seed=3))
    found = points.Found({points.TRUTH: lambda stands: points.true_log_prob(stands, 2)}, {})
    right = [
        np.argmax(points.gains(found.scores[points.TRUTH], x, places)) < 2
        for x in points.spoilt(some, points.DOUBLE, seed=1)
    ]
    assert np.mean(right) > 0.8


def test_all_figures_of_a_tiny_fit_fill_the_page(tmp_path, monkeypatch):
    source, new = points.as_source(points.stands(60, seed=0)), points.stands(20, seed=1)
    with lk.seeded(0):
        flow = lk.Flow(lk.Normal((2,)), lk.Chain([lk.transforms.Columns(2), lk.graph_exponential(2)]))
    lk.fit(flow, source, steps=3)
    monkeypatch.setattr(points, "fitted", lambda *_: flow)
    found = points.prepared(source, 1.0, 0, 1)
    samples = {name: points.drawn(flow, new, 0) for name, flow in found.flows.items()}
    assert [len(x) for x in samples[points.MODELS[0]]] == [len(x) for x in new]
    entries = points.means([points.measured(found, new, samples, new[0], 2)] * 2)
    values = {entry.name: entry.value for entry in entries}
    assert values[f"{points.ALONE}, below the truth"] > 0
    page, written = PAGE.read_text(), {**points.tables(values, 1.0, 1), **points.shown_pictures()}
    text = points.filled(page, written)
    assert all(part in text for part in written.values())
    assert "nan" not in text
    assert text.count("<!--") == page.count("<!--") == 2 * len(written)
    assert points.filled(text, written) == text
    monkeypatch.setattr(points, "ODD", 0.5)
    points.draw(found, [*new, *new], samples[points.MODELS[0]], tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {file for file, _ in points.PICTURES.values()}
