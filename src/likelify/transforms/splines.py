r"""Monotone rational-quadratic splines (Durkan et al. 2019; Gregory and Delbourgo 1982).

Between knots `(x_k, y_k)` and `(x_{k+1}, y_{k+1})` with slopes `d_k, d_{k+1}` at the knots and `s = dy / dx` of the
bin, at `t = (x - x_k) / (x_{k+1} - x_k)`,

    y = y_k + (y_{k+1} - y_k) (s t^2 + d_k t (1-t)) / (s + (d_{k+1} + d_k - 2s) t (1-t)).

Outside the box the map is the identity and the outermost slopes are one, so it is a smooth bijection of the line.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likelify.errors import ConfigError
from likelify.structure import ContextLike, sum_items
from likelify.transforms.core import Transform, check_channels

MIN_BIN = 1e-3
MIN_SLOPE = 1e-3


def raw_size(bins: int) -> int:
    """Give the number of unconstrained parameters of one spline: bin widths, heights and inner slopes."""
    return 3 * bins - 1


def knots_from_raw(raw: Tensor, *, bins: int, bound: float) -> Tensor:
    """Turn unconstrained numbers into knots on `[-bound, bound]^2`; zeros give the identity.

    The parameter axis is axis 1 throughout, not the last: short last axes are slow in every operation.

    Args:
        raw: `(rows, 3 bins - 1, ...)`.
        bins: number of pieces.
        bound: half the side of the box.

    Returns:
        `(rows, 3 (bins + 1), ...)`: the places of the knots, then their values, then the slopes there.
    """
    # Widths and heights go through each operation together.
    share = F.softmax(raw[:, : 2 * bins].unflatten(1, (2, bins)), dim=2)
    count = torch.arange(1, bins, dtype=raw.dtype, device=raw.device).reshape(-1, *(1,) * (raw.ndim - 2))
    least = 2 * bound * MIN_BIN * count - bound
    x, y = (least + 2 * bound * (1 - MIN_BIN * bins) * share[:, :, :-1].cumsum(2)).unbind(1)
    # The offset makes a raw slope of zero a slope of one.
    slope = MIN_SLOPE + F.softplus(raw[:, 2 * bins :] + math.log(math.expm1(1 - MIN_SLOPE)))
    low = torch.full_like(raw[:, :1], -bound)
    one = torch.ones_like(low)
    # The ends are set, not summed, so that they are exactly the bounds.
    return torch.cat([low, x, -low, low, y, -low, one, slope, one], 1)


def evaluate(knots: Tensor, x: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """Evaluate one spline per number, or its inverse.

    Args:
        knots: from `knots_from_raw`, `(rows, 3 (bins + 1), *rest)`.
        x: `(rows, *rest)`.
        inverse: evaluate the inverse.

    Returns:
        The value, and `log |dy/dx|` of the map that was evaluated, both `(rows, *rest)`.
    """
    size = knots.shape[1] // 3
    places = knots[:, size : 2 * size] if inverse else knots[:, :size]
    inside = x.abs() < places[:, -1]
    # Outside, the formulas run on a harmless point so that no NaN can reach a gradient.
    point = torch.where(inside, x, 0.0)
    bin_ = (point.detach().unsqueeze(1) >= places[:, 1:-1].detach()).sum(1, keepdim=True)
    # One gather for both ends of the bin in all three tables.
    tables = size * torch.arange(3, device=x.device)
    offsets = torch.stack([tables, tables + 1], 1).reshape(1, 6, *(1,) * (x.ndim - 1))
    index = bin_ + offsets
    return _piece(knots.gather(1, index), x, point, inside, inverse=inverse)


def evaluate_shared(knots: Tensor, x: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """Evaluate splines that many numbers share, which spends nothing per number on knots.

    Args:
        knots: from `knots_from_raw`, `(channels, 3 (bins + 1))`.
        x: `(channels, n)`.
        inverse: evaluate the inverse.

    Returns:
        As `evaluate`, `(channels, n)`.
    """
    size = knots.shape[1] // 3
    places = (knots[:, size : 2 * size] if inverse else knots[:, :size]).detach().contiguous()
    inside = x.abs() < places[:, -1:]
    point = torch.where(inside, x, 0.0)
    bin_ = torch.searchsorted(places[:, 1:-1].contiguous(), point.detach().contiguous(), right=True)
    ends = [knots.gather(1, bin_ + table * size + offset) for table in range(3) for offset in (0, 1)]
    return _piece(torch.stack(ends, 1), x, point, inside, inverse=inverse)


def _piece(ends: Tensor, x: Tensor, point: Tensor, inside: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
    """Evaluate the pieces with these ends where `inside`, and the identity elsewhere."""
    value, log_slope = _Piece.apply(point, ends, inverse)  # pyright: ignore[reportGeneralTypeIssues]
    return torch.where(inside, value, x), torch.where(inside, log_slope, 0.0)


class _Piece(torch.autograd.Function):
    r"""One rational-quadratic piece per number, with its derivatives written out.

    `ends` stacks places, values and slopes along axis 1, left and right of each. Automatic differentiation of the
    formula would take three times as many small operations, which is what the time of a spline layer goes into. The
    backward is made of differentiable operations on saved tensors, so it can be differentiated again.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(point: Tensor, ends: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:  # noqa: FBT001
        x0, x1, y0, y1, d0, d1 = ends.unbind(1)
        width, height = x1 - x0, y1 - y0
        s = height / width
        t = _solve(point - y0, height, s, d0, d0 + d1 - 2 * s) if inverse else (point - x0) / width
        u = 1 - t
        mixed = t * u
        bottom = s + (d0 + d1 - 2 * s) * mixed
        log_slope = ((d1 * t * t + 2 * s * mixed + d0 * u * u) * (s / bottom) ** 2).log()
        if inverse:
            return x0 + t * width, -log_slope
        return y0 + height * (s * t * t + d0 * mixed) / bottom, log_slope

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: tuple[Tensor, Tensor]) -> None:
        point, ends, ctx.inverse = inputs
        ctx.save_for_backward(output[0] if ctx.inverse else point, ends)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, ends = ctx.saved_tensors
        grad_value, grad_log = grads
        if not ctx.inverse:
            return *_pull_back(x, ends, grad_value, grad_log)[:2], None
        # With x = F^-1(y): dx = (dy - dF) / F', and the log-slope is minus that of F at x.
        grad_x, _, slope = _pull_back(x, ends, torch.zeros_like(x), -grad_log)
        grad_point = (grad_value + grad_x) / slope
        _, grad_ends, _ = _pull_back(x, ends, -grad_point, -grad_log)
        return grad_point, grad_ends, None


