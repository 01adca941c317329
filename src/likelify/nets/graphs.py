r"""Networks on the nodes of graphs that do not know the order of the nodes: message passing, and attention.

All are called as `net(x, context)` with the features of the nodes `(nodes, features)` and the graphs in the context,
and return one row for each node. Permuting the nodes of a graph, and its edges with them, permutes the rows of the
result and nothing else; graphs of a batch do not see one another. Every node is its own neighbour too, so that a node
without edges is nothing special.

Complete graphs, such as sets of points, are worked on as dense arrays `(graphs, n, n, width)`, filled up to the largest
where sizes differ a little; all others along the list of their edges, with memory linear in the edges. All compute the
same function.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likelify.errors import ConfigError, DomainError, ShapeError, UnsupportedError
from likelify.linalg.bounds import widest_dtype
from likelify.linalg.graph import common_size
from likelify.nets.conditioners import Dropout, joined, zeroed
from likelify.shapes import check_size, kept_arguments
from likelify.structure import ContextLike, GraphBatch, as_context
from likelify.tracing import in_full_precision

# Angular frequencies of Fourier features, for inputs of about unit deviation.
SLOWEST, FASTEST = 0.5, 6.0
# Pairs of complete graphs that are filled up to one size, for each pair that there is, up to which they are worked out.
MOST_FILLED = 4.0


class Neighbourhoods(ABC):
    """Which nodes see which, each itself among them."""

    @abstractmethod
    def messages(self, to: Tensor, by: Tensor) -> Tensor:
        r"""Return `sum_j w_ij silu(to_i + by_j) / sqrt(sum_j w_ij^2)` over the neighbours `j` of each node `i`.

        Args:
            to: `(nodes, width)`, the part of the node that gets a message.
            by: `(nodes, width)`, that of the node that sends it.
        """

    @abstractmethod
    def attend(self, parts: Tensor) -> Tensor:
        r"""Return the mean of the values of the neighbours, weighted by `w_ij exp(<query_i, key_j> / sqrt(d))`.

        Args:
            parts: queries, keys and values, `(nodes, 3, heads, d)`.

        Returns:
            One mean for each head, `(nodes, heads * d)`.
        """


@dataclass(frozen=True)
class AllPairs(Neighbourhoods):
    """Complete graphs of one size, in which every pair is worked out.

    Attributes:
        size: nodes of each graph.
    """

    size: int

    def messages(self, to: Tensor, by: Tensor) -> Tensor:
        """Sum over the nodes of the same graph."""
        to, by = (part.unflatten(0, (-1, self.size)) for part in (to, by))
        return F.silu(to[:, :, None] + by[:, None]).sum(2).flatten(0, 1) / math.sqrt(self.size)

    def attend(self, parts: Tensor) -> Tensor:
        """Weight the nodes of the same graph."""
        heads, d = parts.shape[2:]
        stacked = parts.unflatten(0, (-1, self.size)).permute(2, 0, 3, 1, 4).reshape(3, -1, self.size, d)
        query, key, value = stacked.unbind(0)
        means = _softmax(query @ key.mT / math.sqrt(d)) @ value
        return means.unflatten(0, (-1, heads)).transpose(1, 2).reshape(len(parts), heads * d)


@dataclass(frozen=True, eq=False)
class PaddedPairs(Neighbourhoods):
    """Complete graphs of different sizes, filled up to the largest, in which every pair is worked out.

    Attributes:
        size: of the largest graph.
        place: of each node in the graphs that are filled up, `(nodes,)`.
        there: which of these places hold a node, `(graphs, size)`.
        scale: `1 / sqrt(n)` of each node, `(nodes,)`.
    """

    size: int
    place: Tensor
    there: Tensor
    scale: Tensor

    def messages(self, to: Tensor, by: Tensor) -> Tensor:
        """Sum over the nodes of the same graph."""
        to, by = self._filled(to), self._filled(by)
        pairs = F.silu(to[:, :, None] + by[:, None]) * self.there[:, None, :, None]
        return pairs.sum(2).flatten(0, 1)[self.place] * self.scale[:, None].to(to.dtype)

    def attend(self, parts: Tensor) -> Tensor:
        """Weight the nodes of the same graph."""
        heads, d = parts.shape[2:]
        filled = self._filled(parts.flatten(1)).unflatten(2, (3, heads, d))
        query, key, value = filled.permute(2, 0, 3, 1, 4)
        scores = query @ key.mT / math.sqrt(d)
        # Finite, so that graphs without nodes give no NaN.
        nothing = torch.finfo(scores.dtype).min / 2
        means = _softmax(torch.where(self.there[:, None, None], scores, nothing)) @ value
        return means.transpose(1, 2).flatten(0, 1)[self.place].flatten(1)

    def _filled(self, x: Tensor) -> Tensor:
        """Return `(graphs, size, ...)`, zero where there is no node."""
        filled = x.new_zeros(self.there.numel(), *x.shape[1:]).index_copy(0, self.place, x)
        return filled.unflatten(0, self.there.shape)


def _softmax(scores: Tensor) -> Tensor:
    """Return the softmax over the last axis; where that is short, several times as fast on a CPU as torch's."""
    shares = (scores - scores.detach().amax(-1, keepdim=True)).exp()
    return shares / shares.sum(-1, keepdim=True)


