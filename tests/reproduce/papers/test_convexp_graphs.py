"""Table 4 of the first paper: equal steps, divergences from a known truth, and sentences that follow from them."""

import itertools
import math

import numpy as np
import pytest
import torch

import likelify as lk
from likelify.app.reproduce import time_of
from likelify.data import Facts, GraphFacts
from likelify.errors import DataError
from likelify.fitting.cost import made_up_batch
from likelify.fitting.figures import Course, Figure, Score, Unit
from likelify.fitting.metrics import evaluate
from likelify.fitting.run import Run
from likelify.fitting.sources import DataChoice, open_data, public_facts
from likelify.reproduce.cell import Cell
from likelify.reproduce.divergences import divergence_table, overview_table
from likelify.reproduce.evidence import Evidence
from likelify.reproduce.measure import run_cell
from likelify.reproduce.papers import convexp_graphs
from likelify.reproduce.papers import convexp_graphs_words as words
from likelify.reproduce.planning import estimates
from likelify.reproduce.results import CellResult, divergences, read_states
from likelify.reproduce.runner import Folders
from likelify.reproduce.scores import true_density
from likelify.reproduce.table import build_report
from likelify.zoo import config_from_dict


def settled(scale, seeds=1):
    """The cells of a scale with their complete settings."""
    known = {}
    for cell in convexp_graphs.table_4(scale).cells(seeds):
        assert isinstance(cell, Cell)
        if cell.data.source not in known:
            known[cell.data.source] = public_facts(open_data(cell.data), cell.data)
        yield cell, cell.settle(known[cell.data.source])


def test_the_rows_of_the_paper_and_the_controls_have_equal_steps():
    fits, differing = {}, set()
    for cell, settings in settled("cpu", seeds=9):
        if cell.method in words.EQUAL:
            fit = settings["fit"] | {"seed": None}
            assert fits.setdefault(cell.data.source, fit) == fit
            assert (fit["max_time"], fit["batch_size"]) == (None, 128)
            differing.add(settings["model"].get("mixing"))
        assert settings["data"]["drawn"] == {"train": 10**9, "test": 40_000}
    assert len(fits) == 4
    assert differing == {"1x1", "none", "graph-exponential", "per-node"}


def test_seeds_and_times_of_the_rows():
    found = {}
    for cell in convexp_graphs.table_4("cpu").cells():
        if isinstance(cell, Cell) and cell.data.source == "mog-16":
            found.setdefault(cell.method, []).append((cell.seed, cell.fit.get("max_time")))
    assert all(found[title] == [(seed, None) for seed in range(5)] for title in words.EQUAL)
    assert found[words.SPLINES] == [(0, 90.0), (1, 90.0)]
    assert found[words.CANONICAL] == [(0, 30.0), (1, 30.0)]
    assert found[words.LONG_MATCHING] == [(0, 600.0)]
    # A trial with one seed has one of each, and one of three no more than is meant.
    assert len(convexp_graphs.table_4("cpu").cells(seeds=1)) == 4 * 14
    assert len(convexp_graphs.table_4("cpu").cells(seeds=3)) == 4 * (5 * 3 + 7 * 2 + 2)


@pytest.mark.parametrize("scale", ["cpu", "quick", "paper"])
def test_every_row_is_a_model(scale):
    titles = set()
    for cell, settings in settled(scale):
        if cell.data.source in ("mog-4", "mog-ring"):
            config = config_from_dict(settings["model"])
            assert config.event_shape == (2,)
            if scale != "paper":
                assert config.build().event_shape == (2,)
            titles.add(cell.method)
        if cell.method == words.CANONICAL:
            assert settings["model"]["order"] == ("angle" if cell.data.source == "mog-ring" else "anchors")
    assert titles == set(words.EQUAL if scale == "paper" else {**words.KINDS, **convexp_graphs.LONG})


def test_a_row_for_ten_minutes_is_the_same_model():
    models = {(cell.data.source, cell.method): settings["model"] for cell, settings in settled("cpu")}
    for title, rows in convexp_graphs.LONG.items():
        for column, like in rows.items():
            source = convexp_graphs.COLUMNS[column]
            assert models[source, title] == models[source, like]
    assert models["mog-9", words.BOTH]["mixing"] == "graph-exponential"


