"""Pages of graphs: pictures, figures per graph and per node, and nothing that breaks for few or many features."""

import math

import numpy as np
import pytest
import torch

import likelify as lk
from likelify.data import GraphItems, GraphSource
from likelify.fitting.report import graph_pictures
from likelify.fitting.report import material as materials
from likelify.fitting.report.blocks import Section, Table, Text
from likelify.fitting.report.material import Material
from likelify.fitting.report.page import as_html
from likelify.fitting.report.sections import extremes
from likelify.fitting.report.sections.certificate import certificate
from likelify.fitting.report.sections.graph_likelihoods import nodes_of, per_node, simple_of_nodes
from likelify.fitting.report.sections.graphs import edge_lengths, nearest_distances
from likelify.fitting.report.sections.standing import standing
from likelify.zoo import MODELS
from tests.fitting.graph_runs import SHORT, clouds, graph_run, rings
from tests.fitting.report.runs import fitted
from tests.fitting.report.test_page import missing, words

ONLY_COPIES = ["Left out for graphs: they have no fixed number of elements."]


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch):
    monkeypatch.setitem(materials.DRAWN, "graph", 40)
    monkeypatch.setattr(graph_pictures, "GRID", 4)
    monkeypatch.setattr(extremes, "SHOWN", 2)


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    source = clouds(count=300, nodes=(2, 6), columns=("<east>", "$n$"))
    return graph_run(tmp_path_factory.mktemp("points") / "run", source), source


def test_a_page_of_point_sets_has_all_that_applies(points):
    run, source = points
    html = as_html(run, source=source)
    assert missing(html) == ONLY_COPIES
    text = words(html)
    assert "from 240 graphs of 2 to 6 nodes (" in text
    assert "with 2 features each (<east> and $n$), each two of them joined" in text
    assert "nats per graph on held-out graphs" in text
    assert "nodes alone, one Gaussian" in text
    assert (
        "40 graphs are drawn (seed 0; nothing was picked by hand), with as many nodes as training graphs have" in text
    )
    assert "4 samples of the model. All panels: <east>" in text
    assert "The 2 least likely" in text
    assert "The model maps each node, given the others of its graph, to a latent of 2 elements" in text
    assert "30 test among 30 validation graphs" in text
    assert "<east>" not in html


def test_figures_per_node_are_means_over_graphs(points):
    run, source = points
    material, section = Material(run, source), Section("word", "title")
    standing(material, section)
    batch = source.read_all("test")
    with torch.no_grad():
        nats = run.flow().log_prob(batch.x.float(), batch.context()).double().numpy()
    each = nats / batch.structure.sizes.numpy()
    (table,) = [block for block in section.blocks if isinstance(block, Table) and not block.folded]
    assert table.headings == ("", "nats per graph", "nats per node", "model better by")
    error = each.std(ddof=1) / math.sqrt(len(each))
    assert table.rows[0][2].replace("\xa0", " ") == f"{each.mean():.3f} ± {error:.3f}"
    assert [tile[0] for tile in section.tiles[:2]] == [f"{nats.mean():.3f}", f"{each.mean():.3f}"]
    assert np.allclose(per_node(material.scores.nats, material.held), each, atol=1e-4)


def test_simple_densities_are_summed_over_nodes(points):
    run, source = points
    material = Material(run, source)
    gaussian = next(each for each in simple_of_nodes(material) if each.name == "nodes alone, one Gaussian")
    assert gaussian.nats.shape == (30,)
    # The data are normal with a mean of 1 and a deviation of 3.
    batch = source.read_all("test")
    truth = torch.distributions.Normal(1.0, 3.0).log_prob(batch.x).sum(1)
    summed = torch.zeros(30, dtype=torch.double).index_add(0, batch.structure.owner, truth.double())
    assert gaussian.nats.mean() == pytest.approx(float(summed.mean()), abs=0.15)
    assert nodes_of(material.held).tolist() == batch.structure.sizes.tolist()


