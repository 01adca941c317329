"""What a column of a table was found to be, in words."""

from __future__ import annotations

import numpy as np

from likelify.data.dates import write_dates
from likelify.data.encoding import decimals_of, decode_column
from likelify.data.screening import Dependence
from likelify.schema import ColumnSchema

# Of the words and values of a column, how many are listed.
LISTED = 6
# No list of words is longer.
LONGEST = 40


def kind_of(column: ColumnSchema) -> str:
    """Return the kind of a column, and whether it is a condition.

    Example:
        >>> kind_of(ColumnSchema(name="age", given=True))
        'real, given'
    """
    kind = "ordered words" if column.kind == "ordered" else "words" if column.kind == "category" else column.kind
    return f"{kind}, given" if column.given else kind


def values_of(column: ColumnSchema) -> str:
    """Return what values a column has: its words, those with a probability of their own, steps, range.

    Example:
        >>> values_of(ColumnSchema.category("colour", ("blue", "red")))
        '2: blue, red'
        >>> values_of(ColumnSchema(name="price", step=0.01, states=(0.0,), lower=0.0))
        'from 0; 2 decimals; 0 by itself'
    """
    if column.function is not None:
        function = column.function
        equation = Dependence(column.name, function.of, function.factors, function.offset)
        if not function.of:
            return f"always {_shown(column, function.offset)}"
        same = column.categories is not None
        return f"same as '{function.of[0]}'" if same else str(equation).partition(" is ")[2] or str(equation)
    if column.rest == "none":
        return f"{len(column.states)}: {_listed(column)}"
    return "; ".join(filter(None, (_range(column), _steps(column), _own(column)))) or "any"


def _listed(column: ColumnSchema) -> str:
    shown = [_shown(column, state) for state in column.states[:LISTED]]
    text = ", ".join(shown)
    text = text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
    return text + (", ..." if len(column.states) > LISTED and not text.endswith("...") else "")


def _shown(column: ColumnSchema, value: float) -> str:
    found = decode_column(np.array([value]), column)[0]
    if isinstance(found, bool | np.bool_):
        return "true" if found else "false"
    return str(found) if isinstance(found, str) else f"{found:.10g}"


def _range(column: ColumnSchema) -> str:
    ends = [None if end is None else _end(column, end) for end in (column.lower, column.upper)]
    said = " (declared)" if column.declared else ""
    if ends[0] is not None and ends[1] is not None:
        return f"{ends[0]} to {ends[1]}{said}"
    if ends[0] is not None:
        return f"from {ends[0]}{said}"
    return "" if ends[1] is None else f"up to {ends[1]}{said}"


def _end(column: ColumnSchema, value: float) -> str:
    return str(write_dates(np.array([value]), column)[0]) if column.kind == "date" else f"{value:.6g}"


def _steps(column: ColumnSchema) -> str:
    if column.kind == "date":
        whole = column.unit if column.step in (None, 1) else f"steps of {column.step:.10g} {column.unit}"
        return f"in {whole}s" if column.rest == "steps" else "parts of a second"
    if column.rest == "steps" and column.step == 1:
        return "whole"
    if column.step is None:
        return ""
    decimals = decimals_of(column.step)
    if column.step != float(f"1e-{decimals}"):
        return f"in steps of {column.step:.10g}"
    return f"{decimals} decimal{'s' * (decimals != 1)}"


def _own(column: ColumnSchema) -> str:
    if not column.states:
        return ""
    return f"{_listed(column)} by {'itself' if len(column.states) == 1 else 'themselves'}"