def true_by_hand(x):
    """The log-density of MoG-4, by all orders of its means."""
    means = torch.tensor(list(itertools.product((-5.0, 5.0), repeat=2)), dtype=torch.float64)
    orders = torch.tensor(list(itertools.permutations(range(4))))
    squares = (x[:, None] - means[orders]).square().sum((2, 3))
    return torch.logsumexp(-squares / 2, 1) - math.log(24) - 4 * math.log(2 * math.pi)


def test_divergences_are_those_of_a_calculation_by_hand():
    source = open_data(DataChoice(source="mog-4", drawn={"test": 30}))
    flow = lk.Flow(lk.Normal((2,)), lk.ActNorm(2), event_shape=(2,))
    x = source.read_all("test").x.reshape(30, 4, 2)
    model = -x.square().sum((1, 2)) / 2 - 4 * math.log(2 * math.pi)
    above = (true_by_hand(x) - model) / 4
    found = evaluate(flow, source, elbo_samples=1, iw_samples=0, batch_size=7, truth=true_density(source)).elbo.kl
    assert found is not None
    assert (found.mean, found.count) == (pytest.approx(float(above.mean()), rel=1e-5), 30)
    assert found.standard_error == pytest.approx(float(above.std()) / 30**0.5, rel=1e-5)
    assert evaluate(flow, source, elbo_samples=1, iw_samples=0).elbo.kl is None


@pytest.mark.parametrize("title", [words.EXPONENTIAL, words.AUTOREGRESSIVE])
def test_a_cell_measures_its_divergence(tmp_path, title):
    experiment = convexp_graphs.table_4("quick")
    (cell,) = (cell for cell in experiment.cells() if isinstance(cell, Cell) and cell.method == title)
    folders = Folders(results=tmp_path / "results", runs=tmp_path / "fits")
    run_cell(cell, folders, lambda *_: None)
    (state,) = read_states([cell], folders.results)
    assert state.status == "finished"
    result = state.result
    assert isinstance(result, CellResult)
    assert result.entropy == pytest.approx(math.log(2 * math.pi * math.e) + math.log(24) / 4, abs=1e-6)
    assert result.elbo.kl is not None
    assert (result.elbo.kl.count, result.course.steps) == (50, 20)
    if title == words.AUTOREGRESSIVE:
        # What is shown is the tighter bound, of many orders.
        assert result.iw is not None
        assert divergences([result]) == {0: result.iw.kl}
        assert (result.iw.kl.count, result.gain.count) == (20, 20)
        # Two kinds of bounds have no mean.
        other = result.model_copy(update={"seed": 1, "iw": None})
        assert divergences([result, other]) == {0: result.elbo.kl, 1: result.elbo.kl}
        return
    (folder,) = (tmp_path / "fits").iterdir()
    batch = open_data(cell.data).read("test", torch.arange(50))
    with torch.no_grad():
        model = Run.load(folder).flow().log_prob(batch.x, batch.context())
    above = true_by_hand(batch.x.reshape(50, 4, 2)) - model
    assert divergences([result])[0].mean == pytest.approx(float(above.mean()) / 4, rel=1e-4)
    report = build_report(experiment, [state], folders.results)
    assert [table.title for table in report.tables[:2]] == ["Entropy + KL, nats/node", "MoG-4"]
    assert report.discussion == []


def test_only_simulated_graphs_are_drawn_in_other_numbers():
    assert open_data(DataChoice(source="mog-9", drawn={"test": 7})).size("test") == 7
    with pytest.raises(DataError, match="digits"):
        open_data(DataChoice(source="digits", drawn={"test": 7}))


def test_made_up_graphs_of_a_source_without_end():
    graphs = GraphFacts(sizes={3: 10**9, 5: 10**9}, complete=True)
    facts = Facts(name="", family="", kind="graph", fingerprint="", event_shape=(2,), sizes={}, graphs=graphs)
    structure = made_up_batch(facts, 4).structure
    assert structure is not None
    assert structure.sizes.tolist() == [3, 3, 5, 5]


