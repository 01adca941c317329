"""What a fit says before it starts, while it goes on, and when it has ended badly."""

import errno
import os
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import likelify as lk
from likelify.errors import (
    ConfigError,
    DataError,
    LikelifyWarning,
    NonFiniteError,
    RunError,
    ShapeError,
    UnsupportedError,
)
from likelify.fitting.checks import check_fit
from likelify.fitting.figures import Course, Point
from likelify.fitting.loop import fit
from likelify.fitting.metrics import evaluate
from likelify.fitting.run import Run
from likelify.fitting.settings import RunConfig
from likelify.transforms import Columns, FittedMarginal
from tests.fitting.toys import QUICK, stripes, tiny_config, tiny_flow


@pytest.mark.parametrize("given", [nn.Linear(2, 2), "glow", None])
def test_what_is_no_flow_is_refused_with_a_remedy(given):
    for use in (fit, evaluate):
        with pytest.raises(UnsupportedError, match=rf"A {type(given).__name__} is no density. Give a Flow: lk.Flow"):
            use(given, stripes())


def test_weights_that_are_not_finite_are_named_and_not_the_input():
    flow = lk.Flow(lk.Normal((1, 2, 2)), lk.Chain([lk.Dequantize(3), lk.conv_exponential(1, 3)]))
    name, weight = next(iter(flow.named_parameters()))
    with torch.no_grad():
        weight.view(-1)[0] = torch.nan
    for use in (fit, evaluate):
        with pytest.raises(NonFiniteError, match=f"The weights '{name}' of this flow are NaN"):
            use(flow, stripes())


def test_the_independent_pixel_model_is_measured_and_not_fitted():
    layers = lk.Chain([lk.Dequantize(3), FittedMarginal((1, 2, 2), 3)])
    flow = lk.Flow(lk.Normal((1, 2, 2)), layers)
    flow.initialize(stripes().read_all("train").x)
    measured = evaluate(flow, stripes(), elbo_samples=1, iw_samples=2)
    assert measured.elbo.bits.mean == pytest.approx(np.log2(3), abs=0.05)
    with pytest.raises(ConfigError, match="has no parameters, so there is nothing to fit"):
        fit(flow, stripes())


def test_a_flow_that_is_frozen_is_refused():
    flow = lk.Flow(lk.Normal((2,)), lk.ActNorm(2)).requires_grad_(False)
    with pytest.raises(ConfigError, match="frozen"):
        fit(flow, torch.randn(20, 2))


@pytest.mark.filterwarnings("ignore:The fit never beat its start")
def test_tensors_and_data_sets_are_fitted():
    rows = torch.randn(50, 2)
    for data in (rows, rows.numpy(), TensorDataset(rows)):
        assert lk.fit(lk.Flow(lk.Normal((2,)), lk.ActNorm(2)), data, steps=2).steps == 2


def points(*figures):
    return tuple(
        Point(step=10 * i, seconds=0.0, train_bits=t, train_nats=None if t is None else -t, validation_bits=v,
              validation_nats=-v)
        for i, (t, v) in enumerate(figures)
    )  # fmt: skip


# Of bits per dimension and of their validation, every ten steps.
FALLING = [(None, 3.0), *((2.0 - 1.0 * i, 2.5 - 1.0 * i) for i in range(14))]


@pytest.mark.parametrize(
    ("figures", "best", "words"),
    [
        ([(None, 2.0)], 0, []),
        ([(None, 2.0), (1.0, 1.5)], 10, []),
        ([(None, 2.0), (1.0, 2.5)], 0, ["never beat its start: .* before the first step.*more dropout"]),
        ([(None, 2.0), (-2e7, 2.5)], 0, ["never beat its start", "loss ran away: 2e.07 nats"]),
        ([(None, 2.0), (-40.0, 1.5), (-60.0, 3.0)], 10, ["ran away: 60 nats per item before step 20, .* -1.5"]),
        (FALLING, 140, ["ran away: from 5 nats per item in the middle of the fit to 11 at its end.*--columns says"]),
        # That is how a fit begins.
        (FALLING[:5], 40, []),
    ],
)
def test_a_course_says_what_is_to_be_doubted(figures, best, words):
    course = Course(points=points(*figures), best_step=best, steps=20)
    assert len(course.doubts) == len(words)
    for doubt, word in zip(course.doubts, words, strict=True):
        assert re.search(word, doubt)


