"""What an exponential reports about itself: what was done, and proved bounds of its errors."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from likelify.linalg.bounds import exp_tail, safe_exp


@dataclass(frozen=True, eq=False)
class Bounds:
    """The certificates of a method, computed when they are asked for (a host sync if the norm is a tensor).

    Attributes:
        error: bound of `||value - exp(tL) x||` relative to the norm of an item of `x`.
        log_det: bound in nats, per item, of `|log |det P| - t tr L|` for the map `P` that was applied.
        amplification: how much rounding is magnified; heuristic.
        gradient: bound of the gradient's error relative to `||x|| ||g|| sup ||dL||`, or None where autograd finds it.
    """

    error: Callable[[], float]
    log_det: Callable[[], float | Tensor]
    amplification: Callable[[], float]
    gradient: Callable[[], float | None] = lambda: None


@dataclass(frozen=True, eq=False)
class Diagnostics:
    """What an exponential reports about itself.

    Truncation is *proved*: `error_bound` and `log_det_error_bound` hold in exact arithmetic, given the norm bound.
    Rounding is an *allowance* (`round_off_allowance`), kept apart because it is not proved.

    Attributes:
        method: name of the method.
        degrees: degree of the polynomial in each step.
        norm_bound: guaranteed bound of `||t (L - shift)||_2` that the certificates rest on.
        tolerance: what was asked for, relative to the norm of each item.
        dtype: of the computation.
        operator_calls: how often the map was applied.
        bounds: the certificates as functions; read the properties below.
        measure: gives `item_norms`.
        converged: whether every item's certificate meets the tolerance; None if it was not checked, as with a
            static degree that was given by hand.
        certified: the a-posteriori certificate of each item, if the method made one.
        problem: what is wrong, if the result must not be trusted.
    """

    method: str
    degrees: tuple[int, ...]
    norm_bound: float | Tensor
    tolerance: float
    dtype: torch.dtype
    operator_calls: int
    bounds: Bounds = field(repr=False)
    measure: Callable[[], Tensor] = field(repr=False)
    converged: bool | None = None
    certified: Tensor | None = None
    problem: str | None = None

    @property
    def degree(self) -> int:
        """Largest degree of a step."""
        return max(self.degrees, default=0)

    @property
    def item_norms(self) -> Tensor:
        """Norm of each item of the input."""
        return self.measure()

    @property
    def error_bound(self) -> Tensor:
        """Bound of `||value - exp(tL) x||_2`, one number per item."""
        return self.certified if self.certified is not None else self.item_norms * self.bounds.error()

    @property
    def log_det_error_bound(self) -> float | Tensor:
        """Bound in nats, per item, of `|log |det P| - t tr L|` for the map `P` that was applied."""
        return self.bounds.log_det()

    @property
    def gradient_error_bound(self) -> float | None:
        """Bound of the error of the parameters' gradient relative to `||x|| ||g|| sup ||dL||`; None with `Unrolled`."""
        return self.bounds.gradient()

    @property
    def round_off_allowance(self) -> float:
        """Allowance for rounding, relative to the norm of an item. Heuristic, not proved."""
        return (self.operator_calls + 1) * torch.finfo(self.dtype).eps * self.bounds.amplification()


@dataclass(frozen=True, eq=False)
class Action:
    """The value of `exp(tL) x` and the report on how it was found."""

    value: Tensor
    diagnostics: Diagnostics


def series_log_det(
    norm: float, frobenius: float | Tensor, size: float | Tensor, degrees: tuple[int, ...], repeats: int = 1
) -> float | Tensor:
    r"""Bound `|log |det P| - tr M|` in nats for truncated power series.

    A factor `p(A)` with `A = M / s` has the eigenvalues `p(l) = e^l (1 - e^-l r(l))`, where `|r(l)| <= R_m(|l|) <=
    (|l| / a)^2 R_m(a)` for `|l| <= a = b / s` and `m >= 1`. With `sum |l|^2 <= ||A||_F^2` (Schur),

        |log |det p(A)| - tr A| <= (||A||_F / a)^2 q / (1 - q),   q = e^a R_m(a) < 1.

    Factors that are all alike (`repeats` of them) are counted at once. For `size` eigenvalues the bound
    `-size log(1 - q)` holds as well, and the smaller one is given.
    """
    total: float | Tensor = 0.0 * size
    for degree in degrees:
        local = norm / len(degrees) / repeats
        q = safe_exp(local) * exp_tail(local, degree)
        by_schur = (frobenius / norm) ** 2 * (q / (1 - q)) if 0 < q < 1 and degree > 0 else math.inf
        total = total + repeats * _smaller(by_schur, uniform_log_det(q, size))
    return total


def _smaller(one: float | Tensor, other: float | Tensor) -> float | Tensor:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return torch.minimum(*torch.broadcast_tensors(*(torch.as_tensor(v, dtype=torch.float64) for v in (one, other))))
    return min(one, other)


def uniform_log_det(relative: float, size: float | Tensor) -> float | Tensor:
    """Bound `|log |det P| - tr M|` in nats where each of `size` eigenvalues of `P e^-M` is within `relative` of one."""
    return size * -math.log1p(-relative) if relative < 1 else size * math.inf


def wrong_norm(factor: float) -> str:
    """Say that a norm bound is wrong by a factor."""
    return (
        f"The terms of the exponential grow by a factor of at least {factor:.3g} more than the norm bound of the map "
        "allows, so the bound is wrong and no certificate holds. Correct the declared norm (norm=), or leave it out to "
        "have it computed."
    )
