"""What the settings of splines are worth to the default model of tables of some thousand rows, one changed at a time.

They were chosen by the test rows of the first split of such tables, which are the ones measured here; the comparison
with other models has two more splits.
"""

import numpy as np

import likelify as lk
from benchmarks.fits import timed
from benchmarks.report import Entry
from benchmarks.tables.data import split_of, table
from benchmarks.tables.rivals import log_probs, source
from likelify.fitting.choose import choose
from likelify.fitting.loop import fit
from likelify.settings import Values

SECONDS = 30.0
TABLES = ("satimage", "made: checkerboard", "penbased")
DEFAULT = "as it is"
# Settings of the model and of the fit.
VARIANTS: dict[str, tuple[Values, Values]] = {
    DEFAULT: ({}, {}),
    "a linear prediction in front": ({"copula": True}, {}),
    "rate 6e-3": ({}, {"lr": 6e-3, "average": 0.995}),
    "dropout 0": ({"dropout": 0.0}, {}),
    "dropout 0.1": ({"dropout": 0.1}, {}),
    "mixtures alone": ({"members": ("autoregressive",)}, {}),
    "splines alone": ({"members": ("splines",)}, {}),
}


def fitted(name: str, variant: str, seconds: float) -> tuple[np.ndarray, float]:
    """Return the log-densities of test rows by a variant, and the weight of its splines."""
    split = split_of(table(name), 0)
    model, settings = VARIANTS[variant]
    choice = choose(source(split).facts(), model="table-flow", settings=model)
    with lk.seeded(0):
        flow = choice.model.build()
    fit(flow, source(split), timed({**choice.fit.model_dump(), **settings}, seconds, 0))
    base = flow.base
    weights = base.weights.tolist() if isinstance(base, lk.distributions.Mixture) else [1.0]
    members = choice.model.model_dump()["members"]
    return log_probs(flow, split), weights[members.index("splines")] if "splines" in members else 0.0


def recipe(*, quick: bool) -> list[Entry]:
    """Measure all variants on the first split, and by how much each is below the default."""
    entries = []
    for name in TABLES[-1:] if quick else TABLES:
        found: dict[str, np.ndarray] = {}
        for variant in list(VARIANTS)[:2] if quick else VARIANTS:
            found[variant], weight = fitted(name, variant, 2.0 if quick else SECONDS)
            about = f"{name}, {variant}"
            entries.append(Entry(about, float(found[variant].mean()), "nats", better="higher"))
            if variant == DEFAULT:
                entries.append(Entry(f"{about}: weight of the splines", weight, ""))
                continue
            gain = found[variant] - found[DEFAULT]
            error = float(gain.std(ddof=1)) / len(gain) ** 0.5
            entries.append(Entry(f"{about}: over the default", float(gain.mean()), "nats", better="higher"))
            entries.append(Entry(f"{about}: error of that", error, "nats"))
    return entries
