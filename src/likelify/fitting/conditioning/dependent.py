"""Columns that follow from others: which do, and what a known one says of a part that is not known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from likelify.schema import ColumnSchema, functions_in_order


def following(places: Sequence[int], schema: Sequence[ColumnSchema]) -> np.ndarray:
    """Return `(columns,)`, true for some columns and those that follow from them, directly or through others."""
    found = np.isin(np.arange(len(schema)), places)
    for function in functions_in_order(schema):
        found[function.place] |= bool(found[list(function.sources)].any())
    return found


def solve_functions(rows: np.ndarray, known: np.ndarray, schema: Sequence[ColumnSchema]) -> None:
    """Find values that follow from a known sum: where one part of it only is not known, that part is known too.

    Args:
        rows: `(n, columns)`, written to.
        known: `(n, columns)`, written to.
        schema: of the columns.
    """
    functions = functions_in_order(schema)
    for function in functions:
        ready = ~known[:, function.place] & known[:, list(function.sources)].all(1)
        rows[ready, function.place] = function.value([*rows[ready].T])
        known[ready, function.place] = True
    # What is found of a part may be the sum of others.
    for function in reversed(functions):
        of, factors = np.array(function.sources, dtype=int), np.array(function.factors)
        single = known[:, function.place] & ~np.isnan(rows[:, function.place]) & ((~known[:, of]).sum(1) == 1)
        for row in np.flatnonzero(single):
            which = int(np.flatnonzero(~known[row, of])[0])
            others = np.arange(len(of)) != which
            sum_ = function.offset + float(factors[others] @ rows[row, of[others]])
            value = (rows[row, function.place] - sum_) / factors[which]
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
