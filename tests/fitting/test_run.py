import errno
import json
import os

import pytest
import torch

import likelify as lk
from likelify import zoo
from likelify.data import subset
from likelify.errors import ConfigError, DataError, LikelifyWarning, RunError
from likelify.fitting.figures import Course, Evaluation, Figure, Score
from likelify.fitting.loop import fit
from likelify.fitting.run import Run
from likelify.fitting.settings import RunConfig
from likelify.testing import randomize
from tests.fitting.toys import QUICK, facts_for, stripes, tiny_config, tiny_flow


def run_config(model=None):
    model = model or tiny_config()
    return RunConfig(data=facts_for(model), model=model, fit=QUICK)


def test_a_run_folder_gives_back_the_model(tmp_path):
    run = Run.create(tmp_path / "run", run_config())
    flow = randomize(tiny_flow())
    flow.initialize(stripes().read_all("train").x)
    run.save_weights(flow.state_dict())
    loaded = Run.load(tmp_path / "run")
    assert loaded.config == run.config
    x = stripes().read_all("test").x
    with lk.seeded(0):
        expected = flow.elbo(x).value
    with lk.seeded(0):
        assert torch.equal(loaded.flow().elbo(x).value, expected)
    glow = zoo.MODELS["glow"](event_shape=(1, 4, 4), levels=1, steps=1, hidden=4, mixing="conv-exponential")
    other = Run.create(tmp_path / "glow", run_config(glow))
    other.save_weights(glow.build().state_dict())
    assert Run.load(tmp_path / "glow").config.model == glow
    other.flow()
    assert sorted(p.name for p in (tmp_path / "glow").iterdir()) == ["config.json", "model.safetensors"]


def test_run_folders_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(RunError, match="not a run folder"):
        Run.load(tmp_path)
    run = Run.create(tmp_path / "run", run_config())
    with pytest.raises(RunError, match="not empty; nothing was overwritten"):
        Run.create(tmp_path / "run", run_config())
    with pytest.raises(RunError, match=r"has no model\.safetensors"):
        run.flow()
    weights = run.path / "model.safetensors"
    weights.write_bytes(b"not a safetensors file")
    with pytest.raises(RunError, match="damaged"):
        run.flow()
    run.save_weights(tiny_flow(couplings=2).state_dict())
    with pytest.raises(RunError, match="do not fit the model"):
        run.flow()
    values = json.loads((run.path / "config.json").read_text())
    for change, message in (
        ({"format": 99}, "reads format 3. Upgrade likelify"),
        ({"format": 1}, "has format 1; .* reads format 3. Fit it again"),
        ({"format": "3"}, "has format 3; .* reads format 3. Fit it again"),
        ({"format": None}, "has format None"),
        ({"surprise": 1}, "surprise"),
        ({"model": {"model": "os.system"}}, "cannot be read"),
    ):
        (run.path / "config.json").write_text(json.dumps(values | change))
        with pytest.raises(RunError, match=message):
            Run.load(run.path)
    (run.path / "config.json").write_text("{")
    with pytest.raises(RunError, match="cannot be read"):
        Run.load(run.path)


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    run = Run.create(tmp_path / "run", run_config())
    run.save_weights({"a": torch.zeros(1)})
    before = (run.path / "model.safetensors").read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        run.save_weights({"a": torch.ones(1)})
    assert (run.path / "model.safetensors").read_bytes() == before
    assert sorted(p.name for p in run.path.iterdir()) == ["config.json", "model.safetensors"]


def test_a_fit_keeps_its_weights_and_its_course_from_the_first_improvement_on(tmp_path):
    run = Run.create(tmp_path / "run", run_config())
    assert run.course() is None
    seen = []

    def look(progress):
        seen.append((run.course().reason, (run.path / "model.safetensors").is_file()))

    flow = tiny_flow()
    course = fit(flow, stripes(), run=run, on_step=look)
    assert set(seen) == {("running", True)}
    assert Run.load(run.path).course() == course
    assert course.reason == "finished"
    lines = (run.path / "metrics.csv").read_text().splitlines()
    assert lines[0] == "step,seconds,train_bits,validation_bits,lr"
    assert len(lines) == 1 + len(course.points)
    best = min(course.points, key=lambda point: point.validation_bits)
    assert course.best == best
    for name, tensor in Run.load(run.path).flow().state_dict().items():
        assert torch.equal(tensor, flow.state_dict()[name])
    (run.path / "course.json").write_text("{}}")
    assert run.course() is None