@dataclass(frozen=True, eq=False)
class EdgeList(Neighbourhoods):
    """Any graphs, along their edges and one more from each node to itself.

    Attributes:
        start: the node that is seen, `(edges,)`.
        end: the node that sees it, `(edges,)`.
        weight: of each edge `(edges,)`, or None where all are one.
        scale: `1 / sqrt(sum_j w_ij^2)` of each node, `(nodes,)`.
    """

    start: Tensor
    end: Tensor
    weight: Tensor | None
    scale: Tensor

    def messages(self, to: Tensor, by: Tensor) -> Tensor:
        """Sum over the edges that end at a node."""
        found = F.silu(to[self.end] + by[self.start])
        if self.weight is not None:
            found = found * self.weight[:, None].to(found.dtype)
        return torch.zeros_like(to).index_add(0, self.end, found) * self.scale[:, None].to(to.dtype)

    def attend(self, parts: Tensor) -> Tensor:
        """Weight the edges that end at a node."""
        query, key, value = parts.unbind(1)
        scores = (query[self.end] * key[self.start]).sum(-1) / math.sqrt(query.shape[-1])
        if self.weight is not None:
            scores = scores + self.weight.log()[:, None].to(scores.dtype)
        # Without the largest of each node no exponential overflows; it changes nothing else.
        tops = torch.full_like(scores[:1], -math.inf).detach().expand(len(query), -1)
        tops = tops.scatter_reduce(0, self.end[:, None].expand_as(scores), scores.detach(), "amax")
        shares = (scores - tops[self.end]).exp()
        totals = torch.zeros_like(tops).index_add(0, self.end, shares)
        sums = torch.zeros_like(value).index_add(0, self.end, shares[..., None] * value[self.start])
        return (sums / totals[..., None]).flatten(1)


def neighbourhoods_for(net: nn.Module, x: Tensor, context: ContextLike) -> Neighbourhoods:
    """Return which nodes see which in the graphs of a context, for a network and its input.

    Raises:
        ShapeError: if there are no graphs, or none of so many nodes.
        DomainError: if a weight of an edge is negative or not finite.
    """
    structure, name = as_context(context).structure, type(net).__name__
    if structure is None:
        raise ShapeError(f"A network {name} needs the graphs: give Context(structure=GraphBatch(...)) as context.")
    if x.ndim != 2 or len(x) != len(structure.owner):
        raise ShapeError(
            f"A network {name} works on the features of nodes (nodes, features) and got shape {tuple(x.shape)}; the "
            f"graphs of the context have {len(structure.owner)} nodes."
        )
    return neighbourhoods(structure)


def neighbourhoods(structure: GraphBatch) -> Neighbourhoods:
    """Return which nodes of graphs see which, worked out once for each batch of graphs.

    Raises:
        DomainError: if a weight of an edge is negative or not finite.
    """
    size = common_size(structure) if structure.is_complete else None
    return structure.derived("neighbourhoods", _pairs_or_edges) if size is None else AllPairs(size)


def _pairs_or_edges(structure: GraphBatch) -> Neighbourhoods:
    """Return pairs where they are not many more than edges, else the edges."""
    sizes = structure.sizes.to(widest_dtype(structure.sizes.device))
    if not structure.is_complete or not len(structure.owner):
        return _edge_list(structure)
    size = int(structure.sizes.max())
    if len(sizes) * size**2 > MOST_FILLED * float(sizes.square().sum()):
        return _edge_list(structure)
    first = structure.sizes.cumsum(0) - structure.sizes
    number = torch.arange(len(structure.owner), device=sizes.device) - first[structure.owner]
    there = torch.arange(size, device=sizes.device) < structure.sizes[:, None]
    return PaddedPairs(size, structure.owner * size + number, there, sizes.rsqrt()[structure.owner])


