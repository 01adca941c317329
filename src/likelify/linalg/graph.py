r"""Graph convolutions as linear maps, on node features `(nodes, features)` of all graphs of a batch together.

    L(X) = X theta_0 + A X theta_1,     A = D^(-1/2) W D^(-1/2),

with the edge weights `W` and the degrees `D_ii = sum_j W_ij`. `A` is symmetric and similar to the matrix `D^(-1) W`
of non-negative rows with sum one, so its eigenvalues lie in [-1, 1]. With an eigenbasis of `A` the map falls into one
small matrix `theta_0 + mu theta_1` for each eigenvalue `mu`, which is where all bounds here come from.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from likelify.edges import blocks
from likelify.errors import DomainError, ShapeError, UnsupportedError
from likelify.linalg.bounds import gram_bound, limit_norm, widest
from likelify.linalg.maps import LinearMap, check_declared_norm
from likelify.shapes import Shape
from likelify.structure import GraphBatch
from likelify.tracing import in_forward_mode, is_tracing, outside_autocast


def normalized_adjacency(graph: GraphBatch, dtype: torch.dtype | None = None) -> Tensor:
    r"""Return `A = D^(-1/2) W D^(-1/2)`, computed once for each graph and dtype.

    A node without edges has a row of zeros (its degree counts as one). A self-loop counts once in the degree.

    Args:
        graph: undirected: every edge stands there in both directions with the same weight, and once.
        dtype: of the values; by default the default dtype.

    Returns:
        Sparse CSR `(N, N)`, with 32-bit indices where they suffice; symmetric, its eigenvalues in [-1, 1].

    Raises:
        DomainError: if an edge lacks its opposite of the same weight or is there twice, or if a weight is negative or
            not finite.
        UnsupportedError: if the weights require a gradient; they are constants here.

    Source:
        Kipf and Welling 2017, without the added self-loops.

    Example:
        >>> normalized_adjacency(GraphBatch.complete([3])).to_dense()
        tensor([[0.0000, 0.5000, 0.5000],
                [0.5000, 0.0000, 0.5000],
                [0.5000, 0.5000, 0.0000]])
    """
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if graph.edge_weight is not None and graph.edge_weight.requires_grad:
        raise UnsupportedError(
            "edge_weight requires a gradient, which the normalized adjacency does not give: it is a constant, computed "
            "once. Detach the weights; what is to be learned belongs in theta_0 and theta_1."
        )
    return graph.derived(f"normalized_adjacency {dtype}", lambda graph: _adjacency(graph, dtype))


def _adjacency(graph: GraphBatch, dtype: torch.dtype) -> Tensor:
    nodes = len(graph.owner)
    rows, columns, values = graph.derived(f"compressed {dtype}", lambda graph: _compressed(graph, dtype))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(rows, columns, values, (nodes, nodes), check_invariants=False)


def _compressed(graph: GraphBatch, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return where each row begins among the entries, their columns and their values."""
    nodes = len(graph.owner)
    start, end, weight = _sorted_edges(graph)
    counts = torch.bincount(start, minlength=nodes)
    rows = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    inverse = _degrees(start, weight, counts).rsqrt()
    values = torch.empty(len(start), dtype=dtype, device=start.device)
    for some in blocks(len(start)):
        roots = inverse[start[some]]
        values[some] = (roots if weight is None else roots * weight[some]) * inverse[end[some]]
    # The sparse products of the CPU want 32-bit indices and would convert others at every call.
    index = torch.int32 if max(nodes, len(values)) < 2**31 else torch.int64
    return rows.to(index), end.to(index), values


def _degrees(start: Tensor, weight: Tensor | None, counts: Tensor) -> Tensor:
    """Return the sum of the weights at each node in double precision, one where it is zero."""
    if weight is None:
        return widest(counts).clamp_min(1)
    degrees = weight.new_zeros(len(counts)).index_add_(0, start, weight)
    if not bool(torch.isfinite(degrees).all()):
        raise DomainError("The weights of the edges of a node add up to infinity. Scale edge_weight down.")
    return torch.where(degrees > 0, degrees, 1)


