"""Layers of vectors on graphs of one size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from likelify.errors import ShapeError
from likelify.linalg.graph import common_size
from likelify.shapes import check_size
from likelify.structure import Context, ContextLike, as_context
from likelify.transforms.core import Composite, Transform, derived, require_transforms


class GraphVectors(Composite):
    r"""Take the nodes of each graph as one vector `(graphs, nodes * features)`, for a layer of vectors.

    All graphs have one size. Edges are not looked at, and the nodes have places in the vector: unlike other layers of
    graphs it knows their order. It is for nodes that have names, such as the sensors of a machine, and for baselines. A
    condition becomes the vector of the conditions of the nodes, `(graphs, nodes * context_features)`.

    Args:
        transform: the layer of vectors, which keeps their shape.
        nodes: of every graph.
        features: of every node.

    Raises:
        ShapeError: if the layer changes the shape, or (in a call) if a graph has another number of nodes.

    Example:
        >>> import torch
        >>> from likelify import Context, GraphBatch
        >>> from likelify.transforms import Conv1x1
        >>> graphs = Context(structure=GraphBatch.complete([3, 3]))
        >>> z, log_det = GraphVectors(Conv1x1(6), nodes=3, features=2)(torch.randn(6, 2), graphs)
        >>> z.shape, log_det.shape
        (torch.Size([6, 2]), torch.Size([2]))
    """

    domain = derived(lambda layer: layer.transform.domain)
    image = derived(lambda layer: layer.transform.image)

    def __init__(self, transform: Transform, nodes: int, features: int) -> None:
        super().__init__()
        require_transforms("GraphVectors", transform)
        self.nodes, self.features = check_size(nodes, "nodes"), check_size(features, "features")
        vector = (nodes * features,)
        if transform.out_shape(vector) != vector:
            raise ShapeError(
                f"GraphVectors takes a layer that keeps the shape of vectors, and {type(transform).__name__} makes "
                f"{transform.out_shape(vector)} of {vector}."
            )
        self.takes = (features,)
        self.transform = transform

    def parts(self) -> Sequence[Transform]:
        """Return the layer of vectors."""
        return [self.transform]

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Apply the layer to the vectors."""
        z, contribution = self.transform(*self._vectors(x, context))
        return z.reshape(x.shape), contribution

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Undo the layer."""
        x, contribution = self.transform.inverse(*self._vectors(z, context))
        return x.reshape(z.shape), contribution

    def mean_forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Apply the layer without noise."""
        return self.transform.mean_forward(*self._vectors(x, context)).reshape(x.shape)

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Undo the layer without noise."""
        return self.transform.mean_inverse(*self._vectors(z, context)).reshape(z.shape)

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Initialize the layer with the vectors."""
        return self.transform.initialize(*self._vectors(x, context)).reshape(x.shape)

    def _vectors(self, x: Tensor, context: ContextLike) -> tuple[Tensor, Context]:
        context = as_context(context)
        structure = context.structure
        if structure is None:
            raise ShapeError("GraphVectors needs the graphs: give Context(structure=GraphBatch(...)) as context.")
        if len(structure) and common_size(structure) != self.nodes:
            fewest, most = int(structure.sizes.min()), int(structure.sizes.max())
            found = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            raise ShapeError(
                f"GraphVectors was built for graphs of {self.nodes} nodes, and those of the context have {found}. "
                "Graphs of different sizes need layers that work on nodes, such as Coupling with "
                "nets.GraphAttentionNet."
            )
        condition = context.condition
        if condition is not None:
            condition = condition.reshape(-1, self.nodes * math.prod(condition.shape[1:]))
        return x.reshape(-1, self.nodes * self.features), replace(context, condition=condition, structure=None)
