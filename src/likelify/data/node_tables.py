"""Tables of nodes, and of the edges between them, as graphs: what is what, and all that is wrong, in one message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from likelify.data.faults import Fault, Faults, quoted
from likelify.data.frames import NUMBERS, Frame, chosen_columns
from likelify.data.graph_forms import Found, both_ways
from likelify.data.graphs import GraphItems
from likelify.data.limits import require_values
from likelify.data.options import SourceOptions
from likelify.data.reading import splits_auto
from likelify.data.table_files import GRAPH_COLUMNS, NODE_COLUMNS, as_classes
from likelify.data.values import plain_array
from likelify.errors import DataError, unknown_word

# What columns of a table of edges are called, the first that is there.
FROM_COLUMNS = ("source", "from", "src", "start")
TO_COLUMNS = ("target", "to", "dst", "end")
WEIGHT = "weight"
# Of columns that are left out, how many a description names.
NAMED = 10
# Whole numbers up to this are what they are as floats too.
LARGEST_ID = 2**53


def counted(items: GraphItems, edges: str) -> str:
    """Return how many graphs there are, of how many nodes, and what is said of their edges."""
    sizes = np.asarray(items.sizes)
    nodes = f"{sizes.min()}" if sizes.min() == sizes.max() else f"{sizes.min()} to {sizes.max()}"
    return f"{len(sizes):,} graphs of {nodes} nodes, {edges}"


def read_nodes(nodes: Frame, edges: Frame | None, options: SourceOptions) -> Found:
    """Read graphs from a table of nodes, and one of edges.

    Raises:
        DataError: saying all that is wrong with either.
    """
    table = _Nodes.read(nodes, options, with_edges=edges is not None)
    items, said = table.items(), [f"features {', '.join(table.columns[:NAMED])}", *table.said]
    if edges is None:
        said = [counted(items, "no edges, so every graph is complete"), *said]
        return Found(items, tuple(table.columns), table.class_names, said)
    ends, weight, others = _read_edges(edges, table)
    items = GraphItems(items.x, items.sizes, ends, weight, items.labels, items.names)
    said = [counted(items, f"undirected edges of {edges.name}"), *said]
    said += [f"without {', '.join(map(repr, others[:NAMED]))} of the edges"] if others else []
    return Found(items, tuple(table.columns), table.class_names, said)


@dataclass
class _Nodes:
    """The nodes of a table, in the order of their graphs.

    Attributes:
        name: of the table.
        graphs: for each row of the table the number of its graph.
        graph_ids: what the graphs are called, in their order.
        node_ids: for each row of the table what the node is called, or None.
        order: the rows in the order of their graphs.
        values: features in the order of the table.
        columns: names of the features.
    """

    name: str
    graphs: np.ndarray
    graph_ids: np.ndarray
    node_ids: np.ndarray | None
    order: np.ndarray
    values: np.ndarray
    columns: list[str]
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    said: list[str] = field(default_factory=list)
    graph_column: str = "graph"

    @classmethod
    def read(cls, frame: Frame, options: SourceOptions, *, with_edges: bool) -> _Nodes:
        """Read a table of nodes, or refuse it with all that is wrong."""
        frame.missing = options.missing or ()
        graph = _found_column(frame, options.graphs, GRAPH_COLUMNS, "--graphs", "the graph that a node belongs to")
        node = next((name for name in NODE_COLUMNS if name in _names(frame)), None)
        faults, wrong = Faults(frame.name), []
        if with_edges and node is None:
            wrong.append(f"it needs a column '{NODE_COLUMNS[0]}' that names the nodes, which edges join.")
        told, (drop, auto) = options.told, splits_auto(frame, options.drop or ())
        no_features = {graph, node, options.labels, *drop}
        others = [*drop, *told, *([options.labels] if options.labels else [])]
        columns = [name for name in chosen_columns(frame, options.kept, others) if name not in no_features]
        _note_kinds(frame, columns, faults, [*(options.kept or ()), *told])
        if auto:
            drop += [name for name, fault in faults.columns.items() if fault.remedy == "drop"]
            columns = [name for name in columns if name not in drop]
            faults.columns = {name: fault for name, fault in faults.columns.items() if name not in drop}
        numbers = [name for name in columns if name not in faults.columns]
        ids = [name for name in (graph, node, options.labels) if name]
        values, carried = _read(frame, numbers, ids, faults, wrong)
        if not len(values):
            raise DataError(f"{frame.name} has no rows.")
        made = cls(frame.name, *_numbered(carried[graph]), carried.get(node or ""), np.empty(0), values, columns)
        made.order = np.argsort(made.graphs, kind="stable")
        made.graph_column = graph
        wrong += made._double_nodes(frame)
        if options.labels:
            wrong += made._label(frame, carried[options.labels], options.labels)
        wrong += [] if columns else ["it has no columns left that are features of the nodes."]
        _refuse(frame, wrong, faults, options, columns)
        left = [name for name in _names(frame) if options.kept and name not in {*columns, *ids, *drop}]
        left = [*drop, *left]
        made.said += [f"without {', '.join(map(repr, left[:NAMED]))}"] if left else []
        return made

    def items(self) -> GraphItems:
        """Return them as graphs without edges."""
        sizes = np.bincount(self.graphs, minlength=len(self.graph_ids))
        names = [str(name) for name in self.graph_ids.tolist()]
        return GraphItems(self.values[self.order], sizes, labels=self.labels, names=names)

    def _double_nodes(self, frame: Frame) -> list[str]:
        """Return what is said of nodes that are called as others of their graph."""
        if self.node_ids is None:
            return []
        _, codes = np.unique(self.node_ids, return_inverse=True)
        keys = self.graphs * (int(codes.max(initial=0)) + 1) + codes
        order = np.argsort(keys, kind="stable")
        double = order[1:][np.diff(keys[order]) == 0]
        if not len(double):
            return []
        row = int(double.min())
        what = f"node {self.node_ids[row]!s} of graph {self.graph_ids[self.graphs[row]]!s} is there more than once"
        return [f"{frame.place(row)}: {what}{_first_of(len(double))}."]

    def _label(self, frame: Frame, labels: np.ndarray, column: str) -> list[str]:
        """Take the class of each graph, which all of its nodes have to say; return what is wrong."""
        try:
            classes, names = as_classes(labels.tolist(), f"column '{column}'")
        except DataError as error:
            return [str(error)]
        first = np.full(len(self.graph_ids), -1)
        first[self.graphs[::-1]] = classes[::-1]
        other = np.flatnonzero(classes != first[self.graphs])
        if len(other):
            row = int(other[0])
            graph = self.graph_ids[self.graphs[row]]
            return [
                f"{frame.place(row)}, column '{column}': the label is {labels[row]!s}, and another at the first node "
                f"of graph {graph!s}{_first_of(len(other))}. A label is one for each graph."
            ]
        self.labels, self.class_names = first, names
        self.said.append(f"classes in '{column}'{': ' + ', '.join(names[:NAMED]) if names else ''}")
        return []


def _first_of(count: int) -> str:
    return f" (one of {count:,})" if count > 1 else ""


def _refuse(
    frame: Frame,
    wrong: Sequence[str],
    faults: Faults | None = None,
    options: SourceOptions | None = None,
    columns: Sequence[str] = (),
) -> None:
    """Refuse a table with all that is wrong with it: with its columns, and beside that."""
    beside = f" {' '.join(wrong)}" if wrong else ""
    for fault in () if faults is None else faults.columns.values():
        # Graphs have no missing values, so no word can stand for one.
        fault.cells = ()
    try:
        (faults or Faults(frame.name)).refuse(options, columns)
    except DataError as error:
        raise DataError(f"{error}{beside}") from None
    if wrong:
        raise DataError(f"{frame.name}:{beside}")


def _names(frame: Frame) -> list[str]:
    return [column.name for column in frame.columns]


def _found_column(frame: Frame, said: str | None, usual: Sequence[str], word: str, what: str) -> str:
    """Return the column that was named, or the first of the usual names that is there."""
    known = _names(frame)
    if said is not None:
        if said not in known:
            raise DataError(f"{frame.name}: {unknown_word('column', said, known)}")
        return said
    for name in usual:
        if name in known:
            return name
    raise DataError(
        f"{frame.name} has no column {' or '.join(map(repr, usual))}, which says {what}. Name the one that does: "
        f"{word} COLUMN. Its columns are {', '.join(known[:20])}."
    )


def _note_kinds(frame: Frame, columns: Sequence[str], faults: Faults, named: Sequence[str]) -> None:
    """Note columns that are no features: words and dates, and whole numbers that nobody has called measurements."""
    for name in columns:
        column = frame.column(name)
        if column.type not in NUMBERS or column.text:
            what = "dates" if column.type == "date" else "words"
            said = (
                f"it holds {what}; features of nodes are real numbers (--labels '{name}' if it is the class of a graph)"
            )
            faults.add(name, Fault(said, remedy="drop"))
        elif column.type != "real" and name not in named:
            what = "truth values" if column.type == "boolean" else "whole numbers"
            said = f"it holds {what}, of which there is no density; '{quoted(name)}=real' takes them for measurements"
            faults.add(name, Fault(said, remedy="columns", wish="real"))


def _read(
    frame: Frame, numbers: Sequence[str], ids: Sequence[str], faults: Faults, wrong: list[str]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Read columns of numbers `(rows, columns)`, and those of ids, whole numbers or words; note what is wrong."""
    require_values(frame.name, (frame.count or 0) * (len(numbers) + len(ids)))
    whole = [name for name in ids if frame.column(name).type == "integer" and not frame.column(name).text]
    words = [name for name in ids if name not in whole]
    values, carried = [], {name: [] for name in words}
    for rows in frame.rows([*numbers, *whole], words, faults=faults):
        values.append(frame.present(rows.values, [*numbers, *whole]))
        for name in words:
            carried[name] += rows.carried[name]
    table = np.concatenate([np.empty((0, len(numbers) + len(whole))), *values])
    faults.rows = len(table)
    _note_missing(frame, table[:, : len(numbers)], numbers, faults)
    found = {}
    for place, name in enumerate(whole, len(numbers)):
        wrong += _missing_ids(frame, name, np.flatnonzero(np.isnan(table[:, place])))
        numbers_of = np.nan_to_num(table[:, place])
        large = bool((np.abs(numbers_of) >= LARGEST_ID).any())
        found[name] = _exact(frame, name) if large else numbers_of.astype(np.int64)
    for name in words:
        absent = [row for row, value in enumerate(carried[name]) if value is None or value == ""]
        wrong += _missing_ids(frame, name, np.array(absent, dtype=np.int64))
        found[name] = np.array([_word(value) for value in carried[name]], dtype=object)
    return table[:, : len(numbers)], found


