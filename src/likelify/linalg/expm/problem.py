"""What is asked of a method, and the facts about it, each found when it is first needed."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from likelify.errors import ConvergenceError, DomainError, StateError, UnsupportedError
from likelify.linalg.bounds import power_iteration, safe_exp
from likelify.linalg.expm.diagnostics import Bounds, Diagnostics, series_log_det
from likelify.linalg.expm.gradients import Gradient
from likelify.linalg.expm.series import MAX_NORM
from likelify.linalg.expm.watch import SLACK, wrong_norm
from likelify.linalg.maps import PROBE_LIMIT, LinearMap
from likelify.tracing import is_tracing

# Norms up to it grow too little for a better bound of the growth to matter.
SMALL_NORM = 3.0
# Error relative to the result from which no digit can be relied on.
HOPELESS = 0.1
# Shifts below it save no term.
SMALL_SHIFT = 0.05
T = TypeVar("T")


@dataclass(eq=False)
class Problem:
    """The action `exp(time L) x`, with `L = shift + map_`.

    Attributes:
        given: the map `L`.
        x: the input, in the layout the map likes.
        time: factor on the map.
        tol: allowed error relative to each item's norm.
        degree: a fixed degree, or None.
        gradient: the strategy, or None for the default.
        span: size of the time as the caller gave it; `time` may hold factors of the caller's map as well.
    """

    given: LinearMap
    x: Tensor
    time: float
    tol: float
    degree: int | None
    gradient: Gradient | None
    span: float
    _facts: dict[str, Any] = field(default_factory=dict, repr=False)
    _grad: bool = field(default_factory=torch.is_grad_enabled, repr=False)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return tuple(self.x.shape[1:])

    @property
    def traced(self) -> bool:
        """Whether `torch.compile`, `torch.func` or forward-mode differentiation is at work."""
        return is_tracing() or forward_ad._current_level >= 0

    @property
    def looks(self) -> bool:
        """Whether Python looks at values."""
        return self._once("looks", lambda: may_look(self.norm, self.x, self.degree))

    @property
    def shift(self) -> float:
        """What is taken off the map; zero where nobody may look at it or the degree is fixed."""
        return self._once("shift", self._find_shift)

    @property
    def map_(self) -> LinearMap:
        """The map without the shift."""
        return self._once("map", lambda: self.given.centered(self.event_shape)[1] if self.shift else self.given)

    @property
    def norm(self) -> float | Tensor:
        """Bound of `||time map_||_2`; a tensor if it was computed from tensors."""
        return self._once("norm", lambda: abs(self.time) * self.map_.norm_bound(self.event_shape))

    @property
    def radius(self) -> float:
        """The norm bound as a number (a host sync if it is a tensor), checked."""
        return self._once("radius", self._find_radius)

    @property
    def growth(self) -> float:
        """Bound of the norm of the symmetric part of `time map_`, so that `||exp(time map_)|| <= e^growth`."""
        return self._once("growth", self._find_growth)

    @property
    def declared(self) -> bool:
        """Whether the map names every tensor with a gradient that it depends on."""
        return self._once("declared", lambda: self.map_.declared and not self._hides_tensors())

    @property
    def gain(self) -> float:
        """`e^(time shift)`."""
        return safe_exp(self.time * self.shift)

    @property
    def allowed(self) -> float:
        """What remains of the tolerance when the gain magnifies errors; a gain below one is not made use of."""
        return self.tol / max(1.0, self.gain)

    @property
    def item_norms(self) -> Tensor:
        """Norms of the items of `x`."""
        return self._once("item_norms", lambda: self.given.item_norms(self.x.detach()))

    @property
    def item_size(self) -> float | Tensor:
        """Numbers in one item; items that are graphs differ."""
        return self.given.item_size(self.event_shape)

    def log_det_error(self, degrees: tuple[int, ...], *, repeats: int = 1) -> float | Tensor:
        """Bound in nats, per item, what truncating the power series at these degrees does to the log-determinant."""
        with torch.no_grad():
            # Maps that are probed can only be sharpened on small events.
            small = math.prod(self.event_shape) <= PROBE_LIMIT
            sharp, span = self.map_.sharpened() if small or self.map_.declared else self.map_, abs(self.time)
            norm = min(self.radius, span * largest_of(sharp.norm_bound(self.event_shape)))
            frobenius = span * sharp.frobenius_bound(self.event_shape)
            return series_log_det(norm, frobenius, self.item_size, degrees, repeats)

    def forget_input(self) -> None:
        """Let go of the input, which the certificates do not need once its norms are known."""
        if "item_norms" in self._facts:
            self.x = self.x.new_empty(0, *self.event_shape)

    def check_range(self) -> None:
        """Refuse exponentials that no floating format holds, and degrees that nobody can find."""
        if isinstance(self.norm, Tensor) and is_tracing():
            raise UnsupportedError(
                "exp_action would have to look at the terms to choose its degree, which torch.compile and torch.func "
                "cannot do. Give degree=, or a map that knows its norm bound as a number (norm=, or a layer with "
                "norm_limit=)."
            )
        eps = torch.finfo(self.x.dtype).eps
        if self.radius * eps > HOPELESS / 100:
            raise ConvergenceError(
                f"The norm bound of the map is {self.radius:.3g}: rounding the map alone, by {eps:.1g} of it, changes "
                "every digit of the result but one or two. Limit the norm of the map (norm_limit=), or work in float64."
            )
        exponent = self.time * self.shift + self.growth
        limit = min(MAX_NORM, math.log(torch.finfo(self.x.dtype).max))
        if exponent > limit:
            raise ConvergenceError(
                f"The exponential may be e^{exponent:.3g} times as large as its input, which no floating format of its "
                f"precision holds (limit e^{limit:.3g}). Limit the norm of the map (norm_limit=), or apply a part of "
                "it several times (time=)."
            )

    def report(self, method: str, degrees: tuple[int, ...], bounds: Bounds, **more: Any) -> Diagnostics:
        """Fill in the diagnostics."""
        facts = {"operator_calls": sum(degrees), "tolerance": self.tol, "measure": self._measure()} | more
        norm = facts.pop("norm_bound", None)
        return Diagnostics(
            method=method,
            degrees=degrees,
            norm_bound=self.norm if norm is None else norm,
            dtype=self.x.dtype,
            bounds=bounds,
            **facts,
        )

    def _measure(self) -> Callable[[], Tensor]:
        """Return the norms of the items when they are asked for, unless the input has changed by then."""
        if is_tracing() or "item_norms" in self._facts:
            return lambda: self.item_norms
        if self.x.is_inference():
            # Such tensors do not count their changes.
            norms = self.item_norms
            return lambda: norms
        version = self.x._version

        def measure() -> Tensor:
            if "item_norms" not in self._facts and self.x._version != version:
                raise StateError("The input of the exponential was changed, so its norms are not known any more.")
            return self.item_norms

        return measure

    def contradicts_declaration(self) -> str | None:
        """Say if a declared norm is smaller than what power iteration finds, where no terms are there to watch."""
        if isinstance(self.norm, Tensor) or not self.looks or self.traced:
            return None
        # Several rows cost what one costs, and find the norm in fewer steps.
        map_, rows = self.map_, self.map_.rows or 8
        start = torch.randn(rows, *self.event_shape, generator=torch.Generator().manual_seed(0)).to(self.x)
        with torch.no_grad():
            found = abs(self.time) * float(power_iteration(map_.apply, map_.adjoint().apply, start, steps=4))
        return wrong_norm(found / max(self.radius, 1e-300)) if found > SLACK * self.radius else None

    def _once(self, name: str, find: Callable[[], T]) -> T:
        if name not in self._facts:
            # The map carries gradients; what is measured does not.
            with torch.set_grad_enabled(self._grad and name == "map"):
                self._facts[name] = find()
        return self._facts[name]

    def _hides_tensors(self) -> bool:
        """Look whether a user's map depends on a tensor with a gradient that is not among its fields."""
        map_ = self.map_
        if map_.is_built_in:
            return False
        bare = map_.with_tensors({name: tensor.detach() for name, tensor in map_.tensors().items()})
        alone = map_.rows is None and not map_.couples_rows
        with torch.enable_grad():
            return bare.apply(self.x.detach()[:1] if alone else self.x.detach()).requires_grad

    def _find_shift(self) -> float:
        if self.degree is not None or is_tracing():
            return 0.0
        shift = float(self.given.centered(self.event_shape)[0])
        return shift if abs(self.time * shift) > SMALL_SHIFT else 0.0

    def _find_radius(self) -> float:
        largest = largest_of(self.norm)
        if not math.isfinite(largest):
            raise DomainError(
                "The norm bound of the map is not finite: its parameters hold NaN or infinity, or are so large that "
                "their squares overflow."
            )
        return largest

    def _find_growth(self) -> float:
        if self.map_.symmetry == "skew":
            return 0.0
        if self.radius <= SMALL_NORM or not self.looks or self.degree is not None:
            return self.radius
        return min(self.radius, abs(self.time) * largest_of(self.map_.growth_bound(self.event_shape)))


def may_look(norm: float | Tensor, x: Tensor, degree: int | None) -> bool:
    """Decide whether Python looks at values, which stops an accelerator; on a CPU looking costs nothing."""
    return not is_tracing() and (x.device.type == "cpu" or (isinstance(norm, Tensor) and degree is None))


def largest_of(value: float | Tensor) -> float:
    """Return the largest entry as a number."""
    if not isinstance(value, Tensor):
        return value
    return float(value.max()) if value.numel() else 0.0
