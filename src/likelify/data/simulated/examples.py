"""Graphs that other packages bring along: small graphs and a karate club of networkx, digits of scikit-learn as points.

Nodes of `atlas` and `karate` have no features of their own. Theirs are made of the graph: the degree and the number of
triangles, both with uniform noise on [0, 1) added, which makes numbers of whole numbers (dequantization). A model is of
these two given the edges, and since they follow from the edges, the density that they have is known: it is 1 on a unit
square for each node, so that the best log-density is 0. How far a model is below says what it does not see of a graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from likelify.data.facts import SPLITS, SplitName
from likelify.data.graphs import GraphItems, GraphSource, graph_source
from likelify.data.images import digits
from likelify.errors import needs

if TYPE_CHECKING:
    import networkx

COUNTED = ("degree", "triangles")
# Points of a digit.
POINTS = 40


def atlas() -> GraphSource:
    """Return all graphs of one to seven nodes up to the names of nodes, 1,252 in number, of networkx's atlas.

    Features are degree and triangles with noise; see the module. Graphs that consist of several parts are among them.

    Raises:
        MissingDependencyError: without networkx.
    """
    networkx = _networkx()
    # The first has no nodes.
    graphs = networkx.graph_atlas_g()[1:]
    return graph_source(
        _counted(graphs),
        name="atlas",
        columns=COUNTED,
        description="networkx's atlas of the graphs with 1 to 7 nodes; of each node degree and triangles, with uniform "
        "noise on [0, 1) added",
    )


def karate() -> GraphSource:
    """Return the circles of the 34 members of Zachary's karate club: each with friends, and who of them are friends.

    A graph is what networkx calls an ego graph. Features are degree and triangles within it, with noise; see the
    module. Its class is the side that the member took when the club split. Circles overlap, so that those held out are
    not independent of the others.

    Raises:
        MissingDependencyError: without networkx.
    """
    networkx = _networkx()
    club = networkx.karate_club_graph()
    circles = [networkx.ego_graph(club, member) for member in club]
    sides = sorted({side for _, side in club.nodes(data="club")})
    labels = np.array([sides.index(side) for _, side in club.nodes(data="club")])
    return graph_source(
        _counted(circles, labels),
        name="karate",
        columns=COUNTED,
        class_names=sides,
        description="the circles of the members of Zachary's karate club (networkx); of each node degree and triangles "
        "within the circle, with uniform noise on [0, 1) added",
    )


def _counted(graphs: Sequence[networkx.Graph], labels: np.ndarray | None = None) -> GraphItems:
    """Return graphs whose nodes have degree and triangles as features, with noise by `default_rng(0)`."""
    networkx = _networkx()
    counts, edges, first = [], [np.empty((0, 2), np.int64)], 0
    for graph in graphs:
        degrees, triangles = dict(graph.degree), networkx.triangles(graph)
        counts += [(degrees[node], triangles[node]) for node in graph]
        places = {node: first + place for place, node in enumerate(graph)}
        edges += [np.array([[places[start], places[end]]]) for start, end in graph.edges()]
        first += len(graph)
    one_way = np.concatenate(edges).T
    return GraphItems(
        np.array(counts) + np.random.default_rng(0).random((first, 2)),
        np.array([len(graph) for graph in graphs]),
        np.concatenate([one_way, one_way[::-1]], 1),
        labels=labels,
    )


def digit_points() -> GraphSource:
    """Return scikit-learn's digits as sets of 40 points each: complete graphs with coordinates as features.

    A point is in a pixel of the image with a probability in proportion to its grey value, and uniform within it, by
    `default_rng(0)`. Coordinates go from 0 to 8, to the right and upwards. Splits and classes are those of `digits`.

    Raises:
        MissingDependencyError: without scikit-learn.
    """
    source, rng = digits(), np.random.default_rng(0)
    splits: dict[SplitName, GraphItems] = {}
    for split in SPLITS:
        batch = source.read_all(split)
        grey = batch.x.numpy().reshape(len(batch), -1).astype(np.float64)
        sums = grey.cumsum(1)
        drawn = rng.random((len(grey), POINTS)) * sums[:, -1:]
        pixels = (drawn[:, :, None] >= sums[:, None]).sum(2)
        rows, columns = np.divmod(pixels, 8)
        points = np.stack([columns, 7 - rows], -1) + rng.random((*pixels.shape, 2))
        labels = None if batch.labels is None else batch.labels.numpy()
        splits[split] = GraphItems(points.reshape(-1, 2), np.full(len(grey), POINTS), labels=labels)
    sizes = " / ".join(str(source.size(split)) for split in SPLITS)
    described = f"scikit-learn's handwritten digits as sets of {POINTS} points, drawn by their grey values; {sizes}"
    return GraphSource("digit-points", splits, columns=("x", "y"), classes=10, description=described)


def _networkx() -> Any:
    with needs("networkx", "graphs"):
        import networkx
    return networkx
