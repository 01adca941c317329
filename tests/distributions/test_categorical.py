"""Distributions: what they refuse, and categorical ones of pixels."""

import itertools

import pytest
import torch
from torch import nn

import likelify as lk
from likelify import testing
from likelify.errors import ConfigError, DomainError, ShapeError, UnsupportedError

PAIRS = torch.tensor(list(itertools.product(range(3), repeat=2)))


def pixels(latent, levels=3):
    return lk.distributions.ConditionalCategorical(nn.Linear(latent, levels * 2), levels)


def test_categorical_probabilities_add_up_to_one_and_samples_follow_them():
    with lk.seeded(1):
        distribution = testing.randomize(lk.distributions.ConditionalCategorical(nn.Linear(2, 6), 3), scale=1.0)
    condition = torch.tensor([[0.5, -1.0]])
    log_prob = distribution.log_prob(PAIRS, condition.expand(9, 2))
    assert torch.allclose(log_prob.exp().sum(), torch.ones(()))
    # The layout: first level of both channels, then the second, then the third.
    odds = distribution.net(condition)[0].reshape(3, 2).log_softmax(0)
    assert torch.allclose(log_prob, odds[PAIRS[:, 0], 0] + odds[PAIRS[:, 1], 1])
    with lk.seeded(0):
        drawn, drawn_log_prob = distribution.sample_and_log_prob((20000,), condition)
    assert drawn.shape == (20000, 1, 2)
    assert drawn_log_prob.shape == (20000, 1)
    assert torch.allclose(drawn_log_prob[:, 0], distribution.log_prob(drawn[:, 0], condition.expand(20000, 2)))
    share = torch.stack([(drawn[:, 0] == pair).all(1).float().mean() for pair in PAIRS])
    assert torch.allclose(share, log_prob.exp(), atol=0.015)
    with lk.seeded(0):
        warm = distribution.sample((20000,), lk.Context(condition, temperature=2.0))[:, 0, 0]
    expected = (odds[:, 0] / 2).softmax(0)
    assert torch.allclose(torch.stack([(warm == level).float().mean() for level in range(3)]), expected, atol=0.015)


def test_categorical_works_on_images_graphs_and_has_gradients():
    distribution = lk.distributions.ConditionalCategorical(nn.Conv2d(2, 2 * 4, 3, padding=1), 4)
    condition = torch.randn(3, 2, 5, 4)
    x = distribution.sample((), condition)
    assert x.shape == (3, 2, 5, 4)
    assert torch.equal(distribution.log_prob(x, condition), distribution.log_prob(x.to(torch.uint8), condition))
    _, log_prob = distribution.sample_and_log_prob((2,), condition)
    log_prob.sum().backward()
    assert float(distribution.net.weight.grad.abs().sum()) > 0
    graphs = lk.GraphBatch(torch.tensor([2, 3]), torch.zeros(2, 0, dtype=torch.long))
    nodes = lk.distributions.ConditionalCategorical(nn.Linear(2, 3), 3)
    drawn, log_prob = nodes.sample_and_log_prob((4,), lk.Context(torch.randn(5, 2), graphs))
    assert drawn.shape == (4, 5, 1)
    assert log_prob.shape == (4, 2)


def test_categorical_refuses_what_it_cannot_do():
    distribution = pixels(2)
    condition = torch.zeros(2, 2)
    with pytest.raises(DomainError, match=r"not integers 0\.\.2"):
        distribution.log_prob(torch.tensor([[0, 3], [0, 1]]), condition)
    with pytest.raises(DomainError, match="not integers"):
        distribution.log_prob(torch.tensor([[0, 0.5], [0, 1]]), condition)
    with pytest.raises(ShapeError, match=r"events \(2,\) in 2 rows"):
        distribution.log_prob(torch.zeros(2, 3), condition)
    with pytest.raises(UnsupportedError, match="needs a condition"):
        distribution.log_prob(torch.zeros(2, 2))
    with pytest.raises(UnsupportedError, match="use sample"):
        distribution.rsample((), condition)
    with pytest.raises(ShapeError, match="multiple of the 4 levels"):
        lk.distributions.ConditionalCategorical(nn.Linear(2, 6), 4).sample((), condition)
    with pytest.raises(ConfigError, match="at least 2"):
        lk.distributions.ConditionalCategorical(nn.Linear(2, 6), 1)


@pytest.mark.parametrize("base", [lk.Normal, lk.distributions.RectifiedNormal])
def test_what_has_no_density_is_refused(base):
    with pytest.raises(UnsupportedError, match="works on tensors and got a ndarray"):
        base(2).log_prob(torch.zeros(3, 2).numpy())
    with pytest.raises(DomainError, match=r"real values and got torch\.int64"):
        base(2).log_prob(torch.ones(3, 2, dtype=torch.long))
