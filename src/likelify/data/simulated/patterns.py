r"""Spatial point patterns in the unit square: `points-poisson`, `points-thomas`, `points-matern`.

A pattern is a graph whose nodes are its points, complete, with the coordinates as features; patterns have different
numbers of points. Models are of the coordinates given how many there are. The processes are the textbook's (Illian et
al., "Statistical analysis and modelling of spatial point patterns", 2008):

- Poisson: independent points, uniform in the square; their number is Poisson's. The log-density of the points of a
  pattern, given their number, is exactly 0.
- Thomas: parents are a Poisson process on the square and around it, each has a Poisson number of children, normal
  around it; the pattern is the children in the square.
- Matérn's hard core (his second): points of a Poisson process on the square and around it get random ages, and those
  that have an older one within a distance are taken away, all at once. The pattern is what is left in the square.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from likelify.data.facts import SplitName
from likelify.data.graphs import GraphItems, GraphSource
from likelify.errors import DataError, unknown_word

COUNTS: dict[SplitName, int] = {"train": 8000, "validation": 1000, "test": 1000}
# Of Poisson: points in a square. Of Thomas: parents in a square of side one, children of each, and how far they stray.
# Of Matérn: points in a square of side one before some are taken away, and the distance that they keep.
POINTS = 20.0
PARENTS, CHILDREN, STRAY = 5.0, 4.0, 0.04
CANDIDATES, APART = 30.0, 0.1
# Parents as far from the square as this have no children in it, in units of how far children stray.
REACH = 6.0


def patterns(name: str, *, seed: int = 0) -> GraphSource:
    """Simulate patterns of a process: 8,000 for training, 1,000 for validation, 1,000 for the test.

    Patterns without any point are drawn again, since they are no items of a density.

    Args:
        name: `points-poisson`, `points-thomas` or `points-matern`.
        seed: of all of them.

    Raises:
        DataError: if there is no such process.

    Example:
        >>> patterns("points-poisson").graphs.mean_nodes > 10
        True
    """
    if name not in PROCESSES:
        raise DataError(unknown_word("process of points", str(name), PROCESSES))
    said, draw = PROCESSES[name]
    splits: dict[SplitName, GraphItems] = {}
    for number, (split, count) in enumerate(COUNTS.items()):
        rng = np.random.default_rng([seed, number, list(PROCESSES).index(name)])
        drawn = [_some(draw, rng) for _ in range(count)]
        splits[split] = GraphItems(np.concatenate(drawn), np.array([len(points) for points in drawn]))
    sizes = " / ".join(map(str, COUNTS.values()))
    described = f"simulated: point patterns in the unit square, {said}; {sizes} by default_rng({seed})"
    return GraphSource(name, splits, columns=("x", "y"), description=described)


def _some(draw: Callable[[np.random.Generator], np.ndarray], rng: np.random.Generator) -> np.ndarray:
    points = draw(rng)
    while not len(points):
        points = draw(rng)
    return points


def poisson(rng: np.random.Generator) -> np.ndarray:
    """Return a Poisson number of uniform points, `(points, 2)`."""
    return rng.random((rng.poisson(POINTS), 2))


def thomas(rng: np.random.Generator) -> np.ndarray:
    """Return the children in the square of parents in and around it, `(points, 2)`."""
    side = 1 + 2 * REACH * STRAY
    parents = rng.random((rng.poisson(PARENTS * side**2), 2)) * side - REACH * STRAY
    around = np.repeat(parents, rng.poisson(CHILDREN, len(parents)), axis=0)
    return _inside(around + STRAY * rng.standard_normal(around.shape))


def matern(rng: np.random.Generator) -> np.ndarray:
    """Return the points that have no older one within their distance, `(points, 2)`."""
    side = 1 + 2 * APART
    points = rng.random((rng.poisson(CANDIDATES * side**2), 2)) * side - APART
    near = ((points[:, None] - points) ** 2).sum(-1) < APART**2
    # They are in the order of their ages, since any order is as good.
    return _inside(points[~np.tril(near, -1).any(1)])


def _inside(points: np.ndarray) -> np.ndarray:
    return points[((points >= 0) & (points < 1)).all(1)]


PROCESSES: dict[str, tuple[str, Callable[[np.random.Generator], np.ndarray]]] = {
    "points-poisson": ("independent and uniform (Poisson, 20 on average)", poisson),
    "points-thomas": ("in clusters (Thomas, 5 parents with 4 children each, standard deviation 0.04)", thomas),
    "points-matern": ("at least 0.1 apart (Matérn's second hard core, of 30 candidates)", matern),
}
