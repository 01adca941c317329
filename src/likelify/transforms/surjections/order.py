r"""The order of the nodes of a set: forgotten by what is in front, known behind.

A set of `n` points as rows in any order has the density `p(x) = 1/n! sum_pi q(pi x)` if `q` is that of the rows in an
order of their own and all orders are equally likely. A random order is an unbiased estimate of that sum; one that is
looked up from the points keeps a single term, which is all that counts where `q` expects that order (Nielsen et al.
2020, sort surjections).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from likelify.errors import ConfigError, ShapeError, UnsupportedError, needs, unknown_word
from likelify.linalg.bounds import widest_dtype
from likelify.linalg.graph import common_size
from likelify.shapes import Shape, check_size
from likelify.structure import ContextLike, GraphBatch, as_context, sum_items
from likelify.support import check_sample
from likelify.tracing import can_look
from likelify.transforms.core import Transform

OrderName = Literal["random", "feature", "angle", "anchors"]
ORDERS = ("random", "feature", "angle", "anchors")
# A cost that is more than any, and of which a sum is a number.
FAR = 1e30
# Graphs that anchors are fitted to, starts of that, and rounds of each.
ANCHOR_GRAPHS, ANCHOR_STARTS, ANCHOR_ROUNDS = 256, 6, 12


class NodeOrder(Transform):
    r"""Put the nodes of each graph into an order, so that layers and bases behind may tell them apart; a bound.

    | order | the nodes are | contribution |
    | --- | --- | --- |
    | `"random"` | shuffled | 0 |
    | `"feature"` | sorted by their first feature | `-log n!` |
    | `"angle"` | sorted by the angle in the plane, and given as `(log r, angle)` | `-log n! - sum 2 log r` |
    | `"anchors"` | assigned to as many anchors, at least distance in all | `-log n!` |

    The inverse shuffles the nodes (behind `"angle"` those of the plane). With a random order a flow has an unbiased
    estimate of `1/n! sum_pi q(pi x)`, which weighting by importance narrows. The other orders are functions of the
    points and leave out all terms but one: a lower bound that no number of draws narrows, tight if the model behind
    expects the nodes in that order. The density of a flow with this layer in front does not depend on how the nodes
    were numbered.

    Args:
        features: of a node.
        by: the order.
        nodes: of every graph, for `"anchors"`. Their places are fitted by `initialize`, from points of the sample that
            are far apart, as means of what is assigned to them.

    Raises:
        ConfigError: for an unknown order, `"angle"` out of the plane, or anchors without a number of nodes.
        ShapeError: without graphs, or if anchors meet graphs of another size.
        UnsupportedError: for graphs with edges of their own or conditions that differ among the nodes, which both
            belong to the order that is changed.

    Source:
        Nielsen et al. 2020 (SurVAE flows), sort and permutation surjections.

    Example:
        >>> from likelify import Context, GraphBatch
        >>> graphs = Context(structure=GraphBatch.complete([3]))
        >>> z, contribution = NodeOrder(1, by="feature")(torch.tensor([[2.0], [0.5], [1.0]]), graphs)
        >>> z.flatten(), contribution
        (tensor([0.5000, 1.0000, 2.0000]), tensor([-1.7918]))
    """

    random_forward = True
    random_inverse = True
    inverse_check = None
    anchors: Tensor

    def __init__(self, features: int, by: OrderName = "random", *, nodes: int | None = None) -> None:
        super().__init__()
        features = check_size(features, "The features of a node")
        if by not in ORDERS:
            raise ConfigError(unknown_word("order", str(by), ORDERS))
        if by == "angle" and features != 2:
            raise ConfigError(f"Angles are those of points in the plane, of 2 features; these nodes have {features}.")
        if by == "anchors" and nodes is None:
            raise ConfigError("Say how many anchors there are, as many as each graph has nodes: nodes=.")
        self.takes = (features,)
        self.by: OrderName = by
        self.nodes = None if nodes is None else check_size(nodes, "nodes")
        self.register_buffer("anchors", torch.randn(self.nodes or 0, features))

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Put the nodes into their order."""
        graphs = self._graphs(x, context)
        order = shuffled(graphs) if self.by == "random" else self._order(x, graphs)
        contribution = self._lost(x, graphs)
        if self.by != "angle":
            return x[order], contribution
        polar, log_det = _polar(x[order])
        return polar, contribution + sum_items(log_det, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Shuffle the nodes."""
        graphs = self._graphs(z, context)
        contribution = -self._lost(z, graphs)
        if self.by == "angle":
            z, log_det = _cartesian(z)
            contribution = contribution + sum_items(log_det, context)
        return z[shuffled(graphs)], contribution

    def mean_forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Put the nodes into their order; as they are where it is random."""
        graphs = self._graphs(x, context)
        if self.by == "random":
            return x
        ordered = x[self._order(x, graphs)]
        return _polar(ordered)[0] if self.by == "angle" else ordered

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Return the nodes in the order in which they are."""
        return _cartesian(z)[0] if self.by == "angle" else z

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Fit the anchors, if there are any; return the nodes in their order."""
        check_sample(x, self)
        graphs = self._graphs(x, context)
        if self.nodes is not None and self.by == "anchors":
            sample = x.detach()[: ANCHOR_GRAPHS * self.nodes].reshape(-1, self.nodes, x.shape[1])
            self.anchors.copy_(fitted_anchors(sample))
        with torch.no_grad():
            return self.mean_forward(x, context) if self.by != "random" else x[shuffled(graphs)]

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return the same shape."""
        return in_shape

    def _graphs(self, x: Tensor, context: ContextLike) -> GraphBatch:
        found = as_context(context)
        graphs, condition = found.structure, found.condition
        if graphs is None:
            raise ShapeError(
                "NodeOrder orders the nodes of graphs: give Context(structure=GraphBatch.complete(sizes))."
            )
        if not graphs.is_complete and graphs.edge_index.numel():
            raise UnsupportedError(
                "NodeOrder changes the order of nodes, and edges of a graph belong to the order that they had. It is "
                "for sets of points: GraphBatch.complete(sizes), or graphs without edges."
            )
        if condition is not None and can_look(condition) and len(x):
            first = (graphs.sizes.cumsum(0) - graphs.sizes)[graphs.owner]
            if bool((condition != condition[first]).any()):
                raise UnsupportedError(
                    "NodeOrder changes the order of nodes, and the conditions of these differ within a graph. Give one "
                    "condition for the whole graph, or a model without an order, such as point-flow."
                )
        if self.by == "anchors" and len(graphs) and common_size(graphs) != self.nodes:
            raise ShapeError(
                f"This NodeOrder has {self.nodes} anchors, one for each node, and there are graphs of other sizes. "
                "Sets of any size can be sorted by 'feature', or shuffled."
            )
        return graphs

    def _lost(self, x: Tensor, graphs: GraphBatch) -> Tensor:
        """Return `-log n!` of each graph, or zero where the order is drawn."""
        if self.by == "random":
            return x.new_zeros(len(graphs))
        return -torch.lgamma(graphs.sizes.to(x.device, x.dtype) + 1)

    def _order(self, x: Tensor, graphs: GraphBatch) -> Tensor:
        """Return the rows in the order of their graphs, and within each in its own."""
        if self.by == "anchors":
            return self._assigned(x.detach(), graphs)
        value = x[:, 0] if self.by == "feature" else torch.atan2(x[:, 1], x[:, 0])
        return _within(value.detach(), graphs)

    def _assigned(self, x: Tensor, graphs: GraphBatch) -> Tensor:
        if not len(x):
            return torch.arange(0, device=x.device)
        points = x.reshape(len(graphs), -1, x.shape[1])
        chosen = _nearest(self.anchors, points)
        first = torch.arange(len(graphs), device=x.device) * points.shape[1]
        return (first[:, None] + chosen.to(x.device)).flatten()

    def extra_repr(self) -> str:
        """Show the order."""
        return f"{self.anchors.shape[1]}, by={self.by!r}" + ("" if self.nodes is None else f", nodes={self.nodes}")


def shuffled(graphs: GraphBatch) -> Tensor:
    """Return the numbers of the nodes, those of each graph in a random order."""
    owner = graphs.owner
    return _within(torch.rand(len(owner), dtype=widest_dtype(owner.device), device=owner.device), graphs)


def _within(value: Tensor, graphs: GraphBatch) -> Tensor:
    """Sort the nodes of each graph by a value; the graphs stay where they are."""
    order = value.argsort(stable=True)
    return order[graphs.owner[order].argsort(stable=True)]


def _nearest(anchors: Tensor, points: Tensor) -> Tensor:
    """Return for each anchor the point of each graph that is assigned to it, `(graphs, anchors)` on the CPU."""
    wide = widest_dtype(points.device)
    costs = torch.cdist(anchors.to(wide).expand(len(points), -1, -1), points.to(wide)).square().cpu()
    # One point that is anywhere must not end what is said of all other graphs.
    return torch.stack(assignments(list(costs.nan_to_num(FAR, FAR).clamp(max=FAR))))


def assignments(costs: Sequence[Tensor]) -> list[Tensor]:
    """Return for each row of each matrix of costs the column that is assigned to it, at least cost in all.

    Raises:
        MissingDependencyError: without SciPy.
    """
    with needs("scipy", "app"):
        from scipy.optimize import linear_sum_assignment
    return [torch.from_numpy(linear_sum_assignment(cost.numpy())[1]) for cost in costs]


def fitted_anchors(sample: Tensor) -> Tensor:
    """Return anchors `(nodes, features)`: means of the points `(graphs, nodes, features)` that are assigned to each.

    Each start takes points of the sample that are far apart (Arthur and Vassilvitskii 2007); the best one is kept.
    """
    best, least = sample[0], math.inf
    for _ in range(ANCHOR_STARTS):
        anchors, cost = _far_apart(sample.flatten(0, 1), sample.shape[1]), math.inf
        for _ in range(ANCHOR_ROUNDS):
            chosen = _nearest(anchors, sample).to(sample.device)
            assigned = sample.gather(1, chosen[..., None].expand_as(sample))
            before, cost = cost, float((assigned - anchors).square().sum())
            if cost < least:
                best, least = anchors, cost
            if cost == before:
                break
            anchors = assigned.mean(0)
    return best


def _far_apart(points: Tensor, count: int) -> Tensor:
    """Draw points, each with a probability that grows as the square of its distance from those before it."""
    chosen = points[torch.randint(len(points), (1,))]
    for _ in range(count - 1):
        far = torch.cdist(points, chosen).amin(1).square()
        # Where all points are the same, any will do.
        far = far + far.sum().clamp_min(1e-30) * 1e-12
        chosen = torch.cat([chosen, points[torch.multinomial(far, 1)]])
    return chosen


def _polar(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return `(log r, angle)`, and the log-determinant `-2 log r` of each row."""
    log_r = 0.5 * x.square().sum(1).clamp_min(torch.finfo(x.dtype).tiny).log()
    return torch.stack([log_r, torch.atan2(x[:, 1], x[:, 0])], 1), -2 * log_r


def _cartesian(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the points of the plane, and the log-determinant `2 log r` of each row."""
    log_r, angle = z.unbind(1)
    return log_r.exp()[:, None] * torch.stack([angle.cos(), angle.sin()], 1), 2 * log_r
