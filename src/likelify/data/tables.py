"""Tables: rows of real numbers, from arrays, files and scikit-learn."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from likelify.data.catalog import TABLE_ENDINGS
from likelify.data.delimited import read_csv
from likelify.data.facts import SplitName
from likelify.data.npy import read_array
from likelify.data.source import ArraySource, Parts, require_splits, shuffled, sizes_of
from likelify.data.values import class_labels, distinct, moments, table_rows
from likelify.errors import DataError, MissingDependencyError

# The names that a first column has which numbers the rows: none at all, or those of pandas and R.
NAMELESS = re.compile(r"column 1|Unnamed: \d+(\.\d+)?")
ROW_NUMBERS = re.compile(rf"{NAMELESS.pattern}|index|level_0|rownames")
# What float64 can compute with: the spread of a column, and how far from it a value may be.
SMALLEST_SPREAD, FARTHEST = 1e-290, 1e15
# As many rows show whether values can be told apart.
SAMPLE = 1000


class TableSource(ArraySource):
    """Rows of real numbers, in the user's units.

    Rows are float64. Log-densities of a model of them are in nats and in these units: figures of tables that are scaled
    differently do not compare. What maps rows to values around zero is the first layer of the model
    (`transforms.Columns`); `standardized` gives the rows themselves in units of their standard deviations.

    Args:
        name: see `ArraySource`, as labels, classes and description.
        splits: for each split its rows `(n, columns)`.
        columns: their names; by default `column 1`, ...

    Raises:
        DataError: if a split is missing or empty, values are not finite, or a column is constant.
    """

    def __init__(
        self,
        name: str,
        splits: Mapping[SplitName, np.ndarray],
        *,
        columns: Sequence[str] | None = None,
        labels: Mapping[SplitName, np.ndarray] | None = None,
        classes: int | None = None,
        description: str = "",
    ) -> None:
        require_splits(name, splits)
        rows: dict[SplitName, np.ndarray] = {
            split: table_rows(part, f"The split '{split}' of '{name}'") for split, part in splits.items()
        }
        if "train" not in rows:
            raise DataError(f"The source '{name}' has no items in its split 'train'.")
        train = rows["train"]
        numbered = (f"column {n}" for n in range(1, train.shape[1] + 1))
        if isinstance(columns, str):
            raise DataError(f"The columns of '{name}' need a list of names, got the text '{columns[:40]}'.")
        names = tuple(map(str, numbered if columns is None else columns))
        if len(names) != train.shape[1]:
            raise DataError(f"'{name}' has {train.shape[1]} columns and {len(names)} names for them.")
        if len(set(names)) < len(names):
            double = next(column for column in names if names.count(column) > 1)
            raise DataError(f"'{name}' has two columns called '{double}'.")
        if len(train):
            _require_spread(name, names, rows)
        self.columns = names
        super().__init__(name, rows, kind="table", levels=None, labels=labels, classes=classes, description=description)


def table(
    rows: np.ndarray,
    *,
    name: str = "table",
    columns: Sequence[str] | None = None,
    labels: np.ndarray | None = None,
    description: str = "",
) -> TableSource:
    """Make a source of an array of rows.

    Split by `shuffled`: the last tenth tests, the tenth before it validates, the rest trains.

    Args:
        rows: `(n, columns)`, at least 10.
        name: of the source.
        columns: their names.
        labels: classes `0 .. k - 1` of the rows `(n,)`, or None.
        description: where the rows come from.

    Raises:
        DataError: if there are too few rows, values are not finite, or a column is constant.
    """
    rows = table_rows(rows, f"'{name}'")
    given = None if labels is None else class_labels(labels, len(rows))
    parts = shuffled(len(rows), validation=len(rows) // 10, test=len(rows) // 10)
    described = f"{description + '; ' if description else ''}{rows.shape[1]} columns; {sizes_of(parts)} by "
    return TableSource.cut(
        name, rows, parts, labels=given, columns=columns, description=f"{described}default_rng(0).permutation"
    )


def table_file(path: str | Path) -> TableSource:
    """Make a source of a file of the user: CSV with or without a header, or a numpy array.

    Args:
        path: ends in `.csv`, `.tsv`, either with `.gz`, or `.npy`.

    Raises:
        DataError: if it is not there, or not a table of finite numbers; see `read_csv` and `table`.
    """
    path = Path(path)
    if not path.name.endswith(TABLE_ENDINGS):
        raise DataError(f"'{path}' is not a table that can be read: its name must end in {', '.join(TABLE_ENDINGS)}.")
    if not path.is_file():
        raise DataError(f"There is no file '{path}'.")
    described = f"the file {path.name}"
    columns, rows = (None, read_array(path)) if path.suffix == ".npy" else read_csv(path)
    if columns and _numbers_rows(columns, rows[:, 0]):
        if len(columns) == 1:
            raise DataError(f"'{path}' has nothing but the numbers of its rows.")
        described += f", without its first column, '{columns[0]}', which numbers the rows"
        columns, rows = columns[1:], np.ascontiguousarray(rows[:, 1:])
    return table(rows, name=f"table:{path.resolve()}", columns=columns, description=described)


def _numbers_rows(columns: list[str], values: np.ndarray) -> bool:
    """Tell whether a first column, of no name or of one that programs give, holds the numbers of the rows.

    They count from 0 or from 1. Where the other columns have names and this has none, they may be in another order and
    with gaps, as they are after rows were shuffled or left out.
    """
    if not ROW_NUMBERS.fullmatch(columns[0]):
        return False
    if values[0] in (0, 1) and np.array_equal(values, values[0] + np.arange(len(values))):
        return True
    others_named = columns[1:] != [f"column {number}" for number in range(2, len(columns) + 1)]
    if not (NAMELESS.fullmatch(columns[0]) and others_named):
        return False
    whole = (values >= 0) & (values == np.floor(values))
    return bool(whole.all() and len(np.unique(values)) == len(values))


def bundled(name: str) -> TableSource:
    """Return a table that comes with scikit-learn: iris, wine, breast-cancer, diabetes or linnerud."""
    try:
        from sklearn import datasets
    except ImportError as error:
        raise MissingDependencyError("scikit-learn", "app") from error
    bunch = getattr(datasets, f"load_{name.replace('-', '_')}")()
    columns, rows, labels = [str(name) for name in bunch.feature_names], bunch.data, bunch.target
    if name == "linnerud":
        # Exercises and body measures of the same 20 men.
        columns, rows = columns + list(bunch.target_names), np.hstack([rows, labels])
    classes = name in ("iris", "wine", "breast-cancer")
    return table(
        rows,
        name=name,
        columns=columns,
        labels=labels if classes else None,
        description=f"scikit-learn's table {name}, features only" if name != "linnerud" else "scikit-learn's linnerud",
    )


def standardize(splits: Parts, reference: np.ndarray, *, ddof: int = 0) -> Parts:
    """Return rows in units of the standard deviations of the reference's columns, around the means of these.

    Columns of one value stay as they are but for the mean; `TableSource` refuses them by name.
    """
    mean, scale = moments(reference, ddof)
    return {split: (rows - mean) / np.where(scale > 0, scale, 1.0) for split, rows in splits.items()}


def _require_spread(name: str, columns: Sequence[str], rows: Mapping[SplitName, np.ndarray]) -> None:
    """Refuse columns that have no density, or of which one value hides the others."""
    train = rows["train"]
    low, high, mean = train.min(0), train.max(0), train.mean(0)
    constant = np.flatnonzero(low == high)
    if len(constant):
        raise DataError(
            f"The column '{columns[constant[0]]}' of '{name}' has one value only in the training split, so it "
            "has no density. Drop it."
        )
    narrow = np.flatnonzero(high - low < SMALLEST_SPREAD)
    if len(narrow):
        raise DataError(
            f"The values of the column '{columns[narrow[0]]}' of '{name}' differ by {(high - low)[narrow[0]]:.3g} at "
            "most, which is too little to compute with. Write it in other units."
        )
    some = train[:SAMPLE]
    hidden = 2 * distinct(some - mean) < distinct(some)
    for part in filter(len, rows.values()):
        hidden |= np.maximum(part.max(0) - mean, mean - part.min(0)) > FARTHEST * (high - low)
    for column in np.flatnonzero(hidden)[:1]:
        whole = np.concatenate([part[:, column] for part in rows.values()])
        value = whole[np.abs(whole - np.median(whole)).argmax()]
        raise DataError(
            f"'{name}', column '{columns[column]}': the value {value} is so far from the others that they cannot be "
            "told apart beside it. Mend it, drop its row, or take logarithms of the column."
        )
