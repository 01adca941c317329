"""Fits of graphs: goes on after a kill, weights, conditions, files in every form, scores per node."""

import warnings

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch

import likelify as lk
from likelify import zoo
from likelify.data import (
    Batch,
    GraphItems,
    SourceOptions,
    from_networkx,
    graph_source,
    open_source,
    to_networkx,
    to_pyg,
    weighted,
)
from likelify.data.ahead import read_ahead
from likelify.errors import ConfigError, DataError, LikelifyWarning
from likelify.fitting.checks import check_columns
from likelify.fitting.cost import made_up_batch
from likelify.fitting.feeding import at_once, by_weight
from likelify.fitting.loop import fit
from likelify.fitting.run import Run
from likelify.fitting.scoring.likelihoods import elements_of, items_per_pass
from likelify.fitting.scoring.ranks import ranks
from likelify.fitting.settings import FitSettings, RunConfig
from likelify.fitting.sources import chosen
from likelify.seeding import Order
from tests.fitting.graph_runs import TinyGraphs, clouds, graph_run, rings
from tests.fitting.test_resume import Killed, kill_at, same

pytestmark = pytest.mark.filterwarnings("ignore:The fit never beat its start")
EVERY = FitSettings(steps=6, lr=1e-2, batch_size=16, validations=2, warmup=2, checkpoint_seconds=0)


