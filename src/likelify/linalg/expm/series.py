r"""The power series `exp(M) x = sum_k M^k x / k!`, in one or several steps, with a certificate.

With `s` steps, `E = exp(tL / s)` is applied `s` times; each factor is a series of its own, which keeps the terms
small and so the rounding error. Write `b` for a bound of `||tL||`, `g <= b` for a bound of the norm of its symmetric
part, and `P_i` for the i-th truncated factor. From `||E|| <= e^(g/s)`,

    ||E^s x - P_s ... P_1 x|| <= sum_i e^(g (s - i) / s) ||(E - P_i) x_{i-1}||,

and each local error is bounded a priori by `R_m(b/s) ||x_{i-1}||` (`exp_tail`; `a_priori_error` bounds the sum) or,
sharper, from the last term t_m: `||t_m|| (b/s / (m+1)) / (1 - b/s / (m+2))`.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from likelify.linalg.bounds import exp_tail, safe_exp, series_degree
from likelify.linalg.expm.expansion import Expansion, on_grid, scaled
from likelify.linalg.maps import LinearMap

MAX_DEGREE = 150
# Beyond it e^b leaves the range of double precision, and with it every certificate.
MAX_NORM = 600.0
# Maps and steps up to this size leave the powers of the map, unscaled, inside the range of single precision.
LONGEST_UNSCALED = 8.0


@dataclass(frozen=True)
class PowerSeries(Expansion):
    """The power series of one step; the vectors are `L^k x`, or `M^k x` where those might overflow."""

    def coefficient(self, k: int) -> float:
        """Return `step^k / k!`, or `1 / k!` where the vectors hold the step."""
        factor = self.step if self._unscaled else 1.0
        return self.gain * factor**k * math.exp(-math.lgamma(k + 1))

    def advance(self, map_: LinearMap, current: Tensor, previous: Tensor | None, k: int) -> Tensor:
        """Apply the map once more."""
        return scaled(map_.apply(current), 1.0 if self._unscaled else self.step)

    def unit(self, k: int, radius: float) -> float:
        """Return the norm bound of the k-th power, with the sign of the step."""
        return (radius / self.step if self._unscaled else radius) ** k

    def tail(self, degree: int) -> float:
        """Return the tail of the exponential series."""
        return self.gain * exp_tail(self.radius, degree)

    def remainder(self, last: Tensor, k: int) -> Tensor:
        """Bound the truncation error of each item from the norm of its last vector `p_k`."""
        if self.radius >= k + 2:
            return torch.full_like(last, math.inf)
        ratio = self.radius / (k + 1) / (1 - self.radius / (k + 2))
        return last * (abs(self.coefficient(k)) * ratio)

    def rounded(self) -> Expansion:
        """Return the series of a radius on the grid."""
        return PowerSeries(on_grid(self.radius))

    def divided(self, terms: int) -> np.ndarray:
        """Return the Hankel matrix `b^(j+k) / (j+k+1)!`."""
        powers = np.arange(2 * terms - 1)
        factorials = np.array([math.lgamma(n + 2) for n in powers])
        logs = powers * math.log(max(self.radius, 1e-300)) - factorials
        values = np.exp(np.maximum(logs, -700.0)) * (logs > -700.0)
        return values[np.add.outer(np.arange(terms), np.arange(terms))]

    @property
    def _unscaled(self) -> bool:
        return 0 < abs(self.step) <= LONGEST_UNSCALED and self.radius / abs(self.step) <= LONGEST_UNSCALED


def step_count(norm: float, dtype: torch.dtype) -> int:
    """Return the number of steps for which the terms of one factor do not swamp the floating format.

    Terms grow to `e^(b/s)` times the input before they cancel, and take that factor of the precision with them:
    up to 20 with `b/s <= 3`, up to 3000 in double precision, which has it to spare.
    """
    longest = 8.0 if dtype == torch.float64 else 3.0
    return max(1, math.ceil(norm / longest))


def static_plan(norm: float, growth: float, tol: float, dtype: torch.dtype) -> tuple[int, int]:
    """Return (steps, degree) whose a-priori error is at most `tol ||x||`."""
    steps = step_count(norm, dtype)
    return steps, series_degree(norm / steps, local_tolerance(growth, steps, tol), MAX_DEGREE)


def local_tolerance(growth: float, steps: int, tol: float) -> float:
    """Return the error that each of the steps may have if their product may have the error `tol`."""
    if steps == 1:
        return tol
    # The inverse of `a_priori_error` in the error of one step.
    return safe_exp(growth / steps) * math.expm1(math.log1p(tol / safe_exp(growth)) / steps)


def a_priori_error(norm: float, growth: float, steps: int, degree: int) -> float:
    r"""Bound the error of the stepped series relative to the input's norm.

    With the error `d = R_m(b/s)` of one factor, `||P|| <= e^(g/s) + d` and so
    `||E^s - P^s|| <= (e^(g/s) + d)^s - e^g`.
    """
    local = exp_tail(norm / steps, degree)
    if steps == 1 or math.isinf(local):
        return local
    relative = steps * math.log1p(local / safe_exp(growth / steps))
    return safe_exp(growth) * math.expm1(relative) if relative < 700 else math.inf
