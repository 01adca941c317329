import numpy as np
import pytest
import torch

import likelify as lk
from likelify.data import as_source, open_source, table, weighted
from likelify.errors import ConfigError
from likelify.fitting.trimming import trimmed
from likelify.schema import ColumnSchema

MIXING = np.array([[1.0, 0.9], [0.0, 0.3]])


def contaminated(count=600, odd=60, seed=0):
    """Rows of two columns that tell of one another, a tenth of them from a cluster aside; and which these are."""
    generator = np.random.default_rng(seed)
    belong = generator.normal(size=(count - odd, 2)) @ MIXING
    aside = [2.5, -2.0] + 0.1 * generator.normal(size=(odd, 2))
    return np.concatenate([belong, aside])


def is_odd(rows):
    return (rows[:, 0] > 1.5) & (rows[:, 1] < -1)


def test_a_cluster_of_outliers_leaves_training_and_validation():
    source = as_source(contaminated())
    left = trimmed(source, 0.2)
    assert left.size("train") == round(0.8 * source.size("train"))
    for split in ("train", "validation"):
        assert is_odd(source.read_all(split).x).double().mean() > 0.05
        assert not is_odd(left.read_all(split).x).any()
    assert left.fingerprint() == trimmed(source, 0.2).fingerprint() != source.fingerprint()
    assert trimmed(source, 0.0) is source


def test_rows_of_words_and_missing_values_are_trimmed_too():
    generator = np.random.default_rng(0)
    length, colour = generator.normal(size=420), generator.integers(0, 2, 420).astype(float)
    length[::40], length[400:], colour[400:] = np.nan, 9 + generator.normal(size=20) / 10, 2
    source = as_source(np.stack([length, colour], 1))
    source.schema = (
        ColumnSchema(name="length", missing=True),
        ColumnSchema.category("colour", ("blue", "mauve", "red")),
    )
    left = trimmed(source, 0.15)
    assert (source.read_all("train").x[:, 0] > 5).any()
    assert not (left.read_all("train").x[:, 0] > 5).any()
    assert left.size("test") == source.size("test") == 0


def test_what_cannot_be_trimmed_is_refused():
    with pytest.raises(ConfigError, match="Only rows of tables are trimmed"):
        trimmed(open_source("digits"), 0.1)
    rows = np.random.default_rng(0).normal(size=(200, 2))
    rows[:, 1] = rows[:, 0]
    rows[::20, 1] = -9.0
    with pytest.raises(ConfigError, match=r"Without the oddest rows of 'data' .* there is no density"):
        trimmed(as_source(rows), 0.2)
    with pytest.raises(ConfigError, match="Take a smaller 'trim'"):
        trimmed(table(np.random.default_rng(0).normal(size=(10, 2))), 0.5)


def test_a_fit_leaves_the_oddest_rows_out():
    rows = contaminated()
    source = as_source(rows)
    flows = []
    for trim in (0.0, 0.2):
        with lk.seeded(0):
            flow = lk.Flow(lk.Normal((2,)), lk.Chain([lk.transforms.Columns(2), lk.ActNorm(2)]))
        lk.fit(flow, source, steps=20, batch_size=64, trim=trim)
        flows.append(flow)
    aside, within = (torch.from_numpy(rows[where]) for where in (is_odd(rows), ~is_odd(rows)))
    before, after = (flow.log_prob(aside).mean() - flow.log_prob(within).mean() for flow in flows)
    assert after < before - 1


def test_rows_leave_by_what_they_weigh():
    rows = contaminated()
    source = as_source(rows)
    odd = {split: is_odd(source.read_all(split).x.numpy()) for split in ("train", "validation")}
    # The cluster has most of the weight, so that it is what the table is like, and others are odd.
    heavy = weighted(source, **{split: np.where(where, 40.0, 1.0) for split, where in odd.items()})
    left = trimmed(heavy, 0.05)
    share = heavy.item_weights("train")[~is_odd(heavy.read_all("train").x)].sum() / len(odd["train"])
    assert share > 0.1
    for split in ("train", "validation"):
        batch = left.read_all(split)
        alike = trimmed(source, 0.05).read_all(split).x
        assert is_odd(batch.x).sum() >= 0.9 * odd[split].sum() > is_odd(alike).sum()
        assert len(batch) < source.size(split)
        assert float(batch.weights.mean()) == pytest.approx(1)
    whole = heavy.read_all("train")
    kept = (whole.x[:, None] == left.read_all("train").x[None]).all(2).any(1)
    assert float(whole.weights[kept].sum()) == pytest.approx(0.95 * len(whole), abs=float(whole.weights.max()) / 2)


def test_rows_of_weight_zero_have_no_say_in_what_is_odd():
    source = as_source(contaminated())
    weights = {split: 1.0 - is_odd(source.read_all(split).x.numpy()) for split in ("train", "validation")}
    left = trimmed(weighted(source, **weights), 0.05)
    assert not is_odd(left.read_all("train").x).any()
    with pytest.raises(ConfigError, match="Take a smaller 'trim'"):
        trimmed(weighted(source, train=np.eye(source.size("train"))[0]), 0.1)


def test_a_trimmed_table_says_how_its_rows_were_chosen():
    left = trimmed(as_source(contaminated()), 0.2)
    assert "by trim=0.2" in left.description
    assert "permutation of each split" not in left.description.removeprefix(left.source.description)


@pytest.mark.filterwarnings("ignore:The fit never beat its start")
def test_validation_of_trimmed_rows_is_a_weighted_mean():
    source = as_source(contaminated())
    weights = {split: np.linspace(0.1, 3, source.size(split)) for split in ("train", "validation")}
    heavy = weighted(source, **weights)
    with lk.seeded(0):
        flow = lk.Flow(lk.Normal((2,), trainable=True), lk.transforms.Columns(2))
    course = lk.fit(flow, heavy, steps=2, trim=0.3, validations=1)
    batch = trimmed(heavy, 0.3).read_all("validation")
    nats = flow.log_prob(batch.x).detach()
    expected = float((nats * batch.weights).sum() / batch.weights.sum())
    assert course.best.validation_nats == pytest.approx(expected, abs=1e-4)
