"""Places in the plane for the nodes of a graph, by its edges alone."""

from __future__ import annotations

import math

import numpy as np

# Nodes up to which places follow the edges; the time grows with their third power.
MOST_PLACED = 300
# Rounds of its improvement, and how far nodes must move in one, in edges, for another to pay.
ROUNDS, MOVES = 200, 1e-3


def graph_layout(nodes: int, edges: np.ndarray) -> np.ndarray:
    r"""Return places of nodes whose distances in the plane are near their distances in the graph, `(nodes, 2)`.

    The start is spectral: classical scaling, `X = V \Lambda^{1/2}` of the two largest eigenvalues of `-J D^2 J / 2`,
    where `D` counts the edges on the shortest way between two nodes and `J` takes means away. It is then improved by
    stress majorization, each round of which lowers `sum_ij (|x_i - x_j| - d_ij)^2 / d_ij^2`. Parts that no edge joins
    lie one step further apart than the longest way within one. The result has mean zero, its longest extent is
    horizontal, and nothing is random. Graphs of more than 300 nodes lie on a circle.

    Args:
        nodes: how many there are.
        edges: between them, integers `(2, edges)`; their direction does not count.

    Source:
        Torgerson 1952 for the start; Gansner, Koren and North 2004, "Graph drawing by stress majorization".

    Example:
        >>> places = graph_layout(3, np.array([[0, 1], [1, 2]]))
        >>> np.abs(places).round(1).tolist()
        [[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]
    """
    turn = 2 * math.pi * np.arange(nodes) / max(nodes, 1)
    circle = np.stack([np.cos(turn), np.sin(turn)], 1)
    if nodes > MOST_PLACED or nodes < 2:
        return circle * (nodes > 1)
    hops = _hops(nodes, edges)
    # Nodes that nothing tells apart would fall on one place, from which no round takes them away.
    return _turned(_settled(_spectral(hops) + 0.05 * circle, hops))


def _hops(nodes: int, edges: np.ndarray) -> np.ndarray:
    """Return the number of edges on the shortest way between each two nodes."""
    joined = np.zeros((nodes, nodes))
    joined[edges[0], edges[1]] = joined[edges[1], edges[0]] = 1
    reached, hops, step = np.eye(nodes) > 0, np.zeros((nodes, nodes)), 0
    while True:
        further = (reached @ joined > 0) & ~reached
        if not further.any():
            break
        step += 1
        hops[further] = step
        reached |= further
    hops[~reached] = step + 1
    return hops


def _spectral(hops: np.ndarray) -> np.ndarray:
    squares = hops**2
    centred = squares - squares.mean(0) - squares.mean(1, keepdims=True) + squares.mean()
    values, vectors = np.linalg.eigh(-centred / 2)
    places = vectors[:, -2:] * np.sqrt(np.maximum(values[-2:], 0))
    return places if places.shape[1] == 2 else np.pad(places, ((0, 0), (0, 1)))


def _settled(places: np.ndarray, hops: np.ndarray) -> np.ndarray:
    apart = ~np.eye(len(hops), dtype=bool)
    weight = np.divide(1, hops**2, out=np.zeros_like(hops), where=apart)
    inverse = np.linalg.pinv(np.diag(weight.sum(1)) - weight)
    for _ in range(ROUNDS):
        far = np.linalg.norm(places[:, None] - places[None], axis=2)
        pull = np.divide(weight * hops, far, out=np.zeros_like(far), where=far > 1e-9)
        before, places = places, inverse @ ((np.diag(pull.sum(1)) - pull) @ places)
        if np.abs(places - before).max() < MOVES:
            break
    return places


def _turned(places: np.ndarray) -> np.ndarray:
    """Return places with mean zero, their longest extent horizontal, its heavier end on the right."""
    places = places - places.mean(0)
    places = places @ np.linalg.svd(places, full_matrices=False)[2].T
    signs = np.sign((places**3).sum(0).round(9))
    return places * np.where(signs == 0, 1, signs)
