"""Images as tiles of one sheet, pixel for pixel, from which they are read back; and panels of images as SVG."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from likelify.errors import ConfigError, ShapeError
from likelify.plots.pictures import GAP, grid_of, pillow, png, stretched

if TYPE_CHECKING:
    from torch import Tensor

TILE_COLUMNS = 8
# Of a panel in SVG, in its units; letters above it.
PANEL, LETTERS, HEAD = 400, 18, 32


def tiles(images: Tensor | np.ndarray, levels: int, *, columns: int = TILE_COLUMNS) -> bytes:
    """Return images `(n, c, h, w)` as one sheet without lines, a pixel for a pixel, as the content of a PNG file.

    Args:
        images: integers `0 .. levels - 1`, of one or three channels.
        levels: number of values of a pixel, at most 256.
        columns: images in a row; the last row is filled with black.

    Raises:
        ConfigError: if they have other numbers of channels or levels.
    """
    cells = np.asarray(images)
    if cells.shape[1] not in (1, 3) or levels > 256:
        raise ConfigError(
            f"A sheet of tiles holds images of one or three channels and up to 256 levels, got {cells.shape[1]} "
            f"channels and {levels:,} levels."
        )
    cells = stretched(cells, levels)
    count, channels, height, width = cells.shape
    rows = -(-count // columns)
    sheet = np.zeros((rows * columns, channels, height, width), np.uint8)
    sheet[:count] = cells
    sheet = sheet.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    sheet = sheet.reshape(rows * height, columns * width, channels)
    return png(pillow().fromarray(sheet if channels == 3 else sheet[..., 0]))


def read_tiles(content: bytes, height: int, width: int) -> np.ndarray:
    """Return the images `(n, c, h, w)` of a sheet made by `tiles`, in 8 bits, with those that filled it up.

    Args:
        content: of the PNG file.
        height: of an image.
        width: of an image.

    Raises:
        ShapeError: if the sheet does not hold a whole number of such images.
    """
    with pillow().open(io.BytesIO(content)) as image:
        sheet = np.asarray(image)
    sheet = sheet[..., None] if sheet.ndim == 2 else sheet
    high, wide, channels = sheet.shape
    if high % height or wide % width:
        raise ShapeError(f"A sheet of {high}x{wide} pixels does not hold whole images of {height}x{width}.")
    cells = sheet.reshape(high // height, height, wide // width, width, channels)
    return cells.transpose(0, 2, 4, 1, 3).reshape(-1, channels, height, width)


def panels_as_svg(
    panels: Mapping[str, Tensor | np.ndarray], levels: int, *, columns: int | None = None, across: int | None = None
) -> bytes:
    """Return grids of images side by side below their titles as the content of an SVG file that needs no other.

    `picture` gives the same as PNG. Pixels stay squares at every size.

    Args:
        panels: for each title its images `(n, c, h, w)`.
        levels: number of values of a pixel.
        columns: images in a row of each grid; by default what suits their number.
        across: grids side by side before the next ones are below them; by default all.
    """
    grids = [grid_of(images, levels, columns=columns, usual=1) for images in panels.values()]
    across = min(across or len(grids), len(grids))
    heights = [round(PANEL * grid.shape[0] / grid.shape[1]) for grid in grids]
    step, parts = HEAD + max(heights) + GAP, []
    for index, (title, grid, high) in enumerate(zip(panels, grids, heights, strict=True)):
        left, top = index % across * (PANEL + GAP), index // across * step
        data = base64.b64encode(png(pillow().fromarray(grid))).decode()
        parts += [
            f'<text x="{left + PANEL / 2:g}" y="{top + LETTERS + 2}" text-anchor="middle">{escape(title)}</text>',
            f'<image x="{left}" y="{top + HEAD}" width="{PANEL}" height="{high}" href="data:image/png;base64,{data}"/>',
        ]
    width, height = across * (PANEL + GAP) - GAP, -(-len(grids) // across) * step - GAP
    style = f"text {{ font: {LETTERS}px sans-serif; }} image {{ image-rendering: pixelated; }}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<style>{style}</style>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        *parts,
        "</svg>",
    ]
    return ("\n".join(lines) + "\n").encode()
