"""Graphs of a report: many small ones in one picture, single ones on cards, in the colours of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from likelify.data import Batch, Facts
from likelify.errors import DataError
from likelify.fitting.report.blocks import Picture
from likelify.fitting.report.drawing import DATA, INK, LINE, MODEL, figure, label
from likelify.fitting.structures import feature_names, graphs_at
from likelify.plots.graphs import GAP, GraphPanel, Look, View, draw_graphs, graph_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Graphs by which limits are chosen, those of a grid, and nodes of all of them together.
SEEN, GRID, MOST_NODES = 500, 24, 6000
LOOKS = {
    which: Look(node=colour, edge=LINE, frame=LINE, text=INK, rim="none")
    for which, colour in (("model", MODEL), ("data", DATA))
}


def names_of_features(facts: Facts) -> tuple[str, ...]:
    """Return the names of the features of nodes as labels."""
    return tuple(label(name) for name in feature_names(facts))


def panels_of(batch: Batch, numbers: Sequence[int] | np.ndarray | None = None) -> list[GraphPanel]:
    """Return graphs of a batch, all or those with these numbers, to be drawn.

    Raises:
        DataError: if it holds no graphs.
    """
    if numbers is not None:
        batch = graphs_at(batch, torch.from_numpy(np.array(numbers, dtype=np.int64)))
    if batch.structure is None:
        raise DataError("The batch holds no graphs.")
    return graph_panels(batch.x, batch.structure)


def view_of(batch: Batch, facts: Facts) -> View:
    """Return the view in which all graphs of a page are seen: one that suits these."""
    return View.of(panels_of(batch.head(SEEN)), names_of_features(facts))


def how_many(batch: Batch) -> int:
    """Return how many of the first graphs are shown in a grid."""
    sizes = batch.dims().cpu().numpy() if batch.structure is None else batch.structure.sizes.cpu().numpy()
    return max(1, min(GRID, int((np.cumsum(sizes) <= MOST_NODES).sum())))


def grid(panels: Sequence[GraphPanel], view: View, which: str, name: str, alt: str, caption: str) -> Picture:
    """Return graphs in rows as one picture.

    Args:
        panels: the graphs.
        view: how they are seen.
        which: "model" or "data", whose colour they have.
        name: of the picture, unlike those of others.
        alt: what it shows, in words.
        caption: below it.
    """
    columns = min(4 if view.height == 1 else 2, len(panels))
    rows = -(-len(panels) // columns)
    wide, high = columns * (1 + GAP) - GAP, rows * (view.height + GAP) - GAP

    def draw(axes: Axes) -> None:
        draw_graphs(axes, panels, view, columns=columns, look=LOOKS[which])

    size = (4.0, 4.0 * (high + 0.04) / (wide + 0.04))
    return figure(name, draw, alt=alt, caption=caption, size=size, width=400)


def single(panel: GraphPanel, view: View, name: str, alt: str) -> Picture:
    """Return a graph as a small picture."""

    def draw(axes: Axes) -> None:
        draw_graphs(axes, [panel], view, look=LOOKS["data"])

    return figure(name, draw, alt=alt, size=(1.3, 1.3 * view.height), width=150)


def beyond(panels: Sequence[GraphPanel], view: View) -> int:
    """Return how many nodes lie beyond the limits of a view."""
    outside = [view.nodes(panel).outside for panel in panels]
    return sum(int(each.sum()) for each in outside if each is not None)
