"""A fit that is killed, interrupted or stopped by an error goes on to the result of one without a break."""

import errno
import json
import math
import os
import signal
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import likelify as lk
from likelify import zoo
from likelify.data import ArraySource, GraphItems, GraphSource, table, weighted
from likelify.errors import LikelifyWarning, NonFiniteError, RunError
from likelify.fitting.loop import fit
from likelify.fitting.run import Run
from likelify.fitting.settings import FitSettings, RunConfig
from likelify.fitting.weights import pack
from tests.fitting.toys import stripes, tiny_config, tiny_flow, trap

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


def goes_on_after_a_kill(folder, model, source, settings, *, step):
    """Assert that a fit that is killed at a step goes on to what one without a break comes to."""
    once, broken = (Run.create(folder / word, config(settings, model, source)) for word in ("once", "broken"))
    with lk.seeded(0):
        fit(model.build(), source, run=once)
    with lk.seeded(0), pytest.raises(Killed):
        fit(model.build(), source, run=broken, on_step=kill_at(step))
    broken.resume(source)
    same(broken, once)


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
        patched.setattr("likelify.fitting.loop." + ("_Fit._validate" if initialized else "initialize_layers"), die)
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


@pytest.mark.parametrize("place", ["likelify.fitting.loop._Fit._validate", "likelify.fitting.run.Run.save_course"])
def test_a_kill_at_the_first_validation_of_a_flow_that_was_fitted_before(place, tmp_path, monkeypatch):
    def fitted():
        flow = tiny_flow(seed=3)
        fit(flow, stripes(), EVERY, steps=3)
        return flow

    def die(*_, **__):
        raise Killed

    once, broken = (Run.create(tmp_path / name, config()) for name in ("once", "broken"))
    fit(fitted(), stripes(), run=once, initialize=False)
    flow = fitted()
    with monkeypatch.context() as patched:
        patched.setattr(place, die)
        with pytest.raises(Killed):
            fit(flow, stripes(), run=broken, initialize=False)
    Run.load(broken.path).resume(stripes())
    same(broken, once)


