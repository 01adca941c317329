r"""Velocities of sets of points: equivariant networks whose divergence costs no more for more points.

What a node is told of the others is made of *their* positions alone, and each node asks for it with its own position,
several times. So the block of the Jacobian that belongs to a node, `dv_i / dx_i`, is found by changing how it asks and
leaving what it is told: one tangent for each coordinate, for all nodes at once (the hollow networks of Chen and
Duvenaud 2019). A network in which the others' features had seen node `i` would need as many products as there are
coordinates in the whole graph.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likelify.errors import ConfigError, ShapeError
from likelify.shapes import check_size, kept_arguments
from likelify.structure import Context, ContextLike, GraphBatch, as_context


@dataclass(frozen=True, eq=False)
class Sets:
    """Graphs side by side in a dense array `(graphs, most, ...)`.

    Attributes:
        graphs: how many.
        most: nodes of the largest.
        place: of each node in the array, or None where all graphs are equally large.
        sees: which node is told of which, `(graphs, most, most)`: neighbours, and never itself.
        scale: `1 / sqrt(neighbours)` of each node, at most one, `(graphs, most, 1)`.
        count: nodes of each graph, at least one, `(graphs, 1)`.
    """

    graphs: int
    most: int
    place: Tensor | None
    sees: Tensor
    scale: Tensor
    count: Tensor

    @staticmethod
    def of(structure: GraphBatch) -> Sets:
        """Return the graphs of a batch, remembered with it."""
        return structure.derived("dense sets", lambda graphs: _dense(graphs, in_order=False))

    @staticmethod
    def in_order(structure: GraphBatch) -> Sets:
        """Return sets in which each node is told of those before it, whatever the edges."""
        return _dense(structure, in_order=True)

    def spread(self, rows: Tensor) -> Tensor:
        """Put rows `(nodes, ...)` into the array; what is left over is zero."""
        shape = (self.graphs, self.most, *rows.shape[1:])
        if self.place is None:
            return rows.reshape(shape)
        room = rows.new_zeros(self.graphs * self.most, *rows.shape[1:])
        return room.index_copy(0, self.place, rows).reshape(shape)

    def gather(self, array: Tensor) -> Tensor:
        """Take the nodes out of the array again, `(nodes, ...)`."""
        rows = array.flatten(0, 1)
        return rows if self.place is None else rows[self.place]


def _dense(structure: GraphBatch, *, in_order: bool) -> Sets:
    sizes = structure.sizes
    graphs, device = len(sizes), sizes.device
    most = int(sizes.max()) if graphs else 0
    even = graphs > 0 and bool((sizes == most).all())
    first = sizes.cumsum(0) - sizes
    within = torch.arange(len(structure.owner), device=device) - first[structure.owner]
    place = structure.owner * most + within
    if structure.is_complete or in_order:
        there = torch.arange(most, device=device) < sizes[:, None]
        sees = there[:, :, None] & there[:, None, :]
    else:
        start, end = structure.edge_index
        sees = torch.zeros(graphs, most, most, dtype=torch.bool, device=device)
        sees[structure.owner[end], within[end], within[start]] = True
    others = torch.ones(most, most, dtype=torch.bool, device=device)
    sees = sees & (others.tril(-1) if in_order else ~torch.eye(most, dtype=torch.bool, device=device))
    scale = sees.sum(-1, keepdim=True).clamp_min(1).float().rsqrt()
    return Sets(graphs, most, None if even else place, sees, scale, sizes[:, None].clamp_min(1))


@dataclass(frozen=True)
class Dual:
    """A value, and how it changes along each coordinate of its own node, `(coordinates, *value)`; None if not asked."""

    value: Tensor
    change: Tensor | None

    def linear(self, layer: nn.Linear, more: Tensor | None = None) -> Dual:
        """Apply a linear layer, and add what does not depend on the node's position."""
        value = layer(self.value) if more is None else layer(self.value) + more
        return Dual(value, None if self.change is None else F.linear(self.change, layer.weight))

    def silu(self) -> Dual:
        """Apply `u sigmoid(u)`."""
        gate = self.value.sigmoid()
        value = self.value * gate
        change = None if self.change is None else self.change * (gate + value * (1 - gate))
        return Dual(value, change)

    def plus(self, other: Dual) -> Dual:
        """Add another one."""
        change = None if self.change is None or other.change is None else self.change + other.change
        return Dual(self.value + other.value, change)

    def beside(self, other: Dual) -> Dual:
        """Put another one behind, along the last axis."""
        change = None
        if self.change is not None and other.change is not None:
            change = torch.cat([self.change, other.change], -1)
        return Dual(torch.cat([self.value, other.value], -1), change)


