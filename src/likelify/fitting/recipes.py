"""What suits which data: the model, its settings and those of its fit, for each source or kind of item.

All settings of fits are here, also those of the presets and the rates that the experiments use.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from likelify.data import Facts
from likelify.errors import ConfigError
from likelify.fitting.settings import Draws
from likelify.names import ItemKind
from likelify.schema import all_plain
from likelify.settings import Values
from likelify.zoo.presets import PresetSize, preset

# 200 epochs of MNIST in batches of 256; CIFAR-10 had 1000 epochs, 195,000 steps.
FLOWIFIED_FIT: Values = {
    "steps": 200 * (60_000 // 256),
    "batch_size": 256,
    "lr": 5e-4,
    "betas": (0.9, 0.999),
    "weight_decay": 0.0,
    "warmup": 0,
    "clip": None,
    "average": 0.0,
    "validations": 100,
}
FLOWIFIED_SMALL_FIT: Values = {"steps": 1500, "batch_size": 128, "lr": 4e-3, "average": 0.99}
# Learning rates of short fits, and that of models with couplings.
FLOWIFIED_RATES = {"fmlp": 2e-3, "fconv1": 6e-3, "fconv2": 8e-3, "fconv-fft": 8e-3}
NSF_RATE = 4e-3
# Where items are large or their kind is not known.
FEW = Draws(elbo_samples=1, iw_samples=10)


@dataclass(frozen=True)
class Recipe:
    """What suits the data of a source, or of a kind.

    Attributes:
        model: name of the model that is fitted if none is named.
        models: settings of models by name, where other than their defaults suit the data.
        fits: settings of fits by name of the model, over those that suit the model whatever the data.
        threads: of the CPU, or None for all. Operations on a batch of tiny items are too short to share among threads;
            sharing them costs more processor time and, beside other work, more time on the wall.
        draws: of the usual evaluation.
    """

    model: str
    models: Mapping[str, Values] = field(default_factory=dict)
    fits: Mapping[str, Values] = field(default_factory=dict)
    threads: int | None = None
    draws: Draws = FEW

    def fit(self, model: str) -> Values:
        """Return the settings of the fit of a model to these data."""
        return {**FITS.get(model, {}), **self.fits.get(model, {})}


# Model -> settings of the fit that suit it, whatever the data.
FITS: dict[str, Values] = {
    "marginal-spline": {"steps": 1500, "lr": 4e-3, "batch_size": 128, "average": 0.995},
    **{
        name: {"steps": 1500, "lr": 2e-3, "batch_size": 32, "average": 0.99}
        for name in ("glow", "sylvester", "residual", "coupling-flow", "mixing-flow")
    },
    **{
        name: {"steps": 3000, "lr": rate, "batch_size": 128, "average": 0.995} for name, rate in FLOWIFIED_RATES.items()
    },
    "series": {"steps": 800, "lr": 5e-3, "batch_size": 64, "average": 0.99, "patience": 5},
    # The limit is on time; so many steps are for those who give more of it.
    "pyramid": {
        "steps": 100_000,
        "max_time": 600,
        "lr": 6e-3,
        # Steps matter more than the noise of their gradients: twice as many images made each half as useful.
        "batch_size": 8,
        "average": 0.998,
        "validations": 8,
        # For regressions with some dozen inputs.
        "initialize_items": 256,
    },
    # Tables of some hundred rows, such as scikit-learn's, are overfitted soon; large ones deserve more --steps.
    "flowified-mlp": {"steps": 1000, "lr": 3e-3, "batch_size": 128, "average": 0.99},
}

# In thousands of dimensions the noise of one draw is far below the spread over images; weighting 10,000 images would
# take longer than fitting them.
LARGE_IMAGES = Draws(elbo_samples=1, iw_samples=128, iw_items=500)
# A step takes a tenth of a second of one core.
MINUTES: Mapping[str, Values] = {"fconv2": {"max_time": 900}}
# Photographs of 32x32 pixels.
PHOTOS: Values = {"steps": 4, "hidden": 48, "mixing": "axis-exponential"}
# What is shown is in the middle of each image.
ALIGNED: Mapping[str, Values] = {"pyramid": {"aligned": True}}
# Pixels of an image up to which the pyramid is not what is fitted if no model is named.
SMALL_IMAGE = 16 * 16

KINDS: dict[ItemKind, Recipe] = {
    "image": Recipe("glow"),
    "sequence": Recipe("series", threads=1),
    "graph": Recipe("graph-flow", threads=1),
    # Rows are cheap, but the five large tables have up to 250,000 test rows.
    "table": Recipe("table-flow", threads=1, draws=Draws(iw_items=5000)),
}
# Positions whose sum is zero have a density in the dimensions that are left, which other models do not know.
CENTRED = Recipe(
    "point-flow", models={"point-flow": {"symmetry": "rotations", "centre": "dropped", "width": 32}}, threads=1
)
# Of many small sets of points the continuous flow learns more in the same time (`benchmarks/tutorial_points.py`: 2,400
# sets); its likelihood costs some sixty calls of a network of all pairs, and it has no dropout.
POINTS = Recipe("point-flow", threads=1)
MOST_POINTS, FEWEST_SETS = 32, 2000
SOURCES: dict[str, Recipe] = {
    "digits": Recipe(
        "marginal-spline",
        models={
            "glow": {"levels": 1, "steps": 6, "coupling": "spline", "hidden": 48, "dropout": 0.1},
            # The cheap bound: on tiny images the tight one takes as long as the layer.
            "sylvester": {"hidden": 64, "norm_limit": 1.8, "norm_bound": "reshape"},
            "mixing-flow": {"norm_limit": 1.8, "norm_bound": "reshape"},
            "residual": {"hidden": 64},
            "coupling-flow": {"hidden": 64},
        },
        fits={
            "sylvester": {"steps": 600, "lr": 8e-3, "batch_size": 64, "weight_decay": 1e-3},
            "residual": {"steps": 600, "lr": 1e-2, "batch_size": 64},
            "coupling-flow": {"steps": 800, "lr": 4e-3, "batch_size": 64},
            "mixing-flow": {"steps": 800, "lr": 5e-3, "batch_size": 64},
        },
        threads=1,
        draws=Draws(),
    ),
    "sample-photos": Recipe("pyramid", models={"glow": PHOTOS}, draws=LARGE_IMAGES),
    # A user's folder has any number of pictures; forty are overfitted after some hundred steps.
    "images": Recipe(
        "pyramid",
        models={"glow": PHOTOS},
        fits=dict.fromkeys(("pyramid", "glow"), {"max_time": 900, "validations": 30, "patience": 6}),
        draws=LARGE_IMAGES,
    ),
    "mog-ring": Recipe("point-flow", models={"set-canonical": {"order": "angle"}}, threads=1),
    "fashion-mnist": Recipe("pyramid", models=ALIGNED, fits=MINUTES, draws=LARGE_IMAGES),
    "mnist": Recipe("pyramid", models=ALIGNED, fits=MINUTES, draws=LARGE_IMAGES),
    "cifar-10": Recipe("pyramid", models=ALIGNED, draws=LARGE_IMAGES),
}

# Rows, or graphs, below which so much is dropped in the networks.
DROPOUT = ((1000, 0.3), (3000, 0.2), (8000, 0.1))
# The same of splines of several passes, by rows for each column.
COLUMN_DROPOUT = ((200, 0.1), (1000, 0.05))
# Samples that marginals are fitted to: with heavy tails and atoms they need more than means and scales do.
MARGINAL_ROWS = 200_000


def _of_table(facts: Facts) -> Recipe:
    """Return the recipe of a table by its rows and columns."""
    rows, columns = facts.sizes.get("train", 0), _modelled(facts)
    plain = all_plain(facts.meaning)
    members = _members(rows, plain=plain)
    dropout = _by_rows(DROPOUT, rows)
    # Three passes in z are worth more than a start at the Gaussian copula as soon as there are rows to learn them from.
    # They lose what is sharp by dropout, and need it where there are few rows for each column.
    deep = plain and rows >= DEEP_ROWS
    splines: Values = (
        {"passes": 3, "copula": False, "dropout": _by_rows(COLUMN_DROPOUT, rows / columns)} if deep else {}
    )
    large_mixed = not plain and WIDE_ROWS <= rows < MANY_ROWS
    return replace(
        KINDS["table"],
        models={
            "table-flow": {
                "members": members,
                "width": 64 if rows < 1000 else 128,
                "dropout": dropout,
                **(splines if "splines" in members else {}),
            },
            "table-coupling": {"dropout": dropout},
            "table-spline": {"dropout": dropout, **splines},
        },
        fits={
            "table-flow": _table_fit(
                rows,
                columns,
                fast=large_mixed or (rows >= 3000 and len(members) > 1),
                batch=256 if large_mixed else 512,
            ),
            "table-coupling": _table_fit(rows, columns, fast=rows >= 3000),
            "table-spline": _table_fit(rows, columns, fast=deep),
        },
    )


# Rows from which on autoregressive splines of several passes are learnt, and up to which a fit has the time for them;
# rows that are read in large batches.
DEEP_ROWS, WIDE_ROWS, MANY_ROWS = 4000, 20_000, 200_000


def _members(rows: int, *, plain: bool) -> tuple[str, ...]:
    """Return the trained members: several for few rows, where the mean of their densities varies less than each.

    Those of other kinds take several times the time of an autoregressive one, so that there are fewer steps. They bring
    more than that costs to the fewest rows, and to those that splines of several passes can be learnt from.
    """
    if plain and rows < 1000:
        return "autoregressive", "splines", "couplings"
    if plain and DEEP_ROWS <= rows < WIDE_ROWS:
        return "autoregressive", "splines"
    return ("autoregressive",) * (3 if rows < 3000 else 2 if rows < 5000 else 1)


def _by_rows(rates: Sequence[tuple[int, float]], rows: float) -> float:
    """Return the rate of the first number that there are fewer rows than, or none."""
    return next((rate for below, rate in rates if rows < below), 0.0)


def _modelled(facts: Facts) -> int:
    """Return how many columns of a table have a place in a model.

    Raises:
        ConfigError: if there is nothing to be modelled.
    """
    if all(column.given or not column.is_modelled for column in facts.meaning):
        raise ConfigError(
            f"'{facts.name}' has nothing to model: every column has one value only, follows from others, or is a "
            "condition."
        )
    return sum(column.is_modelled for column in facts.meaning)


# Rows below which a table has so many steps, and seconds of the processor at most.
TABLE_EFFORT = ((3000, 1200, 22.0), (5000, 3000, 60.0), (20_000, 4000, 60.0), (MANY_ROWS, 8000, 240.0))
MOST_EFFORT = (10_000, 400.0)


def _table_fit(rows: int, columns: int, *, fast: bool, batch: int = 512) -> Values:
    """Return the settings of the fit of a table: batches of an eighth of the rows, and patience.

    Args:
        rows: of training.
        columns: that are modelled.
        fast: take the high rate, for models whose steps take long, so that there are some thousand at most.
        batch: rows of one at most, below `MANY_ROWS`.
    """
    effort = next(((steps, seconds) for below, steps, seconds in TABLE_EFFORT if rows < below), MOST_EFFORT)
    return {
        "steps": effort[0],
        "max_time": effort[1],
        "clock": "processor",
        "batch_size": min(max(rows // 8, 64), batch if rows < MANY_ROWS else 1024),
        "lr": 1.5e-2 if fast else 6e-3,
        "weight_decay": 3e-2 if rows < 3000 else 1e-2,
        # Of the loss in bits per dimension: five nats of a row.
        "clip": 5.0 / (columns * math.log(2)),
        "average": 0.99 if fast else 0.995,
        "validations": 40,
        "patience": 10,
        "initialize_items": MARGINAL_ROWS,
    }


def _of_images(facts: Facts) -> Recipe:
    """Return the recipe of images by where they are from and by their size."""
    found = SOURCES.get(facts.family, KINDS["image"])
    small = math.prod(facts.event_shape[1:]) <= SMALL_IMAGE
    if small and found.model == "pyramid":
        return replace(found, model="glow")
    return found if small or facts.family in SOURCES else replace(found, model="pyramid")


# Training graphs below which a fit has so many steps, and seconds of the processor at most.
GRAPH_EFFORT = ((500, 1500, 60.0), (3000, 5000, 120.0), (20_000, 20_000, 240.0))
MOST_GRAPH_EFFORT = (100_000, 300.0)
# Nodes, and pairs of nodes of complete graphs, in a batch at most.
BATCH_NODES, BATCH_PAIRS = 16_384, 262_144
COUPLED = ("graph-flow", "graph-flat")
# What other models of sets change of that. A likelihood of a continuous flow takes as long as some fifty steps of its
# training, so that a few hundred graphs validate; what is assigned to anchors is learnt within seconds.
SET_FITS: Mapping[str, Values] = {
    "point-flow": {"lr": 1.2e-2, "weight_decay": 0.0, "average": 0.995, "validations": 10, "validation_items": 256},
    "set-autoregressive": {"lr": 3e-3, "average": 0.999, "validations": 20},
    "set-canonical": {"steps": 2000, "max_time": 30.0, "lr": 3e-3, "average": 0.99, "validations": 20},
}


def _of_graphs(facts: Facts) -> Recipe:
    """Return the recipe of graphs by how many there are, their sizes and the features of their nodes."""
    graphs = facts.sizes.get("train", 0)
    found = SOURCES.get(facts.family) or _usual_of_graphs(facts, graphs)
    dropout = _by_rows(DROPOUT, graphs)
    shared: Values = {"dropout": dropout} if dropout else {}
    # One feature cannot be divided for a coupling.
    alone: Values = {"coupling": "sylvester"} if facts.event_shape == (1,) else {}
    models = {"graph-flow": {**shared, **alone}, "graph-flat": shared}
    models |= {name: {**models.get(name, {}), **values} for name, values in found.models.items()}
    fit = _graph_fit(facts, graphs)
    fits = dict.fromkeys(COUPLED, fit) | {name: {**fit, **values} for name, values in SET_FITS.items()}
    return replace(found, models=models, fits={**fits, **found.fits})


def _usual_of_graphs(facts: Facts, graphs: int) -> Recipe:
    """Return the recipe of graphs that no source has one of its own for."""
    known = facts.graphs
    if known is not None and known.centred:
        return CENTRED
    points = known is not None and known.complete and known.nodes[1] <= MOST_POINTS and graphs >= FEWEST_SETS
    return POINTS if points else KINDS["graph"]


def _graph_fit(facts: Facts, graphs: int) -> Values:
    """Return the settings of the fit of couplings on graphs: batches by their sizes, patience if there are few."""
    steps, seconds = next(
        ((steps, seconds) for below, steps, seconds in GRAPH_EFFORT if graphs < below), MOST_GRAPH_EFFORT
    )
    nodes = 1.0 if facts.graphs is None else facts.graphs.mean_nodes
    fitting = BATCH_NODES / nodes
    if facts.graphs is not None and facts.graphs.complete:
        fitting = min(fitting, BATCH_PAIRS / nodes**2)
    return {
        "steps": steps,
        "max_time": seconds,
        "clock": "processor",
        "batch_size": min(128, max(graphs // 8, 8), max(int(fitting), 1)),
        "lr": 1.5e-2 if graphs >= 20_000 else 6e-3,
        "weight_decay": 1e-2 if graphs < 3000 else 1e-4,
        "warmup": 100,
        "average": 0.99,
        "validations": 20 if graphs >= 20_000 else 40,
        "patience": None if graphs >= 20_000 else 10,
    }


def recipe(facts: Facts) -> Recipe:
    """Return the recipe of a source, or that of its kind.

    Raises:
        ConfigError: if there are no models of that kind.
    """
    if facts.kind == "image":
        return _of_images(facts)
    if facts.kind == "graph":
        return _of_graphs(facts)
    if facts.family in SOURCES:
        return SOURCES[facts.family]
    if facts.kind not in KINDS:
        raise ConfigError(
            f"There are no ready-made models of {facts.items} ('{facts.name}'); build a flow, and fit it with lk.fit."
        )
    return _of_table(facts) if facts.kind == "table" else KINDS[facts.kind]


def usual_draws(facts: Facts) -> Draws:
    """Return the effort of the usual evaluation on some data, whether or not there are ready-made models of them."""
    known = SOURCES.get(facts.family) or KINDS.get(facts.kind)
    return FEW if known is None else known.draws


# 1000 epochs of 40,000 images in batches of 256.
EPOCH = 40_000 // 256
EXPONENTIAL_FIT: Values = {
    "steps": 1000 * EPOCH,
    "batch_size": 256,
    "lr": 1e-3,
    "eps": 1e-7,
    "weight_decay": 0.0,
    "warmup": 10 * EPOCH,
    "schedule": "exponential",
    "decay": 0.995**1000,
    "average": 0.0,
    "validations": 64,
    "initialize_items": 256,
}
MIXING_FIT = EXPONENTIAL_FIT | {"optimizer": "adamax", "betas": (0.9, 0.999), "clip": None}
RESIDUAL_FIT = EXPONENTIAL_FIT | {"optimizer": "adamw", "betas": (0.9, 0.99), "warmup_power": 2.0, "clip": 1.0}
SMALL_FIT: Values = {"steps": 1500, "batch_size": 32, "lr": 2e-3, "average": 0.99, "initialize_items": 512}
# The fits of appendix F were those of the neural spline flow experiments, which differ by table.
TABLE_FIT = FLOWIFIED_SMALL_FIT | {"lr": 5e-4}


# Model of a preset -> settings of the fit in the paper, as far as `FitSettings` has them, and of a short fit.
PRESETS: dict[str, tuple[Values, Values]] = {
    "mixing-flow": (MIXING_FIT, SMALL_FIT),
    **dict.fromkeys(("coupling-flow", "residual", "sylvester"), (RESIDUAL_FIT, SMALL_FIT)),
    "flowified-mlp": (TABLE_FIT, FLOWIFIED_SMALL_FIT),
    **{model: (FLOWIFIED_FIT, FLOWIFIED_SMALL_FIT | {"lr": rate}) for model, rate in FLOWIFIED_RATES.items()},
}


def preset_fit(name: str, size: PresetSize = "paper") -> Values:
    """Return the settings of the fit of a preset.

    Args:
        name: of the preset.
        size: `"paper"`, or `"small"` for a short fit on one CPU.

    Raises:
        ConfigError: if there is no such preset or size.

    Example:
        >>> preset_fit("flowified-fconv1-nsf", "small")["lr"]
        0.004
    """
    wanted = preset(name)
    settings, (paper, small) = wanted.settings(size), PRESETS[wanted.model]
    return dict(paper) if size == "paper" else small | ({"lr": NSF_RATE} if settings.get("nsf") else {})


# Fits of the experiments of the flowification paper. At its size (the appendix: Adam, 5e-4 falling to 0 along half a
# cosine, batches of 256) the data sets say for how many epochs; on one processor some thousand steps have larger rates
# and a moving average.
EPOCHS_FIT: Values = {name: value for name, value in FLOWIFIED_FIT.items() if name != "steps"}
PROCESSOR_SECONDS = {"images": 600.0, "tables": 240.0, "bundled tables": 60.0, "quick": 4.0}
PROCESSOR_FIT: Values = {"batch_size": 128, "average": 0.99, "validations": 20, "clock": "processor"}
# As many steps for all methods, since they were compared at equal epochs.
EQUAL_STEPS_FIT = PROCESSOR_FIT | {"steps": 800}
QUICK_FIT: Values = {"validations": 4}
# With a limit on time, this many steps are never reached.
UNLIMITED_FIT: Values = {"steps": 10**7}
# Of some hundred rows.
BUNDLED_FIT: Values = {"batch_size": 64}
# Tables are small: validating is cheap, and fits to some hundred rows are best long before their end.
PROCESSOR_TABLE_FIT = PROCESSOR_FIT | {"batch_size": 256, "validations": 60}
# Steps, batch size and rate of the neural spline flows, which the paper says it followed: from memory.
UCI_FITS: dict[str, Values] = {
    "power": {"steps": 400_000, "batch_size": 512, "lr": 5e-4},
    "gas": {"steps": 400_000, "batch_size": 512, "lr": 5e-4},
    "hepmass": {"steps": 400_000, "batch_size": 256, "lr": 5e-4},
    "miniboone": {"steps": 200_000, "batch_size": 128, "lr": 3e-4},
    "bsds300": {"steps": 400_000, "batch_size": 512, "lr": 5e-4},
}


# Short fits for tables 1 to 3 of the convolution exponential paper. The rate does not fall, and what is validated is an
# average of the weights, so that a curve can be read off at any step and time as if its fit had ended there.
STEADY_FIT: Values = {
    "batch_size": 32,
    "lr": 2e-3,
    "schedule": "exponential",
    "decay": 1.0,
    "average": 0.99,
    "validations": 16,
    "clock": "processor",
    "initialize_items": 512,
}

# Short fits for table 4 of that paper, whose training graphs are never met twice; rates are those of the recipes.
GRAPHS_FIT: Values = {
    "batch_size": 128,
    "validations": 10,
    "validation_items": 1000,
    "clock": "processor",
}
# The appendix is not at hand: the nearest published settings are the defaults of the graph normalizing flows' code.
GRAPHS_PAPER_FIT: Values = {
    "steps": 15_000,
    "batch_size": 32,
    "lr": 1e-4,
    "betas": (0.9, 0.999),
    "weight_decay": 0.0,
    "warmup": 0,
    "schedule": "exponential",
    "decay": 0.96**15,
    "clip": None,
    "average": 0.0,
    "validations": 15,
}


def flowified_rate(model: str, *, couplings: bool = False) -> float:
    """Return the learning rate of a short fit of a flowified model, with or without spline couplings."""
    return NSF_RATE if couplings else FLOWIFIED_RATES[model]
