from fractions import Fraction

import numpy as np
import pytest
import torch

from likelify.data import ArraySource, open_source, resized, standardized, subset, table, weighted
from likelify.data.simulated.source import SimulatedGraphs
from likelify.errors import DataError
from likelify.seeding import picked

SPLITS = ("train", "validation", "test")


def images(shape=(1, 6, 7), levels=256, labels=True):
    rng, sizes = np.random.default_rng(5), {"train": 9, "validation": 4, "test": 5}
    events = {split: rng.integers(0, levels, (n, *shape)) for split, n in sizes.items()}
    classes = {split: np.arange(n) % 3 for split, n in sizes.items()} if labels else None
    return ArraySource("images", events, kind="image", levels=levels, labels=classes, classes=3 if labels else None)


def test_a_subset_is_the_start_of_a_fixed_permutation():
    source = images()
    small, large = subset(source, train=3, test=2), subset(source, train=6)
    assert [small.size(split) for split in SPLITS] == [3, 4, 2]
    order = torch.from_numpy(np.random.default_rng(0).permutation(9))
    batch, whole = small.read("train", torch.tensor([2, 0])), source.read_all("train")
    assert torch.equal(batch.x, whole.x[order[[2, 0]]])
    assert torch.equal(batch.labels, whole.labels[order[[2, 0]]])
    assert torch.equal(small.read_all("train").x, large.read_all("train").x[:3])
    assert torch.equal(small.read_all("validation").x, source.read_all("validation").x)
    assert len({each.fingerprint() for each in (source, small, large)}) == 3
    assert subset(source, train=3, test=2).fingerprint() == small.fingerprint()
    assert (small.levels, small.event_shape, small.classes) == (256, (1, 6, 7), 3)


def test_a_subset_of_a_table_is_real_valued():
    rows = table(np.random.default_rng(0).normal(size=(30, 2)))
    assert subset(rows, train=5).levels is None


@pytest.mark.parametrize("count", [0, 10])
def test_a_subset_has_to_be_one(count):
    with pytest.raises(DataError, match=f"'train' of 'images' has 9 items; a subset of {count}"):
        subset(images(), train=count)


def exact_mean(image, i, j, size):
    """The mean over the rectangle, in fractions."""
    height, width = image.shape
    step = Fraction(height, size[0]), Fraction(width, size[1])
    total = Fraction(0)
    for y in range(height):
        for x in range(width):
            tall = min((i + 1) * step[0], y + 1) - max(i * step[0], y)
            wide = min((j + 1) * step[1], x + 1) - max(j * step[1], x)
            if tall > 0 and wide > 0:
                total += tall * wide * int(image[y, x])
    return total / (step[0] * step[1])


@pytest.mark.parametrize(("size", "levels"), [((4, 3), 17), ((6, 7), None), ((1, 1), 2), ((5, 7), 256)])
def test_resizing_averages_over_areas_and_rounds_halves_upwards(size, levels):
    source = images(shape=(2, 6, 7))
    small = resized(source, size, levels=levels)
    wanted = levels or 256
    assert (small.event_shape, small.levels, small.classes) == ((2, *size), wanted, 3)
    for split in SPLITS:
        old, new = source.read_all(split), small.read_all(split)
        assert torch.equal(old.labels, new.labels)
        for index in np.ndindex(2, 2, *size):
            mean = exact_mean(old.x[index[0], index[1]].numpy(), index[2], index[3], size)
            assert int(new.x[index]) == (mean * (wanted - 1) / 255 + Fraction(1, 2)) // 1


def test_a_resized_source_knows_itself():
    source = images(labels=False)
    assert resized(source, (3, 3)).read_all("train").labels is None
    assert resized(source, (3, 3)).fingerprint() == resized(source, (3, 3)).fingerprint()
    assert resized(source, (6, 7)).read_all("test").x.equal(source.read_all("test").x)


def test_what_cannot_be_resized():
    with pytest.raises(DataError, match="can be reduced, not enlarged, to 8x8"):
        resized(images(), (8, 8))
    with pytest.raises(DataError, match="at least 2 levels"):
        resized(images(), (2, 2), levels=1)
    with pytest.raises(DataError, match="has no images"):
        resized(open_source("iris"), (2, 2))