class Ask(nn.Module):
    """One round: each node asks the others by gates, and takes up what it is told.

    Raises:
        ConfigError: if the heads do not divide the width.
    """

    def __init__(self, width: int, heads: int, times: int) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"The heads share the width evenly, and {heads} do not divide {width}.")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.told = nn.Linear(width, 2 * width)
        self.mix = nn.Linear(2 * width, width)
        self.time = nn.Linear(times, width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, own: Dual, others: Tensor, time: Tensor, sets: Sets) -> Dual:
        """Return what nodes know after this round."""
        key, value = (part.unflatten(-1, (self.heads, -1)) for part in self.told(F.silu(others)).chunk(2, -1))
        heard = self._heard(own.silu().linear(self.query), key, value, sets)
        mixed = own.silu().beside(heard).linear(self.mix, self.time(time)).silu()
        return own.plus(mixed.linear(self.out))

    def _heard(self, query: Dual, key: Tensor, value: Tensor, sets: Sets) -> Dual:
        """Sum the others' values, each through a gate `sigmoid(query . key)` of each head."""
        shape, per_root = (self.heads, -1), 1 / math.sqrt(key.shape[-1])
        asked = query.value.unflatten(-1, shape) * per_root
        gate = torch.einsum("gihd,gjhd->ghij", asked, key).sigmoid() * sets.sees[:, None]
        scale = sets.scale.to(value.dtype)
        heard = torch.einsum("ghij,gjhd->gihd", gate, value).flatten(-2) * scale
        if query.change is None:
            return Dual(heard, None)
        moved = query.change.unflatten(-1, shape) * per_root
        slope = torch.einsum("cgihd,gjhd->cghij", moved, key) * (gate * (1 - gate))
        return Dual(heard, torch.einsum("cghij,gjhd->cgihd", slope, value).flatten(-2) * scale)


