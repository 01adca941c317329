"""Lists of edges as tensors: put in pairs, made for complete graphs, and looked at a part at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# Edges that are looked at together, where what is made of them would take much more memory than they do.
BLOCK = 2**22


def blocks(count: int) -> Iterator[slice]:
    """Return slices that cover so many edges, `BLOCK` at a time."""
    return (slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def paired(edge_index: Tensor, edge_weight: Tensor | None, nodes: int) -> tuple[Tensor, Tensor | None]:
    """Return every edge in both directions and each once, sorted, with the largest of its weights.

    Args:
        edge_index: `(2, E)`.
        edge_weight: `(E,)`, or None.
        nodes: how many there are.
    """
    keys = _both_ways(edge_index, max(nodes, 1))
    if edge_weight is None:
        keys, weight = _distinct(keys.sort().values), None
    else:
        keys, place = torch.unique(keys, return_inverse=True)
        weight = edge_weight.new_zeros(len(keys))
        weight = weight.scatter_reduce(0, place, edge_weight.repeat(2), "amax", include_self=False)
    edges = keys.new_empty(2, len(keys))
    torch.div(keys, max(nodes, 1), rounding_mode="floor", out=edges[0])
    torch.remainder(keys, max(nodes, 1), out=edges[1])
    return edges, weight


def _both_ways(edge_index: Tensor, nodes: int) -> Tensor:
    """Return each edge as one number in both directions, `from * nodes + to`, without copies on the way."""
    start, end = edge_index
    keys = torch.empty(2 * len(start), dtype=torch.int64, device=start.device)
    for part, one, other in zip(keys.chunk(2), (start, end), (end, start), strict=False):
        part.copy_(one).mul_(nodes).add_(other)
    return keys


def _distinct(keys: Tensor) -> Tensor:
    """Return sorted numbers, each once."""
    if len(keys) < 2 or bool((new := keys[1:] != keys[:-1]).all()):
        return keys
    return torch.cat([keys[:1], keys[1:][new]])


def bridges(edge_index: Tensor, owner: Tensor) -> Tensor:
    """Return which edges join two graphs.

    Args:
        edge_index: `(2, E)`.
        owner: the graph of each node.
    """
    start, end = edge_index
    found = [(owner[start[some]] != owner[end[some]]).nonzero()[:, 0] + some.start for some in blocks(len(start))]
    return torch.cat(found) if found else edge_index.new_empty(0)


def complete_edges(sizes: Tensor) -> Tensor:
    """Return the edges of complete graphs of those sizes, sorted, `(2, E)`."""
    first = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    degree = (sizes - 1).repeat_interleave(sizes)
    node = torch.arange(len(degree), device=sizes.device)
    start = node.repeat_interleave(degree)
    place = torch.arange(len(start), device=sizes.device) - (degree.cumsum(0) - degree)[start]
    end = place + first[start]
    end += end >= start
    return torch.stack([start, end])
