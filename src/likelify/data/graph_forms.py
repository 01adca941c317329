"""Graphs of networkx and of PyTorch Geometric, and what else in memory can be graphs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from likelify.data.graphs import GraphItems, batch_of
from likelify.data.source import Batch
from likelify.data.table_files import as_classes
from likelify.data.values import class_labels, plain_array
from likelify.errors import DataError, unknown_words

if TYPE_CHECKING:
    import networkx
    import torch_geometric.data

# Of the names of attributes, how many an error lists.
NAMED = 20
REAL = (float, np.floating)


@dataclass
class Forms:
    """How graphs of others are read.

    Attributes:
        features: names of the attributes of nodes that are features, in their order; None for what is usual.
        drop: names of attributes that are none.
        weight: name of the attribute of edges that is their weight, used if they have it; None for no weights.
        label: name of the attribute of graphs that is their class, used if they have it; None for no classes.
    """

    features: Sequence[str] | None = None
    drop: Sequence[str] = ()
    weight: str | None = None
    label: str | None = None


@dataclass
class Found:
    """Graphs that were read.

    Attributes:
        items: the graphs.
        columns: names of the features of nodes, or None.
        class_names: what the classes are called, or None.
        said: what was decided, for descriptions.
    """

    items: GraphItems
    columns: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None
    said: list[str] = field(default_factory=list)


def from_networkx(
    graphs: networkx.Graph | Iterable[networkx.Graph],
    *,
    features: str | Sequence[str] | None = None,
    weight: str | None = "weight",
    label: str | None = "label",
    class_names: Sequence[str] | None = None,
) -> Batch:
    """Return graphs of networkx as a batch: features of the nodes, and the `GraphBatch` that they belong to.

    Nodes are numbered in the order that a graph gives them in; what they are called is left behind.

    Args:
        graphs: undirected and without parallel edges; one or several.
        features: attributes of the nodes, numbers or vectors of numbers, put side by side in this order; or one name.
            By default all that are real numbers; `()` for none, `x` is then `(nodes, 0)`.
        weight: attribute of the edges that is their weight, if they have it; None for no weights.
        label: entry of `graph.graph` that is the class of a graph, if they have it; words are numbered in the order of
            the alphabet. None for no labels.
        class_names: what classes 0, 1, ... are called; by default those that these graphs have, in their order. For
            labels of a run take its own, `run.config.data.class_names`: fewer graphs may have fewer classes.

    Raises:
        DataError: if a graph is of none of the classes, is directed or has parallel edges, or attributes are missing or
            are no numbers; the message says what to do.

    Example:
        >>> import networkx as nx
        >>> ring = nx.cycle_graph(5)
        >>> nx.set_node_attributes(ring, {node: 0.5 * node for node in ring}, "height")
        >>> batch = from_networkx([ring, ring])
        >>> batch.x.shape, batch.structure.sizes, batch.structure.edge_index.shape
        (torch.Size([10, 1]), tensor([5, 5]), torch.Size([2, 20]))
    """
    several: list[Any] = [graphs] if _is_networkx(graphs) else list(graphs)
    if strange := [graph for graph in several if not _is_networkx(graph)]:
        raise DataError(f"These are no graphs of networkx: one of them is a {type(strange[0]).__name__}.")
    found = _of_networkx(several, Forms(_listed(features), (), weight, label))
    items = found.items
    if class_names is not None and items.labels is not None:
        items = _labelled(items, _renumbered(items.labels, found.class_names, class_names))
    return batch_of(items)


def _listed(features: str | Sequence[str] | None) -> Sequence[str] | None:
    return [features] if isinstance(features, str) else features


def _renumbered(labels: np.ndarray, names: Sequence[str] | None, class_names: Sequence[str]) -> np.ndarray:
    """Return classes by the numbers that their names have in a list of all.

    Raises:
        DataError: if there is one without a name in it.
    """
    own = list(map(str, range(int(labels.max()) + 1) if names is None else names))
    known = {name: number for number, name in enumerate(map(str, class_names))}
    if strange := [name for name in own if name not in known]:
        raise DataError(unknown_words("class of graphs", strange, list(known), most=NAMED))
    return np.array([known[name] for name in own], dtype=np.int64)[labels]


def from_pyg(
    data: torch_geometric.data.Data | Iterable[torch_geometric.data.Data],
    *,
    features: str | Sequence[str] | None = None,
) -> Batch:
    """Return graphs of PyTorch Geometric as a batch: features of the nodes, and the `GraphBatch` that they belong to.

    Weights of edges are those of `edge_weight`. Classes are those of `y`, if it is one whole number for each graph.
    Graphs without an `edge_index`, such as point clouds, are complete. What else the data hold is left behind.

    Args:
        data: a `Data`, a `Batch`, or several `Data`; undirected.
        features: attributes `(nodes, k)` that are put side by side, or one; by default `x`, or `pos` where there is
            none.

    Raises:
        DataError: if a graph is directed, or attributes are missing or are no real numbers.
    """
    # A HeteroData has no way to be gone through, and is refused below.
    given: Any = data
    several = [given] if is_pyg(given) or hasattr(given, "to_homogeneous") else list(given)
    if strange := [graph for graph in several if not is_pyg(graph)]:
        raise DataError(f"This is no graph of PyTorch Geometric: {_called(strange[0])}.")
    if not several:
        raise DataError("There are no graphs.")
    return batch_of(_of_pyg(several, Forms(_listed(features))).items)


def graphs_in(data: Any, forms: Forms, labels: Any = None) -> Found | None:
    """Return what is a graph, or several, in whatever form; None if it is something else.

    Args:
        data: `GraphItems`, a batch of a source of graphs, graphs of networkx or of PyTorch Geometric.
        forms: how the last two are read.
        labels: classes of the graphs, if they are given beside them.
    """
    found = _found(data, forms)
    if found is not None and labels is not None:
        count = len(found.items.sizes)
        found = Found(_labelled(found.items, class_labels(labels, count)), found.columns, None, found.said)
    return found


def _found(data: Any, forms: Forms) -> Found | None:
    if isinstance(data, GraphItems):
        return Found(data)
    if isinstance(data, Batch) and data.structure is not None:
        return Found(GraphItems.of([data]))
    several = list(data) if isinstance(data, list | tuple) else [data]
    if several and all(map(_is_networkx, several)):
        return _of_networkx(several, forms)
    if several and all(map(is_pyg, several)):
        return _of_pyg(several, forms)
    if several and any(_is_networkx(one) or is_pyg(one) for one in several):
        raise DataError("Only some of these are graphs. Give a list of graphs, all of networkx or all of one library.")
    return None


def point_sets(data: Any) -> GraphItems:
    """Return sets of points as complete graphs: an array `(graphs, nodes, features)`, or a list of `(nodes, features)`.

    Raises:
        DataError: if it is something else.
    """
    if isinstance(data, list | tuple):
        parts = [plain_array(part, f"Point set {number}") for number, part in enumerate(data)]
        shapes = {part.shape[1:] for part in parts}
        if not parts or any(part.ndim < 2 for part in parts) or len(shapes) > 1:
            raise DataError("A list of point sets holds one array (nodes, features) for each, of the same features.")
        return GraphItems(np.concatenate(parts), [len(part) for part in parts])
    array = plain_array(data, "The data")
    if array.ndim < 3 or not array.shape[1]:
        raise DataError(
            f"Graphs in one array are (graphs, nodes, features), got {array.shape}. Graphs of different sizes are "
            "lk.data.GraphItems(x, sizes), or a list of arrays."
        )
    return GraphItems(array.reshape(-1, *array.shape[2:]), np.full(len(array), array.shape[1]))


def _labelled(items: GraphItems, labels: np.ndarray) -> GraphItems:
    return GraphItems(items.x, items.sizes, items.edges, items.edge_weight, labels, items.names)


def _class_of(module: str, name: str) -> tuple[Any, ...]:
    """Return a class of a module as `isinstance` takes it, none if it was not imported: nothing is of it then."""
    found = sys.modules.get(module)
    return () if found is None else (getattr(found, name),)


def _is_networkx(graph: Any) -> bool:
    return isinstance(graph, _class_of("networkx", "Graph"))


def is_pyg(graph: Any) -> bool:
    """Tell whether something is a graph of PyTorch Geometric."""
    return isinstance(graph, _class_of("torch_geometric.data", "Data"))


def _called(thing: Any) -> str:
    name = type(thing).__name__
    hint = " (graphs of several kinds of nodes: take one kind, data.to_homogeneous())" if "Hetero" in name else ""
    return f"a {name}{hint}"


def _of_networkx(graphs: Sequence[Any], forms: Forms) -> Found:
    for number, graph in enumerate(graphs):
        if graph.is_directed():
            raise DataError(
                f"Graph {number} is directed; models here are of undirected graphs. graph.to_undirected() leaves the "
                "directions out."
            )
        if graph.is_multigraph():
            raise DataError(
                f"Graph {number} can have several edges between two nodes. nx.Graph(graph) keeps one of each."
            )
    names, said = _features(graphs, forms)
    columns, x = _node_values(graphs, names)
    edges, weight = _networkx_edges(graphs, forms.weight)
    items = GraphItems(x, np.array([len(graph) for graph in graphs], dtype=np.int64), edges, weight)
    labels = _shared([graph.graph for graph in graphs], forms.label, "label", "graph")
    if labels is None:
        return Found(items, columns or None, None, said)
    classes, class_names = as_classes(labels, f"graph.graph['{forms.label}']")
    return Found(_labelled(items, classes), columns or None, class_names, said)


def _features(graphs: Sequence[Any], forms: Forms) -> tuple[list[str], list[str]]:
    """Return the attributes that are features, and what is left out."""
    first: dict[Any, Any] = {}
    for graph in graphs:
        for _, attributes in graph.nodes(data=True):
            # An attribute is a feature if it is a real number anywhere: 0 and None may stand where there is none.
            first |= {name: value for name, value in attributes.items() if name not in first or _is_real(value)}
    if absent := [name for name in [*(forms.features or ()), *forms.drop] if name not in first]:
        raise DataError(unknown_words("attribute of nodes", absent, sorted(map(str, first)), most=NAMED))
    if forms.features is not None:
        return [name for name in forms.features if name not in forms.drop], []
    names = [name for name, value in first.items() if name not in forms.drop and _is_real(value)]
    others = [str(name) for name in first if name not in names]
    return names, [f"without {', '.join(map(repr, others[:NAMED]))} of the nodes"] if others else []


def _is_real(value: Any) -> bool:
    """Tell whether a value is a real number or a vector of such; whole numbers are classes or counts."""
    if isinstance(value, REAL):
        return True
    try:
        array = np.asarray(_bare(value))
    except ValueError:
        # Lists of several lengths.
        return False
    return array.dtype.kind == "f" and array.ndim <= 1 and array.size > 0


def _bare(value: Any) -> Any:
    """Return a tensor as an array, whatever its dtype; anything else as it is."""
    if not hasattr(value, "detach"):
        return value
    plain = value.detach().cpu()
    # NumPy has no bfloat16.
    return (plain.double() if plain.is_floating_point() else plain).numpy()


def _node_values(graphs: Sequence[Any], names: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names of the columns and the values `(nodes, columns)`."""
    columns: list[str] = []
    parts = [np.empty((sum(map(len, graphs)), 0))]
    for name in names:
        rows = []
        for number, graph in enumerate(graphs):
            for node, attributes in graph.nodes(data=True):
                if name not in attributes:
                    raise DataError(f"Node {node!r} of graph {number} has no attribute '{name}', and other nodes have.")
                rows.append(_bare(attributes[name]))
        try:
            values = np.asarray(rows)
        except ValueError:
            raise DataError(f"The attribute '{name}' is of different lengths for different nodes.") from None
        if values.dtype.kind != "f" or values.ndim > 2:
            raise DataError(
                f"The attribute '{name}' holds {_held(values)}, such as {str(rows[0])[:40]!r}; features of nodes are "
                "real numbers. Measurements that happen to be whole are given as float(value); choose others with "
                "features= (columns= where data become a source)."
            )
        columns += [name] if values.ndim == 1 else [f"{name}_{place + 1}" for place in range(values.shape[1])]
        parts.append(values.reshape(len(rows), -1))
    return tuple(map(str, columns)), np.concatenate(parts, 1)


