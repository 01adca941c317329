"""Table 4 of the convolution exponential paper (Hoogeboom et al. 2020): point sets in the plane as complete graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from likelify.fitting.figures import Unit
from likelify.fitting.recipes import Recipe, recipe
from likelify.fitting.sources import DataChoice, open_data
from likelify.reproduce.cell import Measuring
from likelify.reproduce.experiment import UNLIMITED_FIT, DataSet, Experiment, Method, Paper, Scale
from likelify.reproduce.papers import convexp_graphs_words as words
from likelify.reproduce.papers import fits
from likelify.settings import Values

# As the paper spells them.
COLUMNS = {"MoG-4": "mog-4", "MoG-9": "mog-9", "MoG-16": "mog-16", "MoG-Ring": "mog-ring"}
FEATURES = 2
# So many training graphs that none comes twice; test graphs that all rows and seeds have in common.
DRAWN = {"train": 10**9, "test": 40_000}
# Where a likelihood takes the solution of an equation.
FEWER = 4000

# The rows of the paper and their controls: the same networks and the same steps; what differs is what mixes.
PAPER_MODEL: Values = {
    "model": "graph-flow",
    "layers": 8,
    "coupling": "affine",
    "net": "message-passing",
    "width": 32,
    "rounds": 1,
    "frequencies": 0,
    "zero_start": False,
}
FLAT_MODEL: Values = {"model": "graph-flat", "layers": 8, "coupling": "affine", "mixing": "1x1", "width": 128}
# Twelve layers that change both halves; attention of eight heads.
PUBLISHED: Values = {"layers": 24, "net": "attention", "heads": 8, "width": 256}
PUBLISHED_FLAT: Values = {"layers": 24, "width": 256}
ROWS: dict[str, Values] = {
    words.FLAT: FLAT_MODEL,
    words.PLAIN: PAPER_MODEL | {"mixing": "none"},
    words.EXPONENTIAL: PAPER_MODEL | {"mixing": "graph-exponential"},
    words.PER_NODE: PAPER_MODEL | {"mixing": "per-node"},
    words.ZERO_START: PAPER_MODEL | {"mixing": "none", "zero_start": True},
}
# Processor milliseconds of a training step of these rows on 128 graphs, in the order of the columns: medians of six or
# eight steps after two others, on one core of an AMD EPYC beside other work. The ring has the sizes of MoG-4.
STEP_MS: dict[str, tuple[float, float, float, float]] = {
    words.FLAT: (12.0, 12.5, 13.4, 12.0),
    words.PLAIN: (15.5, 22.7, 40.6, 15.5),
    words.EXPONENTIAL: (24.4, 33.4, 51.8, 24.4),
    words.PER_NODE: (17.2, 26.9, 43.1, 17.2),
    words.ZERO_START: (15.0, 24.2, 40.4, 15.0),
}
# Of all of them: 90 seconds of the slowest row, which is the graph exponential, over its milliseconds.
STEPS = {"MoG-4": 3700, "MoG-9": 2700, "MoG-16": 1700, "MoG-Ring": 3700}

# The rows that the paper has not; what is not said here is as the library's recipes have it.
WITH_EXPONENTIAL: Values = {"model": "graph-flow", "mixing": "graph-exponential"}
EXTENSIONS: dict[str, Values] = {
    words.SPLINES: WITH_EXPONENTIAL | {"coupling": "spline", "net": "message-passing"},
    words.ATTENTION: WITH_EXPONENTIAL | {"coupling": "affine", "net": "attention"},
    words.BOTH: WITH_EXPONENTIAL | {"coupling": "spline", "net": "attention"},
    words.SYLVESTER: WITH_EXPONENTIAL | {"coupling": "sylvester"},
    words.MATCHING: {"model": "point-flow"},
    words.AUTOREGRESSIVE: {"model": "set-autoregressive"},
    words.CANONICAL: {"model": "set-canonical"},
}
SECONDS = dict.fromkeys(EXTENSIONS, 90.0) | {words.CANONICAL: 30.0}
# The best of either kind again, for ten minutes: on each data set the couplings that were best after 90 seconds.
LONG: dict[str, dict[str, str]] = {
    words.LONG_COUPLINGS: {
        "MoG-4": words.ATTENTION,
        "MoG-9": words.BOTH,
        "MoG-16": words.BOTH,
        "MoG-Ring": words.SPLINES,
    },
    words.LONG_MATCHING: dict.fromkeys(COLUMNS, words.MATCHING),
}
LONG_SECONDS = 600.0
TINY: dict[str, Values] = {
    "graph-flow": {"layers": 2, "width": 8},
    "graph-flat": {"layers": 2, "width": 8},
    "point-flow": {"width": 8, "rounds": 1, "solver_steps": 2},
    "set-autoregressive": {"width": 8, "rounds": 1, "components": 4},
    "set-canonical": {"couplings": 1, "hidden": (8,)},
}
QUICK_SECONDS, QUICK_STEPS = 1.0, 20
# Of the fit, what the experiment says itself; rates and averages are those of the recipes.
OWN = ("steps", "max_time", "clock", "batch_size", "validations", "validation_items", "patience")
# A likelihood of a continuous flow takes as long as some hundred steps of its training.
SOLVED_FIT: Values = {"validations": 4, "validation_items": 128}

EXACT = Measuring(truth=True, iw_samples=0, seconds=15.0)
MEASURING: dict[str, Measuring] = {
    "point-flow": EXACT.model_copy(update={"items": FEWER, "seconds": 60.0}),
    "set-autoregressive": EXACT.model_copy(update={"iw_samples": 64, "iw_items": FEWER, "seconds": 60.0}),
}


def table_4(scale: Scale) -> Experiment:
    """Return the table of flows of graphs."""
    shared: dict[str, Any] = {
        "name": "table-4",
        "title": "Table 4: flows of point sets as complete graphs",
        "scale": scale,
        "baseline": words.PER_NODE,
        "unit": Unit.per_node(FEATURES),
        "paper": Paper(f"{words.SOURCE}, table 4", words.TABLE_4),
        "caveat": words.CAVEATS[scale],
        "discuss": words.discuss,
    }
    if scale == "paper":
        methods = [_published(title) for title in ROWS]
        data = [_column(title) for title in COLUMNS]
        fit, measuring = fits.GRAPHS_PAPER_FIT, EXACT.model_copy(update={"seconds": None})
        return Experiment(
            methods=methods, data=data, seeds=3, fit=fit, budget=None, measuring=measuring, device="auto", **shared
        )
    methods = [_row(title) for title in ROWS] + [_extension(title) for title in EXTENSIONS]
    methods += [_extension(title, like) for title, like in LONG.items()]
    if scale == "quick":
        data = [_column("MoG-4", {"train": 10**6, "validation": 100, "test": 200})]
        methods = [_tiny(method) for method in methods]
        fit = fits.GRAPHS_FIT | fits.QUICK_FIT
        return Experiment(methods=methods, data=data, seeds=1, fit=fit, budget=QUICK_SECONDS, measuring=EXACT, **shared)
    data = [_column(title) for title in COLUMNS]
    return Experiment(methods=methods, data=data, seeds=5, fit=fits.GRAPHS_FIT, budget=None, measuring=EXACT, **shared)


def _column(title: str, drawn: Mapping[Any, int] = DRAWN) -> DataSet:
    return DataSet(title, DataChoice(source=COLUMNS[title], drawn=dict(drawn)))


def _row(title: str) -> Method:
    """Return a row of the paper or a control, at equal steps."""
    settings, milliseconds = ROWS[title], dict(zip(COLUMNS, STEP_MS[title], strict=True))
    return Method(
        title,
        settings,
        fits={column: _suitable(column, settings) | {"steps": steps} for column, steps in STEPS.items()},
        group=words.KINDS[title],
        usual={column: STEPS[column] * each / 1000 for column, each in milliseconds.items()},
    )


@cache
def _recipe(column: str) -> Recipe:
    return recipe(open_data(_column(column).choice).facts())


def _suitable(column: str, settings: Values) -> Values:
    """Return the settings of a fit that suit a model, but for what the experiment says itself."""
    return {name: value for name, value in _recipe(column).fit(settings["model"]).items() if name not in OWN}


def _tiny(method: Method) -> Method:
    """Return a row for a trial."""
    measuring = (method.measuring or EXACT).model_copy(update={"items": 50, "iw_items": 20, "seconds": 3.0})
    tiny = TINY[method.model["model"]]
    return replace(
        method,
        changes={column: {**settings, **tiny} for column, settings in (method.changes or {"MoG-4": {}}).items()},
        fits={column: {**settings, "steps": QUICK_STEPS} for column, settings in method.fits.items()},
        budget=QUICK_SECONDS,
        measuring=measuring,
        usual={},
    )


def _published(title: str) -> Method:
    settings = ROWS[title]
    wider = PUBLISHED_FLAT if settings["model"] == "graph-flat" else PUBLISHED
    return Method(title, settings | wider, group=words.KINDS[title])


def _extension(title: str, like: Mapping[str, str] | None = None) -> Method:
    """Return a row that the paper has not, or one of them for longer.

    Args:
        title: of the row.
        like: for each data set the title of the row that it is like; all are of one kind of model.
    """
    rows = like or dict.fromkeys(COLUMNS, title)
    settings = {column: EXTENSIONS[row] for column, row in rows.items()}
    first = rows[next(iter(COLUMNS))]
    name = EXTENSIONS[first]["model"]
    return Method(
        title,
        EXTENSIONS[first],
        fit=UNLIMITED_FIT | (SOLVED_FIT if name == "point-flow" else {}),
        changes={column: {**_recipe(column).models.get(name, {}), **own} for column, own in settings.items()},
        fits={column: _suitable(column, own) for column, own in settings.items()},
        group=words.KINDS[first],
        seeds=1 if like else 2,
        budget=LONG_SECONDS if like else SECONDS[title],
        measuring=MEASURING.get(name, EXACT),
    )
