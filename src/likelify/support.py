"""Where the elements of events can lie, and what becomes of those outside."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor, nn

from likelify.errors import DomainError, ShapeError
from likelify.tracing import Recorder, can_look, is_tracing

_IN_A_FLOW: ContextVar[bool] = ContextVar("likelify_in_a_flow", default=False)


class Interval(NamedTuple):
    """The values from `low` to `high`; a finite end belongs to them if `closed`.

    Example:
        >>> str(Interval(0.0, math.inf)), Interval(0.0, 1.0).covers(LINE)
        ('(0, inf)', False)
    """

    low: float
    high: float
    closed: bool = False

    def __str__(self) -> str:
        left, right = ("[" if self.closed and math.isfinite(self.low) else "("), ("]" if self.closed else ")")
        return f"{left}{self.low:g}, {self.high:g}{right if math.isfinite(self.high) else ')'}"

    def covers(self, other: "Interval") -> bool:
        """Tell whether the other interval lies between the ends of this one."""
        return self.low <= other.low and other.high <= self.high

    def scaled(self, scale: float, shift: float) -> "Interval":
        """Return the interval of `scale (x + shift)`."""
        low, high = sorted((scale * (self.low + shift), scale * (self.high + shift)))
        return Interval(low, high, self.closed)


def hull(intervals: Sequence[Interval]) -> Interval:
    """Return the smallest interval that covers all of some intervals, of which there is at least one."""
    return Interval(min(i.low for i in intervals), max(i.high for i in intervals), any(i.closed for i in intervals))


LINE = Interval(-math.inf, math.inf)
UNIT = Interval(0.0, 1.0)
MINUS_TO_ONE = Interval(-1.0, 1.0)
POSITIVE = Interval(0.0, math.inf)
NOT_NEGATIVE = Interval(0.0, math.inf, closed=True)


class Doubt(NamedTuple):
    """Whether the input of a layer lay inside of its domain, still on the device.

    Attributes:
        outside: number of values that did not.
        values: number of all.
        layer: name of the layer's class.
        meaning: of the domain.
    """

    outside: Tensor
    values: int
    layer: str
    meaning: str


# Collects what layers on an accelerator would have made the host wait for, see `check_domain`.
doubts: Recorder[Doubt] = Recorder("doubts")


@contextmanager
def rows_outside_allowed() -> Iterator[None]:
    """Let rows outside of the support of a layer have the log-density minus infinity, for the block."""
    token = _IN_A_FLOW.set(True)
    try:
        yield
    finally:
        _IN_A_FLOW.reset(token)


def at_work_in_a_flow() -> bool:
    """Tell whether rows outside of a support have the log-density minus infinity just now."""
    return _IN_A_FLOW.get()


def within(x: Tensor, inside: Tensor, layer: object, meaning: str, anchor: float | Tensor) -> tuple[Tensor, Tensor]:
    """Keep a bounded layer to the values on which it is defined.

    The log-density of a flow is minus infinity outside of its support, row by row: the layer works on an anchor in
    place of such values, so that nothing infinite reaches a gradient, and gives them the log-slope minus infinity. A
    layer by itself has no such answer, and raises. Missing values (NaN) stay what they are.

    Args:
        x: input of the layer.
        inside: which of its elements are inside.
        layer: which layer it is.
        meaning: what inside means, in words.
        anchor: a value that is inside; or one for each element.

    Returns:
        The values to work on, and which of them count.

    Raises:
        DomainError: for values outside, if the layer is not at work in a flow's likelihood.
    """
    if not (is_tracing() or at_work_in_a_flow()):
        check_domain(inside, layer, meaning)
        return x, inside
    inside = inside | x.isnan()
    return torch.where(inside, x, anchor), inside


def inner_ends(interval: Interval, dtype: torch.dtype) -> tuple[float, float]:
    """Return the smallest and the largest number of a dtype that lie strictly inside of an interval."""
    eps, tiny = torch.finfo(dtype).eps, torch.finfo(dtype).tiny
    low = interval.low + max(abs(interval.low) * eps, tiny)
    return low, interval.high - max(abs(interval.high) * eps / 2, tiny)


def strictly_inside(z: Tensor, interval: Interval) -> Tensor:
    """Return values that rounding, or saturation, may have put on the ends of an interval, moved to just inside."""
    low, high = inner_ends(interval, z.dtype)
    return z.clamp(low if math.isfinite(low) else None, high if math.isfinite(high) else None)


def check_domain(inside: Tensor, layer: object, meaning: str) -> None:
    """Raise `DomainError` unless all of `inside` is true.

    Skipped where Python cannot look at tensors (`torch.compile`, `torch.func`, while a CUDA graph is captured). In a
    block of `doubts()` an accelerator does not wait: what was asked is noted, for `settle`, by CUDA graphs as well.
    """
    if is_tracing() or not (can_look(inside) or doubts.is_open):
        return
    waits = inside.device.type == "cpu" or not doubts.is_open
    if waits and bool(inside.all()):
        return
    doubt = Doubt((~inside).sum(), inside.numel(), type(layer).__name__, meaning)
    if waits:
        settle([doubt])
    else:
        doubts.add(doubt)


def settle(found: Sequence[Doubt]) -> None:
    """Raise `DomainError` for the first of some doubts that was right; they are read at once."""
    counts = torch.stack([doubt.outside for doubt in found]).tolist() if found else []
    for doubt, outside in zip(found, counts, strict=True):
        if outside:
            raise DomainError(f"{doubt.layer}: {outside} of {doubt.values} input values lie outside {doubt.meaning}.")


def check_sample(x: Tensor, layer: nn.Module) -> None:
    """Refuse a sample that `initialize` would turn into parameters that are not finite."""
    name = type(layer).__name__
    if not x.numel():
        raise ShapeError(f"{name}.initialize got an empty sample; give it a sample of the training data.")
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x)).sum())
        raise DomainError(
            f"{name}.initialize got {bad} of {x.numel()} values that are not finite. Look for missing values in the "
            "data."
        )
