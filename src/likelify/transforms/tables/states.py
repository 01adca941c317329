"""Values of columns that have a probability of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from likelify.schema import ColumnSchema
from likelify.transforms.columns import InDouble


class States(InDouble):
    """The values of `d` columns that are states, to their numbers and back."""

    in_double = ("ordered", "values")
    ordered: Tensor
    values: Tensor
    numbers: Tensor

    def __init__(self, schema: Sequence[ColumnSchema]) -> None:
        super().__init__()
        self.most = max((len(column.states) for column in schema), default=0)
        # One more, so that there is a column of the table to look at if there are no states.
        padded = [(*column.states, *(math.inf,) * (self.most + 1 - len(column.states))) for column in schema]
        values = torch.tensor(padded, dtype=torch.float64).reshape(len(schema), self.most + 1)
        ordered, numbers = values.sort(1)
        self.register_buffer("values", values, persistent=False)
        self.register_buffer("ordered", ordered, persistent=False)
        self.register_buffer("numbers", numbers, persistent=False)

    def find(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return which values `(rows, d)` are states, and their numbers.

        Values in float32 are those that the states become in float32.
        """
        ordered, wanted = self.ordered.to(x.dtype), x.T.contiguous()
        place = torch.searchsorted(ordered, wanted).clamp_max(self.most)
        found = (ordered.gather(1, place) == wanted) & wanted.isfinite()
        return found.T, self.numbers.gather(1, place).T

    def value(self, number: Tensor) -> Tensor:
        """Return the value of each number `(rows, d)`."""
        return self.values.gather(1, number.T.clamp(0, self.most)).T
