"""Arrays as grids of cells, side by side with signs between them, as one writes an equation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from likelify.plots.files import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches.
SIGN, SPACE, MARGIN, TITLE, NOTE, BAR = 0.27, 0.3, 0.1, 0.32, 0.24, 0.14
# Cells below this size have no lines between them, and are drawn as one picture.
LINED = 0.05
# Letters of a sign that needs more room.
LONG = 8
SIGNED, GREY = "RdBu_r", "gray"


@dataclass(frozen=True)
class Panel:
    """A matrix in an equation.

    Attributes:
        title: above it.
        values: `(height, width)`; the colours are white at zero, blue below and red above.
        cell: inches of a cell.
        scale: panels of one scale share their colours.
        block: darker lines after so many cells.
        grey: from the smallest value in black to the largest in white, as a photograph.
        note: below it.
    """

    title: str
    values: Tensor | np.ndarray
    cell: float
    scale: str = ""
    block: int | None = None
    grey: bool = False
    note: str = ""

    @property
    def array(self) -> np.ndarray:
        """The values as an array."""
        values = self.values.detach().cpu() if isinstance(self.values, Tensor) else self.values
        return np.asarray(values, dtype=np.float64)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in inches."""
        height, width = self.array.shape
        return width * self.cell, height * self.cell


# A panel, a sign, or a wide space ("").
Part = Panel | str


def draw_equations(rows: Sequence[Sequence[Part]], *, bar: str | None = None) -> Figure:
    """Return rows of panels with signs between them, below one another.

    Args:
        rows: panels, signs and spaces.
        bar: scale whose colours a bar at the right explains.
    """
    widths = [sum(_width(part) for part in row) for row in rows]
    heights = [max(part.size[1] for part in row if isinstance(part, Panel)) for row in rows]
    panels = [part for row in rows for part in row if isinstance(part, Panel)]
    above_below = TITLE + NOTE * any(panel.note for panel in panels)
    width = max(widths) + 2 * MARGIN + (0.9 if bar else 0)
    height = sum(heights) + len(rows) * above_below + 2 * MARGIN
    figure, tops = new_figure(width, height, arranged=False), height - MARGIN
    limits = _limits(panels)
    for row, tall in zip(rows, heights, strict=True):
        middle = tops - TITLE - tall / 2
        _draw_row(figure, row, middle, (width, height), limits)
        tops -= tall + above_below
    if bar is not None:
        tall = min(heights[0], 2.4)
        place = (width - 0.72) / width, (height - MARGIN - TITLE - heights[0] / 2 - tall / 2) / height
        axis = figure.add_axes((*place, BAR / width, tall / height))
        _bar(figure, axis, limits[bar])
    return figure


def _draw_row(
    figure: Figure, row: Sequence[Part], middle: float, size: tuple[float, float], limits: dict[str, float]
) -> None:
    """Draw a row whose middle is so many inches above the bottom of the figure."""
    left, (width, height) = MARGIN, size
    for part in row:
        if isinstance(part, Panel):
            wide, high = part.size
            box = left / width, (middle - high / 2) / height, wide / width, high / height
            _draw_panel(figure.add_axes(box), part, limits.get(part.scale))
        elif part:
            figure.text((left + _width(part) / 2) / width, middle / height, part, ha="center", va="center", fontsize=14)
        left += _width(part)


def _draw_panel(axis: Axes, panel: Panel, limit: float | None) -> None:
    values = panel.array
    limit = float(np.abs(values).max()) or 1.0 if limit is None else limit
    colours: dict[str, Any] = {"cmap": GREY} if panel.grey else {"cmap": SIGNED, "vmin": -limit, "vmax": limit}
    height, width = values.shape
    # Not interpolated, so that a vector file holds each cell once.
    axis.imshow(values, interpolation="none", aspect="auto", extent=(0, width, height, 0), **colours)
    if panel.cell >= LINED:
        block = panel.block or max(height, width)
        for every, colour in ((1, "0.85"), (block, "0.45")):
            lines = {"colors": colour, "lw": 0.35 if every == 1 else 0.6}
            axis.hlines(range(every, height, every), 0, width, **lines)
            axis.vlines(range(every, width, every), 0, height, **lines)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set(color="0.45", linewidth=0.6)
    axis.set_title(panel.title, fontsize=11, pad=5)
    if panel.note:
        axis.set_xlabel(panel.note, fontsize=9, labelpad=3, color="0.3")


def _bar(figure: Figure, axis: Axes, limit: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(ScalarMappable(Normalize(-limit, limit), SIGNED), cax=axis)
    bar.outline.set_linewidth(0.5)  # pyright: ignore[reportCallIssue] - its stub takes it for a list of spines
    axis.tick_params(labelsize=8, width=0.5)


def _limits(panels: Sequence[Panel]) -> dict[str, float]:
    """Return for each shared scale its largest absolute value."""
    limits: dict[str, float] = {}
    for panel in panels:
        if panel.scale:
            limits[panel.scale] = max(limits.get(panel.scale, 0.0), float(np.abs(panel.array).max()))
    return {scale: limit or 1.0 for scale, limit in limits.items()}


def _width(part: Part) -> float:
    if isinstance(part, Panel):
        return part.size[0]
    return SIGN * (2.5 if len(part) > LONG else 1.0) if part else SPACE
