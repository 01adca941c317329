"""Hidden elements are drawn from the model's own conditional distribution."""

import itertools

import numpy as np
import pytest
import torch

import likelify as lk
from likelify.errors import ConfigError, InexactLikelihoodError, LikelifyWarning, ShapeError
from likelify.fitting.drawing.guessing import Guess
from likelify.fitting.drawing.inpainting import complete
from likelify.fitting.drawing.tempering import Effort, effective_size, tempered
from tests.fitting.toys import tiny_flow

SMALL = Effort(islands=8, particles=32, moves=3, last_moves=10)


def gaussian(size=4):
    """Return a flow that is a Gaussian, with its mean and covariance."""
    with lk.seeded(0):
        layer = lk.transforms.FreeLinear(size, size)
        for parameter in layer.parameters():
            parameter.data.add_(0.4 * torch.randn_like(parameter))
        flow = lk.Flow(lk.Normal((size,)), layer, event_shape=(size,)).double()
        with torch.no_grad():
            ends = flow.transform.inverse(torch.cat([torch.zeros(1, size), torch.eye(size)]).double())[0]
    root = (ends[1:] - ends[0]).T
    return flow, ends[0], root @ root.T


def test_draws_of_a_gaussian_have_its_conditional_moments():
    flow, mean, covariance = gaussian()
    hidden = torch.tensor([True, False, True, False])
    known = flow.sample((2,)).double()
    found = complete(flow, known, hidden, 256, effort=SMALL, seed=1)
    slope = covariance[hidden][:, ~hidden] @ torch.linalg.inv(covariance[~hidden][:, ~hidden])
    spread = covariance[hidden][:, hidden] - slope @ covariance[~hidden][:, hidden]
    assert (found.x[:, :, ~hidden] == known[:, None, ~hidden]).all()
    for item, drawn, ess in zip(known, found.x[:, :, hidden], found.ess, strict=True):
        wanted = mean[hidden] + slope @ (item - mean)[~hidden]
        error = (spread.diagonal() / ess).sqrt()
        assert ((drawn.mean(0) - wanted).abs() < 4 * error).all()
        assert torch.allclose(torch.cov(drawn.T), spread, rtol=0.4, atol=0.25 * float(spread.diagonal().max()))


def test_a_guess_from_elsewhere_is_brought_to_the_density():
    # Of N(3, 0.25) a particle of N(0, 1) seldom knows; plain importance resampling would keep one or two.
    noise = torch.zeros(1, dtype=torch.float64)

    def log_weight(v):
        return (-0.5 * ((v - 3) / 0.5) ** 2 + 0.5 * v**2)[:, 0]

    with lk.seeded(0):
        found = tempered(log_weight, [slice(0, 1)], Effort(16, 128, 5, 10), noise, lambda share: None)
    assert found.rises > 1
    assert abs(float(found.noise.mean()) - 3) < 0.05
    assert abs(float(found.noise.std()) - 0.5) < 0.05


def test_random_weights_do_no_harm():
    noise = torch.zeros(1, dtype=torch.float64)

    def log_weight(v):
        # Their mean is that of N(1, 0.5): log-normal noise of mean one.
        exact = (-0.5 * ((v - 1) / 0.7) ** 2 + 0.5 * v**2)[:, 0]
        return exact + 0.8 * torch.randn(len(v), dtype=torch.float64) - 0.32

    with lk.seeded(0):
        found = tempered(log_weight, [slice(0, 1)], Effort(16, 128, 10, 20), noise, lambda share: None)
    assert abs(float(found.noise.mean()) - 1) < 0.08
    assert abs(float(found.noise.std()) - 0.7) < 0.06


def test_effective_sizes_are_those_of_independent_draws():
    with lk.seeded(0):
        draws = torch.randn(16, 50, 40)
    assert 500 < effective_size(draws) <= 800
    # Islands of one value each are worth one draw each.
    assert effective_size(draws[:, :1].expand(-1, 50, -1)) == pytest.approx(16, rel=0.1)
    assert effective_size(torch.ones(4, 3, 2)) == 12