def result(method, seed, kl, *, steps=100, entropy=3.6, likelihood="exact", graphs=40_000):
    figure = Figure(mean=kl + entropy, standard_error=0.0, count=graphs)
    score = Score(bits=figure, nats=figure, samples=1, kl=Figure(mean=kl, standard_error=0.001, count=graphs))
    return CellResult(
        method=method,
        seed=seed,
        settings={"model": {"model": "graph-flow"}},
        facts=Facts(name="x", family="x", kind="graph", fingerprint="", event_shape=(2,), sizes={}),
        parameters=5,
        likelihood=likelihood,
        course=Course(reason="finished", steps=steps, best_step=steps, seconds=50.0),
        measuring_seconds=1.0,
        entropy=entropy,
        elbo=score,
        versions={"code": "a"},
        machine={},
        finished="",
    )


NOISE = (0.0, 0.01, -0.01)


def evidence(means, data="MoG-4", **changed):
    rows = {title: [] for title in [*words.KINDS, *convexp_graphs.LONG]}
    rows |= {
        title: [result(title, s, mean + n * (1 + i), **changed) for s, n in enumerate(NOISE)]
        for i, (title, mean) in enumerate(means.items())
    }
    return Evidence(Unit.per_node(2), {data: rows}, {})


def discussed(means, **changed):
    return "\n".join(words.discuss(evidence(means, **changed)))


def test_what_is_said_where_the_exponential_gains():
    means = {words.PER_NODE: 0.5, words.EXPONENTIAL: 0.05, words.PLAIN: 0.1, words.ZERO_START: words.saddle("MoG-4")}
    text = discussed(means)
    # Differences 0.45, 0.44, 0.46: their standard error is 0.01 / sqrt(3).
    assert "gain over per-node mixing at equal steps is +0.4500 +- 0.0058 nats per node" in text
    # Student's quantile of two degrees of freedom is 4.303.
    assert "3 paired seeds; 95 %: +0.4252 to +0.4748): it shows." in text
    assert "MoG-4 +0.450 (0.606)" in text
    assert "best first: graph exponential (0.050), graph normalizing flow (0.100), per-node mixing (0.500)" in text
    assert "KL after 100 steps each" in text
    assert "graph normalizing flow, zero start is worse than graph normalizing flow" in text
    assert "1 of 3 stand at the saddle, whose KL is 2.464" in text
    assert "is 'graph exponential', 3.650, below the paper's best (3.68)" in text
    assert "graph exponential 3.650 (3.68)" in text
    assert "know nothing of one another (4.224): graph normalizing flow, zero start." in text
    assert "canonicalised" not in text


def test_what_is_said_where_it_does_not():
    means = {words.PER_NODE: 0.2, words.EXPONENTIAL: 0.2, words.PLAIN: 0.7, words.ZERO_START: 0.3}
    text = discussed(means | {words.CANONICAL: 0.001})
    assert "is +0.0000 +- 0.0058 nats per node (standard error of 3 paired seeds; 95 %: " in text
    assert "less than 2 standard errors, it does not show" in text
    assert "it shows" not in text
    assert "graph normalizing flow, zero start is better than graph normalizing flow" in text
    assert "none of these fits stands there" in text
    assert "is 'graph exponential', 3.800, not below the paper's best (3.68)" in text
    assert "a ceiling to measure the others by, not a rival" in text
    assert "(4.224): graph normalizing flow." in text
    loss = discussed({words.PER_NODE: 0.2, words.EXPONENTIAL: 0.4})
    assert "is -0.2000 +- 0.0058 nats per node (standard error of 3 paired seeds" in loss
    assert "it is a loss." in loss


def test_few_seeds_show_less_than_their_standard_error_says():
    text = discussed({words.PER_NODE: 0.22, words.EXPONENTIAL: 0.2})
    assert "is +0.0200 +- 0.0058 nats per node (standard error of 3 paired seeds; 95 %: -0.0048 to +0.0448)" in text
    assert "more than 2 standard errors, but the interval does not leave out zero" in text
    assert "it shows" not in text


