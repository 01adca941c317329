"""Mixtures of distributions: density, draws, weights, what is known of members."""

import copy

import pytest
import torch
from torch import nn

import likelify as lk
from likelify import distributions, nets
from likelify.distributions import Mixture, OfReals
from likelify.errors import ConfigError, ShapeError, UnsupportedError
from likelify.schema import real_columns
from tests.distributions.toys import columns, mixed_cells


class Known(distributions.Distribution):
    """A distribution that gives the log-densities that it is told; it cannot draw."""

    def __init__(self, *values):
        super().__init__()
        self.values = torch.tensor(values, dtype=torch.float64)

    def log_prob(self, x, context=None):
        return self.values[: len(x)]


def shifted(loc, log_scale=0.0):
    """Return a trainable normal distribution there."""
    found = lk.Normal(1, trainable=True)
    nn.init.constant_(found.loc, loc)
    nn.init.constant_(found.log_scale, log_scale)
    return found.double()


def test_density_draws_and_weights():
    pair = Mixture([shifted(-2.0), shifted(3.0, -1.0)]).double()
    with torch.no_grad():
        pair.log_odds.copy_(torch.tensor([0.3, 1.0]))
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None]
    density = pair.log_prob(x).detach().exp()
    assert abs(float(density.sum() * 0.004) - 1) < 1e-6
    drawn, log_prob = pair.sample_and_log_prob((2, 10_000))
    assert drawn.shape == (2, 10_000, 1)
    assert torch.allclose(log_prob[1], pair.log_prob(drawn[1]))
    assert abs(float((drawn > 0.5).double().mean() - pair.weights[1])) < 0.01
    # A draw says nothing of the place in the batch.
    assert abs(float((drawn[0, :5000] > 0.5).double().mean() - pair.weights[1])) < 0.03
    responsible = pair.responsibilities(torch.tensor([[-2.0], [3.0]]).double())
    assert responsible.argmax(1).tolist() == [0, 1]
    assert torch.allclose(responsible.sum(1), torch.ones(2).double())
    assert pair.sample().shape == (1,)
    assert pair.sample((0,)).shape == (0, 1)


def test_weights_are_trained_with_the_members_or_by_stacking_alone():
    together, apart = (Mixture([shifted(0.0), shifted(1.0)], apart=apart).double() for apart in (False, True))
    assert "log_odds" in dict(together.named_parameters())
    assert "log_odds" in apart.state_dict()
    assert "log_odds" not in dict(apart.named_parameters())
    fresh = Mixture([shifted(5.0), shifted(5.0)], apart=True).double()
    apart.stack(torch.randn(50, 1, dtype=torch.float64))
    fresh.load_state_dict(apart.state_dict())
    assert torch.equal(fresh.log_prob(torch.ones(3, 1).double()), apart.log_prob(torch.ones(3, 1).double()))
    x = torch.randn(6, 1, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *_: together.log_prob(x), list(together.parameters()))


def test_members_apart_are_trained_by_themselves():
    fixed = Known(*[torch.nan] * 5)
    mixture = Mixture([shifted(0.0), fixed, shifted(1.0)], apart=True)
    x = torch.randn(5, 1, dtype=torch.float64)
    with nets.regularized(mixture):
        mean = torch.stack([mixture.members[i].log_prob(x) for i in (0, 2)]).mean(0)
        # What has no parameters is not even computed.
        assert torch.equal(mixture.log_prob(x), mean)
        copied = copy.deepcopy(mixture)
    assert mixture.log_prob(x).isnan().all()
    assert copied.log_prob(x).isnan().all()
    # Without trainable members a training step has nothing else to train.
    still = Mixture([lk.Normal(1)], apart=True)
    with nets.regularized(still):
        assert torch.equal(still.log_prob(x.float()), lk.Normal(1).log_prob(x.float()))


def test_stacking_is_expectation_and_maximization_with_one_row_of_prior():
    log_probs = torch.randn(3, 40, dtype=torch.float64)
    mixture = Mixture([Known(*row) for row in log_probs.tolist()], apart=True).double()
    mixture.stack(torch.zeros(40, 1))
    weights = mixture.weights
    # At the maximum of the log-likelihood plus the prior row, the weights are mean responsibilities.
    shares = (log_probs + weights.log()[:, None]).softmax(0)
    assert torch.allclose((shares.sum(1) + 1 / 3) / 41, weights, atol=1e-6)
    assert torch.allclose(weights.sum(), torch.ones(()).double())
    # It begins anew each time.
    before = weights.clone()
    mixture.stack(torch.zeros(40, 1))
    assert torch.equal(mixture.weights, before)


