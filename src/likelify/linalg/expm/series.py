r"""The power series `exp(tL) x = sum_k (tL)^k x / k!`, in one or several steps, with a certificate.

With `s` steps, `E = exp(tL / s)` is applied `s` times; each factor is a series of its own, which keeps the terms
small and so the rounding error. Write `b` for a bound of `||tL||`, `P_i` for the i-th truncated factor. From
`||E|| <= e^(b/s)`,

    ||E^s x - P_s ... P_1 x|| <= sum_i e^(b (s - i) / s) ||(E - P_i) x_{i-1}||,

and each local error is bounded a priori by `R_m(b/s) ||x_{i-1}||` (`exp_tail`) or, sharper, from the last term t_m:
`||t_m|| (b/s / (m+1)) / (1 - b/s / (m+2))`.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from likelify.linalg.bounds import exp_tail, safe_exp, series_degree
from likelify.linalg.maps import LinearMap

MAX_DEGREE = 150
# Beyond it e^b leaves the range of double precision, and with it every certificate.
MAX_NORM = 600.0
# Between these sizes the squares of the numbers of an item, and of the smallest term that matters, stay in the range of
# single precision.
PLAIN = (1e-15, 1e12)

Time = float | Tensor


def step_count(norm: float, dtype: torch.dtype) -> int:
    """Give the number of steps for which the terms of one factor do not swamp the floating format.

    Terms grow to `e^(b/s)` times the input before they cancel, and take that factor of the precision with them:
    up to 20 with `b/s <= 3`, up to 3000 in double precision, which has it to spare.
    """
    longest = 8.0 if dtype == torch.float64 else 3.0
    return max(1, math.ceil(norm / longest))


def static_plan(norm: float, tol: float, dtype: torch.dtype) -> tuple[int, int]:
    """Give (steps, degree) whose a-priori error is at most `tol ||x||`."""
    steps = step_count(norm, dtype)
    growth = safe_exp(norm * (steps - 1) / steps)
    return steps, series_degree(norm / steps, tol / (steps * growth), MAX_DEGREE)


def a_priori_error(norm: float, steps: int, degree: int) -> float:
    """Bound the error of the stepped series relative to the input's norm."""
    return steps * safe_exp(norm * (steps - 1) / steps) * exp_tail(norm / steps, degree)


def log_det_error(norm: float, degrees: tuple[int, ...], size: int) -> float:
    r"""Bound `|log |det P| - tr(tL)|` in nats for the map `P` that was really applied.

    Each factor is `P_i = E (I - X_i)` with `||X_i|| <= q = e^(b/s) R_m(b/s)`, and for `q < 1`
    `|log |det (I - X_i)|| <= -D log(1 - q)`.
    """
    total = 0.0
    for degree in degrees:
        local = norm / len(degrees)
        q = safe_exp(local) * exp_tail(local, degree)
        total += -size * math.log1p(-q) if q < 1 else math.inf
    return total


def series_static(map_: LinearMap, x: Tensor, time: Time, steps: int, degree: int) -> Tensor:
    """Sum the series to a fixed degree in each of a fixed number of steps; no host sync."""
    for _ in range(steps):
        x, _ = _sum_terms(map_, x, time, steps, degree, lambda term, k: False)
    return x


def series_adaptive(
    map_: LinearMap, x: Tensor, item_norms: Tensor, time: Time, norm: float, tol: float
) -> tuple[Tensor, tuple[int, ...], Tensor, bool]:
    """Sum the series until the certificate of every item is below `tol` times its norm (`item_norms`).

    Returns:
        The value, the degree of each step, the certified error of each item, and whether all of them meet `tol`.
    """
    dtype = x.dtype
    steps = step_count(norm, dtype)
    local = norm / steps
    # The a-posteriori test cannot succeed long before the a-priori one; testing earlier only costs host syncs.
    first_test = max(1, static_plan(norm, tol, dtype)[1] // 3)
    allowed = tol * item_norms / steps
    # The smallest terms that matter are those whose error the remaining steps magnify most.
    smallest = allowed / safe_exp(norm * (steps - 1) / steps)
    plain = bool(((smallest > PLAIN[0]) & (item_norms < PLAIN[1])).all())
    error = torch.zeros_like(allowed)
    degrees: list[int] = []
    for step in range(steps):
        growth = safe_exp(norm * (steps - 1 - step) / steps)

        def certificate(term: Tensor, k: int) -> Tensor:
            if local >= k + 2:
                return torch.full_like(allowed, math.inf)
            return map_.item_norms(term.detach(), plain=plain) * (local / (k + 1) / (1 - local / (k + 2)))

        def done(term: Tensor, k: int, growth: float = growth) -> bool:
            return k >= first_test and bool((certificate(term, k) * growth <= allowed).all())

        x, (last, degree) = _sum_terms(map_, x, time, steps, MAX_DEGREE, done)
        degrees.append(degree)
        error = error + growth * certificate(last, degree)
    # Infinities compare as equal, so they are asked for; the value may overflow although every norm is finite.
    finite = bool(torch.isfinite(allowed).all()) and bool(torch.isfinite(x.detach()).all())
    converged = finite and bool((error <= allowed * steps).all())
    return x, tuple(degrees), error, converged


def _sum_terms(
    map_: LinearMap, x: Tensor, time: Time, steps: int, degree: int, done: Callable[[Tensor, int], bool]
) -> tuple[Tensor, tuple[Tensor, int]]:
    """Sum one factor's series up to `degree`, or until `done(term, k)`; also give the last term and its number."""
    total = term = x
    k = 0
    while k < degree and not done(term, k):
        k += 1
        term = map_.apply(term) * (time / (steps * k))
        total = total + term
    return total, (term, k)
