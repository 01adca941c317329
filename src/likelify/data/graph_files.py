"""Graphs in files: a table of nodes, perhaps with one of edges beside it, and archives of arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from likelify.data.catalog import TABLE_ENDINGS
from likelify.data.formats import frame_of, open_frame
from likelify.data.frames import Frame
from likelify.data.graph_forms import Found, point_sets
from likelify.data.graphs import GraphItems, GraphSource, graph_source
from likelify.data.node_tables import counted, mended, read_nodes
from likelify.data.npy import map_array
from likelify.data.npz import read_members
from likelify.data.options import OF_COLUMNS, SourceOptions
from likelify.errors import DataError

# What the arrays of an archive are called, the first that is there.
ARRAYS = {
    "x": ("x",),
    "sizes": ("sizes",),
    "edges": ("edge_index", "edges"),
    "weights": ("edge_weight", "edge_weights"),
    "labels": ("labels", "y"),
}
# Of these there may be none in graphs that can have some.
NONE = (*ARRAYS["edges"], *ARRAYS["weights"])


def graph_file(path: str | Path, options: SourceOptions | None = None) -> GraphSource:
    """Make a source of graphs in a file of the user.

    A table of nodes has a row for each node: the graph that it belongs to, what the node is called, its features.
    Nodes keep the order of their rows, graphs that of their first nodes; the rows of a graph need not be consecutive.
    Edges are in a table of their own: the graph, from, to and perhaps a weight. They are undirected, and stand there
    once or in both directions. Without edges every graph is complete: a set of points.

    The graphs are cut by `shuffled`: the last tenth tests, the tenth before it validates.

    Args:
        path: a table, or an archive `.npz` with `x` and `sizes`, see `archived`, or an array `.npy` of point sets
            `(graphs, nodes, features)`.
        options: `graphs` names the column of the graph, by default `graph` or `graph_id`; `edges` the file of the
            edges, by default that beside it (`nodes.edges.parquet` of `nodes.parquet`), if it is there; `labels` the
            column of the class of a graph; `columns` and `drop` say which others are features.

    Raises:
        DataError: if something is missing or does not fit: the message says all that is wrong, and what to do.
    """
    path, options = Path(path), options or SourceOptions()
    found = read_graphs(path, options)
    known = {"columns": found.columns, "class_names": found.class_names}
    said = f"the file {path.name}; {'; '.join(found.said)}"
    return graph_source(found.items, name=f"graphs:{path.resolve()}", description=said, **known)


def read_graphs(path: Path, options: SourceOptions) -> Found:
    """Read all graphs of a file, see `graph_file`."""
    if not path.is_file():
        raise DataError(f"There is no file '{path}'.")
    if path.suffix.lower() == ".npz":
        return _named(archived(path), options)
    if path.suffix.lower() == ".npy":
        _refuse_idle(options, f"'{path}' is an array of point sets")
        items = point_sets(np.array(map_array(path).values))
        return Found(items, None, None, [counted(items, "no edges, so every graph is complete")])
    if not path.name.lower().endswith(TABLE_ENDINGS):
        raise DataError(
            f"'{path}' holds no graphs that can be read: tables of nodes end in {', '.join(TABLE_ENDINGS[:-1])}, "
            "archives in .npz."
        )
    return framed_graphs(open_frame(path), options.edges or beside(path), options)


def framed_graphs(nodes: Frame, edges: Any, options: SourceOptions) -> Found:
    """Read graphs from a table of nodes, and one of edges: a path, a data frame, or None for complete graphs.

    Raises:
        DataError: saying all that is wrong with either.
    """
    frame = open_frame(Path(edges)) if isinstance(edges, str | Path) else None if edges is None else frame_of(edges)
    if edges is not None and frame is None:
        raise DataError(f"Edges are a data frame or the path of a file, not a {type(edges).__name__}.")
    return read_nodes(nodes, frame, options)


def beside(path: Path) -> Path | None:
    """Return the file of edges beside a table of nodes, `nodes.edges.csv` of `nodes.csv`; None if there is none."""
    longest = sorted(TABLE_ENDINGS, key=len, reverse=True)
    at = -len(next(ending for ending in longest if path.name.lower().endswith(ending)))
    found = path.with_name(f"{path.name[:at]}.edges{path.name[at:]}")
    return found if found.is_file() else None


def _refuse_idle(options: SourceOptions, what: str) -> None:
    if idle := options.idle(("graphs", "edges", *OF_COLUMNS)):
        raise DataError(f"{what}, so {' and '.join(idle)} have no effect: leave them out.")


def archived(path: Path) -> GraphItems:
    """Read an archive of arrays, as `run.sample` writes it.

    `x` `(nodes, features)` and `sizes` `(graphs,)`; `edge_index` `(2, E)`, numbered through all nodes, each edge once
    or in both directions, without which graphs are complete; `edge_weight` `(E,)`; `labels` `(graphs,)`.

    Raises:
        DataError: if it is damaged, or lacks one of the first two.
    """
    names = [name for names in ARRAYS.values() for name in names]
    read = {name: np.array(array.values) for name, array in read_members(path, names, NONE).items()}
    found = {role: next((read[name] for name in names if name in read), None) for role, names in ARRAYS.items()}
    if found["x"] is None or found["sizes"] is None:
        raise DataError(f"'{path}' has no arrays x and sizes, which an archive of graphs has; see docs/data.md.")
    if found["x"].ndim != 2:
        raise DataError(
            f"'{path}' has an x of shape {found['x'].shape}; features of nodes are (nodes, features). Reshape it: "
            "x.reshape(len(x), -1)."
        )
    edges, weight = found["edges"], found["weights"]
    if edges is not None and edges.ndim == 2 and len(edges) == 2 and edges.dtype.kind in "iu":
        edges, weight, faults = mended(edges.astype(np.int64), weight)
        if faults:
            raise DataError(f"'{path}': {' '.join(faults)}")
    return GraphItems(found["x"], found["sizes"], edges, weight, found["labels"])


def is_archive(path: Path) -> bool:
    """Tell whether an archive holds graphs: it has an array `sizes` beside `x`."""
    return {"x", "sizes"} <= read_members(path, ("x", "sizes")).keys()


def _named(items: GraphItems, options: SourceOptions) -> Found:
    _refuse_idle(options, "An archive of graphs says by itself what is what")
    return Found(items, None, None, [counted(items, "complete" if items.edges is None else "edges of edge_index")])
