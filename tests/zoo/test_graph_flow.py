"""Models of graphs: couplings that know no order of the nodes, and the flat ones that do."""

import json

import pytest
import torch

import likelify as lk
from likelify import testing, zoo
from likelify.errors import ConfigError
from tests.cases import normal, weighted_graphs

SMALL = {"layers": 2, "width": 4, "heads": 2, "frequencies": 2, "bins": 3}
SETTINGS = {
    "paper": {"mixing": "graph-exponential", "coupling": "affine", "net": "message-passing"},
    "none": {"mixing": "none", "coupling": "affine", "net": "message-passing", "zero_start": False},
    "per-node": {"mixing": "per-node", "rounds": 2},
    "both": {"mixing": "both", "net": "message-passing"},
    "sylvester": {"coupling": "sylvester", "mixing": "none"},
}


def graphs():
    return lk.Context(structure=weighted_graphs())


def fitted(features=2, nodes=5, context=None, **settings):
    flow = zoo.build("graph-flow", event_shape=features, **SMALL | settings).double()
    x = 3 + 2 * normal(nodes, features)
    flow.initialize(x, graphs() if context is None else context)
    testing.randomize(flow, scale=0.1)
    return flow, x


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_densities_of_graphs_know_no_order_and_draws_follow_them(settings):
    flow, x = fitted(**settings)
    assert flow.likelihood == "exact"
    testing.check_permutation_equivariance(flow, x, graphs(), tol=1e-9)
    drawn, log_prob = flow.sample_and_log_prob((2,), graphs())
    assert drawn.shape == (2, 5, 2)
    torch.testing.assert_close(flow.log_prob(drawn, graphs()), log_prob, atol=1e-8, rtol=0)


@pytest.mark.parametrize(("features", "settings"), [(1, {"coupling": "sylvester"}), (3, {}), (4, SETTINGS["paper"])])
def test_any_number_of_features(features, settings):
    flow, x = fitted(features, **settings)
    jacobian = torch.autograd.functional.jacobian(lambda v: flow.transform(v, graphs())[0], x)
    expected = torch.linalg.slogdet(jacobian.reshape(5 * features, -1))[1]
    torch.testing.assert_close(flow.transform(x, graphs())[1].sum(), expected, atol=1e-8, rtol=0)


def test_likelihoods_are_in_the_units_of_the_features():
    flow, x = fitted()
    factor = torch.tensor([10.0, 0.1]).double() * 5
    other = zoo.build("graph-flow", event_shape=2, **SMALL).double()
    other.load_state_dict(flow.state_dict())
    other.transform[0].initialize(x * factor)
    nodes = weighted_graphs().sizes
    expected = flow.log_prob(x, graphs()) - nodes * factor.log().sum()
    torch.testing.assert_close(other.log_prob(x * factor, graphs()), expected, atol=1e-6, rtol=0)


def test_classes_are_those_of_graphs():
    flow, x = fitted(classes=3, context=lk.Context(torch.tensor([0, 1]), weighted_graphs()))
    one, other = (flow.log_prob(x, lk.Context(torch.tensor(labels), weighted_graphs())) for labels in ([0, 1], [0, 2]))
    assert one[0] == other[0]
    assert one[1] != other[1]


def test_a_fresh_flow_is_normal_with_the_moments_of_the_data():
    flow = zoo.build("graph-flow", event_shape=2, **SMALL | {"mixing": "none"}).double()
    x = 3 + 2 * normal(200, 2)
    context = lk.Context(structure=lk.GraphBatch.complete([50] * 4))
    flow.initialize(x, context)
    mean, scale = x.mean(0), x.std(0, correction=0)
    expected = torch.distributions.Normal(mean, scale).log_prob(x).sum(1).reshape(4, 50).sum(1)
    torch.testing.assert_close(flow.log_prob(x, context), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"coupling": "spline", "mixing": "permutation", "classes": 3}])
def test_the_flat_model_takes_graphs_of_one_size_in_their_order(settings):
    flow = zoo.build("graph-flat", event_shape=2, nodes=3, layers=2, width=4, bins=3, **settings).double()
    x, structure = 3 + 2 * normal(12, 2), lk.GraphBatch.complete([3] * 4)
    context = lk.Context(torch.tensor([0, 1, 2, 0]) if "classes" in settings else None, structure)
    flow.initialize(x, context)
    testing.randomize(flow, scale=0.1)
    with pytest.raises(AssertionError, match="log_prob"):
        testing.check_permutation_equivariance(
            flow, x, lk.Context(structure=structure) if not settings else _spread(context)
        )
    drawn, log_prob = flow.sample_and_log_prob((2,), context)
    torch.testing.assert_close(flow.log_prob(drawn, context), log_prob, atol=1e-8, rtol=0)


def _spread(context):
    return lk.Context(context.condition[context.structure.owner], context.structure)


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("graph-flow", {"event_shape": 1}, "these nodes have one feature. Set coupling to 'sylvester'"),
        ("graph-flow", {"event_shape": 2, "width": 9}, "a multiple of the heads, not 9 for 2"),
        ("graph-flow", {"event_shape": 2, "mixing": "per-nod"}, "Did you mean 'per-node'"),
        ("graph-flat", {"event_shape": 1, "nodes": 1}, "single numbers, which no coupling divides"),
    ],
)
def test_what_cannot_be_built_is_refused(model, settings, message):
    with pytest.raises(ConfigError, match=message):
        zoo.build(model, **settings)


@pytest.mark.parametrize("model", ["graph-flow", "graph-flat"])
def test_settings_survive_json(model):
    given = {"event_shape": 2, "layers": 1, "width": 4} | ({"nodes": 3} if model == "graph-flat" else {"heads": 2})
    config = zoo.MODELS[model](**given)
    assert zoo.config_from_dict(json.loads(config.model_dump_json())) == config
