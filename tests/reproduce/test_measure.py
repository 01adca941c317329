"""Running a cell in this process: fit, weights that are taken again, measuring in time, pictures."""

import pytest

from likelify.errors import DataError
from likelify.reproduce.cell import DataChoice, Facts, Measuring
from likelify.reproduce.measure import measure, training_hash
from likelify.reproduce.sources import open_data
from likelify.reproduce.store import read_cells
from tests.reproduce.trial import experiment, run_here, silent


def test_weights_are_taken_again_only_for_the_same_fit(finished, tmp_path):
    cell = experiment().cells()[1]
    first = read_cells(finished / "trial-quick")[cell.name]
    run_here([cell], tmp_path, weights=finished / "weights", reuse=True)
    again = read_cells(tmp_path)[cell.name]
    assert again["trained_here"] is False
    assert again["course"] == first["course"]
    assert again["elbo"] == first["elbo"]
    settings, facts = first["settings"], Facts.parse(first["facts"])
    other = settings | {"fit": settings["fit"] | {"lr": 1.0}}
    assert training_hash(settings, facts) != training_hash(other, facts)
    measured = settings | {"measuring": {}}
    assert training_hash(settings, facts) == training_hash(measured, facts)


def test_damaged_weights_are_fitted_again(tmp_path):
    cell = experiment().cells()[0]
    run_here([cell], tmp_path, weights=tmp_path / "weights")
    (file,) = tmp_path.glob("weights/*/model.safetensors")
    file.write_bytes(b"nothing")
    run_here([cell], tmp_path, weights=tmp_path / "weights", reuse=True)
    assert read_cells(tmp_path)[cell.name]["trained_here"] is True


class Clock:
    """Every look at it takes a second."""

    def __init__(self):
        self.time = 0.0

    def __call__(self):
        self.time += 1.0
        return self.time


# The ELBO of 50 items takes a second, so a draw costs 0.02 s and an item 0.22 s. 14 s are left of 15, of which 70 %
# allow 44 items; of 10 s, 28; of 2 s, 3, which are fewer than are worth it.
@pytest.mark.parametrize(("seconds", "items"), [(None, 30), (15.0, 30), (10.0, 28), (2.0, None)])
def test_importance_weighting_keeps_to_the_time(seconds, items):
    cell = experiment().cells()[0]
    source = open_data(cell.data)
    flow = cell.model_config_for(Facts.of(source, "digits")).build()
    measuring = Measuring(iw_samples=10, iw_items=30, seconds=seconds)
    elbo, iw, spent = measure(flow, source, measuring, Clock(), silent)
    assert (iw.items if iw else None) == items
    assert elbo.items == 50
    assert spent >= 1.0
    assert measure(flow, source, Measuring(iw_samples=0), Clock(), silent)[1] is None


def test_pictures_need_images():
    from likelify.reproduce.pictures import draw_picture

    with pytest.raises(DataError, match="has no images"):
        draw_picture("samples", None, open_data(DataChoice(source="iris")), seed=0)
