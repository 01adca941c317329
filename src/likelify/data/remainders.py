"""Columns of a table that follow from others but for their last digits, so that a density would describe these."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from likelify.data.screening import FEWEST_ROWS, Dependence, fewest, some_rows
from likelify.data.source import Source
from likelify.data.values import moments
from likelify.schema import numbered_columns

# So little of a column is no datum, whatever left it there.
LITTLE = 1e-3
# More than this is a datum, even if the values are rounded as coarsely; in between, rounding must explain it.
MOST = 0.1
# The errors of rounding can go together, which makes what they leave larger than of errors that do not.
TOGETHER = 1.25
# Finer steps between values are those of float64, or nothing beside the values.
FINEST, EXACT = 1e-9, 1e3 * np.finfo(np.float64).eps
# The deviation of normal values, in units of the median of their distances from the middle.
NORMAL = 1.4826
# Enough for a warning; each costs a few decompositions.
MOST_FOUND, MOST_COLUMNS = 5, 300


def nearly_dependent_columns(source: Source) -> list[Dependence]:
    """Find the columns of a table that follow from columns before them up to rounding, such as Fahrenheit from Celsius.

    A density of such rows describes the digits that were rounded, and gains as they get finer. Looked at are random
    rows of the training split (1000, or four for each column). A column is named if a sum of multiples of those before
    it leaves less than a thousandth of its deviation, or less than a tenth and no more than the rounding of all these
    columns to their last digits leaves. Where rows far from the others make the deviation, that of most rows counts.

    Args:
        source: a table without columns that follow from others exactly; other sources have no columns. Columns with
            missing values, and those of states and steps, which have no density, are not looked at.

    Returns:
        The first five at most, of the first 300 columns, in their order.
    """
    import torch

    if source.kind != "table" or len(source.event_shape) != 1:
        return []
    size = source.size("train")
    width = min(MOST_COLUMNS, size // 2, source.event_shape[0])
    places = torch.from_numpy(some_rows(size, max(FEWEST_ROWS, 4 * width)))
    rows = source.read("train", places).x[:, :width].to(torch.float64).numpy()
    # Of what is missing, or has probabilities and no density, nothing of the kind is to be feared.
    schema = source.meaning
    kept = [place for place in range(width) if schema[place].rest == "density" and schema[place].is_modelled]
    kept = [place for place in kept if not np.isnan(rows[:, place]).any()]
    names = tuple((source.columns or numbered_columns(width))[place] for place in kept)
    if not kept:
        return []
    sample = _Sample.of(rows[:, kept])
    found: list[Dependence] = []
    for column in map(int, np.flatnonzero(sample.left <= MOST)):
        others = np.arange(column)
        if len(found) < MOST_FOUND and sample.follows(column, others):
            factors = sample.fitted(column, others)[0]
            chosen = fewest(others, factors, partial(sample.follows, column))
            found.append(sample.dependence(column, chosen, names))
    return found


@dataclass(frozen=True)
class _Sample:
    """Rows around zero in units of their deviations.

    Attributes:
        triangle: R of their QR decomposition: columns fit as well as those of the rows do, and are shorter.
        left: of each column, what those before it leave, in units of the deviation of most rows.
        mean, unit: of the rows.
        usual: the deviation of most rows, in these units.
        steps: between the values, in these units; 0 where there is none.
        count: of the rows.
    """

    triangle: np.ndarray
    left: np.ndarray
    mean: np.ndarray
    unit: np.ndarray
    usual: np.ndarray
    steps: np.ndarray
    count: int

    @classmethod
    def of(cls, rows: np.ndarray) -> _Sample:
        mean, scale = moments(rows)
        varied = scale > EXACT * np.abs(mean)
        unit = np.where(varied, scale, 1.0)
        standard = np.where(varied, (rows - mean) / unit, 0.0)
        near = NORMAL * np.median(np.abs(standard - np.median(standard, 0)), 0)
        usual = np.where(near > 0, np.minimum(near, 1.0), 1.0)
        triangle = np.asarray(np.linalg.qr(standard, mode="r"))
        freedom = np.maximum(len(rows) - 1 - np.arange(rows.shape[1]), 1)
        left = np.where(varied, np.abs(np.diag(triangle)) / np.sqrt(freedom) / usual, np.inf)
        rounding = EXACT * np.abs(mean / unit)
        steps = [_step(values, limit) for values, limit in zip(standard.T, FINEST + rounding, strict=True)]
        return cls(triangle, left, mean, unit, usual, np.array(steps), len(rows))

    def fitted(self, column: int, others: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the factors of other columns whose sum is nearest to a column, and what it leaves (one deviation)."""
        target = self.triangle[:, column]
        factors = np.linalg.lstsq(self.triangle[:, others], target, rcond=None)[0]
        left = np.linalg.norm(target - self.triangle[:, others] @ factors)
        return factors, float(left / np.sqrt(max(self.count - 1 - len(others), 1)))

    def follows(self, column: int, others: np.ndarray) -> bool:
        """Tell whether other columns leave little of a column, or no more than their rounding does."""
        factors, left = self.fitted(column, others)
        share = left / self.usual[column]
        errors = np.append(factors * self.steps[others], self.steps[column]) / np.sqrt(12)
        rounded = share <= MOST and left <= TOGETHER * np.linalg.norm(errors)
        return bool(share <= LITTLE or rounded)

    def dependence(self, column: int, others: np.ndarray, names: tuple[str, ...]) -> Dependence:
        """Return the equation in the units of the table, without an offset below what is left."""
        factors, left = self.fitted(column, others)
        slopes = factors * (self.unit[column] / self.unit[others])
        offset = float(self.mean[column] - self.mean[others] @ slopes)
        offset = 0.0 if abs(offset) <= left * self.unit[column] else offset
        of = tuple(names[number] for number in others)
        return Dependence(names[column], of, tuple(map(float, slopes)), offset, left)


def _step(values: np.ndarray, finest: float) -> float:
    """Return the largest number of which all distances between values are multiples, 0 if it is finer than that."""
    gaps = np.diff(np.unique(values))
    gaps = gaps[gaps > finest]
    step = float(gaps.min(initial=np.inf))
    while finest < step < np.inf:
        left = np.abs(gaps - step * np.round(gaps / step))
        left = left[left > max(step / 100, finest)]
        if not len(left):
            return step
        step = float(left.min())
    return 0.0
