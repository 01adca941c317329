"""Distribution functions of columns that are constant in pieces on a squashed scale, and their scores, both ways."""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import torch
from torch import Tensor

from likelify.distributions.normal import LOG_SQRT_2PI, probability_below
from likelify.transforms.tables.kernel_density import log_cosh, squashed

# Part of an outermost cell that stands for the very end of a hard range, whose score would be infinite.
NEAREST = 2.0**-60
# Smaller probabilities have no quantile.
LEAST = 1e-300
# The least distance over which the probability beyond the cells falls, on the squashed scale.
LEAST_REACH = 0.1


class Pieces(NamedTuple):
    """The distribution functions of `d` columns: cells of equal width in `a = asinh((x - center) / unit)`, and tails.

    In cells the density of `a` is constant. Beyond their ends, with probability `tail` each, the probability falls with
    the third power: `tail / (1 + distance / reach)^3`. Of both sides that are told by a last axis, the first is below.

    Attributes:
        center: `(d,)`.
        unit: `(d,)`.
        ends: `(d, 2)` of the cells.
        tails: `(d, 2)` probabilities beyond them.
        mass: `(d, cells)` probabilities.
        log_density: `(d, cells)` of `a`.
        below: `(d, cells + 1)` probability below each edge.
        above: `(d, cells + 1)` probability above each edge.
        near: `(d, cells)` probability below the lower edge in the cells up to the median, above the upper edge in
            others.
        middle: `(d,)` number of cells up to the median.
        beyond: `(d,)` probability above them.
        reach: `(d, 2)`.
        log_tail: `(d, 2)` log-density of `a` just beyond the cells.
        least: `(d, 2)` smallest probabilities of scores of values within the cells.
        stop: `(d, 2)` smallest probabilities that `values` takes as they are.
        inner: `(d, 2)` the smallest and the largest value that `values` returns.
    """

    center: Tensor
    unit: Tensor
    ends: Tensor
    tails: Tensor
    mass: Tensor
    log_density: Tensor
    below: Tensor
    above: Tensor
    near: Tensor
    middle: Tensor
    beyond: Tensor
    reach: Tensor
    log_tail: Tensor
    least: Tensor
    stop: Tensor
    inner: Tensor

    def of(self, column: int) -> Self:
        """Return those of one column."""
        return type(self)(*(tensor[column : column + 1] for tensor in self))

    def scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the score `z` of each value, and `log dz/dx`; `x` is `(rows, d)`, and NaN stays NaN."""
        a = squashed(x, self.center, self.unit)
        low, high = self.ends.unbind(1)
        cells = self.mass.shape[1]
        place = (a - low) * (cells / (high - low))
        cell = place.detach().nan_to_num(0.0).floor().clamp(0, cells - 1)
        part, cell = place - cell, cell.long()
        left = cell < self.middle
        mass = _at(self.mass, cell)
        tail = _at(self.near, cell) + torch.where(left, part, 1 - part) * mass
        # In the cell of the median, which may be the last one, from the side on which the probability is smaller.
        crossed = left & (tail > 0.5)
        left, tail = left & ~crossed, torch.where(crossed, self.beyond + (1 - part) * mass, tail)
        tail = torch.maximum(tail, torch.where(left, self.least[:, 0], self.least[:, 1]))
        log_density = _at(self.log_density, cell)
        for side, beyond in enumerate((low - a, a - high)):
            outside = (beyond > 0) & (self.tails[:, side] > 0)
            farther = 1 + beyond.clamp_min(0) / self.reach[:, side]
            left = torch.where(outside, side == 0, left)
            tail = torch.where(outside, self.tails[:, side] / (farther * farther * farther), tail)
            log_density = torch.where(outside, self.log_tail[:, side] - 4 * farther.log(), log_density)
        z = torch.special.ndtri(tail)
        z = torch.where(left, z, -z)
        return z, self._log_slope(log_density, a, z)

    def values(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the value of each score, and `log dz/dx` there; `z` is `(rows, d)`."""
        left = z < 0
        tail = probability_below(-z.abs()).clamp_min(LEAST)
        tail = torch.maximum(tail, torch.where(left, self.stop[:, 0], self.stop[:, 1]))
        cell = self._cell(tail.detach(), left)
        mass = _at(self.mass, cell)
        part_left, part_right = (tail - _at(self.below, cell)) / mass, 1 - (tail - _at(self.above, cell + 1)) / mass
        low, high = self.ends.unbind(1)
        a = low + (cell + torch.where(left, part_left, part_right).clamp(0, 1)) * ((high - low) / self.mass.shape[1])
        log_density = _at(self.log_density, cell)
        for side, end in enumerate((low, high)):
            outside = (left if side == 0 else ~left) & (tail < self.tails[:, side])
            farther = (self.tails[:, side] / tail).clamp_min(1.0) ** (1 / 3)
            a = torch.where(outside, end + (2 * side - 1) * self.reach[:, side] * (farther - 1), a)
            log_density = torch.where(outside, self.log_tail[:, side] - 4 * farther.log(), log_density)
        x = (self.center + self.unit * torch.sinh(a)).clamp(self.inner[:, 0], self.inner[:, 1])
        return x, self._log_slope(log_density, a, z)

    def _cell(self, tail: Tensor, left: Tensor) -> Tensor:
        """Return the cell in which a probability, from the left or from the right, ends."""
        wanted = tail.T.contiguous()
        from_below = torch.searchsorted(self.below[:, 1:].contiguous(), wanted, right=True)
        from_above = torch.searchsorted(-self.above[:, 1:], -wanted)
        return torch.where(left, from_below.T, from_above.T).clamp_max(self.mass.shape[1] - 1)

    def _log_slope(self, log_density: Tensor, a: Tensor, z: Tensor) -> Tensor:
        return log_density - self.unit.log() - log_cosh(a) + 0.5 * z * z + LOG_SQRT_2PI