def _pull_back(x: Tensor, ends: Tensor, grad_value: Tensor, grad_log: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pull gradients of (value, log-slope) back to (x, ends); also give the slope."""
    x0, x1, y0, y1, d0, d1 = ends.unbind(1)
    width, height = x1 - x0, y1 - y0
    s = height / width
    t = (x - x0) / width
    u = 1 - t
    mixed, tilt = t * u, u - t
    tt = t * t
    curve = d0 + d1 - 2 * s
    bottom = s + curve * mixed
    share = (s * tt + d0 * mixed) / bottom
    top = d1 * tt + 2 * s * mixed + d0 * u * u
    slope = top * (s / bottom) ** 2
    by_top = grad_log / top
    by_bottom = (grad_value * height * share + 2 * grad_log) / -bottom
    by_rise = grad_value * height / bottom
    grad_t = by_rise * (2 * s * t + d0 * tilt) + by_bottom * curve * tilt + 2 * by_top * (d1 * t + s * tilt - d0 * u)
    grad_s = by_rise * tt + by_bottom * (1 - 2 * mixed) + 2 * by_top * mixed + 2 * grad_log / s
    grad_d0 = (by_rise + by_bottom) * mixed + by_top * u * u
    grad_d1 = by_bottom * mixed + by_top * tt
    grad_x = grad_t / width
    grad_width = -(grad_s * s + grad_t * t) / width
    grad_height = grad_value * share + grad_s / width
    grads = [-grad_x - grad_width, grad_width, grad_value - grad_height, grad_height, grad_d0, grad_d1]
    return grad_x, torch.stack(grads, 1), slope


def _solve(rise: Tensor, height: Tensor, s: Tensor, d0: Tensor, curve: Tensor) -> Tensor:
    """Solve the spline's equation `a t^2 + b t + c = 0` for its root in [0, 1], in the form that does not cancel."""
    a = height * (s - d0) + rise * curve
    b = height * d0 - rise * curve
    c = -s * rise
    # Non-negative in exact arithmetic for points of the bin.
    root = (b * b - 4 * a * c).clamp_min(0).sqrt()
    # Since c <= 0 <= a + b + c, a is positive wherever b is negative; there the other form of the root cancels.
    falling = b < 0
    t = torch.where(falling, root - b, 2 * c) / torch.where(falling, 2 * a, -b - root)
    # Where the spline is all but flat, rounding alone would carry the root out of its bin.
    return t.clamp(0, 1)


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
        value, log_slope = evaluate_shared(knots, by_channel.flatten(1), inverse=inverse)
        value, log_slope = (v.reshape(by_channel.shape).transpose(0, 1) for v in (value, log_slope))
        return value, sum_items(log_slope, context)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"{len(self.raw)}, bins={self.bins}, bound={self.bound}"


def check_spline(bins: int, bound: float) -> None:
    """Refuse settings with which a spline cannot be built."""
    if not 2 <= bins < 0.5 / MIN_BIN or not 0 < bound < math.inf:
        raise ConfigError(f"A spline needs 2 to {int(0.5 / MIN_BIN)} bins and a positive bound, got {bins}, {bound}.")
