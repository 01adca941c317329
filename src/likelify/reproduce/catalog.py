"""The list of experiments."""

from collections.abc import Callable

from likelify.errors import ConfigError, unknown_word
from likelify.reproduce.experiment import Experiment, Scale
from likelify.reproduce.papers import flowification, flowification_tables

EXPERIMENTS: dict[str, Callable[[Scale], Experiment]] = {
    "flowification-images": flowification.images,
    "flowification-noise": flowification.noise,
    "flowification-tables": flowification_tables.tables,
    "flowification-figures": flowification.figures,
    "flowification-minutes": flowification.minutes,
}


def experiment(name: str, scale: Scale = "cpu") -> Experiment:
    """Return the experiment of that name.

    Raises:
        ConfigError: if there is none.
    """
    if name not in EXPERIMENTS:
        raise ConfigError(unknown_word("experiment", name, EXPERIMENTS))
    return EXPERIMENTS[name](scale)