def test_pixels_follow_the_probabilities_of_the_model():
    from tests.fitting.toys import stripes

    flow, train = tiny_flow(classes=3), stripes(labels=True).read_all("train")
    with lk.seeded(0):
        flow.initialize(train.x, train.labels)
        for parameter in flow.parameters():
            parameter.data.add_(0.3 * torch.randn_like(parameter))
    known = torch.tensor([[[1, 0], [1, 0]]]).expand(2, 1, 2, 2)
    hidden, labels = torch.tensor([[[False, True], [False, True]]]), torch.tensor([0, 2])
    effort = Effort(16, 64, 10, 80)
    found = complete(flow, known, hidden, 512, levels=3, labels=labels, effort=effort, seed=0)
    pairs = torch.tensor(list(itertools.product(range(3), repeat=2)))
    whole = known[:1].expand(9, 1, 2, 2).clone()
    whole[:, 0, :, 1] = pairs
    exact = []
    for label, drawn, ess in zip(labels, found.x[:, :, 0, :, 1], found.ess, strict=True):
        with lk.seeded(0), torch.no_grad():
            weighted = flow.iw_log_prob(whole, label.expand(9), samples=2000, warn=False)
        exact.append(weighted.value.softmax(0))
        shares = (drawn[:, None] == pairs).all(2).double().mean(0)
        assert (shares - exact[-1]).abs().max() < 4 * (0.25 / float(ess)) ** 0.5
    # There is something to find out, and the labels matter.
    assert max(map(torch.max, exact)) < 0.95
    assert (exact[0] - exact[1]).abs().max() > 0.2


def test_the_same_seed_gives_the_same_draws():
    flow, _, _ = gaussian()
    x, hidden = torch.zeros(1, 4, dtype=torch.float64), torch.tensor([True, True, False, False])
    one, same, other = (complete(flow, x, hidden, 4, effort=SMALL, seed=seed).x for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_few_independent_draws_are_warned_of():
    flow, _, _ = gaussian()
    x, hidden = torch.zeros(1, 4, dtype=torch.float64), torch.tensor([True, False, False, False])
    with pytest.warns(LikelifyWarning, match=r"draws of 1 of 1 items are worth few .* size is .*, where 30 are wanted"):
        complete(flow, x, hidden, 4, effort=Effort(4, 4))


def test_guesses_keep_the_histograms_of_levels():
    with lk.seeded(0):
        samples = torch.randint(0, 4, (2000, 2)) * torch.tensor([1, 0])
        guess = Guess.of(samples, 4)
        hidden = guess.given(torch.zeros(0), torch.tensor([True, True]))
        values, _ = hidden.values(torch.randn(4000, 2))
    assert 0 <= values.min() <= values.max() <= 4
    shares = torch.bincount(values[:, 0].floor().long(), minlength=4)[:4] / 4000
    assert torch.allclose(shares, torch.full((4,), 0.25), atol=0.08)
    assert (values[:, 1].floor() == 0).double().mean() > 0.98


def test_slopes_of_guesses_are_those_of_their_values():
    with lk.seeded(0):
        guess = Guess.of(torch.randint(0, 5, (500, 3)), 5).given(torch.tensor([2.5]), torch.tensor([True, False, True]))
    noise = torch.tensor([[0.3, -0.4], [0.1, 0.2]], dtype=torch.float64)
    base = guess.values(torch.zeros(1, 2))[1]
    at_zero = torch.autograd.functional.jacobian(lambda v: guess.values(v[None])[0][0], torch.zeros(2).double()).det()
    for each in noise:
        det = torch.autograd.functional.jacobian(lambda v: guess.values(v[None])[0][0], each).det()
        assert float(guess.values(each[None])[1] - base) == pytest.approx(float((det / at_zero).abs().log()), abs=1e-6)


@pytest.mark.parametrize(
    ("mask", "draws", "message"),
    [
        ([False] * 4, 1, "hides nothing"),
        ([True] * 4, 0, "1 to 256 draws"),
        ([True] * 4, 257, "1 to 256 draws"),
    ],
)
def test_what_cannot_be_drawn_is_refused(mask, draws, message):
    flow, _, _ = gaussian()
    with pytest.raises(ConfigError, match=message):
        complete(flow, torch.zeros(1, 4, dtype=torch.float64), torch.tensor(mask), draws, effort=SMALL)


def test_masks_and_flows_that_do_not_fit_are_refused():
    flow, _, _ = gaussian()
    with pytest.raises(ShapeError, match=r"mask has shape \(3,\); it must be \(4,\)"):
        complete(flow, torch.zeros(1, 4, dtype=torch.float64), torch.tensor([True] * 3))
    noisy = lk.Flow(lk.Normal((2,)), lk.LipschitzResidual(lk.nets.LipschitzMLP(2, (4,))), event_shape=(2,))
    with pytest.raises(InexactLikelihoodError, match="noisy estimate"):
        complete(noisy, torch.zeros(1, 2), torch.tensor([True, False]))


def test_what_is_hidden_may_be_missing(tmp_path):
    from likelify.fitting.drawing.remaking import _known_alone

    series = np.random.default_rng(0).normal(size=(3, 2, 8))
    mask = np.zeros((2, 8), dtype=bool)
    mask[:, 5:] = True
    unknown = np.where(mask, np.nan, series)
    assert np.array_equal(_known_alone(unknown, torch.from_numpy(mask)), np.where(mask, 0.0, series))
    unknown[0, 0, 0] = np.nan
    assert np.isnan(_known_alone(unknown, mask)).sum() == 1
