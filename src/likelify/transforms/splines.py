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

from likelify.caching import Caching
from likelify.errors import ConfigError
from likelify.names import MOST_BINS
from likelify.shapes import check_size, check_sizes
from likelify.structure import ContextLike, sum_items
from likelify.tracing import in_forward_mode, is_tracing
from likelify.transforms.core import Transform
from likelify.transforms.inversion import SENSITIVE
from likelify.transforms.looks import look_elementwise

MIN_BIN = 1e-3  # `names.MOST_BINS` of them are half of the interval
MIN_SLOPE = 1e-3
# Cells of the table that finds bins: narrower than half the narrowest bin.
CELLS = 2048
# Elements that are worked on at a time: with fewer the calls, with more the memory takes over.
CHUNK = 32768


def raw_size(bins: int) -> int:
    """Return the number of unconstrained parameters of one spline: bin widths, heights and inner slopes."""
    return 3 * bins - 1


def knots_from_raw(raw: Tensor, *, bins: int, interval: float) -> Tensor:
    """Turn unconstrained parameters into knots on `[-interval, interval]^2`; zeros give the identity.

    The parameter axis is axis 1 throughout, not the last: short last axes are slow in every operation.

    Args:
        raw: `(rows, 3 bins - 1, ...)`.
        bins: number of pieces.
        interval: half the side of the box.

    Returns:
        `(rows, 3 (bins + 1), ...)`: the places of the knots, then their values, then the slopes there.
    """
    # Widths and heights go through each operation together.
    share = F.softmax(raw[:, : 2 * bins].unflatten(1, (2, bins)), dim=2)
    count = torch.arange(1, bins, dtype=raw.dtype, device=raw.device).reshape(-1, *(1,) * (raw.ndim - 2))
    least = 2 * interval * MIN_BIN * count - interval
    x, y = (least + 2 * interval * (1 - MIN_BIN * bins) * share[:, :, :-1].cumsum(2)).unbind(1)
    # The offset makes a raw slope of zero a slope of one.
    slope = MIN_SLOPE + F.softplus(raw[:, 2 * bins :] + math.log(math.expm1(1 - MIN_SLOPE)))
    low = torch.full_like(raw[:, :1], -interval)
    one = torch.ones_like(low)
    # The ends are set, not summed, so that they are exactly the bounds.
    return torch.cat([low, x, -low, low, y, -low, one, slope, one], 1)


