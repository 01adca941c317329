"""Small data and models that the tests of fitting share."""

import math

import numpy as np

import likelify as lk
from likelify import zoo
from likelify.data import ArraySource
from likelify.fitting.settings import FitSettings


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


def facts_for(model):
    """Facts of data that a model of images could be of."""
    return stripes().facts().model_copy(update={"event_shape": model.event_shape, "levels": model.pixel_levels})


def tiny_flow(seed=0, **settings):
    with lk.seeded(seed):
        return tiny_config(**settings).build()


QUICK = FitSettings(steps=150, lr=1e-2, batch_size=64, validations=3, warmup=10)


def trap(calls):
    """A layer whose log-determinant is NaN after so many calls, counted over all its copies."""

    class Trap(lk.Affine):
        made = 0

        def forward(self, x, context=None):
            z, log_det = super().forward(x, context)
            Trap.made += 1
            return z, log_det * (math.nan if Trap.made > calls else 1.0)

    return Trap()
