"""What becomes of the columns of a table that follow from others, as the user chose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from likelify.data.faults import Fault, Faults
from likelify.data.reading import Table
from likelify.data.screening import Dependence
from likelify.schema import LinearFunction

# How much farther from its sum than any of the rows a value may be; and what rounding leaves of large values.
BEYOND, ROUNDING = 4.0, 1e-9


def settle(
    table: Table, found: Sequence[Dependence], how: Literal["refuse", "drop", "function"], faults: Faults
) -> list[str]:
    """Drop columns that follow from others, make them functions, or note them as faults.

    Args:
        table: is changed.
        found: the columns.
        how: what becomes of them.
        faults: of the table.

    Returns:
        What was done, for descriptions.
    """
    if how == "refuse":
        for each in found:
            said = f"it follows from others: {each} (--dependent drop leaves it out, --dependent function keeps it)"
            faults.add(each.column, Fault(said))
            faults.follow = True
        return []
    if how == "drop":
        table.without([each.column for each in found])
        return [f"without '{each.column}', since {each}" for each in found]
    return [f"'{each.column}' as a function, since {each}" for each in found if _make_function(table, each)]


def _make_function(table: Table, found: Dependence) -> bool:
    """Make a column a function of others; of words, put its words in the order of the other's."""
    told = table.told[found.column]
    place, others = table.names.index(found.column), [table.names.index(name) for name in found.of]
    if found.words:
        words = _reordered(table, place, others[0])
        if words is None:
            return False
        table.rows[:, place] = table.rows[:, others[0]]
        function = LinearFunction(of=found.of, factors=found.factors)
        table.told[found.column] = replace(told, words=words, function=function, said=f"{found}")
        return True
    values = table.rows[:, place]
    away = np.abs(table.rows[:, others] @ np.array(found.factors) + found.offset - values)
    tolerance = BEYOND * float(np.nanmax(away)) + ROUNDING * float(np.nanmax(np.abs(values)))
    function = LinearFunction(of=found.of, factors=found.factors, offset=found.offset, tolerance=tolerance)
    table.told[found.column] = replace(told, function=function, said=f"{found}")
    return True


def _reordered(table: Table, place: int, other: int) -> tuple[str, ...] | None:
    """Return the words of a column in the order of those of another that they stand for; None if some have none."""
    words: tuple[str, ...] = table.told[table.names[place]].words or ()
    wanted: tuple[str, ...] = table.told[table.names[other]].words or ()
    pairs = np.unique(table.rows[:, [other, place]], axis=0)
    pairs = pairs[~np.isnan(pairs).any(1)].astype(np.int64)
    if not len(words) == len(wanted) == len(pairs):
        return None
    return tuple(words[int(own)] for own in pairs[:, 1])
