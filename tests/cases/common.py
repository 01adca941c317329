"""What cases are made of."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

import likelify as lk
from likelify.transforms.core import Transform

GRAPHS = lk.GraphBatch(sizes=torch.tensor([2, 3]), edge_index=torch.tensor([[0, 1, 2, 3], [1, 0, 3, 4]]))


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def unit(*shape: int) -> torch.Tensor:
    return 0.02 + 0.96 * torch.rand(*shape, dtype=torch.float64)


def integers(*shape: int, levels: int) -> torch.Tensor:
    return torch.randint(levels, shape)


@dataclass(frozen=True)
class MapCase:
    build: Callable[[], Any]
    shape: tuple[int, ...]
    covers: type
    rows: int = 3


@dataclass(frozen=True)
class LayerCase:
    build: Callable[[], Transform]
    data: Callable[[], torch.Tensor]
    covers: type
    context: Callable[[], Any] = field(default=lambda: None)
    near_identity: bool = False
    scale: float = 0.3


def on_graphs(condition: bool = False) -> lk.Context:
    return lk.Context(condition=normal(5, 2) if condition else None, structure=GRAPHS)


def undirected() -> lk.Context:
    return lk.Context(structure=GRAPHS.undirected())


def weighted_graphs() -> lk.GraphBatch:
    """Two graphs of two and three nodes with self-loops; the last node has no edges."""
    edges = torch.tensor([[0, 0, 1, 2, 3, 3], [0, 1, 0, 3, 2, 3]])
    return lk.GraphBatch(torch.tensor([2, 3]), edges, torch.tensor([2.0, 0.5, 0.5, 3.0, 3.0, 1.0]))


def check_slopes(loss: Callable[[], torch.Tensor], leaves: list[torch.Tensor], tol: float = 1e-4) -> None:
    """Compare the gradient by every leaf with a difference quotient along a random direction."""
    for leaf, grad in zip(leaves, torch.autograd.grad(loss(), leaves), strict=True):
        direction, values = torch.randn_like(leaf), []
        with torch.no_grad():
            for step in (1e-6, -2e-6):
                leaf.add_(step * direction)
                values.append(float(loss()))
            leaf.add_(1e-6 * direction)
        slope, expected = (values[0] - values[1]) / 2e-6, float((grad * direction).sum())
        assert abs(slope - expected) <= tol * (1 + abs(expected))
