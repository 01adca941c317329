r"""Solve `u + f(u) = v` set by set, for `f` an elementwise function whose parameters an `AutoregressiveNet` gives.

Positions that do not see each other form a set (on images with 3x3 kernels all pixels with the same `2 row + column`),
and all that a set sees is final when its turn comes. Inside a position the channels are solved in blocks, for which
the same holds, since the hidden units of a channel read channels up to it. What is left is a small nilpotent system
per block, for which diagonal Newton steps need few evaluations whatever the weights. All work together is one to three
evaluations of the network.

The linear system `(I + J) w = h`, which derivatives need, is solved the same way, and the transposed one in the
opposite order.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from likelify.errors import ConvergenceError
from likelify.nets.masked import AutoregressiveNet
from likelify.structure import ContextLike
from likelify.transforms.sylvester_flows.scalar import ScalarResidual

# Steps that a block may take beyond one for each of its channels.
EXTRA_STEPS = 60
# Square root of the elements in a set (rows times positions times channels) per block of channels: more blocks save
# arithmetic and cost calls. Between 16 and 24 is best for all shapes of `python -m benchmarks.layers`.
ELEMENTS_PER_BLOCK = 20


@dataclass(frozen=True, eq=False)
class WavefrontSolution:
    """The solution of `u + f(u) = v`, and how good it is.

    Attributes:
        value: `u`, like the right-hand side.
        slope: `f'(u)` at every element.
        residual: the worst `|u + f(u) - v| / (1 + |v|)` of all elements.
        evaluations: evaluations of the network's pointwise part, averaged over the blocks.
    """

    value: Tensor
    slope: Tensor
    residual: float
    evaluations: float


def solve(
    net: AutoregressiveNet, scalar: ScalarResidual, v: Tensor, context: ContextLike, tol: float
) -> WavefrontSolution:
    """Solve `u + f(u) = v` to `|residual| <= tol (1 + |v|)` at every element, if that can be; no gradients.

    Args:
        net: gives the parameters of `f`.
        scalar: the elementwise functions.
        v: `(rows, channels, *positions)`.
        context: as for the network.
        tol: allowed residual.
    """
    weights = _Layout(net, v, context)
    solver = _Substitution(weights, scalar, weights.spread(v), tol)
    for start, end in weights.schedule.sets:
        solver.solve_set(start, end)
    blocks = max(len(weights.schedule.sets) * len(weights.blocks), 1)
    value, slope = weights.collect(solver.found[:-1], v), weights.collect(solver.slope, v)
    return WavefrontSolution(value, slope, solver.worst, solver.evaluations / blocks)


def solve_linear(
    net: AutoregressiveNet,
    scalar: ScalarResidual,
    u: Tensor,
    h: Tensor,
    context: ContextLike,
    tol: float,
    *,
    transposed: bool,
) -> Tensor:
    r"""Solve `(I + J) w = h` or `(I + J)^T w = h` with `J` the Jacobian of `f` at `u`; no gradients.

    Args:
        net: gives the parameters of `f`.
        scalar: the elementwise functions.
        u: where the Jacobian is taken, `(rows, channels, *positions)`.
        h: right-hand side, of the same shape.
        context: as for the network.
        tol: allowed residual, relative to `|w|` and to the largest `|h|` of the item.
        transposed: which of the two.

    Raises:
        ConvergenceError: if a residual stays above that.
    """
    weights = _Layout(net, u, context)
    slopes = _Slopes(weights, scalar, weights.spread(u))
    solver = (_TransposedSubstitution if transposed else _LinearSubstitution)(weights, slopes, weights.spread(h), tol)
    for start, end in weights.schedule.sets[:: -1 if transposed else 1]:
        solver.solve_set(start, end)
    if solver.worst > tol:
        raise ConvergenceError(
            f"A derivative of the inverse of TriangularResidual ended with a relative residual of {solver.worst:.3g}; "
            f"{tol:.2g} is allowed. The map may be too ill-conditioned for this dtype: allow a larger tol, or use "
            "float64."
        )
    return weights.collect(solver.found[:-1], u)


@dataclass(frozen=True)
class _ChannelBlock:
    """Consecutive channels, and the hidden units that belong to them."""

    c: slice
    h: slice


class _Layout:
    """A network's weights as the solvers use them, and their layout `(positions, rows, features)` of values.

    Positions are sorted by set, so that a set is a slice, and what its positions see are rows of a store.
    """

    def __init__(self, net: AutoregressiveNet, x: Tensor, context: ContextLike) -> None:
        self.channels, self.hidden, self.taps = net.channels, net.hidden, net.taps
        self.on_nodes = net.dims == "nodes"
        self.schedule = net.neighbours(x, context).schedule(x.device)
        self.positions = len(self.schedule.order)
        self.rows = 1 if self.on_nodes else len(x)
        enter, self.middle, leave = net.weights()
        self.enter_near, self.enter_own = enter[:, :-1].flatten(1), enter[:, -1].contiguous()
        self.leave_near, self.leave_own = leave[:-1].flatten(0, 2), leave[-1]
        self.middle_bias, self.leave_bias = list(net.middle_bias), net.leave_bias
        bias = net.condition_bias(x, context)
        self.enter_bias = net.enter_bias.expand(self.positions, self.rows, -1)
        if bias is not None:
            self.enter_bias = self.enter_bias + self.spread(bias.movedim(-1, 1))
        self.blocks = self._cut(net)

    def _cut(self, net: AutoregressiveNet) -> list[_ChannelBlock]:
        """Cut the channels into blocks; fewer where sets are small, since every block costs some calls."""
        elements = self.rows * self.positions * self.channels / max(len(self.schedule.sets), 1)
        cuts = [(0, 0), *net.blocks(max(1, round(elements**0.5 / ELEMENTS_PER_BLOCK)))]
        return [_ChannelBlock(slice(a, b), slice(h, k)) for (a, h), (b, k) in itertools.pairwise(cuts)]

    def spread(self, x: Tensor) -> Tensor:
        """Sort `(rows, c, *positions)` by set: `(positions, rows, c)`."""
        if self.on_nodes:
            return x[self.schedule.order][:, None]
        return x.reshape(*x.shape[:2], -1).permute(2, 0, 1)[self.schedule.order]

    def collect(self, x: Tensor, like: Tensor) -> Tensor:
        """Undo `spread`; images come out in the layout that the network works in."""
        x = x[self.schedule.place]
        if self.on_nodes:
            return x[:, 0]
        return x.transpose(0, 1).reshape(len(like), *like.shape[2:], -1).movedim(-1, 1)

    def store(self, *leading: int, features: int, like: Tensor) -> Tensor:
        """Make a place for values of all positions, with zeros for what lies outside."""
        return like.new_zeros(*leading, self.positions + 1, self.rows, features)

    def largest(self, h: Tensor) -> Tensor:
        """Return the largest value of each item, on graphs of the batch: derivatives have no size of their own."""
        largest = h.abs().amax() if self.on_nodes else h.abs().amax((0, 2), keepdim=True)
        return largest.clamp_min(torch.finfo(h.dtype).tiny).expand_as(h)

    def by_tap(self, x: Tensor) -> Tensor:
        """Turn `(n rows, taps f)` into `(taps, n, rows, f)`."""
        return x.view(-1, self.rows, self.taps, x.shape[1] // self.taps).permute(2, 0, 1, 3)


class _ForwardSubstitution(ABC):
    """The solution of a triangular system as far as it is known, from the first set on. Write `_solve_block`.

    Args:
        weights: of the network.
        size: parameters of each scalar function.
        v: the right-hand side.
        scale: what a residual is compared with.
        tol: allowed residual.
        biases: of the network's first layer, for every position; of its middle layers; of its last.
    """

    def __init__(
        self,
        weights: _Layout,
        size: int,
        v: Tensor,
        scale: Tensor,
        tol: float,
        biases: tuple[Tensor, Sequence[Tensor], Tensor],
    ) -> None:
        self.weights, self.size, self.v, self.scale, self.tol = weights, size, v, scale, tol
        self.enter_bias, self.middle_bias, self.leave_bias = biases
        self.found = weights.store(features=weights.channels, like=v)
        self.heads = weights.store(weights.taps, features=size * weights.channels, like=v)
        self.slope = torch.empty_like(v)
        self.worst, self.evaluations = 0.0, 0

    def solve_set(self, start: int, end: int) -> None:
        """Solve all positions of one set."""
        w, links = self.weights, self.weights.schedule.earlier
        enter = self.enter_bias[start:end].flatten(0, 1)
        raw = self.leave_bias.expand(len(enter), -1, -1)
        if w.taps:
            enter = torch.addmm(enter, links.gather(self.found, start, end).flatten(0, 1), w.enter_near.T)
            raw = raw + links.collect(self.heads, start, end).view_as(raw)
        self.found[start:end] = self._solve_rows(enter, raw, slice(start, end))

    def _solve_rows(self, enter: Tensor, raw: Tensor, places: slice) -> Tensor:
        """Solve some positions block by block, and tell their neighbours."""
        w, v, scale = self.weights, self.v[places].flatten(0, 1), self.scale[places].flatten(0, 1)
        u, slope = v.clone(), torch.empty_like(v)
        layers = [v.new_empty(len(v), w.hidden) for _ in range(len(w.middle) + 1)]
        for block in w.blocks:
            bases = self._bases(block, u, layers, enter, raw)
            given = v[:, block.c], scale[:, block.c], places
            u[:, block.c], slope[:, block.c], units = self._solve_block(block, bases, *given)
            for layer, values in zip(layers, units, strict=True):
                layer[:, block.h] = values
        if w.taps:
            self.heads[:, places] = w.by_tap(layers[-1] @ w.leave_near.T)
        self.slope[places] = slope.unflatten(0, (-1, w.rows))
        return u.unflatten(0, (-1, w.rows))

    def _bases(self, block: _ChannelBlock, u: Tensor, layers: list[Tensor], enter: Tensor, raw: Tensor) -> list[Tensor]:
        """Return what earlier channels and units send to the layers of a block; it stays the same in all its steps."""
        w, c, h = self.weights, block.c, block.h
        bases = [torch.addmm(enter[:, h], u[:, : c.start], w.enter_own[h, : c.start].T)]
        for weight, bias, below in zip(w.middle, self.middle_bias, layers, strict=False):
            bases.append(torch.addmm(bias[h], below[:, : h.start], weight[h, : h.start].T))
        heads = w.leave_own[:, c, : h.start].flatten(0, 1)
        return [*bases, torch.addmm(raw[:, :, c].flatten(1), layers[-1][:, : h.start], heads.T)]

    def _inner(self, block: _ChannelBlock) -> tuple[Tensor, list[Tensor], Tensor]:
        """Return the weights between the channels and units of a block, of the first, the middle and the last layer."""
        w, c, h = self.weights, block.c, block.h
        return w.enter_own[h, c].T, [weight[h, h].T for weight in w.middle], w.leave_own[:, c, h].flatten(0, 1).T

    @abstractmethod
    def _solve_block(
        self, block: _ChannelBlock, bases: list[Tensor], v: Tensor, scale: Tensor, places: slice
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the channels of a block, their slopes and their hidden units, layer by layer."""


