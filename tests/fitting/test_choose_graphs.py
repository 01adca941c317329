"""What suits which graphs."""

import pytest

from likelify.data import Facts, open_source
from likelify.errors import ConfigError
from likelify.fitting.choose import choose


def facts(train=1000, sizes=None, features=2, *, complete=True):
    graphs = {"sizes": sizes or {9: train}, "complete": complete}
    sizes = {"train": train, "validation": 100, "test": 100}
    return Facts(
        name="graphs:mine",
        family="graphs",
        kind="graph",
        event_shape=(features,),
        sizes=sizes,
        fingerprint="0",
        graphs=graphs,
    )


def test_a_source_of_graphs_has_a_model_and_a_fit():
    chosen = choose(open_source("mog-9").facts(), model="graph-flow")
    assert (chosen.title, chosen.threads, chosen.model.mixing) == ("graph-flow", 1, "graph-exponential")
    assert (chosen.fit.batch_size, chosen.fit.lr, chosen.fit.patience, chosen.fit.clock) == (
        128,
        1.5e-2,
        None,
        "processor",
    )


def test_few_graphs_have_dropout_and_patience():
    few, many = choose(facts(400)), choose(facts(100_000), model="graph-flow")
    assert (few.model.dropout, few.fit.patience, few.fit.batch_size) == (0.3, 10, 50)
    assert (many.model.dropout, many.fit.patience) == (0.0, None)
    assert few.fit.max_time < many.fit.max_time


def test_many_small_sets_of_points_have_a_continuous_flow():
    assert choose(open_source("mog-ring").facts()).title == choose(facts(2000)).title == "point-flow"
    for graphs in (facts(1999), facts(3000, sizes={33: 3000}), facts(3000, complete=False)):
        assert choose(graphs).title == "graph-flow"
    assert choose(facts(3000), model_settings={"mixing": "per-node"}).title == "graph-flow"


@pytest.mark.parametrize(
    ("nodes", "complete", "batch"), [(9, True, 125), (200, True, 6), (200, False, 81), (100_000, False, 1)]
)
def test_batches_are_smaller_for_larger_graphs(nodes, complete, batch):
    assert choose(facts(sizes={nodes: 1000}, complete=complete)).fit.batch_size == batch


def test_one_feature_has_no_couplings():
    assert choose(facts(features=1)).model.coupling == "sylvester"


def test_the_flat_model_has_the_size_of_the_graphs():
    assert choose(facts(), model="graph-flat").model.nodes == 9
    with pytest.raises(
        ConfigError, match="'graph-flat' is for graphs of one size, and those of this source have 3 to 5"
    ):
        choose(facts(sizes={3: 500, 5: 500}), model="graph-flat")
