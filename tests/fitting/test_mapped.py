"""Rows that are mapped once by layers that are not trained, and the weights of a mixture."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

import likelify as lk
from likelify import zoo
from likelify.data import table, weighted
from likelify.fitting import loop, validating
from likelify.fitting.loop import fit
from likelify.fitting.mapped import MappedRows, can_map
from likelify.fitting.process import OneProcess
from likelify.fitting.settings import FitSettings
from tests.fitting.toys import stripes, tiny_flow

SMALL = {"members": ("autoregressive",) * 2, "width": 8, "components": 2, "normals": 2}
QUICK = FitSettings(steps=30, batch_size=32, lr=1e-2, validations=3)


def rows(count=300):
    x = np.random.default_rng(0).normal(size=(count, 3))
    x[:, 1] = np.sin(3 * x[:, 0]) + 0.1 * x[:, 1]
    return table(x, name="wave")


def flow_of(source, **settings):
    with lk.seeded(0):
        return zoo.build("table-flow", event_shape=source.event_shape, **SMALL, **settings)


def test_rows_are_mapped_once_and_as_the_layers_do(monkeypatch):
    source = rows()
    flow = flow_of(source)
    flow.initialize(source.read_all("train").x)
    mapped = MappedRows(flow, source, "train")
    monkeypatch.setattr(type(flow.transform), "forward", counted := Counted(type(flow.transform).forward))
    batch = mapped.take(torch.tensor([5, 2, 7]))
    again = mapped.take(torch.tensor([2, 7]))
    assert counted.rows == 3
    mapped.take(torch.tensor([1, 2]))
    assert counted.rows == 4
    x = source.read("train", torch.tensor([5, 2, 7])).x
    assert torch.equal(flow.base.log_prob(batch.x) + batch.contribution, flow.log_prob(x))
    assert torch.equal(batch.x[1:], again.x)
    assert batch.dims().tolist() == [3, 3, 3]


class Counted:
    def __init__(self, run):
        self.run, self.rows = run, 0

    def __get__(self, layer, kind):
        return lambda x, context=None: self(layer, x, context)

    def __call__(self, layer, x, context):
        self.rows += len(x)
        return self.run(layer, x, context)


def test_a_fit_is_the_same_as_if_they_were_mapped_each_time(monkeypatch):
    source = rows()
    weights = {split: np.linspace(0.5, 1.5, source.size(split)) for split in ("train", "validation")}
    for data in (source, weighted(source, **weights)):
        once, each = (flow_of(source, simple=False) for _ in range(2))
        course = fit(once, data, QUICK)
        with monkeypatch.context() as patch:
            patch.setattr(loop, "can_map", lambda *_: False)
            patch.setattr(validating, "can_map", lambda *_: False)
            other = fit(each, data, QUICK)
        assert course.points[-1].validation_nats == pytest.approx(other.points[-1].validation_nats, abs=1e-4)
        assert course.points[-1].train_nats == pytest.approx(other.points[-1].train_nats, abs=1e-4)
        assert course.points[-1].validation_nats > course.points[0].validation_nats


def test_weights_of_members_are_those_that_suit_the_validation_rows():
    source = rows()
    flow = flow_of(source)
    flow.initialize(source.read_all("train").x)
    held = source.read_all("validation").x
    flow.stack(held)
    z, contribution = flow.transform(held)
    best = max(float((member.log_prob(z) + contribution).detach().mean()) for member in flow.base.members)
    course = fit(flow, source, QUICK, steps=100, initialize=False)
    # The first validation is that of the start, with weights that suit it.
    assert course.points[0].validation_nats > best - 0.05
    before = flow.base.weights.clone()
    flow.stack(source.read_all("validation").x)
    assert torch.allclose(flow.base.weights, before, atol=1e-5)


def test_nothing_is_mapped_that_is_trained_or_drawn():
    source = rows()
    assert can_map(flow_of(source), source, "train")
    trained = lk.Flow(lk.Normal(3), lk.ActNorm(3), event_shape=3)
    assert not can_map(trained, source, "train")
    assert not can_map(tiny_flow(), stripes(), "train")


def test_exact_models_are_validated_in_large_batches_without_a_seed_for_each(monkeypatch):
    source = table(np.random.default_rng(0).normal(size=(9000, 2)))
    flow = lk.Flow(lk.Normal((2,), trainable=True), lk.transforms.Columns(2))
    flow.initialize(source.read_all("train").x)
    seeds, sizes = [], []
    monkeypatch.setattr(validating, "seeded", lambda seed: seeds.append(seed) or nullcontext())
    monkeypatch.setattr(validating, "ROWS", 600)
    real = validating.log_likelihoods
    measured = lambda flow, batch, context, samples: sizes.append(len(batch)) or real(flow, batch, context)  # noqa: E731
    monkeypatch.setattr(validating, "log_likelihoods", measured)
    nats = validating.Validation(source, QUICK, OneProcess("cpu"), conditional=False).figures(flow)[1]
    assert sizes == [600, source.size("validation") - 600]
    assert len(seeds) == 1
    expected = flow.log_prob(source.read_all("validation").x).detach().mean()
    assert nats == pytest.approx(float(expected), abs=1e-5)
