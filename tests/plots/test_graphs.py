"""Pictures of graphs: nodes lie where their features or their edges say, in one scale for all panels."""

import numpy as np
import pytest
import torch

import likelify as lk
from likelify.errors import ConfigError, ShapeError
from likelify.plots import GraphPanel, View, draw_graphs, graph_layout, graph_panels, graphs_of, png_of, svg_of
from likelify.plots.files import new_figure
from likelify.plots.graphs import seen

RNG = np.random.default_rng(0)


def sets(count=6, nodes=5, features=2):
    structure = lk.GraphBatch.complete([nodes] * count)
    return graph_panels(RNG.normal(size=(count * nodes, features)), structure)


def test_a_batch_is_taken_apart():
    structure = lk.GraphBatch(torch.tensor([2, 3]), torch.tensor([[0, 1, 2, 4], [1, 0, 4, 2]]))
    x = torch.arange(10.0).reshape(5, 2)
    first, second = graph_panels(x, structure, ["a", "b"])
    assert (first.title, second.title) == ("a", "b")
    assert second.features.tolist() == x[2:].tolist()
    assert second.edges.tolist() == [[0, 2], [2, 0]]
    assert graph_panels(x, lk.GraphBatch.complete([2, 3]))[0].edges is None
    with pytest.raises(ShapeError, match="4 nodes and 0 titles; the batch has 5 nodes in 2 graphs"):
        graph_panels(x[:4], structure)


def test_points_lie_where_their_features_say_and_outliers_at_the_edge():
    panels = [GraphPanel(np.array([[0.0, 0.0], [4.0, 2.0], [2.0, 1.0]]))]
    view = View.of(panels, ("a", "b"))
    nodes = view.nodes(panels[0])
    # One scale: a distance looks alike along both axes.
    wide = view.high - view.low
    assert wide[0] == pytest.approx(wide[1])
    np.testing.assert_allclose(nodes.places * wide + view.low, panels[0].features, atol=1e-12)
    assert not nodes.outside.any()
    far = view.nodes(GraphPanel(np.array([[100.0, 1.0], [np.inf, np.nan], [2.0, 1.0]])))
    assert far.outside.tolist() == [True, True, False]
    assert far.places[0, 0] == 1
    assert bool(((far.places >= 0) & (far.places <= 1)).all())
    assert "a -0.32 to 4.32" in view.words


def test_a_few_far_points_do_not_decide_the_limits():
    points = RNG.normal(size=(500, 2))
    far = np.concatenate([points, [[1e6, 0.0]]])
    limits = [View.of([GraphPanel(each)]).high for each in (points, far)]
    np.testing.assert_allclose(limits[0], limits[1], rtol=0.3)
    # Where features are not comparable each has its own scale.
    view = View.of([GraphPanel(points * [1, 1000])])
    assert (view.high - view.low)[1] > 100 * (view.high - view.low)[0]


def test_points_of_space_are_seen_in_the_square_near_ones_as_such():
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=float)
    places, near = seen(corners)
    assert places.min() == pytest.approx(0, abs=0.05)
    assert places.max() == pytest.approx(1, abs=0.05)
    # A point that is higher is seen higher; rotations keep distances within the plane of sight.
    assert (places[1::2, 1] > places[::2, 1]).all()
    assert near.max() - near.min() > 0.7
    view = View.of(sets(features=3))
    assert view.kind == "space"


@pytest.mark.parametrize(
    ("features", "edges", "kind"),
    [(1, False, "line"), (2, False, "plane"), (10, False, "directions"), (1, True, "layout"), (4, True, "layout")],
)
def test_every_number_of_features_has_a_picture(features, edges, kind):
    ring = np.array([[0, 1, 2, 3], [1, 2, 3, 0]]) if edges else None
    panels = [GraphPanel(RNG.normal(size=(4, features)), ring, f"{number} $x_1$") for number in range(3)]
    view = View.of(panels)
    assert view.kind == kind
    figure = graphs_of({"samples": panels, "data": panels[:2]})
    assert png_of(figure).startswith(b"\x89PNG")
    assert svg_of(figure) == svg_of(figure)


def test_features_that_are_called_so_are_places_among_others():
    rows = RNG.normal(size=(30, 5))
    view = View.of([GraphPanel(rows)], ("Y", "x", "mass", "z", "charge"))
    assert (view.kind, view.shown) == ("space", ("x", "Y", "z"))
    moved = rows + [0, 0, 5, 0, -3]
    assert np.array_equal(view.nodes(GraphPanel(moved)).places, view.nodes(GraphPanel(rows)).places)
    assert View.of([GraphPanel(rows)], ("x", "y", "a", "b", "c")).kind == "plane"
    assert View.of([GraphPanel(rows)], ("x1", "x2", "a", "b", "c")).kind == "directions"


