import json
import math
import os

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

import likelify as lk
from likelify import zoo
from likelify.data import ArraySource, open_source
from likelify.errors import ConfigError, DataError, NonFiniteError, RunError
from likelify.fitting.config import RunConfig
from likelify.fitting.loop import fit
from likelify.fitting.metrics import Figure, bits_per_dim, evaluate
from likelify.fitting.run import Run
from likelify.fitting.settings import FitSettings
from likelify.testing import randomize


def stripes(labels=False):
    """Tiny images in which neighbours are equal: a model of single pixels cannot know."""
    rng = np.random.default_rng(0)
    kinds = {
        split: rng.integers(0, 3, size=(n, 1, 1, 1)) for split, n in (("train", 400), ("validation", 60), ("test", 80))
    }
    events = {split: np.broadcast_to(kind, (len(kind), 1, 2, 2)).copy() for split, kind in kinds.items()}
    classes = {split: kind[:, 0, 0, 0] for split, kind in kinds.items()} if labels else None
    return ArraySource("stripes", events, kind="image", levels=3, labels=classes, classes=3 if labels else None)


def tiny_config(**settings):
    values = {"event_shape": (1, 2, 2), "pixel_levels": 3, "couplings": 4, "hidden": (16,), "dropout": 0.1}
    return zoo.MODELS["marginal-spline"](**(values | settings))


def tiny_flow(seed=0, **settings):
    with lk.seeded(seed):
        return tiny_config(**settings).build()


QUICK = FitSettings(steps=150, lr=1e-2, batch_size=64, validations=3, warmup=10)


def test_a_fit_beats_the_independent_pixel_model_by_far():
    source, flow = stripes(), tiny_flow()
    independent = math.log2(3)
    result = fit(flow, source, QUICK)
    measured = evaluate(flow, source, elbo_samples=4, iw_samples=20)
    assert measured.elbo.bits.mean < 0.75 * independent
    assert measured.iw.bits.mean < measured.elbo.bits.mean
    assert result.looks[0].validation_bits == pytest.approx(independent, abs=0.1)
    assert result.reason == "finished"
    assert result.best_bits == min(look.validation_bits for look in result.looks)
    assert [look.step for look in result.looks] == [0, 50, 100, 150]


def test_batches_and_noise_are_functions_of_the_seed():
    def weights(seed):
        flow = tiny_flow()
        fit(flow, stripes(), QUICK.model_copy(update={"steps": 12, "seed": seed}))
        return flow.state_dict()

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_fit_leaves_the_generator_alone():
    state = torch.get_rng_state()
    fit(tiny_flow(), stripes(), QUICK.model_copy(update={"steps": 2}))
    assert torch.equal(torch.get_rng_state(), state)


def test_conditional_fits_use_the_labels():
    source, flow = stripes(labels=True), tiny_flow(classes=3, dropout=0.0)
    fit(flow, source, QUICK, conditional=True)
    right = evaluate(flow, source, elbo_samples=2, iw_samples=0, conditional=True)
    assert right.elbo.bits.mean < 0.6
    assert right.iw is None
    with pytest.raises(DataError, match="has no labels"):
        fit(tiny_flow(classes=3), stripes(), QUICK, conditional=True)


