"""Opening data, as they are or a part of them, and taking arrays for a split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field

from likelify.data import (
    SOURCES,
    SPLITS,
    ArraySource,
    Facts,
    GraphItems,
    GraphSource,
    Items,
    SimulatedGraphs,
    Source,
    SourceOptions,
    SplitName,
    open_source,
    standardized,
    subset,
)
from likelify.errors import ConfigError, DataError
from likelify.settings import Settings

# Items that are put together at a time.
WHOLE = 2**16


class DataChoice(Settings):
    """How data are opened that are more than a name.

    Attributes:
        source: name of the source.
        limits: number of items to keep of a split; the other splits are used whole.
        drawn: how many graphs each split has of a simulated source whose graphs are drawn when they are read.
        standardized: whether each column of a table is scaled to mean 0 and variance 1 over the training split.
        folder: of the user's files; what was measured is known by the fingerprint of the data instead.
        options: how the user's files are read.
    """

    source: str
    limits: dict[SplitName, int] = Field(default_factory=dict)
    drawn: dict[SplitName, int] = Field(default_factory=dict)
    standardized: bool = False
    folder: str | None = None
    options: SourceOptions | None = None


STANDARDISED_LIKEWISE = "Give a source that was standardised likewise, lk.data.standardized(source)."


def refuse_other_units(opened: DataChoice | None, where: Path, instead: str = STANDARDISED_LIKEWISE) -> None:
    """Refuse rows in the units of a table, where the model is one of columns in units of their standard deviations.

    Args:
        opened: how the data of a run were opened.
        where: its folder.
        instead: what to do.

    Raises:
        ConfigError: then.
    """
    if opened is not None and opened.standardized:
        raise ConfigError(f"'{where}' is a model of columns in units of their standard deviations. {instead}")


def open_data(choice: DataChoice) -> Source:
    """Return data as they were chosen.

    With a folder, a data set is looked for in the folder of its name inside it, then in the folder itself; one that is
    there without files of the user needs to be in a folder of its name to be taken from there.

    Raises:
        DataError: if there is no such source, or its files are not where they should be.
    """
    if choice.drawn:
        source: Source = SimulatedGraphs(choice.source, **choice.drawn)
    else:
        source = open_source(_full_name(choice), choice.options)
    source = standardized(source) if choice.standardized else source
    return subset(source, **choice.limits) if choice.limits else source


def chosen(source: Source, options: SourceOptions | None) -> DataChoice | None:
    """Return how a source is opened again, or None where its name alone does it."""
    if options is None or not options.chosen():
        return None
    return DataChoice(source=source.name, options=options)


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


def in_memory(items: Items, facts: Facts) -> Source:
    """Return items of the kind of a source's as a source, with all of them in every split.

    Raises:
        DataError: if there are none, or some are not what they should be.
    """
    import torch

    parts = [part.batch for part in items.batches(WHOLE)]
    if not parts:
        raise DataError(f"{items.name} has no {facts.items}.")
    if facts.kind == "graph":
        graphs = GraphItems.of(parts)
        classes = None if graphs.labels is None else facts.classes
        return GraphSource(items.name, dict.fromkeys(SPLITS, graphs), columns=facts.columns, classes=classes)
    labels = [part.labels.numpy() for part in parts if part.labels is not None]
    return ArraySource(
        items.name,
        dict.fromkeys(SPLITS, torch.cat([part.x for part in parts]).numpy()),
        kind=facts.kind,
        levels=facts.levels,
        labels=dict.fromkeys(SPLITS, np.concatenate(labels)) if labels else None,
        classes=facts.classes if labels else None,
    )