def _edge_list(structure: GraphBatch) -> EdgeList:
    nodes = torch.arange(len(structure.owner), device=structure.owner.device)
    start, end = torch.cat([structure.edge_index.long(), nodes.expand(2, -1)], 1)
    weight, wide = structure.edge_weight, widest_dtype(nodes.device)
    if weight is None:
        return EdgeList(start, end, None, torch.bincount(end, minlength=len(nodes)).to(wide).rsqrt())
    if weight.requires_grad:
        raise UnsupportedError(
            "edge_weight requires a gradient, which networks on graphs do not give: the weights are constants. Detach "
            "them; what is to be learned belongs in the features of the nodes."
        )
    if not bool((torch.isfinite(weight) & (weight >= 0)).all()):
        raise DomainError(
            "edge_weight holds negative or non-finite values; networks on graphs need weights from zero. Take their "
            "absolute value, or leave these edges out."
        )
    weight = torch.cat([weight.to(wide), weight.new_ones(len(nodes), dtype=wide)])
    squares = weight.new_zeros(len(nodes)).index_add(0, end, weight.square())
    return EdgeList(start, end, weight, squares.rsqrt())


class _Rows(nn.Module):
    """A residual layer of each node by itself: `h + V silu(U h)`, where more than `h` may be read beside it."""

    def __init__(self, width: int, more: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.inner = nn.Linear(width + more, width)
        self.outer = nn.Linear(width, width)
        self.dropout = Dropout(dropout) if dropout else nn.Identity()

    def forward(self, h: Tensor, *more: Tensor) -> Tensor:
        read = torch.cat([h, *more], 1) if more else h
        return h + self.outer(self.dropout(F.silu(self.inner(read))))


class _Messages(nn.Module):
    """A residual round of message passing."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.ends = nn.Linear(width, 2 * width)
        self.update = _Rows(width, width, dropout)

    def forward(self, h: Tensor, near: Neighbourhoods) -> Tensor:
        return self.update(h, near.messages(*self.ends(h).chunk(2, 1)))


class _Attention(nn.Module):
    """A residual round of attention with several heads."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.enter = nn.Linear(width, 3 * width)
        self.leave = nn.Linear(width, width)
        self.update = _Rows(width, 0, dropout)

    def forward(self, h: Tensor, near: Neighbourhoods) -> Tensor:
        parts = self.enter(h).unflatten(1, (3, self.heads, -1))
        return self.update(h + self.leave(near.attend(parts)))


class GraphNet(nn.Module):
    """What networks on nodes have in common: a linear layer, rounds in which nodes see one another, a linear layer.

    Args:
        sizes: features of the input, of the condition, of the hidden layers and of the output.
        rounds: called with the hidden features and the `Neighbourhoods`.
        frequencies: of Fourier features of the input.
        zero_start: whether the last layer is zero.
    """

    waves: Tensor
    extra_repr = kept_arguments

    def __init__(
        self, sizes: tuple[int, int, int, int], rounds: Sequence[nn.Module], *, frequencies: int, zero_start: bool
    ) -> None:
        super().__init__()
        self.in_features = check_size(sizes[0], "in_features")
        self.context_features = check_size(sizes[1], "context_features", least=0)
        self.width, self.out_features = sizes[2], check_size(sizes[3], "out_features")
        self.frequencies, self.zero_start = check_size(frequencies, "frequencies", least=0), zero_start
        # Given by the settings: not part of the state.
        self.register_buffer("waves", torch.linspace(SLOWEST, FASTEST, frequencies), persistent=False)
        read = self.in_features * (1 + 2 * frequencies) + self.context_features
        self.enter = nn.Linear(read, self.width)
        self.between = nn.ModuleList(rounds)
        leave = nn.Linear(self.width, self.out_features)
        self.leave = zeroed(leave) if zero_start else leave

    def forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return `(nodes, out_features)`.

        Raises:
            ShapeError: if the input or the condition has another width, or there are no graphs of so many nodes.
            DomainError: if a weight of an edge is negative or not finite.
        """
        near = neighbourhoods_for(self, x, context)
        h = joined(self, (self.in_features, self.context_features), x, context)
        h = in_full_precision(self._entered, h)
        for round_ in self.between:
            h = round_(h, near)
        return in_full_precision(self._left, h)

    def _entered(self, h: Tensor) -> Tensor:
        if self.frequencies:
            angles = (h[:, : self.in_features, None] * self.waves).flatten(1)
            h = torch.cat([h, angles.sin(), angles.cos()], 1)
        return self.enter(h)

    def _left(self, h: Tensor) -> Tensor:
        return self.leave(F.silu(h))


class MessagePassingNet(GraphNet):
    r"""Message passing: in each round a node reads the sum of what its neighbours send to it.

        m_i = sum_j w_ij silu(A h_i + B h_j + c) / sqrt(sum_j w_ij^2),   h_i <- h_i + V silu(U [h_i, m_i] + d) + e

    over the neighbours `j` of node `i`, itself with weight one among them. Messages run along the edges, from their
    first node to their second; on undirected graphs both ways.

    Args:
        in_features: of each node, without the condition.
        out_features: of each node.
        width: hidden features of each node.
        rounds: how often messages are sent; a node sees the nodes at most so many edges away.
        context_features: as in `GraphAttentionNet`.
        frequencies: as in `GraphAttentionNet`.
        dropout: as in `GraphAttentionNet`.
        zero_start: as in `GraphAttentionNet`.

    Raises:
        ConfigError: for sizes below one.

    Source:
        Liu et al. 2019 (graph normalizing flows) couple nodes by such networks; these messages, whose second layer is
        behind the sum, cost one activation for each edge and no matrix product.

    Example:
        >>> from likelify import Context, GraphBatch
        >>> net = MessagePassingNet(2, 3, width=8, zero_start=False)
        >>> net(torch.randn(5, 2), Context(structure=GraphBatch.complete([2, 3]))).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        width: int = 64,
        *,
        rounds: int = 1,
        context_features: int = 0,
        frequencies: int = 0,
        dropout: float = 0.0,
        zero_start: bool = True,
    ) -> None:
        width, rounds = check_size(width, "width"), check_size(rounds, "rounds")
        super().__init__(
            (in_features, context_features, width, out_features),
            [_Messages(width, dropout) for _ in range(rounds)],
            frequencies=frequencies,
            zero_start=zero_start,
        )