def evaluate(knots: Tensor, x: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """Evaluate one spline per element, or its inverse.

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
    """Evaluate splines that many elements share, which spends nothing per element on knots.

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
    # A function with derivatives of its own passes no tangents on, and torch.compile takes none that would.
    plain = in_forward_mode() or (is_tracing() and not torch.compiler.is_compiling())
    run = _Piece.forward if plain else _Piece.apply
    value, log_slope = run(point, ends, inverse)  # pyright: ignore[reportGeneralTypeIssues]
    return torch.where(inside, value, x), torch.where(inside, log_slope, 0.0)


class _Piece(torch.autograd.Function):
    r"""One rational-quadratic piece per element, with its derivatives written out.

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


def evaluate_packed(knots: Tensor, x: Tensor, table: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Do the same as `evaluate_shared` without the inverse, up to rounding, in a third of the time.

    Args:
        knots: as there.
        x: as there.
        table: what `pack` makes of the knots, if it is known.
    """
    x = x.to(torch.promote_types(x.dtype, knots.dtype))
    places = knots[:, : knots.shape[1] // 3].detach().to(x.dtype)
    # In shorter dtypes two knots may fall into one cell.
    cells = len(places) == 1 and x.numel() > CELLS and x.dtype in (torch.float32, torch.float64)
    find = _find_in_cells if cells else _find_by_comparing
    index = find(x.detach(), places)
    table = (pack(knots) if table is None else table).to(x.dtype)
    value, log_slope = _Packed.apply(x.reshape(-1), table, index.reshape(-1))  # pyright: ignore[reportGeneralTypeIssues]
    return value.view(x.shape), log_slope.view(x.shape)


def pack(knots: Tensor) -> Tensor:
    r"""Return the coefficients that a piece is evaluated with, `(7, channels (bins + 2))`; the tails count as bins.

    With width `w`, height `h` and slopes `d0, d1` they are `x0, 1/w, y0, h, p = w d0, k = w d1, c = (p + k)/h - 2`.
    """
    x, y, slope = knots.split(knots.shape[1] // 3, 1)
    width, height = x.diff(), y.diff()
    p, k = width * slope[:, :-1], width * slope[:, 1:]
    table = torch.stack([x[:, :-1], 1 / width, y[:, :-1], height, p, k, (p + k) / height - 2])
    # At these ends, where `_bend` puts the elements outside, such a piece has value x0, slope one and no curvature.
    end = x[:1, -1]
    zero, one = torch.zeros_like(end), torch.ones_like(end)
    low, high = (torch.stack([e, one, e, one, one, one, zero])[:, None].expand(7, len(x), 1) for e in (-end, end))
    return torch.cat([low, table, high], 2).flatten(1)


def _find_by_comparing(x: Tensor, places: Tensor) -> Tensor:
    """Return the column of `pack` for every element, by counting the knots below it."""
    # Bytes are added much faster than integers, and a search is slower than a few comparisons.
    bin_ = (x >= places[:, :1]).to(torch.uint8) if places.shape[1] < 256 else (x >= places[:, :1]).int()
    for knot in places[:, 1:].unbind(1):
        bin_ += x >= knot[:, None]
    first = (places.shape[1] + 1) * torch.arange(len(places), dtype=torch.int32, device=x.device)
    return bin_ + first[:, None]


def _find_in_cells(x: Tensor, places: Tensor) -> Tensor:
    """Return the same for one spline, from a table of cells so small that each holds at most one knot.

    An element's cell grows with its value, also after rounding; so all knots in lower cells lie below it, and with the
    knot of its own cell it is compared.
    """
    end = places[0, -1]
    scale = CELLS / (2 * end)

    def cell(v: Tensor) -> Tensor:
        # The last step is for NaN, whose integer is undefined.
        return torch.minimum(torch.maximum(v, -end), end).mul_(scale).add_(CELLS / 2).int().clamp_min_(0)

    of_knots = cell(places[0]).long()
    knots = x.new_full((CELLS + 1,), math.inf).index_put_((of_knots,), places[0])
    there = torch.isfinite(knots)
    below = there.cumsum(0, dtype=torch.int32) - there.int()
    x = x.reshape(-1)
    index = torch.empty_like(x, dtype=torch.int32)
    for part, into in zip(x.split(_chunk(x)), index.split(_chunk(x)), strict=True):
        its = cell(part)
        torch.add(below.index_select(0, its), part >= knots.index_select(0, its), out=into)
    return index


def _chunk(x: Tensor) -> int:
    """Return how many elements to work on at a time: on a CPU as many as keep all temporaries in its cache."""
    return CHUNK if x.device.type == "cpu" else max(x.numel(), 1)


class _Packed(torch.autograd.Function):
    r"""All elements of a layer through the columns of one small table, with `index` telling the column of each.

    With `t = (x - x0) / w`, `m = t (1 - t)` and `r = 1 / (1 + c m)`

        y = y0 + (h t^2 + p m) r,   dy/dx = T r^2 / w,   T = p (1-t)^2 + 2 h m + k t^2.

    The gradients by the table are sums over the elements of each bin, so nothing of the size of `x` times the number
    of table rows is ever built; the backward works out its intermediate values again, in the cache.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, table, index)
        value, log_slope = torch.empty_like(x), torch.empty_like(x)
        for its in zip(*(v.split(_chunk(x)) for v in (x, index, value, log_slope)), strict=True):
            _evaluate_into(table, *its)
        return value, log_slope

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, table, index = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *_pull_back_again(x, table, index, grads), None
        grad_x, grad_table = torch.empty_like(x), torch.zeros_like(table)
        for its in zip(*(v.split(_chunk(x)) for v in (x, index, *grads, grad_x)), strict=True):
            # Sums of sums: one long sum would lose digits.
            grad_table += _pull_back_into(table, *its)
        grad_table[0].neg_()
        grad_table[1] /= table[1]
        return grad_x, grad_table, None


def _bend(x: Tensor, table: Tensor) -> Tensor:
    """Clamp elements outside the interval to its end points."""
    return torch.minimum(torch.maximum(x, table[0, 0]), table[0, -1])


def _evaluate_into(table: Tensor, x: Tensor, index: Tensor, value: Tensor, log_slope: Tensor) -> None:
    """Write value and log-slope; what is not needed again is overwritten or dropped, for the sake of the cache."""
    bent = _bend(x, table)
    t, by_width = _place(bent, table, index)
    u = 1 - t
    m = t * u
    tt = t.mul_(t)
    h, p = _pick(table, 3, index), _pick(table, 4, index)
    top = u.mul_(u).mul_(p).addcmul_(h, m, value=2)
    rise = h.mul_(tt).addcmul_(p, m)
    top.addcmul_(_pick(table, 5, index), tt).mul_(by_width)
    r = _pick(table, 6, index).mul_(m).add_(1).reciprocal_()
    torch.sub(x, bent, out=value).add_(_pick(table, 2, index)).addcmul_(rise, r)
    torch.log(r.mul_(r).mul_(top), out=log_slope)


def _pull_back_into(
    table: Tensor, x: Tensor, index: Tensor, grad_value: Tensor, grad_log: Tensor, grad_x: Tensor
) -> Tensor:
    """Write the gradient by `x`; give that by the table, the first row negative and the second times its own value.

    The symbols are those of `_Packed`; `n` is the gradient by the fraction's numerator, `g` that by `T`, and `b m` the
    one by `c`.
    """
    t, by_width = _place(_bend(x, table), table, index)
    u = 1 - t
    m, tilt = t * u, u - t
    c = _pick(table, 6, index)
    r = (c * m).add_(1).reciprocal_()
    n = grad_value * r
    h, p, k = (_pick(table, row, index) for row in (3, 4, 5))
    tt, uu = t * t, u * u
    g = (p * uu).addcmul_(h, m, value=2).addcmul_(tt, k).reciprocal_().mul_(grad_log)
    b = (h * tt).addcmul_(p, m).mul_(n).add_(grad_log, alpha=2).mul_(r).neg_()
    grad_t = c.mul_(b).mul_(tilt)
    grad_t.addcmul_(g, k.mul_(t).addcmul_(h, tilt).addcmul_(p, u, value=-1), value=2)
    grad_t.addcmul_(n, h.mul_(t).mul_(2).addcmul_(p, tilt))
    torch.mul(grad_t, by_width, out=grad_x)
    index = index.long()
    grad_table = torch.zeros_like(table)
    grad_table[0].scatter_add_(0, index, grad_x)
    grad_table[1].scatter_add_(0, index, grad_t.mul_(t).add_(grad_log))
    grad_table[2].scatter_add_(0, index, grad_value)
    grad_table[3].scatter_add_(0, index, (n * tt).addcmul_(g, m, value=2))
    grad_table[4].scatter_add_(0, index, n.mul_(m).addcmul_(g, uu))
    grad_table[5].scatter_add_(0, index, g.mul_(tt))
    grad_table[6].scatter_add_(0, index, b.mul_(m))
    return grad_table


def _pick(table: Tensor, row: int, index: Tensor) -> Tensor:
    return table[row].index_select(0, index)


def _place(bent: Tensor, table: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Return `t`, and `1 / w` with it."""
    x0, by_width = _pick(table, 0, index), _pick(table, 1, index)
    return torch.sub(bent, x0, out=x0).mul_(by_width), by_width


def _pull_back_again(x: Tensor, table: Tensor, index: Tensor, grads: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Return the same gradients by automatic differentiation, so that they can be differentiated again."""
    x, table = (v if v.requires_grad else v.detach().requires_grad_() for v in (x, table))
    bent = _bend(x, table.detach())
    x0, by_width, y0, h, p, k, c = table.index_select(1, index)
    t = (bent - x0) * by_width
    m = t * (1 - t)
    r = 1 / (1 + c * m)
    value = y0 + (h * t * t + p * m) * r + (x - bent)
    log_slope = ((p * (1 - t) ** 2 + 2 * h * m + k * t * t) * by_width * r * r).log()
    return torch.autograd.grad((value, log_slope), (x, table), grads, create_graph=True)  # pyright: ignore[reportReturnType]


class ChannelSpline(Transform, Caching):
    r"""One trained spline per channel, shared by all rows and positions; a fresh layer is the identity.

    Args:
        channels: size of axis 1 of `(rows, channels, ...)`.
        bins: pieces of each spline.
        interval: the spline acts on `[-interval, interval]` and is the identity outside.
    """

    fills_space = True

    # What a single element loses is known from its slope.
    inverse_check = SENSITIVE

    def __init__(self, channels: int, *, bins: int = 8, interval: float = 4.0) -> None:
        super().__init__()
        check_spline(bins, interval)
        self.bins = bins
        self.interval = interval
        self.takes = (check_size(channels, "channels"), ...)
        self.raw = nn.Parameter(torch.zeros(channels, raw_size(bins)))

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Evaluate the splines."""
        return self._evaluate(x, context, inverse=False)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Evaluate the inverse splines."""
        return self._evaluate(z, context, inverse=True)

    def _evaluate(self, x: Tensor, context: ContextLike, *, inverse: bool) -> tuple[Tensor, Tensor]:
        by_channel = x.transpose(0, 1)
        value, log_slope = _evaluate_raw(self, by_channel.flatten(1), inverse=inverse)
        value, log_slope = (v.reshape(by_channel.shape).transpose(0, 1) for v in (value, log_slope))
        if inverse:
            look_elementwise(self, x, value, log_slope)
        return value, sum_items(log_slope, context)


class SharedSpline(ChannelSpline):
    r"""One trained spline for all elements: an activation that is a bijection of the line; at first the identity.

    The activation of the flowified networks of Mate et al. 2022, with 10 bins inside [-2, 2].

    Args:
        bins: pieces of the spline.
        interval: the spline acts on `[-interval, interval]` and is the identity outside.
    """

    def __init__(self, *, bins: int = 10, interval: float = 2.0) -> None:
        super().__init__(1, bins=bins, interval=interval)
        self.takes = None

    def _evaluate(self, x: Tensor, context: ContextLike, *, inverse: bool) -> tuple[Tensor, Tensor]:
        # In the order of the memory nothing is copied, and convolutions find the layout they left.
        order = list(range(x.ndim)) if is_tracing() else sorted(range(x.ndim), key=x.stride, reverse=True)
        there = x.permute(order)
        value, log_slope = _evaluate_raw(self, there.reshape(1, -1), inverse=inverse)
        back = sorted(range(x.ndim), key=order.__getitem__)
        value, log_slope = (v.reshape(there.shape).permute(back) for v in (value, log_slope))
        if inverse:
            look_elementwise(self, x, value, log_slope)
        return value, sum_items(log_slope, context)


def _evaluate_raw(layer: ChannelSpline, x: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
    if is_tracing() or in_forward_mode():
        knots = knots_from_raw(layer.raw, bins=layer.bins, interval=layer.interval)
        return evaluate_shared(knots, x, inverse=inverse)
    knots = layer.cached("knots", lambda: knots_from_raw(layer.raw, bins=layer.bins, interval=layer.interval))
    if inverse:
        return evaluate_shared(knots, x, inverse=True)
    return evaluate_packed(knots, x, layer.cached("table", lambda: pack(knots)))


def check_spline(bins: int, interval: float) -> None:
    """Refuse settings with which a spline cannot be built."""
    check_sizes(bins=bins)
    if not 2 <= bins <= MOST_BINS or not 0 < interval < math.inf:
        raise ConfigError(f"A spline needs 2 to {MOST_BINS} bins and a positive interval, got {bins}, {interval}.")