def test_a_checkpoint_that_cannot_be_removed_is_a_warning(tmp_path, monkeypatch):
    from pathlib import Path

    run, unlink = Run.create(tmp_path / "run", config()), Path.unlink

    def refuse(file, **named):
        if file.name == "checkpoint.safetensors":
            raise PermissionError(13, "Permission denied")
        unlink(file, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        with pytest.warns(LikelifyWarning, match="not removed: permission denied"):
            fit(tiny_flow(), stripes(), run=run)
    assert run.course().ended
    with pytest.warns(LikelifyWarning, match="has ended"):
        run.resume()
    assert not (run.path / "checkpoint.safetensors").exists()


SMALL = {
    **{"levels": 1, "steps": 1, "hidden": 4, "couplings": 1, "widths": (4,), "blocks": 1, "net_hidden": 4, "bins": 3},
    **{"width": 4, "depth": 1, "growth": 2, "features": 4, "latent_channels": 2, "flows": 1, "flow_hidden": 4},
}


# Of a graph; the rows below are those of eight graphs, and of two.
NODES = 3


def small(name):
    """Return a model as small as its settings allow."""
    fields = zoo.MODELS[name].model_fields
    settings = {word: value for word, value in SMALL.items() if word in fields}
    if "hidden" in fields and fields["hidden"].annotation is not int:
        settings["hidden"] = (4,)
    if "pixel_levels" in fields and zoo.MODELS[name].kind == "image":
        settings["pixel_levels"] = 4
    if "nodes" in fields:
        settings["nodes"] = NODES
    shape = {"image": (1, 8, 8), "sequence": (2, 8)}.get(zoo.MODELS[name].kind, (3,))
    return zoo.MODELS[name](event_shape=shape, **settings)


QUICK_ONES = ("marginal-spline", "glow", "flowified-mlp", "table-flow", "vae", "series")


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
    if kind == "graph":
        source = GraphSource("noise", {split: GraphItems(x, [NODES] * (len(x) // NODES)) for split, x in parts.items()})
    else:
        source = ArraySource("noise", parts, kind=kind, levels=4 if image else None)
    optimizer = "adamw" if image else "adamax"
    settings = FitSettings(steps=3, batch_size=8, validations=2, checkpoint_seconds=0, optimizer=optimizer, lr=1e-3)
    goes_on_after_a_kill(tmp_path, model, source, settings, step=2)


@pytest.mark.filterwarnings("ignore::likelify.errors.LikelifyWarning")
def test_weights_of_rows_and_trimming_go_on_as_they_were(tmp_path):
    rng = np.random.default_rng(0)
    rows = table(rng.normal(size=(120, 2)))
    source = weighted(rows, train=rng.uniform(0.1, 3, rows.size("train")))
    model = zoo.MODELS["table-flow"](
        event_shape=(2,), schema=rows.schema, members=("autoregressive",), width=4, components=2
    )
    settings = FitSettings(steps=4, batch_size=16, validations=2, checkpoint_seconds=0, lr=1e-2, trim=0.1)
    goes_on_after_a_kill(tmp_path, model, source, settings, step=3)


def test_networks_that_levels_share_go_on_as_they_were(tmp_path):
    rng = np.random.default_rng(0)
    images = {split: rng.integers(3, size=(40, 1, 4, 4)) for split in ("train", "validation", "test")}
    model = zoo.MODELS["pyramid"](event_shape=(1, 4, 4), pixel_levels=3, width=4, head=4, networks="shared")
    settings = FitSettings(steps=4, batch_size=16, validations=2, checkpoint_seconds=0, lr=1e-2)
    goes_on_after_a_kill(tmp_path, model, ArraySource("noise", images, kind="image", levels=3), settings, step=3)


def interrupted_at(step):
    def end(progress):
        if progress.step == step:
            signal.raise_signal(signal.SIGINT)

    return end


def test_ctrl_c_saves_and_the_last_steps_are_validated(tmp_path, whole):
    run, flow = Run.create(tmp_path / "run", config()), tiny_flow()
    course = fit(flow, stripes(), run=run, on_step=interrupted_at(6))
    assert course.reason == "interrupted"
    assert [point.step for point in course.points] == [0, 4, 6]
    assert not course.ended
    assert run.saved().facts.position.step == 6
    with pytest.warns(LikelifyWarning, match="was interrupted. Its weights are the best"):
        run.evaluate(stripes(), elbo_samples=1, iw_samples=0)
    assert run.sample(2).shape == (2, 1, 2, 2)
    run.resume(stripes())
    same(run, whole)


def test_a_second_ctrl_c_during_the_save_destroys_nothing(tmp_path, whole, monkeypatch):
    run = Run.create(tmp_path / "run", config())
    replace = os.replace

    def interrupt_twice(*names):
        if str(names[1]).endswith("checkpoint.safetensors") and armed:
            armed.clear()
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        replace(*names)

    armed = []
    monkeypatch.setattr(os, "replace", interrupt_twice)
    course = fit(tiny_flow(), stripes(), run=run, on_step=lambda progress: progress.step == 5 and armed.append(1))
    assert course.reason == "interrupted"
    assert run.saved().facts.position.step == 5
    run.resume(stripes())
    same(run, whole)


def test_time_that_was_used_counts(tmp_path):
    timed = EVERY.model_copy(update={"steps": 10**6, "max_time": 600.0})
    run = Run.create(tmp_path / "run", config(timed))
    with pytest.raises(Killed):
        fit(tiny_flow(), stripes(), run=run, on_step=kill_at(3))
    position = run.saved().facts.position
    assert 0 < position.seconds < 600
    gone = []

    def look(progress):
        gone.append(progress.seconds)
        raise Killed

    with pytest.raises(Killed):
        run.resume(stripes(), on_step=look)
    assert gone[0] > position.seconds


def begun(folder, step=5, settings=EVERY):
    run = Run.create(folder / "run", config(settings))
    with pytest.raises(Killed):
        fit(tiny_flow(), stripes(), run=run, on_step=kill_at(step))
    return run


def test_other_data_or_settings_are_refused(tmp_path):
    run = begun(tmp_path)
    with pytest.raises(RunError, match="data are not those that the fit in .* began with"):
        run.resume(stripes(labels=True).read_all("train").x)
    with pytest.raises(RunError, match="steps is 12, not 13; lr is 0.01, not 0.1"):
        fit(tiny_flow(), stripes(), run=run, steps=13, lr=0.1)
    with pytest.raises(RunError, match="does not fit the model: .* missing"):
        fit(tiny_flow(couplings=2), stripes(), run=run)
    assert run.resume(stripes(), checkpoint_seconds=7.0).reason == "finished"


def test_other_threads_or_versions_are_said(tmp_path):
    run = begun(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.warns(LikelifyWarning, match=rf"threads {threads} -> {threads + 1}\), so its result may differ"):
            run.resume(stripes())
    finally:
        torch.set_num_threads(threads)


def test_a_run_whose_fit_has_ended_is_left_as_it_is(tmp_path, whole):
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in whole.path.iterdir()}
    with pytest.warns(LikelifyWarning, match=r"has ended \(finished, 12 steps\); nothing was changed"):
        assert whole.resume(stripes()) == whole.course()
    with pytest.raises(RunError, match=r"has ended .* Fit in another folder"):
        fit(tiny_flow(), stripes(), run=whole)
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in whole.path.iterdir()} == before


def test_weights_without_a_checkpoint_are_not_replaced(tmp_path):
    run = begun(tmp_path)
    (run.path / "checkpoint.safetensors").unlink()
    kept = (run.path / "model.safetensors").read_bytes()
    with pytest.raises(RunError, match="holds weights and no checkpoint"):
        run.resume(stripes())
    assert (run.path / "model.safetensors").read_bytes() == kept


def test_two_fits_in_one_folder(tmp_path):
    run, refused = Run.create(tmp_path / "run", config()), []

    def another(progress):
        if not refused:
            thread = threading.Thread(target=lambda: refused.append(_refusal(run)))
            thread.start()
            thread.join()

    fit(tiny_flow(), stripes(), run=run, on_step=another)
    assert "Another process is at work in" in refused[0]


def _refusal(run):
    try:
        Run.load(run.path).resume(stripes())
    except RunError as error:
        return str(error)


def test_a_fit_that_diverges_has_ended(tmp_path):
    run, inner = Run.create(tmp_path / "run", config()), tiny_flow()
    flow = lk.Flow(inner.base, lk.Chain([*inner.transform, trap(8)]), event_shape=(1, 2, 2))
    with pytest.raises(NonFiniteError):
        fit(flow, stripes(), run=run)
    assert run.course().reason == "diverged"
    assert not (run.path / "checkpoint.safetensors").exists()
    with pytest.raises(RunError, match="has ended .diverged"):
        fit(tiny_flow(), stripes(), run=run)


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    run = begun(tmp_path, 4)
    kept = (run.path / "checkpoint.safetensors").read_bytes()

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fail)
        with pytest.warns(LikelifyWarning) as found, pytest.raises(Killed):
            run.resume(stripes(), on_step=kill_at(6))
    said = [str(each.message) for each in found]
    assert sum("state of the fit was not saved, and the fit goes on" in words for words in said) == 1
    assert all("no space left on device" in words for words in said)
    assert (run.path / "checkpoint.safetensors").read_bytes() == kept
    assert run.resume(stripes()).reason == "finished"


def test_what_the_fit_goes_on_with_the_next_one_goes_on_with(tmp_path):
    run = begun(tmp_path, 2)
    file = run.path / "checkpoint.safetensors"
    state = load_file(file)
    large = next(name for name in state if name.startswith("optimizer.exp_avg_sq."))
    file.write_bytes(pack(state | {large: torch.full_like(state[large], math.inf)}))
    assert run.resume(stripes()).reason == "finished"


@pytest.mark.parametrize("change", ["truncated", "bit", "foreign", "nan", "later", "none", "pipe", "link", "words"])
def test_a_checkpoint_that_is_none_is_refused(change, tmp_path):
    run = begun(tmp_path, 2)
    file = run.path / "checkpoint.safetensors"
    content = file.read_bytes()
    state = load_file(file)
    facts = json.loads(state["json"].numpy().tobytes())
    words = {
        "truncated": "damaged or not a safetensors file",
        "bit": "digest differs",
        "foreign": "does not fit the model",
        "nan": "are not finite",
        "later": "it has format 2. Upgrade likelify",
        "none": "does not say what it is of",
        "pipe": "not an ordinary file",
        "link": "link to a place outside",
        "words": "no setting 'surprise'",
    }
    file.unlink()
    if change == "truncated":
        file.write_bytes(content[:-9])
    elif change == "bit":
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif change == "foreign":
        name = next(name for name in state if name.startswith("average.") and state[name].ndim)
        file.write_bytes(pack(state | {name: torch.zeros(3)}))
    elif change == "nan":
        name = next(name for name in state if name.startswith("optimizer.exp_avg."))
        file.write_bytes(pack(state | {name: torch.full_like(state[name], math.inf)}))
    elif change in ("later", "words"):
        facts |= {"format": 2} if change == "later" else {"surprise": 1}
        file.write_bytes(
            pack(state | {"json": torch.frombuffer(bytearray(json.dumps(facts).encode()), dtype=torch.uint8)})
        )
    elif change == "none":
        file.write_bytes(pack({"a": torch.zeros(2)}))
    elif change == "pipe":
        os.mkfifo(file)
    else:
        (tmp_path / "elsewhere").write_bytes(content)
        file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=words[change]):
        run.resume(stripes())
