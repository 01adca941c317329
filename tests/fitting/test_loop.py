import math

import pytest
import torch
from lightning_fabric import Fabric

import likelify as lk
from likelify import zoo
from likelify.data import open_source
from likelify.errors import ConfigError, DataError, LikelifyWarning, NonFiniteError
from likelify.fitting.loop import fit
from likelify.fitting.metrics import evaluate
from likelify.fitting.settings import FitSettings
from tests.fitting.toys import QUICK, stripes, tiny_flow, trap


def test_a_fit_beats_the_independent_pixel_model_by_far():
    source, flow = stripes(), tiny_flow()
    independent = math.log2(3)
    result = fit(flow, source, QUICK)
    measured = evaluate(flow, source, elbo_samples=4, iw_samples=20)
    assert measured.elbo.bits.mean < 0.75 * independent
    assert measured.iw.bits.mean < measured.elbo.bits.mean
    assert result.points[0].validation_bits == pytest.approx(independent, abs=0.1)
    assert result.reason == "finished"
    assert result.best.validation_bits == min(point.validation_bits for point in result.points)
    assert [point.step for point in result.points] == [0, 50, 100, 150]


def test_batches_and_noise_are_functions_of_the_seed():
    def weights(seed):
        flow = tiny_flow()
        fit(flow, stripes(), QUICK.model_copy(update={"steps": 12, "seed": seed}))
        return flow.state_dict()

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_single_settings_by_name():
    course = fit(tiny_flow(), stripes(), QUICK, steps=4, validations=2)
    assert [point.step for point in course.points] == [0, 2, 4]
    assert fit(tiny_flow(), stripes(), steps=1, batch_size=8).steps == 1
    with pytest.raises(ConfigError, match="no setting 'stepps'. Did you mean 'steps'"):
        fit(tiny_flow(), stripes(), stepps=3)
    with pytest.raises(ConfigError, match="steps"):
        fit(tiny_flow(), stripes(), steps=0)
    with pytest.raises(ConfigError, match="no parameters"):
        fit(lk.Flow(lk.Normal((1, 2, 2)), lk.Dequantize(3)), stripes())


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
    inner = tiny_flow()
    flow = lk.Flow(inner.base, lk.Chain([*inner.transform, trap(40)]), event_shape=(1, 2, 2))
    kept = []
    with pytest.raises(NonFiniteError, match=r"became nan at step \d+.*weights of step \d+ are kept.*lower one"):
        fit(flow, stripes(), QUICK, on_best=lambda state, course: kept.append((course.best_step, state)))
    assert kept
    for name, tensor in flow.state_dict().items():
        assert torch.equal(tensor, kept[-1][1][name])
        assert not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def test_time_patience_and_interruption_end_a_fit():
    quick = QUICK.model_copy(update={"steps": 10**6, "max_time": 2.0})
    result = fit(tiny_flow(), stripes(), quick)
    assert result.reason == "time is up"
    assert result.points[-1].lr < 0.3 * quick.lr
    with pytest.warns(LikelifyWarning, match="those before the first step"):
        tired = fit(tiny_flow(), stripes(), QUICK.model_copy(update={"lr": 1e-12, "patience": 1, "average": 0.0}))
    assert tired.reason == "stopped early"
    assert tired.steps < QUICK.steps

    def interrupt(progress):
        if progress.step == 60:
            raise KeyboardInterrupt

    flow = tiny_flow()
    stopped = fit(flow, stripes(), QUICK, on_step=interrupt)
    assert stopped.reason == "interrupted"
    # The last steps are validated before it ends, so that they are not lost.
    assert stopped.points[-1].step == stopped.steps == 60


def test_adamax_and_an_explicit_fabric():
    flow = tiny_flow()
    fabric = Fabric(accelerator="cpu", devices=1)
    result = fit(flow, stripes(), QUICK.model_copy(update={"optimizer": "adamax", "steps": 60}), fabric=fabric)
    assert result.best.validation_bits < 0.95 * math.log2(3)


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
    return result.best.validation_bits


@pytest.mark.slow
def test_two_processes_give_the_same_weights_and_learn_like_one(tmp_path):
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp_fork")
    bits = fabric.launch(_fit_in_each_process, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    alone = fit(tiny_flow(), stripes(), QUICK.model_copy(update={"steps": 60}))
    assert bits == pytest.approx(alone.best.validation_bits, abs=0.05)


@pytest.mark.filterwarnings("ignore:The fit never beat its start")
def test_going_on_keeps_what_was_fitted():
    source, flow = stripes(), tiny_flow()
    fit(flow, source, QUICK)
    before = evaluate(flow, source, iw_samples=0).elbo.bits.mean
    points = fit(flow, source, QUICK.model_copy(update={"steps": 2, "lr": 1e-6}), initialize=False).points
    assert points[0].validation_bits == pytest.approx(before, abs=0.15)
