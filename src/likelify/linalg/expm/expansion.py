r"""Sums `exp(M) x = sum_k c_k p_k` of vectors `p_k` that a recurrence gives, and the rule that says when to stop.

`M = step (L - shift)` is one step of the exponential, and `radius` bounds `||M||_2`. Each vector costs one application
of the map. The power series and the Chebyshev expansions differ in their coefficients and in the recurrence; everything
else (sums, stopping, gradients, certificates) is written once, for what the interface `Expansion` says.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from likelify.linalg.bounds import safe_exp
from likelify.linalg.maps import LinearMap
from likelify.tracing import cached_property

# Radii are rounded up to powers of it where something is computed once for each of them.
GRID = 1.02
SMALLEST = 1e-6
# Between these sizes the squares of the elements of an item, and of the smallest term that matters, stay in the range
# of single precision.
PLAIN = (1e-15, 1e12)
# Derivatives up to this order are found to the tolerance of the value, times the factor for each order. Where norms are
# not small the degree that serves the value serves them too: one term less leaves out about `degree / norm` times more.
ORDERS, PER_ORDER = 4, 20.0
# Rounding may carry the observed norm of a vector beyond its bound by this much; more contradicts the bound.
SLACK = 1.02
# Where norms are that much above the smallest normal number: below, numbers have few digits left.
ROOM = 1e4


def on_grid(radius: float) -> float:
    """Round a radius up, so that what is computed once for each radius is computed seldom."""
    power = math.ceil(math.log(max(radius, SMALLEST)) / math.log(GRID))
    # Rounding may have gone below.
    return GRID**power if GRID**power >= radius else GRID ** (power + 1)


def scaled(x: Tensor, factor: float) -> Tensor:
    """Multiply by a number, without work where it is one."""
    return x if factor == 1 else x * factor


@dataclass(frozen=True)
class Expansion(ABC):
    """An expansion of the exponential of one step.

    Attributes:
        radius: a bound of `||M||_2`.
        step: the factor on the map, `time` over the number of steps.
        exponent: `step shift`, the logarithm of a factor on the result (which may be too small for a number).
        powers: whether the vectors are powers of the map; then the norm of one bounds those after it, and the error of
            stopping there.
    """

    radius: float
    step: float = 1.0
    exponent: float = 0.0
    powers: ClassVar[bool] = False

    @property
    def gain(self) -> float:
        """The factor on the result."""
        return safe_exp(self.exponent)

    @abstractmethod
    def coefficient(self, k: int) -> float:
        """Return `c_k`, the coefficient of the vector `p_k` as `advance` makes it."""

    @abstractmethod
    def advance(self, map_: LinearMap, current: Tensor, previous: Tensor | None, k: int) -> Tensor:
        """Return `p_k` from `p_(k-1)` and `p_(k-2)`."""

    @abstractmethod
    def unit(self, k: int, radius: float) -> float:
        """Return the factor between `p_k` and a polynomial in `M` of norm at most one, if `radius` bounds `||M||`."""

    @abstractmethod
    def tail(self, degree: int) -> float:
        """Bound `sum_{k > degree} |c_k| ||p_k|| / ||p_0||`, the truncation error."""

    def remainder(self, last: Tensor, k: int) -> Tensor:
        """Bound the truncation error of each item from the norm of its last vector `p_k`; only for powers."""
        raise NotImplementedError(f"The norms of the vectors of {type(self).__name__} bound no error.")

    @abstractmethod
    def rounded(self) -> "Expansion":
        """Return a canonical expansion, so that the coefficients of `divided` are computed once for all close radii."""

    @abstractmethod
    def divided(self, terms: int) -> np.ndarray:
        r"""Return the coefficients of the derivative, `d exp(M) = sum_jk D_jk q_k(M) dM q_j(M)`.

        The `q_j` are the polynomials of the recurrence, scaled to norm at most one; `(terms, terms)`.
        """


def evaluate(
    expansion: Expansion,
    map_: LinearMap,
    x: Tensor,
    degree: int,
    *,
    stop: Callable[[Tensor, int], bool] | None = None,
    keep: Callable[[Tensor], None] | None = None,
) -> tuple[Tensor, int]:
    """Sum an expansion up to `degree`, or until `stop(p_k, k)`.

    Args:
        expansion: coefficients and recurrence.
        map_: the map; its shift is already taken off.
        x: rows.
        degree: of the last term.
        stop: looks at each vector and says whether it is the last one.
        keep: is shown each vector of the recurrence from `p_0` on.

    Returns:
        The sum, and the degree of the last term in it.
    """
    current, previous = x, None
    total, k = None, 0
    if keep is not None:
        keep(x)
    while not (stop is not None and k > 0 and stop(current, k)) and k < degree:
        k += 1
        current, previous = expansion.advance(map_, current, previous, k), current
        if keep is not None:
            keep(current)
        if total is None:
            total = torch.add(scaled(x, expansion.coefficient(0)), current, alpha=expansion.coefficient(1))
        else:
            total = total.add_(current, alpha=expansion.coefficient(k))
    # The value must never be the input itself, which the caller may change.
    return x * expansion.coefficient(0) if total is None else total, k


class StoppingRule:
    """Stop as soon as the error bound of every item, found from the terms themselves, is small enough.

    The norms of the terms that it looks at also tell whether the norm bound of the map can be true, and how large the
    terms are that the gradient is made of.

    Args:
        map_: measures the items.
        expansion: of the step.
        start: norms of the items of `p_0`.
        allowed: the error that each item may have.
        first: number of the first vector that is looked at; looking earlier only costs host syncs.
        plain: whether no square of an element that matters leaves the floating range.
        stops: whether to stop at all. What automatic differentiation works through is a sum for every direction, not
            only for the vectors at hand: with a vector in the kernel of the map its first term says nothing.

    Attributes:
        error: bound of the error of each item, or None before anything was seen.
        measures_all: measure the vectors before the first test as well, for what `sizes` says of them.
    """

    def __init__(
        self,
        map_: LinearMap,
        expansion: Expansion,
        start: Tensor,
        allowed: Tensor,
        first: int,
        *,
        plain: bool,
        stops: bool = True,
    ) -> None:
        self._map, self._expansion, self._start, self._allowed = map_, expansion, start, allowed
        self._first, self._plain, self._stops = first, plain, stops
        self._seen: list[int] = []
        self._norms: list[Tensor] = []
        self.error: Tensor | None = None
        self.measures_all = False
        self._smallest = 0.0
        self._unknown = 0.0

    def __call__(self, vector: Tensor, k: int) -> bool:
        """Update the error bound with `p_k`; return whether to stop."""
        if k < self._first and not self.measures_all:
            return False
        norms = self._map.item_norms(vector.detach(), plain=self._plain)
        self._smallest = ROOM * torch.finfo(vector.dtype).tiny
        self._seen.append(k)
        self._norms.append(norms)
        if k < self._first or not self._expansion.powers:
            return False
        self.error = self._expansion.remainder(norms, k)
        return self._stops and bool((self.error <= self._allowed).all())

    def certified(self, degree: int) -> Tensor:
        """Return the error bound of each item: from the last vector seen, or a priori if none was."""
        return self._start * self._expansion.tail(degree) if self.error is None else self.error

    @cached_property
    def ratios(self) -> dict[int, float]:
        """For each vector seen `max ||p_k|| / (|unit_k| ||p_0||)`, at most one if the norm bound is true.

        Ask when the sum is complete: it is found once.
        """
        ratios: dict[int, float] = {}
        if self._seen and len(self._start):
            # Numbers near underflow are rounded to few digits, and may grow by that more than any bound allows.
            found = torch.stack(self._norms) / self._start
            measurable = self._start > self._smallest
            observed = torch.where(measurable, found, 0.0).nan_to_num(nan=0.0, posinf=0.0).amax(1)
            # Of what is too small to be measured nothing is known, so it bounds no size.
            unknown = (~measurable & (self._start > 0)).any()
            *values, self._unknown = torch.cat([observed, unknown[None].to(observed)]).tolist()
            for k, ratio in zip(self._seen, values, strict=True):
                ratios[k] = ratio / max(abs(self._expansion.unit(k, self._expansion.radius)), 1e-300)
        return ratios

    def sizes(self, degree: int) -> list[float]:
        """Bound the ratios of the vectors up to a degree: those of powers never grow, so each bounds those after it."""
        sizes, ratios = [1.0], self.ratios
        if self._expansion.powers and not self._unknown:
            for k in range(1, min(degree, max(ratios, default=0)) + 1):
                sizes.append(min(sizes[-1], ratios.get(k, 1.0)))
        return sizes

    @property
    def excess(self) -> float:
        """By what factor the vectors grew more than the norm bound allows, at least one."""
        excess = 1.0
        for k, ratio in self.ratios.items():
            if ratio > SLACK:
                excess = max(excess, ratio ** (1 / k))
        return excess


def stopping_rule(
    map_: LinearMap, expansion: Expansion, start: Tensor, allowed: Tensor, degree: int, *, stops: bool = True
) -> StoppingRule:
    """Make a stopping rule for a sum that needs at most `degree` terms."""
    plain = bool(((allowed > PLAIN[0]) & (start < PLAIN[1])).all())
    # The a-posteriori test cannot succeed long before the a-priori one.
    first = max(1, degree // 3) if expansion.powers and stops else max(1, degree)
    return StoppingRule(map_, expansion, start, allowed, first, plain=plain, stops=stops)
