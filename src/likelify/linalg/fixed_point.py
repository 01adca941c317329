"""Iterations towards the solution of an equation, which end with a residual that is small enough, or with an error."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from likelify.errors import ConvergenceError


@dataclass(frozen=True, eq=False)
class Solution:
    """Where an iteration ended.

    Attributes:
        value: `(rows, ...)`.
        gap: `(rows,)`, what is left of the equation at that value, as the caller measures it.
        steps: how often the update was evaluated.
    """

    value: Tensor
    gap: Tensor
    steps: int


def iterate(
    update: Callable[[Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
    *,
    tol: Tensor | float,
    max_steps: int,
    what: str,
    advice: str,
    throw: bool = True,
    least: Callable[[Tensor], Tensor] | None = None,
) -> Solution:
    """Repeat an update until the gap of every row is at most `tol`.

    Args:
        update: gives for a value the next one, and the gap `(rows,)` *of the value it was given*.
        start: first value.
        tol: allowed gap, one number or one for each row.
        max_steps: most evaluations of the update.
        what: names the equation in errors.
        advice: what to do about an iteration that does not end.
        throw: False to give the last value instead of an error.
        least: gives for a value the gap `(rows,)` that rounding leaves there; asked where the steps were not enough, of
            which such a gap then is no fault.

    Raises:
        ConvergenceError: if the gap is not finite or still too large after `max_steps`; never in silence.
    """
    value, gap, steps = start, start.new_full((len(start),), math.inf), 0
    while steps < max_steps:
        following, gap = update(value)
        steps += 1
        # An allowed gap that has overflowed allows nothing.
        if bool(((gap <= tol) & gap.isfinite()).all()):
            return Solution(value, gap, steps)
        if steps == max_steps or not bool(torch.isfinite(gap).all()):
            break
        value = following
    if least is not None and bool((gap <= torch.maximum(least(value), torch.as_tensor(tol).to(gap))).all()):
        return Solution(value, gap, steps)
    if throw and not bool(torch.isfinite(gap).all()):
        raise ConvergenceError(
            f"{what}: after {steps} steps the residual is not finite. Either the input or a condition is not, or the "
            f"iteration runs away. {advice}"
        )
    if throw:
        raise ConvergenceError(
            f"{what}: after {steps} steps the residual of the worst row is {float(gap.max()):.3g}, and at most "
            f"{float(torch.as_tensor(tol).min()):.3g} is allowed. {advice}"
        )
    return Solution(value, gap, steps)
