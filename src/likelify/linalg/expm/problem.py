"""What is asked of a method, the strategies of its gradient, and the facts about it, found when they are needed."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from likelify.errors import ConfigError, ConvergenceError, DomainError, StateError, UnsupportedError
from likelify.linalg.bounds import power_iteration, rounding_of_sums, safe_exp
from likelify.linalg.expm.diagnostics import Bounds, Diagnostics, series_log_det, wrong_norm
from likelify.linalg.expm.expansion import ORDERS, SLACK
from likelify.linalg.maps import PROBE_LIMIT, LinearMap
from likelify.tracing import cached_property, in_forward_mode, is_tracing

# Beyond it e^b leaves the range of double precision, and with it every certificate.
MAX_NORM = 600.0
# Norms up to it grow too little for a better bound of the growth to matter.
SMALL_NORM = 3.0
# Error relative to the result from which no digit can be relied on.
HOPELESS = 0.1
# Shifts below it save no term.
SMALL_SHIFT = 0.05


@dataclass(frozen=True)
class Stored:
    """Keep the input and a few combinations of the terms: least work. The default."""


@dataclass(frozen=True)
class Recompute:
    """Keep only the input; the backward pass computes the terms again (half as many operator calls on top)."""


@dataclass(frozen=True)
class Unrolled:
    """Keep every term and let automatic differentiation work through the sum.

    The gradient is exactly that of the truncated sum. What `torch.compile`, `torch.func` and forward-mode
    differentiation need, what a fixed `degree` gets, and what maps get whose tensors likelify does not know.
    """


Gradient = Stored | Recompute | Unrolled


@dataclass(eq=False)
class ExpProblem:
    """What was asked of `exp_action`, `exp(time L) x` with `L = shift + M`, and what is known about it.

    Attributes:
        map: the map `L`.
        x: the input, in the layout the map likes.
        time: factor on the map.
        tol: allowed error relative to each item's norm.
        degree: a fixed degree, or None.
        gradient: the strategy that was asked for, or None for the default.
        span: size of the time as the caller gave it; `time` may hold factors of the caller's map as well.
    """

    map: LinearMap
    x: Tensor
    time: float
    tol: float
    degree: int | None
    gradient: Gradient | None
    span: float

    def __post_init__(self) -> None:
        self.event_shape = tuple(self.x.shape[1:])

    @cached_property
    def shift(self) -> float:
        """What is taken off the map; zero while tracing or where the degree is fixed."""
        if self.degree is not None or is_tracing():
            return 0.0
        with torch.no_grad():
            shift = float(self.map.centered(self.event_shape)[0])
        return shift if abs(self.time * shift) > SMALL_SHIFT else 0.0

    @cached_property
    def centered(self) -> LinearMap:
        """The map without the shift, `M`; it carries gradients."""
        return self.map.centered(self.event_shape)[1] if self.shift else self.map

    @cached_property
    def norm(self) -> float | Tensor:
        """Bound of `||time M||_2`; a tensor if it was computed from tensors."""
        centered = self.centered
        with torch.no_grad():
            return abs(self.time) * centered.norm_bound(self.event_shape)

    @cached_property
    def may_sync(self) -> bool:
        """Whether values of tensors may be read on the host."""
        on_cpu = self.x.device.type == "cpu"
        return not is_tracing() and (on_cpu or (self.degree is None and isinstance(self.norm, Tensor)))

    @cached_property
    def radius(self) -> float:
        """The norm bound as a number (a host sync if it is a tensor), checked."""
        largest = largest_of(self.norm)
        if not math.isfinite(largest):
            raise DomainError(
                "The norm bound of the map is not finite: its parameters hold NaN or infinity, or are so large that "
                "their squares overflow."
            )
        return largest

    @cached_property
    def growth(self) -> float:
        """Bound of the norm of the symmetric part of `time M`, so that `||exp(time M)|| <= e^growth`."""
        if self.centered.symmetry == "skew":
            return 0.0
        if self.radius <= SMALL_NORM or not self.may_sync or self.degree is not None:
            return self.radius
        with torch.no_grad():
            return min(self.radius, abs(self.time) * largest_of(self.centered.growth_bound(self.event_shape)))

    @cached_property
    def exponent(self) -> float:
        """`time shift`, the logarithm of the factor that the shift puts on the result."""
        return self.time * self.shift

    @property
    def gain(self) -> float:
        """`e^(time shift)`, which is zero where double precision ends."""
        return safe_exp(self.exponent)

    def magnified(self, error: float) -> float:
        """Multiply a bound by the gain."""
        return error * self.gain if error < math.inf else math.inf

    @cached_property
    def allowed(self) -> float:
        """What remains of the tolerance when the gain magnifies errors; a gain below one is not made use of."""
        return self.tol / max(1.0, self.gain)

    @cached_property
    def item_norms(self) -> Tensor:
        """Norms of the items of `x`."""
        return self.map.item_norms(self.x.detach())

    @property
    def item_size(self) -> float | Tensor:
        """Elements of one item; items that are graphs differ."""
        return self.map.item_size(self.event_shape)

    @cached_property
    def declared(self) -> bool:
        """Whether the map names every tensor with a gradient that it depends on."""
        map_ = self.centered
        if not map_.declared or map_.vouched:
            return map_.declared
        # A user's map may depend on a tensor that is not among its fields: then its value has a gradient without them.
        bare = map_.with_tensors({name: tensor.detach() for name, tensor in map_.tensors().items()})
        with torch.enable_grad():
            return not bare.apply(self._sample).requires_grad

    @cached_property
    def recorded(self) -> bool:
        """Whether derivatives of the value may be asked for."""
        if is_tracing():
            return not torch.compiler.is_compiling() or torch.is_grad_enabled()
        if in_forward_mode() or not torch.is_grad_enabled():
            return in_forward_mode()
        if self.x.requires_grad or any(tensor.requires_grad for tensor in self.map.tensors().values()):
            return True
        return not self.map.vouched and self.map.apply(self._sample).requires_grad

    @cached_property
    def orders(self) -> int:
        """How many derivatives the sum itself has to be right for: none if they are found in another way."""
        unrolled = not torch.is_grad_enabled() or isinstance(self.strategy, Unrolled) or not self.declared
        return ORDERS if unrolled and self.recorded else 0

    def try_map(self) -> None:
        """Apply the map to as few rows as it takes, for what it says of the input's shape."""
        with torch.no_grad():
            self.map.apply(self._sample)

    @property
    def _sample(self) -> Tensor:
        """As few rows as the map can be tried out on."""
        alone = self.map.rows is None and not self.map.couples_rows
        return self.x.detach()[:1] if alone else self.x.detach()

    @cached_property
    def strategy(self) -> Gradient:
        """How gradients are found: as was asked for where it is possible, else the leanest way that is right."""
        if is_tracing() or in_forward_mode():
            return Unrolled()
        if self.gradient is None:
            return Unrolled() if self.degree is not None or not self.declared else Stored()
        if isinstance(self.gradient, Stored) and self.degree is not None:
            raise ConfigError(
                "gradient=Stored() works to a tolerance and cannot go with a fixed degree; give tol= instead of "
                "degree=, or choose Unrolled() or Recompute()."
            )
        if isinstance(self.gradient, Stored) and not self.declared:
            raise UnsupportedError(
                f"gradient=Stored() needs a map whose tensors are known; {type(self.centered).__name__} uses some that "
                "are not among its fields. Choose Recompute() or Unrolled()."
            )
        return self.gradient

    def check_range(self) -> None:
        """Refuse exponentials that no floating format holds, and degrees that cannot be found while tracing."""
        if isinstance(self.norm, Tensor) and is_tracing():
            raise UnsupportedError(
                "exp_action would have to look at the terms to choose its degree, which torch.compile and torch.func "
                "cannot do. Give degree=, or a map that knows its norm bound as a number (norm=, or a layer with "
                "norm_limit=); for rotations, method='cayley'."
            )
        eps = torch.finfo(self.x.dtype).eps
        if self.radius * eps > HOPELESS / 100:
            raise ConvergenceError(
                f"The norm bound of the map is {self.radius:.3g}: rounding the map alone, by {eps:.1g} of it, changes "
                "every digit of the result but one or two. Limit the norm of the map (norm_limit=), or work in float64."
            )
        exponent = self.exponent + self.growth
        limit = min(MAX_NORM, math.log(torch.finfo(self.x.dtype).max))
        if exponent > limit:
            raise ConvergenceError(
                f"The exponential may be e^{exponent:.3g} times as large as its input, which no floating format of its "
                f"precision holds (limit e^{limit:.3g}). Limit the norm of the map (norm_limit=), or apply a part of "
                "it several times (time=)."
            )
        if self.growth > MAX_NORM:
            raise ConvergenceError(
                f"Parts of the exponential may differ by a factor of e^{2 * self.growth:.3g}, and certificates in "
                f"double precision end at e^{2 * MAX_NORM:.3g}. Limit the norm of the map (norm_limit=), or apply a "
                "part of it several times (time=)."
            )

    def log_det_error(self, degrees: tuple[int, ...], *, repeats: int = 1) -> float | Tensor:
        """Bound in nats, per item, what truncating the power series at these degrees does to the log-determinant."""
        with torch.no_grad():
            # Maps that are probed can only be sharpened on small events.
            small = math.prod(self.event_shape) <= PROBE_LIMIT
            sharp = self.centered.sharpened() if small or self.centered.declared else self.centered
            span = abs(self.time)
            norm = min(self.radius, span * largest_of(sharp.norm_bound(self.event_shape)))
            frobenius = span * sharp.frobenius_bound(self.event_shape)
            return series_log_det(norm, frobenius, self.item_size, degrees, repeats)

    def contradicts_declaration(self) -> str | None:
        """Say if a declared norm is smaller than what power iteration finds, where no terms are there to look at."""
        if isinstance(self.norm, Tensor) or not self.may_sync or in_forward_mode():
            return None
        # Several rows cost what one costs, and find the norm in fewer steps.
        map_, rows = self.centered, 8 if self.centered.rows is None else self.centered.rows
        if not rows:
            return None
        start = torch.randn(rows, *self.event_shape, generator=torch.Generator().manual_seed(0)).to(self.x)
        with torch.no_grad():
            found = abs(self.time) * float(power_iteration(map_.apply, map_.adjoint().apply, start, steps=4))
        return wrong_norm(found / max(self.radius, 1e-300)) if found > SLACK * self.radius else None

    @property
    def rounding(self) -> float:
        """Units in the last place that one application of the map may lose: more than one only for very long sums."""
        return max(1.0, rounding_of_sums(math.prod(self.event_shape)) / 50)

    def report(self, method: str, degrees: tuple[int, ...], bounds: Bounds, **more: Any) -> Diagnostics:
        """Fill in the diagnostics."""
        if "norm_bound" not in more:
            more["norm_bound"] = self.norm
        facts = {"operator_calls": sum(degrees), "tolerance": self.tol, "measure": self._measure()} | more
        return Diagnostics(method=method, degrees=degrees, dtype=self.x.dtype, bounds=bounds, **facts)

    def _measure(self) -> Callable[[], Tensor]:
        """Return the norms of the items when they are asked for, unless the input has changed by then."""
        if is_tracing() or "item_norms" in self.__dict__:
            return lambda: self.item_norms
        return unless_changed(self.x, lambda: self.item_norms, lambda: "item_norms" in self.__dict__)

    def forget_input(self) -> None:
        """Let go of the input, which the certificates do not need once its norms are known."""
        if "item_norms" in self.__dict__:
            self.x = self.x.new_empty(0, *self.event_shape)


def largest_of(value: float | Tensor) -> float:
    """Return the largest entry as a number."""
    if not isinstance(value, Tensor):
        return value
    return float(value.max()) if value.numel() else 0.0


def unless_changed(
    x: Tensor, norms: Callable[[], Tensor], are_known: Callable[[], bool] = lambda: False
) -> Callable[[], Tensor]:
    """Return a function that finds the norms of an input when they are asked for, unless it has changed by then."""
    if x.is_inference():
        # Such tensors do not count their changes.
        found = norms()
        return lambda: found
    version = x._version

    def measure() -> Tensor:
        if not are_known() and x._version != version:
            raise StateError("The input of the exponential was changed, so its norms are not known any more.")
        return norms()

    return measure
