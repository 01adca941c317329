"""Graphs that are drawn: as training graphs are, of a number of nodes, or given; in memory and as files."""

import csv

import networkx as nx
import numpy as np
import pyarrow.parquet
import pytest
import torch

import likelify as lk
from likelify.errors import ConfigError, DataError, LikelifyWarning, RunError
from likelify.fitting import structures
from likelify.fitting.drawing.sampling import keep_samples, sample_to
from likelify.fitting.run import Run
from likelify.fitting.structures import FILE, Structures, some_structures
from tests.fitting.graph_runs import clouds, graph_run, rings


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    source = clouds(columns=("east", "north"))
    return graph_run(tmp_path_factory.mktemp("points") / "run", source), source


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    source = rings()
    return graph_run(tmp_path_factory.mktemp("rings") / "run", source, conditional=True), source


def is_ring(graph):
    return graph.number_of_nodes() == graph.number_of_edges() and all(degree == 2 for _, degree in graph.degree)


def as_networkx(batch):
    graph = nx.Graph()
    graph.add_nodes_from(range(len(batch.structure.owner)))
    graph.add_edges_from(batch.structure.edge_index.T.tolist())
    return [graph.subgraph((batch.structure.owner == number).nonzero()[:, 0].tolist()) for number in range(len(batch))]


def test_samples_have_the_sizes_of_training_graphs_and_are_the_same_again(points):
    run, source = points
    drawn = run.sample(4000, seed=3)
    assert drawn.x.shape == (int(drawn.structure.sizes.sum()), 2)
    assert drawn.structure.is_complete
    assert drawn.labels is None
    counts = torch.bincount(drawn.structure.sizes) / 4000
    real = torch.bincount(source.node_counts("train")) / source.size("train")
    torch.testing.assert_close(counts, real, atol=0.03, rtol=0)
    again = Run.load(run.path).sample(4000, seed=3)
    assert torch.equal(again.x, drawn.x)
    assert not torch.equal(run.sample(8).x, run.sample(8, seed=1).x)
    assert run.sample(8, temperature=0.0).x.std() < 1e-6 + run.sample(8).x.std()
    # What is known of sizes is in the facts; there is nothing else to keep.
    assert not (run.path / FILE).exists()


def test_drawn_nodes_are_those_of_the_flow_given_their_graphs(points):
    run, _ = points
    drawn = run.sample(3000)
    flow = run.flow()
    with torch.no_grad():
        z = flow.transform(drawn.x, drawn.context())[0]
    assert float(z.mean()) == pytest.approx(0, abs=0.03)
    assert float(z.std()) == pytest.approx(1, abs=0.03)


def test_a_number_of_nodes_or_graphs_can_be_asked_for(points, ring):
    run, _ = points
    assert run.sample(5, nodes=4).structure.sizes.tolist() == [4] * 5
    with pytest.warns(LikelifyWarning, match="fitted to graphs of 3 to 6 nodes; what it draws of 9"):
        assert run.sample(2, nodes=9).structure.sizes.tolist() == [9, 9]
    given = lk.GraphBatch(torch.tensor([2, 3]), torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]]))
    for number, sizes in ((None, [2, 3]), (2, [2, 2, 3, 3])):
        drawn = run.sample(number, structure=given)
        assert drawn.structure.sizes.tolist() == sizes
        assert [graph.number_of_edges() for graph in as_networkx(drawn)] == [1] * len(sizes)
    run, _ = ring
    drawn = run.sample(6, nodes=5, label=1)
    assert drawn.structure.sizes.tolist() == [5] * 6
    assert all(map(is_ring, as_networkx(drawn)))
    with pytest.raises(
        ConfigError, match=r"no training graph of 40 nodes of class 1, .* Those of it have 3, 5, 7 nodes"
    ):
        run.sample(6, nodes=40, label=1)


def test_networkx_graphs_can_be_given(points):
    run, _ = points
    drawn = run.sample(structure=[nx.path_graph(4), nx.cycle_graph(3)])
    assert drawn.structure.sizes.tolist() == [4, 3]
    assert [graph.number_of_edges() for graph in as_networkx(drawn)] == [3, 3]


