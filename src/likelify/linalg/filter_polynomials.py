r"""Polynomials that stand for functions of the adjacency of a graph, with a proved error bound.

`A` is the normalized adjacency, symmetric with eigenvalues in [-1, 1] (`normalized_adjacency`), and `f` is analytic
around that interval: diffusion, personalised PageRank, bands of frequencies. With the Chebyshev series
`f = sum_k a_k T_k` and `||T_k(A)|| <= 1`, what a polynomial of degree `K` leaves out costs at most

    tail(K) = sum_{k > K} |a_k|

times the norm of each feature over each graph. Coefficients come from the values of `f` at `N = 2 (K + 1)` Chebyshev
points. That puts each `a_m` of `m >= N` in the place of one `a_k` with `|m - k|` or `m + k` a multiple of `2 N`; those
that end up at `k <= K` have `m >= 2 N - K`, so

    ||value - f(A) X|| <= (tail(K) + tail(3 K + 3)) ||X||.

Coefficients that turn out to be smaller than their bound are left out as long as the sum of all this stays below the
tolerance.

**Tails.** If `|f| <= M` on the Bernstein ellipse with foci -1 and 1 whose half axes add up to `rho > 1`, then
`|a_k| <= 2 M rho^-k`, and `tail(K) <= 2 M rho^-K / (rho - 1)`. A power series `f = sum_j b_j mu^j` has
`tail(K) <= sum_{j > K} |b_j|`: the Chebyshev coefficients of `mu^j` are not negative, add up to one, and are zero
beyond `j`.

Source: coefficients on ellipses and aliasing, Trefethen 2013, chapters 4 and 8.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from likelify.errors import ConvergenceError, DomainError, ShapeError
from likelify.linalg.bounds import safe_exp, widest_dtype
from likelify.linalg.expm.chebyshev import MAX_DEGREE
from likelify.tracing import in_forward_mode

# By which observed coefficients may exceed what a bound allows, relative to the largest value: rounding.
ROUNDING = 1e-13


@dataclass(frozen=True, eq=False)
class FilterPolynomial:
    """A polynomial in the adjacency that stands for a filter.

    Attributes:
        coefficients: of the Chebyshev polynomials, `(degree + 1, 1)`, or `(degree + 1, features)` if features have
            filters of their own; in double precision.
        error_bound: proved, relative to the norm of each feature over each graph.
    """

    coefficients: Tensor
    error_bound: float

    @property
    def degree(self) -> int:
        """The number of sparse products that it costs."""
        return len(self.coefficients) - 1


class GraphFilter(ABC):
    """A function of the eigenvalues of the normalized adjacency, and a bound of the tail of its Chebyshev series.

    Attributes:
        proved: whether the bound of the tail is; that of a function of one's own is compared with the coefficients.
    """

    proved: ClassVar[bool] = False

    @abstractmethod
    def values(self, points: Tensor) -> Tensor:
        """Return the function at points in [-1, 1], `(points,)` to `(points, 1)` or `(points, features)`."""

    @abstractmethod
    def tail(self, degree: int) -> float:
        """Bound the sum of the sizes of the Chebyshev coefficients beyond a degree."""

    @property
    def constant(self) -> bool:
        """Whether the values never change but with the stamp, so that polynomials can be kept."""
        return False

    @property
    def stamp(self) -> Hashable:
        """What changes when constants do."""
        return None

    def derivative_degree(self, tol: float) -> int | None:
        """Return the degree below which derivatives by what is trained would be less exact than asked for.

        None where that is not known; then no coefficient is left out while something is trained.
        """
        return None

    def polynomial(self, tol: float, *, device: torch.device | str = "cpu") -> FilterPolynomial:
        """Return the polynomial of least degree whose error bound meets a tolerance.

        Raises:
            ConvergenceError: if no degree up to 2000 does, or if the coefficients contradict the bound of their tail.
            DomainError: if the function is not finite at some point of [-1, 1].
        """
        if not self.constant:
            return self._polynomial(tol, torch.device(device))
        kept: dict[Any, FilterPolynomial] = vars(self).setdefault("_kept", {})
        key = tol, str(device), self.stamp
        if key not in kept:
            # What inference mode makes could not be used in training later.
            with torch.inference_mode(mode=False):
                kept[key] = self._polynomial(tol, torch.device(device))
        return kept[key]

    def _polynomial(self, tol: float, device: torch.device) -> FilterPolynomial:
        # A part of the tolerance is kept for coefficients that turn out to be smaller than their bound.
        degree, least = self._degree(tol / 4), 0
        values = self._sampled(degree, device)
        if (values.requires_grad and torch.is_grad_enabled()) or in_forward_mode():
            known = self.derivative_degree(tol)
            least = degree if known is None else known
        if least > degree:
            degree, values = least, self._sampled(least, device)
        found, error = chebyshev_coefficients(values), self.error(degree)
        if not self.proved:
            self._compare(found.detach())
        sizes = found.detach()[: degree + 1].abs().amax(1).tolist()
        while degree > least and error + sizes[degree] <= tol:
            error += sizes[degree]
            degree -= 1
        return FilterPolynomial(found[: degree + 1], error)

    def error(self, degree: int) -> float:
        """Bound the error of the interpolant of a degree relative to the norm of the input (see the module)."""
        return self.tail(degree) + self.tail(3 * degree + 3)

    def _degree(self, tol: float) -> int:
        """Return the smallest degree whose error is at most `tol`."""
        low, high = -1, 8
        while high < MAX_DEGREE and self.error(high) > tol:
            low, high = high, 2 * high
        high = min(high, MAX_DEGREE)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.error(middle) <= tol else (middle, high)
        if not self.error(high) <= tol:
            raise ConvergenceError(
                f"No polynomial of degree up to {MAX_DEGREE} in the adjacency is known to meet the tolerance "
                f"{4 * tol:.3g}; of {self} the bound at that degree is {self.error(high):.3g}. Ask for a larger tol, "
                "or for a smoother function: a shorter time, a wider band, a larger ellipse."
            )
        return high

    def _sampled(self, degree: int, device: torch.device) -> Tensor:
        """Return the values at the points of a polynomial of that degree, `(points, 1)` or `(points, features)`."""
        angles = torch.arange(2 * degree + 2, dtype=widest_dtype(device), device=device) + 0.5
        return self.checked_values((angles * (math.pi / len(angles))).cos())

    def checked_values(self, points: Tensor) -> Tensor:
        """Return the values at points, of the right shape and finite."""
        values = self.values(points)
        if values.ndim != 2 or len(values) != len(points):
            raise ShapeError(
                f"{self} gives values of shape {tuple(values.shape)} at {len(points)} points; it must be (points, 1), "
                "or (points, features) for functions of each feature."
            )
        if not bool(torch.isfinite(values.detach()).all()):
            raise DomainError(f"{self} is not finite at some eigenvalue in [-1, 1].")
        return values

    def _compare(self, coefficients: Tensor) -> None:
        """Refuse a bound that the coefficients contradict: those beyond any degree add up to at most the tail."""
        sizes = coefficients.abs()
        sums = (sizes.flip(0).cumsum(0).flip(0)[1:]).amax(1).tolist()
        allowance = ROUNDING * len(sizes) * float(sizes.max())
        for degree, found in enumerate(sums):
            if found > self.tail(degree) * (1 + 1e-6) + allowance:
                raise ConvergenceError(
                    f"The Chebyshev coefficients of {self} beyond degree {degree} add up to {found:.3g} at least, and "
                    f"the bound that was given allows {self.tail(degree):.3g}. It is wrong, and no error bound holds: "
                    "give the largest size of the function on the whole ellipse, or a smaller ellipse."
                )


def chebyshev_coefficients(values: Tensor) -> Tensor:
    """Return the coefficients of the interpolant from the values at `cos(pi (j + 1/2) / N)`, along the first axis."""
    count = len(values)
    turns = torch.arange(count, dtype=values.dtype, device=values.device) * (math.pi / (2 * count))
    spectrum = torch.fft.rfft(torch.cat([values, values.flip(0)]), dim=0)[:count]
    coefficients = (spectrum.real * turns.cos()[:, None] + spectrum.imag * turns.sin()[:, None]) / count
    return torch.cat([coefficients[:1] / 2, coefficients[1:]])


def ellipse_tail(log_bound: float, log_rho: float, degree: int) -> float:
    """Bound the Chebyshev coefficients beyond a degree by the size of a function on an ellipse (see the module)."""
    return 2 * safe_exp(log_bound - degree * log_rho) / math.expm1(log_rho)
