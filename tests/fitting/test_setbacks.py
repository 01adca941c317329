"""A fit whose loss blows up goes back to its best weights, on at half of its rate, and says so."""

import math

import numpy as np
import pytest
import torch

import likelify as lk
from likelify.data import table
from likelify.errors import LikelifyWarning, NonFiniteError
from likelify.fitting import setbacks
from likelify.fitting.figures import Course, Point
from likelify.fitting.loop import fit
from likelify.fitting.run import Run
from likelify.fitting.settings import FitSettings, RunConfig
from tests.fitting.test_resume import Killed, same
from tests.fitting.toys import stripes, tiny_config, tiny_flow

STEADY = FitSettings(steps=60, lr=1e-2, batch_size=64, validations=6, warmup=4, average=0.5, exp_tol=None)


def spoils(flow, at, spoil, more=None):
    """Return what changes the weights of a flow once after each of some steps."""
    left = list(at)

    @torch.no_grad()
    def after(progress):
        if left and progress.step == left[0]:
            left.pop(0)
            for parameter in flow.parameters():
                spoil(parameter)
        if more is not None:
            more(progress)

    return after


def not_a_number(parameter):
    parameter.fill_(math.nan)


def far_off(parameter):
    parameter.add_(torch.randn_like(parameter), alpha=30.0)


def fit_spoilt(at, spoil, settings=STEADY):
    flow, rates = tiny_flow(), {}
    look = spoils(flow, at, spoil, lambda progress: rates.update({progress.step: look_at(progress)}))

    def look_at(progress):
        return progress.last.step, progress.best.validation_bits

    with pytest.warns(LikelifyWarning, match="The loss blew up at step"):
        course = fit(flow, stripes(), settings, on_step=look)
    return flow, course, rates


def test_weights_that_are_not_numbers_are_taken_back():
    flow, course, _ = fit_spoilt([33], not_a_number)
    assert course.setbacks == (33,)
    assert course.reason == "finished"
    assert course.steps == 60
    assert all(bool(weight.isfinite().all()) for weight in flow.parameters())
    best = course.best
    assert best.step > 33
    undisturbed = fit(tiny_flow(), stripes(), STEADY)
    assert undisturbed.setbacks == ()
    # It learns less, since it starts again from step 30 at half of the rate, and yet more than it knew there.
    assert undisturbed.best.validation_bits < best.validation_bits < course.points[3].validation_bits
    rate = {point.step: point.lr for point in course.points}
    for point in undisturbed.points[4:]:
        assert rate[point.step] == pytest.approx(point.lr / 2)


def test_a_finite_loss_far_above_the_start_is_taken_back_at_the_next_validation():
    _, course, seen = fit_spoilt([33], far_off)
    assert course.setbacks == (40,)
    at = next(point for point in course.points if point.step == 40)
    assert at.validation_bits == pytest.approx(course.points[3].validation_bits)
    assert at.train_bits is None
    assert course.best.step > 40
    assert seen[60][1] == course.best.validation_bits


def test_each_setback_halves_the_rate_and_the_fourth_ends_the_fit():
    _, course, _ = fit_spoilt([15, 25, 45], not_a_number)
    assert course.setbacks == (15, 25, 45)
    assert course.points[-2].lr == pytest.approx(STEADY.lr_at(49, 49 / 60) / 8)
    flow = tiny_flow()
    with pytest.raises(
        NonFiniteError, match=r"are NaN .* At step 55 training stopped; the weights of step 50 are kept"
    ):
        fit(flow, stripes(), STEADY, on_step=spoils(flow, [15, 25, 45, 55], not_a_number))
    assert all(bool(weight.isfinite().all()) for weight in flow.parameters())


class Refusing(lk.Affine):
    """A layer whose log-determinant is not a number for one row."""

    refused, met = torch.zeros(2), 0

    def forward(self, x, context=None):
        z, log_det = super().forward(x, context)
        here = (x == self.refused.to(x)).all(1)
        Refusing.met += int(here.any())
        return z, torch.where(here, math.nan, log_det)