def test_a_fit_without_time_makes_a_step_and_asks_for_more_time():
    with pytest.warns(LikelifyWarning, match=r"time was up after 1 step, .*more of it \(--max-time"):
        course = fit(tiny_flow(), stripes(), QUICK, steps=400, lr=1e-12, average=0.0, max_time=1e-6)
    assert (course.steps, course.reason, course.best_step) == (1, "time is up", 0)
    assert [point.step for point in course.points] == [0, 1]
    assert course.points[-1].lr > 0


def test_a_fit_that_learnt_nothing_warns():
    with pytest.warns(LikelifyWarning, match="never beat its start"):
        fit(tiny_flow(), stripes(), QUICK, steps=4, lr=1e-12, average=0.0, validations=2)


class FullDisk:
    """Fails as a full disk does, after some writes and for some."""

    def __init__(self, monkeypatch, after, times):
        self.left, self.times, self.write = after, times, os.fsync
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, handle):
        self.left -= 1
        if self.left < 0 <= self.left + self.times:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.write(handle)


def new_run(folder):
    settings = QUICK.model_copy(update={"steps": 30})
    return Run.create(folder / "run", RunConfig(data=stripes().facts(), model=tiny_config(), fit=settings))


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (0, r"state of the fit was not saved, .* goes on. '.*checkpoint.safetensors' cannot be written: no space"),
        (1, r"not kept, and the fit goes on. '.*model.safetensors' cannot be written"),
    ],
)
def test_a_disk_that_is_full_for_a_while_does_not_end_a_fit(after, words, tmp_path, monkeypatch):
    run, flow = new_run(tmp_path), tiny_flow()
    FullDisk(monkeypatch, after=after, times=1)
    with pytest.warns(LikelifyWarning, match=words):
        course = fit(flow, stripes(), run=run)
    assert course.reason == "finished"
    assert run.course() == course
    assert all(torch.equal(a, b) for a, b in zip(run.flow().parameters(), flow.parameters(), strict=True))


def test_a_disk_that_stays_full_is_an_error_at_the_end_and_the_flow_is_fitted(tmp_path, monkeypatch):
    run, flow = new_run(tmp_path), tiny_flow()
    before = evaluate(flow, stripes(), iw_samples=0).elbo.bits.mean
    FullDisk(monkeypatch, after=0, times=10**9)
    with (
        pytest.warns(LikelifyWarning, match="the fit goes on"),
        pytest.raises(RunError, match="no space left on device. Make room"),
    ):
        fit(flow, stripes(), run=run)
    assert evaluate(flow, stripes(), iw_samples=0).elbo.bits.mean < before
    assert [file.name for file in run.path.iterdir()] == ["config.json"]


def affine_flow(columns, *layers):
    return lk.Flow(lk.Normal(columns), lk.Chain([*layers, lk.ActNorm(columns)]))


def test_columns_that_follow_from_others_are_named():
    x = np.random.default_rng(0).normal(size=(200, 2))
    rows = lk.data.table(np.column_stack([x, 2 * x[:, 0] + 1]), columns=["a", "b", "c"])
    with pytest.raises(DataError, match=r"no density.*: 'c' is 2 \* 'a' \+ 1. Leave one of each"):
        fit(affine_flow(3, Columns(3)), rows)
    noisy = np.column_stack([x, 2 * x[:, 0] + 0.01 * x[:, 1] ** 2])
    assert fit(affine_flow(3, Columns(3)), noisy, steps=50, lr=1e-2).reason == "finished"


