"""Drawn graphs as files: a table of nodes with a table of edges beside it, arrays, or a picture."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from likelify.data import Batch, Facts
from likelify.data.arrow import pyarrow
from likelify.data.table_files import LABEL_COLUMN
from likelify.fitting.drawing.formats import free_name
from likelify.fitting.files import beside, give_name, refuse_taken, write_atomically
from likelify.fitting.structures import feature_names, joined_batches
from likelify.fitting.table_files import write_tables
from likelify.plots.files import png_of, svg_of
from likelify.plots.graphs import View, graph_panels, graphs_of

if TYPE_CHECKING:
    import pyarrow as pa

GRAPH, NODE, START, END, WEIGHT, LABEL = "graph", "node", "source", "target", "weight", LABEL_COLUMN


def edges_file(file: Path) -> Path:
    """Return where the edges of graphs go whose nodes are in a file: `drawn.edges.csv` beside `drawn.csv`."""
    return file.with_name(f"{file.stem}.edges{file.suffix}")


def write_graph_tables(file: Path, facts: Facts, batches: Iterable[Batch], *, force: bool) -> None:
    """Write nodes as a table, and the edges of graphs that are not complete as another one beside it.

    Columns of nodes: `graph` and `node`, both from 0, the features, and `label` if there are classes; of edges:
    `graph`, `source` and `target`, which are numbers of nodes of that graph, and `weight` if there are any. Both files
    are there in the end, or neither.

    Args:
        file: of the nodes.
        facts: of the data.
        batches: of graphs, written as they come.
        force: replace files that exist.

    Raises:
        ConfigError: if a file exists.
        RunError: if one cannot be written.
    """
    ending, iterator = file.suffix.lower(), iter(batches)
    first = next(iterator)
    has_edges, beside_it = not (first.structure is None or first.structure.is_complete), edges_file(file)
    if not (has_edges or force) and beside_it.exists():
        # It would be taken for the edges of these graphs.
        refuse_taken(beside_it)
    with beside(file) as nodes, beside(beside_it) as edges, beside(beside_it) as spool:
        whole = chain([first], iterator)
        if has_edges:
            with pyarrow().ipc.new_file(str(spool), edge_table(first).schema) as writer:
                _write_nodes(nodes, ending, whole, facts, writer)
            with pyarrow().ipc.open_file(str(spool)) as reader:
                parts = (reader.get_batch(number) for number in range(reader.num_record_batches))
                write_tables(edges, ending, reader.schema, (pyarrow().Table.from_batches([part]) for part in parts))
            if not give_name(edges, beside_it, force=force):
                refuse_taken(beside_it)
        else:
            _write_nodes(nodes, ending, whole, facts, None)
        if not give_name(nodes, file, force=force):
            if has_edges:
                beside_it.unlink(missing_ok=True)
            refuse_taken(file)
    if force and not has_edges:
        # Those of a file that was replaced would be taken for those of this one.
        beside_it.unlink(missing_ok=True)


def _write_nodes(path: Path, ending: str, batches: Iterable[Batch], facts: Facts, edges: Any) -> None:
    """Write the nodes of batch after batch; give their edges to a writer, if there is one, as they come."""

    def tables() -> Iterator[pa.Table]:
        first = 0
        for batch in batches:
            if edges is not None:
                edges.write_table(edge_table(batch, first))
            yield node_table(batch, facts, first)
            first += len(batch)

    found = tables()
    head = next(found)
    write_tables(path, ending, head.schema, chain([head], found))


def node_table(batch: Batch, facts: Facts, first: int = 0) -> pa.Table:
    """Return the nodes of graphs as a table: graph, node, features, and the class of the graph if there is one.

    Args:
        batch: of graphs.
        facts: of the data.
        first: number of the first graph.
    """
    owner, within = _places(batch)
    rows = batch.x.detach().cpu().double().numpy().reshape(len(owner), -1)
    columns: dict[str, Any] = {GRAPH: owner + first, NODE: within}
    own = [GRAPH, NODE] if batch.labels is None else [GRAPH, NODE, LABEL]
    columns |= {name: rows[:, at] for at, name in enumerate(free_names(feature_names(facts), own))}
    if batch.labels is not None:
        classes = batch.labels.cpu().numpy()[owner]
        columns[LABEL] = classes if facts.class_names is None else np.array(facts.class_names)[classes]
    return pyarrow().table(columns)


def free_names(names: Sequence[str], taken: Iterable[str]) -> list[str]:
    """Return names, those that are taken or there before with a number behind that makes them ones of their own.

    Example:
        >>> free_names(["x", "label", "label_2", "x"], ["graph", "label"])
        ['x', 'label_3', 'label_2', 'x_2']
    """
    found = list(taken)
    before = len(found)
    for name in names:
        others = [] if name not in found else names
        found.append(free_name(name, [*found, *others]))
    return found[before:]


def edge_table(batch: Batch, first: int = 0) -> pa.Table:
    """Return the edges of graphs as a table: graph, source and target, numbers of its nodes, and weight if any."""
    owner, within = _places(batch)
    structure = batch.structure
    start, end = np.empty((2, 0), int) if structure is None else structure.edge_index.cpu().numpy()
    columns: dict[str, Any] = {GRAPH: owner[start] + first, START: within[start], END: within[end]}
    if structure is not None and structure.edge_weight is not None:
        columns[WEIGHT] = structure.edge_weight.cpu().double().numpy()
    return pyarrow().table(columns)


def _places(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Return for each node the number of its graph in the batch, and its own in the graph."""
    sizes = np.ones(len(batch), int) if batch.structure is None else batch.structure.sizes.cpu().numpy()
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return owner, np.arange(len(owner)) - (np.cumsum(sizes) - sizes)[owner]