def _exact(frame: Frame, name: str) -> np.ndarray:
    """Return ids that are too large to be what they are as floats: whole numbers, or words where these are larger."""
    ids = [0 if value is None else int(value) for rows in frame.rows([], [name]) for value in rows.carried[name]]
    fits = all(-(2**63) <= value < 2**63 for value in ids)
    return np.array(ids, dtype=np.int64) if fits else np.array(list(map(str, ids)), dtype=object)


def _missing_ids(frame: Frame, name: str, rows: np.ndarray) -> list[str]:
    if not len(rows):
        return []
    return [f"{frame.place(int(rows[0]))}, column '{name}': the value is missing{_first_of(len(rows))}."]


def _note_missing(frame: Frame, table: np.ndarray, names: Sequence[str], faults: Faults) -> None:
    missing = np.isnan(table)
    for place, name in enumerate(names):
        rows = np.flatnonzero(missing[:, place])
        # What is no number was noted when it was read.
        if len(rows) and name not in faults.columns:
            said = "the value is missing, and graphs have no missing values"
            faults.add(name, Fault(said, frame.place(int(rows[0])), len(rows)))


def _word(value: Any) -> str:
    """Return an id as a word; whole numbers that were read as real ones without their zeros."""
    if isinstance(value, float) and value.is_integer() and abs(value) < LARGEST_ID:
        return str(int(value))
    return str(value)


