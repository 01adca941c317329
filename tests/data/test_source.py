import numpy as np
import pytest
import torch

from likelify import Context, GraphBatch
from likelify.data import (
    FROM_FILES,
    SOURCES,
    ArraySource,
    Batch,
    Facts,
    GraphItems,
    GraphSource,
    as_source,
    open_source,
    subset,
)
from likelify.errors import DataError

EDGES = torch.tensor([[0, 1, 2, 3, 4], [1, 0, 3, 4, 2]])


def graphs():
    structure = GraphBatch(torch.tensor([2, 3, 1]), EDGES, torch.arange(5.0))
    return Batch(torch.arange(12.0).reshape(6, 2), torch.tensor([7, 8, 9]), structure)


def test_a_batch_of_rows():
    batch = Batch(torch.zeros(5, 3, 4), torch.arange(5))
    assert len(batch) == 5
    assert batch.dims().tolist() == [12] * 5
    assert batch.context() is None
    assert torch.equal(batch.context(conditional=True), torch.arange(5))
    assert Batch(batch.x).context(conditional=True) is None
    head = batch.head(2)
    assert (len(head), head.labels.tolist()) == (2, [0, 1])
    assert batch.head(5) is batch


def test_a_batch_of_graphs_counts_graphs():
    batch = graphs()
    assert len(batch) == 3
    assert batch.dims().tolist() == [4, 6, 2]
    assert batch.context().condition is None
    context = batch.context(conditional=True)
    assert isinstance(context, Context)
    assert context.structure is batch.structure
    assert context.condition.tolist() == [7, 7, 8, 8, 8, 9]


@pytest.mark.parametrize("complete", [False, True])
def test_the_first_graphs_keep_their_edges(complete):
    batch = graphs()
    if complete:
        batch = Batch(batch.x, batch.labels, GraphBatch.complete([2, 3, 1]))
    head = batch.head(1)
    assert (len(head), len(head.x), head.labels.tolist()) == (1, 2, [7])
    assert head.structure.edge_index.tolist() == [[0, 1], [1, 0]]
    assert head.structure.is_complete is complete
    two = batch.head(2)
    assert torch.equal(two.structure.edge_index, batch.structure.edge_index)
    if not complete:
        assert head.structure.edge_weight.tolist() == [0, 1]


def test_a_batch_moves_as_a_whole():
    moved = graphs().to("cpu", torch.float64)
    assert moved.x.dtype == torch.float64
    assert moved.labels.dtype == torch.int64
    rows = Batch(torch.zeros(2, 3), torch.arange(2)).to("meta", torch.float64)
    assert {rows.x.device.type, rows.labels.device.type} == {"meta"}
    pixels = Batch(torch.zeros(1, 1, dtype=torch.uint8)).to("cpu", torch.float64)
    assert pixels.x.dtype == torch.uint8


def test_facts_of_a_source():
    source = open_source("digits")
    facts = source.facts()
    assert (facts.name, facts.kind, facts.item, facts.items) == ("digits", "image", "image", "images")
    assert (facts.event_shape, facts.levels, facts.classes) == ((1, 8, 8), 17, 10)
    assert facts.sizes == {"train": 1293, "validation": 144, "test": 360}
    assert facts.fingerprint == source.fingerprint()
    assert Facts.model_validate_json(facts.model_dump_json()) == facts
    few = subset(source, train=10).facts()
    assert (few.kind, few.family, few.sizes["train"]) == ("image", "digits", 10)
    wine = open_source("wine").facts()
    assert (wine.kind, wine.levels, wine.columns[0]) == ("table", None, "alcohol")


