"""The experiments of the papers: sound at every scale, affordable at that of a CPU."""

from likelify.data import Facts
from likelify.reproduce import catalog
from likelify.reproduce.cell import Cell
from likelify.reproduce.experiment import most_hours
from likelify.zoo import MODELS

# Their data are simulated, so that test_convexp_graphs opens them.
GRAPHS = [name for name, model in MODELS.items() if model.kind == "graph"]


def test_tables_take_at_most_three_hours_on_two_cores():
    for build in catalog.EXPERIMENTS.values():
        cells = build("cpu").cells()
        assert most_hours(cells, 2) <= 3
        assert all(most_hours([cell], 1) <= 0.2 for cell in cells)


def test_the_experiments_are_sound():
    for name, build in catalog.EXPERIMENTS.items():
        for scale in ("cpu", "paper", "quick"):
            entry = build(scale)
            assert entry.name == name
            cells = [cell for cell in entry.cells(seeds=2) if isinstance(cell, Cell)]
            assert entry.baseline in (None, *(method.title for method in entry.methods))
            assert all(cell.model["model"] in MODELS for cell in cells)
            for cell in cells:
                if cell.model["model"] in GRAPHS:
                    continue
                channels = 3 if cell.data.source in ("cifar-10", "sample-photos") else 1
                table = cell.model["model"] == "flowified-mlp"
                shape, levels = ((7,), None) if table else ((channels, 32, 32), 256)
                sizes = {"train": 1000, "validation": 100, "test": 100}
                kind = "table" if table else "image"
                facts = Facts(
                    name="", family="", kind=kind, fingerprint="", event_shape=shape, levels=levels, sizes=sizes
                )
                assert cell.settle(facts)["fit"]["seed"] == cell.seed


def test_printed_figures_belong_to_methods():
    for build in catalog.EXPERIMENTS.values():
        entry = build("paper")
        titles = {method.title for method in entry.methods}
        assert {method for method, _ in entry.paper.figures} <= titles
        assert {data for _, data in entry.paper.figures} <= {data.title for data in entry.data}
