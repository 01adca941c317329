"""The one differentiable door to every exponential."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from likelify.errors import ConfigError, ConvergenceError, DomainError, ShapeError, UnsupportedError
from likelify.linalg.bounds import safe_exp
from likelify.linalg.expm import series
from likelify.linalg.maps import LinearMap
from likelify.tracing import is_tracing

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}


@dataclass(frozen=True, eq=False)
class Diagnostics:
    """What an exponential reports about itself.

    Truncation is *proved*: `error_bound` and `log_det_error_bound` hold in exact arithmetic, given the norm bound.
    Rounding is an *allowance* (`round_off_allowance`), kept apart because it is not proved.

    Attributes:
        method: name of the method.
        degrees: degree of the series in each step.
        norm_bound: guaranteed bound of `||time * L||_2` that the certificates rest on.
        tolerance: what was asked for, relative to the norm of each item.
        item_norms: norm of each item of the input.
        event_size: numbers in one event.
        dtype: of the computation.
        converged: whether every item's certificate meets the tolerance; None if nobody looked, as with a static
            degree that was given by hand.
        certified: the a-posteriori certificate of each item, if the method made one.
    """

    method: str
    degrees: tuple[int, ...]
    norm_bound: float | Tensor
    tolerance: float
    item_norms: Tensor
    event_size: int
    dtype: torch.dtype
    converged: bool | None = None
    certified: Tensor | None = None

    @property
    def degree(self) -> int:
        """Largest degree of a step."""
        return max(self.degrees, default=0)

    @property
    def operator_calls(self) -> int:
        """How often the map was applied."""
        return sum(self.degrees)

    @property
    def error_bound(self) -> Tensor:
        """Bound of `||value - exp(time L) x||_2`, one number per item (a host sync if the norm is a tensor)."""
        if self.certified is not None:
            return self.certified
        return self.item_norms * series.a_priori_error(_largest(self.norm_bound), len(self.degrees), self.degree)

    @property
    def log_det_error_bound(self) -> float:
        """Bound in nats, per row, of `|log |det P| - time tr L|` for the map `P` that was applied."""
        return series.log_det_error(_largest(self.norm_bound), self.degrees, self.event_size)

    @property
    def round_off_allowance(self) -> float:
        """Allowance for rounding, relative to the norm of an item: `calls * eps * e^b`. Heuristic, not proved."""
        return (self.operator_calls + 1) * torch.finfo(self.dtype).eps * safe_exp(_largest(self.norm_bound))


@dataclass(frozen=True, eq=False)
class Action:
    """The value of `exp(time L) x` and the report on how it was found."""

    value: Tensor
    diagnostics: Diagnostics


def exp_action(
    map: LinearMap,  # noqa: A002 - the field's word for it; the builtin is not needed here
    x: Tensor,
    *,
    time: float | Tensor = 1.0,
    tol: float | None = None,
    degree: int | None = None,
    method: Literal["auto", "series"] = "auto",
    throw: bool = True,
) -> Action:
    r"""Apply `exp(time L)` to each item of `x` without forming it.

    In eager mode the degree adapts until the certificate of every item meets `tol`. The degree is a fixed integer,
    found without looking at the data, when `degree` is given; and also when the map knows its norm bound as a number
    and either the tensors live on an accelerator, where looking would stop it, or `torch.compile` or a `torch.func`
    transform is at work. Those transforms need one of the two.

    Args:
        map: a linear map; the exponential always exists and its inverse is `exp(-time L)`.
        x: `(rows, *event)`, floating.
        time: a factor on the map.
        tol: truncation error allowed, relative to the 2-norm of each item. By default 1e-6 in float32 and 1e-12 in
            float64; the same rule in training and evaluation.
        degree: a fixed degree instead of a tolerance.
        method: `"series"`, the power series; `"auto"` chooses (it is the only method so far).
        throw: raise when the tolerance is not met; otherwise the diagnostics say so. What no number can stand for
            (non-finite values, a norm beyond 600) raises in any case.

    Returns:
        The value, shape and dtype of `x`, and its `Diagnostics`.

    Raises:
        ConvergenceError: if the degree limit was reached before the tolerance.
        DomainError: if the input is not floating, or the input, the map or the value is not finite (on a CPU or in
            adaptive mode; a static degree elsewhere does not look).
        ShapeError: if `time` is not one number.
        UnsupportedError: if the degree would have to adapt where Python cannot look at tensors.

    Source:
        Hoogeboom et al. 2020, section 3 and algorithm 2; the certificates are ours (`series`).

    Example:
        >>> from likelify.linalg.maps import Dense
        >>> turn = Dense(torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64))
        >>> action = exp_action(turn, torch.tensor([[1.0, 0.0]], dtype=torch.float64), time=torch.pi)
        >>> torch.allclose(action.value, torch.tensor([[-1.0, 0.0]], dtype=torch.float64))
        True
        >>> bool(action.diagnostics.error_bound < 1e-12)
        True
    """
    if not x.is_floating_point():
        raise DomainError(f"exp_action needs a floating input, got {x.dtype}. Convert it, e.g. x.float().")
    if method not in ("auto", "series"):
        raise ConfigError(f"exp_action knows the methods 'auto' and 'series', not {method!r}.")
    if degree is not None and degree < 0:
        raise ConfigError(f"degree must not be negative, got {degree}.")
    if isinstance(time, Tensor) and time.numel() != 1:
        raise ShapeError(f"time must be one number for the whole batch, got a tensor of shape {tuple(time.shape)}.")
    map = map.matching(x)
    tol = TOLERANCE.get(x.dtype, 8 * torch.finfo(x.dtype).eps) if tol is None else tol
    event_shape = tuple(x.shape[1:])
    span = abs(time.detach()) if isinstance(time, Tensor) else abs(time)
    with torch.no_grad():
        norm = span * map.norm_bound(event_shape)
        item_norms = map.item_norms(x.detach())
    report = {"norm_bound": norm, "tolerance": tol, "item_norms": item_norms}
    report |= {"event_size": math.prod(event_shape), "dtype": x.dtype, "method": "series"}

    if degree is None and _may_adapt(norm, x):
        value, degrees, error, converged = series.series_adaptive(map, x, item_norms, time, _within_range(norm), tol)
        if not converged:
            _require_finite(item_norms, value)
        diagnostics = Diagnostics(degrees=degrees, certified=error, converged=converged, **report)
    else:
        steps, degree, converged = _static_choice(norm, tol, degree, x.dtype)
        value = series.series_static(map, x, time, steps, degree)
        if x.device.type == "cpu" and not is_tracing():
            _require_finite(item_norms, value)
        diagnostics = Diagnostics(degrees=(degree,) * steps, converged=converged, **report)
    if throw and diagnostics.converged is False:
        raise ConvergenceError(
            f"The exponential series reached degree {diagnostics.degree} in {len(diagnostics.degrees)} steps without "
            f"meeting the tolerance {tol:g}; the map's norm bound is {_largest(norm):.3g}. Limit the norm of the map "
            "(norm_limit=), or ask for a larger tol.",
            diagnostics,
        )
    return Action(value, diagnostics)


def _static_choice(
    norm: float | Tensor, tol: float, degree: int | None, dtype: torch.dtype
) -> tuple[int, int, bool | None]:
    """Give steps and degree without looking at tensors, and whether they are known to meet the tolerance."""
    if degree is not None:
        return 1, degree, None
    norm = _within_range(norm)
    steps, degree = series.static_plan(norm, tol, dtype)
    return steps, degree, series.a_priori_error(norm, steps, degree) <= tol


def _largest(norm: float | Tensor) -> float:
    return float(norm.max()) if isinstance(norm, Tensor) else float(norm)


def _may_adapt(norm: float | Tensor, x: Tensor) -> bool:
    """Decide whether the series looks at its terms, which stops the device; on a CPU looking costs nothing."""
    if is_tracing():
        if isinstance(norm, Tensor):
            raise UnsupportedError(
                "exp_action would have to look at the terms to choose its degree, which torch.compile and torch.func "
                "cannot do. Give degree=, or a map that knows its norm bound as a number (norm=, or a layer with "
                "norm_limit=)."
            )
        return False
    return isinstance(norm, Tensor) or x.device.type == "cpu"


def _require_finite(item_norms: Tensor, value: Tensor) -> None:
    if not bool(torch.isfinite(item_norms).all()):
        raise DomainError("exp_action got an input that is not finite (NaN or infinity).")
    if not bool(torch.isfinite(value.detach()).all()):
        raise DomainError(
            "exp_action gave numbers that are not finite: the map's parameters hold NaN or infinity, or the result is "
            f"too large for {value.dtype}."
        )


def _within_range(norm: float | Tensor) -> float:
    largest = _largest(norm)
    if not math.isfinite(largest):
        raise DomainError(
            "The norm bound of the map is not finite: its parameters hold NaN or infinity, or are so large that their "
            "squares overflow."
        )
    if largest > series.MAX_NORM:
        raise ConvergenceError(
            f"The norm bound of the map is {largest:.3g}; its exponential may be e^{largest:.3g} times as large as the "
            f"input, which no floating format holds (limit {series.MAX_NORM:g}). Limit the norm of the map "
            "(norm_limit=), or apply a small part of it several times (time=)."
        )
    return largest
