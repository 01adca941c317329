"""Small runs of graphs that several tests share."""

import numpy as np

import likelify as lk
from likelify.data import GraphItems, graph_source
from likelify.fitting.settings import FitSettings
from likelify.zoo.registry import ModelConfig, register
from tests.fitting.report.runs import fitted

SHORT = FitSettings(steps=8, lr=1e-2, batch_size=64, validations=2, warmup=2)


@register("tiny-graphs", kind="graph", summary="normal nodes that are mixed along edges", listed=False)
class TinyGraphs(ModelConfig):
    """A model of graphs of any size."""

    def build(self):
        size = self.event_shape[0]
        layers = lk.Chain([lk.ActNorm(size), lk.graph_exponential(size)])
        if self.classes is None:
            return lk.Flow(lk.Normal((size,)), layers)
        base = lk.ConditionalNormal(lk.nets.MLP(self.classes, 2 * size, hidden=()))
        return lk.Flow(base, layers, encoder=lk.nets.OneHot(self.classes), event_shape=(size,))


def clouds(features=2, nodes=(3, 6), count=160, **facts):
    """Point sets of some numbers of nodes."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(nodes[0], nodes[1] + 1, count)
    return graph_source(GraphItems(1 + 3 * rng.normal(size=(sizes.sum(), features)), sizes), name="clouds", **facts)


def rings(features=1, count=120):
    """Rings of three to seven nodes, whose class is whether their number is odd."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(3, 8, count)
    starts = np.cumsum(sizes) - sizes
    node = np.arange(sizes.sum())
    after = np.repeat(starts, sizes) + (node - np.repeat(starts, sizes) + 1) % np.repeat(sizes, sizes)
    edges = np.array([[*node, *after], [*after, *node]])
    x = rng.normal(size=(len(node), features)) + np.repeat(sizes % 2, sizes)[:, None]
    return graph_source(GraphItems(x, sizes, edges, labels=sizes % 2), name="rings")


def graph_run(folder, source, *, model=None, conditional=False, settings=SHORT):
    """Fit a model of graphs into a run folder."""
    classes = source.classes if conditional else None
    model = model or TinyGraphs(event_shape=source.event_shape, classes=classes)
    return fitted(folder, source, model, settings, conditional=conditional)
