"""Columns of a table that follow from others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from likelify.errors import ConfigError, unknown_word
from likelify.schema import ColumnSchema

# Rounding of a sum of products, relative to the sizes of its terms.
ROUNDING = 1e-12


class _Function(NamedTuple):
    place: int
    sources: tuple[int, ...]
    factors: tuple[float, ...]
    offset: float
    tolerance: float

    def of(self, columns: Sequence[Tensor], like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values, and the sum of the sizes of their terms."""
        value, size = torch.full_like(like, self.offset), torch.full_like(like, abs(self.offset))
        for source, factor in zip(self.sources, self.factors, strict=True):
            term = factor * columns[source]
            value, size = value + term, size + term.abs()
        return value, size


class Functions:
    """The columns of a table that are functions of others, in an order in which they can be computed."""

    def __init__(self, schema: Sequence[ColumnSchema]) -> None:
        self.given = {place for place, column in enumerate(schema) if column.given}
        places = {column.name: place for place, column in enumerate(schema)}
        known = {place for place, column in enumerate(schema) if column.is_modelled}
        waiting = [_function(place, column, places) for place, column in enumerate(schema) if not column.is_modelled]
        self.ordered: list[_Function] = []
        while waiting:
            ready = [function for function in waiting if known.issuperset(function.sources)]
            if not ready:
                names = ", ".join(f"'{schema[function.place].name}'" for function in waiting)
                raise ConfigError(f"The columns {names} are functions of one another, so none of them can be computed.")
            self.ordered += ready
            known |= {function.place for function in ready}
            waiting = [function for function in waiting if function not in ready]

    def hold(self, x: Tensor) -> Tensor:
        """Return `(rows, columns)`: False where a value is not what its function says, and both are known."""
        columns = list(x.unbind(1))
        fits = [torch.ones_like(column, dtype=torch.bool) for column in columns]
        for function in self.ordered:
            if function.place not in self.given:
                value, size = function.of(columns, columns[function.place])
                gap = (columns[function.place] - value).abs()
                # A comparison with NaN is false, and says nothing.
                fits[function.place] = ~(gap > function.tolerance + ROUNDING * size)
        return torch.stack(fits, 1)

    def fill(self, x: Tensor) -> Tensor:
        """Return rows with the functions computed; NaN where a source is missing."""
        if not self.ordered:
            return x
        columns = list(x.unbind(1))
        for function in self.ordered:
            columns[function.place], _ = function.of(columns, columns[function.place])
        return torch.stack(columns, 1)


def _function(place: int, column: ColumnSchema, places: dict[str, int]) -> _Function:
    function = column.function
    assert function is not None
    for name in function.of:
        if name not in places:
            raise ConfigError(unknown_word(f"source of the column '{column.name}'", name, places))
    sources = tuple(places[name] for name in function.of)
    return _Function(place, sources, function.factors, function.offset, function.tolerance)
