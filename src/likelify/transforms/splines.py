r"""Monotone rational-quadratic splines (Durkan et al. 2019; Gregory and Delbourgo 1982).

Between knots `(x_k, y_k)` and `(x_{k+1}, y_{k+1})` with slopes `d_k, d_{k+1}` at the knots and `s = dy / dx` of the bin,
at `t = (x - x_k) / (x_{k+1} - x_k)`,

    y = y_k + (y_{k+1} - y_k) (s t^2 + d_k t (1-t)) / (s + (d_{k+1} + d_k - 2s) t (1-t)).

Outside the box the map is the identity and the outermost slopes are one, so it is a smooth bijection of the line.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likelify.errors import ConfigError
from likelify.structure import ContextLike, sum_items
from likelify.transforms.core import Transform, check_channels

MIN_BIN = 1e-3
MIN_SLOPE = 1e-3


@dataclass(frozen=True, eq=False)
class Knots:
    """Knots of splines: places, values and slopes, each `(..., bins + 1)`."""

    x: Tensor
    y: Tensor
    slope: Tensor


def raw_size(bins: int) -> int:
    """Give the number of unconstrained parameters of one spline: bin widths, heights and inner slopes."""
    return 3 * bins - 1


def knots_from_raw(raw: Tensor, *, bins: int, bound: float) -> Knots:
    """Turn unconstrained numbers `(..., 3 bins - 1)` into knots on `[-bound, bound]^2`; zeros give the identity."""
    widths, heights, slopes = raw.split([bins, bins, bins - 1], dim=-1)
    # The offset makes a raw slope of zero a slope of one.
    slope = MIN_SLOPE + F.softplus(slopes + math.log(math.expm1(1 - MIN_SLOPE)))
    return Knots(_cumulate(widths, bound), _cumulate(heights, bound), F.pad(slope, (1, 1), value=1.0))


def _cumulate(raw: Tensor, bound: float) -> Tensor:
    bins = raw.shape[-1]
    share = MIN_BIN + (1 - MIN_BIN * bins) * F.softmax(raw, dim=-1)
    inner = 2 * bound * share[..., :-1].cumsum(-1) - bound
    # The ends are set, not summed, so that they are exactly the bounds.
    return F.pad(F.pad(inner, (1, 0), value=-bound), (0, 1), value=bound)


def evaluate(knots: Knots, x: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    r"""Evaluate splines, or their inverses, at `x`; also give `log |dy/dx|` of the map that was evaluated.

    Two layouts: one spline per number, knots `(*x.shape, bins + 1)`; or splines shared along the last axis,
    `x` of shape `(channels, n)` and knots `(channels, bins + 1)`, which spends nothing per number on knots.
    """
    shared = knots.x.ndim == x.ndim
    places = knots.y if inverse else knots.x
    bound = places[..., -1:] if shared else places[..., -1]
    inside = x.abs() < bound
    # Outside, the formulas run on a harmless point so that no NaN can reach a gradient.
    point = torch.where(inside, x, 0.0)
    if shared:
        bin_ = torch.searchsorted(places[..., 1:-1].detach().contiguous(), point.detach(), right=True)

        def pick(table: Tensor, offset: int) -> Tensor:
            return table.gather(-1, bin_ + offset)
    else:
        bin_ = (point.detach()[..., None] >= places[..., 1:-1].detach()).sum(-1, keepdim=True)

        def pick(table: Tensor, offset: int) -> Tensor:
            return table.gather(-1, bin_ + offset)[..., 0]

    x0, x1 = pick(knots.x, 0), pick(knots.x, 1)
    y0, y1 = pick(knots.y, 0), pick(knots.y, 1)
    d0, d1 = pick(knots.slope, 0), pick(knots.slope, 1)
    width, height = x1 - x0, y1 - y0
    s = height / width
    curve = d0 + d1 - 2 * s
    if inverse:
        t = _solve(point - y0, height, s, d0, curve)
        value = x0 + t * width
    else:
        t = (point - x0) / width
        value = y0 + height * (s * t * t + d0 * t * (1 - t)) / (s + curve * t * (1 - t))
    log_slope = _log_slope(t, s, d0, d1, curve)
    return torch.where(inside, value, x), torch.where(inside, -log_slope if inverse else log_slope, 0.0)


def _solve(rise: Tensor, height: Tensor, s: Tensor, d0: Tensor, curve: Tensor) -> Tensor:
    """Solve the spline's equation for `t`: the root of a quadratic in [0, 1], in the form that does not cancel."""
    a = height * (s - d0) + rise * curve
    b = height * d0 - rise * curve
    c = -s * rise
    # Non-negative in exact arithmetic for points of the bin.
    root = (b * b - 4 * a * c).clamp_min(0).sqrt()
    return 2 * c / (-b - root)


def _log_slope(t: Tensor, s: Tensor, d0: Tensor, d1: Tensor, curve: Tensor) -> Tensor:
    u = 1 - t
    top = d1 * t * t + 2 * s * t * u + d0 * u * u
    return 2 * s.log() + top.log() - 2 * (s + curve * t * u).log()


class ChannelSpline(Transform):
    r"""One trained spline per channel, shared by all rows and positions; a fresh layer is the identity.

    Args:
        channels: size of axis 1 of `(rows, channels, ...)`.
        bins: pieces of each spline.
        bound: the spline acts on `[-bound, bound]` and is the identity outside.
    """

    def __init__(self, channels: int, *, bins: int = 8, bound: float = 4.0) -> None:
        super().__init__()
        check_spline(bins, bound)
        self.bins = bins
        self.bound = bound
        self.raw = nn.Parameter(torch.zeros(channels, raw_size(bins)))

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Evaluate the splines."""
        return self._evaluate(x, context, inverse=False)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Evaluate the inverse splines."""
        return self._evaluate(z, context, inverse=True)

    def _evaluate(self, x: Tensor, context: ContextLike, *, inverse: bool) -> tuple[Tensor, Tensor]:
        check_channels(x, len(self.raw), self)
        by_channel = x.transpose(0, 1)
        knots = knots_from_raw(self.raw, bins=self.bins, bound=self.bound)
        value, log_slope = evaluate(knots, by_channel.flatten(1), inverse=inverse)
        value, log_slope = (v.reshape(by_channel.shape).transpose(0, 1) for v in (value, log_slope))
        return value, sum_items(log_slope, context)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"{len(self.raw)}, bins={self.bins}, bound={self.bound}"


def check_spline(bins: int, bound: float) -> None:
    """Refuse settings with which a spline cannot be built."""
    if not 2 <= bins < 0.5 / MIN_BIN or not 0 < bound < math.inf:
        raise ConfigError(f"A spline needs 2 to {int(0.5 / MIN_BIN)} bins and a positive bound, got {bins}, {bound}.")