def test_what_cannot_be_drawn_is_refused(points, tmp_path):
    run, _ = points
    for settings, refusal in (
        ({"nodes": 0}, "number of nodes must be"),
        ({"nodes": 2, "structure": lk.GraphBatch.complete([2])}, "Give either graphs"),
        ({"structure": "ring"}, "A structure is"),
        ({"label": 1}, "this run has no classes"),
        ({"given": {"x": 1}}, "graphs"),
    ):
        with pytest.raises(ConfigError, match=refusal):
            run.sample(2, **settings)
    for call in (run.reconstruct, run.impute, lambda items: run.inpaint(items, torch.ones(2, dtype=torch.bool))):
        with pytest.raises(ConfigError, match=r"of graphs|Graphs are scored and drawn"):
            call("test")
    with pytest.raises(ConfigError, match="at most 400 graphs, not 500; name a file in .csv"):
        sample_to(run, tmp_path / "x.png", 500)


def test_a_graph_of_a_class_is_one_of_that_class(ring):
    run, _ = ring
    drawn = run.sample(50)
    assert drawn.labels.tolist() == [0, 1] * 25
    assert torch.equal(drawn.structure.sizes % 2, drawn.labels)
    assert all(map(is_ring, as_networkx(drawn)))
    odd = run.sample(20, label=1)
    assert bool((odd.structure.sizes % 2 == 1).all())


def test_a_run_keeps_its_graphs_without_its_data(ring, monkeypatch):
    run, source = ring
    monkeypatch.setattr(Run, "source", None)
    loaded = Run.load(run.path)
    kept = structures.structures_of(loaded)
    assert len(kept) == source.size("train")
    assert loaded.sample(5).x.shape[1:] == (1,)
    content = (run.path / FILE).read_bytes()
    try:
        (run.path / FILE).write_bytes(content[:-8])
        with pytest.raises(RunError, match="cannot be read"):
            loaded.sample(5)
        damaged = {"sizes": torch.tensor([2, 2]), "edge_index": torch.tensor([[0, 5], [1, 0]])}
        about = {structures.ABOUT: run.config.data.fingerprint}
        from safetensors.torch import save_file

        save_file(damaged, run.path / FILE, metadata=about)
        with pytest.raises(RunError, match="does not hold graphs"):
            loaded.sample(5)
    finally:
        (run.path / FILE).write_bytes(content)


def test_only_so_many_edges_are_kept(monkeypatch):
    source = rings()
    monkeypatch.setattr(structures, "MOST_EDGES", 100)
    monkeypatch.setattr(structures, "PASS", 4)
    some = some_structures(source)
    assert 5 < len(some) < 20
    assert some.edge_index.shape[1] <= 100
    assert len(some.labels) == len(some)
    monkeypatch.setattr(structures, "MOST_EDGES", 2)
    assert len(some_structures(source)) == 0


def test_graphs_that_are_not_kept_and_gone_are_asked_for(ring, monkeypatch):
    run, source = ring
    monkeypatch.setattr(structures, "MOST_EDGES", 2)
    monkeypatch.setattr(structures, "_read", lambda run: None)
    monkeypatch.setattr(Run, "source", lambda self: source)
    with pytest.raises(DataError, match=r"run.sample\(structure="):
        run.sample(3)


def test_taking_graphs_keeps_their_edges_and_weights():
    graphs = lk.GraphBatch(
        torch.tensor([2, 1, 3]), torch.tensor([[3, 0, 4, 1, 5], [4, 1, 3, 0, 3]]), torch.tensor([1.0, 2, 3, 4, 5])
    )
    taken = Structures.of(graphs).take(torch.tensor([2, 0, 1, 2]))
    assert taken.sizes.tolist() == [3, 2, 1, 3]
    assert taken.edge_index.tolist() == [[0, 1, 2, 3, 4, 6, 7, 8], [1, 0, 0, 4, 3, 7, 6, 6]]
    assert taken.edge_weight.tolist() == [1, 3, 5, 2, 4, 1, 3, 5]
    both = Structures.joined([Structures.of(graphs), Structures.of(lk.GraphBatch.complete([2]))])
    assert both.sizes.tolist() == [2, 1, 3, 2]
    assert both.edge_index[:, -2:].tolist() == [[6, 7], [7, 6]]


