"""Graphs of networkx and PyTorch Geometric, in and out, and arrays as sets of points."""

import networkx as nx
import numpy as np
import pytest
import torch

from likelify.data import Batch, GraphItems, as_source, from_networkx, from_pyg, to_networkx, to_pyg
from likelify.errors import DataError, LikelifyError
from likelify.structure import GraphBatch


def graphs(count: int = 12, *, weighted: bool = False) -> list[nx.Graph]:
    """Return graphs of 3 to 5 nodes with a ring, names as nodes, two features and a class."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        graph = nx.Graph(label="odd" if number % 2 else "even")
        names = [f"n{node}" for node in range(3 + number % 3)]
        graph.add_nodes_from((name, {"pos": rng.normal(size=2), "mass": float(rng.normal())}) for name in names)
        ends = zip(names, [*names[1:], names[0]], strict=True)
        graph.add_edges_from((*pair, {"weight": float(rng.uniform())} if weighted else {}) for pair in ends)
        made.append(graph)
    return made


def same(one: Batch, other: Batch) -> None:
    """Require that two batches hold the same graphs."""
    assert one.structure is not None
    assert other.structure is not None
    torch.testing.assert_close(one.x, other.x)
    assert one.structure.sizes.tolist() == other.structure.sizes.tolist()
    assert (one.labels is None) == (other.labels is None)
    assert one.labels is None or other.labels is None or one.labels.tolist() == other.labels.tolist()
    edges = [_edges(graphs) for graphs in (one.structure, other.structure)]
    assert edges[0].keys() == edges[1].keys()
    assert list(edges[0].values()) == pytest.approx(list(edges[1].values()))


def _edges(graph: GraphBatch) -> dict[tuple[int, int], float]:
    weight = torch.ones(graph.edge_index.shape[1]) if graph.edge_weight is None else graph.edge_weight
    ends = zip(*graph.edge_index.tolist(), strict=True)
    return dict(sorted(zip(ends, weight.tolist(), strict=True)))


@pytest.mark.parametrize("weighted", [False, True])
def test_networkx_there_and_back(*, weighted: bool) -> None:
    given = graphs(5, weighted=weighted)
    batch = from_networkx(given)
    assert batch.structure is not None
    assert batch.labels is not None
    assert batch.structure.sizes.tolist() == [3, 4, 5, 3, 4]
    assert batch.labels.tolist() == [0, 1, 0, 1, 0]
    np.testing.assert_array_equal(batch.x[0], [*given[0].nodes["n0"]["pos"], given[0].nodes["n0"]["mass"]])
    assert (batch.structure.edge_weight is not None) is weighted
    named = to_networkx(batch, ["a", "b", "c"])
    assert named[1].nodes[0]["c"] == given[1].nodes["n0"]["mass"]
    assert all(
        nx.utils.graphs_equal(nx.convert_node_labels_to_integers(_bare(old)), _bare(new))
        for old, new in zip(given, named, strict=True)
    )
    same(from_networkx(named, features=["a", "b", "c"]), batch)
    same(from_networkx(to_networkx(batch)), batch)
    bare = from_networkx(given[0], features=(), label=None)
    assert bare.x.shape == (3, 0)
    assert bare.labels is None
    assert bare.structure is not None
    assert bare.structure.is_complete is not weighted


def _bare(graph: nx.Graph) -> nx.Graph:
    """Return the nodes and edges alone."""
    bare = nx.Graph()
    bare.add_nodes_from(graph)
    bare.add_weighted_edges_from((*ends, weight or 0.0) for *ends, weight in graph.edges(data="weight"))
    return bare


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda graph: graph.to_directed(), r"directed.*graph.to_undirected\(\)"),
        (nx.MultiGraph, r"several edges between two nodes. nx.Graph\(graph\)"),
        (lambda graph: graph.nodes["n1"].pop("mass") and graph, "Node 'n1' of graph 1 has no attribute 'mass'"),
        (lambda graph: graph.nodes["n1"].update(pos=[1.0]) or graph, "'pos' is of different lengths"),
        (lambda graph: graph.graph.pop("label") and graph, "Graph 1 has no 'label', and others have"),
        (lambda graph: graph.edges["n0", "n1"].pop("weight") and graph, "Edge 3 has no 'weight', and others have"),
    ],
)
def test_graphs_of_networkx_that_do_not_fit_are_refused(change, said) -> None:
    given = graphs(3, weighted=True)
    given[1] = change(given[1])
    with pytest.raises(DataError, match=said):
        from_networkx(given)


def test_features_that_are_no_real_numbers_are_named() -> None:
    karate = nx.karate_club_graph()
    with pytest.raises(DataError, match="attribute 'club' holds words.*'Mr. Hi'"):
        from_networkx(karate, features=["club"])
    with pytest.raises(DataError, match="no attribute of nodes 'clubs'. Did you mean 'club'"):
        from_networkx(karate, features=["clubs"])
    nx.set_node_attributes(karate, dict.fromkeys(karate, 3), "rank")
    with pytest.raises(DataError, match=r"'rank' holds whole numbers.*float\(value\)"):
        from_networkx(karate, features=["rank"])
    assert from_networkx(karate).x.shape == (34, 0)
    with pytest.raises(DataError, match="1 graph, and at least 10"):
        as_source(karate)
    with pytest.raises(DataError, match="features of nodes have the shape"):
        as_source([karate] * 10)


def test_sources_of_networkx_graphs() -> None:
    source = as_source(graphs())
    facts = source.facts()
    assert (facts.kind, facts.event_shape, facts.columns) == ("graph", (3,), ("pos_1", "pos_2", "mass"))
    assert facts.class_names == ("even", "odd")
    assert [source.size(split) for split in ("train", "validation", "test")] == [11, 1, 0]
    assert as_source(graphs(), drop=["mass"]).facts().columns == ("pos_1", "pos_2")
    assert as_source(graphs(), columns=["mass"]).facts().columns == ("mass",)
    assert as_source(graphs(), labels=np.arange(12)).facts().classes == 12
    with pytest.raises(LikelifyError, match="levels= .*no effect|no effect"):
        as_source(graphs(), levels=3)
    with pytest.raises(DataError, match="Only some of these are graphs"):
        as_source([*graphs(), 3])


def test_arrays_are_sets_of_points_where_that_is_said() -> None:
    x = np.random.default_rng(0).normal(size=(20, 3, 2))
    source = as_source(x, kind="graph")
    assert source.facts().graphs is not None
    assert source.facts().graphs.sizes == {3: 18}
    ragged = as_source([x[number, : 1 + number % 3] for number in range(20)], kind="graph", seed=1)
    assert ragged.facts().graphs is not None
    assert sorted(ragged.facts().graphs.sizes) == [1, 2, 3]
    batch = ragged.read_all("train")
    again = as_source(batch, seed=2)
    assert again.size("train") == 16
    assert as_source(GraphItems(x.reshape(-1, 2), np.full(20, 3))).fingerprint() == source.fingerprint()
    with pytest.raises(DataError, match=r"\(graphs, nodes, features\), got \(20, 3\)"):
        as_source(x[:, 0, :1].repeat(3, 1), kind="graph")


def test_pyg_there_and_back() -> None:
    data = pytest.importorskip("torch_geometric.data")
    given = from_networkx(graphs(12, weighted=True))
    made = to_pyg(given)
    assert made[0].validate()
    same(from_pyg(made), given)
    same(from_pyg(data.Batch.from_data_list(made)), given)
    source = as_source(made)
    assert source.facts().columns is None
    assert source.event_shape == (3,)
    assert source.classes == 2
    changed = made[2].clone()
    changed.edge_index, changed.edge_weight = changed.edge_index[:, 1:], changed.edge_weight[1:]
    with pytest.raises(DataError, match=r"Graph 2 is directed.*ToUndirected\(\)"):
        from_pyg([*made[:2], changed])
    clouds = [data.Data(pos=torch.rand(2 + n % 2, 3), y=torch.rand(1)) for n in range(10)]
    cloud = as_source(clouds).read_all("train")
    assert cloud.structure is not None
    assert cloud.structure.is_complete
    assert cloud.labels is None
    with pytest.raises(DataError, match="has no 'x'; it has"):
        from_pyg(clouds, features=["x"])
    with pytest.raises(DataError, match="no edge_index, and others have"):
        from_pyg([made[0], data.Data(x=torch.rand(2, 3))])
    with pytest.raises(DataError, match="several kinds of nodes"):
        from_pyg([data.HeteroData()])
    loader = torch.utils.data.DataLoader(made, collate_fn=list)  # pyright: ignore[reportArgumentType] - as its users do
    assert as_source(loader).fingerprint() == source.fingerprint()


def test_attributes_are_judged_by_all_nodes():
    graphs = []
    for _ in range(12):
        graph = nx.path_graph(3)
        for node, values in graph.nodes(data=True):
            values.update(a=0.5 * node, b=0 if node == 0 else 1.5, kind=node)
        graphs.append(graph)
    source = as_source(graphs)
    assert source.columns == ("a", "b")
    for graph in graphs:
        graph.nodes[1]["ragged"] = [[0.5], [0.5, 1.0]]
    assert as_source(graphs).columns == ("a", "b")


def test_graphs_that_cannot_be_read_say_why():
    graph = nx.path_graph(3)
    nx.set_edge_attributes(graph, "x", "weight")
    with pytest.raises(DataError, match="Weights of edges are numbers"):
        from_networkx([graph], features=())
    geometric = pytest.importorskip("torch_geometric.data")
    with pytest.raises(DataError, match="to_homogeneous"):
        from_pyg(geometric.HeteroData())
    edges = torch.tensor([[0, 1], [1, 0]])
    labelled = geometric.Data(x=torch.randn(2, 1), edge_index=edges, y=torch.tensor([1]))
    with pytest.raises(DataError, match="Graph 1 has no y"):
        from_pyg([labelled, geometric.Data(x=torch.randn(2, 1), edge_index=edges)])


def test_tensors_of_no_axis_and_of_bfloat16_are_features() -> None:
    graph = nx.path_graph(4)
    for node in graph:
        graph.nodes[node]["h"] = torch.tensor(0.5 * node)
        graph.nodes[node]["v"] = torch.tensor([0.25 * node, 1.0], dtype=torch.bfloat16)
    batch = from_networkx([graph, graph])
    assert batch.x.shape == (8, 3)
    torch.testing.assert_close(batch.x[:4, 0].double(), 0.5 * torch.arange(4, dtype=torch.float64))


def test_edges_in_a_sparse_matrix_and_features_of_some_graphs_are_refused() -> None:
    geometric = pytest.importorskip("torch_geometric.data")
    edge_index = torch.tensor([[0, 1], [1, 0]])
    sparse = geometric.Data(x=torch.rand(2, 1), adj_t=torch.eye(2))
    with pytest.raises(DataError, match="edges in 'adj_t'.*leave the transform ToSparseTensor out"):
        from_pyg([sparse])
    bare = geometric.Data(edge_index=edge_index, num_nodes=2)
    with pytest.raises(DataError, match="Graph 0 has no 'x'"):
        from_pyg([bare, geometric.Data(x=torch.rand(2, 1), edge_index=edge_index)])


def test_classes_keep_their_names_on_the_way_out_and_back():
    def graph(label):
        made = nx.path_graph(2)
        nx.set_node_attributes(made, {0: 0.5, 1: 1.5}, "height")
        made.graph["label"] = label
        return made

    names = ("1", "2", "3")
    batch = from_networkx([graph(2), graph(2), graph(3)], class_names=names)
    assert batch.labels.tolist() == [1, 1, 2]
    again = to_networkx(batch, ["height"], class_names=names)
    assert [one.graph["label"] for one in again] == ["2", "2", "3"]
    assert from_networkx(again, class_names=names).labels.tolist() == [1, 1, 2]
    with pytest.raises(DataError, match="4"):
        from_networkx([graph(4)], class_names=names)
    with pytest.raises(DataError, match="class 2, and there are 2 names"):
        to_networkx(batch, ["height"], class_names=names[:2])


def test_one_feature_may_be_named_alone_and_two_of_one_name_are_refused():
    made = nx.path_graph(2)
    nx.set_node_attributes(made, {0: 1.0, 1: 2.0}, "ab")
    nx.set_node_attributes(made, {0: 3.0, 1: 4.0}, "a")
    batch = from_networkx(made, features="ab")
    assert batch.x.tolist() == [[1.0], [2.0]]
    with pytest.raises(DataError, match="one attribute"):
        to_networkx(from_networkx(made), ["p", "p"])


def test_no_graphs_are_refused():
    with pytest.raises(DataError, match="no graphs"):
        from_pyg([])