def derived(mass: Tensor, ends: Tensor, tails: Tensor, lower: Tensor, upper: Tensor) -> dict[str, Tensor]:
    """Return what follows from the fitted parts of `Pieces` and the ranges of the columns."""
    zero, cells = mass.new_zeros(len(mass), 1), mass.shape[1]
    below = tails[:, :1] + torch.cat([zero, mass.cumsum(1)], 1)
    above = tails[:, 1:] + torch.cat([mass.flip(1).cumsum(1).flip(1), zero], 1)
    width = (ends[:, 1:] - ends[:, :1]) / cells
    before_median = below[:, :-1] < 0.5
    reach = ends.abs().clamp_min(LEAST_REACH)
    end_cells = torch.stack([mass[:, 0], mass[:, -1]], 1)
    largest = torch.finfo(mass.dtype).max
    infinite = torch.full_like(lower, math.inf)
    inner = [
        torch.where(lower > -math.inf, torch.nextafter(lower, infinite), -largest),
        torch.where(upper < math.inf, torch.nextafter(upper, -infinite), largest),
    ]
    bounded = torch.stack([lower, upper], 1).isfinite()
    return {
        "log_density": (mass / width).log(),
        "below": below,
        "above": above,
        "near": torch.where(before_median, below[:, :-1], above[:, 1:]),
        "middle": before_median.sum(1),
        "beyond": above.gather(1, before_median.sum(1, keepdim=True))[:, 0],
        "reach": reach,
        "log_tail": (3 * tails / reach).log(),
        "least": tails + NEAREST * end_cells,
        "stop": torch.where(bounded, tails, 0.0),
        "inner": torch.stack(inner, 1),
    }


def _at(table: Tensor, index: Tensor) -> Tensor:
    """Return entries of each column of a table `(d, n)`, at `(rows, d)` indices."""
    columns, size = table.shape
    offset = size * torch.arange(columns, device=index.device)
    return table.reshape(-1)[index + offset]
