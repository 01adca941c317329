"""Which positions come before which: what a masked network sees, and in which order its positions can be solved."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor

from likelify.linalg.bounds import widest_dtype
from likelify.structure import GraphBatch
from likelify.tracing import in_forward_mode

Offsets = tuple[tuple[int, ...], ...]


def earlier_offsets(kernel_size: int, dims: int) -> Offsets:
    """Return the places of a kernel that come before its centre in raster order.

    Example:
        >>> earlier_offsets(3, 2)
        ((-1, -1), (-1, 0), (-1, 1), (0, -1))
    """
    reach = range(-(kernel_size // 2), kernel_size // 2 + 1)
    return tuple(place for place in itertools.product(reach, repeat=dims) if place < (0,) * dims)


class Neighbours(ABC):
    """What each position sees of the positions before it, and of itself. Values are `(rows, *positions, features)`."""

    @abstractmethod
    def stack(self, x: Tensor) -> Tensor:
        """Put beside each other what a position sees: each earlier tap, and itself last."""

    @abstractmethod
    def fold(self, y: Tensor) -> Tensor:
        """Add up, at each position, the parts of `y` that belong to its taps, each at the position it comes from."""

    @abstractmethod
    def schedule(self, device: torch.device) -> Schedule:
        """Order the positions into sets that depend on earlier sets only."""


class RasterNeighbours(Neighbours):
    """Positions of a sequence, image or volume in raster order; of a vector: one position without neighbours."""

    def __init__(self, shape: tuple[int, ...], offsets: Offsets) -> None:
        self.shape = shape
        self.offsets = offsets
        self._places = (*offsets, (0,) * len(shape))

    def stack(self, x: Tensor) -> Tensor:
        """Shift the input along each offset."""
        return _recorded(_Stack, x, self._places) if self.offsets else x

    def fold(self, y: Tensor) -> Tensor:
        """Shift each part along its offset, and add."""
        return _recorded(_Fold, y, self._places) if self.offsets else y

    def schedule(self, device: torch.device) -> Schedule:
        """Return the wavefront: on images with 3x3 kernels, all pixels with the same `2 row + column` form a set."""
        return _raster_schedule(self.shape, self.offsets, device)


class NodeNeighbours(Neighbours):
    """Nodes of graphs in the order of their indices; each sees the mean over its neighbours with smaller ones."""

    def __init__(self, structure: GraphBatch) -> None:
        self.structure = structure
        self.source, self.target, self.weight = structure.derived("earlier neighbours", _earlier_edges)

    def stack(self, x: Tensor) -> Tensor:
        """Put the mean over the earlier neighbours before the node itself."""
        return torch.cat([self._mean(x), x], -1)

    def fold(self, y: Tensor) -> Tensor:
        """Add the mean of the first parts of the earlier neighbours to the second part of the node itself."""
        early, own = y.chunk(2, -1)
        return self._mean(early) + own

    def _mean(self, x: Tensor) -> Tensor:
        weighted = x[self.source] * self.weight[:, None].to(x.dtype)
        return torch.zeros_like(x).index_add(0, self.target, weighted)

    def schedule(self, device: torch.device) -> Schedule:
        """Return as sets the nodes with equally long longest ways from a node without earlier neighbours."""
        return self.structure.derived(f"autoregressive sets on {device}", lambda graphs: _node_schedule(graphs, device))


@dataclass(frozen=True, eq=False)
class Links:
    """For each position, the indices of its neighbours in the order of a `Schedule`.

    The index after the last position stands for places outside, where everything is zero.

    Attributes:
        index: `(positions, k)`.
        weight: `(positions, k)` where the places share one tap and are averaged, None where each has its own.
    """

    index: Tensor
    weight: Tensor | None

    def gather(self, store: Tensor, start: int, end: int) -> Tensor:
        """Return what the positions `start..end` see of `(positions + 1, rows, f)`: `(n, rows, k f)`, or the mean."""
        index = self.index[start:end]
        found = store.index_select(0, index.flatten()).unflatten(0, index.shape)
        if self.weight is None:
            return found.transpose(1, 2).flatten(2)
        return (found * self.weight[start:end, :, None, None].to(found.dtype)).sum(1)

    def collect(self, store: Tensor, start: int, end: int) -> Tensor:
        """Add up, of `(taps, positions + 1, rows, f)`, the part of each place that belongs to its tap."""
        if self.weight is not None:
            return self.gather(store[0], start, end)
        index = self.index[start:end]
        taps = torch.arange(index.shape[1], device=index.device) * store.shape[1]
        found = store.flatten(0, 1).index_select(0, (index + taps).flatten())
        return found.unflatten(0, index.shape).sum(1)


@dataclass(frozen=True, eq=False)
class Schedule:
    """Sets of positions that can be solved one after the other.

    Attributes:
        order: `(positions,)`, the positions sorted by set.
        place: `(positions,)`, where each position stands in that order.
        bounds: where each set starts in it, and the end of the last.
        earlier: the places that each position sees.
        later: the places that see each position.
    """

    order: Tensor
    place: Tensor
    bounds: tuple[int, ...]
    earlier: Links
    later: Links

    @property
    def sets(self) -> list[tuple[int, int]]:
        """Start and end of each set."""
        return list(itertools.pairwise(self.bounds))


def _recorded(function: type[_Stack | _Fold], x: Tensor, offsets: Offsets) -> Tensor:
    """Apply a function with a backward pass of its own; in forward mode, which it does not know, its operations."""
    # A `jvp` would be all that is missing, but torch.compile refuses functions with one.
    return cast(Tensor, function.forward(x, offsets) if in_forward_mode() else function.apply(x, offsets))


class _Stack(torch.autograd.Function):
    """`out_k[p] = x[p + o_k]`, zero outside; the adjoint of `_Fold` along the opposite offsets."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, offsets: Offsets) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        size = x.shape[-1]
        out = x.new_zeros(*x.shape[:-1], size * len(offsets))
        for tap, (there, here) in enumerate(_windows(tuple(x.shape[1:-1]), offsets)):
            out[(slice(None), *here, slice(tap * size, (tap + 1) * size))] = x[(slice(None), *there)]
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.offsets = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Fold.apply(grad, _opposite(ctx.offsets)), None


