"""What suits which data: the model, its settings and those of its fit, for each source or kind of item."""

from likelify.data import Facts
from likelify.errors import ConfigError
from likelify.fitting.recipes import graphs, images, tables
from likelify.fitting.recipes.base import FEW, Recipe
from likelify.fitting.recipes.models import FITS
from likelify.fitting.recipes.presets import preset_fit
from likelify.fitting.settings import Draws
from likelify.names import ItemKind

__all__ = ["FITS", "KINDS", "SOURCES", "Recipe", "preset_fit", "recipe", "usual_draws"]

KINDS: dict[ItemKind, Recipe] = {
    "image": images.USUAL,
    "sequence": Recipe("series", threads=1),
    "graph": graphs.USUAL,
    "table": tables.USUAL,
}
# Of single sources, by the kind of their items.
SOURCES: dict[ItemKind, dict[str, Recipe]] = {"image": images.SOURCES, "graph": graphs.SOURCES}


def recipe(facts: Facts) -> Recipe:
    """Return the recipe of a source, or that of its kind.

    Raises:
        ConfigError: if there are no models of that kind.
    """
    if facts.kind == "image":
        return images.of_images(facts)
    if facts.kind == "graph":
        return graphs.of_graphs(facts)
    if facts.kind not in KINDS:
        raise ConfigError(
            f"There are no ready-made models of {facts.items} ('{facts.name}'); build a flow, and fit it with lk.fit."
        )
    return tables.of_table(facts) if facts.kind == "table" else KINDS[facts.kind]


def usual_draws(facts: Facts) -> Draws:
    """Return the effort of the usual evaluation on some data, whether or not there are ready-made models of them."""
    known = SOURCES.get(facts.kind, {}).get(facts.family) or KINDS.get(facts.kind)
    return FEW if known is None else known.draws
