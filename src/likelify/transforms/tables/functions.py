"""Columns of a table that follow from others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from likelify.schema import ColumnSchema, PlacedFunction, functions_in_order

# Rounding of a sum of products, relative to the sizes of its terms.
ROUNDING = 1e-12


class Functions:
    """The columns of a table that are functions of others, in an order in which they can be computed."""

    def __init__(self, schema: Sequence[ColumnSchema]) -> None:
        self.given = {place for place, column in enumerate(schema) if column.given}
        self.ordered = functions_in_order(schema)

    def hold(self, x: Tensor) -> Tensor:
        """Return `(rows, columns)`: False where a value is not what its function says, and both are known."""
        columns = list(x.unbind(1))
        fits = [torch.ones_like(column, dtype=torch.bool) for column in columns]
        for function in self.ordered:
            if function.place not in self.given:
                value, size = _value_and_size(function, columns)
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
            columns[function.place] = function.value(columns, torch.zeros_like(columns[function.place]))
        return torch.stack(columns, 1)


def _value_and_size(function: PlacedFunction, columns: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the values, and the sum of the sizes of their terms."""
    zero = torch.zeros_like(columns[function.place])
    sizes = [term.abs() for term in function.terms(columns)]
    return function.value(columns, zero), sum(sizes, zero + abs(function.offset))
