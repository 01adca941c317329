"""Single items as pictures: images as pixels, sequences as lines; rows of tables as cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from likelify.data import Facts
from likelify.data.encoding import decode_column
from likelify.data.facts import GraphFacts
from likelify.fitting.report.blocks import Picture
from likelify.fitting.report.drawing import DATA, MODEL, OTHER, figure, item_picture, label
from likelify.schema import ColumnSchema

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Channels of a sequence and columns of a table that are shown, and points of a line.
CHANNELS, COLUMNS, POINTS = 3, 12, 400


def shown_range(x: Tensor, facts: Facts) -> tuple[float, float]:
    """Return which values of pixels are black and white: the levels, or where nearly all real numbers lie."""
    if facts.levels is not None:
        return 0.0, facts.levels - 1.0
    low, high = np.quantile(x.detach().cpu().double().numpy(), (0.005, 0.995))
    return float(low), float(high if high > low else low + 1)


def as_pixels(x: Tensor, limits: tuple[float, float]) -> np.ndarray:
    """Return images in [0, 1]."""
    return (x.detach().cpu().double().numpy() - limits[0]) / (limits[1] - limits[0])


def can_be_shown(facts: Facts) -> bool:
    """Tell whether items have a picture."""
    return facts.kind in ("image", "sequence")


def item(x: Tensor, facts: Facts, name: str, alt: str, limits: tuple[float, float]) -> Picture:
    """Return an image or a sequence as a small picture.

    Args:
        x: of one item.
        facts: of the data.
        name: of the picture, unlike those of others.
        alt: what it is.
        limits: the values at the ends of its range.
    """
    if facts.kind == "image":
        return item_picture(as_pixels(x, limits), alt)
    return sequence(x, name, alt, limits)


def sequence(x: Tensor, name: str, alt: str, limits: tuple[float, float]) -> Picture:
    """Return a sequence `(channels, length)` or `(length,)` as lines."""
    values = x.detach().cpu().double().numpy().reshape(-1, x.shape[-1])

    def draw(axes: Axes) -> None:
        step = -(-values.shape[1] // POINTS)
        dot = {"marker": "o", "markersize": 3} if values.shape[1] == 1 else {}
        for channel, colour in zip(values[:CHANNELS], (MODEL, DATA, OTHER), strict=False):
            axes.plot(np.arange(values.shape[1])[::step], channel[::step], color=colour, linewidth=0.9, **dot)
        margin = 0.05 * (limits[1] - limits[0])
        axes.set_ylim(limits[0] - margin, limits[1] + margin)
        axes.set_xticks([])
        axes.tick_params(labelsize=7)

    return figure(name, draw, alt=alt, size=(2.2, 1.1), width=220)


def sequence_range(x: Tensor) -> tuple[float, float]:
    """Return the limits between which all lines of some sequences are drawn."""
    values = x.detach().cpu().double()
    values = values[values.isfinite()]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    return low, high if high > low else low + 1


def limits_of(x: Tensor, facts: Facts) -> tuple[float, float]:
    """Return the limits in which items are shown."""
    return shown_range(x, facts) if facts.kind == "image" else sequence_range(x)


def nodes_in_words(graphs: GraphFacts) -> str:
    """Return how many nodes graphs have: '9 nodes', or '3 to 6 nodes (4.5 on average)'."""
    low, high = min(graphs.sizes), max(graphs.sizes)
    if low == high:
        return f"{low:,} node{'s' * (low != 1)}"
    return f"{low:,} to {high:,} nodes ({graphs.mean_nodes:,.3g} on average)"


def names_of(facts: Facts) -> tuple[str, ...]:
    """Return the names of the columns of a table as labels."""
    return tuple(label(column.name) for column in facts.meaning)


def cells(x: Tensor, facts: Facts, columns: int = COLUMNS) -> tuple[str, ...]:
    """Return the first values of a row as text, as the data have them, and dots for those that are left out."""
    values = x.detach().cpu().double().numpy()
    more = ("...",) if len(values) > columns else ()
    if facts.schema is None:
        return (*(f"{value:.6g}" for value in values[:columns]), *more)
    return (*(_cell(value, column) for value, column in zip(values[:columns], facts.schema, strict=False)), *more)


def _cell(value: float, column: ColumnSchema) -> str:
    if np.isnan(value):
        return "(missing)"
    if column.kind in ("real", "integer") and column.step is None:
        return f"{value:.6g}"
    if column.kind == "boolean":
        return "true" if value > 0.5 else "false"
    shown = decode_column(np.array([value]), column)[0]
    if shown is None:
        return "(never seen)"
    return f"{shown:.10g}" if isinstance(shown, float) else label(str(shown))


def headings(facts: Facts, columns: int = COLUMNS) -> tuple[str, ...]:
    """Return the headings of `cells`."""
    names = names_of(facts)
    return (*names[:columns], *((f"{len(names) - columns} more",) if len(names) > columns else ()))
