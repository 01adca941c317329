import math

import numpy as np
import pytest
import torch

import likelify as lk
from likelify.data import ArraySource, table, weighted
from likelify.errors import ConfigError, LikelifyWarning
from likelify.fitting.metrics import bits_per_dim, evaluate, gap_draws
from tests.fitting.toys import stripes


def test_bits_per_dimension():
    assert float(bits_per_dim(torch.tensor(-math.log(8.0)), 3)) == pytest.approx(1.0)
    each = bits_per_dim(torch.full((2,), -math.log(8.0)), torch.tensor([3, 6]))
    assert each.tolist() == pytest.approx([1.0, 0.5])


def test_an_evaluation_has_the_same_noise_every_time():
    exact = lk.Flow(lk.Normal((1, 2, 2)), lk.ActNorm(1))
    flow = lk.Flow(exact.base, lk.Chain([lk.Dequantize(3), lk.ActNorm(1)]))
    once, again = (evaluate(flow, stripes(), elbo_samples=2, iw_samples=3, batch_size=size) for size in (7, 7))
    assert once == again
    assert once.elbo.bits.count == 80
    assert evaluate(flow, stripes(), limit=5).elbo.bits.count == 5


def images(count):
    rng = np.random.default_rng(0)
    return ArraySource(
        "images",
        {split: rng.integers(0, 3, (count, 1, 2, 2)) for split in ("train", "validation", "test")},
        kind="image",
        levels=3,
        labels={split: np.arange(count) % 2 for split in ("train", "validation", "test")},
        classes=2,
    )


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize(("iw_items", "weighted"), [(None, 11), (1, 1), (4, 4), (7, 7), (99, 11)])
def test_only_the_first_items_are_weighted(iw_items, weighted, conditional):
    flow = lk.zoo.MODELS["marginal-spline"](
        event_shape=(1, 2, 2), pixel_levels=3, couplings=1, hidden=(4,), classes=2 if conditional else None
    ).build()
    shares = []
    measured = evaluate(
        flow,
        images(11),
        elbo_samples=2,
        iw_samples=3,
        batch_size=4,
        iw_items=iw_items,
        conditional=conditional,
        on_batch=shares.append,
    )
    assert measured.elbo.bits.count == 11
    assert measured.iw.bits.count == weighted
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    again = evaluate(flow, images(11), elbo_samples=2, iw_samples=3, limit=weighted, conditional=conditional)
    assert again.iw.nats.mean == pytest.approx(measured.iw.nats.mean, abs=0.5)


def test_gaps_are_measured_at_parts_of_the_draws():
    assert gap_draws(1000) == (62, 250, 1000)
    assert gap_draws(8) == (2, 8)
    with pytest.raises(ConfigError, match="at least 2 draws"):
        gap_draws(1)


@pytest.mark.parametrize(("draws", "known"), [(10, False), (50, True)])
def test_the_tails_of_the_weights_are_kept_where_there_are_draws_enough(draws, known):
    flow = lk.Flow(lk.Normal((1, 2, 2)), lk.Chain([lk.Dequantize(3), lk.ActNorm(1)]))
    weighted = evaluate(flow, stripes(), elbo_samples=1, iw_samples=draws, batch_size=30).iw
    assert 1 <= weighted.ess <= draws
    assert (weighted.k is not None) == (weighted.heavy is not None) == known
    if known:
        assert 0 <= weighted.heavy <= 1


def test_one_item_without_weights_does_not_hide_what_those_of_the_others_say():
    rows = np.random.default_rng(0).uniform(0.1, 0.9, size=(40, 2)).astype(np.float32)
    noise = lk.distributions.ChannelNoise(1, scale=0.3)

    def weighted(rows, draws):
        splits = {"train": rows[1:], "validation": rows[1:], "test": rows}
        source = ArraySource("rows", splits, kind="table", levels=None)
        flow = lk.Flow(lk.Normal(3), lk.Chain([lk.transforms.Logit(), lk.transforms.Augment(1, noise)]))
        return evaluate(flow, source, elbo_samples=1, iw_samples=draws, batch_size=15).iw

    for draws in (10, 50):
        whole = weighted(rows, draws)
        assert whole.left_out == 0
        spoilt = rows.copy()
        spoilt[17, 0] = 1.5
        with pytest.warns(LikelifyWarning, match="1 of 40 items"):
            found = weighted(spoilt, draws)
        assert found.left_out == 1
        assert math.isclose(found.ess, whole.ess, rel_tol=0.2)
        assert (found.k is None) == (found.heavy is None) == (draws == 10)
        assert draws == 10 or abs(found.k - whole.k) < 0.2
        assert draws == 10 or abs(found.heavy - whole.heavy) < 0.2
        with pytest.warns(LikelifyWarning, match="2 of 2 items"):
            nothing = weighted(spoilt[[17, 17]], draws)
        assert (nothing.left_out, nothing.ess, nothing.k, nothing.heavy) == (2, None, None, None)


def test_items_outside_the_support_are_counted():
    rows = np.random.default_rng(0).uniform(0.1, 0.9, size=(40, 2))
    rows[::4, 0] = 1.5
    splits = {"train": rows[1:2], "validation": rows[1:2], "test": rows}
    source = ArraySource(
        "rows", {split: part.astype(np.float32) for split, part in splits.items()}, kind="table", levels=None
    )
    flow = lk.Flow(lk.Normal(2), lk.transforms.Logit())
    with pytest.warns(LikelifyWarning, match=r"10 of 40 items of 'rows' \(test\) lie outside the support .* item 0"):
        measured = evaluate(flow, source, elbo_samples=1, iw_samples=0)
    assert measured.elbo.nats.mean == -math.inf
    assert measured.elbo.nats.standard_error is None


def test_a_weighted_split_is_measured_as_it_weighs():
    rows = table(np.random.default_rng(0).normal(size=(60, 2)))
    flow = lk.Flow(lk.Normal(2), lk.ActNorm(2)).double()
    heavy = np.random.default_rng(1).integers(0, 3, rows.size("test"))
    measured = evaluate(flow, weighted(rows, test=heavy), iw_samples=2)
    with torch.no_grad():
        nats = flow.log_prob(rows.read_all("test").x).numpy()
    assert measured.elbo.nats.mean == pytest.approx((nats * heavy).sum() / heavy.sum())
    assert measured.elbo.bits.mean == pytest.approx(-measured.elbo.nats.mean / (2 * math.log(2)))
    assert measured.elbo.nats.count == int((heavy > 0).sum())
    assert evaluate(flow, rows, iw_samples=0).elbo.nats.mean == pytest.approx(nats.mean())


def test_the_first_items_are_those_that_are_weighted():
    # Noise as a bound has it, of items that differ far more than that.
    flow = lk.Flow(lk.Normal((1, 2, 2)), lk.Chain([lk.Dequantize(9), lk.ActNorm(1)]))
    pixels = np.arange(12)[:, None, None, None] * np.ones((1, 1, 2, 2)) % 9
    source = lk.data.ArraySource(
        "steps", {split: pixels.astype(np.uint8) for split in ("train", "validation", "test")}, kind="image", levels=9
    )
    alone = evaluate(flow, source, elbo_samples=1, iw_samples=30, limit=5).iw.nats.mean
    others = evaluate(flow, source, elbo_samples=1, iw_samples=30, batch_size=4, iw_items=5)
    assert others.iw.nats.count == 5
    assert others.iw.nats.mean == pytest.approx(alone, abs=0.2)
    assert abs(others.elbo.nats.mean - alone) > 5
