"""The law of graphs: the order in which nodes are written down means nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from likelify.distributions.core import Distribution
from likelify.seeding import seeded
from likelify.structure import Context, ContextLike, GraphBatch, as_context
from likelify.testing.law import close, require
from likelify.transforms.core import Transform


def check_permutation_equivariance(
    subject: Transform | Distribution,
    x: Tensor,
    context: ContextLike,
    *,
    tol: float = 1e-12,
    times: int = 3,
) -> None:
    """Check that permuting nodes within their graphs permutes what a layer gives, and leaves what it contributes.

    The nodes, their edges and their conditions are permuted together, at random and several times; the edges are listed
    in another order, too. Of a layer both directions are checked, each where it draws nothing at random; a noisy
    contribution is left out. Of a distribution (a `Flow`) the law is that `log_prob` of each graph stays the same.

    Args:
        subject: the layer or the distribution, in double precision, with its parameters moved from their start.
        x: features of the nodes `(nodes, *features)`, in double precision (or integers, where they are taken).
        context: with the graphs, one of which has two nodes at least.
        tol: allowed deviation, relative to the largest entry.
        times: permutations that are tried.
    """
    context = as_context(context)
    structure = context.structure
    if structure is None:
        raise AssertionError("Law broken: a context without graphs has no nodes to permute.")
    require(bool((structure.sizes > 1).any()), "graphs of one node each have nothing to permute")
    for seed in range(times):
        order = _order(structure, seed)
        moved = _moved(context, structure, order)
        with torch.no_grad():
            if isinstance(subject, Distribution):
                _compare(subject.log_prob(x[order], moved), subject.log_prob(x, context), tol, "log_prob")
            else:
                _check_layer(subject, x, context, order, moved, tol)


def _check_layer(layer: Transform, x: Tensor, context: Context, order: Tensor, moved: Context, tol: float) -> None:
    with seeded(0):
        z, contribution = layer(x, context)
    require(len(z) == len(x), f"the latent has {len(z)} rows for {len(x)} nodes, so it has none for each node")
    directions: list[tuple[str, Any, Tensor, Tensor, Tensor]] = []
    if not layer.random_forward:
        directions.append(("forward", layer, x, z, contribution))
    if not layer.random_inverse:
        back, undone = layer.inverse(z, context)
        directions.append(("inverse", layer.inverse, z, back, undone))
    for name, method, given, value, own in directions:
        found, contributed = method(given[order], moved)
        _compare(found, value[order], tol, f"{name}: value of permuted nodes = permuted value")
        if not layer.noisy_log_det:
            _compare(contributed, own, tol, f"{name}: contribution of permuted nodes")


def _compare(found: Tensor, expected: Tensor, tol: float, law: str) -> None:
    close(found.double(), expected.double(), tol * (1 + float(expected.abs().max())), law)


def _order(structure: GraphBatch, seed: int) -> Tensor:
    """Return a permutation of the nodes within their graphs, which is not the identity."""
    owner = structure.owner
    with seeded(seed):
        keys = torch.rand(len(owner), device=owner.device)
    order = keys.argsort()
    order = order[owner[order].argsort(stable=True)]
    if torch.equal(order, torch.arange(len(order), device=order.device)):
        # Of two nodes there are but two orders.
        order = order.flip(0)
        order = order[owner[order].argsort(stable=True)]
    return order


def _moved(context: Context, structure: GraphBatch, order: Tensor) -> Context:
    """Return the context of nodes that stand in another order."""
    condition = None if context.condition is None else context.condition[order]
    if structure.is_complete:
        return Context(condition, GraphBatch.complete(structure.sizes))
    listed = torch.arange(structure.edge_index.shape[1], device=order.device).flip(0)
    edges = order.argsort()[structure.edge_index][:, listed]
    weight = None if structure.edge_weight is None else structure.edge_weight[listed]
    return Context(condition, GraphBatch(structure.sizes, edges, weight))
