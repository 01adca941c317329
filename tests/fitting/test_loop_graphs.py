"""Graphs of different sizes go through the same loop and the same figures as everything else."""

import math

import numpy as np
import pytest
import torch

import likelify as lk
from likelify.data import Batch, Source
from likelify.fitting.choose import choose
from likelify.fitting.loop import fit
from likelify.fitting.metrics import evaluate
from likelify.fitting.settings import FitSettings

SIZES = {"train": 200, "validation": 40, "test": 50}
SCALES = torch.tensor([0.5, 3.0])


class Rings(Source):
    """Rings of two to five nodes, features normal with a mean and a scale of each feature; the label is the size."""

    name, kind, event_shape, classes = "rings", "graph", (2,), 6
    description = "rings of two to five nodes"

    def size(self, split):
        return SIZES[split]

    def fingerprint(self):
        return "rings"

    def read(self, split, indices):
        graphs = [self._graph(split, int(index)) for index in indices]
        sizes = torch.tensor([len(x) for x in graphs])
        starts = sizes.cumsum(0) - sizes
        nodes = torch.arange(int(sizes.sum()))
        owner = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        following = starts[owner] + (nodes - starts[owner] + 1) % sizes[owner]
        structure = lk.GraphBatch(sizes, torch.stack([nodes, following])).undirected()
        return Batch(torch.cat(graphs), sizes, structure)

    def _graph(self, split, index):
        generator = torch.Generator().manual_seed(1000 * sorted(SIZES).index(split) + index)
        size = 2 + index % 4
        return 1 + SCALES * torch.randn(size, 2, generator=generator)


def flow():
    layers = [lk.ActNorm(2), lk.graph_exponential(2), lk.ActNorm(2)]
    return lk.Flow(lk.Normal((2,)), lk.Chain(layers))


def test_graphs_are_fitted_and_measured_per_graph():
    source = Rings()
    model = flow()
    course = fit(model, source, FitSettings(steps=60, lr=1e-2, batch_size=32, validations=2, average=0.9))
    batch = source.read_all("test")
    each = torch.distributions.Normal(1.0, SCALES).log_prob(batch.x).sum(1)
    true = torch.zeros(len(batch)).index_add_(0, batch.structure.owner, each)
    bits = -true / (math.log(2) * batch.dims())
    measured = evaluate(model, source, elbo_samples=1, iw_samples=2, batch_size=7, iw_items=10)
    assert measured.elbo.nats.count == 50
    assert measured.elbo.nats.mean == pytest.approx(float(true.mean()), abs=0.3)
    assert measured.elbo.bits.mean == pytest.approx(float(bits.mean()), abs=0.06)
    assert measured.iw.nats.count == 10
    assert measured.gain.mean == pytest.approx(0.0, abs=1e-4)
    best = course.best
    assert best.validation_nats > course.points[0].validation_nats - 0.2
    whole = evaluate(model, source, elbo_samples=1, iw_samples=0, batch_size=50)
    assert whole.elbo.nats.mean == pytest.approx(measured.elbo.nats.mean, abs=1e-4)


def test_facts_of_graphs_and_their_model():
    facts = Rings().facts()
    assert (facts.kind, facts.item, facts.levels) == ("graph", "graph", None)
    assert choose(facts).model.name == "graph-flow"


def test_graphs_of_all_sizes_are_fitted_by_maximum_likelihood():
    random, sizes = np.random.default_rng(0), np.array([1, 9] * 100)
    own = np.repeat(np.where(sizes == 1, 1.0, -1.0), sizes)
    items = lk.data.GraphItems((own + 0.1 * random.normal(size=len(own)))[:, None], sizes)
    flow = lk.Flow(lk.Normal((1,), trainable=True), lk.transforms.Identity()).double()
    source = lk.data.GraphSource("sizes", {"train": items, "validation": items})
    course = fit(flow, source, steps=400, lr=3e-2, batch_size=50)
    nodes = items.x[:, 0]
    assert flow.base.loc.item() == pytest.approx(nodes.mean(), abs=0.02)
    assert flow.base.log_scale.exp().item() == pytest.approx(nodes.std(), abs=0.02)
    assert course.best.validation_nats == max(point.validation_nats for point in course.points)