def test_steps_that_differ_are_said():
    found = evidence({words.PER_NODE: 0.5, words.EXPONENTIAL: 0.1})
    found.rows["MoG-4"][words.PER_NODE][0] = result(words.PER_NODE, 0, 0.5, steps=70)
    text = "\n".join(words.discuss(found))
    assert "the numbers of steps differ (70 to 100)" in text
    assert "at equal steps is" not in text


def test_tables_of_divergences():
    experiment = convexp_graphs.table_4("cpu")
    rows = evidence({words.PER_NODE: 0.5, words.EXPONENTIAL: 0.1}).rows["MoG-4"]
    rows[words.MATCHING] = [result(words.MATCHING, 0, 0.02, graphs=4000)]
    rows[words.CANONICAL] = [result(words.CANONICAL, seed, 0.0004, likelihood="bound") for seed in range(2)]
    every = {data.title: {title: [] for title in rows} for data in experiment.data} | {"MoG-4": rows}
    lines = {line[0]: line for line in overview_table(experiment, every).rows}
    assert lines[words.EXPONENTIAL][1:6] == [words.BIJECTION, "3.7000 +- 0.0115", "3.68 +- 0.017", "-", "4.52 +- 0.047"]
    assert lines[words.CANONICAL][2] == "<= 3.6004 +- 0.0000"
    table = divergence_table(experiment, experiment.data[0], rows, ["a note"])
    named = {line[0]: dict(zip(table.headings, line, strict=True)) for line in table.rows}
    # A single seed has the error over its graphs.
    assert named[words.MATCHING]["KL"] == "0.0200 +- 0.0010"
    assert named[words.MATCHING]["test graphs"] == "4,000"
    assert named[words.EXPONENTIAL]["KL minus per-node mixing [95 %]"].startswith("-0.400 [-0.425")
    assert named[words.PER_NODE]["KL minus per-node mixing [95 %]"] == "0"
    # Of fewer graphs than the row it would be compared with.
    assert named[words.MATCHING]["KL minus per-node mixing [95 %]"] == "-"
    assert named[words.SPLINES]["KL"] == "-"
    assert table.notes[-1] == "a note"


@pytest.mark.parametrize("data", words.MOMENTS)
def test_the_linear_gain_is_that_of_two_covariances(data):
    x = open_data(DataChoice(source=convexp_graphs.COLUMNS[data], drawn={"test": 20_000})).read_all("test").x
    nodes = words.MOMENTS[data][0]
    feature = x.reshape(-1, nodes, 2)[..., 0].numpy()
    whole = np.cov(feature.T)
    mean, cross = whole.trace() / nodes, (whole.sum() - whole.trace()) / (nodes * (nodes - 1))
    exchangeable = np.full((nodes, nodes), cross) + (mean - cross) * np.eye(nodes)
    # Two features of half a log-determinant each.
    gain = math.log(mean) - np.linalg.slogdet(exchangeable)[1] / nodes
    assert words.linear_gain(data) == pytest.approx(gain, abs=0.01)


def test_the_unit_of_a_node():
    assert Unit.per_node(2).pick(bits=3.6 / math.log(4), nats=-9.0) == pytest.approx(3.6)
    assert not Unit.per_node(2).higher_is_better


def test_what_the_table_takes_is_known_beforehand():
    table = convexp_graphs.table_4("cpu")
    assert time_of(table.cells(), 2) == "about 2.8 hours"
    # With a limit on time it is a limit.
    assert time_of(table.within(10.0).cells(seeds=1), 1).startswith("at most 3")
    cells = [cell for cell in table.cells(seeds=1) if isinstance(cell, Cell) and cell.data.source == "mog-9"]
    found = list(estimates(cells))
    steps = {each.cell.method: each.steps for each in found}
    assert (steps[words.FLAT], steps[words.MATCHING]) == (2700, None)
    assert not any(each.measured for each in found)
