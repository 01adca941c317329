"""Where the columns of a table stand in what autoregressive models read and give.

A row of a table reaches a model as *cells* `(3, d)`, one for each of the `d` columns that have a place in the model:
the number of the state that the value is in (see `schema.ColumnSchema`), the score `z` of a value with a density or
steps, zero for others, and the width of the interval of `z` that the value stands for, zero for a density.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from likelify.errors import ConfigError
from likelify.schema import ColumnSchema
from likelify.shapes import check_event

# Cells that are no wider have their middle for a score; of those that are farther out nothing else can be computed.
NARROW, FARTHEST = 0.1, -12.0
# No score is lower.
LOWEST = -40.0


def random_order(schema: Sequence[ColumnSchema], seed: int) -> tuple[int, ...]:
    """Return an order of the columns that have a place in the model, drawn at random; conditions come first."""
    columns = [column for column in schema if column.is_modelled]
    shuffled = torch.randperm(len(columns), generator=torch.Generator().manual_seed(seed)).tolist()
    return tuple(sorted(shuffled, key=lambda place: not columns[place].given))


class CellLayout(nn.Module):
    """What of the cells of a table is read, and what is said of them, in the order of a model.

    Features are the scores of all columns that have a density or steps, in that order, and behind them a truth value
    for each state of the columns whose state is not sure. Of conditions nothing is said.

    Args:
        schema: of the columns of the table.
        order: places of the modelled columns, conditions first; as in the schema if None.
        smooth: no state is taken to be sure, so that what was never missing may be.

    Raises:
        ConfigError: if that is no order of the columns.
    """

    score_columns: Tensor
    score_states: Tensor
    state_columns: Tensor
    state_values: Tensor
    segments: Tensor
    has_steps: Tensor
    feature_positions: Tensor

    def __init__(
        self, schema: Sequence[ColumnSchema], order: Sequence[int] | None = None, *, smooth: bool = False
    ) -> None:
        super().__init__()
        self.columns = tuple(column for column in schema if column.is_modelled)
        self.order = _checked_order(self.columns, order)
        self.scored = [place for place in self.order if self.columns[place].continuous is not None]
        self.open = [place for place in self.order if smooth or not is_sure(self.columns[place])]
        self.stepped = any(column.rest == "steps" for column in self.columns)
        steps = torch.tensor([column.rest == "steps" for column in self.columns])
        self.register_buffer("has_steps", steps[:, None], persistent=False)
        given = [column.given for column in self.columns]
        self.given = sum(given)
        # Features of conditions come first among their kind, and have no outputs.
        self.given_scores = sum(given[place] for place in self.scored)
        self.given_open = sum(given[place] for place in self.open)
        sizes = [self.columns[place].size for place in self.open]
        self.given_states = sum(sizes[: self.given_open])
        self.starts = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
        self._keep("score_columns", self.scored)
        self._keep("score_states", [self.columns[place].continuous for place in self.scored])
        self._keep("state_columns", [place for place, size in zip(self.open, sizes, strict=True) for _ in range(size)])
        self._keep("state_values", [state for size in sizes for state in range(size)])
        position = {place: number for number, place in enumerate(self.order)}
        features = [*self.scored, *self.state_columns.tolist()]
        self._keep("feature_positions", [position[place] for place in features])
        member = self.state_columns[None, :] == torch.tensor(self.open, dtype=torch.long)[:, None]
        self.register_buffer("segments", member.to(torch.get_default_dtype()), persistent=False)

    def _keep(self, name: str, values: Sequence[object]) -> None:
        self.register_buffer(name, torch.tensor(values, dtype=torch.long), persistent=False)

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.columns)

    @property
    def scores(self) -> int:
        """Number of columns that have a density or steps."""
        return len(self.scored)

    @property
    def states(self) -> int:
        """Number of all states of columns whose state is not sure."""
        return self.starts[-1]

    @property
    def features(self) -> int:
        """Number of features."""
        return self.scores + self.states

    def split(self, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return states, scores and widths, each `(d, rows)`.

        Raises:
            ShapeError: if these are no cells of such a table.
        """
        check_event(cells.shape[1:], (3, self.width), "A distribution of the rows of this table")
        # Rows lie side by side, so that what is done for each column runs along them.
        state, z, width = cells.permute(1, 2, 0).contiguous()
        return state, z, width

    def encode(self, state: Tensor, z: Tensor, width: Tensor) -> Tensor:
        """Return the features `(features, rows)`: of wide cells the expected score, of others their middle."""
        if self.stepped:
            z = torch.where(self.has_steps, expected_score(z, width)[0], z)
        if self.scores == self.width == self.features and self.order == tuple(range(self.width)):
            return z
        scores = z.index_select(0, self.score_columns)
        if not self.states:
            return scores
        chosen = state.index_select(0, self.state_columns) == self.state_values[:, None]
        return torch.cat([scores, chosen.to(z.dtype)])

    def extra_repr(self) -> str:
        """Return the order and the sizes."""
        return f"columns={self.width}, features={self.features}, order={self.order}"


def expected_score(z: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of a standard normal score in a cell of that width around `z`.

    The middle of a wide cell, such as that of the lowest value of a count, is far from what its score is like.
    """
    # On the left, where probabilities are small and so keep their digits.
    # Not abs(), whose derivative at zero is that of neither side.
    left = torch.where(z > 0, -z, z)
    low, high = left - width / 2, left + width / 2
    wide = (width > NARROW) & (high > FARTHEST)
    low, high = torch.where(wide, low, -1.0).clamp_min(LOWEST), torch.where(wide, high, 0.0).clamp_max(-LOWEST)
    mass = 0.5 * (torch.erfc(-math.sqrt(0.5) * high) - torch.erfc(-math.sqrt(0.5) * low))
    density_low, density_high = ((-0.5 * end.square()).exp() / math.sqrt(2 * math.pi) for end in (low, high))
    mean = (density_low - density_high) / mass
    variance = 1 + (low * density_low - high * density_high) / mass - mean.square()
    mean = torch.where(wide, torch.where(z > 0, -mean, mean), z)
    return mean, torch.where(wide, variance.clamp_min(0), width.square() / 12)


def is_sure(column: ColumnSchema) -> bool:
    """Tell whether all values of a column are in its continuous state."""
    return column.rest != "none" and not column.states and not column.missing


def _checked_order(columns: Sequence[ColumnSchema], order: Sequence[int] | None) -> tuple[int, ...]:
    if order is None:
        return tuple(sorted(range(len(columns)), key=lambda place: not columns[place].given))
    order = tuple(order)
    if sorted(order) != list(range(len(columns))):
        raise ConfigError(f"An order of {len(columns)} columns names each of 0..{len(columns) - 1} once, not {order}.")
    given = [columns[place].given for place in order]
    if given != sorted(given, reverse=True):
        raise ConfigError("In the order of a model of a table the conditions (given=True) come first.")
    return order