def _numbered(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number ids in the order in which they come first; return the numbers and the ids."""
    known, first, codes = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    place = np.empty(len(known), dtype=np.int64)
    place[order] = np.arange(len(known))
    return place[codes], known[order]


def _read_edges(frame: Frame, nodes: _Nodes) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Return edges in both directions between nodes in the order of their graphs, and columns that are left out."""
    known = _names(frame)
    usual = (nodes.graph_column, *GRAPH_COLUMNS)
    graph = next((name for name in usual if name in known), None)
    start, end = (next((name for name in names if name in known), None) for names in (FROM_COLUMNS, TO_COLUMNS))
    if start is None or end is None:
        lacking = [names for name, names in ((start, FROM_COLUMNS), (end, TO_COLUMNS)) if name is None]
        said = " and none of ".join(f"'{names[0]}' ({', '.join(names[1:])})" for names in lacking)
        raise DataError(
            f"{frame.name} is no table of edges: it has no column {said}. Its columns are {', '.join(known[:20])}; a "
            "table of edges has a row for each: graph, source, target, and perhaps weight."
        )
    faults, wrong = Faults(frame.name), []
    weights = [WEIGHT] if WEIGHT in known else []
    if weights and (frame.column(WEIGHT).type not in NUMBERS or frame.column(WEIGHT).text):
        _refuse(frame, [f"column '{WEIGHT}' holds no numbers."])
    ids = [name for name in (graph, start, end) if name]
    values, carried = _read(frame, weights, ids, faults, wrong)
    if graph is None and len(np.unique(_comparable(nodes.node_ids)[0])) < len(nodes.graphs):
        wrong.append(
            f"it has no column '{nodes.graph_column}', and nodes of different graphs are called the same, so that "
            "edges do not say which they join."
        )
    _refuse(frame, wrong, faults)
    places = _Places(nodes)
    ends = np.stack([places.of(carried[graph] if graph else None, carried[name]) for name in (start, end)])
    _refuse(frame, _strangers(frame, nodes, ends, carried, (graph, start, end)))
    edges, weight, said = mended(ends, values[:, 0] if weights else None, frame.place)
    _refuse(frame, said)
    return edges, weight, [name for name in known if name not in {*ids, *weights}]


def _comparable(*arrays: np.ndarray | None) -> list[np.ndarray]:
    """Return ids of several tables in one form: whole numbers if all are, else words."""
    given = [np.empty(0, dtype=np.int64) if array is None else array for array in arrays]
    if all(array.dtype.kind == "i" for array in given):
        return given
    return [array.astype(str).astype(object) if array.dtype.kind == "i" else array for array in given]


class _Places:
    """Where nodes stand in the order of their graphs, by what they and their graphs are called."""

    def __init__(self, nodes: _Nodes) -> None:
        self.nodes = nodes
        self.rank = np.empty(len(nodes.order), dtype=np.int64)
        self.rank[nodes.order] = np.arange(len(nodes.order))

    def of(self, graphs: np.ndarray | None, names: np.ndarray) -> np.ndarray:
        """Return the places of nodes; -1 where there is no such node, -2 where there is no such graph."""
        known, asked = _comparable(self.nodes.node_ids, names)
        words, own = np.unique(known, return_inverse=True)
        node = _codes(words, asked)
        strange = np.zeros(len(names), dtype=bool)
        if graphs is not None:
            graph_ids, given = _comparable(self.nodes.graph_ids, graphs)
            order = np.argsort(graph_ids, kind="stable")
            found = _codes(graph_ids[order], given)
            strange = found < 0
            own = own + len(words) * self.nodes.graphs
            node = np.where((node < 0) | strange, -1, node + len(words) * order[found])
        order = np.argsort(own, kind="stable")
        found = _codes(own[order], node)
        return np.where(strange, -2, np.where(found < 0, -1, self.rank[order[found]]))


def _codes(known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return where values stand among sorted ones, -1 where they do not."""
    places = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return np.where(known[places] == asked, places, -1)


def _strangers(
    frame: Frame,
    nodes: _Nodes,
    ends: np.ndarray,
    carried: dict[str, np.ndarray],
    columns: tuple[str | None, str, str],
) -> list[str]:
    """Return what is said of edges of graphs, or of nodes, that there are not, and of edges between two graphs."""
    graph, *sides = columns
    wrong = []
    if graph is not None and len(rows := np.flatnonzero(ends[0] == -2)):
        what = f"{nodes.name} has no nodes of graph {carried[graph][rows[0]]!s}"
        wrong.append(f"{frame.place(int(rows[0]))}: {what}{_first_of(len(rows))}.")
    for places, column in zip(ends, sides, strict=True):
        if len(rows := np.flatnonzero(places == -1)):
            where = f" in graph {carried[graph][rows[0]]!s}" if graph else ""
            what = f"{nodes.name} has no node {carried[column][rows[0]]!s}{where}"
            wrong.append(f"{frame.place(int(rows[0]))}, column '{column}': {what}{_first_of(len(rows))}.")
    if wrong or graph is not None:
        return wrong
    owner = nodes.graphs[nodes.order][ends]
    if len(rows := np.flatnonzero(owner[0] != owner[1])):
        wrong.append(f"{frame.place(int(rows[0]))}: the edge joins two graphs{_first_of(len(rows))}.")
    return wrong


def mended(
    edges: np.ndarray, weight: np.ndarray | None, place: Callable[[int], str] = "row {}".format
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Return undirected edges that stand there once or in both directions in both, and what is wrong with them.

    Args:
        edges: `(2, E)`.
        weight: of each, or None.
        place: says where an edge stands, by its number.
    """
    weight = None if weight is None else plain_array(weight, "The weights of the edges").astype(np.float64)
    if weight is not None and weight.shape != edges.shape[1:]:
        return edges, weight, [f"there are {edges.shape[1]} edges and weights of shape {weight.shape}."]
    low, high = edges.min(0), edges.max(0)
    order = np.lexsort((edges[0] > edges[1], high, low))
    same = (np.diff(low[order]) == 0) & (np.diff(high[order]) == 0)
    # In their order, so that the same edges in other rows are the same.
    kept = order[np.concatenate([[True], ~same])] if len(order) else order
    faults = []
    again = order[1:][same & (edges[0][order[1:]] == edges[0][order[:-1]])]
    if len(again):
        faults.append(
            f"{len(again):,} edges are there more than once, such as {place(int(again.min()))}: keep one of each, with "
            "the sum of the weights where that is meant."
        )
    if weight is not None and len(other := order[1:][same & (np.diff(weight[order]) != 0)]):
        faults.append(
            f"{len(other):,} edges weigh differently in their two directions, such as {place(int(other.min()))}."
        )
    ends, weights = both_ways(np.stack([low[kept], high[kept]]), None if weight is None else weight[kept])
    return ends, weights, faults
