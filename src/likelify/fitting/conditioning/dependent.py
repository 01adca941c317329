"""Columns that follow from others: computed where these are known, and solved for one that is not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from likelify.schema import ColumnSchema


def compute_functions(rows: np.ndarray, schema: Sequence[ColumnSchema]) -> None:
    """Write into rows `(..., columns)` the columns that follow from others; NaN where one of these is missing."""
    places = {column.name: at for at, column in enumerate(schema)}
    for at, column in enumerate(schema):
        if column.function is not None:
            of = [places[name] for name in column.function.of]
            rows[..., at] = column.function.offset + rows[..., of] @ np.array(column.function.factors, dtype=float)


def solve_functions(rows: np.ndarray, known: np.ndarray, schema: Sequence[ColumnSchema]) -> None:
    """Find values that follow from a known sum: where one part of it only is not known, that part is known too.

    Args:
        rows: `(n, columns)`, written to.
        known: `(n, columns)`, written to.
        schema: of the columns.
    """
    places = {column.name: at for at, column in enumerate(schema)}
    for at, column in enumerate(schema):
        if column.function is None or not column.function.of:
            continue
        of = np.array([places[name] for name in column.function.of])
        factors = np.array(column.function.factors)
        single = known[:, at] & ~np.isnan(rows[:, at]) & ((~known[:, of]).sum(1) == 1)
        for row in np.flatnonzero(single):
            which = int(np.flatnonzero(~known[row, of])[0])
            others = np.arange(len(of)) != which
            sum_ = column.function.offset + float(factors[others] @ rows[row, of[others]])
            value = (rows[row, at] - sum_) / factors[which]
            if np.isfinite(value):
                rows[row, of[which]], known[row, of[which]] = value, True


def unused_sums(known: np.ndarray, schema: Sequence[ColumnSchema]) -> dict[str, int]:
    """Return in how many rows a known sum cannot be used, since several of its parts are not known."""
    places = {column.name: at for at, column in enumerate(schema)}
    found = {}
    for at, column in enumerate(schema):
        if column.function is not None and column.function.of:
            parts = known[:, [places[name] for name in column.function.of]]
            found[column.name] = int((known[:, at] & ~parts.all(1)).sum())
    return {name: count for name, count in found.items() if count}
