"""The nearest training item of an item, by which copies would show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CHUNK = 256


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest training items of some items.

    Attributes:
        index: of each item, its nearest training item.
        distance: to it.
    """

    index: np.ndarray
    distance: np.ndarray


def nearest(items: np.ndarray, train: np.ndarray) -> Neighbours:
    """Find for each point `(n, axes)` the training point that is nearest to it, with its distance.

    Args:
        items: to find neighbours of.
        train: among which.

    Example:
        >>> found = nearest(np.array([[1.0, 0.0]]), np.array([[0.0, 0.0], [1.0, 0.2]]))
        >>> int(found.index[0]), round(float(found.distance[0]), 4)
        (1, 0.2)
    """
    # Centred, so that squares of large means take no digits; in double precision, exact distances come at the end.
    centre = train.mean(0)
    there, here = train - centre, items - centre
    squares = (there**2).sum(1)
    index = np.concatenate(
        [(squares - 2 * here[at : at + CHUNK] @ there.T).argmin(1) for at in range(0, len(here), CHUNK)]
    )
    return Neighbours(index, np.sqrt(((items - train[index]) ** 2).sum(1)))
