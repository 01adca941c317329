"""The list of experiments."""

from collections.abc import Callable
from typing import get_args

from likelify.errors import ConfigError, unknown_word
from likelify.reproduce.experiment import Experiment, Scale
from likelify.reproduce.papers import convexp, convexp_figures, convexp_graphs, flowification, flowification_tables

EXPERIMENTS: dict[str, Callable[[Scale], Experiment]] = {
    "table-1": convexp.table_1,
    "table-2": convexp.table_2,
    "table-3": convexp.table_3,
    "table-4": convexp_graphs.table_4,
    "figure-1": convexp_figures.figure_1,
    "figure-2": convexp_figures.figure_2,
    "figure-3": convexp_figures.figure_3,
    "figure-4": convexp_figures.figure_4,
    "figure-5": convexp_figures.figure_5,
    "flowification-images": flowification.images,
    "flowification-noise": flowification.noise,
    "flowification-tables": flowification_tables.tables,
    "flowification-figures": flowification.figures,
    "flowification-minutes": flowification.minutes,
}


def experiment(name: str, scale: str = "cpu") -> Experiment:
    """Return the experiment of a name at a scale.

    Raises:
        ConfigError: if there is no such experiment or scale.
    """
    if name not in EXPERIMENTS:
        raise ConfigError(unknown_word("experiment", name, EXPERIMENTS))
    for known in get_args(Scale):
        if scale == known:
            return EXPERIMENTS[name](known)
    raise ConfigError(unknown_word("scale", scale, get_args(Scale)))
