"""Opening the data of a cell."""

from pathlib import Path

from likelify.data import SOURCES, Facts, Source, open_source, standardized, subset
from likelify.reproduce.cell import DataChoice


def open_data(choice: DataChoice) -> Source:
    """Return the data of a cell.

    With a folder, a data set is looked for in the folder of its name inside it, then in the folder itself; one that is
    there without files of the user needs to be in a folder of its name to be taken from there.

    Raises:
        DataError: if there is no such source, or its files are not where they should be.
    """
    source = open_source(_full_name(choice))
    source = standardized(source) if choice.standardized else source
    return subset(source, **choice.limits) if choice.limits else source


def public_facts(source: Source, choice: DataChoice) -> Facts:
    """Return the facts of the data of a cell, named without the user's folder, so that results can be published."""
    return source.facts().model_copy(update={"name": choice.source, "family": choice.source})


def _full_name(choice: DataChoice) -> str:
    if choice.folder is None:
        return choice.source
    folder = Path(choice.folder)
    inside = folder / choice.source
    if inside.exists():
        return f"{choice.source}:{inside}"
    return choice.source if choice.source in SOURCES else f"{choice.source}:{folder}"