def test_what_the_best_weights_give_as_well_ends_the_fit_at_once():
    """An item outside of the support of the model is no matter of the learning rate."""
    source, steps = table(np.random.default_rng(0).normal(size=(400, 2))), []
    refusing = Refusing()
    flow = lk.Flow(lk.Normal((2,)), lk.Chain([lk.ActNorm(2), refusing]), event_shape=(2,))
    flow.initialize(source.read_all("train").x.float())
    with torch.no_grad():
        refusing.refused = flow.transform.transforms[0](source.read_all("train").x[17:18].float())[0]
    settings = FitSettings(steps=100, batch_size=40, lr=1e-9, weight_decay=0.0, validations=2)
    with pytest.raises(NonFiniteError, match=r"became nan at step \d+, so training stopped"):
        fit(flow, source, settings, initialize=False, on_step=lambda progress: steps.append(progress.step))
    # Within the first epoch: once as it was, once with the best weights, and not at each of the three lower rates.
    assert len(steps) < 10
    assert Refusing.met == 2


def test_after_a_setback_the_rate_rises_again():
    settings = STEADY.model_copy(update={"warmup": 20, "validations": 60})
    _, course, _ = fit_spoilt([40], not_a_number, settings)
    rates = {point.step: point.lr for point in course.points}
    assert rates[41] == pytest.approx(settings.lr_at(0, 40 / 60) / 2)
    assert rates[45] == pytest.approx(settings.lr_at(4, 44 / 60) / 2)


def test_a_fit_that_is_killed_after_a_setback_goes_on_as_if_nothing_had_been(tmp_path):
    settings = STEADY.model_copy(update={"checkpoint_seconds": 0.0})
    config = RunConfig(data=stripes().facts(), model=tiny_config(), fit=settings)
    runs = [Run.create(tmp_path / word, config) for word in ("once", "broken")]

    def kill(progress):
        if progress.step == 37:
            raise Killed

    flow = tiny_flow()
    with pytest.warns(LikelifyWarning, match="blew up"):
        fit(flow, stripes(), run=runs[0], on_step=spoils(flow, [33], not_a_number))
    flow = tiny_flow()
    with pytest.raises(Killed):
        fit(flow, stripes(), run=runs[1], on_step=spoils(flow, [33], not_a_number, kill))
    with pytest.warns(LikelifyWarning, match="blew up"):
        runs[1].resume(stripes())
    assert runs[1].course().setbacks == (33,)
    same(*runs)


def course_of(*bits, best_step):
    points = [
        Point(step=10 * i, seconds=0.0, train_bits=None, train_nats=None, validation_bits=b, validation_nats=-b)
        for i, b in enumerate(bits)
    ]
    return Course(points=tuple(points), best_step=best_step, steps=10 * len(bits))


@pytest.mark.parametrize(
    ("losses", "bits", "best", "expected"),
    [
        ([9.0, 9.0, 3.0], (5.0, 3.0), 10, True),
        ([1e9, 3.0, 3.0], (5.0, 3.0), 10, False),
        ([6.9, 6.9, 6.9], (5.0, 3.0), 10, False),
        ([5.9, 5.9], (5.0, 4.9), 10, False),
        ([6.1, 6.1], (5.0, 4.9), 10, True),
        ([99.0], (5.0, 6.0), 0, False),
        ([], (5.0, 3.0), 10, False),
    ],
)
def test_when_a_loss_blew_up(losses, bits, best, expected):
    assert setbacks.blew_up(losses, course_of(*bits, best_step=best)) is expected


def test_a_loss_of_other_models_than_validation_measures_is_compared_with_itself():
    """Members of a mixture that are trained apart have a loss far above that of the mixture, and learn all the same."""
    course = course_of(1.0, 0.5, 0.4, best_step=20)
    trained = (None, 4.0, 3.5)
    points = tuple(
        point.model_copy(update={"train_bits": bits, "train_nats": bits})
        for point, bits in zip(course.points, trained, strict=True)
    )
    course = course.model_copy(update={"points": points})
    assert setbacks.blew_up([3.4, 3.4, 3.4], course)
    assert not setbacks.blew_up([3.4, 3.4, 3.4], course, apart=True)
    assert setbacks.blew_up([5.6, 5.6], course, apart=True)
    # Before there is a loss to compare with nothing is told.
    assert not setbacks.blew_up([9.0], course_of(1.0, 0.5, best_step=10), apart=True)
