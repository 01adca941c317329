"""The list of experiments."""

from collections.abc import Callable

from likelify.errors import ConfigError
from likelify.reproduce import flowification, flowification_tables
from likelify.reproduce.experiment import Experiment, Scale

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
        raise ConfigError(f"There is no experiment '{name}'; the experiments are {', '.join(EXPERIMENTS)}.")
    return EXPERIMENTS[name](scale)