def write_graph_arrays(path: Path, facts: Facts, count: int, batches: Iterable[Batch]) -> None:  # noqa: ARG001 - as all writers are called
    """Write graphs as arrays: `x` of all nodes, `sizes`, and as far as there are such `edge_index` and others.

    `edge_index` `(2, edges)` counts the nodes through all graphs; it is left out where each two nodes are joined.
    """
    batch = joined_batches(list(batches))
    arrays = {"x": batch.x.detach().cpu().double().numpy()}
    if batch.structure is not None:
        arrays["sizes"] = batch.structure.sizes.numpy()
        if not batch.structure.is_complete:
            arrays["edge_index"] = batch.structure.edge_index.numpy()
            weight = batch.structure.edge_weight
            arrays |= {} if weight is None else {"edge_weight": weight.numpy()}
    if batch.labels is not None:
        arrays["labels"] = batch.labels.numpy()
    with zipfile.ZipFile(path, "w") as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as handle:
                np.lib.format.write_array(handle, values, allow_pickle=False)


def write_graph_picture(path: Path, facts: Facts, count: int, batches: Iterable[Batch]) -> None:  # noqa: ARG001 - see above
    """Write graphs as one picture, PNG."""
    path.write_bytes(_picture_of({"": list(batches)}, facts, ".png"))


def write_graph_drawing(path: Path, facts: Facts, count: int, batches: Iterable[Batch]) -> None:  # noqa: ARG001 - see above
    """Write graphs as one picture, SVG."""
    path.write_bytes(_picture_of({"": list(batches)}, facts, ".svg"))


def write_pictures(file: Path, facts: Facts, groups: Mapping[str, Batch]) -> None:
    """Replace a picture by one of several groups of graphs beside one another, seen as the last of them suits."""
    write_atomically(file, _picture_of({title: [batch] for title, batch in groups.items()}, facts, file.suffix.lower()))


def _picture_of(groups: Mapping[str, list[Batch]], facts: Facts, ending: str) -> bytes:
    panels = {
        title: [panel for part in parts if part.structure is not None for panel in graph_panels(part.x, part.structure)]
        for title, parts in groups.items()
    }
    view = View.of(list(panels.values())[-1], feature_names(facts))
    figure = graphs_of(panels, view=view)
    return svg_of(figure) if ending == ".svg" else png_of(figure)
