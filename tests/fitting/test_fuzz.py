"""The law of readers over run folders and the file of an experiment's cells."""

import numpy as np
import pytest
import torch

from likelify import zoo
from likelify.errors import RunError
from likelify.fitting.checkpoint import Checkpoints, Facts, Machine, Saved, restore
from likelify.fitting.figures import Course, Evaluation, Figure, Point, Score
from likelify.fitting.files import as_json, write_atomically
from likelify.fitting.resuming import unfitted
from likelify.fitting.run import Run
from likelify.fitting.scoring.kept import keep_numbers, read_numbers
from likelify.fitting.settings import RunConfig
from likelify.fitting.sources import DataChoice
from likelify.fitting.state import FitState, Position
from likelify.fitting.training import build_optimizer
from likelify.reproduce.store import read_cells, save_cell
from tests.fitting.toys import QUICK, facts_for
from tests.fuzz import Reader, check

SCORES = "scores/validation-exact.safetensors"
MODELS = {
    "marginal-spline": {"couplings": 1, "hidden": (4,)},
    "fconv1": {"net_hidden": 4},
    "glow": {"levels": 1, "steps": 1, "hidden": 4},
}


def write_run(folder, model):
    config = zoo.MODELS[model](event_shape=(1, 8, 8), pixel_levels=3, **MODELS[model])
    opened = DataChoice(source="digits", limits={"train": 9})
    made = Run.create(folder, RunConfig(data=facts_for(config), opened=opened, model=config, fit=QUICK))
    flow = config.build()
    made.save_weights(flow.state_dict())
    point = Point(step=0, seconds=0.5, train_bits=None, train_nats=None, validation_bits=1.5, validation_nats=-9.0)
    made.save_course(Course(reason="running", points=(point,)))
    figure = Figure(mean=1.5, standard_error=0.1, count=20)
    score = Score(bits=figure, nats=figure, samples=3)
    measured = Evaluation(source="stripes", split="test", elbo=score, iw=score, gaps={2: figure}, weights="0" * 64)
    write_atomically(folder / "evaluation.json", as_json(measured))
    keep_numbers(folder / SCORES, np.zeros(20), "all")
    state = FitState(flow, build_optimizer(flow, QUICK), QUICK)
    state.add(point, 0)
    sum(parameter.sum() for parameter in flow.parameters()).backward()
    state.optimizer.step()
    here = Machine.now(torch.device("cpu"), 1)
    facts = Facts(machine=here, data="", conditional=False, fit=QUICK, initialized=True, position=Position())
    Checkpoints(folder, facts).save(state)


def read_run(folder):
    run = Run.load(folder)
    run.course()
    run.evaluation()
    read_numbers(folder / SCORES, "all", (20,))
    saved = Saved(folder)
    flow = unfitted(run, saved)
    restore(saved, FitState(flow, build_optimizer(flow, saved.facts.fit), saved.facts.fit))
    return run.flow()


def read_experiment(folder):
    for values in read_cells(folder).values():
        if not isinstance(values, dict):
            raise RunError("A cell is plain data.")


READERS = [
    *(
        Reader(model, lambda folder, model=model: write_run(folder, model), read_run)
        for model in MODELS
    ),
    Reader("cells", lambda folder: save_cell(folder, "a.b.0", {"seed": 1, "elbo": [1.5, None, "x"]}), read_experiment),
]  # fmt: skip


def test_spoiled_run_folders():
    report = check(__name__, 350)
    assert 0 < report.read < 350


@pytest.mark.slow
def test_many_spoiled_run_folders():
    check(__name__, 1000, seed=1)
