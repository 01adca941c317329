r"""The method `chebyshev`: expansions for maps that are symmetric or skew by construction.

With `||M||_2 <= b` and the Bessel functions `I_k`, `J_k`,

    exp(M) = I_0(b) + 2 sum_k I_k(b) T_k(M / b)              (M symmetric),
    exp(M) = J_0(b) + 2 sum_k J_k(b) i^k T_k(M / (i b))      (M skew),

and the polynomials have norm at most one on the spectrum. `q_k = i^k T_k(M / (i b))` is real: `q_{k+1} = 2 (M / b) q_k
+ q_{k-1}`. Both coefficients fall like `(b/2)^k / k!`, a factor `2^k` faster than those of the power series; and for
skew maps nothing grows, so one step serves every norm.
"""

import functools
import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from likelify.errors import ConfigError, ConvergenceError
from likelify.linalg.bounds import safe_exp
from likelify.linalg.expm.diagnostics import Bounds, Diagnostics, uniform_log_det
from likelify.linalg.expm.expansion import ORDERS, PER_ORDER, Expansion, on_grid, stopping_rule
from likelify.linalg.expm.gradients import Step, take_step
from likelify.linalg.expm.problem import ExpProblem
from likelify.linalg.expm.series import contradiction
from likelify.linalg.maps import LinearMap

MAX_DEGREE = 2000


@dataclass(frozen=True)
class Chebyshev(Expansion):
    """The Chebyshev expansion of one step.

    Attributes:
        skew: whether the map is skew; symmetric otherwise.
    """

    skew: bool = False

    def coefficient(self, k: int) -> float:
        """Return `2 I_k(b)` or `2 J_k(b)`, halved at zero, with the sign that `advance` leaves to it."""
        value = bessel(self.radius, k, skew=self.skew) * (1 if k == 0 else 2)
        # In two factors, since the gain alone may be too small for a number.
        root = safe_exp(self.exponent / 2)
        return value * root * root * (1 if self.skew or k % 4 < 2 else -1)

    def advance(self, map_: LinearMap, current: Tensor, previous: Tensor | None, k: int) -> Tensor:
        """Apply `2 M / b` and add the vector before.

        For symmetric maps that vector is subtracted; with the signs `+ + - -` on the vectors, here and in the
        coefficients, it is an addition in both cases, which is one pass over the memory.
        """
        scale = self.step / self.radius if self.radius else 0.0
        applied = map_.apply(current)
        if previous is None:
            return applied * scale
        sign = 1 if self.skew or k % 2 else -1
        return torch.add(previous, applied, alpha=2 * sign * scale)

    def unit(self, k: int, radius: float) -> float:
        """Return one: the polynomials stay below it on the spectrum."""
        return 1.0

    def tail(self, degree: int) -> float:
        """Add up the bounds of the coefficients left out."""
        return bessel_tail(self.radius, degree, skew=self.skew, exponent=self.exponent)

    def rounded(self) -> Expansion:
        """Return the expansion without step and gain; its polynomials belong to this radius and no other."""
        return Chebyshev(self.radius, skew=self.skew)

    def divided(self, terms: int) -> np.ndarray:
        r"""Expand the divided difference `(e^s - e^t) / (s - t)` in both variables on the spectrum."""
        return _divided(self.radius, terms, self.skew)

    @property
    def amplification(self) -> float:
        """Bound the sum of the sizes of the coefficients: what rounding is multiplied by."""
        if not self.skew:
            return safe_exp(self.exponent + self.radius)
        # |J_k| <= 1 for the first b of them and the sum of their squares is one (Cauchy-Schwarz).
        return 1 + 2 * math.sqrt(self.radius + 10)


def degree_for(radius: float, tol: float, *, skew: bool, order: int = 0) -> int:
    """Return the smallest degree whose tail is at most `tol`, or the limit."""

    def fits(degree: int) -> bool:
        return bessel_tail(radius, degree, skew=skew, order=order) <= tol

    low, high = 0, 8
    while high < MAX_DEGREE and not fits(high):
        low, high = high, 2 * high
    high = min(high, MAX_DEGREE)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return low if fits(low) else high


def differentiable_degree(radius: float, tol: float, *, skew: bool) -> int:
    """Return the smallest degree at which the expansion may be differentiated too (as in `series.degree_of_steps`)."""
    return max(degree_for(radius, PER_ORDER**order * tol, skew=skew, order=order) for order in range(ORDERS + 1))


def bessel_tail(radius: float, degree: int, *, skew: bool, order: int = 0, exponent: float = 0.0) -> float:
    r"""Bound `2 sum_{k > degree} |J_k(b)|`, or of `I_k(b)`; with an order, the same of a derivative of the expansion.

    All is multiplied by `e^exponent`.

    `|J_k(b)| <= (b/2)^k / k!` and `I_k(b) <= (b/2)^k / k! e^(b^2 / (4 (k + 1)))`; the sum is geometric from
    `k > b/2` on, and infinite is said before that.

    The derivative of order `j` of `T_k(M / b)`, for `M` with a spectrum in `[-b, b]`, has a norm of at most
    `T_k^(j)(1) / b^j ||dM||^j`: its divided differences are sums of products of Chebyshev polynomials with coefficients
    that are not negative, so they are largest at one. And `T_k^(j)(1) <= k^(2j) / (1 3 5 ... (2j - 1))`.
    """
    k = degree + 1
    half = radius / 2
    if half == 0:
        return 0.0
    ratio = half / (k + 1) * (1 + 1 / k) ** (2 * order)
    if ratio >= 1:
        return math.inf
    log = exponent + k * math.log(half) - math.lgamma(k + 1) + (0.0 if skew else half**2 / (k + 1))
    for j in range(order):
        log += 2 * math.log(k) - math.log((2 * j + 1) * radius)
    return 2 * safe_exp(log) / (1 - ratio)


