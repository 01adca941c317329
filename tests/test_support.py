"""Outside of its support a flow has density zero, row by row; its draws stay inside."""

import math

import pytest
import torch

import likelify as lk
from likelify import testing, transforms
from likelify.errors import DomainError
from likelify.support import LINE, UNIT, Interval, check_domain, doubts, settle

INF = math.inf
# A bounded layer, values inside of its domain, values outside.
BOUNDED = {
    "tanh": (lambda: lk.Inverse(transforms.Tanh()), [-0.9, 0.5], [-1.0, 1.0, 2.0, INF]),
    "sigmoid": (lambda: lk.Inverse(transforms.Sigmoid()), [0.1, 0.7], [-0.5, 0.0, 1.0, 3.0]),
    "softplus": (lambda: lk.Inverse(transforms.Softplus()), [0.01, 4.0], [-1.0, 0.0, -INF]),
    "elu": (lambda: lk.Inverse(transforms.ELU()), [-0.9, 4.0], [-1.0, -5.0]),
    "logit": (lambda: lk.Logit(), [0.2, 0.9], [-1.0, 0.0, 1.0, 1.5]),
    "logit-alpha": (lambda: lk.Logit(0.05), [0.0, 1.0], [-0.01, 1.01]),
    "marginal": (lambda: lk.FittedMarginal(2, 4), [0.5, 3.9], [0.0, 4.0, -2.0, 9.0]),
    "abs": (lambda: lk.Chain([lk.Inverse(transforms.Abs()), lk.ActNorm(2)]), [0.0, 2.0], [-0.1]),
    "softplus-beta": (
        lambda: lk.Inverse(lk.Chain([lk.Affine(scale=2.0), transforms.Softplus(), lk.Affine(scale=0.5)])),
        [0.1, 4.0],
        [-1.0],
    ),
}
cases = pytest.mark.parametrize(("make", "inside", "outside"), BOUNDED.values(), ids=BOUNDED)


def flow_of(make):
    return testing.randomize(lk.Flow(lk.Normal(2), lk.Chain([make(), lk.ActNorm(2)])))


def rows_of(inside, outside):
    """Return rows that are inside, and rows of which one or both elements are not."""
    good = [[a, b] for a in inside for b in inside]
    bad = [[a, b] for a in inside for b in outside] + [[a, b] for a in outside for b in outside]
    return torch.tensor(good), torch.tensor(bad)


@cases
def test_rows_outside_have_density_zero_and_the_others_their_own(make, inside, outside):
    flow = flow_of(make)
    good, bad = rows_of(inside, outside)
    exact = flow.likelihood == "exact"
    with lk.seeded(0):
        alone = flow.elbo(good).value
    with lk.seeded(0):
        both = flow.elbo(torch.cat([good, bad])).value
    if exact:
        assert torch.allclose(both[: len(good)], alone)
        assert torch.equal(flow.log_prob(torch.cat([good, bad])), both)
        assert torch.isfinite(alone).all()
    assert torch.equal(both[len(good) :], torch.full((len(bad),), -INF))
    assert not torch.isneginf(both[: len(good)]).any()
    weighted = flow.iw_log_prob(bad, samples=3).value
    assert torch.isneginf(weighted).all()
    assert torch.equal(flow(bad), torch.full((len(bad),), INF))


@cases
def test_gradients_of_other_rows_stay_finite_and_right(make, inside, outside):
    flow = flow_of(make)
    good, bad = rows_of(inside, outside)
    wanted = []
    for rows in (good, torch.cat([good, bad])):
        flow.zero_grad()
        x = rows.clone().requires_grad_()
        with lk.seeded(0):
            value = flow.elbo(x).value
        value.sum().backward()
        assert torch.isfinite(x.grad).all()
        wanted.append([x.grad[: len(good)], *(p.grad.clone() for p in flow.parameters() if p.grad is not None)])
    if flow.likelihood == "exact":
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(wanted[0][:1], wanted[1][:1], strict=True))
    assert all(torch.isfinite(grad).all() for grad in wanted[1])


@cases
def test_a_layer_by_itself_and_a_sample_for_initialize_are_refused(make, inside, outside):
    good, bad = rows_of(inside, outside)
    layer = make()
    with pytest.raises(DomainError, match="lie outside"):
        layer(bad)
    with pytest.raises(DomainError, match="lie outside"):
        flow_of(make).initialize(torch.cat([good, bad]))
    assert layer.domain is not None
    # Other threads, and what comes after a flow's call, see the usual layer.
    flow_of(make).elbo(bad)
    with pytest.raises(DomainError):
        layer(bad)


def test_importance_weights_of_rows_outside_are_no_heavy_tails():
    flow = lk.Flow(lk.Normal(1), lk.Chain([lk.Augment(1, lk.Normal(1)), lk.Slice(1, lk.Normal(1)), lk.Logit()]))
    estimate = flow.iw_log_prob(torch.tensor([[0.5], [1.5]]), samples=40)
    assert torch.isneginf(estimate.value).tolist() == [False, True]
    several = flow.iw_log_prob(torch.rand(5, 2, 1), samples=40)
    assert several.value.shape == several.k.shape == several.interval[0].shape == several.ess.shape == (5, 2)


