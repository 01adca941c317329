"""Graphs in files: tables of nodes and edges, archives, arrays of point sets, and what is said of wrong ones."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from likelify.data import Batch, SourceOptions, as_source, open_items, open_source
from likelify.errors import ConfigError, DataError

SIZES = [3, 1, 4, 2, 3, 3, 2, 1, 4, 3, 2, 2]
# Words, so that they are neither numbers nor in order.
NAMES = [f"g{(7 * number) % 12}" for number in range(12)]


def nodes() -> pd.DataFrame:
    """Return a table of the nodes of twelve graphs, whose rows are not in the order of the graphs."""
    rng = np.random.default_rng(0)
    rows = [
        (NAMES[graph], node, "big" if size > 2 else "small") for graph, size in enumerate(SIZES) for node in range(size)
    ]
    table = pd.DataFrame(rows, columns=["graph", "node", "kind"])
    table["a"], table["b"] = rng.normal(size=(2, len(table)))
    return table.sort_values(["node", "graph"], ascending=[True, False], ignore_index=True)


def edges() -> pd.DataFrame:
    """Return a path through the nodes of each graph, each edge once."""
    rows = [(NAMES[graph], node + 1, node, 1.0 + node) for graph, size in enumerate(SIZES) for node in range(size - 1)]
    return pd.DataFrame(rows, columns=["graph", "source", "target", "weight"])


def written(folder: Path, ending: str, node_table: pd.DataFrame, edge_table: pd.DataFrame | None) -> Path:
    """Write tables to files, and return that of the nodes."""
    for name, table in (("nodes", node_table), ("ends", edge_table)):
        if table is not None:
            file = folder / f"{name}{ending}"
            table.to_csv(file, index=False) if ending == ".csv" else table.to_parquet(file)
    return folder / f"nodes{ending}"


def by_name(batch: Batch, names: list[str]) -> dict[str, tuple[list[list[float]], list[list[float]]]]:
    """Return features and matrix of weights of each graph."""
    graphs = batch.structure
    assert graphs is not None
    weight = torch.ones(graphs.edge_index.shape[1]) if graphs.edge_weight is None else graphs.edge_weight.float()
    matrix = torch.zeros(len(graphs.owner), len(graphs.owner)).index_put_(tuple(graphs.edge_index), weight)
    starts = (graphs.sizes.cumsum(0) - graphs.sizes).tolist()
    parts = [slice(first, first + size) for first, size in zip(starts, graphs.sizes.tolist(), strict=True)]
    return {
        name: (batch.x[part].tolist(), matrix[part, part].tolist()) for name, part in zip(names, parts, strict=True)
    }


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_nodes_and_edges_of_files(tmp_path: Path, ending: str) -> None:
    file = written(tmp_path, ending, nodes(), edges())
    options = SourceOptions(edges=str(tmp_path / f"ends{ending}"), labels="kind")
    source = open_source(file, options)
    facts = source.facts()
    assert (facts.kind, facts.columns, facts.class_names) == ("graph", ("a", "b"), ("big", "small"))
    assert (facts.family, facts.graphs.weighted, facts.graphs.complete) == ("graphs", True, False)
    assert "12 graphs of 1 to 4 nodes, undirected edges of" in facts.description
    assert "10 / 1 / 1 graphs by default_rng(0).permutation" in facts.description
    assert open_source(source.name, options).fingerprint() == source.fingerprint()
    table = nodes()
    for split in ("train", "validation", "test"):
        batch, names = source.read_all(split), source.item_names(split)
        for name, (x, matrix) in by_name(batch, names).items():
            own = table[table.graph == name]
            np.testing.assert_allclose(x, own[["a", "b"]])
            size = len(own)
            path = np.zeros((size, size))
            path[np.arange(size - 1), np.arange(1, size)] = 1.0 + np.arange(size - 1)
            np.testing.assert_allclose(matrix, path + path.T)
        assert [facts.class_names[label] for label in batch.labels] == [
            "big" if SIZES[NAMES.index(name)] > 2 else "small" for name in names
        ]


def test_edges_beside_the_nodes_are_found_and_both_directions_are_the_same(tmp_path: Path) -> None:
    whole = written(tmp_path, ".parquet", nodes(), None)
    options = SourceOptions(graphs="graph", drop=("kind",))
    points = open_source(whole, options)
    assert points.facts().graphs.complete
    assert "no edges, so every graph is complete" in points.description
    edges().to_parquet(tmp_path / "nodes.edges.parquet")
    once = open_source(whole, options)
    back = edges().rename(columns={"source": "target", "target": "source"})
    both = pd.concat([edges(), back.iloc[:4]])
    both.to_parquet(tmp_path / "nodes.edges.parquet")
    assert once.fingerprint() == open_source(whole, options).fingerprint() != points.fingerprint()
    frame = as_source(nodes(), graphs="graph", edges=both, labels="kind")
    assert frame.facts().columns == ("a", "b")
    assert frame.size("train") == 11


def test_edges_need_no_graph_where_nodes_are_called_differently(tmp_path: Path) -> None:
    table, ends = nodes(), edges()
    table["node_id"] = table.graph + "." + table.node.astype(str)
    for side in ("source", "target"):
        ends[side] = ends.graph + "." + ends[side].astype(str)
    file = written(tmp_path, ".csv", table.drop(columns="node"), ends.drop(columns="graph"))
    options = SourceOptions(edges=str(tmp_path / "ends.csv"), drop=("kind",))
    named = open_source(file, options)
    other = written(tmp_path, ".parquet", nodes(), edges())
    plain = SourceOptions(edges=str(tmp_path / "ends.parquet"), drop=("kind",))
    assert named.fingerprint() == open_source(other, plain).fingerprint()


def _without(table: pd.DataFrame, column: str) -> pd.DataFrame:
    return table.drop(columns=column)


def _with(table: pd.DataFrame, row: int, **values: object) -> pd.DataFrame:
    table = table.astype(dict.fromkeys(values, object))
    for name, value in values.items():
        table.loc[row, name] = value
    return table


@pytest.mark.parametrize(
    ("node_table", "edge_table", "options", "said"),
    [
        (_without(nodes(), "graph"), edges(), {}, "no column 'graph' or 'graph_id'.*--graphs COLUMN"),
        (nodes(), edges(), {"graphs": "grpah"}, "no column 'grpah'. Did you mean 'graph'"),
        (nodes(), edges(), {}, "column 'kind': it holds words; features of nodes are real numbers.*--drop 'kind'"),
        (nodes().assign(n=3), edges(), {"drop": ("kind",)}, "column 'n': it holds whole numbers.*--columns 'n=real'"),
        (_without(nodes(), "node"), edges(), {"drop": ("kind",)}, "needs a column 'node' that names the nodes"),
        (_with(nodes(), 12, node=0), edges(), {"drop": ("kind",)}, r"node 0 of graph g\d+ is there more than once"),
        (_with(nodes(), 3, a=np.nan), edges(), {"drop": ("kind",)}, "column 'a': the value is missing"),
        (_with(nodes(), 29, kind="x"), edges(), {"labels": "kind"}, "label is x, and another at the first node of"),
        (nodes()[["graph", "node"]], edges(), {}, "no columns left that are features|no columns"),
        (nodes(), _without(edges(), "target"), {"drop": ("kind",)}, r"no column 'target' \(to, dst, end\)"),
        (nodes(), _with(edges(), 2, graph="gg"), {"drop": ("kind",)}, "has no nodes of graph gg"),
        (nodes(), _with(edges(), 2, source=77), {"drop": ("kind",)}, r"column 'source': .*has no node 77 in graph"),
        (nodes(), pd.concat([edges(), edges()[:2]]), {"drop": ("kind",)}, "2 edges are there more than once"),
        (nodes(), _without(edges(), "graph"), {"drop": ("kind",)}, "no column 'graph', and nodes of different graphs"),
        (nodes(), _with(edges(), 0, weight="x"), {"drop": ("kind",)}, "column 'weight': 'x' is not a number"),
        (nodes(), _with(edges(), 0, weight=-1.0).astype({"weight": float}), {"drop": ("kind",)}, "none below 0"),
    ],
)
def test_what_is_wrong_with_tables_is_said(tmp_path: Path, node_table, edge_table, options, said) -> None:
    file = written(tmp_path, ".csv", node_table, edge_table)
    with pytest.raises(DataError, match=said):
        open_source(file, SourceOptions(edges=str(tmp_path / "ends.csv"), **options))


def test_all_that_is_wrong_is_in_one_message(tmp_path: Path) -> None:
    table = _without(_with(nodes(), 3, a=np.nan), "node").assign(n=3)
    file = written(tmp_path, ".csv", table, edges())
    with pytest.raises(DataError) as refused:
        open_source(file, SourceOptions(edges=str(tmp_path / "ends.csv")))
    for part in ("column 'kind'", "column 'n'", "column 'a'", "needs a column 'node'"):
        assert part in str(refused.value)


def test_a_table_that_looks_like_one_of_nodes_is_asked_about(tmp_path: Path) -> None:
    file = written(tmp_path, ".csv", nodes(), None)
    with pytest.raises(DataError, match="has the columns 'graph' and 'node'.*--graphs graph.*--drop graph,node"):
        open_source(file)
    assert open_source(file, SourceOptions(drop=("graph", "node"))).kind == "table"
    assert open_source(f"graphs:{file}", SourceOptions(drop=("kind",))).kind == "graph"


def test_archives_and_arrays_of_graphs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, sizes = rng.normal(size=(sum(SIZES), 2)), np.array(SIZES)
    np.savez(tmp_path / "points.npz", x=x, sizes=sizes, labels=np.arange(12) % 2)
    source = open_source(tmp_path / "points.npz")
    assert (source.kind, source.classes, source.facts().graphs.complete) == ("graph", 2, True)
    once = np.array([[0, 1, 4], [1, 2, 5]])
    np.savez(tmp_path / "graphs.npz", x=x, sizes=sizes, edge_index=once)
    np.savez(tmp_path / "both.npz", x=x, sizes=sizes, edge_index=np.concatenate([once, once[::-1]], 1))
    assert len({open_source(tmp_path / f"{name}.npz").fingerprint() for name in ("graphs", "both")}) == 1
    np.save(tmp_path / "sets.npy", rng.normal(size=(20, 3, 2)))
    sets = open_source(tmp_path / "sets.npy", SourceOptions(kind="graph"))
    assert sets.facts().graphs.sizes == {3: 16}
    assert open_source(sets.name, SourceOptions(kind="graph")).fingerprint() == sets.fingerprint()
    with pytest.raises(DataError, match="holds graphs, so --labels have no effect"):
        open_source(tmp_path / "points.npz", SourceOptions(labels="kind"))
    np.savez(tmp_path / "wrong.npz", x=x, sizes=sizes[:-1])
    with pytest.raises(DataError, match="sizes add up to"):
        open_source(tmp_path / "wrong.npz")


def test_items_of_files_and_in_memory(tmp_path: Path) -> None:
    file = written(tmp_path, ".csv", nodes(), edges())
    options = SourceOptions(edges=str(tmp_path / "ends.csv"), labels="kind")
    facts = open_source(file, options).facts()
    unlabelled = facts.model_copy(update={"classes": None, "class_names": None})
    more = written(tmp_path, ".parquet", nodes()[["b", "node", "graph", "a"]], edges())
    items = open_items(more, unlabelled, options, edges=tmp_path / "ends.parquet")
    [part, last] = items.batches(8)
    assert len(part) == 8
    assert part.carried["graph"] == list(dict.fromkeys(nodes().graph))[:8]
    first = nodes()[nodes().graph == part.carried["graph"][0]]
    np.testing.assert_allclose(part.batch.x[: len(first)], first[["a", "b"]])
    assert len(last) == 4
    with pytest.raises(DataError, match="has no edges, and the model is of graphs with edges.*--edges FILE"):
        open_items(more, unlabelled, options)
    with pytest.raises(DataError, match="no column 'b'"):
        open_items(written(tmp_path, ".csv", nodes().drop(columns="b"), None), unlabelled, edges=tmp_path / "ends.csv")
    frames = open_items(nodes(), facts, options.model_copy(update={"graphs": "graph"}), edges=edges())
    assert next(frames.batches(20)).carried["label"].count("big") == 6
    points = as_source(np.zeros((20, 3, 2)), kind="graph").facts()
    with pytest.raises(DataError, match="has edges, and the model is of complete graphs"):
        open_items(nodes().drop(columns="kind"), points, edges=edges())


def test_edges_are_for_tables_of_nodes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--edges has no effect on 'iris'"):
        open_source("iris", SourceOptions(edges="edges.csv"))
    with pytest.raises(DataError, match="There is no file"):
        open_source(tmp_path / "nodes.csv", SourceOptions(graphs="graph"))
    with pytest.raises(ConfigError):
        SourceOptions(edges="")


@pytest.mark.parametrize(("ending", "first"), [(".csv", 2**54), (".parquet", 2**54), (".parquet", 2**63 + 5)])
def test_ids_larger_than_floats_can_hold_are_what_they_are(tmp_path: Path, ending: str, first: int) -> None:
    number = {name: first + place for place, name in enumerate(NAMES)}

    def renamed(table: pd.DataFrame) -> pd.DataFrame:
        ids = np.array([number[name] for name in table["graph"]], dtype=np.uint64 if first > 2**63 else np.int64)
        return table.assign(graph=ids)

    file = written(tmp_path, ending, renamed(nodes()), renamed(edges()))
    source = open_source(file, SourceOptions(edges=str(tmp_path / f"ends{ending}"), drop=("kind",)))
    plain = open_source(
        written(tmp_path, ending, nodes(), edges()),
        SourceOptions(edges=str(tmp_path / f"ends{ending}"), drop=("kind",)),
    )
    assert source.graphs == plain.graphs


def test_no_edges_in_a_file_of_edges_are_no_edges(tmp_path: Path) -> None:
    file = written(tmp_path, ".csv", nodes(), edges()[:0].drop(columns="weight"))
    source = open_source(file, SourceOptions(edges=str(tmp_path / "ends.csv"), drop=("kind",)))
    batch = source.read_all("train")
    assert batch.structure.edge_index.shape == (2, 0)
    assert not source.graphs.complete
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "some.npz", x=np.zeros((24, 2)), sizes=[2] * 12, edge_index=np.zeros((2, 0), dtype=np.int64))
        assert open_source(tmp_path / "some.npz").read_all("train").structure.edge_index.shape == (2, 0)
    np.savez(tmp_path / "deep.npz", x=np.zeros((6, 2, 1)), sizes=[3, 3])
    with pytest.raises(DataError, match="features of nodes are .nodes, features.. Reshape it"):
        open_source(tmp_path / "deep.npz")
    with pytest.raises(DataError, match="has no rows"):
        open_source(written(tmp_path, ".csv", nodes()[:0], None), SourceOptions(graphs="graph", drop=("kind",)))


def test_edges_are_given_with_weights_as_the_data_had_them_or_without(tmp_path: Path) -> None:
    file = written(tmp_path, ".csv", nodes(), edges())
    facts = open_source(file, SourceOptions(edges=str(tmp_path / "ends.csv"), drop=("kind",))).facts()
    bare = edges().drop(columns="weight")
    with pytest.raises(DataError, match="have no weights, and the data that the model is of has"):
        open_items(nodes().drop(columns="kind"), facts, edges=bare)
    unweighted = facts.model_copy(update={"graphs": facts.graphs.model_copy(update={"weighted": False})})
    with pytest.raises(DataError, match="have weights, and the data that the model is of has none"):
        open_items(nodes().drop(columns="kind"), unweighted, edges=edges())
    assert len(next(open_items(nodes().drop(columns="kind"), unweighted, edges=bare).batches(20))) == 12


def test_what_was_said_of_the_columns_of_a_file_is_not_said_of_graphs_in_memory(tmp_path: Path) -> None:
    table = nodes().rename(columns={"graph": "stand"})
    options = SourceOptions(graphs="stand", drop=("kind",))
    file = written(tmp_path, ".csv", table, None)
    source = open_source(f"graphs:{file}", options)
    items = open_items(source.read_all("train"), source.facts(), options)
    assert len(next(items.batches(20))) == source.size("train")
    frame = open_items(table.drop(columns="kind"), source.facts(), options)
    assert len(next(frame.batches(20))) == 12
    # Drawn graphs have the usual names.
    drawn = written(tmp_path, ".parquet", nodes(), None)
    assert len(next(open_items(drawn, source.facts(), options).batches(20))) == 12


def test_no_word_is_proposed_for_missing_values(tmp_path: Path) -> None:
    file = written(tmp_path, ".csv", _with(nodes(), 3, a=np.inf), None)
    with pytest.raises(DataError, match="the value is inf") as refused:
        open_source(f"graphs:{file}", SourceOptions(drop=("kind",)))
    assert "--missing" not in str(refused.value)
