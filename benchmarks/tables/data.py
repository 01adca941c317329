"""Twelve tables of real columns, and their splits.

Two are bundled with scikit-learn, eight come from the archive of the KEEL repository, two are made here. Columns of one
or two values are left out; words (the sex in *abalone*) are numbered.

Values that are written with few digits repeat, and a density can be as high as one likes at values that repeat: a
comparison of densities would be one of how narrow their spikes are. So each value is spread over the step of its column
by uniform noise, once, before the split. The densities then are bounded by the probabilities of the steps, and every
model is judged by what it knows. A name that ends in `AS_WRITTEN` is of the table without that noise.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.table_archives import keel, sklearn_table

# The archive has variants of some tables that differ in their classes only.
KEEL = {
    "yeast": "yeast1",
    "winequality-red": "winequality-red-4",
    "abalone": "abalone19",
    "phoneme": "phoneme",
    "page-blocks": "page-blocks0",
    "satimage": "satimage",
    "penbased": "penbased",
    "magic": "magic",
}
QUICK_TABLES = ("diabetes", "made: heavy tails")
AS_WRITTEN = ", as written"
# Values nearer than this share of the largest are the same number.
DIGITS = 1e-9


@dataclass(frozen=True)
class Split:
    """Rows for fitting, choosing and measuring, and the scale of each column in the first two.

    Attributes:
        train: rows `(n, D)`.
        validation: an eighth of what is not for measuring.
        test: a fifth of the table.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """All rows but those of the test."""
        return np.concatenate([self.train, self.validation])

    @property
    def shift(self) -> np.ndarray:
        """Means of the columns."""
        return self.known.mean(0)

    @property
    def scale(self) -> np.ndarray:
        """Standard deviations of the columns; densities are given in these units."""
        return self.known.std(0)

    def standardized(self) -> "Split":
        """Return the same rows in units of the standard deviations."""
        return Split(*((part - self.shift) / self.scale for part in (self.train, self.validation, self.test)))


def split_of(rows: np.ndarray, seed: int) -> Split:
    """Cut a table at random."""
    order = np.random.default_rng(seed).permutation(len(rows))
    test = len(rows) // 5
    validation = test + (len(rows) - test) // 8
    return Split(rows[order[validation:]], rows[order[test:validation]], rows[order[:test]])


def heavy_tails() -> np.ndarray:
    """Make 5,000 rows of dependent columns: tails that have no variance, and amounts that are often next to zero."""
    rng = np.random.default_rng(0)
    count = 5000
    size, mood = rng.normal(size=(2, count))
    shock = rng.standard_t(1.5, size=count)
    income = np.exp(1.2 * size + 0.5 * rng.normal(size=count))
    spent = income * rng.beta(2, 5, size=count) * (rng.random(count) < 1 / (1 + np.exp(-size - mood)))
    debt = np.where(rng.random(count) < 0.6, 0.0, rng.pareto(1.8, size=count) * np.exp(0.5 * size))
    change = 0.3 * shock + 0.1 * income * rng.standard_t(3, size=count)
    mixed = np.where(rng.random(count) < 0.5, 2 + mood, -2 - mood) + 0.3 * rng.normal(size=count)
    columns = [income, spent, debt, shock, change, mixed, size + 0.5 * rng.standard_t(3, size=count)]
    # What is read off an instrument is not exactly zero.
    return np.stack(columns, 1) + 0.01 * rng.normal(size=(count, len(columns)))


def checkerboard() -> np.ndarray:
    """Make 10,000 rows of a checkerboard, its noisy product, a column that nearly follows from it, and a ring."""
    rng = np.random.default_rng(0)
    count = 10_000
    across, down = rng.integers(4, size=(2, count))
    down = 2 * (down // 2) + across % 2
    board = np.stack([across, down]) + rng.random((2, count)) - 2
    near = np.sin(2 * board[0]) + 0.5 * board[1] + 0.02 * rng.normal(size=count)
    angle, radius = rng.uniform(0, 2 * np.pi, count), 1 + 0.1 * rng.normal(size=count)
    return np.stack([*board, near, radius * np.cos(angle), radius * np.sin(angle) + 0.2 * board[0]], 1)


def bundled(name: str) -> np.ndarray:
    """Return the inputs of a table that scikit-learn brings along, in their own units."""
    return sklearn_table(name).numbers()


def archived(name: str) -> np.ndarray:
    """Return the inputs of a table of the archive."""
    return keel(KEEL[name]).numbers()


TABLES: dict[str, Callable[[], np.ndarray]] = {
    "diabetes": lambda: bundled("diabetes"),
    "breast-cancer": lambda: bundled("breast_cancer"),
    "yeast": lambda: archived("yeast"),
    "winequality-red": lambda: archived("winequality-red"),
    "abalone": lambda: archived("abalone"),
    "made: heavy tails": heavy_tails,
    "phoneme": lambda: archived("phoneme"),
    "page-blocks": lambda: archived("page-blocks"),
    "satimage": lambda: archived("satimage"),
    "made: checkerboard": checkerboard,
    "penbased": lambda: archived("penbased"),
    "magic": lambda: archived("magic"),
}


def step(column: np.ndarray) -> float:
    """Return the smallest distance of two different values of a column."""
    gaps = np.diff(np.unique(column))
    return float(gaps[gaps > DIGITS * np.abs(column).max()].min())


def table(name: str) -> np.ndarray:
    """Return the rows of a table in float64, without columns of one or two values."""
    rows = np.asarray(TABLES[name.removesuffix(AS_WRITTEN)](), dtype=np.float64)
    rows = rows[:, [len(np.unique(column)) > 2 for column in rows.T]]
    if name.endswith(AS_WRITTEN):
        return rows
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, size=rows.shape)
    return rows + noise * [step(column) for column in rows.T]
