"""Figures of matplotlib as the content of files that are the same whenever they are written."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from likelify.errors import needs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float, *, arranged: bool = True) -> Figure:
    """Return an empty figure of so many inches; it arranges its axes by itself unless they are placed by hand."""
    with needs("matplotlib", "app"):
        from matplotlib.figure import Figure
    return Figure(figsize=(width, height), layout="constrained" if arranged else None)


def png_of(figure: Figure, *, dpi: int = 150) -> bytes:
    """Return a figure as the content of a PNG file, with so many pixels an inch."""
    content = io.BytesIO()
    # What matplotlib would add is its version.
    figure.savefig(content, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return content.getvalue()


def svg_of(figure: Figure) -> bytes:
    """Return a figure as the content of an SVG file, letters as outlines: it looks the same on every machine."""
    from matplotlib import rc_context

    content = io.BytesIO()
    with rc_context({"svg.hashsalt": "likelify", "svg.fonttype": "path"}):
        figure.savefig(content, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
    return content.getvalue()