def test_centred_positions_are_not_compared_with_densities_of_more_dimensions(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4, 2))
    x -= x.mean(1, keepdims=True)
    parts = {
        split: GraphItems(x[part].reshape(-1, 2), [4] * len(x[part]))
        for split, part in (("train", slice(0, 30)), ("validation", slice(30, 45)), ("test", slice(45, 60)))
    }
    source = GraphSource("centred", parts)
    settings = {"event_shape": (2,), "symmetry": "rotations", "centre": "dropped", "width": 4, "solver_steps": 2}
    run = graph_run(tmp_path / "run", source, model=MODELS["point-flow"](**settings))
    assert "No simple densities to compare with: The positions of each graph have mean zero" in words(
        as_html(run, source=source)
    )


@pytest.mark.parametrize(
    ("features", "nodes"),
    [(1, (4, 4)), pytest.param(10, (1, 4), marks=pytest.mark.slow), pytest.param(3, (5, 5), marks=pytest.mark.slow)],
)
def test_any_number_of_features_and_single_nodes_have_a_page(features, nodes, tmp_path):
    source = clouds(features, nodes, 60)
    run = graph_run(tmp_path / "run", source)
    found = missing(as_html(run, source=source))
    # Six graphs to test are too few for ranks and latents.
    assert found[0] == ONLY_COPIES[0]
    assert all("too few" in each for each in found[1:])


def test_graphs_with_edges_and_classes_are_drawn_by_their_edges(tmp_path):
    source = rings(count=250)
    run = graph_run(tmp_path / "run", source, conditional=True)
    html = as_html(run, source=source)
    assert missing(html) == ONLY_COPIES
    text = words(html)
    assert "joined as the data say" in text
    assert "with as many nodes as training graphs have, and their edges" in text
    assert "Classes come in turn." in text
    assert "Nodes lie where their edges place them; their colour is x1" in text
    assert "along edges" in html


def test_a_slow_sampler_draws_few_and_says_so(points, monkeypatch):
    run, source = points
    monkeypatch.setattr(materials, "SLOW", 0.0)
    material = Material(run, source)
    assert len(material.drawn_graphs) == materials.FEWEST
    assert "this model draws slowly, about" in material.slowness
    assert "this model draws slowly" in words(as_html(run, source=source))


def test_of_a_solver_an_estimate_is_said_and_no_proof(tmp_path):
    source = clouds(count=60)
    model = MODELS["point-flow"](event_shape=(2,), width=8, rounds=1, solver_steps=2)
    run = fitted(tmp_path / "run", source, model, SHORT)
    section = Section("word", "title")
    certificate(Material(run, source), section)
    (text,) = [block.text for block in section.blocks if isinstance(block, Text)]
    assert "exact up to the error of its solver, of which nothing is proved" in text
    assert "inf" not in text.replace("informed", "")


def test_graphs_outside_of_the_support_do_not_break_a_page(points, monkeypatch):
    run, source = points
    material = Material(run, source)
    scores = material.scores
    scores.nats[3] = -np.inf
    section = Section("word", "title")
    standing(material, section)
    assert "1 of 30 held-out graphs lie outside the support" in section.doubts[0]
    assert any(
        "minus infinity" in cell for block in section.blocks if isinstance(block, Table) for cell in block.rows[0]
    )


def test_distances_of_nodes():
    x = torch.tensor([[0.0, 0], [3, 4], [3, 5], [1, 1], [9, 9]])
    structure = lk.GraphBatch(torch.tensor([3, 2]), torch.tensor([[0, 1, 3, 4, 2], [1, 0, 4, 3, 2]]))
    batch = lk.data.Batch(x, None, structure)
    assert nearest_distances(batch, np.ones(2)) == pytest.approx([5, 1, 1, 128**0.5, 128**0.5])
    assert edge_lengths(batch, np.array([1.0, 2.0])) == pytest.approx([13**0.5] * 2 + [80**0.5] * 2)