@pytest.mark.filterwarnings("ignore:The fit never beat its start")
def test_columns_that_follow_but_for_their_last_digits_are_a_warning():
    celsius = np.random.default_rng(0).normal(size=300)
    rows = np.column_stack([celsius.round(1), (1.8 * celsius + 32).round(1)])
    source = lk.data.table(rows, columns=["C", "F"])
    with pytest.warns(LikelifyWarning, match=r"'F' is 1\.8 \* 'C' \+ 32 up to 3\.\d % .* the rounding.* Leave one"):
        assert fit(affine_flow(2, Columns(2)), source, steps=2).steps == 2


@pytest.mark.filterwarnings("ignore:The fit never beat its start")
def test_columns_that_float32_would_round_away_are_refused_or_standardised():
    rows = np.random.default_rng(0).normal(size=(200, 2)) * [1.0, 3.0] + [0.0, 1.7e9]
    table = lk.data.table(rows, columns=["x", "time"])
    with pytest.raises(DataError, match=r"In float32, .* 'time' .* loses its digits. Put lk.transforms.Columns\(2\)"):
        fit(affine_flow(2), table)
    for flow in (affine_flow(2, Columns(2)), affine_flow(2).double()):
        assert fit(flow, table, steps=2).steps == 2


@pytest.mark.filterwarnings("ignore:The fit never beat its start")
def test_a_condition_and_the_flow_belong_together():
    with_labels, without = stripes(labels=True), stripes()
    for use in (lambda flow, data, **how: fit(flow, data, QUICK, steps=1, **how), evaluate):
        for data, remedy in ((with_labels, "given with conditional=True"), (without, "It has no labels to give")):
            with pytest.raises(ConfigError, match=rf"does not work without one, and 'stripes' .* {remedy}"):
                use(tiny_flow(classes=3), data)
        with pytest.raises(
            ConfigError, match=r"gives the labels of 'stripes' to the flow, and no part of it reads them"
        ):
            use(tiny_flow(), with_labels, conditional=True)
        with pytest.raises(DataError, match="has no labels"):
            use(tiny_flow(classes=3), without, conditional=True)
        use(tiny_flow(classes=3), with_labels, conditional=True)
        use(tiny_flow(), with_labels)


def test_what_fails_with_a_condition_too_is_not_for_the_lack_of_one():
    flow = tiny_flow(classes=3, event_shape=(1, 4, 4))
    for data in (stripes(labels=True), stripes()):
        with pytest.raises(ShapeError, match=r"works on inputs of shape \(rows, 1, 4, 4\)"):
            evaluate(flow, data)


@pytest.mark.parametrize(
    ("centred", "said"),
    [
        ((0, 1), r"'sets': the mean of 'x', 'y' is zero in every graph.*--model point-flow"),
        ((1,), r"'sets': the mean of 'y' is zero in every graph.*Leave the means of the graphs in"),
    ],
)
def test_centred_graphs_need_a_flow_that_knows(centred, said):
    x = np.random.default_rng(0).normal(size=(12, 3, 2))
    x[:, :, centred] -= x[:, :, centred].mean(1, keepdims=True)
    source = lk.data.graph_source(lk.data.GraphItems(x.reshape(-1, 2), [3] * 12), name="sets", columns=("x", "y"))
    assert source.graphs.centred == (len(centred) == 2)
    settings = {"event_shape": (2,), "symmetry": "rotations", "width": 4}
    flows = [lk.Flow(lk.Normal((2,)), lk.ActNorm(2), event_shape=(2,))]
    flows += [lk.zoo.build("point-flow", **settings, centre=centre) for centre in ("normal", "dropped")]
    for flow in flows[:2]:
        with pytest.raises(DataError, match=said):
            check_fit(flow, source, conditional=False)
    check_fit(flows[2], source, conditional=False)


def test_graphs_of_one_node_or_with_means_are_not_centred():
    rng = np.random.default_rng(0)
    for x, sizes in ((np.zeros((12, 2)), [1] * 12), (rng.normal(size=(24, 2)), [2] * 12)):
        assert not lk.data.graph_source(lk.data.GraphItems(x, sizes)).graphs.centred
