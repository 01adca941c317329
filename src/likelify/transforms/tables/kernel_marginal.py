"""Gaussianisation of each column of a table by its own kernel density, fitted and not trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from likelify.errors import ConfigError, DataError, ShapeError, StateError
from likelify.shapes import check_size
from likelify.structure import ContextLike, sum_items
from likelify.support import Interval, within
from likelify.transforms.columns import InDouble
from likelify.transforms.core import Transform
from likelify.transforms.inversion import EXACT
from likelify.transforms.rules import FINITE, POSITIVE
from likelify.transforms.tables.kernel_density import Density, fit_density, fresh_density
from likelify.transforms.tables.pieces import Pieces, derived

Ends = float | Sequence[float | None] | Tensor | None
# Odd, so that the middle of a symmetric range is in a cell, not between two.
CELLS = 4095
# Ranges that are no wider are empty as far as float64 can tell.
NARROWEST = 1e-290
# How far the masses of a state may be from one, which rounding is not.
WHOLE = 1e-6
# What follows from what was fitted, and is not kept with the weights.
_DERIVED = ("log_density", "below", "above", "near", "beyond", "reach", "log_tail", "least", "stop", "inner")


class KernelMarginal(InDouble, Transform):
    r"""Map each column of a table to a standard normal by its own distribution function, fitted and not trained.

    `z = Phi^-1(F(x))` and `log dz/dx = log f(x) - log phi(z)`. The density `f` is constant on cells of equal width
    in `a = asinh((x - c) / s)`, with the median `c` and a scale `s` of 0.5 or 3 interquartile ranges, so that it is
    exact, fine in the bulk and logarithmic in heavy tails. Where the distance from an end of the range grows
    tenfold over the middle half of the values, `c` may be that end, and `s` the distance of the nearest hundredth.
    It is a histogram smoothed by a kernel, and a floor of Student's t with three degrees of freedom in `a`, whose
    share is `2 / n`, at least 1e-4 and at most 0.02. Scale and bandwidth have the best leave-one-out likelihood.
    Beyond the cells the probability falls with the third power of `a`, so that scores of all that float64 can hold
    stay finite, within about 8.

    `F` is accumulated from both ends, so no digits are lost near one. Everything is computed in float64, whatever the
    dtype of the flow, and only `z` and the contribution have that dtype; `inverse` returns float64. A flow that starts
    with this layer and a standard normal base starts as the model of independent columns. A change of the units of a
    column changes its density by the Jacobian of that change alone.

    Ranges: the kernel is reflected at their ends, so a density that jumps there, or is infinite, is caught. A range
    that was *declared* is hard: outside the log-density is minus infinity in a flow, and draws are strictly inside; a
    value at the very end has the score of the middle of the outermost cell. One that was *found* is soft: outside there
    is a floor of less than half a row in total, and `inverse` moves a `z` from there to just inside, so that its round
    trip is not the identity there.

    Missing values (NaN) are left out of the fit, column by column, and stay NaN.

    Args:
        columns: number of columns.
        lower: ends of the ranges: one for all, or one for each column, None or minus infinity where there is none.
        upper: the other ends.
        declared: whether the ranges are hard; one truth value for all, or one for each column. By default they are.
        cells: how many there are.

    Raises:
        ConfigError: for ranges that end before they begin.
        DomainError: for values outside of a declared range, infinities among them.
        ShapeError: for rows of another length.

    Source:
        Rosenblatt 1952; leave-one-out likelihood: Habbema et al. 1974; reflection: Schuster 1985.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> rows = torch.rand(2000, 1, dtype=torch.float64).log().neg() * 40
        >>> layer = KernelMarginal(1, lower=0.0)
        >>> z = layer.initialize(rows)
        >>> bool(z.mean().abs() < 0.05), bool((z.std() - 1).abs() < 0.05)
        (True, True)
    """

    fills_space = True
    takes_float64 = True
    inverse_check = EXACT

    in_double = ("center", "unit", "ends", "mass", "tails", "lower", "upper", *_DERIVED)
    buffer_rules = {
        "center": FINITE,
        "unit": POSITIVE,
        "ends": FINITE,
        "mass": POSITIVE,
        "tails": ("from 0 to 1", lambda tails: ((tails >= 0) & (tails < 1)).all()),
    }
    center: Tensor
    unit: Tensor
    ends: Tensor
    mass: Tensor
    tails: Tensor
    lower: Tensor
    upper: Tensor
    hard: Tensor

    def __init__(
        self,
        columns: int,
        *,
        lower: Ends = None,
        upper: Ends = None,
        declared: bool | Sequence[bool] = True,
        cells: int = CELLS,
    ) -> None:
        super().__init__()
        self.columns = columns = check_size(columns, "The number of columns of KernelMarginal")
        self.cells = check_size(cells, "The cells of KernelMarginal", least=16)
        self.takes = (columns,)
        low, high = _per_column(lower, -math.inf, columns, "lower"), _per_column(upper, math.inf, columns, "upper")
        hard = torch.as_tensor(declared).expand(columns).clone()
        _check_ranges(low, high)
        for name, value in (("lower", low), ("upper", high), ("hard", hard)):
            self.register_buffer(name, value, persistent=False)
        sizes = {"center": (), "unit": (), "ends": (2,), "tails": (2,), "mass": (self.cells,)}
        for name, size in sizes.items():
            self.register_buffer(name, torch.zeros(columns, *size, dtype=torch.float64))
        for column in range(columns):
            start, stop = float(low[column]), float(high[column])
            self._set(column, fresh_density(start, stop, hard=bool(hard[column]), cells=self.cells))
        for name, value in derived(self.mass, self.ends, self.tails, low, high).items():
            self.register_buffer(name, value, persistent=False)
        if bool((hard & (low.isfinite() | high.isfinite())).any()):
            self.domain = Interval(*_hull(low, high, hard), closed=True)
            self.fills_space = False

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Fit the density of each column to its values in the sample; missing ones (NaN) are left out.

        A column without values keeps the density that it has.

        Raises:
            DataError: if the sample is empty, or a value is infinite or outside of a declared range.
        """
        if len(x) == 0:
            raise DataError("KernelMarginal.initialize got an empty sample.")
        with torch.no_grad():
            rows = x.detach().to("cpu", torch.float64)
            inside = self.inside(rows.to(self.center)).cpu()
            if not bool(inside.all()):
                row, column = (int(place) for place in (~inside).nonzero()[0])
                raise DataError(
                    f"Column {column} (from 0) of the sample has the value {float(rows[row, column]):g}, which is "
                    "infinite or outside of the range that was declared for it. Drop such rows, or widen the range."
                )
            for column, values in enumerate(rows.T):
                values = values[~values.isnan()]
                if len(values):
                    ends = float(self.lower[column]), float(self.upper[column])
                    found = fit_density(values, *ends, hard=bool(self.hard[column]), cells=self.cells)
                    self._set(column, found)
            self._derive()
        return super().initialize(x, context)

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Map each column to a standard normal, in the dtype of the flow."""
        x = x.to(self.center)
        x, inside = within(x, self.inside(x), self, "the ranges of their columns", self.center)
        z, log_slope = self.scores(self.off_ends(x))
        log_slope = torch.where(inside, log_slope, -math.inf)
        return z.to(self.like), sum_items(log_slope, context).to(self.like)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Map standard normals back to the units of the columns, in float64, just inside of all ranges."""
        x, log_slope = self.values(z.to(self.center))
        return x, -sum_items(log_slope, context)

    def off_ends(self, x: Tensor) -> Tensor:
        """Return values with those at the very ends of declared ranges moved into the middle of the outermost cell.

        There the density is the same, and the score is not infinite.
        """
        low, high = self.ends.unbind(1)
        half = (high - low) / (2 * self.cells)
        first = self.center + self.unit * torch.sinh(low + half)
        last = self.center + self.unit * torch.sinh(high - half)
        x = torch.where(self.hard & (x <= self.lower), first, x)
        return torch.where(self.hard & (x >= self.upper), last, x)

    def scores(self, x: Tensor, column: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the score `z` of each value, and `log dz/dx`.

        Those of the ends of declared ranges, and of what is outside, are some -9.7 and 9.7: finite, beyond all draws.

        Args:
            x: `(rows, columns)` in float64, finite or NaN.
            column: which column values `(rows,)` are of, if it is one.
        """
        if column is None:
            return self._pieces().scores(x)
        z, log_slope = self._pieces().of(column).scores(x[:, None])
        return z[:, 0], log_slope[:, 0]

    def values(self, z: Tensor, column: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the value of each score, just inside of all ranges, and `log dz/dx` there.

        Args:
            z: `(rows, columns)` in float64, finite or NaN.
            column: which column scores `(rows,)` are of, if it is one.
        """
        if column is None:
            return self._pieces().values(z)
        x, log_slope = self._pieces().of(column).values(z[:, None])
        return x[:, 0], log_slope[:, 0]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *how: Any, **named: Any) -> None:
        given = [state_dict.get(prefix + name) for name in ("mass", "tails", "ends")]
        if all(isinstance(tensor, Tensor) and tensor.ndim == 2 for tensor in given):
            self._check_whole(*given)  # pyright: ignore[reportArgumentType]
        super()._load_from_state_dict(state_dict, prefix, *how, **named)
        self._derive()

    def _check_whole(self, mass: Tensor, tails: Tensor, ends: Tensor) -> None:
        """Refuse a state whose columns are no densities.

        Raises:
            StateError: then.
        """
        whole = mass.double().sum(1) + tails.double().sum(1)
        # Single numbers that cannot be have a rule of their own.
        if not bool(((mass > 0) & mass.isfinite()).all() and whole.isfinite().all() and ends.isfinite().all()):
            return
        if not (bool(((whole - 1).abs() <= WHOLE).all()) and bool((ends[:, 0] < ends[:, -1]).all())):
            raise StateError(
                "The masses of each column of a KernelMarginal must sum to one, and its ends must rise, and in what is "
                "to be loaded that is not so. The state dictionary is damaged, or was changed."
            )

    def inside(self, x: Tensor) -> Tensor:
        """Tell which values `(rows, columns)` are finite and within their declared ranges, or missing."""
        outside = self.hard & ((x < self.lower) | (x > self.upper))
        return ~(x.isinf() | outside)

    def _pieces(self) -> Pieces:
        return Pieces(*(self.get_buffer(name) for name in Pieces._fields))

    def _set(self, column: int, found: Density) -> None:
        grid = found.grid
        self.center[column], self.unit[column] = grid.center, grid.unit
        self.ends[column] = torch.tensor([grid.low, grid.high], dtype=torch.float64)
        self.tails[column] = torch.tensor(found.tails, dtype=torch.float64)
        self.mass[column] = found.mass

    def _derive(self) -> None:
        with torch.no_grad():
            for name, value in derived(self.mass, self.ends, self.tails, self.lower, self.upper).items():
                self.get_buffer(name).copy_(value)


