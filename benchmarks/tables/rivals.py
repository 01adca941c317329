"""What the default model is compared with; each gives log-densities of test rows, in nats, of z-scored columns.

Those of scikit-learn are fitted to all rows that are not for the test, z-scored. Zuko's flows stop by the validation
rows, run in the training loop of this library (batches, cosine, moving average, best snapshot), and get as much
processor time as the default model, beside which their learning rate is searched for.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import zuko
from torch import Tensor, nn

import likelify as lk
from benchmarks.fits import timed
from benchmarks.tables.data import Split
from likelify.data import ArraySource
from likelify.data.source import Parts
from likelify.errors import LikelifyWarning, NonFiniteError
from likelify.fitting.figures import Course
from likelify.fitting.loop import fit
from likelify.fitting.settings import FitSettings
from likelify.shapes import Shape
from likelify.structure import ContextLike

COMPONENTS = (1, 2, 3, 4, 6, 8, 12, 16, 24)
RIDGES = (1e-6, 1e-3, 1e-2)
RATES = (1e-3, 2e-3, 4e-3, 8e-3)
# Autoregressive ones, which come next to the default model, nearly always took the highest of these.
WIDER_RATES = (*RATES, 1.6e-2)
# A rate is tried for this share of the time of a fit.
PILOT = 1 / 6
# Bandwidths are compared on at most so many rows, and then made smaller as the rule of thumb has it.
BANDWIDTH_ROWS = 2000
ZUKO = {"transforms": 5, "bins": 8, "hidden_features": (128, 128), "randperm": True}
FITTING = {"average": 0.99, "validations": 60, "weight_decay": 1e-3}


@dataclass(frozen=True)
class Measured:
    """What one model makes of one split.

    Attributes:
        log_probs: of the test rows, nats, of z-scored columns.
        facts: what was chosen, and how long it took.
    """

    log_probs: np.ndarray
    facts: dict[str, Any] = field(default_factory=dict)


class Zuko(lk.Distribution):
    """A flow of zuko as a base."""

    def __init__(self, flow: nn.Module, columns: int) -> None:
        super().__init__()
        self.flow = flow
        self.event_shape = (columns,)

    def log_prob(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return zuko's log-density."""
        return self.flow().log_prob(x)

    def rsample(self, shape: int | Shape = (), context: ContextLike = None) -> Tensor:
        """Draw by zuko."""
        return self.flow().rsample((shape,) if isinstance(shape, int) else shape)


def source(split: Split) -> ArraySource:
    """Return the rows of a split as data for a fit."""
    parts: Parts = {"train": split.train, "validation": split.validation, "test": split.test}
    return ArraySource("table", parts, kind="table", levels=None)


def mixtures(rows: np.ndarray, seconds: float, seed: int) -> Iterator[Any]:
    """Fit mixtures of more and more components, of several ridges, until the time is over."""
    from sklearn.mixture import GaussianMixture

    start = time.process_time()
    for components in COMPONENTS:
        for ridge in RIDGES:
            if components * 2 > len(rows) or time.process_time() - start > seconds:
                return
            with warnings.catch_warnings():
                # Those that have not converged are judged as they are.
                warnings.simplefilter("ignore")
                yield GaussianMixture(components, reg_covar=ridge, random_state=seed).fit(rows)


def mixture_by_bic(split: Split, seconds: float, seed: int) -> Measured:
    """Take the mixture of the lowest information criterion; the ridge is scikit-learn's own."""
    rows = split.standardized()
    found = [mixture for mixture in mixtures(rows.known, seconds, seed) if mixture.reg_covar == RIDGES[0]]
    return _described(min(found, key=lambda mixture: mixture.bic(rows.known)), rows)


def mixture_by_validation(split: Split, seconds: float, seed: int) -> Measured:
    """Take the number of components and the ridge that are best on the validation rows, and fit it to all rows."""
    rows = split.standardized()
    best = max(mixtures(rows.train, seconds, seed), key=lambda mixture: mixture.score(rows.validation))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _described(best.fit(rows.known), rows)


def _described(mixture: Any, rows: Split) -> Measured:
    facts = {"components": mixture.n_components, "ridge": mixture.reg_covar}
    return Measured(mixture.score_samples(rows.test), facts)


