"""Pictures of graphs that were scored: the least likely of them, in the scale of the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from likelify.errors import DataError
from likelify.fitting.structures import feature_names, joined_batches
from likelify.plots.files import png_of, svg_of
from likelify.plots.graphs import View, graph_panels, graphs_of

if TYPE_CHECKING:
    from likelify.fitting.scoring.scoring import Scoring

ENDINGS = (".png", ".svg")
# Graphs of the file that decide the scale, besides those that are shown.
SEEN = 500


def picture_of_graphs(scoring: Scoring, numbers: Sequence[int], titles: Sequence[str], ending: str) -> bytes:
    """Return graphs as the content of a picture, each with its title.

    Args:
        scoring: what they were scored with.
        numbers: of the items, from 0.
        titles: a line for each.
        ending: of the file, one of `ENDINGS`.

    Raises:
        DataError: if they are not there any more.
    """
    found = []
    for number in numbers:
        part = next(iter(scoring.items.batches(1, number)), None)
        if part is None:
            raise DataError(f"{scoring.items.name} has no item {number} any more.")
        found.append(part.batch)
    batch = joined_batches(found)
    others = next(iter(scoring.items.batches(SEEN)), None)
    if batch.structure is None or others is None or others.batch.structure is None:
        raise DataError(f"{scoring.items.name} holds no graphs.")
    view = View.of(graph_panels(others.batch.x, others.batch.structure), feature_names(scoring.run.config.data))
    figure = graphs_of({"": graph_panels(batch.x, batch.structure, titles)}, view=view)
    return svg_of(figure) if ending == ".svg" else png_of(figure)
