"""What cases are made of."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

import likelify as lk
from likelify import nets, testing
from likelify.transforms.core import Transform
from likelify.transforms.exponential.parametrizations import HouseholderVectors

GRAPHS = lk.GraphBatch(sizes=torch.tensor([2, 3]), edge_index=torch.tensor([[0, 1, 2, 3], [1, 0, 3, 4]]))


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def unit(*shape: int) -> torch.Tensor:
    return 0.02 + 0.96 * torch.rand(*shape, dtype=torch.float64)


def integers(*shape: int, levels: int) -> torch.Tensor:
    return torch.randint(levels, shape)


Parameters = Literal["random", "fresh", "zero", "identity"]

# Parameters by which a layer has no derivative while they are zero, of which order, and why.
KINKS: list[tuple[type[nn.Module], str, int, str]] = [
    (HouseholderVectors, "", 1, "a vector of zero length names no reflection"),
    (nets.AutoregressiveNet, "bias", 1, "where a net sees nothing, its ReLUs get the bias, and their kink is at zero"),
    (nets.AutoregressiveNet, "", 2, "all its ReLUs are at their kink"),
    (nets.ResidualConvNet, "", 2, "all its ReLUs are at their kink"),
]


@dataclass(frozen=True)
class MapCase:
    build: Callable[[], Any]
    shape: tuple[int, ...]
    covers: type
    rows: int = 3

    def ready(self, device: str = "cpu") -> tuple[Any, torch.Tensor]:
        """Return the map and rows for it, on a device."""
        with torch.device(device):
            return self.build(), normal(self.rows, *self.shape)


@dataclass(frozen=True)
class LayerCase:
    """A layer and what it is called with.

    Attributes:
        build: makes the layer.
        data: makes rows for it.
        covers: the class that the case is there for.
        context: makes the context.
        near_identity: a fresh layer claims to change little.
        scale: of the noise on its parameters.
        draws_without_gradient: the docstring says that what its inverse draws has no gradients.
        sees_order: of nodes of graphs: the docstring says that they are taken in the order of their indices.
    """

    build: Callable[[], Transform]
    data: Callable[[], torch.Tensor]
    covers: type
    context: Callable[[], Any] = field(default=lambda: None)
    near_identity: bool = False
    scale: float = 0.3
    draws_without_gradient: bool = False
    sees_order: bool = False

    def ready(
        self,
        at: Parameters = "random",
        *,
        dtype: torch.dtype = torch.float64,
        scale: float | None = None,
        device: str = "cpu",
    ) -> tuple[Transform, torch.Tensor, lk.Context]:
        """Return the layer, its parameters moved or fresh or set, with data and context, all on a device."""
        layer = self.build().to(dtype)
        if at == "random":
            testing.randomize(layer, scale=self.scale if scale is None else scale)
        elif at != "fresh":
            testing.set_parameters(layer, at)
        x, context = self.data(), lk.structure.as_context(self.context())
        x = x.to(dtype) if x.is_floating_point() else x
        condition = None if context.condition is None else context.condition.to(device, dtype)
        structure = None if context.structure is None else context.structure.to(device)
        return layer.to(device), x.to(device), lk.Context(condition, structure)

    @property
    def directions(self) -> tuple[str, ...]:
        """Those in which gradients are meant to be right."""
        return ("forward",) if self.draws_without_gradient else ("forward", "inverse")


def kinks(layer: nn.Module, order: int = 1) -> set[str]:
    """Return the names of the parameters by which a layer has no derivative of an order where they are now."""
    return {
        f"{place}.{name}".lstrip(".")
        for place, module in layer.named_modules()
        for kind, word, least, _ in KINKS
        if isinstance(module, kind) and order >= least
        for name, parameter in module.named_parameters()
        if word in name and not bool(parameter.any())
    }


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
