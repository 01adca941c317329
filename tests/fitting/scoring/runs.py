"""Small runs that the tests of scoring share."""

import csv

import numpy as np
import torch

import likelify as lk
from likelify import zoo
from likelify.data import table
from likelify.fitting.run import Run
from likelify.fitting.scoring.scorer import Wanted
from likelify.fitting.scoring.scoring import Scoring, items_of
from likelify.fitting.settings import RunConfig
from tests.fitting.toys import QUICK, stripes, tiny_config, tiny_flow

COLUMNS = ("length", "width", "weight")
# Columns that tell of one another: deviations given the others are far below their own.
MIXING = np.array([[1.0, 0.9, 0.8], [0.0, 0.3, 0.2], [0.0, 0.0, 0.25]])


def rows(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 3)) @ MIXING


def table_run(folder, monkeypatch=None):
    """A run of rows, weights never trained, whose data are found again in this process."""
    source = table(rows(400), columns=COLUMNS)
    model = zoo.MODELS["flowified-mlp"](event_shape=(3,), widths=(4,))
    return _made(folder, RunConfig(data=source.facts(), model=model, fit=QUICK), source, monkeypatch)


def image_run(folder, monkeypatch=None):
    source = stripes(labels=True)
    return _made(folder, RunConfig(data=source.facts(), model=tiny_config(), fit=QUICK), source, monkeypatch)


def _made(folder, config, source, monkeypatch):
    run = Run.create(folder, config)
    with lk.seeded(0):
        flow = config.model.build()
    flow.initialize(source.read_all("train").x)
    run.save_weights(flow.state_dict())
    if monkeypatch is not None:
        monkeypatch.setattr(Run, "source", lambda _: source)
    # What is kept in the run serves processes that do not find the data.
    return run


def write_rows(file, values, ids=None):
    """A CSV of rows with ids in front and the columns in another order."""
    with file.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["id", *COLUMNS[::-1], "note"])
        for number, row in enumerate(values):
            writer.writerow([f"r{number}" if ids is None else ids[number], *row[::-1].tolist(), f"={number}+1"])
    return file


def scored(run, file, **words):
    return Scoring(run, items_of(run, file), Wanted(draws=2, **words))


def gaussian():
    """The exact flow of the rows, and what their conditional residuals are, standardised."""
    precision = np.linalg.inv(MIXING.T @ MIXING)
    whitening = torch.from_numpy(np.linalg.inv(MIXING).T.copy())
    flow = lk.Flow(lk.Normal((3,)), _Linear(whitening), event_shape=(3,)).double()

    def residuals(x):
        return x @ precision / np.sqrt(np.diag(precision))

    return flow, residuals


class _Linear(lk.Transform):
    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(weight)

    def forward(self, x, context=None):
        return x @ self.weight.T, self.weight.slogdet().logabsdet.expand(len(x))

    def inverse(self, z, context=None):
        return z @ self.weight.inverse().T, -self.weight.slogdet().logabsdet.expand(len(z))


__all__ = ["COLUMNS", "gaussian", "image_run", "rows", "scored", "stripes", "table_run", "tiny_flow", "write_rows"]
