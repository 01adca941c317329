"""Values of a table that are there, but were never seen: what their probability is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from likelify.schema import ColumnSchema
from likelify.transforms.columns import InDouble

# Farther out, in scales, nothing becomes rarer: squares would leave float64.
FAR = 1e140
# The share of whole numbers beyond those that float64 tells apart, where all others have cells.
RARE = 1e-18


class Unseen(InDouble):
    r"""The split of the state `other` of `d` columns between missing values and values that were never seen.

    Of the `m` values of the sample that are `other` all are missing, so by Laplace's rule of succession the next that
    is `other` is of another kind with probability `q = 1 / (m + 2)`; since `other` has about `m / n` of `n` rows, all
    that was never seen has about the probability of one row. Before the layer is fitted `q` is a half. The terms are

        log(1 - q)             of a missing value,
        log q + log g(x)       of any other; g sums, or integrates, to one over all that was never seen.

    A word that was never seen is one event, whichever word it is: `g = 1`. Of whole numbers and dates `g` is the mass
    in `[x - 1/2, x + 1/2]` of a Cauchy distribution around the median of the sample with half its interquartile range
    as scale, within the range, without the states; with steps the whole numbers between two multiples share the mass
    between these. Of real numbers `g` is the density. It is zero for what cannot be: fractions among whole numbers,
    what lies outside of a declared range, a third truth value.
    """

    in_double = ("center", "scale", "share", "step", "lower", "upper", "states")
    center: Tensor
    scale: Tensor
    share: Tensor
    step: Tensor
    lower: Tensor
    upper: Tensor
    states: Tensor
    words: Tensor
    real: Tensor
    whole: Tensor
    stepped: Tensor

    def __init__(self, schema: Sequence[ColumnSchema]) -> None:
        super().__init__()
        count = len(schema)
        words = [column.categories is not None for column in schema]
        # All other values of columns with a density are seen, and there is no third truth value.
        real = [column.kind == "real" and column.rest != "density" for column in schema]
        whole = [column.kind in ("integer", "date") and column.rest != "density" for column in schema]
        # One for columns without steps, so that no gradient of what is not taken is undefined.
        steps = [(column.step or 1.0) if column.rest == "steps" else 1.0 for column in schema]
        stepped = [column.rest == "steps" for column in schema]
        ranges = [column.range if column.declared else (-math.inf, math.inf) for column in schema]
        for name, flags in (("words", words), ("real", real), ("whole", whole), ("stepped", stepped)):
            self.register_buffer(name, torch.tensor(flags), persistent=False)
        numbers = {"step": steps, "lower": [low for low, _ in ranges], "upper": [high for _, high in ranges]}
        for name, values in numbers.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64), persistent=False)
        most = max((len(column.states) for column in schema), default=0)
        padded = [(*column.states, *(math.nan,) * (most - len(column.states))) for column in schema]
        states = torch.tensor(padded, dtype=torch.float64).reshape(count, most)
        self.register_buffer("states", states, persistent=False)
        self.register_buffer("center", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(count, dtype=torch.float64))
        self.register_buffer("share", self._share(torch.zeros(count, dtype=torch.float64)))

    def initialize(self, value: Tensor) -> None:
        """Fit medians, scales and shares to values `(rows, d)`."""
        for place, column in enumerate(value.T):
            known = column[column.isfinite()]
            if self.words[place] or not len(known):
                continue
            ordered = known.sort().values
            quarter, half, last = (int(share * (len(ordered) - 1)) for share in (0.25, 0.5, 0.75))
            spreads = torch.stack([ordered[last] - ordered[quarter], ordered[-1] - ordered[0], ordered[half].abs()]) / 2
            least = 1.0 if self.whole[place] else 0.0
            positive = spreads[spreads > 0]
            self.center[place] = ordered[half]
            self.scale[place] = positive[0].clamp_min(least) if len(positive) else 1.0
        self.share.copy_(self._share(value.isnan().sum(0).to(self.share)))

    def terms(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return the terms of values `(rows, d)` that are `other`, and what of each has the unit of a density.

        Terms are minus infinity for what cannot be.
        """
        shared = torch.where(
            self.words, 0.0, torch.where(self.whole, self._log_masses(value), self._log_density(value))
        )
        may_be = value.isfinite() & (self.words | ((value >= self.lower) & (value <= self.upper)))
        # Whole numbers alone among whole numbers; nothing else at all where all is seen.
        may_be = may_be & torch.where(self.whole, value == value.round(), self.words | self.real)
        terms = torch.where(may_be, self.share.log() + shared, -math.inf)
        unit = torch.where(may_be & self.real, -self.scale.log(), 0.0)
        return torch.where(value.isnan(), torch.log1p(-self.share), terms), unit

    def _share(self, missing: Tensor) -> Tensor:
        share = 1 / (missing + 2)
        share = torch.where(self.whole & self.stepped & (self.step <= 1), RARE, share)
        return torch.where(self.words | self.real | self.whole, share, 0.0)

    def _log_density(self, value: Tensor) -> Tensor:
        z = ((value - self.center) / self.scale).clamp(-FAR, FAR)
        inside = self._log_between(self.lower, self.upper)
        return -(math.pi * self.scale * (1 + z * z)).log() - inside

    def _log_masses(self, value: Tensor) -> Tensor:
        """Return the logarithm of the masses of whole numbers."""
        low, high = self.lower.ceil(), self.upper.floor()
        total = self._log_between(low - 0.5, high + 0.5).exp() - self._taken(low, high)
        alone = self._log_between(value - 0.5, value + 0.5, 1.0) - total.clamp_min(torch.finfo(total.dtype).eps).log()
        left = (value / self.step).floor() * self.step
        right = left + self.step
        first, last = torch.maximum(left.floor() + 1, low), torch.minimum(right.ceil() - 1, high)
        shared = self._log_between(torch.maximum(left, self.lower), torch.minimum(right, self.upper))
        shared = shared - (last - first + 1).clamp_min(1).log() - self._log_between(self.lower, self.upper)
        return torch.where(self.step > 1, shared, alone)

    def _taken(self, low: Tensor, high: Tensor) -> Tensor:
        """Return the mass of the states of columns that have nothing else."""
        if not self.states.shape[1]:
            return torch.zeros_like(low)
        mass = self._log_between(self.states.T - 0.5, self.states.T + 0.5, 1.0).exp()
        counted = self.states.T.isfinite() & (self.states.T >= low) & (self.states.T <= high) & ~self.stepped
        return torch.where(counted, mass, 0.0).sum(0)

    def _log_between(self, low: Tensor, high: Tensor, width: float | None = None) -> Tensor:
        """Return the logarithm of the mass of an interval; differences of distribution functions would cancel."""
        a, b = (((end - self.center) / self.scale).clamp(-FAR, FAR) for end in (low, high))
        length = b - a if width is None else width / self.scale
        return (torch.atan2(length, 1 + a * b) / math.pi).log()
