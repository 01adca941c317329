"""Cases of couplings and of layers of vectors on graphs: complete or not, of sizes from one, with and without edges."""

from typing import Any

import torch

import likelify as lk
from likelify import nets, transforms
from tests.cases.common import LayerCase, normal, on_graphs, weighted_graphs

AFFINE_SPLINE = transforms.ChainBijector([lk.AffineBijector(), lk.SplineBijector(4, 2.0)])


def coupling(net: type, bijector: Any, features: int = 3, **settings: Any) -> lk.Coupling:
    split = lk.ChannelSplit(features)
    read, changed = split.sizes
    return lk.Coupling(split, bijector, net(read, bijector.size * changed, 4, frequencies=2, **settings))


def lonely() -> lk.Context:
    """A node alone, and four nodes, without edges."""
    return lk.Context(structure=lk.GraphBatch(torch.tensor([1, 4]), torch.empty(2, 0, dtype=torch.long)))


LAYERS: dict[str, LayerCase] = {
    "coupling-messages-affine-graphs": LayerCase(
        lambda: coupling(nets.MessagePassingNet, lk.AffineBijector()),
        lambda: normal(5, 3),
        lk.Coupling,
        on_graphs,
    ),
    "coupling-messages-spline-one-size-graphs": LayerCase(
        lambda: coupling(nets.MessagePassingNet, lk.SplineBijector(4, 2.0), 2, rounds=2),
        lambda: normal(6, 2),
        lk.Coupling,
        lambda: lk.Context(structure=lk.GraphBatch.complete([3, 3])),
    ),
    "coupling-messages-no-edges-graphs": LayerCase(
        lambda: coupling(nets.MessagePassingNet, lk.AffineBijector()), lambda: normal(5, 3), lk.Coupling, lonely
    ),
    "coupling-attention-spline-complete-graphs": LayerCase(
        lambda: coupling(nets.GraphAttentionNet, AFFINE_SPLINE, heads=2),
        lambda: normal(5, 3),
        lk.Coupling,
        lambda: lk.Context(structure=lk.GraphBatch.complete([1, 4])),
    ),
    "coupling-attention-one-size-graphs": LayerCase(
        lambda: coupling(nets.GraphAttentionNet, lk.AffineBijector(), 2, heads=2),
        lambda: normal(6, 2),
        lk.Coupling,
        lambda: lk.Context(structure=lk.GraphBatch.complete([3, 3])),
    ),
    "coupling-attention-weighted-graphs-condition": LayerCase(
        lambda: coupling(nets.GraphAttentionNet, lk.AffineBijector(), heads=2, context_features=2),
        lambda: normal(5, 3),
        lk.Coupling,
        lambda: lk.Context(normal(5, 2), weighted_graphs()),
    ),
    "graph-vectors-graphs": LayerCase(
        lambda: transforms.GraphVectors(lk.Chain([lk.ActNorm(6), lk.Conv1x1(6)]), nodes=3, features=2),
        lambda: normal(6, 2),
        transforms.GraphVectors,
        lambda: lk.Context(structure=lk.GraphBatch.complete([3, 3])),
        sees_order=True,
    ),
    "graph-vectors-graphs-condition": LayerCase(
        lambda: transforms.GraphVectors(lk.dense_exponential(4, context_features=6), nodes=2, features=2),
        lambda: normal(4, 2),
        transforms.GraphVectors,
        lambda: lk.Context(normal(4, 3), lk.GraphBatch.complete([2, 2])),
        sees_order=True,
    ),
}