def test_weights_belong_to_the_items_of_a_split():
    rows = table(np.random.default_rng(0).normal(size=(20, 2)))
    heavy = weighted(rows, train=np.arange(16), validation=np.array([3.0, 1.0]))
    assert heavy.facts().columns == rows.columns
    batch = heavy.read("train", torch.tensor([3, 0]))
    assert batch.weights.tolist() == [0.4, 0]
    assert (batch.x == rows.read("train", torch.tensor([3, 0])).x).all()
    assert heavy.read_all("validation").weights.tolist() == [1.5, 0.5]
    assert heavy.read_all("test").weights is None
    assert batch.head(1).weights.tolist() == [0.4]
    assert batch.to("cpu").weights.tolist() == [0.4, 0]
    assert float(batch.mean(torch.tensor([1.0, 100.0]))) == pytest.approx(0.2)
    assert len({rows.fingerprint(), heavy.fingerprint(), weighted(rows, train=np.arange(16) + 1).fingerprint()}) == 3


def test_huge_weights_do_not_overflow():
    rows = table(np.random.default_rng(0).normal(size=(20, 2)))
    weights = weighted(rows, train=np.where(np.arange(16) < 8, 1.5e308, 0.5e308)).read_all("train").weights
    assert weights.tolist() == pytest.approx([1.5] * 8 + [0.5] * 8)


@pytest.mark.parametrize("size", [1e-300, 0.5, 1.0, 1e308])
def test_weights_that_are_all_the_same_are_none(size):
    rows = table(np.random.default_rng(0).normal(size=(20, 2)))
    assert weighted(rows, train=np.full(16, size), validation=np.full(2, 3 * min(size, 1))) is rows
    some = weighted(rows, train=np.full(16, size), validation=np.array([1.0, 3.0]))
    assert some.read_all("train").weights is None
    assert some.read_all("validation").weights.tolist() == [0.5, 1.5]


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"train": np.ones(3)}, "has 16 items, and weights"),
        ({"train": -np.ones(16)}, "none below 0"),
        ({"train": np.zeros(16)}, "one above"),
        ({"train": np.full(16, np.nan)}, "finite"),
        ({"trian": np.ones(16)}, "no split 'trian'"),
    ],
)
def test_weights_have_to_be_weights(weights, words):
    with pytest.raises(DataError, match=words):
        weighted(table(np.random.default_rng(0).normal(size=(20, 2))), **weights)


def test_what_is_kept_of_a_weighted_source_has_weights_of_mean_one():
    rows = table(np.random.default_rng(0).normal(size=(200, 2)))
    weights = np.linspace(0, 9, rows.size("train"))
    few = subset(weighted(rows, train=weights), train=7)
    batch = few.read_all("train")
    assert float(batch.weights.mean()) == pytest.approx(1)
    whole = weighted(rows, train=weights).item_weights("train")
    chosen = np.random.default_rng(0).permutation(len(whole))[:7]
    assert torch.allclose(batch.weights, whole[chosen] / whole[chosen].mean())
    assert torch.equal(batch.weights, few.item_weights("train"))
    assert few.read_all("validation").weights is None
    assert few.item_weights("validation") is None
    assert rows.item_weights("train") is None
    with pytest.raises(DataError, match="All 7 items kept of the split 'train' have the weight 0"):
        subset(weighted(rows, train=np.isin(np.arange(len(whole)), chosen, invert=True) * 1.0), train=7)


def test_weights_stay_with_what_is_made_of_the_items():
    rows = weighted(table(np.random.default_rng(0).normal(size=(40, 2)) * 5), train=np.arange(32))
    heavy = standardized(rows).read_all("train").weights
    assert torch.equal(heavy, rows.read_all("train").weights)
    assert standardized(rows).read_all("test").weights is None
    small = resized(weighted(images(), train=np.arange(9)), (3, 3))
    assert torch.equal(
        small.read_all("train").weights, weighted(images(), train=np.arange(9)).read_all("train").weights
    )


def test_a_split_that_stays_whole_costs_no_memory():
    many = SimulatedGraphs("mog-4", train=2**40 - 1, validation=10, test=30)
    few = subset(many, test=5)
    assert few.size("train") == 2**40 - 1
    assert torch.equal(few.read_all("test").x[:4], many.read("test", torch.tensor(picked(30, 5)[:1])).x)
    assert len(subset(many, train=3).read_all("train")) == 3
    assert few.fingerprint() != many.fingerprint() != subset(many, test=6).fingerprint()