def test_rows_that_no_member_can_have_made_have_no_say():
    never = -torch.inf
    mixture = Mixture([Known(0.0, never, 0.0), Known(-3.0, never, never)], apart=True).double()
    mixture.stack(torch.zeros(3, 1))
    assert mixture.log_weights.isfinite().all()
    assert mixture.weights[0] > 0.75
    assert mixture.log_prob(torch.zeros(3, 1))[1] == never
    Mixture([Known(never)] * 2, apart=True).double().stack(torch.zeros(1, 1))


def test_mixtures_of_mixtures_and_flows():
    inner = Mixture([shifted(0.0), shifted(4.0)], apart=True).double()
    flow = lk.Flow(Mixture([inner, shifted(-4.0)], apart=True).double(), lk.ActNorm(1).double())
    x = 2 + 3 * torch.randn(500, 1, dtype=torch.float64)
    flow.initialize(x)
    assert flow.stacks
    assert not lk.Flow(lk.Normal(1), lk.ActNorm(1)).stacks
    flow.stack(x)
    assert not torch.equal(inner.weights, torch.full((2,), 0.5).double())
    assert flow.likelihood == "exact"
    drawn, log_prob = flow.sample_and_log_prob((4, 3))
    assert torch.allclose(flow.log_prob(drawn), log_prob)
    assert flow.sample((4,)).shape == (4, 1)


def test_a_flow_initializes_its_base():
    x = 5 + torch.randn(100, 2).relu()
    base = distributions.RectifiedNormal(2)
    lk.Flow(base, lk.transforms.Affine(scale=1.0, shift=-5.0)).initialize(x)
    zeros = (x == 5).double().mean(0)
    assert torch.allclose(base.log_odds.detach().sigmoid().double(), zeros, atol=0.01)


def test_conditions_reach_the_members():
    pair = Mixture([distributions.ConditionalNormal(nn.Linear(2, 4)), distributions.ConditionalNormal(nn.Linear(2, 4))])
    condition = torch.randn(6, 2)
    assert pair.reads_condition
    drawn, log_prob = pair.sample_and_log_prob((3,), condition)
    assert drawn.shape == (3, 6, 2)
    assert torch.allclose(log_prob[2], pair.log_prob(drawn[2], condition))


def test_noise_is_that_of_a_trained_member_and_of_equals_the_first():
    fixed, first, second = lk.Normal(1).double(), shifted(1.0), shifted(4.0, 1.0)
    mixture = Mixture([fixed, first, second], apart=True).double()
    x = torch.zeros(1, 1, dtype=torch.float64)
    for odds, noisy in (([5.0, 0.0, 0.0], first), ([5.0, 0.0, 1.0], second), ([5.0, 1.0, 0.0], first)):
        mixture.log_odds.copy_(torch.tensor(odds))
        assert torch.equal(mixture.to_noise(x), noisy.to_noise(x))
    assert torch.equal(Mixture([fixed, Known(0.0)]).to_noise(x), fixed.to_noise(x))


def test_noise_is_that_of_the_heaviest_member_that_has_some():
    first, second = lk.Normal(2), shifted(0.0, 1.0)
    mixture = Mixture([Known(0.0), lk.Normal(1), lk.distributions.StudentT(1)], apart=True)
    mixture.log_odds.copy_(torch.tensor([5.0, 0.0, 2.0]))
    x = torch.randn(4, 1)
    assert torch.equal(mixture.from_noise(mixture.to_noise(x)), x)
    with pytest.raises(UnsupportedError, match="made of normal noise"):
        Mixture([Known(0.0)]).to_noise(x)
    with pytest.raises(ShapeError, match="different events"):
        Mixture([first, second])
    with pytest.raises(ConfigError, match="at least one"):
        Mixture([])
    with pytest.raises(ConfigError, match="got a Linear"):
        Mixture([nn.Linear(1, 1)])


def test_completions_weigh_members_by_what_is_known():
    order = [(0, 1, 2, 3), (1, 3, 0, 2)]
    members = [columns(order=order[0], spread=0.7), columns(order=order[1], net=False, spread=0.7)]
    mixture = Mixture(members, apart=True).double()
    mixture.log_odds.copy_(torch.tensor([0.0, 0.5]))
    x = mixed_cells(3)
    # Size and colour come first in one order only.
    known = torch.tensor([True, True, False, False])
    drawn, weight = mixture.complete(x, known, draws=30_000)
    assert drawn.shape == (30_000, 3, 3, 4)
    assert torch.equal(drawn[..., :2], x[..., :2].expand(30_000, -1, -1, -1))
    evidence = torch.stack([m.complete(x, known, draws=30_000)[1].exp().mean(0) for m in members])
    exact = (mixture.weights[:, None] * evidence).sum(0)
    assert torch.allclose(weight.exp().mean(0), exact, rtol=0.03)
    # What was drawn follows the mixture of both conditionals.
    share = weight.softmax(0)
    posterior = mixture.weights[:, None] * evidence / exact
    parts = []
    for member in members:
        found, own = member.complete(x, known, draws=30_000)
        parts.append((own.softmax(0) * (found[:, :, 0, 2] == 1)).sum(0))
    assert torch.allclose((share * (drawn[:, :, 0, 2] == 1)).sum(0), (posterior * torch.stack(parts)).sum(0), atol=0.02)


