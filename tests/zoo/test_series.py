"""The model of sequences: any length, real numbers and integers, labels, and what it is before training."""

from typing import get_args

import pytest
import torch

import likelify as lk
from likelify import nets, zoo
from likelify.errors import ConfigError, ShapeError
from likelify.names import SequenceMixing
from likelify.testing import randomize
from likelify.transforms import Crop, LinearPrediction

SMALL = {"hidden": 6, "steps": 1, "blocks": 1, "bins": 3}
LENGTHS = (1, 2, 3, 7, 13, 64, 1000)


def series(rows: int, *shape: int) -> torch.Tensor:
    return 1e6 + 3 * torch.randn(rows, *shape, dtype=torch.float64).cumsum(-1)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("channels", [1, 3])
def test_real_sequences_of_any_length(channels, length):
    flow = zoo.build("series", event_shape=(channels, length), **SMALL)
    x = series(9, channels, length)
    flow.initialize(x)
    randomize(flow.transform[1:], scale=0.02)
    assert flow.likelihood == "exact"
    values = flow.log_prob(x)
    assert values.shape == (9,)
    assert torch.isfinite(values).all()
    drawn = flow.sample((4,))
    assert drawn.shape == (4, channels, length)
    assert abs(float(drawn.mean()) - 1e6) < 1000


@pytest.mark.parametrize("length", [1, 2, 7, 20])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("levels", [None, 5])
def test_labels_are_read(channels, length, levels):
    flow = zoo.build("series", event_shape=(channels, length), classes=3, pixel_levels=levels, **SMALL)
    labels = torch.arange(9) % 3
    x = series(9, channels, length) if levels is None else torch.randint(levels, (9, channels, length))
    flow.initialize(x, labels)
    randomize(flow, scale=0.1)
    with lk.seeded(0):
        values = flow.elbo(x, labels).value
    with lk.seeded(0):
        others = flow.elbo(x, (labels + 1) % 3).value
    assert torch.isfinite(values).all()
    assert not bool((values == others).any())
    drawn = flow.sample((), labels)
    assert drawn.shape == x.shape
    if levels is not None:
        assert flow.likelihood == "bound"
        assert bool(((drawn >= 0) & (drawn < levels) & (drawn == drawn.floor())).all())


@pytest.mark.parametrize("mixing", get_args(SequenceMixing))
def test_every_mixing_goes_both_ways(mixing):
    flow = zoo.build("series", event_shape=(2, 12), mixing=mixing, levels=1, hidden=6).double()
    x = series(20, 2, 12)
    flow.initialize(x)
    randomize(flow.transform[1:], scale=0.05)
    z, contribution = flow.transform(x)
    again, back = flow.transform.inverse(z)
    assert torch.allclose(again, x, rtol=0, atol=1e-6)
    assert torch.allclose(back, -contribution, atol=1e-6)


@pytest.mark.parametrize("coupling", ["affine", "spline"])
def test_before_training_it_is_a_normal_distribution_with_full_covariance(coupling):
    x = torch.randn(3000, 8, dtype=torch.float64) @ torch.randn(8, 8, dtype=torch.float64)
    flow = zoo.build("series", event_shape=(1, 8), coupling=coupling, hidden=6).double()
    flow.initialize(x[:, None])
    normal = torch.distributions.MultivariateNormal(x.mean(0), x.T.cov())
    # The exponentials are near the identity only.
    with torch.no_grad():
        assert float((flow.log_prob(x[:, None]) - normal.log_prob(x)).mean().abs()) < 0.1


def test_scaling_the_data_moves_the_density_as_it_must():
    x = series(50, 2, 9)
    values = []
    for factor in (1.0, 1000.0):
        with lk.seeded(1):
            flow = zoo.build("series", event_shape=(2, 9), **SMALL)
        flow.initialize(factor * x)
        values.append(flow.log_prob(factor * x))
    assert torch.allclose(values[0] - values[1], torch.tensor(18 * 1000.0).new_full((50,), 18 * 6.907755), atol=0.02)


def test_what_is_in_front_depends_on_size_and_levels():
    def predicts(**settings):
        layers = zoo.build("series", **SMALL, **settings).transform
        return next(layer for layer in layers if isinstance(layer, LinearPrediction)).predict

    assert predicts(event_shape=(1, 1024))
    assert not predicts(event_shape=(3, 512))
    assert predicts(event_shape=(1, 8), pixel_levels=256)
    assert not predicts(event_shape=(1, 8), pixel_levels=17)
    assert predicts(event_shape=(1, 8), pixel_levels=17, predict=True)


def test_what_was_decided_is_said():
    config = zoo.config_from_dict({"model": "series", "event_shape": (3, 999)})
    chosen, cut, front = config.remarks()
    assert chosen == "4 scales for 999 positions."
    assert "999 to 998, 499 to 498, 249 to 248" in cut
    assert "3x999 values are more than 1024" in front
    assert sum(isinstance(layer, Crop) for layer in config.build().transform) == 3
    assert zoo.config_from_dict({"model": "series", "event_shape": (1, 64), "levels": 3}).remarks() == []


def test_what_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match="7 is not a multiple of 4: say crop=true"):
        zoo.build("series", event_shape=(1, 7), levels=2)
    assert zoo.build("series", event_shape=(1, 7), levels=2, crop=True, **SMALL).sample((2,)).shape == (2, 1, 7)
    with pytest.raises(ConfigError, match="no mixing 'emerging'"):
        zoo.build("series", event_shape=(1, 8), mixing="emerging")
    with pytest.raises(ConfigError, match="event_shape"):
        zoo.build("series", event_shape=(1, 8, 8))


@torch.no_grad()
def test_networks_see_as_far_as_their_taps_and_know_the_time():
    net = randomize(nets.SequenceNet(1, 1, 4, blocks=3).double())
    x = torch.zeros(1, 1, 41, dtype=torch.float64)
    base = net(x)
    x[..., 20] = 1
    seen = (net(x) - base)[0, 0].abs() > 1e-12
    # 1 of the first convolution, 1 + 2 + 4 of the blocks.
    assert seen.nonzero()[:, 0].tolist() == list(range(12, 29))
    assert float((base[..., 12:29] - base[..., 12:13]).abs().max()) < 1e-12
    timed = randomize(nets.SequenceNet(1, 1, 4, blocks=1, length=41).double())
    assert float(timed(x * 0)[0, 0, 5:30].std()) > 1e-3
    with pytest.raises(ShapeError):
        timed(torch.zeros(1, 1, 40, dtype=torch.float64))