def test_a_run_measures_and_draws(tmp_path):
    source = stripes(labels=True)
    config = RunConfig(data=source.facts(), conditional=True, model=tiny_config(classes=3), fit=QUICK)
    run = Run.create(tmp_path / "run", config)
    run.save_weights(tiny_flow(classes=3).state_dict())
    measured = run.evaluate(source, elbo_samples=2, iw_samples=3, iw_items=10)
    assert (measured.elbo.samples, measured.iw.samples, measured.iw.nats.count) == (2, 3, 10)
    assert json.loads((run.path / "evaluation.json").read_text()) == measured.model_dump(mode="json")
    run.evaluate(source, split="validation", elbo_samples=1, iw_samples=0)
    assert (run.path / "evaluation-validation.json").is_file()
    kept = (run.path / "evaluation.json").read_text()
    run.evaluate(subset(source, test=20), elbo_samples=1, iw_samples=0)
    run.evaluate(source, limit=4, elbo_samples=1, iw_samples=0)
    assert (run.path / "evaluation.json").read_text() == kept
    drawn = run.sample(5, label=2, seed=3)
    assert drawn.shape == (5, 1, 2, 2)
    assert torch.equal(drawn, run.sample(5, label=2, seed=3))
    for number in (-1, 2.5, 0, "3"):
        with pytest.raises(ConfigError, match=rf"number of samples must be 1, 2, ..., got {number!r}"):
            run.sample(number)
    for temperature in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match=rf"temperature .* not negative, got {temperature}"):
            run.sample(2, temperature=temperature)
    with pytest.raises(ConfigError, match="There is no split 'tset'. Did you mean 'test'"):
        run.evaluate(source, split="tset")
    assert repr(run) == f"Run('{run.path}', model='marginal-spline', data='stripes')"
    with pytest.raises(ConfigError, match=r"label 3 does not fit: its classes are 0\.\.2"):
        run.sample(1, label=3)


@pytest.fixture
def measured(tmp_path):
    """A run that can be evaluated, with an ELBO of two draws and importance weighting of three on ten items."""
    run = Run.create(tmp_path / "run", run_config())
    run.save_weights(tiny_flow().state_dict())
    run.evaluate(stripes(), elbo_samples=2, iw_samples=3, iw_items=10)
    return run


@pytest.mark.parametrize(
    "fewer", [{"iw_samples": 0}, {"iw_items": 9}, {"iw_samples": 2, "elbo_samples": 9}, {"elbo_samples": 1}]
)
def test_figures_of_more_draws_are_not_replaced(measured, fewer):
    kept = measured.evaluation()
    with pytest.warns(LikelifyWarning, match="were not kept. '.*evaluation.json' holds figures of more draws"):
        shown = measured.evaluate(stripes(), **{"elbo_samples": 2, "iw_samples": 3, "iw_items": 10} | fewer)
    assert shown != kept
    assert measured.evaluation() == kept


def test_figures_of_as_many_draws_or_of_other_weights_replace_those_that_are_there(measured):
    finer = measured.evaluate(stripes(), elbo_samples=2, iw_samples=3, iw_items=11)
    assert measured.evaluation() == finer
    measured.save_weights(tiny_flow(seed=1).state_dict())
    other = measured.evaluate(stripes(), elbo_samples=1, iw_samples=0)
    assert measured.evaluation() == other


def test_changed_settings_are_not_blamed_for_damaged_weights(measured):
    with pytest.raises(RunError, match="do not fit with couplings changed"):
        measured.flow(couplings=2)
    file = measured.path / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-4] + bytes([content[-4] ^ 1]) + content[-3:])
    with pytest.raises(RunError, match="digest differs"):
        measured.flow(dropout=0.2)


def test_items_in_memory_are_measured_whole(measured):
    pixels = stripes().read_all("test").x
    kept = measured.evaluation()
    for data in (pixels, pixels.numpy(), torch.utils.data.TensorDataset(pixels)):
        found = measured.evaluate(data, elbo_samples=4, iw_samples=0)
        assert found.elbo.bits.count == 80
        assert found.elbo.bits.mean == pytest.approx(kept.elbo.bits.mean, abs=0.2)
    assert measured.evaluation() == kept
    with pytest.raises(DataError, match=r"has shape \(80, 1, 4, 1\); the model is of images of shape \(1, 2, 2\)"):
        measured.evaluate(pixels.reshape(-1, 1, 4, 1))


def test_a_fit_that_was_killed_is_said_to_be(measured):
    measured.save_course(Course(reason="running", best_step=7))
    with pytest.warns(LikelifyWarning, match=r"did not end: it was killed. .* of step 7"):
        measured.evaluate(stripes(), elbo_samples=2, iw_samples=3, iw_items=10)


def test_figures_on_a_disk_that_cannot_be_written_are_returned(measured, monkeypatch):
    def fail(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.warns(LikelifyWarning, match=r"not kept. '.*evaluation-validation.json' cannot be written: read-only"):
        assert measured.evaluate(stripes(), split="validation", elbo_samples=1, iw_samples=0).elbo.bits.count == 60


def test_figures_that_are_infinite_are_returned_and_not_written(measured, monkeypatch):
    endless = Figure(mean=-float("inf"), standard_error=None, count=80)
    score = Score(bits=endless, nats=endless, samples=9)
    made_up = Evaluation(source="stripes", split="test", elbo=score, iw=score)
    monkeypatch.setattr("likelify.fitting.evaluating.evaluate", lambda *_, **__: made_up)
    kept = (measured.path / "evaluation.json").read_text()
    with pytest.warns(LikelifyWarning, match="not kept. A figure is infinite or not a number"):
        assert measured.evaluate(stripes(), iw_samples=0).elbo == score
    assert (measured.path / "evaluation.json").read_text() == kept
