"""Weighted draws of what is not known of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from likelify.fitting.conditioning.asked import Asked
from likelify.flows import Flow
from likelify.schema import compute_functions


@dataclass(frozen=True, eq=False)
class Particles:
    """Weighted draws of some rows.

    Attributes:
        of: numbers of the rows `(n,)`.
        rows: raw rows `(particles, n, columns)`, known values as they were.
        log_weight: `(particles, n)`; -inf for those that lie outside a range.
        log_known: `(particles, n)`, the same before ranges are looked at: their mean is what is known worth.
        exact: whether all of them are draws from the conditional distribution itself.
    """

    of: np.ndarray
    rows: np.ndarray
    log_weight: np.ndarray
    log_known: np.ndarray
    exact: bool

    @property
    def ess(self) -> np.ndarray:
        """How many independent draws they are worth `(n,)`."""
        top = self.log_weight.max(0)
        weight = np.exp(self.log_weight - np.where(np.isfinite(top), top, 0.0))
        return weight.sum(0) ** 2 / np.maximum((weight**2).sum(0), 1e-300)

    @property
    def log_mean(self) -> np.ndarray:
        """The logarithm of the mean weight `(n,)`: log-density of what is known, in the space of the cells."""
        return np.logaddexp.reduce(self.log_known, axis=0) - np.log(len(self.log_known))

    @property
    def relative_error(self) -> np.ndarray:
        """Standard error of the mean weight, as a share of it `(n,)`."""
        weight = np.exp(self.log_known - self.log_known.max(0))
        return weight.std(0) / weight.mean(0) / np.sqrt(len(weight))

    def taken(self, places: np.ndarray) -> Particles:
        """Return those of some rows."""
        weights = self.log_weight[:, places], self.log_known[:, places]
        return Particles(self.of[places], self.rows[:, places], *weights, self.exact)

    def some(self, places: np.ndarray) -> Particles:
        """Return those of some rows, with all their weight where no draw of a row lies inside of the ranges."""
        log_weight, log_known = self.log_weight[:, places], self.log_known[:, places]
        log_weight = np.where(np.isneginf(log_weight).all(0), log_known, log_weight)
        return Particles(self.of[places], self.rows[:, places], log_weight, log_known, self.exact)


def drawn(flow: Flow, asked: Asked, some: np.ndarray, number: int, *, exact: bool, present: bool) -> Particles:
    """Draw particles.

    Args:
        flow: the model.
        asked: all rows.
        some: numbers of those that are wanted.
        number: of particles of each.
        exact: whether all of them are draws from the conditional distribution itself.
        present: whether what is drawn must not be missing.
    """
    known = asked.known[some]
    places = torch.from_numpy(known[:, asked.modelled])
    cells = flow.transform(torch.from_numpy(asked.known_cells(some)))[0]
    completed, log_known = flow.base.complete(cells, places, draws=number, present=present)
    rows = flow.transform.inverse(completed.flatten(0, 1))[0].double().numpy().reshape(number, len(some), -1)
    kept = asked.kept[some]
    rows = np.where(kept, asked.rows[some], rows)
    computed = rows.copy()
    compute_functions(computed, asked.schema)
    rows = np.where(kept, rows, computed)
    weight = log_known.double().numpy()
    return Particles(some, rows, _inside(asked, rows, kept, weight), weight, exact)


def _inside(asked: Asked, rows: np.ndarray, kept: np.ndarray, log_weight: np.ndarray) -> np.ndarray:
    """Return weights without those of draws outside the ranges of their columns."""
    low, high = np.array([column.range for column in asked.schema]).T
    with np.errstate(invalid="ignore"):
        outside = ((rows < low) | (rows > high)) & ~kept
    return np.where(outside.any(-1), -np.inf, log_weight)