def _entries(graph: GraphBatch, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rows, the columns and the values of the entries of the normalized adjacency, sorted."""
    begins, columns, values = graph.derived(f"compressed {dtype}", lambda graph: _compressed(graph, dtype))
    rows = torch.repeat_interleave(begins.diff(), output_size=len(columns))
    return rows.long(), columns.long(), values


def _sorted_edges(graph: GraphBatch) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the edges sorted by (from, to), with weights in double precision; refuse what is not undirected."""
    start, end = graph.edge_index
    weight = None if graph.edge_weight is None else widest(graph.edge_weight)
    if weight is not None and not bool((torch.isfinite(weight) & (weight >= 0)).all()):
        raise DomainError(
            "edge_weight holds negative or non-finite values; the normalized adjacency needs weights from zero. "
            "Take their absolute value, or leave these edges out."
        )
    if graph.is_complete or graph.in_pairs:
        return start, end, weight
    nodes = len(graph.owner)
    if not _ascending(start, end, nodes):
        order = (start.long() * nodes).add_(end).argsort()
        start, end, weight = start[order], end[order], None if weight is None else weight[order]
        if not _ascending(start, end, nodes):
            raise DomainError(
                "The graph has edges that stand there twice, and which weight they should have is not known. "
                "graph.undirected() merges them (the largest weight counts)."
            )
    if not _is_symmetric(start, end, weight, nodes):
        raise DomainError(
            "The graph is directed: some edges lack their opposite of the same weight, so its adjacency is not "
            "symmetric. Use graph.undirected() (of an edge_index alone, torch_geometric.utils.to_undirected)."
        )
    return start, end, weight


def _ascending(start: Tensor, end: Tensor, nodes: int) -> bool:
    """Tell whether the edges are sorted by (from, to), each once."""
    for some in blocks(len(start)):
        # With the last one of the block before.
        some = slice(max(some.start - 1, 0), some.stop)
        keys = (start[some].long() * nodes).add_(end[some])
        if not bool((keys[1:] > keys[:-1]).all()):
            return False
    return True


def _is_symmetric(start: Tensor, end: Tensor, weight: Tensor | None, nodes: int) -> bool:
    """Tell whether sorted edges are the same when turned round: sorted by `end`, stably, they are the sorted opposites.

    Sorting 32-bit numbers takes less than half the time, and memory.
    """
    order = end.to(torch.int32 if nodes < 2**31 else torch.int64).sort(stable=True).indices
    for some in blocks(len(start)):
        place = order[some]
        same = (end[place] == start[some]) & (start[place] == end[some])
        if weight is not None:
            same &= weight[place] == weight[some]
        if not bool(same.all()):
            return False
    return True


def spectrum_bounds(graph: GraphBatch) -> tuple[float, float]:
    """Bound the eigenvalues of the normalized adjacency from below and above."""
    if not graph.is_complete:
        return -1.0, 1.0
    least = graph.derived("least complete size", lambda graph: min(graph.sizes[graph.sizes > 1].tolist(), default=0))
    return (-1 / (least - 1), 1.0) if least else (0.0, 0.0)


def common_size(graph: GraphBatch) -> int | None:
    """Return the number of nodes of each graph if it is the same for all of them and not zero; else None."""
    sizes = graph.derived("distinct sizes", lambda graph: graph.sizes.unique().tolist())
    return sizes[0] if len(sizes) == 1 and sizes[0] > 0 else None


@dataclass(frozen=True, eq=False)
class GraphMap(LinearMap, vouches=True):
    r"""A graph convolution `L(X) = X theta_0 + A X theta_1` on node features `X` of shape `(nodes, features)`.

    `A` is the normalized adjacency of the graph (`normalized_adjacency`). An item is a graph: its nodes are mixed,
    and norms, certificates and log-determinants are counted per graph. The map commutes with permutations of the
    nodes. Complete graphs (`GraphBatch.complete`) need no sparse matrix.

    Args:
        theta0: `(features, features)`, acts on each node by itself, from the right.
        theta1: `(features, features)`, acts on the mean over the neighbours.
        graph: the undirected graphs whose nodes are the rows.
        norm: an upper bound of the 2-norm that is known already.

    Raises:
        ShapeError: if the matrices are not square and alike, or (when applied) if the input has other rows or features.
        DomainError: if the graph is directed or its weights are not usable (see `normalized_adjacency`).

    Source:
        Hoogeboom et al. 2020, equation 7.

    Example:
        >>> pair = GraphBatch.complete([2])
        >>> GraphMap(torch.eye(1), 2 * torch.eye(1), pair).apply(torch.tensor([[1.0], [10.0]]))
        tensor([[21.],
                [12.]])
    """

    theta0: Tensor
    theta1: Tensor
    graph: GraphBatch
    norm: float | None = None

    def __post_init__(self) -> None:
        check_declared_norm(self.norm)
        shapes = tuple(self.theta0.shape), tuple(self.theta1.shape)
        if len(shapes[0]) != 2 or shapes[0][0] != shapes[0][1] or shapes[0] != shapes[1]:
            raise ShapeError(f"GraphMap needs two square matrices (features, features), got {shapes[0]}, {shapes[1]}.")

    @property
    def rows(self) -> int:
        """The number of nodes."""
        return len(self.graph.owner)

    @property
    def couples_rows(self) -> bool:
        """Nodes see their neighbours."""
        return True

    @property
    def declared(self) -> bool:
        """The graph is data, so the two matrices are all there is."""
        return True

    def apply(self, x: Tensor) -> Tensor:
        """Convolve: multiply the features of each node, and of the mean over its neighbours."""
        neighbours = self.neighbours(x)
        return x @ self.theta0 + neighbours @ self.theta1

    def neighbours(self, x: Tensor) -> Tensor:
        """Multiply by the normalized adjacency: `A x`."""
        self.check(x)
        if not self.graph.is_complete:
            if is_tracing() or in_forward_mode():
                # To which sparse products are unknown.
                start, end, weight = _entries(self.graph, x.dtype)
                return torch.zeros_like(x).index_add(0, start, weight[:, None] * x[end])
            return SymmetricProduct.apply(normalized_adjacency(self.graph, x.dtype), x)  # pyright: ignore[reportReturnType]
        size = common_size(self.graph)
        if size is not None:
            graphs = x.unflatten(0, (-1, size))
            return ((graphs.sum(1, keepdim=True) - graphs) / max(size - 1, 1)).flatten(0, 1)
        owner = self.graph.owner
        sums = x.new_zeros(len(self.graph), *x.shape[1:]).index_add(0, owner, x)
        return (sums[owner] - x) / (self.graph.sizes - 1).clamp_min(1)[owner, None]

    def check(self, x: Tensor) -> None:
        """Refuse an input that does not hold the features of the nodes."""
        if x.shape != (self.rows, len(self.theta0)):
            raise ShapeError(
                f"A GraphMap on {self.rows} nodes with {len(self.theta0)} features cannot act on an input of shape "
                f"{tuple(x.shape)}; it must be (nodes, features)."
            )

    def adjoint(self) -> GraphMap:
        """Transpose both matrices; the adjacency is symmetric."""
        return replace(self, theta0=self.theta0.mT, theta1=self.theta1.mT)

    def trace(self, event_shape: Shape) -> Tensor:
        """Return the part of each node, `(nodes,)`: `tr theta_0 + A_ii tr theta_1`; a graph's trace is their sum."""
        own = self.theta0.trace().expand(self.rows)
        loops = self.graph.derived(f"loops {own.dtype}", lambda graph: _loops(graph, own.dtype))
        return own if loops is None else own + loops * self.theta1.trace()

    def norm_bound(self, event_shape: Shape) -> float | Tensor:
        r"""Return the declared norm, or the largest of `||theta_0 + mu theta_1||` for eigenvalues `mu` of `A`.

        The norm is convex in `mu`, so the ends of the range suffice.
        """
        return gram_bound(self._ends(), steps=5).amax() if self.norm is None else self.norm

    def sharpened(self) -> GraphMap:
        """Compute the norm instead of taking the declared one."""
        return replace(self, norm=None)

    def growth_bound(self, event_shape: Shape) -> float | Tensor:
        """Bound the norm of the symmetric part in the same way."""
        if self.norm is not None:
            return self.norm
        ends = self._ends()
        return gram_bound((ends + ends.mT) / 2, steps=5).amax()

    def frobenius_bound(self, event_shape: Shape) -> Tensor:
        """Bound the Frobenius norm of each graph, `(graphs,)`: the root of its nodes times that of one eigenvalue."""
        largest = torch.linalg.matrix_norm(self._ends()).amax()
        return self.graph.sizes.to(largest.dtype).sqrt() * largest * (1 + 1e-12)

    def item_size(self, event_shape: Shape) -> Tensor:
        """Count the elements of each graph, `(graphs,)`."""
        return self.graph.sizes * len(self.theta0)

    def _ends(self) -> Tensor:
        """Return `theta_0 + mu theta_1` at both ends of the range of the eigenvalues, `(2, f, f)`."""
        theta0, theta1 = widest(self.theta0.detach()), widest(self.theta1.detach())
        return torch.stack([theta0 + mu * theta1 for mu in spectrum_bounds(self.graph)])

    def centered(self, event_shape: Shape) -> tuple[float | Tensor, LinearMap]:
        """Take off the mean of the diagonal of `theta_0`, unless the norm is declared."""
        if self.norm is not None:
            return 0.0, self
        shift = self.theta0.detach().diagonal().mean()
        return shift, replace(self, theta0=self.theta0 - shift * torch.eye(len(self.theta0)).to(self.theta0))

    def pullback(self, u: Tensor, v: Tensor) -> dict[str, Tensor]:
        """Sum outer products over the nodes: of `u` with `v`, and of `A u` with `v`."""
        return {"theta0": u.mT @ v, "theta1": self.neighbours(u).mT @ v}

    def item_norms(self, x: Tensor, *, plain: bool = False) -> Tensor:
        """Return the 2-norm of the features of each graph, `(graphs,)`."""
        nodes = super().item_norms(x, plain=plain)
        owner, zeros = self.graph.owner, nodes.new_zeros(len(self.graph))
        if plain or nodes.dtype != x.dtype:
            # In double precision no square of a single-precision number leaves the range.
            return zeros.index_add(0, owner, nodes.square()).sqrt()
        largest = zeros.scatter_reduce(0, owner, nodes, "amax").clamp_min(torch.finfo(nodes.dtype).tiny)
        return largest * zeros.index_add(0, owner, (nodes / largest[owner]).square()).sqrt()


class SymmetricProduct(torch.autograd.Function):
    """The product `A x` with a constant symmetric sparse matrix, whose gradient is the same product."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, x: Tensor) -> Tensor:
        """Multiply."""
        ctx.matrix = matrix
        return matrix @ x

    @staticmethod
    @outside_autocast
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Multiply the gradient."""
        return None, SymmetricProduct.apply(ctx.matrix, grads[0])


def _loops(graph: GraphBatch, dtype: torch.dtype) -> Tensor | None:
    """Return the diagonal of the normalized adjacency, or None if it is zero."""
    if graph.is_complete or not bool((graph.edge_index[0] == graph.edge_index[1]).any()):
        return None
    start, end, values = _entries(graph, torch.promote_types(dtype, torch.float32))
    loop = start == end
    return torch.zeros(len(graph.owner), dtype=dtype, device=start.device).index_add_(
        0, start[loop], values[loop].to(dtype)
    )


def limit_by_neighbours(theta0: Tensor, theta1: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
    r"""Scale the matrices of a graph convolution down to `||theta_0|| <= 1 / n` and `||theta_1|| <= 1`.

    With these norms the exponential's series converges quickly; matrices within the limits stay as they are. The norms
    are guaranteed bounds (`gram_bound`), so the limits hold; differentiable.

    Args:
        theta0: `(features, features)`.
        theta1: `(features, features)`.
        neighbours: `n`, the largest number of neighbours that nodes have. A constant: if it were read off the graphs at
            hand, what happens to one would depend on the others.

    Returns:
        Both matrices.

    Source:
        Hoogeboom et al. 2020, section 3.1, a rule of thumb.
    """
    limited = limit_norm(theta0, gram_bound(theta0), 1 / neighbours)
    return limited, limit_norm(theta1, gram_bound(theta1), 1.0)