class _Substitution(_ForwardSubstitution):
    """The solution of `u + f(u) = v` as far as it is known."""

    def __init__(self, weights: _Layout, scalar: ScalarResidual, v: Tensor, tol: float) -> None:
        biases = weights.enter_bias, weights.middle_bias, weights.leave_bias
        super().__init__(weights, scalar.size, v, 1 + v.abs(), tol, biases)
        self.scalar = scalar

    def _solve_block(
        self, block: _ChannelBlock, bases: list[Tensor], v: Tensor, scale: Tensor, places: slice
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the channels of a block, their slopes and their hidden units, by Newton steps."""
        enter, middle, leave = self._inner(block)
        u, step = v, 0
        while True:
            units = [torch.addmm(bases[0], u, enter).relu_()]
            for weight, base in zip(middle, bases[1:], strict=False):
                units.append(torch.addmm(base, units[-1], weight).relu_())
            raw = torch.addmm(bases[-1], units[-1], leave).unflatten(1, (self.size, -1))
            value, slope = self.scalar.evaluate(u, raw)
            residual = u + value - v
            gap, step = float((residual.abs() / scale).max()), step + 1
            if not gap > self.tol or step > v.shape[1] + EXTRA_STEPS:  # a NaN ends it, too
                break
            u = self.scalar.step(u, raw, v, residual, slope)
        self.evaluations += step
        self.worst = _larger(self.worst, gap)
        return u, slope, units


class _Slopes:
    """The derivatives of `f` at a point.

    Attributes:
        derivatives: by its parameters, `(positions, rows, size, channels)`.
        slope: by `u` itself, `(positions, rows, channels)`.
        active: which units of each layer are.
    """

    def __init__(self, weights: _Layout, scalar: ScalarResidual, u: Tensor) -> None:
        w, links, size = weights, weights.schedule.earlier, scalar.size
        units = torch.addmm(w.enter_bias.flatten(0, 1), u.flatten(0, 1), w.enter_own.T)
        if w.taps:
            near = links.gather(torch.cat([u, torch.zeros_like(u[:1])]), 0, w.positions)
            units.addmm_(near.flatten(0, 1), w.enter_near.T)
        self.active = [(units > 0).unflatten(0, (-1, w.rows))]
        for weight, bias in zip(w.middle, w.middle_bias, strict=True):
            units = torch.addmm(bias, units.relu_(), weight.T)
            self.active.append((units > 0).unflatten(0, (-1, w.rows)))
        raw = torch.addmm(w.leave_bias.flatten(), units.relu_(), w.leave_own.flatten(0, 1).T)
        if w.taps:
            heads = w.store(w.taps, features=size * w.channels, like=u)
            heads[:, :-1] = w.by_tap(units @ w.leave_near.T)
            raw += links.collect(heads, 0, w.positions).flatten(0, 1)
        derivatives, slope = scalar.linearize(u.flatten(0, 1), raw.unflatten(1, (size, -1)))
        self.derivatives, self.slope = (part.unflatten(0, (-1, w.rows)) for part in (derivatives, slope))

    def at(self, places: slice) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return all of some positions, whose rows are put together."""
        active = [mask[places].flatten(0, 1) for mask in self.active]
        return self.derivatives[places].flatten(0, 1), self.slope[places].flatten(0, 1), active


class _LinearSubstitution(_ForwardSubstitution):
    """The solution of `(I + J) w = h` as far as it is known: the same network without biases, linear in its units."""

    def __init__(self, weights: _Layout, slopes: _Slopes, h: Tensor, tol: float) -> None:
        biases = (weights.enter_bias, *weights.middle_bias, weights.leave_bias)
        enter, *middle, leave = (bias.new_zeros(()).expand_as(bias) for bias in biases)
        size = slopes.derivatives.shape[2]
        super().__init__(weights, size, h, weights.largest(h), tol, (enter, middle, leave))
        self.slopes = slopes

    def _solve_block(
        self, block: _ChannelBlock, bases: list[Tensor], v: Tensor, scale: Tensor, places: slice
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the channels of a block, their slopes and their hidden units, by diagonal steps."""
        c, h = block.c, block.h
        enter, middle, leave = self._inner(block)
        derivatives, slope, active = self.slopes.at(places)
        derivatives, slope, active = derivatives[:, :, c], slope[:, c], [mask[:, h] for mask in active]
        x, step = v / (1 + slope), 0
        while True:
            units = [torch.addmm(bases[0], x, enter).mul_(active[0])]
            for weight, base, mask in zip(middle, bases[1:-1], active[1:], strict=True):
                units.append(torch.addmm(base, units[-1], weight).mul_(mask))
            raw = torch.addmm(bases[-1], units[-1], leave).unflatten(1, (self.size, -1))
            residual = v - (1 + slope) * x - (derivatives * raw).sum(1)
            gap, step = float((residual.abs() / (scale + x.abs())).max()), step + 1
            if not gap > self.tol or step > v.shape[1] + EXTRA_STEPS:  # a NaN ends it, too
                break
            x = x + residual / (1 + slope)
        self.worst = _larger(self.worst, gap)
        return x, slope, units


class _TransposedSubstitution:
    """The solution of `(I + J)^T y = g` as far as it is known."""

    def __init__(self, weights: _Layout, slopes: _Slopes, g: Tensor, tol: float) -> None:
        self.weights, self.slopes, self.g, self.tol = weights, slopes, g, tol
        self.scale = weights.largest(g)
        self.found = weights.store(features=weights.channels, like=g)
        self.to_input = weights.store(weights.taps, features=weights.channels, like=g)
        self.to_heads = weights.store(features=slopes.derivatives.shape[2] * weights.channels, like=g)
        self.worst = 0.0

    def solve_set(self, start: int, end: int) -> None:
        """Solve all positions of one set, and tell the earlier positions they see."""
        w, links, places = self.weights, self.weights.schedule.later, slice(start, end)
        g = self.g[places].flatten(0, 1)
        top = g.new_zeros(len(g), w.hidden)
        if w.taps:
            g = g - links.collect(self.to_input, start, end).flatten(0, 1)
            top = links.gather(self.to_heads, start, end).flatten(0, 1) @ w.leave_near
        y, told, arrived = self._solve_rows(places, g, top)
        self.found[places] = y.unflatten(0, (-1, w.rows))
        if w.taps:
            self.to_heads[places] = told.flatten(1).unflatten(0, (-1, w.rows))
            self.to_input[:, places] = w.by_tap(arrived @ w.enter_near)

    def _solve_rows(self, places: slice, g: Tensor, top: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the solution, what it sends to the heads, and what arrives in front of the first layer."""
        w = self.weights
        derivatives, slope, active = self.slopes.at(places)
        slope, scale = 1 + slope, self.scale[places].flatten(0, 1)
        y, told = torch.empty_like(g), torch.zeros_like(derivatives)
        layers = [g.new_zeros(len(g), w.hidden) for _ in active]
        for block in reversed(w.blocks):
            c, h = block.c, block.h
            bases = self._bases(block, g, top, layers, told)
            y[:, c], told[:, :, c], arrived = self._solve_block(
                block, bases, derivatives[:, :, c], slope[:, c], scale[:, c], [mask[:, h] for mask in active]
            )
            for layer, values in zip(layers, arrived, strict=True):
                layer[:, h] = values
        return y, told, layers[0]

    def _bases(self, block: _ChannelBlock, g: Tensor, top: Tensor, layers: list[Tensor], told: Tensor) -> list[Tensor]:
        """Return what later channels and units send to a block: to its channels, then to its units, layer by layer."""
        w, c, h = self.weights, block.c, block.h
        heads = w.leave_own[:, c.stop :, h].flatten(0, 1)
        bases = [torch.addmm(g[:, c], layers[0][:, h.stop :], w.enter_own[h.stop :, c], alpha=-1)]
        for layer, weight in zip(layers[1:], w.middle, strict=True):
            bases.append(layer[:, h.stop :] @ weight[h.stop :, h])
        return [*bases, torch.addmm(top[:, h], told[:, :, c.stop :].flatten(1), heads)]

    def _solve_block(
        self,
        block: _ChannelBlock,
        bases: list[Tensor],
        derivatives: Tensor,
        slope: Tensor,
        scale: Tensor,
        active: list[Tensor],
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the solution in a block, what it sends to its heads, and what arrives before each activation."""
        w, c, h = self.weights, block.c, block.h
        enter, leave = w.enter_own[h, c], w.leave_own[:, c, h].flatten(0, 1)
        middle = [weight[h, h] for weight in w.middle]
        y, step = bases[0] / slope, 0
        while True:
            told = derivatives * y[:, None]
            arrived = [torch.addmm(bases[-1], told.flatten(1), leave).mul_(active[-1])]
            for weight, base, mask in zip(middle[::-1], bases[-2:0:-1], active[-2::-1], strict=True):
                arrived.insert(0, torch.addmm(base, arrived[0], weight).mul_(mask))
            residual = torch.addmm(bases[0], arrived[0], enter, alpha=-1) - slope * y
            gap, step = float((residual.abs() / (scale + y.abs())).max()), step + 1
            if not gap > self.tol or step > y.shape[1] + EXTRA_STEPS:  # a NaN ends it, too
                break
            y = y + residual / slope
        self.worst = _larger(self.worst, gap)
        return y, told, arrived


def _larger(one: float, other: float) -> float:
    # A NaN compares false with everything; it must not be forgotten.
    return math.inf if math.isnan(other) else max(one, other)
