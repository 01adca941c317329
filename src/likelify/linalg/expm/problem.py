"""What is asked of a method."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from likelify.errors import DomainError
from likelify.linalg.bounds import safe_exp
from likelify.linalg.expm.diagnostics import Bounds, Diagnostics
from likelify.linalg.expm.gradients import Gradient
from likelify.linalg.maps import LinearMap


@dataclass(frozen=True, eq=False)
class Problem:
    """What is asked: `exp(time L) x` with `L = shift + map_`.

    Attributes:
        map_: the centered map.
        shift: what was taken off.
        x: the input, in the layout the map likes.
        time: factor on the map.
        tol: allowed error relative to each item's norm.
        degree: a fixed degree, or None.
        gradient: the strategy, or None for the default.
        norm: bound of `||time map_||_2`.
        growth_bound: bound of the norm of its symmetric part as a number, so that `||exp(time map_)|| <= e^growth`, or
            None where the norm must do.
        item_norms: norms of the items of `x`.
        looks: whether Python may look at values (not while tracing, not on an accelerator that need not stop).
        traced: whether `torch.compile`, `torch.func` or forward-mode differentiation is at work.
    """

    map_: LinearMap
    shift: float
    x: Tensor
    time: float
    tol: float
    degree: int | None
    gradient: Gradient | None
    norm: float | Tensor
    growth_bound: float | None
    item_norms: Tensor
    looks: bool
    traced: bool

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return tuple(self.x.shape[1:])

    @property
    def radius(self) -> float:
        """The norm bound as a number (a host sync if it is a tensor), checked."""
        largest = largest_of(self.norm)
        if not math.isfinite(largest):
            raise DomainError(
                "The norm bound of the map is not finite: its parameters hold NaN or infinity, or are so large that "
                "their squares overflow."
            )
        return largest

    @property
    def growth(self) -> float:
        """Bound of the norm of the symmetric part, by the norm itself if nothing better is known."""
        return self.radius if self.growth_bound is None else self.growth_bound

    @property
    def gain(self) -> float:
        """`e^(time shift)`."""
        return safe_exp(self.time * self.shift)

    @property
    def allowed(self) -> float:
        """What remains of the tolerance when the gain magnifies errors; a gain below one is not made use of."""
        return self.tol / max(1.0, self.gain)

    @property
    def item_size(self) -> float | Tensor:
        """Numbers in one item; items that are graphs differ."""
        return self.map_.item_size(self.event_shape)

    def frobenius(self) -> float | Tensor:
        """Bound of the Frobenius norm of `time map_` on one item."""
        with torch.no_grad():
            return abs(self.time) * self.map_.frobenius_bound(self.event_shape)

    def report(self, method: str, degrees: tuple[int, ...], bounds: Bounds, **more: Any) -> Diagnostics:
        """Fill in the diagnostics."""
        facts = {"operator_calls": sum(degrees), "norm_bound": self.norm, "tolerance": self.tol} | more
        return Diagnostics(
            method=method, degrees=degrees, item_norms=self.item_norms, dtype=self.x.dtype, bounds=bounds, **facts
        )


def largest_of(value: float | Tensor) -> float:
    """Give the largest entry as a number."""
    return float(value.max()) if isinstance(value, Tensor) and value.numel() else float(value)
