"""What could stand in a column of a row instead of what does, and what the row would gain by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from likelify.schema import ColumnSchema, PlacedFunction, functions_in_order

# Of each column so many states, the most frequent ones, and as many quantiles of all other values; both are kept.
QUANTILES = 24
HELD = 2 * QUANTILES
# How often, and to how many values, the neighbourhood of the best quantile so far is looked at.
ROUNDS, FINER = 2, 6


def found_in(rows: np.ndarray, schema: Sequence[ColumnSchema]) -> np.ndarray:
    """Return values that stand in rows `(n, columns)`: of each column its most frequent states, then quantiles.

    Returns:
        `(48, columns)`: at most 24 states, NaN where there are fewer, and 24 quantiles of all other values at equal
        steps of their number, the first and the last among them; NaN if there are none.
    """
    found = np.full((HELD, len(schema)), np.nan)
    for place, column in enumerate(schema):
        values = rows[~np.isnan(rows[:, place]), place]
        is_state = np.isin(values, column.states)
        states, counts = np.unique(values[is_state], return_counts=True)
        frequent = states[np.argsort(-counts, kind="stable")][:QUANTILES]
        found[: len(frequent), place] = frequent
        if len(rest := values[~is_state]):
            found[QUANTILES:, place] = np.quantile(rest, np.linspace(0, 1, QUANTILES), method="nearest")
    return found


@dataclass(frozen=True, eq=False)
class Candidates:
    """What may stand in a column.

    Attributes:
        single: values that are tried as they are: states, and NaN for a missing value.
        between: values in ascending order, between the best neighbours of which others are tried.
        step: that these others are multiples of; None for any.
        function: the column follows from others: what they say is the only other value.
        given: it is a condition, which is to blame for nothing.
        moves: the columns that follow from this one, and the factor by which they do.
    """

    single: np.ndarray
    between: np.ndarray
    step: float | None = None
    function: PlacedFunction | None = None
    given: bool = False
    moves: tuple[tuple[int, float], ...] = ()


def candidates(values: np.ndarray, schema: Sequence[ColumnSchema]) -> tuple[Candidates, ...]:
    """Return what may stand in each column of a table.

    Args:
        values: `(48, columns)`, see `found_in`.
        schema: of the columns.
    """
    found, functions = [], functions_in_order(schema)
    follows = {function.place: function for function in functions}
    for place, column in enumerate(schema):
        single, between = (half[~np.isnan(half)] for half in (values[:QUANTILES, place], values[QUANTILES:, place]))
        whole = len(between) > 0 and bool((between == between.round()).all())
        step = column.step if column.rest == "steps" else 1.0 if whole else None
        found.append(
            Candidates(
                single=np.append(single, np.nan) if column.missing else single,
                between=between,
                step=step,
                function=follows.get(place),
                given=column.given,
                moves=tuple(_moved_by(place, functions, len(schema))),
            )
        )
    return tuple(found)


def _moved_by(place: int, functions: Sequence[PlacedFunction], count: int) -> Iterator[tuple[int, float]]:
    """Give the columns that follow from one, directly or through others, and by which factor they move with it."""
    moved = {place: 1.0}
    for function in functions:
        factor = sum(function.terms([moved.get(other, 0.0) for other in range(count)]))
        if factor and function.place != place:
            moved[function.place] = factor
            yield function.place, factor


def column_gains(
    score: Callable[[Tensor], Tensor], x: Tensor, columns: Sequence[Candidates]
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row and column what the row gains if that column alone is replaced, and by which value.

    First the states of the column, a missing value, and quantiles in the training rows are tried, then values between
    the neighbours of the best quantile, and once more between the neighbours of that; multiples of its step where the
    column has one. Columns that follow from others follow.

    Args:
        score: log-likelihoods of rows, on a scale on which those of all values of a column can be compared.
        x: `(rows, columns)`.
        columns: what may stand in each.

    Returns:
        Gains in nats and values, `(rows, columns)` each. A gain is zero where nothing is better than what is there;
        infinite if only the replaced row has a likelihood, and NaN if neither has.
    """
    before = score(x).double()
    gains, values = torch.zeros(x.shape, dtype=torch.float64), x.double().cpu().clone()
    for place, column in enumerate(columns):
        if column.given:
            continue
        best, value = _Search(score, x, place, column, before).best()
        # Infinities of the same sign have no difference.
        gains[:, place], values[:, place] = (best - before).cpu(), value.cpu()
    return gains.numpy(), values.numpy()


class _Search:
    """The best value that could stand in one column of each row."""

    def __init__(
        self, score: Callable[[Tensor], Tensor], x: Tensor, place: int, column: Candidates, before: Tensor
    ) -> None:
        self.score, self.x, self.place, self.column = score, x, place, column
        self.highest, self.value = before, x[:, place].double()

    def best(self) -> tuple[Tensor, Tensor]:
        """Return the largest log-likelihoods, and the values that have them, `(rows,)` each."""
        single, between = (
            torch.from_numpy(values).to(self.x.device, torch.float64).expand(len(self.x), -1)
            for values in (self.column.single, self.column.between)
        )
        if self.column.function is not None:
            single, between = self._said(self.column.function)[:, None], between[:, :0]
        if single.shape[1]:
            self._look(single)
        for last in range(ROUNDS + 1) if between.shape[1] else ():
            top = self._look(between)
            if last < ROUNDS:
                between = self._finer(between, top)
        return self.highest, self.value

    def _look(self, tried: Tensor) -> Tensor:
        """Try values `(rows, number)`, keep what is better, and return the place of the best of them `(rows, 1)`."""
        found = torch.stack([self.score(self._replaced(values)).double() for values in tried.unbind(1)], 1)
        # NaN counts as the largest number, and would hide what is better.
        found = found.where(~found.isnan(), -torch.inf)
        top = found.argmax(1, keepdim=True)
        highest, where = found.gather(1, top)[:, 0], tried.gather(1, top)[:, 0]
        better = highest > self.highest
        self.highest, self.value = torch.where(better, highest, self.highest), torch.where(better, where, self.value)
        return top

    def _finer(self, tried: Tensor, top: Tensor) -> Tensor:
        low = tried.gather(1, (top - 1).clamp(min=0))
        high = tried.gather(1, (top + 1).clamp(max=tried.shape[1] - 1))
        share = torch.linspace(0, 1, FINER + 2, dtype=torch.float64, device=tried.device)
        finer = low + (high - low) * share
        return finer if self.column.step is None else (finer / self.column.step).round() * self.column.step

    def _replaced(self, values: Tensor) -> Tensor:
        changed = self.x.clone()
        changed[:, self.place] = values.to(self.x.dtype)
        for place, factor in self.column.moves:
            # What was wrong with it before stays wrong.
            moved = factor * (values - self.x[:, self.place].double())
            changed[:, place] = (self.x[:, place].double() + moved).to(self.x.dtype)
        return changed

    def _said(self, function: PlacedFunction) -> Tensor:
        columns = self.x.double().unbind(1)
        return function.value(columns, torch.zeros_like(columns[self.place]))
