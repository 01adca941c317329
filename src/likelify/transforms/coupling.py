r"""Coupling layers: one part of the event parametrises an elementwise map of the other (Dinh et al. 2015, 2017).

A `Coupling` puts three choices together: which part is which (a *split*), what acts on the second part (a *bijector*
with parameters per element), and the network that reads the first part and the condition.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from likelify.calling import CallsNet, call_net, refuse_condition
from likelify.distributions.normal import limit_log_scale
from likelify.errors import ConfigError, ShapeError, UnsupportedError
from likelify.shapes import EventShape, check_size, kept_arguments
from likelify.structure import ContextLike, sum_items
from likelify.tracing import in_full_precision
from likelify.transforms import splines
from likelify.transforms.core import Transform
from likelify.transforms.inversion import SENSITIVE
from likelify.transforms.looks import look_elementwise

# Scales up to the exponential of this lose three digits at most, so that inverses with them need not be looked at.
SAFE_STEEPNESS = 6.0


class Bijector(ABC):
    """A family of elementwise bijections with `size` unconstrained parameters per element; zeros are the identity."""

    size: int
    # Largest `|log |dz/dx||` that there can be.
    steepness: float = math.inf

    @abstractmethod
    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Map `x`, `(rows, *rest)`, with parameters `(rows, size, *rest)`; also return `log |dz/dx|` per element."""

    @abstractmethod
    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Undo `forward`; also return `log |dx/dz|` per element."""


class AffineBijector(Bijector):
    """`z = x exp(s) + t` with `s = limit tanh(raw / limit)`, so that the log scale stays within `+-limit`.

    Args:
        limit: above 0, and finite.

    Raises:
        ConfigError: for another one.
    """

    size = 2

    def __init__(self, limit: float = 2.0) -> None:
        if not 0 < limit < math.inf:
            raise ConfigError(f"The limit of log scales must be above 0 and finite, got {limit!r}.")
        self.limit = self.steepness = limit

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Scale, then shift."""
        log_scale, shift = self._scale_and_shift(raw)
        return x * log_scale.exp() + shift, log_scale

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Shift back, then scale back."""
        log_scale, shift = self._scale_and_shift(raw)
        return (z - shift) * (-log_scale).exp(), -log_scale

    def _scale_and_shift(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        return limit_log_scale(raw[:, 0], self.limit), raw[:, 1]

    def __repr__(self) -> str:
        return f"AffineBijector(limit={self.limit})"


class SplineBijector(Bijector):
    """A monotone rational-quadratic spline on `[-interval, interval]`, the identity outside (see `splines`)."""

    def __init__(self, bins: int = 8, interval: float = 4.0) -> None:
        splines.check_spline(bins, interval)
        self.bins = bins
        self.interval = interval
        self.size = splines.raw_size(bins)

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate the splines."""
        return self._evaluate(x, raw, inverse=False)

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate the inverse splines."""
        return self._evaluate(z, raw, inverse=True)

    def _evaluate(self, x: Tensor, raw: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        if x.ndim != 2:
            return splines.evaluate(self._knots(raw), x, inverse=inverse)
        # One copy, and the elements of all rows are along the last axis: nothing runs over short ones.
        knots = self._knots(raw.transpose(0, 1).reshape(1, self.size, -1))
        value, log_slope = splines.evaluate(knots, x.reshape(1, -1), inverse=inverse)
        return value.reshape(x.shape), log_slope.reshape(x.shape)

    def _knots(self, raw: Tensor) -> Tensor:
        return splines.knots_from_raw(raw, bins=self.bins, interval=self.interval)

    def __repr__(self) -> str:
        return f"SplineBijector(bins={self.bins}, interval={self.interval})"


class ChainBijector(Bijector):
    """Several bijectors one after the other, each with parameters of its own, such as a spline behind an affine map.

    Args:
        bijectors: in the order in which data meet them.

    Example:
        >>> ChainBijector([AffineBijector(), SplineBijector(bins=4)]).size
        13
    """

    def __init__(self, bijectors: Sequence[Bijector]) -> None:
        self.bijectors = tuple(bijectors)
        if not self.bijectors or not all(isinstance(bijector, Bijector) for bijector in self.bijectors):
            raise UnsupportedError(f"ChainBijector takes a list of one bijector or more, got {bijectors!r}.")
        self.size = sum(bijector.size for bijector in self.bijectors)
        self.steepness = sum(bijector.steepness for bijector in self.bijectors)

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Apply them in order."""
        return self._apply(x, raw, inverse=False)

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Undo them, the last one first."""
        return self._apply(z, raw, inverse=True)

    def _apply(self, x: Tensor, raw: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        parts = raw.split([bijector.size for bijector in self.bijectors], 1)
        pairs = list(zip(self.bijectors, parts, strict=True))
        log_slopes = []
        for bijector, part in reversed(pairs) if inverse else pairs:
            x, log_slope = bijector.inverse(x, part) if inverse else bijector.forward(x, part)
            log_slopes.append(log_slope)
        return x, sum(log_slopes[1:], log_slopes[0])

    def __repr__(self) -> str:
        return f"ChainBijector([{', '.join(map(repr, self.bijectors))}])"


class ChannelSplit(nn.Module):
    """Split axis 1 into its first and last half; the network reads the first one, or the last one with `swap`."""

    extra_repr = kept_arguments

    def __init__(self, channels: int, *, swap: bool = False) -> None:
        super().__init__()
        channels = check_size(channels, "The channels of a ChannelSplit")
        if channels == 1:
            raise ConfigError(
                "The channels of a ChannelSplit must be at least 2, got 1: one part is read, the other changed. Split "
                "positions by a MaskSplit; single numbers and graphs of one feature have graph_exponential and "
                "ChannelSpline in turn, or a ContinuousFlow."
            )
        self.channels = channels
        self.takes: EventShape = (channels, ...)
        self.swap = swap
        half = channels // 2
        self.sizes = (channels - half, half) if swap else (half, channels - half)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the part that is read and the part that is changed."""
        half = self.channels // 2
        first, last = x[:, :half], x[:, half:]
        return (last, first) if self.swap else (first, last)

    def join(self, read: Tensor, changed: Tensor) -> Tensor:
        """Put the parts together again."""
        return torch.cat([changed, read] if self.swap else [read, changed], 1)


