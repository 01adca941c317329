"""Tables: rows of real numbers, from arrays, files and scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from likelify.data.catalog import TABLE_ENDINGS
from likelify.data.delimited import read_array, read_csv
from likelify.data.facts import SplitName
from likelify.data.source import ArraySource, Parts, shuffled, sizes_of
from likelify.errors import DataError, MissingDependencyError


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
        train = _require_rows(name, splits["train"])
        numbered = (f"column {n}" for n in range(1, train.shape[1] + 1))
        names = tuple(numbered if columns is None else columns)
        if len(names) != train.shape[1]:
            raise DataError(f"'{name}' has {train.shape[1]} columns and {len(names)} names for them.")
        if len(set(names)) < len(names):
            double = next(column for column in names if names.count(column) > 1)
            raise DataError(f"'{name}' has two columns called '{double}'.")
        constant = np.flatnonzero(train.min(0) == train.max(0))
        if len(constant):
            raise DataError(
                f"The column '{names[constant[0]]}' of '{name}' has one value only in the training split, so it "
                "has no density. Drop it."
            )
        self.columns = names
        rows: dict[SplitName, np.ndarray] = {split: np.asarray(part, np.float64) for split, part in splits.items()}
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
    rows = _require_rows(name, np.asarray(rows, dtype=np.float64))
    parts = shuffled(len(rows), validation=len(rows) // 10, test=len(rows) // 10)
    described = f"{description + '; ' if description else ''}{rows.shape[1]} columns; {sizes_of(parts)} by "
    return TableSource.cut(
        name, rows, parts, labels=labels, columns=columns, description=f"{described}default_rng(0).permutation"
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
    columns, rows = (None, read_array(path)) if path.suffix == ".npy" else read_csv(path)
    return table(rows, name=f"table:{path.resolve()}", columns=columns, description=f"the file {path.name}")


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
    mean, scale = reference.mean(0), reference.std(0, ddof=ddof)
    return {split: (rows - mean) / np.where(scale > 0, scale, 1.0) for split, rows in splits.items()}


def _require_rows(name: str, rows: np.ndarray) -> np.ndarray:
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise DataError(f"'{name}' is not a table: rows have shape {rows.shape}, expected (rows, columns).")
    if not np.isfinite(rows).all():
        row, column = np.argwhere(~np.isfinite(rows))[0]
        raise DataError(f"'{name}', row {row}, column {column}: the value is {rows[row, column]}.")
    return rows
