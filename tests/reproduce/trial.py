"""An experiment of seconds, for the tests."""

from likelify.fitting.sources import DataChoice
from likelify.reproduce.cell import Measuring
from likelify.reproduce.experiment import DataSet, Experiment, Method, Paper
from likelify.reproduce.measure import run_cell
from likelify.reproduce.runner import Folders

TINY = {"model": "marginal-spline", "couplings": 1, "hidden": (8,), "bins": 2}
METHODS = (
    Method("Plain <b> & simple", TINY | {"bins": 3}),
    Method("Splines", TINY, picture="inverses"),
)


def experiment(**changed):
    values = {
        "name": "trial",
        "title": "A <trial> of | things",
        "scale": "quick",
        "methods": METHODS,
        "data": (DataSet("digits", DataChoice(source="digits", limits={"train": 200, "validation": 40, "test": 50})),),
        "seeds": 2,
        "fit": {"steps": 4, "batch_size": 32, "validations": 2, "clock": "processor"},
        "budget": None,
        "measuring": Measuring(iw_samples=4, iw_items=10, seconds=60.0),
        "baseline": METHODS[0].title,
        "paper": Paper("A. Nobody", {("Splines", "digits"): "1.5", ("Splines", "MNIST"): "0.9"}),
        "caveat": "Means <nothing>.",
    }
    return Experiment(**(values | changed))


def silent(*_):
    pass


def run_here(cells, results, runs, *, reuse=False):
    for cell in cells:
        run_cell(cell, Folders(results=results, runs=runs, reuse=reuse), silent)
