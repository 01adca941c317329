"""The first layer of models of mixed tables: columns of any kind to states and scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from likelify.errors import ConfigError, DataError
from likelify.schema import ColumnSchema
from likelify.shapes import Shape
from likelify.structure import ContextLike, sum_items
from likelify.support import within
from likelify.transforms.core import Transform
from likelify.transforms.tables.functions import Functions
from likelify.transforms.tables.kernel_marginal import CELLS, NARROWEST, KernelMarginal
from likelify.transforms.tables.states import States
from likelify.transforms.tables.steps import Steps, spread
from likelify.transforms.tables.unseen import Unseen

# Channels of the latent.
STATE, SCORE, WIDTH = 0, 1, 2
# Cells narrower than this have the width that their slope says: the difference of their ends has lost its digits.
NARROW = 1e-9
# Where the outermost cells of columns with steps end: what is farther out a normal distribution never is.
FARTHEST = 40.0


class _Found(NamedTuple):
    """What rows of a table are found to be.

    Attributes:
        value: `(rows, d)` of the modelled columns, in float64.
        state: `(rows, d)` number of the state.
        possible: `(rows, columns)` False where a value cannot be.
        split: `(rows, d)` logarithm of the share that a value has of the probability of `other`; zero elsewhere.
        unit: `(rows, d)` what of that has the unit of a density.
    """

    value: Tensor
    state: Tensor
    possible: Tensor
    split: Tensor
    unit: Tensor


class MixedColumns(Transform):
    r"""Map rows of a table, with columns of any kind and missing values, to cells: states, scores and widths.

    Data are rows `(n, columns)` in float64 as `ColumnSchema` says: NaN is missing, words are places in their
    `categories`. The latent is `(n, 3, d)`, over the columns that are no functions of others, in their order:

    - channel 0 is the number of the state: one of the column's `states`, `continuous`, or `other`;
    - channel 1 is the score `z` of a value in the state `continuous`, from a `KernelMarginal` fitted to such values;
    - channel 2 is the width of the cell in which the score lies: zero for columns with a density. Of a column with
      steps the value `k` is the cell between the scores of `k - step / 2` and `k + step / 2`; `z` is its middle, and
      neighbouring values have neighbouring cells. Values that are `states` have no such cell: the others close the gap.

    The contribution is the sum of `log dz/dx` over values of columns with a density (and of what was never seen, see
    below): behind a base that gives states
    and cells probabilities, and scores densities, `log p` is that of the row in the units of the table. Columns that
    are `given` contribute nothing. It is minus infinity for rows that cannot be: a value outside of a declared range,
    a fraction in a column of whole numbers, or a value that is not what its function says (where both sides are known;
    `inverse` computes these).

    Not missing and still `other` are values that were never seen: of columns without `continuous` those that are no
    state, of columns with steps those between the steps, or too large for float64 to tell neighbours apart. `other` has
    one probability for missing values and for all of these, which the contribution splits (`Unseen`): together the
    latter get about the probability of one row of the sample, and each the less the farther out it is; those that a
    column cannot have, such as fractions among whole numbers, none. `inverse` gives NaN.

    Args:
        schema: of the columns, in the order of the table.
        cells: of the fitted marginals.

    Raises:
        ConfigError: if there is no column to model, or a function is of columns that are not there.
        DomainError: for rows that cannot be, if the layer is not at work in a flow.

    Example:
        >>> colour = ColumnSchema.category("colour", ("blue", "red"))
        >>> layer = MixedColumns((ColumnSchema(name="length"), colour))
        >>> rows = torch.tensor([[0.5, 1.0], [2.5, 0.0], [1.5, math.nan]], dtype=torch.float64)
        >>> cells = layer.initialize(rows)
        >>> cells[:, 0]
        tensor([[0., 1.],
                [0., 0.],
                [0., 2.]])
        >>> back, _ = layer.inverse(cells)
        >>> back[:, 1]
        tensor([1., 0., nan], dtype=torch.float64)
    """

    has_atoms = True
    takes_float64 = True
    takes_missing = True
    inverse_check = None

    like: Tensor
    continuous: Tensor
    other: Tensor
    counts: Tensor
    # Numbers of columns where they are looked up: copying them to a device on each call would make the host wait.
    modelled_at: Tensor
    dense_at: Tensor
    stepped_at: Tensor
    back_at: Tensor

    def __init__(self, schema: Sequence[ColumnSchema], *, cells: int = CELLS) -> None:
        super().__init__()
        self.schema = tuple(schema)
        self.functions = Functions(self.schema)
        places = [place for place, column in enumerate(self.schema) if column.is_modelled]
        modelled = [self.schema[place] for place in places]
        if not modelled:
            raise ConfigError("A table whose columns are all constant, or functions of others, has nothing to model.")
        self.takes, self.gives = (len(self.schema),), (3, len(modelled))
        kinds = [column.rest for column in modelled]
        dense = [place for place, rest in enumerate(kinds) if rest == "density"]
        self.stepped = [place for place, rest in enumerate(kinds) if rest == "steps"]
        # Where each column is once those with densities are put together, those with steps, and the rest.
        order = [*dense, *self.stepped, *(place for place, rest in enumerate(kinds) if rest == "none")]
        back = [order.index(place) for place in range(len(order))]
        for name, numbers in {"modelled": places, "dense": dense, "stepped": self.stepped, "back": back}.items():
            self.register_buffer(f"{name}_at", torch.tensor(numbers, dtype=torch.long), persistent=False)
        self.states = States(modelled)
        self.steps = Steps([modelled[place] for place in self.stepped])
        self.densities = _marginals([modelled[place] for place in dense], cells)
        self.step_densities = _marginals([modelled[place] for place in self.stepped], cells, self.steps)
        self.unseen = Unseen(modelled)
        continuous = [-1 if column.continuous is None else column.continuous for column in modelled]
        self.register_buffer("continuous", torch.tensor(continuous), persistent=False)
        self.register_buffer("other", torch.tensor([column.other for column in modelled]), persistent=False)
        self.register_buffer("counts", torch.tensor([not column.given for column in modelled]), persistent=False)
        # Follows the dtype of the flow, which the fitted marginals do not.
        self.register_buffer("like", torch.empty(0), persistent=False)

    def extra_repr(self) -> str:
        """Return how many columns there are, and how many of them are modelled."""
        return f"columns={len(self.schema)}, modelled={len(self.modelled_at)}"

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return `(3, d)`, the shape of the cells."""
        super().out_shape(in_shape)
        return (3, len(self.modelled_at))

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Fit the marginals to the values of the sample that are in the state `continuous`.

        Values of columns with steps that are the same are spread evenly over their step for that.

        Raises:
            DataError: if the sample is empty, or a row of it cannot be; the column is named.
        """
        if len(x) == 0:
            raise DataError("MixedColumns.initialize got an empty sample.")
        with torch.no_grad():
            found = self._find(x)
            self._refuse(x, found.possible)
            self.unseen.initialize(found.value)
            value = torch.where(found.state == self.continuous, found.value, math.nan)
            if self.densities is not None:
                self.densities.initialize(value[:, self.dense_at])
            if self.step_densities is not None:
                _, numbers = self.steps.numbers(value[:, self.stepped_at])
                self.step_densities.initialize(torch.stack([spread(column) for column in numbers.T], 1))
        return super().initialize(x, context)

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Return the cells in the dtype of the flow, and the sum of `log dz/dx` over values that have a density."""
        found = self._find(x)
        _, possible = within(x, found.possible, self, "what their columns can have (see their schema)", 0.0)
        continuous = found.state == self.continuous
        z, width, log_slope = self._scores(torch.where(continuous, found.value, math.nan))
        log_slope = torch.where(continuous & self.counts, log_slope, found.split)
        impossible = torch.where(possible.all(1, keepdim=True), 0.0, -math.inf).to(log_slope)
        z, width = (torch.where(continuous, value, 0.0) for value in (z, width))
        cells = torch.stack([found.state.to(z), z, width], 1).to(self.like)
        return cells, sum_items(torch.cat([log_slope, impossible], 1), context).to(self.like)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Return rows of the table in float64: functions computed, and NaN for the state `other`."""
        state = torch.minimum(z[:, STATE].round().long().clamp_min(0), self.other)
        continuous = state == self.continuous
        value, log_slope = self._values(torch.where(continuous, z[:, SCORE], 0.0).to(self.states.values))
        value = torch.where(continuous, value, torch.where(state == self.other, math.nan, self.states.value(state)))
        rows = torch.full((len(z), len(self.schema)), math.nan, dtype=value.dtype, device=value.device)
        rows = rows.index_copy(1, self.modelled_at, value)
        log_slope = torch.where(continuous & self.counts, log_slope, self._of_missing(state))
        return self.functions.fill(rows), -sum_items(log_slope, context)

    def snap(self, z: Tensor, column: int) -> tuple[Tensor, Tensor]:
        """Return the cell in which scores of a modelled column lie: its middle and its width.

        Of a column with a density that is the score itself, and zero.

        Args:
            z: `(rows,)`.
            column: which of the modelled columns, from 0.
        """
        if column not in self.stepped or self.step_densities is None:
            return z, torch.zeros_like(z)
        place = self.stepped.index(column)
        value, _ = self.step_densities.values(z.to(self.states.values), place)
        number = value.round().clamp(self.steps.lowest[place], self.steps.highest[place])
        middle, width = _cells(self.step_densities, self.steps, number, place)
        return middle.to(z), width.to(z)

    def shares(self, x: Tensor) -> Tensor:
        """Return what of the contribution is the logarithm of a probability, and no volume: the split of `other`.

        Args:
            x: `(rows, columns)`.

        Returns:
            `(rows, columns)`.
        """
        found = self._find(x)
        return torch.zeros_like(found.possible, dtype=found.split.dtype).index_copy(
            1, self.modelled_at, found.split - found.unit
        )

    def _find(self, x: Tensor) -> _Found:
        """Return the states of the values, and which can be."""
        is_state, number = self.states.find(x[:, self.modelled_at])
        wide = x.to(self.states.values)
        value = wide[:, self.modelled_at]
        dense, stepped = value[:, self.dense_at], value[:, self.stepped_at]
        is_multiple, multiple = self.steps.numbers(stepped)
        may_be = self._together(~dense.isnan(), is_multiple, rest=False)
        inside = self._together(
            self.densities.inside(dense) if self.densities else ~dense.isnan(),
            self.step_densities.inside(multiple) if self.step_densities else is_multiple,
            rest=False,
        )
        state = torch.where(is_state, number, torch.where(may_be, self.continuous, self.other))
        outside = may_be & ~is_state & ~inside
        counts = (state == self.other) & self.counts
        split, unit = self.unseen.terms(value)
        outside = (outside | (counts & (split == -math.inf))) & self.counts
        split, unit = (torch.where(counts & ~outside, part, 0.0) for part in (split, unit))
        possible = self.functions.hold(wide)
        return _Found(value, state, possible.index_copy(1, self.modelled_at, ~outside), split, unit)

    def _scores(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return scores, widths and `log dz/dx` of values `(rows, d)`, which are NaN where they have none."""
        parts = []
        for places, marginal in ((self.dense_at, self.densities), (self.stepped_at, self.step_densities)):
            part = value[:, places]
            if marginal is None:
                parts.append((part, part, part))
            elif marginal is self.densities:
                # NaN would reach gradients of other values.
                z, log_slope = marginal.scores(marginal.off_ends(torch.where(part.isnan(), marginal.center, part)))
                parts.append((z, torch.zeros_like(z), log_slope))
            else:
                _, number = self.steps.numbers(part)
                z, width = _cells(marginal, self.steps, torch.where(number.isnan(), marginal.center, number))
                parts.append((z, width, torch.zeros_like(z)))
        z, width, log_slope = (self._together(dense, stepped, rest=0.0) for dense, stepped in zip(*parts, strict=True))
        return z, width, log_slope

    def _values(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return values of scores `(rows, d)`, and `log dz/dx`; NaN and zero where columns have neither."""
        dense, stepped = z[:, self.dense_at], z[:, self.stepped_at]
        x, log_slope = self.densities.values(dense) if self.densities else (dense, dense)
        steps = self.steps.values(self.step_densities.values(stepped)[0]) if self.step_densities else stepped
        return self._together(x, steps, rest=math.nan), self._together(log_slope, torch.zeros_like(steps), rest=0.0)

    def _together(self, dense: Tensor, stepped: Tensor, *, rest: float) -> Tensor:
        """Return what was computed for the columns of each kind, in the order of the columns."""
        count = len(self.back_at) - dense.shape[1] - stepped.shape[1]
        return torch.cat([dense, stepped, dense.new_full((len(dense), count), rest)], 1)[:, self.back_at]

    def _of_missing(self, state: Tensor) -> Tensor:
        """Return the terms of missing values for those in the state `other` `(rows, d)`, zero for all else."""
        return torch.where((state == self.other) & self.counts, torch.log1p(-self.unseen.share), 0.0)

    def _refuse(self, x: Tensor, possible: Tensor) -> None:
        if not bool(possible.all()):
            row, place = (int(number) for number in (~possible).nonzero()[0])
            column = self.schema[place]
            what = "lies outside of its range" if column.is_modelled else "is not what its function of the others gives"
            if column.kind in ("integer", "date") and column.is_modelled and float(x[row, place]) % 1:
                what = "is no whole number"
            raise DataError(
                f"In row {row} (from 0) of the sample the value {float(x[row, place]):.6g} of '{column.name}' {what}, "
                "so the row cannot be. Mend or drop such rows, or change what is declared of the column."
            )


def _marginals(columns: Sequence[ColumnSchema], cells: int, steps: Steps | None = None) -> KernelMarginal | None:
    """Return marginals of columns, of the numbers of their steps if they have some; None without columns."""
    if not columns:
        return None
    if steps is None:
        lower, upper = zip(*map(_range, columns), strict=True)
    else:
        lower, upper = (steps.lowest - 0.5).tolist(), (steps.highest + 0.5).tolist()
    declared = [column.declared for column in columns]
    return KernelMarginal(len(columns), lower=lower, upper=upper, declared=declared, cells=cells)


def _range(column: ColumnSchema) -> tuple[float, float]:
    """Return the range of a column; one that was found is none if it is too narrow for float64."""
    low, high = column.range
    return (low, high) if column.declared or high - low > NARROWEST else (-math.inf, math.inf)


def _cells(marginal: KernelMarginal, steps: Steps, number: Tensor, column: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the middle of the cell of each number, in scores, and its width; outermost cells reach far out."""
    first, last = (steps.first, steps.last) if column is None else (steps.first[column], steps.last[column])
    low, log_slope = marginal.scores(number - 0.5, column)
    high, _ = marginal.scores(number + 0.5, column)
    low, high = torch.where(number <= first, -FARTHEST, low), torch.where(number >= last, FARTHEST, high)
    width = high - low
    return low + width / 2, torch.where(width < NARROW, log_slope.exp(), width)
