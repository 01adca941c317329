import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, SubsetRandomSampler, TensorDataset

import likelify as lk
from likelify.data import as_source, open_source
from likelify.errors import DataError


def values(*shape):
    return np.random.default_rng(0).normal(size=shape)


def test_the_kind_follows_from_dtype_and_axes():
    pixels = np.zeros((20, 1, 2, 2))
    for data, kind, levels in (
        (values(20, 3), "table", None),
        (values(20, 3).astype(np.float32), "table", None),
        (torch.randn(20, 3), "table", None),
        (torch.randn(20, 3).bfloat16(), "table", None),
        (values(20, 2, 5), "sequence", None),
        (pixels.astype(np.uint8), "image", 256),
        (torch.zeros(20, 1, 2, 2, dtype=torch.uint8), "image", 256),
    ):
        source = as_source(data)
        assert (source.kind, source.levels) == (kind, levels)
        assert source.event_shape == tuple(data.shape[1:])
    assert as_source(pixels.astype(int), levels=3).levels == 3
    assert as_source(np.arange(40).reshape(20, 2), kind="table").kind == "table"
    assert as_source(values(20, 1, 2, 2), kind="image").levels is None


@pytest.mark.parametrize(
    ("data", "words", "message"),
    [
        (np.zeros((20, 1, 2, 2), dtype=int), {}, "can be pixels or measurements"),
        (np.zeros((20, 4), dtype=np.uint8), {}, "can be pixels or measurements"),
        (values(20, 1, 2, 2), {}, "can be scaled pixels"),
        (values(20), {}, "items along the first axis"),
        (np.array([["a", b"b"]] * 20, dtype=object), {}, "column 2': it holds values that are neither numbers, words"),
        (values(20, 1, 5), {"drop": "a"}, "drop= have no effect: these are no tables"),
        (values(9, 2), {}, "at least 10 items"),
        (values(20, 2), {"validation": 1.0}, "between 0 and 1"),
        (values(20, 2), {"validation": "0.1"}, "between 0 and 1, got '0.1'"),
        (values(20, 2), {"seed": -1}, "seed of the shuffling"),
        (np.zeros((20, 1, 2, 2), dtype=int), {"levels": 2.5}, "levels, a whole number, got 2.5"),
        (values(20, 2), {"labels": np.zeros(20)}, "Labels must be classes"),
        (np.full((20, 1, 2, 2), 300), {"levels": 256}, r"integers 0\.\.255"),
        (values(20, 2), {"kind": "table", "levels": 4}, "levels are those of pixels"),
        ([1, 2, 3], {}, "A list is no source of data"),
    ],
)
def test_what_the_rules_do_not_decide_is_refused(data, words, message):
    with pytest.raises(DataError, match=message):
        as_source(data, **words)


def test_the_split_is_that_of_the_seed():
    data = values(50, 2)
    order = np.random.default_rng(3).permutation(50)
    source = as_source(data, validation=0.2, seed=3, labels=np.arange(50) % 3)
    assert [source.size(split) for split in ("train", "validation", "test")] == [40, 10, 0]
    batch = source.read_all("validation")
    np.testing.assert_array_equal(batch.labels, order[40:] % 3)
    assert source.classes == 3


class Items(Dataset):
    def __init__(self, item):
        self.item = item

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return self.item(index)


@pytest.mark.parametrize("item", [lambda index: None, lambda index: torch.zeros(index + 1), lambda index: object()])
def test_items_that_do_not_fit_together(item):
    with pytest.raises(DataError, match="The items of the data set cannot be put together"):
        as_source(Items(item))


class Squares(Dataset):
    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return 300

    def __getitem__(self, index):
        x = torch.tensor([index, index**2], dtype=torch.float64)
        return (x, index % 4) if self.labels else x


def test_data_sets_and_loaders_are_read_once():
    tensor = torch.randn(300, 2, dtype=torch.float64)
    plain = as_source(tensor).fingerprint()
    assert as_source(TensorDataset(tensor)).fingerprint() == plain
    assert as_source(DataLoader(TensorDataset(tensor), batch_size=7, shuffle=True)).fingerprint() == plain
    source = as_source(Squares(labels=True))
    assert source.classes == 4
    plain = as_source(Squares(labels=False))
    assert torch.equal(plain.read_all("train").x, source.read_all("train").x)
    assert plain.fingerprint() != source.fingerprint()
    doubled = DataLoader(Squares(labels=False), collate_fn=lambda items: 2 * torch.stack(items))
    assert as_source(doubled).fingerprint() != plain.fingerprint()


def test_data_sets_that_cannot_be_read_are_refused():
    class Endless(IterableDataset):
        def __iter__(self):
            return iter([1])

    with pytest.raises(DataError, match="is no source of data"):
        as_source(Endless())
    with pytest.raises(DataError, match="items with a label each"):
        as_source(TensorDataset(*[torch.zeros(20, 2)] * 3))
    with pytest.raises(DataError, match="Labels must be classes"):
        as_source(TensorDataset(torch.randn(20, 2), torch.zeros(20)))
    with pytest.raises(DataError, match=r"of shape \(20,\), the lowest is -1"):
        as_source(np.zeros((20, 2)), labels=np.full(20, -1))
    with pytest.raises(DataError, match="The data set is empty"):
        as_source(TensorDataset(torch.empty(0, 2)))
    with pytest.raises(DataError, match="no kind of item 'tables'. Did you mean 'table'"):
        as_source(np.zeros((20, 2)), kind="tables")


def test_loaders_that_leave_items_out_are_refused():
    items = TensorDataset(torch.randn(20, 2))
    assert as_source(DataLoader(items, batch_size=3, shuffle=True)).size("train") == 18
    for sampler in (SubsetRandomSampler(range(5)), RandomSampler(items, replacement=True)):
        with pytest.raises(DataError, match="a sampler of its own"):
            as_source(DataLoader(items, sampler=sampler))


@pytest.mark.parametrize("wrap", [np.asarray, torch.as_tensor, lambda x: TensorDataset(torch.as_tensor(x))])
def test_fit_takes_them_as_they_are(wrap):
    from likelify.fitting.settings import FitSettings

    data = 1e6 + values(200, 2)
    flow = lk.Flow(lk.Normal((2,)), lk.Chain([lk.transforms.Columns(2), lk.rotation(2), lk.ActNorm(2)]))
    course = lk.fit(flow, wrap(data), FitSettings(steps=5, batch_size=20))
    assert course.best.validation_nats == pytest.approx(-2.84, abs=0.5)


def test_a_source_stays_itself():
    source = open_source("iris")
    assert as_source(source) is source


def test_arrays_of_objects_may_hold_what_pandas_and_numpy_have():
    nothing = pytest.importorskip("pandas").NA
    rows = np.array(
        [[float(i * i % 37), nothing if i == 3 else i % 5, np.int64(i % 2)] for i in range(60)], dtype=object
    )
    source = as_source(rows, labels="column 3")
    assert source.classes == 2
    assert source.schema[1].missing