def _per_column(ends: Ends, missing: float, columns: int, name: str) -> Tensor:
    """Return an end for each column in float64."""
    if isinstance(ends, Sequence):
        ends = torch.tensor([missing if end is None else float(end) for end in ends], dtype=torch.float64)
    found = torch.as_tensor(missing if ends is None else ends, dtype=torch.float64)
    if found.ndim > 1 or (found.ndim and len(found) != columns):
        raise ShapeError(f"KernelMarginal has {columns} columns, and {name} is of shape {tuple(found.shape)}.")
    return found.expand(columns).clone()


def _check_ranges(lower: Tensor, upper: Tensor) -> None:
    wrong = ~(upper - lower > NARROWEST)
    if bool(wrong.any()):
        column = int(wrong.nonzero()[0])
        raise ConfigError(
            f"KernelMarginal needs lower < upper, by more than {NARROWEST:g}, and column {column} (from 0) has "
            f"{float(lower[column]):g} and {float(upper[column]):g}."
        )


def _hull(lower: Tensor, upper: Tensor, hard: Tensor) -> tuple[float, float]:
    """Return the smallest interval that has all hard ranges in it."""
    return (
        float(torch.where(hard, lower, -math.inf).min()),
        float(torch.where(hard, upper, math.inf).max()),
    )