def test_the_family_is_the_name_without_the_place(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("\n".join(f"{n},{n * n % 7}" for n in range(20)))
    assert open_source(str(file)).facts().family == "table"


def test_digits_are_split_as_documented():
    source = open_source("digits")
    assert [source.size(split) for split in ("train", "validation", "test")] == [1293, 144, 360]
    assert (source.event_shape, source.levels, source.classes) == ((1, 8, 8), 17, 10)
    order = np.random.default_rng(0).permutation(1797)
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    batch = source.read("test", torch.tensor([0, 359]))
    assert torch.equal(batch.x.flatten(1), torch.from_numpy(images[order[[1437, 1796]]]).to(torch.uint8))
    assert batch.labels.tolist() == labels[order[[1437, 1796]]].tolist()


@pytest.mark.slow
def test_photos_share_no_pixels_between_splits():
    source = open_source("sample-photos")
    assert [source.size(split) for split in ("train", "validation", "test")] == [16000, 500, 1000]
    assert (source.event_shape, source.levels, source.classes) == ((3, 32, 32), 256, None)
    from sklearn.datasets import load_sample_images

    photos = np.stack(load_sample_images().images).transpose(0, 3, 1, 2)
    windows = np.lib.stride_tricks.sliding_window_view(photos, (32, 32), axis=(2, 3))
    for split, (left, right) in {"train": (0, 440), "validation": (440, 480), "test": (480, 640)}.items():
        crop = source.read(split, torch.tensor([3])).x[0].numpy()
        found = np.argwhere((windows == crop[None, :, None, None]).all((1, 4, 5)))
        assert len(found) >= 1
        assert left <= found[0][2] <= right - 32


def test_fingerprints_tell_data_apart_and_stay():
    prints = {name: open_source(name).fingerprint() for name in ("digits",)}
    assert prints == {name: open_source(name).fingerprint() for name in prints}
    arrays = {split: np.zeros((2, 3)) for split in ("train", "validation", "test")}
    other = {split: np.ones((2, 3)) for split in arrays}
    one, two = (ArraySource("a", events, kind="image", levels=2) for events in (arrays, other))
    assert one.fingerprint() != two.fingerprint()


def test_bad_data_are_refused():
    good = {split: np.zeros((2, 3)) for split in ("train", "validation", "test")}
    with pytest.raises(DataError, match="split 'test' of 'a' has no items"):
        ArraySource("a", {**good, "test": np.zeros((0, 3))}, kind="image", levels=2)
    with pytest.raises(DataError, match="split 'validation' of 'a' has no items"):
        ArraySource("a", {"train": good["train"]}, kind="image", levels=2)
    untested = ArraySource("a", {"train": good["train"], "validation": good["validation"]}, kind="image", levels=2)
    assert untested.size("test") == 0
    with pytest.raises(DataError, match=r"integers 0\.\.1"):
        ArraySource("a", {**good, "test": np.full((1, 3), 2)}, kind="image", levels=2)
    with pytest.raises(DataError, match=r"integers 0\.\.1"):
        ArraySource("a", {**good, "test": np.full((1, 3), 0.5)}, kind="image", levels=2)
    with pytest.raises(DataError, match=r"integers 0\.\.1"):
        ArraySource("a", {**good, "test": np.full((1, 3), np.nan)}, kind="image", levels=2)
    with pytest.raises(DataError, match="events"):
        ArraySource("a", {**good, "test": np.zeros((1, 4))}, kind="image", levels=2)
    with pytest.raises(DataError, match="row 0, column 0: the value is inf"):
        ArraySource("a", {**good, "test": np.full((1, 3), np.inf)}, kind="table", levels=None)


def test_names_that_are_no_source():
    with pytest.raises(
        DataError, match=r"no source 'digit'. Did you mean 'digits'\? Known are: digits, .*mnist:PLACE.*FILE\.csv"
    ):
        open_source("digit")
    for name in ("mnist", "mnist:", "power"):
        with pytest.raises(DataError, match=f"made of your own files: say where they are, '{name.rstrip(':')}:PLACE'"):
            open_source(name)
    with pytest.raises(DataError, match="no source 'digits:here'"):
        open_source("digits:here")
    assert set(SOURCES) >= {"digits", "sample-photos", "fashion-mnist", "breast-cancer"}
    assert set(FROM_FILES) >= {"fashion-mnist", "mnist", "cifar-10", "power", "gas", "hepmass", "miniboone", "bsds300"}


def test_places_that_cannot_be_opened(tmp_path):
    (tmp_path / "a.csv").write_text("".join(f"{n * n},{-n}\n" for n in range(20)))
    assert open_source(tmp_path / "a.csv").event_shape == (2,)
    for name in (5, None, "a\0.csv", "mnist:a\0"):
        with pytest.raises(DataError, match="opened by its name or the path of a file"):
            open_source(name)
    for start in ("", "cifar-10:", "power:", "table:", "mnist:"):
        with pytest.raises(DataError, match="cannot be opened: File name too long"):
            open_source(f"{start}{'a' * 5000}.csv")
    for name in ("~nobody-of-this-name/a.csv", "mnist:~nobody-of-this-name/a"):
        with pytest.raises(DataError, match="in the home of somebody who has none"):
            open_source(name)


def test_a_source_does_not_change_with_the_array_it_was_made_of():
    arrays = {split: np.zeros((2, 3), dtype=np.uint8) for split in ("train", "validation", "test")}
    source = ArraySource("a", arrays, kind="image", levels=2)
    arrays["test"][:] = 1
    assert int(source.read_all("test").x.max()) == 0


@pytest.mark.filterwarnings("error")
def test_tables_in_single_precision_are_looked_at_without_a_warning():
    rows = np.ones((4, 2), dtype=np.float32) * [[1], [2], [3], [4]]
    rows = rows.astype(np.float32)
    splits = {"train": rows, "validation": rows}
    assert ArraySource("rows", splits, kind="table", levels=None).size("train") == 4
    rows[2, 1] = np.inf
    with pytest.raises(DataError, match="row 2, column 1"):
        ArraySource("rows", splits, kind="table", levels=None)


def test_labels_and_ends_of_splits_are_part_of_the_data():
    rows = np.random.default_rng(0).normal(size=(100, 2))
    prints = {as_source(rows, validation=share).fingerprint() for share in (0.1, 0.2)}
    prints |= {as_source(rows, labels=np.arange(100) // by % 2).fingerprint() for by in (1, 50)}
    assert len(prints) == 4
    prints = set()
    for labels in ([0, 1], [1, 0]):
        items = GraphItems(rows[:5], [2, 3], labels=labels)
        prints.add(GraphSource("graphs", dict.fromkeys(("train", "validation"), items)).fingerprint())
    assert len(prints) == 2
