"""Small fitted runs of each kind that the tests of reports share."""

import math
import warnings

import numpy as np

import likelify as lk
from likelify import zoo
from likelify.data import ArraySource, table
from likelify.fitting.loop import fit
from likelify.fitting.run import Run
from likelify.fitting.settings import FitSettings, RunConfig
from likelify.zoo.registry import ModelConfig, register
from tests.fitting.toys import QUICK, stripes, tiny_config

NASTY = ("<script>alert(1)</script>", "$x_1^2$ & co", "=cmd()", "日本語", "a" * 90, "line\nbreak \u202e\x07")


@register("elements-alone", kind=None, summary="independent normal elements", listed=False)
class ElementsAlone(ModelConfig):
    """A model of anything with a fixed shape."""

    def build(self):
        size = math.prod(self.event_shape)
        layers = [lk.transforms.Flatten(self.event_shape), lk.ActNorm(size)]
        return lk.Flow(lk.Normal((size,)), lk.Chain(layers), event_shape=self.event_shape)


def trap(count=400, columns=NASTY):
    """A table of correlated columns, one of which has few values."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(count, len(columns))) @ rng.normal(size=(len(columns), len(columns)))
    values[:, -1] = rng.integers(0, 4, count)
    return table(values, name="table:/home/me/<b>secret</b>/rows.csv", columns=columns, description="a <i>file</i>")


def waves(kind="sequence", shape=(2, 24), sizes=(150, 40, 40), levels=None):
    """Real numbers without classes."""
    rng = np.random.default_rng(1)
    splits = {
        split: rng.normal(size=(size, *shape)).cumsum(-1)
        for split, size in zip(("train", "validation", "test"), sizes, strict=True)
        if size
    }
    return ArraySource("waves", splits, kind=kind, levels=levels)


def fitted(folder, source, model, settings=QUICK, *, conditional=False):
    """Fit a model into a run folder."""
    run = Run.create(folder, RunConfig(data=source.facts(), model=model, fit=settings, conditional=conditional))
    with lk.seeded(0):
        flow = model.build()
    with warnings.catch_warnings():
        # Some start where they end.
        warnings.filterwarnings("ignore", "The fit never beat its start")
        fit(flow, source, run=run)
    return run


SHORT = FitSettings(steps=20, lr=1e-2, batch_size=64, validations=2, warmup=2)


def image_run(folder):
    """A conditional model of tiny images with levels."""
    source = stripes(labels=True)
    return fitted(folder, source, tiny_config(classes=3), conditional=True), source


def table_run(folder):
    """A model of a table whose names are a trap."""
    source = trap()
    model = zoo.MODELS["flowified-mlp"](event_shape=source.event_shape)
    return fitted(folder, source, model, SHORT), source


def sequence_run(folder):
    """A model of sequences."""
    source = waves()
    return fitted(folder, source, ElementsAlone(event_shape=source.event_shape), SHORT), source
