"""Columns of whole multiples of a step: their places in a row without the gaps that states leave."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from likelify.errors import ConfigError
from likelify.schema import OFF_STEP, ColumnSchema
from likelify.transforms.columns import InDouble

# Larger whole numbers are not told apart from their neighbours in float64.
LARGEST = 2.0**53


class Steps(InDouble):
    """The multiples of their steps that `d` columns can have, as whole numbers without gaps.

    The multiple `k` has the number `k` minus the count of states below it. A state has a probability of its own, and no
    number: the cells of its neighbours touch, and no mass is lost between them.
    """

    in_double = ("step", "taken", "lowest", "highest", "first", "last")
    step: Tensor
    taken: Tensor
    lowest: Tensor
    highest: Tensor
    first: Tensor
    last: Tensor

    def __init__(self, schema: Sequence[ColumnSchema]) -> None:
        super().__init__()
        steps = [column.step or 1.0 for column in schema]
        taken = [_multiples(column.states, step) for column, step in zip(schema, steps, strict=True)]
        # One more, so that there is always one to look at.
        most = max(map(len, taken), default=0) + 1
        padded = [(*numbers, *(math.inf,) * (most - len(numbers))) for numbers in taken]
        self.register_buffer("step", torch.tensor(steps, dtype=torch.float64), persistent=False)
        self.register_buffer("taken", torch.tensor(padded, dtype=torch.float64).reshape(-1, most), persistent=False)
        ends = [column.range for column in schema]
        lowest = torch.tensor([low for low, _ in ends], dtype=torch.float64) / self.step
        highest = torch.tensor([high for _, high in ends], dtype=torch.float64) / self.step
        # The first and the last number within the range.
        first = self._number((lowest - OFF_STEP).ceil()[None])[0]
        last = self._number((highest + OFF_STEP).floor()[None], last=True)[0]
        empty = first > last
        for column, nothing in zip(schema, empty.tolist(), strict=True):
            if nothing and column.declared:
                raise ConfigError(
                    f"All multiples of {column.step:g} in the range of '{column.name}' are states, so nothing is left "
                    "that has steps: its rest is 'none'."
                )
        # A range that was found, and in which all is states, says nothing of what else there may be.
        self.register_buffer("lowest", torch.where(empty, -math.inf, first), persistent=False)
        self.register_buffer("highest", torch.where(empty, math.inf, last), persistent=False)
        # The outermost numbers that there are: of a range that was found, others lie outside of it.
        hard = torch.tensor([column.declared for column in schema], dtype=torch.bool)
        largest = torch.full_like(first, LARGEST - 1)
        ends = -largest, self._number(largest[None], last=True)[0]
        self.register_buffer("first", torch.where(hard, torch.maximum(first, ends[0]), ends[0]), persistent=False)
        self.register_buffer("last", torch.where(hard, torch.minimum(last, ends[1]), ends[1]), persistent=False)

    def numbers(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return which values `(rows, d)` are multiples, and their numbers; those of others mean nothing."""
        multiple = (x / self.step).round()
        is_one = ((x / self.step - multiple).abs() <= OFF_STEP) & (multiple.abs() < LARGEST)
        return is_one, self._number(multiple)

    def values(self, number: Tensor) -> Tensor:
        """Return the multiples with these numbers, within their ranges."""
        number = number.round().clamp(self.lowest, self.highest)
        # The states below are those that had no more than this number when they were passed.
        passed = self.taken - torch.arange(self.taken.shape[1], device=number.device)
        skipped = torch.searchsorted(passed, number.T.contiguous(), right=True).T
        return (number + skipped) * self.step

    def _number(self, multiple: Tensor, *, last: bool = False) -> Tensor:
        return multiple - torch.searchsorted(self.taken, multiple.T.contiguous(), right=last).T


def spread(numbers: Tensor) -> Tensor:
    """Spread values that are the same evenly over a step: `(n,)` whole numbers to real ones, in any order."""
    ordered = numbers.sort().values
    _, place, count = ordered.unique_consecutive(return_inverse=True, return_counts=True)
    first = count.cumsum(0) - count
    rank = torch.arange(len(ordered), device=numbers.device) - first[place]
    return ordered + (rank + 0.5) / count[place] - 0.5


def _multiples(states: Sequence[float], step: float) -> list[float]:
    """Return the multiples of a step that are states, in order."""
    places = [state / step for state in states]
    return sorted(float(round(place)) for place in places if abs(place - round(place)) <= OFF_STEP)
