"""Graphs of a batch as those of networkx and of PyTorch Geometric."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from likelify.data.source import Batch
from likelify.errors import DataError, needs

if TYPE_CHECKING:
    import networkx
    import torch_geometric.data


def to_networkx(
    batch: Batch, columns: Sequence[str] | None = None, *, class_names: Sequence[str] | None = None
) -> list[networkx.Graph]:
    """Return the graphs of a batch as graphs of networkx, with nodes 0, 1, ...

    Args:
        batch: of graphs, such as `run.sample(10)` of a model of graphs gives.
        columns: what the features of nodes are called, one attribute each; by default all are one vector, `x`. The
            weights of edges are `weight`, and labels are `graph.graph["label"]`.
        class_names: what classes 0, 1, ... are called, for labels in words: of a run `run.config.data.class_names`,
            with which it knows these graphs again. By default labels are the numbers of classes.

    Raises:
        DataError: if the batch has no graphs, there is not one name for each feature, two are the same, or a class has
            none.
        MissingDependencyError: without networkx.
    """
    with needs("networkx", "graphs"):
        import networkx
    if columns is not None and (batch.x.ndim != 2 or len(columns) != batch.x.shape[1]):
        raise DataError(f"Nodes have features {tuple(batch.x.shape[1:])}, and there are {len(columns)} names for them.")
    if columns is not None and len(set(columns)) < len(columns):
        raise DataError(f"Two features would be one attribute of a node: the names are {', '.join(columns)}.")
    made = []
    for x, edges, weight, label in _each(batch):
        if label is not None and class_names is not None and not label < len(class_names):
            raise DataError(f"A graph is of class {label}, and there are {len(class_names)} names of classes.")
        named = label if label is None or class_names is None else class_names[label]
        graph = networkx.Graph() if label is None else networkx.Graph(label=named)
        for node, values in enumerate(x):
            shown = {"x": values} if columns is None else dict(zip(columns, values.tolist(), strict=True))
            graph.add_node(node, **shown)
        if weight is None:
            graph.add_edges_from(edges.T.tolist())
        else:
            weights = zip(edges.T.tolist(), weight.tolist(), strict=True)
            graph.add_weighted_edges_from((*ends, value) for ends, value in weights)
        made.append(graph)
    return made


def to_pyg(batch: Batch) -> list[torch_geometric.data.Data]:
    """Return the graphs of a batch as `Data` of PyTorch Geometric: `x`, `edge_index`, `edge_weight` and `y`.

    Raises:
        DataError: if the batch has no graphs.
        MissingDependencyError: without torch_geometric.
    """
    with needs("torch_geometric", "graphs"):
        from torch_geometric.data import Data
    import torch

    made = []
    for x, edges, weight, label in _each(batch):
        data = Data(x=torch.from_numpy(x), edge_index=torch.from_numpy(edges))
        if weight is not None:
            data.edge_weight = torch.from_numpy(weight)
        if label is not None:
            data.y = torch.tensor([label])
        made.append(data)
    return made


def _each(batch: Batch) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None, int | None]]:
    """Give features, edges, weights and label of each graph, with nodes numbered from 0."""
    graphs = batch.structure
    if graphs is None:
        raise DataError("The batch has no graphs; its structure is None.")
    sizes = graphs.sizes.tolist()
    weights = None if graphs.edge_weight is None else graphs.edge_weight.cpu().numpy()
    labels = [None] * len(sizes) if batch.labels is None else batch.labels.tolist()
    first, x = 0, batch.x.detach().cpu().numpy()
    for (edges, own), size, label in zip(graphs.edges_by_graph(), sizes, labels, strict=True):
        weight = None if weights is None else weights[own.numpy()]
        yield x[first : first + size], edges.numpy(), weight, label
        first += size