def named(source) -> list[nx.Graph]:
    """Return the test graphs as graphs of networkx."""
    return to_networkx(source.read_all("test"), ["height"])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A table of nodes and one of edges, of the graphs of `rings`."""
    folder = tmp_path_factory.mktemp("files")
    batch = rings().read_all("train")
    owner = batch.structure.owner.numpy()
    first = (batch.structure.sizes.cumsum(0) - batch.structure.sizes).numpy()
    place = np.arange(len(owner)) - first[owner]
    height = batch.x.flatten().numpy()
    nodes = pd.DataFrame({"graph": owner, "node": place, "height": height, "odd": batch.labels.numpy()[owner]})
    nodes.to_parquet(folder / "nodes.parquet")
    start, end = batch.structure.edge_index.numpy()
    edges = pd.DataFrame({"graph": owner[start], "source": place[start], "target": place[end]})
    edges.to_parquet(folder / "ends.parquet")
    return folder


@pytest.fixture(scope="module")
def run(files):
    """A run of the file, which keeps how the file is read."""
    options = SourceOptions(edges=str(files / "ends.parquet"), labels="odd")
    source = open_source(files / "nodes.parquet", options)
    config = RunConfig(
        data=source.facts(), model=TinyGraphs(event_shape=(1,)), fit=EVERY, opened=chosen(source, options)
    )
    run = Run.create(files / "run", config)
    with lk.seeded(0):
        flow = config.model.build()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The fit never beat its start")
        fit(flow, source, run=run)
    return run


@pytest.mark.parametrize("conditional", [False, True])
def test_a_killed_fit_of_graphs_goes_on(tmp_path, conditional):
    source = weighted(rings(), train=np.arange(rings().size("train")))
    classes = source.classes if conditional else None
    config = RunConfig(
        data=source.facts(), model=TinyGraphs(event_shape=(1,), classes=classes), fit=EVERY, conditional=conditional
    )
    once, broken = (Run.create(tmp_path / word, config) for word in ("once", "broken"))
    with lk.seeded(0):
        fit(config.model.build(), source, run=once)
    with lk.seeded(0), pytest.raises(Killed):
        fit(config.model.build(), source, run=broken, on_step=kill_at(4))
    broken.resume(source)
    same(once, broken)


def test_graphs_count_as_often_as_they_weigh_where_layers_are_fitted():
    source = weighted(rings(), train=np.arange(rings().size("train")) % 3)
    batch = source.read("train", torch.arange(30))
    often = by_weight(batch)
    assert len(often) == 30
    shares = torch.zeros(30)
    starts = [part.flatten().tolist() for part in batch.x.split(batch.structure.sizes.tolist())]
    for part in often.x.split(often.structure.sizes.tolist()):
        shares[starts.index(part.flatten().tolist())] += 1
    assert (shares - 30 * batch.weights / batch.weights.sum()).abs().max() < 1
    assert torch.equal(often.labels, often.structure.sizes % 2)


def test_orders_of_more_items_than_are_kept(monkeypatch):
    monkeypatch.setattr("likelify.seeding.PERMUTED", 100)
    for size in (101, 128, 1000):
        order, other = (Order(size, torch.Generator().manual_seed(seed)) for seed in (0, 1))
        parts = [order.part(start, 30) for start in range(0, size, 30)]
        assert torch.cat(parts).sort().values.equal(torch.arange(size))
        assert not parts[0].equal(other.part(0, 30))
        assert not torch.cat(parts).equal(torch.arange(size))
    assert Order(80, torch.Generator().manual_seed(0)).part(70, 30).shape == (10,)


def test_features_that_say_nothing_are_refused():
    x = np.random.default_rng(0).normal(size=(60, 2))
    constant = graph_source(GraphItems(np.concatenate([x, np.zeros((60, 1))], 1), [3] * 20))
    flow = lk.Flow(lk.Normal((3,)), lk.ActNorm(3))
    with pytest.raises(DataError, match="'feature 3' is 0.*drop="):
        fit(flow, constant, EVERY)
    twice = graph_source(GraphItems(x[:, [0, 1, 0]], [3] * 20), columns=["a", "b", "c"])
    with pytest.raises(DataError, match="features of nodes that follow from others.*'c' is 1 [*] 'a'"):
        fit(flow, twice, EVERY)


def test_what_is_read_ahead_is_the_same():
    source = weighted(rings(), train=np.arange(rings().size("train")))
    for made in (source, clouds()):
        [read] = read_ahead(made, "train", [torch.tensor([3, 1])], workers=1)
        own = made.read("train", torch.tensor([3, 1]))
        torch.testing.assert_close(read.x, own.x)
        assert torch.equal(read.structure.edge_index, own.structure.edge_index)
        assert read.structure.is_complete is own.structure.is_complete
        assert (read.weights is None) == (own.weights is None)
        assert read.weights is None or torch.equal(read.weights, own.weights)


def test_the_data_of_a_run_are_read_again_as_they_were(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    again = Run.load(run.path)
    assert again.source().fingerprint() == run.config.data.fingerprint
    measured = again.evaluate(split="validation")
    held = again.source().read_all("validation")
    with torch.no_grad():
        nats = run.flow().double().log_prob(held.x, held.context())
    assert measured.elbo.nats.mean == pytest.approx(float(nats.mean()), abs=1e-4)
    assert measured.elbo.per_node.mean == pytest.approx(float((nats / held.structure.sizes).mean()), abs=1e-4)
    assert measured.elbo.per_node.count == len(held)


def test_scores_are_per_graph_and_ranked_per_node(run):
    scores = run.score(split="test")
    held = run.source().read_all("validation")
    known = (run.flow().double().log_prob(held.x, held.context()) / held.structure.sizes).detach()
    batch = run.source().read_all("test")
    np.testing.assert_allclose(scores.per_node * batch.structure.sizes.numpy(), scores.nats, rtol=1e-6)
    np.testing.assert_allclose(scores.rank, ranks(scores.per_node, known.numpy()))
    assert scores.carried["graph"] == run.source().item_names("test")
    assert list(scores.least_likely(2)) == list(np.argsort(scores.per_node)[:2])
    assert {"nats", "nats_per_node", "rank", "graph", "label"} <= set(scores.to_arrow().column_names)


def test_graphs_of_any_form_are_scored(run, files):
    # Its import warns of what torch has deprecated.
    pytest.importorskip("torch_geometric")
    source = rings()
    batch = source.read_all("test")
    scores = run.score(batch, reference=None)
    with torch.no_grad():
        expected = run.flow().log_prob(batch.x.float(), batch.context())
    np.testing.assert_allclose(scores.nats, expected, rtol=1e-5)
    for given in (named(source), to_pyg(batch), [named(source)[0]] * 2, source):
        found = run.score(given, reference=None).nats
        np.testing.assert_allclose(found, scores.nats[: len(found)] if len(found) > 2 else scores.nats[[0, 0]])
    [first] = run.score(named(source)[0], reference=None).nats
    assert first == pytest.approx(scores.nats[0])
    whole = run.score(str(files / "nodes.parquet"), edges=files / "ends.parquet", reference=None)
    assert len(whole) == rings().size("train")
    np.testing.assert_allclose(whole.nats, run.score(rings(), split="train", reference=None).nats, rtol=1e-5)
    frame, ends = (pd.read_parquet(files / f"{name}.parquet") for name in ("nodes", "ends"))
    np.testing.assert_array_equal(run.score(frame.drop(columns="odd"), edges=ends, reference=None).nats, whole.nats)


def test_graphs_that_the_model_does_not_know_are_refused(run, files):
    with pytest.raises(DataError, match="has no edges, and the model is of graphs with edges"):
        run.score(files / "nodes.parquet")
    with pytest.raises(DataError, match="graphs with nodes of shape"):
        run.score(clouds(features=2))
    with pytest.raises(DataError, match="has no edges"):
        run.score(np.zeros((3, 2, 1)))
    with pytest.raises(ConfigError, match="name its file too"):
        run.score(edges=files / "ends.parquet")
    with pytest.raises(DataError, match="no column 'height'"):
        run.score(from_networkx_without_height(), reference=None)


def from_networkx_without_height() -> list[nx.Graph]:
    """Return graphs with another feature of the same shape."""
    graphs = to_networkx(rings().read_all("test"), ["width"])
    assert isinstance(from_networkx(graphs), Batch)
    return graphs


@pytest.mark.slow
def test_processes_that_share_the_scoring_of_graphs_find_the_same(tmp_path):
    # A model that the other process knows too.
    model = zoo.MODELS["graph-flow"](event_shape=(2,), layers=1, width=4, heads=1)
    for name, source in (("rings", rings(2)), ("clouds", clouds())):
        run = graph_run(tmp_path / name, source, model=model)
        alone, shared = (run.score(source, split="train", reference=None, jobs=jobs) for jobs in (1, 2))
        np.testing.assert_array_equal(alone.nats, shared.nats)
        np.testing.assert_array_equal(alone.per_node, shared.per_node)


def test_work_is_planned_by_nodes_and_pairs():
    points = clouds(nodes=(6, 6)).facts()
    assert elements_of(points) == 36
    assert items_per_pass(points) == 2**18 // 36 if 2**18 // 36 < 4096 else 4096
    assert at_once(clouds(nodes=(600, 600), count=10), 2048) == 1
    assert at_once(rings(), 50) == 50
    known = rings().facts()
    assert elements_of(known) == round(known.graphs.mean_nodes)
    batch = made_up_batch(known, 9)
    assert len(batch) == 9
    assert set(batch.structure.sizes.tolist()) <= set(known.graphs.sizes)
    assert not batch.structure.is_complete
    assert made_up_batch(points, 2).structure.is_complete


def test_features_that_are_classes_are_warned_of():
    rng = np.random.default_rng(0)
    x = np.stack([rng.normal(size=300), rng.integers(2, size=300)], 1).astype(float)
    source = graph_source(GraphItems(x, np.full(100, 3)), name="charged")
    with pytest.warns(LikelifyWarning, match="feature 2 of nodes has 2 values alone .0, 1."):
        check_columns(source)