def _held(values: np.ndarray) -> str:
    return {"i": "whole numbers", "u": "whole numbers", "b": "truth values", "f": "arrays"}.get(
        values.dtype.kind, "words or other things"
    )


def _networkx_edges(graphs: Sequence[Any], weight: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    ends, attributes, first = [], [], 0
    for graph in graphs:
        places = {node: first + place for place, node in enumerate(graph)}
        for start, end, values in graph.edges(data=True):
            ends.append((places[start], places[end]))
            attributes.append(values)
        first += len(graph)
    once = np.array(ends, dtype=np.int64).reshape(-1, 2).T
    weights = _shared(attributes, weight, "weight", "edge")
    try:
        return both_ways(once, None if weights is None else np.array(weights, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"Weights of edges are numbers, and some '{weight}' are something else ({error}). Leave them out: "
            "weight=None."
        ) from error


def both_ways(once: np.ndarray, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Return edges that are there once in both directions, `(2, E)`, those from a node to itself still once."""
    back = once[:, once[0] != once[1]][::-1]
    edges = np.concatenate([once, back], 1)
    return edges, None if weight is None else np.concatenate([weight, weight[once[0] != once[1]]])


def _shared(parts: Sequence[dict[str, Any]], name: str | None, usual: str, what: str) -> list[Any] | None:
    """Return the values of an attribute that all have; None if none has it, unless it is asked for by its own name."""
    if name is None:
        return None
    having = [name in attributes for attributes in parts]
    if all(having) and having:
        return [attributes[name] for attributes in parts]
    if any(having) or name != usual:
        raise DataError(
            f"{what.capitalize()} {having.index(False) if having else 0} has no '{name}'"
            f"{', and others have' if any(having) else ''}. Give it to all, or leave it out: {usual}=None."
        )
    return None


def _of_pyg(graphs: Sequence[Any], forms: Forms) -> Found:
    several = [
        part for graph in graphs for part in (graph.to_data_list() if hasattr(graph, "to_data_list") else [graph])
    ]
    names = forms.features
    if names is None:
        usual = [name for name in ("x", "pos") if name not in forms.drop]
        names = [name for name in usual if any(data.get(name) is not None for data in several)][:1]
    parts = []
    for name in names:
        values = [_pyg_value(data, name, number) for number, data in enumerate(several)]
        parts.append(np.concatenate(values))
    if None in (counts := [data.num_nodes for data in several]):
        raise DataError(f"Graph {counts.index(None)} does not say how many nodes it has: set num_nodes.")
    sizes = np.array(counts, dtype=np.int64)
    x = np.concatenate(parts, 1) if parts else np.empty((int(sizes.sum()), 0))
    edges, weight = _pyg_edges(several, sizes)
    labels, said = _pyg_labels(several), [f"features {', '.join(names)}"]
    kept = {*names, "edge_index", "edge_weight", *(("y",) if labels is not None else ()), "batch", "ptr", "num_nodes"}
    others = [str(name) for name in several[0].keys() if name not in kept]  # noqa: SIM118 - no mapping
    said += [f"without {', '.join(map(repr, others[:NAMED]))}"] if others else []
    # Tensors have no names for their columns, which go by their order.
    return Found(GraphItems(x, sizes, edges, weight, labels), None, None, said)


def _pyg_value(data: Any, name: str, number: int) -> np.ndarray:
    value = data.get(name)
    if value is None:
        raise DataError(f"Graph {number} has no '{name}'; it has {', '.join(map(str, data.keys()))}.")
    values = plain_array(value, f"'{name}' of graph {number}")
    values = values[:, None] if values.ndim == 1 else values
    if values.dtype.kind != "f" or values.ndim != 2 or len(values) != data.num_nodes:
        raise DataError(
            f"'{name}' of graph {number} is {values.dtype} of shape {values.shape}; features are real numbers (nodes, "
            f"k), here of {data.num_nodes} nodes. Choose others with features= (columns= where data become a source)."
        )
    return values


def _pyg_edges(several: Sequence[Any], sizes: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    having = [data.get("edge_index") is not None for data in several]
    for number, data in enumerate(several):
        sparse = next((name for name in ("adj_t", "adj") if data.get(name) is not None), None)
        if sparse is not None and not having[number]:
            raise DataError(
                f"Graph {number} has its edges in '{sparse}', as a sparse matrix. Give them as edge_index: leave the "
                "transform ToSparseTensor out."
            )
    if not any(having):
        return None, None
    if not all(having):
        raise DataError(f"Graph {having.index(False)} has no edge_index, and others have. Give one to all, or to none.")
    from torch_geometric.utils import is_undirected

    for number, data in enumerate(several):
        if not is_undirected(data.edge_index, data.get("edge_weight"), num_nodes=data.num_nodes):
            raise DataError(
                f"Graph {number} is directed: some edges have no opposite of the same weight. Models here are of "
                "undirected graphs; torch_geometric.transforms.ToUndirected() adds the opposites."
            )
    starts = np.cumsum(sizes) - sizes
    edges = [plain_array(data.edge_index, "edge_index") + first for data, first in zip(several, starts, strict=True)]
    weights = [data.get("edge_weight") for data in several]
    if all(weight is None for weight in weights):
        return np.concatenate(edges, 1), None
    if any(weight is None for weight in weights):
        raise DataError("Some graphs have an edge_weight and others none. Give one to all, or to none.")
    return np.concatenate(edges, 1), np.concatenate([plain_array(weight, "edge_weight") for weight in weights])


def _pyg_labels(several: Sequence[Any]) -> np.ndarray | None:
    """Return the classes of graphs, or None where `y` is something else: a target, or one for each node."""
    values = [data.get("y") for data in several]
    without = [value is None for value in values]
    if any(without):
        if not all(without):
            raise DataError(f"Graph {without.index(True)} has no y, and others have. Give one to all, or to none.")
        return None
    arrays = [plain_array(value, "y") for value in values]
    if any(array.size != 1 or array.dtype.kind not in "iub" for array in arrays):
        return None
    return np.array([array.reshape(()) for array in arrays])
