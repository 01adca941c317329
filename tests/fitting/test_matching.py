"""Fits by flow matching: the objective of steps, the likelihood of validations, and what the course says."""

import math

import numpy as np
import pytest
import torch

import likelify as lk
from likelify import nets, transforms
from likelify.data import GraphItems, GraphSource
from likelify.fitting.figures import Unit


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    splits = {
        name: GraphItems(rng.normal(size=(2 * count, 1)).astype(np.float32), np.full(count, 2))
        for name, count in (("train", 64), ("validation", 20))
    }
    layer = transforms.ContinuousFlow(nets.SetVelocity(1, width=4, heads=2, frequencies=0, times=0), steps=2)
    flow = lk.Flow(lk.Normal((1,)), lk.Chain([lk.Affine(scale=0.5), layer]))
    course = lk.fit(flow, GraphSource("pairs", splits), steps=4, batch_size=16, validations=2, validation_items=5)
    return flow, course, splits["validation"]


def test_the_course_has_the_loss_of_matching_and_the_likelihood_of_validation(fitted):
    flow, course, _ = fitted
    rows = course.rows(Unit.of("graph"))
    assert course.matches
    assert list(rows[0]) == ["step", "seconds", "train_matching", "validation_nats", "lr"]
    assert math.isnan(rows[0]["train_matching"])
    assert 0 < rows[-1]["train_matching"] < 10
    assert course.points[-1].train_nats is None
    assert flow.likelihood == "exact"
    assert not course.doubts


def test_validation_looks_at_as_many_items_as_are_asked(fitted):
    flow, course, items = fitted
    context = lk.Context(structure=lk.GraphBatch.complete([2] * 5))
    found = float(flow.log_prob(torch.as_tensor(items.x[:10]), context).mean().detach())
    assert course.best.validation_nats == pytest.approx(found, abs=1e-5)


def test_a_flow_trained_by_likelihood_is(fitted):
    layer = transforms.ContinuousFlow(nets.SetVelocity(1, width=4, heads=2), steps=2, training="likelihood")
    flow = lk.Flow(lk.Normal((1,)), layer)
    source = GraphSource("pairs", {"train": fitted[2], "validation": fitted[2]})
    course = lk.fit(flow, source, steps=1, validations=1)
    assert not course.matches
    assert course.points[-1].train_nats < 0
