"""Graphs of files from fit to scores, in words of the command line."""

import numpy as np
import pandas as pd
import pytest

from tests.app.command import here, said

FIT = ("--steps", 4, "--batch-size", 8, "--no-report", "--set", "layers=1", "--set", "width=8")


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """Rings of three to six nodes in two files, and some more in others."""
    rng = np.random.default_rng(0)
    monkeypatch.chdir(tmp_path)
    for name, count in (("", 30), ("new-", 5)):
        sizes = rng.integers(3, 7, count)
        nodes = [(f"g{graph}", node) for graph, size in enumerate(sizes) for node in range(size)]
        table = pd.DataFrame(nodes, columns=["graph", "node"])
        table["x"], table["y"] = rng.normal(size=(2, len(table)))
        table.to_csv(tmp_path / f"{name}nodes.csv", index=False)
        edges = [(f"g{graph}", node, (node + 1) % size) for graph, size in enumerate(sizes) for node in range(size)]
        pd.DataFrame(edges, columns=["graph", "from", "to"]).to_csv(tmp_path / f"{name}edges.csv", index=False)
    return tmp_path


def test_graphs_of_files_are_fitted_measured_and_scored(tables, monkeypatch, capsys):
    out, _ = here(monkeypatch, capsys, "fit", "nodes.csv", "--edges", "edges.csv", *FIT, "-o", "run")
    assert "Fitting graph-flow" in out
    assert "30 graphs of 3 to 6 nodes, undirected edges of" in out
    assert "nats per node" in out
    for folder in ("", "elsewhere"):
        (tables / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tables / folder)
        out = said(monkeypatch, capsys, "evaluate", str(tables / "run"), "--split", "validation")
        assert "nats per graph" in out
        assert "nats per node" in out
    monkeypatch.chdir(tables)
    out = said(monkeypatch, capsys, "score", "run", "new-nodes.csv", "--edges", "new-edges.csv", "-o", "scores.csv")
    assert "5 graphs, on average" in out
    assert "nats per node" in out
    scores = pd.read_csv("scores.csv")
    assert scores.graph.tolist() == ["g0", "g1", "g2", "g3", "g4"]
    sizes = pd.read_csv("new-nodes.csv").groupby("graph").size()
    np.testing.assert_allclose(scores.nats / scores.nats_per_node, sizes[scores.graph])
    error = said(monkeypatch, capsys, "score", "run", "new-nodes.csv", code=2)
    assert "has no edges, and the model is of graphs with edges. Name the file of them: --edges FILE" in error
    error = said(monkeypatch, capsys, "fit", "--resume", "run", "--edges", "new-edges.csv", code=2)
    assert "edges is" in error
    error = said(monkeypatch, capsys, "score", "run", "new-nodes.csv", "--edges", "nowhere.csv", code=2)
    assert "There is no file 'nowhere.csv'" in error


def test_what_a_file_of_nodes_needs_is_said(tables, monkeypatch, capsys):
    error = said(monkeypatch, capsys, "fit", "nodes.csv", code=2)
    assert "--graphs graph" in error
    error = said(monkeypatch, capsys, "fit", "nodes.csv", "--graphs", "grap", code=2)
    assert "Did you mean 'graph'?" in error
    error = said(monkeypatch, capsys, "fit", "iris", "--graphs", "graph", code=2)
    assert "--graphs has no effect on 'iris'" in error
    out = said(monkeypatch, capsys, "fit", "nodes.csv", "--edges", "edges.csv", "--dry-run", *FIT)
    assert "for graphs of 2 at each node" in out
    few = pd.read_csv("nodes.csv")
    few[few.graph == "g3"].to_csv("one.csv", index=False)
    error = said(monkeypatch, capsys, "fit", "one.csv", "--graphs", "graph", code=2)
    assert "holds 1 graph, and at least 10 are needed" in error
    assert "components" in error
