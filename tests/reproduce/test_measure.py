"""Running a cell in this process: fit, weights that are taken again, measuring in time, pictures."""

import re

import pytest

from likelify.errors import DataError
from likelify.fitting.run import Run
from likelify.fitting.settings import RunConfig
from likelify.fitting.sources import DataChoice, open_data
from likelify.reproduce.cell import Measuring
from likelify.reproduce.experiment import DataSet, Method
from likelify.reproduce.measure import run_cell, run_name
from likelify.reproduce.runner import Folders
from likelify.reproduce.scores import measure
from likelify.reproduce.store import read_cells
from likelify.zoo import config_from_dict
from tests.reproduce.trial import experiment, run_here, silent


def test_models_are_taken_again_only_for_the_same_fit(finished, tmp_path):
    cell = experiment().cells()[1]
    first = read_cells(finished / "trial-quick")[cell.name]
    run_here([cell], tmp_path, finished / "fits", reuse=True)
    again = read_cells(tmp_path)[cell.name]
    assert again["trained_here"] is False
    assert again["course"] == first["course"]
    assert again["elbo"] == first["elbo"]


def test_a_fit_is_named_by_all_that_decides_it(finished):
    run = Run.load(next((finished / "fits").iterdir()))
    data = {"source": "digits"}
    name = run_name(run.config, data, "code")
    assert run_name(RunConfig.parse(run.config.model_dump()), data, "code") == name
    faster = run.config.model_copy(update={"fit": run.config.fit.model_copy(update={"lr": 1.0})})
    others = [(faster, data, "code"), (run.config, {"source": "iris"}, "code"), (run.config, data, "other")]
    assert len({name, *(run_name(*other) for other in others)}) == 4
    assert re.fullmatch(r"marginal-spline-digits-[01]-[0-9a-f]{12}", name)


def test_the_fit_of_a_cell_is_a_run(finished):
    runs = [Run.load(folder) for folder in (finished / "fits").iterdir()]
    assert len(runs) == 4
    cells = read_cells(finished / "trial-quick")
    assert {run.course().best_step for run in runs} <= {0, 2, 4}
    parameters = {sum(p.numel() for p in run.flow().parameters()) for run in runs}
    assert parameters == {values["parameters"] for values in cells.values()}
    assert runs[0].sample(2).shape == (2, 1, 8, 8)


def test_the_fit_of_a_cell_is_measured_on_its_own_data(finished):
    run = Run.load(next((finished / "fits").iterdir()))
    assert run.config.opened.limits == {"train": 200, "validation": 40, "test": 50}
    measured = run.evaluate(elbo_samples=1, iw_samples=0, keep=False)
    assert measured.elbo.bits.count == 50
    standard = DataChoice(source="iris", standardized=True)
    opened = run.config.model_copy(update={"opened": standard, "data": open_data(standard).facts()})
    assert Run(run.path, opened).source().name == "iris, standardised"


@pytest.mark.parametrize("damage", ["model.safetensors", "config.json", "course.json"])
def test_damaged_runs_are_fitted_again(tmp_path, damage):
    cell = experiment().cells()[0]
    run_here([cell], tmp_path, tmp_path / "fits")
    (folder,) = (tmp_path / "fits").iterdir()
    (folder / damage).write_bytes(b"nothing")
    run_here([cell], tmp_path, tmp_path / "fits", reuse=True)
    assert read_cells(tmp_path)[cell.name]["trained_here"] is True
    assert Run.load(folder).course().reason == "finished"


def test_a_killed_cell_leaves_its_best_weights_and_is_fitted_again(tmp_path):
    cell = experiment().cells()[0]

    def kill(phase, share, figure):
        if phase == "fitting" and share >= 0.5:
            raise SystemExit

    with pytest.raises(SystemExit):
        run_cell(cell, Folders(results=tmp_path, runs=tmp_path / "fits"), kill)
    assert read_cells(tmp_path) == {}
    (folder,) = (tmp_path / "fits").iterdir()
    run = Run.load(folder)
    assert run.course().reason == "running"
    assert run.flow().sample((1,)).shape == (1, 1, 8, 8)
    run_here([cell], tmp_path, tmp_path / "fits", reuse=True)
    assert read_cells(tmp_path)[cell.name]["trained_here"] is True


class Clock:
    """Every look at it takes a second."""

    def __init__(self):
        self.time = 0.0

    def __call__(self):
        self.time += 1.0
        return self.time


# The ELBO of 50 items takes a second, so a draw costs 0.02 s and an item 0.22 s. 14 s are left of 15, of which 85 %
# allow 54 items; of 8 s, 27; of 2 s, 3, which are fewer than are worth it.
@pytest.mark.parametrize(("seconds", "items"), [(None, 30), (15.0, 30), (8.0, 27), (2.0, None)])
def test_importance_weighting_keeps_to_the_time(seconds, items):
    cell = experiment().cells()[0]
    source = open_data(cell.data)
    flow = config_from_dict(cell.settle(source.facts())["model"]).build()
    measuring = Measuring(iw_samples=10, iw_items=30, seconds=seconds)
    found, spent = measure(flow, source, measuring, Clock(), silent)
    assert (found.iw.bits.count if found.iw else None) == items
    assert (found.gain.count if found.gain else None) == items
    assert found.elbo.bits.count == 50
    assert spent >= 1.0
    assert measure(flow, source, Measuring(iw_samples=0), Clock(), silent)[0].iw is None


def test_pictures_need_images(tmp_path):
    data = (DataSet("iris", DataChoice(source="iris")),)
    table = Method("Table", {"model": "flowified-mlp", "widths": (4,)}, picture="samples")
    (cell,) = experiment(data=data, methods=(table,), baseline=None).cells(seeds=1)
    with pytest.raises(DataError, match="has no images"):
        run_here([cell], tmp_path, tmp_path / "fits")