def test_the_main_directions_of_features_are_shown_without_their_units():
    long = RNG.normal(size=(3000, 1))
    rows = np.concatenate([long, 1000 * long, 1e-3 * RNG.normal(size=(3000, 3))], 1)
    nodes = View.of([GraphPanel(rows)]).nodes(GraphPanel(rows))
    assert nodes.outside.mean() < 0.02
    assert abs(np.corrcoef(nodes.places[~nodes.outside, 0], long[~nodes.outside, 0])[0, 1]) > 0.99


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(ConfigError, match="1 to 400 graphs in a group, not 401"):
        graphs_of({"": sets(1) * 401})
    with pytest.raises(ConfigError, match="not none"):
        graphs_of({"a": []})
    with pytest.raises(ShapeError, match="1 names of 2 features"):
        View.of(sets(), ["x"])
    with pytest.raises(ShapeError, match="no nodes"):
        View.of([GraphPanel(np.empty((0, 2)))])


def test_a_path_is_a_line_and_a_ring_is_round():
    path = graph_layout(5, np.array([[0, 1, 2, 3], [1, 2, 3, 4]]))
    np.testing.assert_allclose(np.abs(np.diff(path[:, 0])), 1, atol=0.05)
    assert np.abs(path[:, 1]).max() < 0.1
    ring = graph_layout(8, np.array([np.arange(8), (np.arange(8) + 1) % 8]))
    radius = np.linalg.norm(ring, axis=1)
    assert radius.min() > 0.95 * radius.max()
    assert np.array_equal(ring, graph_layout(8, np.array([np.arange(8), (np.arange(8) + 1) % 8])))


@pytest.mark.parametrize("nodes", [1, 2, 5, 301])
def test_any_graph_has_places_that_differ(nodes):
    every = np.stack(np.triu_indices(nodes, 1))
    for edges in (np.empty((2, 0), int), every[:, :1], every[:, : 10 * nodes]):
        places = graph_layout(nodes, edges)
        apart = np.linalg.norm(places[:, None] - places[None], axis=2) + np.eye(nodes)
        assert places.shape == (nodes, 2)
        assert apart.min() > 1e-3


def test_a_layout_of_ones_own_takes_the_place_of_features():
    panels = [GraphPanel(np.zeros((3, 2)), np.array([[0, 1], [1, 2]]))]
    view = View.of(panels, layout=lambda nodes, edges: np.stack([np.arange(nodes), edges.sum() + np.zeros(nodes)], 1))
    places = view.nodes(panels[0]).places
    np.testing.assert_allclose(np.diff(places[:, 0]), np.diff(places[:, 0])[0])
    axes = new_figure(2, 2).subplots()
    draw_graphs(axes, panels, view)
    assert len(axes.collections) == 3


@pytest.mark.parametrize(
    "features", [np.ones((1, 4)), np.full((3, 5), np.nan), np.array([[0.0, 1, 2, 3], [np.nan, 0, 0, 0]])]
)
def test_few_finite_nodes_of_many_features_are_drawn(features):
    assert png_of(graphs_of({"": [GraphPanel(features)]}))


def test_graphs_without_nodes_and_nodes_that_are_no_numbers_are_drawn():
    edges = np.array([[0, 1], [1, 2]])
    panels = [GraphPanel(np.zeros((0, 1)), np.zeros((2, 0), int)), GraphPanel(np.array([[0.0], [1], [np.nan]]), edges)]
    view = View.of(panels)
    assert view.kind == "layout"
    assert view.nodes(panels[1]).outside.tolist() == [False, False, True]
    assert png_of(graphs_of({"": panels}, view=view))


def test_the_ends_of_a_scale_are_told_apart_and_fit_below_the_panels():
    rng = np.random.default_rng(0)
    places = np.stack([500_000 + rng.random(40), 5_650_000 + 2 * rng.random(40)], 1)
    names = ("east of a very far away meridian in metres", "north of the equator, in metres as well")
    view = View.of([GraphPanel(places)], names)
    low, high = (float(word) for word in view.words.split("metres")[1].split(",")[0].split(" to "))
    assert 0.9 < high - low < 2.5
    figure = graphs_of({"": [GraphPanel(places)]}, view=view)
    (words,) = (text for text in figure.texts if "metres" in text.get_text())
    figure.canvas.draw()
    box = words.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


def test_a_point_set_that_lies_outside_of_its_view_is_drawn_in_three_dimensions():
    numbers = np.random.default_rng(0)
    view = View.of([GraphPanel(numbers.normal(size=(8, 3))) for _ in range(50)])
    far = GraphPanel(numbers.normal(size=(8, 3)) + np.array([30.0, 0.0, 0.0]))
    axes = new_figure(2, 2).subplots()
    draw_graphs(axes, [far], view)
    assert any(len(collection.get_offsets()) == 8 for collection in axes.collections)