def kernels(split: Split, seconds: float, seed: int) -> Measured:  # noqa: ARG001 - it takes the time it needs
    """Take normal kernels, of one bandwidth for all columns by cross-validation."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.neighbors import KernelDensity

    rows = split.standardized()
    count, columns = rows.known.shape
    few = rows.known[:BANDWIDTH_ROWS]
    search = GridSearchCV(KernelDensity(), {"bandwidth": np.geomspace(0.03, 2, 13)}, cv=5).fit(few)
    width = search.best_params_["bandwidth"] * (len(few) / count) ** (1 / (columns + 4))
    density = KernelDensity(bandwidth=width).fit(rows.known)
    return Measured(density.score_samples(rows.test), {"bandwidth": width})


def independent(split: Split, seconds: float, seed: int) -> Measured:  # noqa: ARG001 - it takes the time it needs
    """Take the fitted marginals of this library alone."""
    rows = torch.from_numpy(split.known)
    flow = lk.Flow(lk.Normal(rows.shape[1]), _marginals(split))
    flow.initialize(rows)
    return Measured(log_probs(flow, split))


def spline_flow(*, coupling: bool, marginals: bool) -> Callable[[Split, float, int], Measured]:
    """Return the fit of a neural spline flow of zuko, on z-scores or behind the marginals of this library."""
    settings = ZUKO | ({"passes": 2} if coupling else {})

    def build(split: Split, seed: int) -> lk.Flow:
        columns = split.train.shape[1]
        with lk.seeded(seed):
            base = Zuko(zuko.flows.NSF(columns, **settings), columns)
        return lk.Flow(base, _marginals(split) if marginals else lk.Flatten((columns,)))

    def measure(split: Split, seconds: float, seed: int) -> Measured:
        # Heavy tails in float32 keep few digits as they are, so what stands on z-scores is given these.
        rows = split if marginals else split.standardized()
        data = source(rows)
        rates = RATES if coupling else WIDER_RATES
        tried = {rate: _best(build(rows, seed), data, _settings(rows, rate, seconds * PILOT, seed)) for rate in rates}
        rate = max(tried, key=tried.__getitem__)
        flow = build(rows, seed)
        start = time.process_time()
        course = _fitted(flow, data, _settings(rows, rate, seconds, seed))
        spent = time.process_time() - start
        return Measured(log_probs(flow, rows), {"rate": rate, "steps": course.steps, "seconds": spent})

    return measure


def log_probs(flow: lk.Flow, split: Split) -> np.ndarray:
    """Return the log-densities of the test rows, in units of the deviations of the columns."""
    rows = torch.from_numpy(split.test).to(torch.float64 if flow.transform.takes_float64 else torch.float32)
    with torch.no_grad(), flow.frozen():
        found = torch.cat([flow.log_prob(some).double() for some in rows.split(1024)])
    return found.numpy() + float(np.log(split.scale).sum())


def _marginals(split: Split) -> lk.Transform:
    return lk.transforms.KernelMarginal(split.train.shape[1])


def _settings(split: Split, rate: float, seconds: float, seed: int) -> FitSettings:
    batch = min(max(len(split.train) // 8, 64), 512)
    return timed(FITTING | {"lr": rate, "batch_size": batch, "initialize_items": len(split.train)}, seconds, seed)


def _fitted(flow: lk.Flow, data: ArraySource, settings: FitSettings) -> Course:
    with warnings.catch_warnings():
        # A rival that learns nothing with some rate is judged as it is.
        warnings.simplefilter("ignore", LikelifyWarning)
        return fit(flow, data, settings)


def _best(flow: lk.Flow, data: ArraySource, settings: FitSettings) -> float:
    """Return the best validation figure of a short fit; minus infinity if it failed."""
    try:
        course = _fitted(flow, data, settings)
    except NonFiniteError:
        return -math.inf
    return -min(point.validation_bits for point in course.points)


RIVALS: dict[str, Callable[[Split, float, int], Measured]] = {
    "independent": independent,
    "mixture, BIC": mixture_by_bic,
    "mixture, validation": mixture_by_validation,
    "kernels, CV": kernels,
    "coupling": spline_flow(coupling=True, marginals=False),
    "autoregressive": spline_flow(coupling=False, marginals=False),
    "marginals, coupling": spline_flow(coupling=True, marginals=True),
    "marginals, autoregressive": spline_flow(coupling=False, marginals=True),
}

# What decides the result of a rival beside the time.
_MIXTURES = [COMPONENTS, RIDGES]
SETTINGS: dict[str, Any] = {
    "mixture, BIC": _MIXTURES,
    "mixture, validation": _MIXTURES,
    "kernels, CV": [BANDWIDTH_ROWS],
    **{
        f"{front}{name}": [rates, PILOT, ZUKO, FITTING]
        for front in ("", "marginals, ")
        for name, rates in (("coupling", RATES), ("autoregressive", WIDER_RATES))
    },
}