def bessel(radius: float, k: int, *, skew: bool) -> float:
    """Return `J_k(radius)` if `skew`, else `I_k(radius)`."""
    table = _bessel_table(radius, skew)
    return float(table[k]) if k < len(table) else 0.0


@functools.lru_cache(maxsize=512)
def _bessel_table(radius: float, skew: bool) -> np.ndarray:  # noqa: FBT001 - a cache key
    """Compute all that matter by Miller's backward recurrence, normalised by their known sum."""
    if radius == 0:
        return np.array([1.0])
    start = 2 * (int(1.5 * radius) + 30)
    values = np.zeros(start + 2)
    values[start] = 1e-300
    for k in range(start, 0, -1):
        values[k - 1] = 2 * k / radius * values[k] + (-values[k + 1] if skew else values[k + 1])
        if abs(values[k - 1]) > 1e200:
            values *= 1e-200
    if skew:
        return values / (values[0] + 2 * values[2::2].sum())
    return values / (values[0] + 2 * values[1:].sum()) * math.exp(radius)


@functools.lru_cache(maxsize=512)
def _divided(radius: float, terms: int, skew: bool) -> np.ndarray:  # noqa: FBT001 - a cache key
    points = 2 * terms + 16
    angles = (np.arange(points) + 0.5) * np.pi / points
    nodes = np.cos(angles)
    mean = radius * np.add.outer(nodes, nodes) / 2
    half = radius * np.subtract.outer(nodes, nodes) / 2
    if skew:
        function = np.exp(1j * mean) * np.sinc(half / np.pi)
    else:
        small = np.abs(half) < 1e-3
        function = np.exp(mean) * np.where(small, 1 + half**2 / 6, np.sinh(half) / np.where(small, 1.0, half))
    transform = 2 / points * np.cos(np.outer(np.arange(terms), angles))
    transform[0] /= 2
    coefficients = transform @ function @ transform.T
    order = np.add.outer(np.arange(terms), np.arange(terms))
    if skew:
        return (coefficients * (-1j) ** order).real
    signs = np.where(np.arange(terms) % 4 < 2, 1.0, -1.0)
    return coefficients * np.outer(signs, signs)


def run_chebyshev(problem: ExpProblem) -> tuple[Tensor, Diagnostics]:
    """Sum the Chebyshev expansion of a map that is symmetric or skew by construction."""
    skew = problem.centered.symmetry == "skew"
    if problem.centered.symmetry is None:
        raise ConfigError(
            "method='chebyshev' needs a map that is symmetric or skew by construction (Skew, Dense(symmetry=...), "
            f"ConvMap(symmetry=...)); {type(problem.centered).__name__} is not known to be either. Use 'series'."
        )
    problem.check_range()
    radius = on_grid(problem.radius)
    expansion = Chebyshev(radius, problem.time, problem.exponent, skew=skew)
    for_derivatives = partial(differentiable_degree, radius, problem.allowed, skew=skew)
    if problem.degree is not None:
        degree = problem.degree
    else:
        degree = for_derivatives() if problem.orders else degree_for(radius, problem.allowed, skew=skew)
    if problem.degree is None and degree >= MAX_DEGREE:
        raise ConvergenceError(
            f"The norm bound of the map is {problem.radius:.3g}, and more than {MAX_DEGREE} terms would be "
            "needed. Limit the norm of the map (norm_limit=), or apply a small part of it several times (time=)."
        )
    rule = None
    if problem.may_sync and degree > 0:
        norms = problem.item_norms
        rule = stopping_rule(problem.centered, expansion, norms, problem.tol * norms, degree)
    x, step, _ = take_step(problem, expansion, problem.x, degree, rule, for_derivatives)
    bounds = _bounds(problem, expansion, degree, step)
    converged = None if problem.degree is not None else bounds.error() <= problem.tol * (1 + 1e-9)
    found = None if rule is None else contradiction([rule])
    return x, problem.report("chebyshev", (degree,), bounds, converged=converged, problem=found)


def _bounds(problem: ExpProblem, expansion: Chebyshev, degree: int, step: Step | None) -> Bounds:
    radius, skew, error = expansion.radius, expansion.skew, expansion.tail(degree)
    backward = safe_exp(0.0 if skew else radius) * bessel_tail(radius, degree, skew=skew)

    def gradient() -> float | None:
        if step is not None:
            return problem.span * step.error
        unrolled = bessel_tail(radius, degree, skew=skew, order=1, exponent=problem.exponent)
        return problem.span * unrolled if problem.recorded else None

    return Bounds(
        error=lambda: error,
        log_det=lambda: uniform_log_det(backward, problem.item_size),
        amplification=lambda: problem.rounding * expansion.amplification,
        gradient=gradient,
    )