class NodeVelocity(nn.Module):
    """Velocities of the nodes of graphs, and their divergence found beside them; write `_run`.

    Args:
        features: of a node.
        times: waves of the time.
        context_features: of the condition of each node, which is given and not modelled.

    Attributes:
        called: what the numbers of a node are called.
        out: the last layer of the network.
        pull: layer of the time whose output is the strength of a pull.
    """

    permutes = True
    extra_repr = kept_arguments
    called = "features of nodes"
    out: nn.Linear
    pull: nn.Linear

    def __init__(self, features: int, times: int, context_features: int) -> None:
        super().__init__()
        self.features = check_size(features, "The features of a node")
        self.times = check_size(times, "times", least=0)
        self.context_features = check_size(context_features, "context_features", least=0)

    def forward(self, x: Tensor, t: Tensor, context: ContextLike = None) -> Tensor:
        """Return the velocities `(nodes, features)`.

        Args:
            x: positions `(nodes, features)`.
            t: time, without axes or `(nodes, 1)`.
            context: with the graphs.
        """
        return self._run(x, t, as_context(context), changes=False)[0]

    def with_divergence(self, x: Tensor, t: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Return the velocities, and `sum_k dv_k / dx_k` of each node, `(nodes,)`."""
        velocity, trace = self._run(x, t, context, changes=True)
        return velocity, velocity.new_zeros(len(x)) if trace is None else trace

    @abstractmethod
    def _run(self, x: Tensor, t: Tensor, context: Context, *, changes: bool) -> tuple[Tensor, Tensor | None]:
        """Return the velocities, and with `changes` the divergence of each node."""

    def _rest(self) -> None:
        """Begin with velocity zero."""
        for layer in (self.out, self.pull):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def _sets(self, x: Tensor, context: Context) -> Sets:
        """Return the graphs as arrays, if they and the condition fit."""
        name = type(self).__name__
        if context.structure is None:
            raise ShapeError(
                f"{name} works on the nodes of graphs: give Context(structure=GraphBatch.complete(sizes))."
            )
        if x.shape[1:] != (self.features,):
            raise ShapeError(f"This {name} is of {self.features} {self.called}, not {tuple(x.shape[1:])}.")
        condition = context.condition
        if condition is None and self.context_features:
            raise ShapeError(f"This {name} reads {self.context_features} features of a condition, and there is none.")
        if condition is not None and condition.shape != (len(x), self.context_features):
            raise ShapeError(
                f"This {name} reads {self.context_features} features of a condition for each of {len(x)} nodes, and "
                f"got a condition of shape {tuple(condition.shape)}."
            )
        return Sets.of(context.structure)


class SetVelocity(NodeVelocity):
    r"""Velocities of the nodes of graphs, equivariant under permutations: `v_i = f(x_i, {x_j}, t)`.

    The position of a node, waves of it and of the time begin; in each of `rounds` the node asks the others, gates
    decide which of them it hears, and a layer takes up the sum, divided by the root of their number. What it is told is
    made of each other's position alone. All nodes of complete graphs hear each other; of other graphs neighbours do
    (edges `from j to i`, self-loops and weights left out).

    `with_divergence` costs `1 + features` passes without a graph of gradients, whatever the number of nodes.

    Args:
        features: of a node.
        width: of the network.
        rounds: of asking.
        heads: of the gates.
        frequencies: waves of each feature; 0 for none. Features should have deviations about one.
        times: waves of the time, whose steps have to be as fine as these.
        context_features: of the condition of each node, which is given and not modelled, such as one-hot types.
        zero_start: begin with velocity zero.

    Raises:
        ConfigError: if the heads do not divide the width.

    Source:
        The form of the divergence: Chen and Duvenaud 2019.

    Example:
        >>> from likelify import Context, GraphBatch
        >>> net = SetVelocity(2, width=8)
        >>> net(torch.randn(5, 2), torch.tensor(0.5), Context(structure=GraphBatch.complete([3, 2]))).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        features: int,
        *,
        width: int = 64,
        rounds: int = 2,
        heads: int = 4,
        frequencies: int = 6,
        times: int = 4,
        context_features: int = 0,
        zero_start: bool = True,
    ) -> None:
        super().__init__(features, times, context_features)
        width, heads = check_size(width, "width"), check_size(heads, "heads")
        rounds = check_size(rounds, "rounds", least=0)
        self.frequencies = check_size(frequencies, "frequencies", least=0)
        moments = 1 + 2 * self.times
        inputs = features * (1 + 2 * self.frequencies) + self.context_features
        self.own = nn.Linear(inputs, width)
        self.others = nn.Linear(inputs, width)
        self.own_time, self.others_time = (nn.Linear(moments, width, bias=False) for _ in range(2))
        self.deepen = nn.ModuleList(nn.Linear(width, width) for _ in range(rounds))
        self.rounds = nn.ModuleList(Ask(width, heads, moments) for _ in range(rounds))
        self.out = nn.Linear(width, features)
        self.pull = nn.Linear(moments, 1)
        if zero_start:
            self._rest()

    def _run(self, x: Tensor, t: Tensor, context: Context, *, changes: bool) -> tuple[Tensor, Tensor | None]:
        sets = self._sets(x, context)
        told = None if context.condition is None else sets.spread(context.condition.to(x.dtype))
        time = waves(t, self.times)
        time = sets.spread(time) if time.ndim > 1 else time
        own = self._embed(sets.spread(x), told, changes=changes)
        others = self.others(own.value) + self.others_time(time)
        position, own = own, own.linear(self.own, self.own_time(time))
        for deepen, ask in zip(self.deepen, self.rounds, strict=True):
            others = others + deepen(F.silu(others))
            own = ask(own, others, time, sets)
        found = own.silu().linear(self.out)
        pull = self.pull(time)
        velocity = sets.gather(found.value + pull * position.value[..., : self.features])
        if found.change is None:
            return velocity, None
        trace = torch.einsum("cgic->gi", found.change) + self.features * pull[..., 0]
        return velocity, sets.gather(trace.expand(sets.graphs, sets.most))

    def _embed(self, x: Tensor, told: Tensor | None, *, changes: bool) -> Dual:
        """Return positions, waves of them and conditions, `(graphs, most, inputs)`."""
        pitch = 0.5 * math.pi * 2 ** torch.linspace(0, 3, max(self.frequencies, 1), dtype=x.dtype, device=x.device)
        angle = (x[..., None] * pitch[: self.frequencies]).flatten(-2)
        parts = [x, angle.sin(), angle.cos(), *([] if told is None else [told])]
        value = torch.cat(parts, -1)
        if not changes:
            return Dual(value, None)
        unit = torch.eye(self.features, dtype=x.dtype, device=x.device)
        slope = torch.kron(unit, pitch[None, : self.frequencies])
        along = [unit.expand(1, 1, -1, -1), slope * angle.cos()[..., None, :], -slope * angle.sin()[..., None, :]]
        shape = (*x.shape[:-1], self.features, -1)
        along = [part.expand(*x.shape[:-1], -1, -1) for part in along]
        if told is not None:
            along.append(told[..., None, :].new_zeros(1).expand(*x.shape[:-1], self.features, told.shape[-1]))
        return Dual(value, torch.cat(along, -1).reshape(*shape[:-1], value.shape[-1]).movedim(-2, 0))


def waves(t: Tensor, count: int) -> Tensor:
    """Return a time `()` or `(rows, 1)` as features: itself, and sines and cosines of multiples of a half turn."""
    angle = math.pi * t[..., None] * torch.arange(1, count + 1, dtype=t.dtype, device=t.device)
    if t.ndim:
        angle = angle.flatten(1)
    return torch.cat([t.reshape(*t.shape[:1], 1) if t.ndim else t[None], angle.sin(), angle.cos()], -1)