def test_a_non_finite_loss_stops_the_fit_and_keeps_good_weights():
    class Trap(lk.Affine):
        calls = 0

        def forward(self, x, context=None):
            z, log_det = super().forward(x, context)
            Trap.calls += 1
            return z, log_det * (math.nan if Trap.calls > 40 else 1.0)

    inner = tiny_flow()
    flow = lk.Flow(inner.base, lk.Chain([*inner.transform, Trap()]), event_shape=(1, 2, 2))
    kept = []
    with pytest.raises(NonFiniteError, match=r"became nan at step \d+.*weights of step \d+ are kept.*lower one"):
        fit(flow, stripes(), QUICK, on_best=lambda state, result: kept.append((result.best_step, state)))
    assert kept
    for name, tensor in flow.state_dict().items():
        assert torch.equal(tensor, kept[-1][1][name])
        assert not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def test_time_patience_and_interruption_end_a_fit():
    quick = QUICK.model_copy(update={"steps": 10**6, "max_time": 2.0})
    result = fit(tiny_flow(), stripes(), quick)
    assert result.reason == "time is up"
    assert result.looks[-1].lr < 0.3 * quick.lr
    tired = fit(tiny_flow(), stripes(), QUICK.model_copy(update={"lr": 1e-12, "patience": 1, "average": 0.0}))
    assert tired.reason == "stopped early"
    assert tired.steps < QUICK.steps

    def interrupt(progress):
        if progress.step == 60:
            raise KeyboardInterrupt

    flow = tiny_flow()
    stopped = fit(flow, stripes(), QUICK, on_step=interrupt)
    assert stopped.reason == "interrupted"
    # The last steps are looked at before it ends, so that they are not lost.
    assert stopped.looks[-1].step == stopped.steps == 60


def test_adamax_and_an_explicit_fabric():
    flow = tiny_flow()
    fabric = Fabric(accelerator="cpu", devices=1)
    result = fit(flow, stripes(), QUICK.model_copy(update={"optimizer": "adamax", "steps": 60}), fabric=fabric)
    assert result.best_bits < 0.95 * math.log2(3)


def test_figures():
    assert float(bits_per_dim(torch.tensor(-math.log(8.0)), 3)) == pytest.approx(1.0)
    figure = Figure.of(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert (figure.mean, figure.items) == (2.5, 4)
    assert figure.standard_error == pytest.approx(math.sqrt(5 / 3) / 2)
    exact = lk.Flow(lk.Normal((1, 2, 2)), lk.ActNorm(1))
    flow = lk.Flow(exact.base, lk.Chain([lk.Dequantize(3), lk.ActNorm(1)]))
    once, again = (evaluate(flow, stripes(), elbo_samples=2, iw_samples=3, batch_size=size) for size in (7, 7))
    assert once == again
    assert once.elbo.bits.items == 80
    assert evaluate(flow, stripes(), limit=5).elbo.bits.items == 5


def run_config(model=None):
    return RunConfig(source="stripes", fingerprint="0" * 16, model=model or tiny_config(), fit=QUICK)


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
        ({"format": 99}, "reads formats up to 1"),
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


def test_settings_are_validated():
    with pytest.raises(ConfigError, match=r"lrr: .*Known settings: steps"):
        FitSettings.parse({"lrr": 1})
    with pytest.raises(ConfigError, match="average"):
        FitSettings.parse({"average": 1.5})


@pytest.mark.slow
def test_the_default_digits_model_after_a_few_seconds():
    source = open_source("digits")
    with lk.seeded(0):
        flow = zoo.build("marginal-spline", event_shape=source.event_shape, pixel_levels=source.levels)
    fit(flow, source, FitSettings(steps=200))
    assert evaluate(flow, source, iw_samples=0).elbo.bits.mean < 2.0


def _fit_in_each_process(fabric, folder):
    torch.set_num_threads(1)
    flow = tiny_flow()
    result = fit(flow, stripes(), QUICK.model_copy(update={"steps": 60}), fabric=fabric)
    torch.save(flow.state_dict(), folder / f"{fabric.global_rank}.pt")
    return result.best_bits


@pytest.mark.slow
def test_two_processes_give_the_same_weights_and_learn_like_one(tmp_path):
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp_fork")
    bits = fabric.launch(_fit_in_each_process, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    alone = fit(tiny_flow(), stripes(), QUICK.model_copy(update={"steps": 60}))
    assert bits == pytest.approx(alone.best_bits, abs=0.05)


def test_going_on_keeps_what_was_fitted():
    source, flow = stripes(), tiny_flow()
    fit(flow, source, QUICK)
    before = evaluate(flow, source, iw_samples=0).elbo.bits.mean
    looks = fit(flow, source, QUICK.model_copy(update={"steps": 2, "lr": 1e-6}), initialize=False).looks
    assert looks[0].validation_bits == pytest.approx(before, abs=0.15)
