"""A fit that is killed, interrupted or stopped by an error goes on to the result of one without a break."""

import numpy as np
import pytest
import torch

import likelify as lk
from likelify import zoo
from likelify.data import ArraySource
from likelify.fitting.loop import fit
from likelify.fitting.run import Run
from likelify.fitting.settings import FitSettings, RunConfig
from tests.fitting.toys import stripes, tiny_config, tiny_flow

EVERY = FitSettings(steps=12, lr=1e-2, batch_size=64, validations=3, warmup=4, checkpoint_seconds=0)


class Killed(BaseException):
    """Ends a fit as nothing that it expects."""


def config(settings=EVERY, model=None, source=None):
    return RunConfig(data=(source or stripes()).facts(), model=model or tiny_config(), fit=settings)


def kill_at(step):
    def end(progress):
        if progress.step == step:
            raise Killed

    return end


def same(run, other):
    """Assert that two runs hold the same weights and courses, seconds aside."""
    one, two = run.flow().state_dict(), other.flow().state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    courses = [each.course().model_dump(exclude={"seconds"}) for each in (run, other)]
    for course in courses:
        course["points"] = [{**point, "seconds": 0} for point in course["points"]]
    assert courses[0] == courses[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = Run.create(tmp_path_factory.mktemp("whole") / "run", config())
    fit(tiny_flow(), stripes(), run=run)
    assert sorted(path.name for path in run.path.iterdir()) == [
        "config.json",
        "course.json",
        "metrics.csv",
        "model.safetensors",
    ]
    return run


@pytest.mark.parametrize("steps", [(1,), (4,), (5, 6, 11), (12,)])
def test_a_fit_goes_on_to_the_same_result(steps, tmp_path, whole):
    run = Run.create(tmp_path / "run", config())
    with pytest.raises(Killed):
        fit(tiny_flow(), stripes(), run=run, on_step=kill_at(steps[0]))
    for step in steps[1:]:
        with pytest.raises(Killed):
            Run.load(run.path).resume(stripes(), on_step=kill_at(step))
    course = Run.load(run.path).resume(stripes())
    assert course.reason == "finished"
    assert not (run.path / "checkpoint.safetensors").exists()
    same(run, whole)


def test_fit_itself_goes_on_where_the_run_has_begun(tmp_path, whole):
    run = Run.create(tmp_path / "run", config())
    with pytest.raises(Killed):
        fit(tiny_flow(), stripes(), run=run, on_step=kill_at(7))
    # Whatever the flow is now, it goes on from what it was.
    flow = tiny_flow(seed=5)
    fit(flow, stripes(), run=Run.load(run.path))
    same(run, whole)
    for name, tensor in run.flow().state_dict().items():
        assert torch.equal(tensor, flow.state_dict()[name])


@pytest.mark.parametrize("initialized", [False, True])
def test_a_kill_before_the_first_validation(initialized, tmp_path, whole, monkeypatch):
    run = Run.create(tmp_path / "run", config())

    def die(*_, **__):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("likelify.fitting.loop." + ("_Fit._validate" if initialized else "_initialize"), die)
        with pytest.raises(Killed):
            fit(tiny_flow(), stripes(), run=run)
    assert Run.load(run.path).saved().facts.initialized is False
    assert Run.load(run.path).resume(stripes()).reason == "finished"
    same(run, whole)
    # Before anything was written the weights are those of the seed.
    begun = Run.create(tmp_path / "begun", config())
    begun.resume(stripes())
    same(begun, whole)


def test_a_flow_that_was_fitted_before_goes_on_from_its_own_weights(tmp_path):
    def fitted():
        flow = tiny_flow(seed=3)
        fit(flow, stripes(), EVERY, steps=3)
        return flow

    once, broken = (Run.create(tmp_path / name, config()) for name in ("once", "broken"))
    fit(fitted(), stripes(), run=once, initialize=False)
    with pytest.raises(Killed):
        fit(fitted(), stripes(), run=broken, initialize=False, on_step=kill_at(1))
    broken.resume(stripes())
    same(broken, once)


SMALL = {
    **{"levels": 1, "steps": 1, "hidden": 4, "couplings": 1, "widths": (4,), "blocks": 1, "net_hidden": 4, "bins": 3},
    **{"width": 4, "depth": 1, "growth": 2, "features": 4, "latent_channels": 2, "flows": 1, "flow_hidden": 4},
}


def small(name):
    """Return a model as small as its settings allow."""
    fields = zoo.MODELS[name].model_fields
    settings = {word: value for word, value in SMALL.items() if word in fields}
    if "hidden" in fields and fields["hidden"].annotation is not int:
        settings["hidden"] = (4,)
    if "pixel_levels" in fields:
        settings["pixel_levels"] = 4
    return zoo.MODELS[name](event_shape=(1, 8, 8) if zoo.MODELS[name].kind == "image" else (3,), **settings)


QUICK_ONES = ("marginal-spline", "glow", "flowified-mlp", "vae", "series")


@pytest.mark.filterwarnings("ignore::likelify.errors.LikelifyWarning")
@pytest.mark.parametrize(
    "name", [name if name in QUICK_ONES else pytest.param(name, marks=pytest.mark.slow) for name in zoo.MODELS]
)
def test_every_model_goes_on_to_the_same_result(name, tmp_path):
    model = small(name)
    image, shape = zoo.MODELS[name].kind == "image", model.event_shape
    rng = np.random.default_rng(0)
    parts = {
        split: rng.integers(0, 4, (n, *shape)) if image else rng.normal(size=(n, *shape))
        for split, n in (("train", 24), ("validation", 6))
    }
    kind = zoo.MODELS[name].kind
    source = ArraySource("noise", parts, kind=kind, levels=4 if image else None)
    optimizer = "adamw" if image else "adamax"
    settings = FitSettings(steps=3, batch_size=8, validations=2, checkpoint_seconds=0, optimizer=optimizer, lr=1e-3)
    once, broken = (Run.create(tmp_path / word, config(settings, model, source)) for word in ("once", "broken"))
    with lk.seeded(0):
        fit(model.build(), source, run=once)
    with lk.seeded(0), pytest.raises(Killed):
        fit(model.build(), source, run=broken, on_step=kill_at(2))
    broken.resume(source)
    same(broken, once)
