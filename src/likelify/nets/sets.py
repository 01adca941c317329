"""Networks of sets whose nodes come one after the other."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likelify.errors import ShapeError
from likelify.nets.points import Ask, Dual, Sets, waves
from likelify.shapes import check_size, kept_arguments
from likelify.structure import ContextLike, as_context

# Waves of how much of a set is there.
PROGRESS = 3


class CausalSetNet(nn.Module):
    r"""Say something of each node from those before it in its graph: `h_i = f({x_j : j < i}, i, n)`.

    A question that knows how many nodes came and how many are to come is put to those before, `rounds` times; gates
    decide which of them are heard. In what order these came does not matter. Edges are not looked at.

    Args:
        features: of a node.
        outputs: for each node.
        width: of the network.
        rounds: of asking.
        heads: of the gates.
        frequencies: waves of each feature; 0 for none. Features should have deviations about one.
        context_features: of the condition, one row for each node, the same in all of a graph.

    Raises:
        ConfigError: if the heads do not divide the width.

    Example:
        >>> from likelify import Context, GraphBatch
        >>> net = CausalSetNet(2, 5, width=8)
        >>> net(torch.randn(5, 2), Context(structure=GraphBatch.complete([3, 2]))).shape
        torch.Size([5, 5])
    """

    extra_repr = kept_arguments

    def __init__(
        self,
        features: int,
        outputs: int,
        *,
        width: int = 64,
        rounds: int = 2,
        heads: int = 4,
        frequencies: int = 6,
        context_features: int = 0,
    ) -> None:
        super().__init__()
        self.features = check_size(features, "The features of a node")
        width, heads = check_size(width, "width"), check_size(heads, "heads")
        self.frequencies = check_size(frequencies, "frequencies", least=0)
        self.context_features = check_size(context_features, "context_features", least=0)
        moments = 2 * PROGRESS + 3
        self.others = nn.Linear(features * (1 + 2 * self.frequencies) + self.context_features, width)
        self.own = nn.Linear(moments + self.context_features, width)
        rounds = check_size(rounds, "rounds")
        self.deepen = nn.ModuleList(nn.Linear(width, width) for _ in range(rounds))
        self.rounds = nn.ModuleList(Ask(width, heads, moments) for _ in range(rounds))
        self.out = nn.Linear(width, check_size(outputs, "outputs"))

    def forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return `(nodes, outputs)` for nodes `(nodes, features)` in the order in which they come."""
        context = as_context(context)
        if context.structure is None:
            raise ShapeError("CausalSetNet works on the nodes of graphs: give Context(structure=GraphBatch(...)).")
        if x.shape[1:] != (self.features,):
            raise ShapeError(f"This network is of {self.features} features of nodes, not {tuple(x.shape[1:])}.")
        sets = context.structure.derived("sets in order", Sets.in_order)
        told = [] if context.condition is None else [sets.spread(context.condition.to(x.dtype))]
        progress = _progress(context.structure.sizes, sets).to(x.dtype)
        others = self.others(torch.cat([_embedded(sets.spread(x), self.frequencies), *told], -1))
        own = Dual(self.own(torch.cat([progress, *told], -1)), None)
        for deepen, ask in zip(self.deepen, self.rounds, strict=True):
            others = others + deepen(F.silu(others))
            own = ask(own, others, progress, sets)
        return sets.gather(own.silu().linear(self.out).value)


def _progress(sizes: Tensor, sets: Sets) -> Tensor:
    """Return what is known of how far a set has come, before each of its nodes, `(graphs, most, moments)`."""
    come = torch.arange(sets.most, device=sizes.device, dtype=torch.float32).expand(sets.graphs, -1)
    size = sizes[:, None].clamp_min(1)
    share = (come / size).clamp(max=1.0)
    left = (size - come).clamp_min(1)
    logs = torch.stack([(1 + come).log(), left.log()], -1)
    told = waves(share.reshape(-1, 1), PROGRESS)
    return torch.cat([told.reshape(sets.graphs, sets.most, told.shape[-1]), logs], -1)


def _embedded(x: Tensor, frequencies: int) -> Tensor:
    """Return features and waves of them."""
    pitch = 0.5 * math.pi * 2 ** torch.linspace(0, 3, max(frequencies, 1), dtype=x.dtype, device=x.device)
    angle = (x[..., None] * pitch[:frequencies]).flatten(-2)
    return torch.cat([x, angle.sin(), angle.cos()], -1)