class GraphAttentionNet(GraphNet):
    r"""Attention: in each round a node reads a mean over its neighbours, with weights that depend on both ends.

        a_ij = w_ij exp(<Q h_i, K h_j> / sqrt(d)) / sum_k ...,   h_i <- h_i + O [sum_j a_ij V h_j]_heads,

    and then `h <- h + V' silu(U' h + c) + e`, over the neighbours `j` of node `i`, itself with weight one among them;
    on complete graphs over all nodes of the same graph.

    Args:
        in_features: of each node, without the condition.
        out_features: of each node.
        width: hidden features of each node, a multiple of the heads.
        heads: of attention, each of `width / heads` features.
        rounds: how often nodes see their neighbours.
        context_features: of the condition, which has a row for each node.
        frequencies: also read `sin(w x)` and `cos(w x)` of the input, at so many frequencies `w` from 0.5 to 6. They
            let a small network tell places apart, in inputs of about unit deviation.
        dropout: rate inside of each round, see `Dropout`.
        zero_start: the last layer is zero, so that a layer built on the network starts at the identity.

    Raises:
        ConfigError: for sizes below one, or a width that the heads do not divide.

    Source:
        Vaswani et al. 2017, without normalization of layers; masked by the graph as by Velickovic et al. 2018.

    Example:
        >>> from likelify import Context, GraphBatch
        >>> net = GraphAttentionNet(2, 3, width=8, heads=2, zero_start=False)
        >>> net(torch.randn(5, 2), Context(structure=GraphBatch.complete([2, 3]))).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        width: int = 64,
        *,
        heads: int = 4,
        rounds: int = 1,
        context_features: int = 0,
        frequencies: int = 0,
        dropout: float = 0.0,
        zero_start: bool = True,
    ) -> None:
        if check_size(width, "width") % check_size(heads, "heads"):
            raise ConfigError(f"The width of a GraphAttentionNet is a multiple of its heads, not {width} for {heads}.")
        super().__init__(
            (in_features, context_features, width, out_features),
            [_Attention(width, heads, dropout) for _ in range(check_size(rounds, "rounds"))],
            frequencies=frequencies,
            zero_start=zero_start,
        )
        self.heads = heads