def test_files_hold_nodes_and_beside_them_edges(points, ring, tmp_path):
    run, _ = ring
    drawn = run.sample(7, seed=2)
    for ending in (".csv", ".parquet", ".feather", ".npz", ".png", ".svg"):
        assert sample_to(run, tmp_path / f"ring{ending}", 7, seed=2) == 7
    with (tmp_path / "ring.csv").open(newline="") as handle:
        header, *lines = csv.reader(handle)
    assert header == ["graph", "node", "x1", "label"]
    assert [int(line[0]) for line in lines] == drawn.structure.owner.tolist()
    assert [float(line[2]) for line in lines] == drawn.x[:, 0].double().tolist()
    assert [int(line[3]) for line in lines] == drawn.labels[drawn.structure.owner].tolist()
    nodes = pyarrow.parquet.read_table(tmp_path / "ring.parquet").to_pandas()
    edges = pyarrow.parquet.read_table(tmp_path / "ring.edges.parquet").to_pandas()
    assert list(edges.columns) == ["graph", "source", "target"]
    for number, graph in nodes.groupby("graph"):
        own = edges[edges.graph == number]
        assert is_ring(nx.Graph(own[["source", "target"]].to_numpy().tolist()))
        assert set(own.source) == set(graph.node) == set(range(len(graph)))
    with np.load(tmp_path / "ring.npz") as arrays:
        assert np.array_equal(arrays["x"], drawn.x)
        assert np.array_equal(arrays["edge_index"], drawn.structure.edge_index)
        assert np.array_equal(arrays["labels"], drawn.labels)
    run, source = points
    sample_to(run, tmp_path / "points.csv", 3)
    assert (tmp_path / "points.csv").read_text().startswith("graph,node,east,north\n0,0,")
    assert not (tmp_path / "points.edges.csv").exists()
    assert keep_samples(run, source).name == "samples.png"


def test_neither_nodes_nor_edges_are_overwritten_in_silence(ring, points, tmp_path):
    run, _ = ring
    (tmp_path / "x.edges.csv").write_text("mine")
    with pytest.raises(ConfigError, match=r"x.edges.csv' exists"):
        sample_to(run, tmp_path / "x.csv", 2)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.edges.csv"]
    sample_to(run, tmp_path / "x.csv", 2, force=True)
    assert (tmp_path / "x.edges.csv").read_text().startswith("graph,source,target")
    (tmp_path / "x.csv").unlink()
    with pytest.raises(ConfigError, match=r"x.edges.csv' exists"):
        sample_to(points[0], tmp_path / "x.csv", 2)
    # Edges of a file that is replaced are not taken for those of the new one.
    sample_to(points[0], tmp_path / "x.csv", 2, force=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.csv"]


def test_files_do_not_depend_on_the_chunks_they_are_written_in(ring, tmp_path, monkeypatch):
    run, _ = ring
    from likelify.fitting.drawing import graphs

    monkeypatch.setattr(graphs, "CHUNK_ITEMS", 3)
    sample_to(run, tmp_path / "a.parquet", 8)
    drawn = run.sample(8)
    nodes = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    edges = pyarrow.parquet.read_table(tmp_path / "a.edges.parquet")
    assert nodes["graph"].to_pylist() == drawn.structure.owner.tolist()
    assert nodes["x1"].to_pylist() == drawn.x[:, 0].double().tolist()
    start = drawn.structure.edge_index[0]
    assert edges["graph"].to_pylist() == drawn.structure.owner[start].tolist()


def test_a_single_graph_is_a_structure(tmp_path):
    from likelify.fitting.drawing.graphs import as_graphs

    path = nx.path_graph(3)
    assert as_graphs(path).sizes.tolist() == as_graphs([path]).sizes.tolist() == [3]
    geometric = pytest.importorskip("torch_geometric.data")
    data = geometric.Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=3)
    assert as_graphs(data).sizes.tolist() == as_graphs([data]).sizes.tolist() == [3]
    with pytest.raises(ConfigError, match="got str"):
        as_graphs("path")