class MaskSplit(nn.Module):
    """Split the elements of an event by position; both parts are vectors `(rows, n)`.

    Args:
        mask: booleans of the event's shape; the network reads the elements where it is true.
    """

    reading: Tensor
    changing: Tensor
    order: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        flat = mask.flatten().bool()
        if bool(flat.all()) or not bool(flat.any()):
            raise ShapeError("A mask split needs at least one element on each side.")
        self.event_shape = tuple(mask.shape)
        self.takes: EventShape = self.event_shape
        self.sizes = (int(flat.sum()), int((~flat).sum()))
        # Derived from the mask, which the model's settings give: not part of the state.
        self.register_buffer("reading", flat.nonzero()[:, 0], persistent=False)
        self.register_buffer("changing", (~flat).nonzero()[:, 0], persistent=False)
        self.register_buffer("order", torch.cat([self.reading, self.changing]).argsort(), persistent=False)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the part that is read and the part that is changed."""
        flat = x.flatten(1)
        return flat.index_select(1, self.reading), flat.index_select(1, self.changing)

    def join(self, read: Tensor, changed: Tensor) -> Tensor:
        """Put the parts together again."""
        flat = torch.cat([read, changed], 1).index_select(1, self.order)
        return flat.reshape(-1, *self.event_shape)

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"{self.event_shape}, reads {self.sizes[0]}, changes {self.sizes[1]}"


class Coupling(CallsNet, Transform):
    r"""Change one part of the event by an elementwise bijection whose parameters are read off the other part.

    `z_a = x_a`, `z_b = f(x_b; net(x_a, context))`; the log-determinant is the sum of the elementwise ones. Both
    directions cost one call of the network. Under `torch.autocast` the network works in half precision, and the
    bijection in float32 with the parameters that the network gave.

    Args:
        split: `ChannelSplit` or `MaskSplit`.
        bijector: `AffineBijector`, `SplineBijector`, or a `ChainBijector` of several.
        net: called as `net(x_a, context)`, or as `net(x_a)` if its `forward` takes one argument, as that of
            `torch.nn.Sequential`; returns `(rows, size * channels_b, *positions)`: the first parameter of every changed
            channel, then the second of each, and so on. A net whose last layer is zero starts at the identity.

    Raises:
        UnsupportedError: if one of the three is something else.
        ShapeError: if the network does not fit, or cannot read a condition that is given.
    """

    fills_space = True

    # What a single element loses is known from its slope, without another call of the network.
    inverse_check = SENSITIVE
    keeps_autocast = True

    def __init__(self, split: ChannelSplit | MaskSplit, bijector: Bijector, net: nn.Module) -> None:
        super().__init__()
        if not (isinstance(split, ChannelSplit | MaskSplit) and isinstance(bijector, Bijector)):
            raise UnsupportedError(
                "Coupling takes a split (ChannelSplit, MaskSplit), a bijector (AffineBijector, SplineBijector) and a "
                f"network, in this order; got a {type(split).__name__} and a {type(bijector).__name__}."
            )
        if not isinstance(net, nn.Module):
            raise UnsupportedError(f"The network of a Coupling must be a torch.nn.Module, not a {type(net).__name__}.")
        self.takes = split.takes
        self.split = split
        self.bijector = bijector
        self.net = net

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Change the second part."""
        read, changed = self.split.split(x)
        value, log_slope = in_full_precision(self.bijector.forward, changed, self._raw(read, changed, context))
        return self.split.join(read, value), sum_items(log_slope, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Change the second part back."""
        read, changed = self.split.split(z)
        value, log_slope = in_full_precision(self.bijector.inverse, changed, self._raw(read, changed, context))
        if self.bijector.steepness > SAFE_STEEPNESS:
            look_elementwise(self, changed, value, log_slope)
        return self.split.join(read, value), sum_items(log_slope, context)

    def _raw(self, read: Tensor, changed: Tensor, context: ContextLike) -> Tensor:
        if self.net_takes_context:
            raw = call_net(self.net, read, context, owner="Coupling")
        else:
            refuse_condition(context, "Coupling")
            raw = call_net(self.net, read, owner="Coupling")
        expected = (changed.shape[0], changed.shape[1] * self.bijector.size, *changed.shape[2:])
        if tuple(raw.shape) != expected:
            raise ShapeError(
                f"The coupling's network returned {tuple(raw.shape)}; {self.bijector} needs {expected} "
                f"({self.bijector.size} parameters for each changed element)."
            )
        return raw.unflatten(1, (self.bijector.size, changed.shape[1]))

    def extra_repr(self) -> str:
        """Show the bijector."""
        return f"bijector={self.bijector}"
