r"""The method `series`: the power series `exp(M) x = sum_k M^k x / k!`, in one or several steps, with a certificate.

With `s` steps, `E = exp(tL / s)` is applied `s` times; each factor is a series of its own, which keeps the terms
small and so the rounding error. Write `b` for a bound of `||tL||`, `g <= b` for a bound of the norm of its symmetric
part, and `P_i` for the i-th truncated factor. From `||E|| <= e^(g/s)`,

    ||E^s x - P_s ... P_1 x|| <= sum_i e^(g (s - i) / s) ||(E - P_i) x_{i-1}||,

and each local error is bounded a priori by `R_m(b/s) ||x_{i-1}||` (`exp_tail`; `a_priori_error` bounds the sum) or,
sharper, from the last term t_m: `||t_m|| (b/s / (m+1)) / (1 - b/s / (m+2))`.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from likelify.errors import ConfigError
from likelify.linalg.bounds import exp_tail, safe_exp, series_degree
from likelify.linalg.expm.diagnostics import Bounds, Diagnostics, wrong_norm
from likelify.linalg.expm.expansion import (
    ORDERS,
    PER_ORDER,
    Expansion,
    StoppingRule,
    on_grid,
    scaled,
    stopping_rule,
)
from likelify.linalg.expm.gradients import Step, take_step
from likelify.linalg.expm.problem import ExpProblem
from likelify.linalg.maps import LinearMap
from likelify.tracing import cached_property

MAX_DEGREE = 150
# Maps and steps up to this size leave the powers of the map, unscaled, inside the range of single precision.
LONGEST_UNSCALED = 8.0


@dataclass(frozen=True)
class PowerSeries(Expansion):
    """The power series of one step; the vectors are `L^k x`, or `M^k x` where those might overflow."""

    powers: ClassVar[bool] = True

    def coefficient(self, k: int) -> float:
        """Return `step^k / k!`, or `1 / k!` where the vectors hold the step."""
        factor = self.step if self._unscaled else 1.0
        return factor**k * safe_exp(self.exponent - math.lgamma(k + 1))

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

    @cached_property
    def _unscaled(self) -> bool:
        return 0 < abs(self.step) <= LONGEST_UNSCALED and self.radius / abs(self.step) <= LONGEST_UNSCALED


def step_count(norm: float, dtype: torch.dtype) -> int:
    """Return the number of steps for which the terms of one factor do not swamp the floating format.

    Terms grow to `e^(b/s)` times the input before they cancel, and take that factor of the precision with them:
    up to 20 with `b/s <= 3`, up to 3000 in double precision, which has it to spare.
    """
    longest = 8.0 if dtype == torch.float64 else 3.0
    return max(1, math.ceil(norm / longest))


def static_plan(norm: float, growth: float, tol: float, dtype: torch.dtype, orders: int = 0) -> tuple[int, int]:
    """Return (steps, degree) whose a-priori error is at most `tol ||x||` (`degree_of_steps`)."""
    steps = step_count(norm, dtype)
    return steps, degree_of_steps(norm, growth, steps, tol, orders)


def degree_of_steps(norm: float, growth: float, steps: int, tol: float, orders: int = 0) -> int:
    r"""Return the smallest degree whose a-priori error is at most `tol`, or the largest one there is.

    The sum of degree `m`, differentiated `j` times, lacks of the derivative what the sum of degree `m - j` lacks of the
    value, relative to `||dM||^j`; the same for products of steps. Up to the order `orders` these errors are at most
    `PER_ORDER^j tol`.
    """
    local = norm / steps
    degree = series_degree(local, local_tolerance(growth, steps, tol), MAX_DEGREE)
    for order in range(1, orders + 1):
        degree, allowed = max(degree, order), local_tolerance(growth, steps, PER_ORDER**order * tol)
        while degree < MAX_DEGREE and exp_tail(local, degree - order) > allowed:
            degree += 1
    return degree


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


def run_series(problem: ExpProblem) -> tuple[Tensor, Diagnostics]:
    """Sum the power series, in steps if the norm is large."""
    if problem.degree is not None:
        return _run_fixed(problem)
    problem.check_range()
    norm, exponent = problem.radius, problem.exponent
    plan = partial(static_plan, norm, problem.growth, problem.allowed, problem.x.dtype)
    count, degree = plan(problem.orders)
    expansion = PowerSeries(norm / count, problem.time / count, exponent / count)
    x, degrees, steps, rules, errors = problem.x, [], [], [], []
    for number in range(count):
        # By how much the steps that follow magnify an error, as a logarithm: the factor may be too small for a number.
        later = (problem.growth + exponent) * (count - 1 - number) / count
        rule = None
        if problem.may_sync:
            start = problem.item_norms if number == 0 else problem.map.item_norms(x.detach())
            # A gain below one is no licence to be less exact than the result is small.
            allowed = problem.tol / count * safe_exp(min(0.0, exponent) - later) * problem.item_norms
            rule = stopping_rule(problem.centered, expansion, start, allowed, degree, stops=not problem.orders)
            rules.append(rule)
        x, step, used = take_step(problem, expansion, x, degree, rule, lambda: plan(ORDERS)[1])
        steps.append(step)
        degrees.append(used)
        if rule is not None:
            errors.append(safe_exp(later) * rule.certified(used))
    bounds = _bounds(problem, tuple(degrees), steps)
    if not problem.may_sync:
        converged = a_priori_error(norm, problem.growth, count, degree) <= problem.allowed
        return x, problem.report("series", tuple(degrees), bounds, converged=converged)
    error = torch.stack(errors).sum(0)
    # Of numbers below the smallest normal one no share is left to be right.
    allowed = (problem.tol * problem.item_norms).clamp_min(torch.finfo(problem.x.dtype).tiny)
    facts = {"certified": error, "converged": bool((error <= allowed).all())}
    return x, problem.report("series", tuple(degrees), bounds, problem=contradiction(rules), **facts)


def _run_fixed(problem: ExpProblem) -> tuple[Tensor, Diagnostics]:
    degree = problem.degree or 0
    if degree > MAX_DEGREE:
        raise ConfigError(f"degree must be at most {MAX_DEGREE}, got {degree}.")
    # The radius is only needed to watch the terms; without looking no number is at hand.
    radius = problem.radius if problem.may_sync or isinstance(problem.norm, float) else 1.0
    expansion = PowerSeries(radius, problem.time, problem.exponent)
    rules = []
    if problem.may_sync and degree > 0:
        never = torch.zeros_like(problem.item_norms) - 1
        rules.append(StoppingRule(problem.centered, expansion, problem.item_norms, never, degree, plain=False))
    x, _, _ = take_step(problem, expansion, problem.x, degree, rules[0] if rules else None, lambda: degree)
    return x, problem.report("series", (degree,), _bounds(problem, (degree,), []), problem=contradiction(rules))


def _bounds(problem: ExpProblem, degrees: tuple[int, ...], steps: list[Step | None]) -> Bounds:
    count, least = len(degrees), min(degrees, default=0)

    def gradient() -> float | None:
        errors = [step.error for step in steps if step is not None]
        if not errors:
            sum_error = a_priori_error(problem.radius, problem.growth, count, least - 1) if least else math.inf
            return problem.span * problem.magnified(sum_error) if problem.recorded else None
        others = safe_exp((problem.exponent + problem.growth) * (1 - 1 / count))
        # The inputs of all but the first step, and of their adjoints, are off by what the certificate allows.
        inputs = (1 + count) * problem.tol * max(1.0, problem.gain) * safe_exp(problem.growth * (1 + 1 / count))
        return problem.span * (sum(errors) / count * others + (inputs if count > 1 else 0.0))

    return Bounds(
        error=lambda: problem.magnified(a_priori_error(problem.radius, problem.growth, count, least)),
        log_det=lambda: problem.log_det_error(degrees),
        amplification=lambda: (
            problem.rounding * safe_exp(problem.exponent + problem.radius / max(count, 1) + problem.growth)
        ),
        gradient=gradient,
    )


def contradiction(rules: list[StoppingRule]) -> str | None:
    """Say if the terms grew more than the norm bound allows."""
    excess = 1.0
    for rule in rules:
        excess = max(excess, rule.excess)
    return wrong_norm(excess) if excess > 1 else None