class _Fold(torch.autograd.Function):
    """`out[p] = sum_k y_k[p + o_k]`, where outside is zero."""

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor, offsets: Offsets) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        size = y.shape[-1] // len(offsets)
        # The own position is the last tap and covers everything, so it starts the sum.
        out = y[..., -size:].clone(memory_format=torch.contiguous_format)
        for tap, (there, here) in enumerate(_windows(tuple(y.shape[1:-1]), offsets[:-1])):
            out[(slice(None), *here)] += y[(slice(None), *there, slice(tap * size, (tap + 1) * size))]
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.offsets = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Stack.apply(grad, _opposite(ctx.offsets)), None


def _opposite(offsets: Offsets) -> Offsets:
    return tuple(tuple(-step for step in offset) for offset in offsets)


def _windows(shape: tuple[int, ...], offsets: Offsets) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Return for each offset the places `p + o` inside the shape, and the places `p` they are seen from."""
    found = []
    for offset in offsets:
        # An offset longer than the image sees nothing: both slices are empty.
        steps = [max(-size, min(size, step)) for size, step in zip(shape, offset, strict=True)]
        there = tuple(slice(max(step, 0), size + min(step, 0)) for size, step in zip(shape, steps, strict=True))
        here = tuple(slice(max(-step, 0), size + min(-step, 0)) for size, step in zip(shape, steps, strict=True))
        found.append((there, here))
    return found


@lru_cache(maxsize=64)
def _raster_schedule(shape: tuple[int, ...], offsets: Offsets, device: torch.device) -> Schedule:
    with torch.inference_mode(mode=False):
        dims = len(shape)
        grid = torch.tensor(list(itertools.product(*map(range, shape))), dtype=torch.long).reshape(
            math.prod(shape), dims
        )
        reach = max((abs(step) for offset in offsets for step in offset), default=0)
        # The smallest weights with weight . offset < 0 for every earlier offset.
        weights: list[int] = []
        for _ in range(dims):
            weights.insert(0, reach * sum(weights) + 1)
        level = (grid * torch.tensor(weights, dtype=torch.long)).sum(1)
        count = len(grid)
        links = []
        for sign in (1, -1):
            index = torch.full((count, len(offsets)), count)
            for tap, offset in enumerate(offsets):
                there = grid + sign * torch.tensor(offset)
                inside = ((there >= 0) & (there < torch.tensor(shape))).all(1)
                strides = torch.tensor([math.prod(shape[axis + 1 :]) for axis in range(dims)])
                index[inside, tap] = (there[inside] * strides).sum(1)
            links.append(Links(index, None))
        return _sorted_schedule(level, links[0], links[1], device)


def _earlier_edges(structure: GraphBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Return each pair of neighbours once, from the smaller index to the larger, with the weights of a mean."""
    start, end = structure.edge_index.long()
    pairs = torch.stack([torch.minimum(start, end), torch.maximum(start, end)])[:, start != end]
    pairs = torch.unique(pairs, dim=1)
    count = torch.bincount(pairs[1], minlength=len(structure.owner)).clamp_min(1)
    return pairs[0], pairs[1], 1.0 / count[pairs[1]].to(widest_dtype(count.device))


def _node_schedule(structure: GraphBatch, device: torch.device) -> Schedule:
    source, target, weight = (part.cpu() for part in _earlier_edges(structure))
    nodes = len(structure.owner)
    level = torch.zeros(nodes, dtype=torch.long)
    while True:
        longer = level.scatter_reduce(0, target, level[source] + 1, "amax")
        if torch.equal(longer, level):
            break
        level = longer
    earlier = _padded(nodes, target, source, weight)
    later = _padded(nodes, source, target, weight)
    return _sorted_schedule(level, earlier, later, device)


def _padded(nodes: int, at: Tensor, other: Tensor, weight: Tensor) -> Links:
    """Turn edges into one row of places for each node."""
    order = at.argsort(stable=True)
    at, other, weight = at[order], other[order], weight[order]
    count = torch.bincount(at, minlength=nodes)
    column = torch.arange(len(at)) - (count.cumsum(0) - count)[at]
    width = int(count.max()) if nodes else 0
    index = torch.full((nodes, width), nodes)
    index[at, column] = other
    padded = torch.zeros(nodes, width, dtype=weight.dtype)
    padded[at, column] = weight
    return Links(index, padded)


def _sorted_schedule(level: Tensor, earlier: Links, later: Links, device: torch.device) -> Schedule:
    order = level.argsort(stable=True)
    place = order.argsort()
    counts = torch.bincount(level)
    counts = counts[counts > 0]  # narrow images skip levels
    bounds = (0, *counts.cumsum(0).tolist())
    renumber = torch.cat([place, torch.tensor([len(level)])])

    def move(links: Links) -> Links:
        weight = None if links.weight is None else links.weight[order].to(device)
        return Links(renumber[links.index[order]].to(device), weight)

    return Schedule(order.to(device), place.to(device), bounds, move(earlier), move(later))
