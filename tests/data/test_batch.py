import pytest
import torch

from likelify import Context, GraphBatch
from likelify.data import Batch, Facts, open_source, subset

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
