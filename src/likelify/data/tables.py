"""Tables: rows of columns of any kind, from arrays, files and scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from likelify.data.facts import SplitName
from likelify.data.finding import find_schema
from likelify.data.source import ArraySource, Parts, require_splits, shuffled, sizes_of
from likelify.data.told import Told
from likelify.data.values import class_labels, moments, table_rows
from likelify.errors import DataError, needs
from likelify.schema import ColumnSchema, numbered_columns

# The smallest spread of a column that float64 can compute with.
SMALLEST_SPREAD = 1e-290


class TableSource(ArraySource):
    """Rows of numbers, in the user's units; what stands for words, dates and truth values says their schema.

    Rows are float64, with NaN where a value is missing. Log-densities of a model of them are in nats and in these
    units: figures of tables that are scaled differently do not compare. What maps rows to values around zero is the
    first layer of the model; `standardized` gives the rows themselves in units of their standard deviations.

    Args:
        name: see `ArraySource`, as labels, classes and description.
        splits: for each split its rows `(n, columns)`.
        columns: their names; by default `column 1`, ...
        told: what is known of some columns before their values are looked at; see `finding.find_schema`.
        given: names of columns that are conditions.
        schema: what the columns are, if that is known; by default found from the values.
        class_names: what the classes are called.

    Raises:
        DataError: if a split is missing or empty, values are infinite, or columns cannot be computed with: all of them
            are named.
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
        told: Mapping[str, Told] | None = None,
        given: Sequence[str] = (),
        schema: Sequence[ColumnSchema] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        require_splits(name, splits)
        rows: dict[SplitName, np.ndarray] = {
            split: table_rows(part, f"The split '{split}' of '{name}'") for split, part in splits.items()
        }
        if "train" not in rows:
            raise DataError(f"The source '{name}' has no items in its split 'train'.")
        train = rows["train"]
        if isinstance(columns, str):
            raise DataError(f"The columns of '{name}' need a list of names, got the text '{columns[:40]}'.")
        names = tuple(map(str, numbered_columns(train.shape[1]) if columns is None else columns))
        if len(names) != train.shape[1]:
            raise DataError(f"'{name}' has {train.shape[1]} columns and {len(names)} names for them.")
        if len(set(names)) < len(names):
            double = next(column for column in names if names.count(column) > 1)
            raise DataError(f"'{name}' has two columns called '{double}'.")
        self.columns = names
        if len(train):
            _require_spread(name, names, train)
            others = [part for split, part in rows.items() if split != "train"]
            found = schema or find_schema(train, names, told, given=given, others=others, what=f"'{name}'")
            self.schema = tuple(found)
        self.class_names = None if class_names is None else tuple(class_names)
        super().__init__(name, rows, kind="table", levels=None, labels=labels, classes=classes, description=description)


def table(
    rows: np.ndarray,
    *,
    name: str = "table",
    columns: Sequence[str] | None = None,
    labels: np.ndarray | None = None,
    description: str = "",
    **facts: Any,
) -> TableSource:
    """Make a source of an array of rows.

    Split by `shuffled`: the last tenth tests, the tenth before it validates, the rest trains.

    Args:
        rows: `(n, columns)`, at least 10.
        name: of the source.
        columns: their names.
        labels: classes `0 .. k - 1` of the rows `(n,)`, or None.
        description: where the rows come from.
        **facts: of the columns and classes, see `TableSource`.

    Raises:
        DataError: if there are too few rows, values are not finite, or a column is constant.
    """
    rows = table_rows(rows, f"'{name}'")
    given = None if labels is None else class_labels(labels, len(rows))
    parts = shuffled(len(rows), validation=len(rows) // 10, test=len(rows) // 10)
    described = f"{description + '; ' if description else ''}{rows.shape[1]} columns; {sizes_of(parts)} by "
    return TableSource.cut(
        name, rows, parts, labels=given, columns=columns, description=f"{described}default_rng(0).permutation", **facts
    )


def bundled(name: str) -> TableSource:
    """Return a table that comes with scikit-learn: iris, wine, breast-cancer, diabetes or linnerud."""
    with needs("scikit-learn", "app"):
        from sklearn import datasets
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


def _require_spread(name: str, columns: Sequence[str], train: np.ndarray) -> None:
    """Refuse columns of values too near to one another to compute with.

    A value that is far from all others is not refused here: models of ranks stand it, and the first layer of the others
    (`transforms.Columns`) says where they cannot.
    """
    faults = []
    for place, column in enumerate(columns):
        present = train[:, place][~np.isnan(train[:, place])]
        spread = present.max() - present.min() if len(present) else 0.0
        if 0 < spread < SMALLEST_SPREAD:
            faults.append(
                f"'{name}', column '{column}': the values differ by {spread:.3g} at most, too little to compute with. "
                "Write it in other units."
            )
    if faults:
        raise DataError(" ".join(faults))