def test_compiled_flows_and_torch_func_do_the_same():
    flow = flow_of(BOUNDED["tanh"][0])
    rows = torch.tensor([[0.5, 0.1], [0.5, 1.0], [2.0, 0.0]])
    expected = flow.log_prob(rows)
    assert torch.equal(torch.func.vmap(lambda x: flow.log_prob(x[None])[0])(rows), expected)
    compiled = torch.compile(flow.log_prob, backend="eager", fullgraph=True)
    assert torch.equal(compiled(rows), expected)


def test_missing_values_are_no_values_outside():
    value = flow_of(BOUNDED["tanh"][0]).log_prob(torch.tensor([[math.nan, 0.5], [0.1, 0.5], [math.nan, 3.0]]))
    assert value.isnan().tolist()[:2] == [True, False]


def test_the_bounded_layer_may_be_in_a_split_prior_or_on_graphs():
    prior = lk.Flow(lk.Normal(1), lk.Logit())
    flow = lk.Flow(lk.Normal(1), lk.Slice(1, prior))
    assert torch.isneginf(flow.log_prob(torch.tensor([[0.0, 0.5], [0.0, 1.5]]))).tolist() == [False, True]
    graphs = lk.Context(structure=lk.GraphBatch(torch.tensor([2, 1]), torch.empty(2, 0, dtype=torch.long)))
    on_nodes = lk.Flow(lk.Normal(1), lk.Logit())
    assert torch.isneginf(on_nodes.log_prob(torch.tensor([[0.5], [2.0], [0.5]]), graphs)).tolist() == [True, False]


@pytest.mark.parametrize(
    "layer",
    [transforms.Tanh, transforms.Sigmoid, transforms.Softplus, transforms.ELU, lambda: lk.Inverse(lk.Logit())],
)
@pytest.mark.parametrize("scale", [2.0, 40.0])
def test_draws_stay_strictly_inside_in_float32(layer, scale):
    torch.manual_seed(0)
    flow = lk.Flow(lk.Normal(1), lk.Chain([lk.Inverse(layer()), lk.Affine(shift=-1.0, scale=1 / scale)]))
    with torch.no_grad():
        draws = flow.sample(100_000)
        assert torch.isfinite(flow.log_prob(draws)).all()


def test_draws_of_fitted_marginals_stay_inside():
    flow = lk.Flow(lk.Normal(1), lk.Chain([lk.FittedMarginal(1, 4), lk.Affine(scale=1 / 9)]))
    with torch.no_grad():
        assert torch.isfinite(flow.log_prob(flow.sample(50_000))).all()


def test_saturated_values_pass_on_to_a_base_on_the_interval():
    base = lk.Flow(lk.Normal(1), lk.Inverse(transforms.Sigmoid()))
    flow = lk.Flow(base, transforms.Sigmoid())
    x = torch.tensor([[30.0], [-200.0]], requires_grad=True)
    log_prob = flow.log_prob(x)
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all()
    assert torch.isfinite(x.grad).all()


def test_intervals_are_told_through_chains():
    for layer, domain, image in (
        (lk.ActNorm(2), None, None),
        (transforms.Sigmoid(), None, UNIT),
        (lk.Inverse(transforms.Sigmoid()), UNIT, None),
        (lk.Chain([lk.Permute([1, 0]), lk.Logit(), lk.ActNorm(2)]), UNIT, None),
        (lk.Chain([transforms.Tanh(), lk.Affine(shift=1.0, scale=-0.5)]), None, Interval(-1.0, 0.0)),
        (lk.Chain([transforms.Softplus(), lk.Conv1x1(2)]), None, None),
    ):
        assert (layer.domain, layer.image) == (domain, image)
    assert [str(i) for i in (LINE, Interval(0.0, INF, closed=True))] == ["(-inf, inf)", "[0, inf)"]


class OnAccelerator(torch.Tensor):
    """Says that it lies on an accelerator."""

    device = property(lambda _: torch.device("xpu"))


def test_training_on_an_accelerator_hears_of_values_outside_at_the_next_validation():
    inside = torch.tensor([True, False, True]).as_subclass(OnAccelerator)
    layer = lk.Logit()
    with pytest.raises(DomainError, match="Logit: 1 of 3 input values lie outside the unit interval"):
        check_domain(inside, layer, "the unit interval")
    with doubts() as found:
        check_domain(torch.tensor([True]).as_subclass(OnAccelerator), layer, "any")
        check_domain(inside, layer, "the unit interval")
    with pytest.raises(DomainError, match="Logit: 1 of 3 input values lie outside the unit interval"):
        settle(found)
    settle(found[:1])
    with doubts() as found, pytest.raises(DomainError):
        check_domain(torch.tensor([False]), layer, "any")
    assert found == []
    settle(found)