def test_completions_make_up_for_members_that_cannot():
    able = columns(real_columns(2), net=False)
    other = distributions.GaussianMixture(2, 2).double()
    other.means.copy_(torch.tensor([[2.0, 1.0], [-2.0, -1.0]]))
    mixture = Mixture([able, OfReals(other)], apart=True).double()
    z = torch.tensor([[1.5, 0.0]]).double()
    x = torch.stack([torch.zeros_like(z), z, torch.zeros_like(z)], 1)
    drawn, weight = mixture.complete(x, torch.tensor([True, False]), draws=40_000)
    grid = torch.linspace(-9, 9, 2001, dtype=torch.float64)
    line = x.expand(2001, -1, -1).clone()
    line[:, 1, 1] = grid
    density = mixture.log_prob(line).exp()
    evidence = density.sum() * (grid[1] - grid[0])
    mean = (density * grid).sum() * (grid[1] - grid[0]) / evidence
    assert abs(float(weight.exp().mean() / evidence) - 1) < 0.03
    assert abs(float((weight[:, 0].softmax(0) * drawn[:, 0, 1, 1]).sum() - mean)) < 0.05
    with pytest.raises(UnsupportedError, match="draw some columns"):
        Mixture([OfReals(other)]).complete(x, torch.tensor([True, False]))


def test_reals_as_cells():
    base = distributions.GaussianMixture(2, 3).double()
    cells = OfReals(base)
    drawn, log_prob = cells.sample_and_log_prob((7,))
    assert drawn.shape == (7, 3, 2)
    assert torch.equal(log_prob, base.log_prob(drawn[:, 1]))
    drawn[0, 0, 1] = 1
    assert cells.log_prob(drawn)[0] == -torch.inf
    assert cells.log_prob(drawn)[1:].isfinite().all()
    flow = OfReals(lk.Flow(lk.Normal(2), lk.ActNorm(2)))
    x = torch.stack([torch.zeros(50, 2), 3 * torch.randn(50, 2), torch.zeros(50, 2)], 1)
    flow.initialize(x)
    assert torch.allclose(flow.from_noise(flow.to_noise(x)), x, atol=1e-5)
    assert abs(float(flow.to_noise(x).detach().std()) - 1) < 0.05
    with pytest.raises(UnsupportedError, match="vectors"):
        OfReals(lk.Normal((1, 2)))


def test_weights_that_are_trained_are_not_stacked():
    inner = Mixture([shifted(0.0), shifted(4.0)], apart=True).double()
    plain, outer = Mixture([shifted(0.0), shifted(4.0)]).double(), Mixture([inner, shifted(-4.0)]).double()
    assert (inner.stacks, plain.stacks, outer.stacks) == (True, False, True)
    x = torch.full((50, 1), 4.0).double()
    plain.stack(x)
    outer.stack(x)
    assert plain.weights.tolist() == outer.weights.tolist() == [0.5, 0.5]
    assert inner.weights[1] > 0.9


def test_a_fit_keeps_the_weights_that_it_trained():
    flow = lk.Flow(Mixture([shifted(0.0), shifted(4.0)]), lk.transforms.Identity())
    rows = 4 * (torch.rand(200, 1, dtype=torch.float64) < 0.9) + torch.randn(200, 1, dtype=torch.float64)
    # In one small step the weights hardly move; chosen by stacking they would be where the rows are.
    lk.fit(flow, rows, steps=1, lr=1e-4, validations=1, initialize=False)
    assert flow.base.weights.tolist() == pytest.approx([0.5, 0.5], abs=1e-2)


def test_atoms_and_densities_are_not_added_up():
    with pytest.raises(UnsupportedError, match=r"probability of their own \(RectifiedNormal\)"):
        Mixture([distributions.RectifiedNormal(1), lk.Normal(1)])


@pytest.mark.parametrize("members", [("autoregressive", "splines"), ("couplings",), ("splines",)])
def test_draws_of_models_of_small_tables_have_a_density(members):
    flow = lk.zoo.build("table-flow", event_shape=(3,), members=members)
    flow.initialize(torch.randn(50, 3, dtype=torch.float64))
    for seed in range(4):
        with lk.seeded(seed):
            drawn, log_prob = flow.sample_and_log_prob((20,))
        torch.testing.assert_close(log_prob, flow.log_prob(drawn), rtol=1e-3, atol=1e-2, check_dtype=False)
