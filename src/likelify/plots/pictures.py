"""Pictures of items: grids of images as they are, pixel for pixel; sequences as lines; rows as pairs of columns."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from likelify.errors import ConfigError, needs
from likelify.plots.columns import on_axis, set_ticks, shown_values
from likelify.plots.files import new_figure
from likelify.schema import ColumnSchema, numbered_columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image
    from torch import Tensor

# Sides in pixels: up to which small images are enlarged, and above which large ones are reduced.
USUAL_SIDE, LARGEST_SIDE = 900, 2400
LARGEST_ZOOM, SMALLEST_CELL = 16, 8
MOST_IMAGES, MOST_SEQUENCES, MOST_COLUMNS, MOST_POINTS = 10_000, 100, 8, 5_000
# How wide a grid should be beside its height, and what each deviation from it (in e-folds) costs, in empty places.
WIDE, PRICE = 1.25, 0.15
TITLE, GAP, COLOURS = 15, 24, 64
# Values beyond which matplotlib finds no ticks.
FAR = 1e150
# Of pairs of columns: bins of a histogram; words of an axis, letters of them, and how far points of one lie apart.
BINS, MOST_WORDS, LETTERS, JITTER = 40, 8, 9, 0.28


def grid_columns(count: int, aspect: float = 1.0) -> int:
    """Return how many columns suit a grid of so many images: few empty places, and neither long nor high.

    Args:
        count: of the images.
        aspect: width of an image beside its height.

    Example:
        >>> tuple(map(grid_columns, (1, 2, 7, 10, 64, 100)))
        (1, 2, 4, 5, 8, 10)
    """

    def cost(columns: int) -> float:
        rows = -(-count // columns)
        return (rows * columns - count) / count + PRICE * abs(math.log(columns * aspect / rows / WIDE))

    return min(range(1, count + 1), key=cost)


def stretched(pixels: np.ndarray, levels: int) -> np.ndarray:
    """Return values `0 .. levels - 1` over the full range of 8 bits, of 16 above 256 levels: what PNG files hold.

    `round(value * (levels - 1) / 255)`, or with 65535, gives the integers back; with 256 levels they are the same.
    """
    top, dtype = (255, np.uint8) if levels <= 256 else (65535, np.uint16)
    return np.rint(np.asarray(pixels, np.float64) * (top / (levels - 1))).clip(0, top).astype(dtype)


def grid_of(
    images: Tensor | np.ndarray, levels: int, *, columns: int | None = None, usual: int = USUAL_SIDE
) -> np.ndarray:
    """Return images `(n, c, h, w)` in a grid, `(height, width)` or `(height, width, 3)` in 8 bits.

    Rows are filled first; places left over and lines between images are white. Small images are enlarged by a whole
    factor, pixel by pixel; large ones are reduced, so that neither side is far beyond 2400 pixels. Of images with other
    than one or three channels the first is shown.

    Args:
        images: integers `0 .. levels - 1`.
        levels: number of values of a pixel.
        columns: images in a row; by default what suits their number.
        usual: side up to which small images are enlarged.

    Raises:
        ConfigError: if there are more than 10,000.
    """
    cells = np.asarray(images)
    if len(cells) > MOST_IMAGES:
        raise ConfigError(
            f"A picture shows at most {MOST_IMAGES:,} images, not {len(cells):,}; write .npy, .npz or a folder of PNG."
        )
    cells = stretched(cells if cells.shape[1] == 3 else cells[:, :1], levels)
    cells = (cells >> 8).astype(np.uint8) if levels > 256 else cells
    count, channels, height, width = cells.shape
    columns = min(columns or grid_columns(count, width / height), count)
    rows = -(-count // columns)
    cells = _scaled(cells, max(rows * height, columns * width), usual)
    height, width = cells.shape[2:]
    margin = max(1, min(height, width) // 14)
    grid = np.full((channels, rows * (height + margin) - margin, columns * (width + margin) - margin), 255, np.uint8)
    for index, cell in enumerate(cells):
        top, left = index // columns * (height + margin), index % columns * (width + margin)
        grid[:, top : top + height, left : left + width] = cell
    return grid.transpose(1, 2, 0) if channels == 3 else grid[0]


def _scaled(cells: np.ndarray, side: int, usual: int) -> np.ndarray:
    """Enlarge or reduce images of 8 bits whose grid has that longer side without lines."""
    zoom = min(LARGEST_ZOOM, usual // side)
    if zoom > 1:
        return cells.repeat(zoom, axis=2).repeat(zoom, axis=3)
    if side <= LARGEST_SIDE:
        return cells
    height, width = cells.shape[2:]
    factor = max(LARGEST_SIDE / side, min(1.0, SMALLEST_CELL / min(height, width)))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    pil = pillow()
    reduced = [[pil.fromarray(plane).resize(size, pil.Resampling.BOX) for plane in cell] for cell in cells]
    return np.array([[np.asarray(plane) for plane in cell] for cell in reduced])


def picture(
    panels: Mapping[str, Tensor | np.ndarray], levels: int, *, columns: int | None = None, across: int | None = None
) -> bytes:
    """Return grids of images side by side, with their titles if there are several, as the content of a PNG file.

    Args:
        panels: for each title its images `(n, c, h, w)`.
        levels: number of values of a pixel.
        columns: images in a row of each grid; by default what suits their number.
        across: grids side by side before the next ones are below them; by default all.
    """
    usual = USUAL_SIDE if len(panels) == 1 else 560
    grids = [grid_of(images, levels, columns=columns, usual=usual) for images in panels.values()]
    images = [pillow().fromarray(grid) for grid in grids]
    return png(images[0] if len(images) == 1 else _titled(list(panels), images, across or len(images)))


def _titled(titles: Sequence[str], images: Sequence[Image], across: int) -> Image:
    """Put images below their titles, so many side by side."""
    from PIL import ImageDraw, ImageFont

    top, font = TITLE + 13, ImageFont.load_default(TITLE)
    letters = max(math.ceil(font.getlength(title)) for title in titles)
    wide, high = max(letters, *(image.width for image in images)), max(image.height for image in images)
    across, down = min(across, len(images)), -(-len(images) // across)
    mode = "RGB" if any(image.mode == "RGB" for image in images) else "L"
    size = across * (wide + GAP) - GAP, down * (top + high + GAP) - GAP
    sheet = pillow().new(mode, size, "white")
    pen = ImageDraw.Draw(sheet)
    for index, (title, image) in enumerate(zip(titles, images, strict=True)):
        left, upper = index % across * (wide + GAP), index // across * (top + high + GAP)
        # Titles of narrow images are wider than these.
        shift = max(0, (letters - image.width) // 2)
        middle = left + shift + image.width / 2
        pen.text((max(left, middle - font.getlength(title) / 2), upper + 3), title, "black", font)
        sheet.paste(image, (left + shift, upper + top))
    return sheet


def png(image: Image) -> bytes:
    """Return an image as the content of a PNG file."""
    content = io.BytesIO()
    image.save(content, format="PNG", optimize=True)
    return content.getvalue()


def one_image(pixels: np.ndarray, levels: int) -> bytes:
    """Return an image `(c, h, w)` of integers as the content of a PNG file, in 16 bits above 256 levels.

    Raises:
        ConfigError: if it has other than one or three channels, or three of more than 256 levels, which PNG files
            written by Pillow do not hold.
    """
    if len(pixels) not in (1, 3) or (len(pixels) == 3 and levels > 256):
        what = f"{len(pixels)} channels" + (f" and {levels:,} levels" if len(pixels) == 3 else "")
        raise ConfigError(f"Images of {what} cannot be written as PNG files; write .npy or .npz.")
    cell = stretched(pixels, levels)
    return png(pillow().fromarray(cell[0] if len(cell) == 1 else np.ascontiguousarray(cell.transpose(1, 2, 0))))


def lines_of(panels: Mapping[str, Tensor | np.ndarray]) -> bytes:
    """Return sequences `(n, channels, length)` as lines, a small plot for each, as the content of a PNG file.

    Args:
        panels: for each title its sequences; with several titles those of one number share a plot.

    Raises:
        ConfigError: if there are more than 100.
    """
    arrays = {title: np.asarray(values) for title, values in panels.items()}
    count = max(map(len, arrays.values()))
    if count > MOST_SEQUENCES:
        raise ConfigError(f"A picture shows at most {MOST_SEQUENCES} sequences, not {count:,}; write .npy or .csv.")
    columns = grid_columns(count, 2.0)
    rows = -(-count // columns)
    figure = new_figure(max(4.0, 2.0 * columns), max(2.0, 1.1 * rows) + 0.3 * (len(panels) > 1))
    axes = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)).flatten()
    for index, axis in enumerate(axes):
        axis.set_visible(index < count)
        axis.tick_params(labelsize=6)
        for number, (title, values) in enumerate(arrays.items()):
            if index < len(values):
                colour = {"color": f"C{number}"} if len(arrays) > 1 else {}
                # A single time is no line.
                dot = {"marker": "o", "markersize": 2.5} if values.shape[-1] == 1 else {}
                lines = axis.plot(values[index].T, linewidth=0.8, **colour, **dot)
                lines[0].set_label(title)
    if len(arrays) > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(arrays), fontsize=8)
    return _saved(figure)


def pairs_of(
    panels: Mapping[str, Tensor | np.ndarray],
    columns: Sequence[str] | None = None,
    meaning: Sequence[ColumnSchema] = (),
) -> bytes:
    """Return rows as the content of a PNG file: of each pair of columns the points, of each column its histogram.

    Points of words lie beside one another, in the place of the word, and dates are shown as such.

    Args:
        panels: for each title its rows `(n, columns)`, of which 5,000 are shown, and the first 8 columns.
        columns: their names, or None.
        meaning: of the columns, by default real numbers.
    """
    arrays = {title: np.asarray(rows, dtype=np.float64)[:MOST_POINTS, :MOST_COLUMNS] for title, rows in panels.items()}
    size = next(iter(arrays.values())).shape[1]
    names = numbered_columns(size) if columns is None else columns[:size]
    schema = list(meaning[:size]) or [ColumnSchema(name=name or "column") for name in names]
    arrays = {
        title: np.stack([shown_values(rows[:, at], schema[at]) for at in range(size)], 1).clip(-FAR, FAR)
        for title, rows in arrays.items()
    }
    side = max(3.5, 1.6 * size)
    figure = new_figure(side, side)
    axes = figure.subplots(size, size, squeeze=False)
    bins = [_bins(np.concatenate([rows[:, at] for rows in arrays.values()]), schema[at]) for at in range(size)]
    for title, rows in arrays.items():
        for down in range(size):
            for right in range(size):
                _pair(axes[down, right], rows, (schema[down], schema[right]), (down, right), title, bins[right])
    for down, right in itertools.product(range(size), repeat=2):
        # Room at the ends of all that is shown, but none beyond the calendar.
        axes[down, right].set_xlim(*on_axis(np.array(axes[down, right].get_xlim()), schema[right]))
        if down != right:
            axes[down, right].set_ylim(*on_axis(np.array(axes[down, right].get_ylim()), schema[down]))
    for index, name in enumerate(names):
        # Names are the user's: a $ in them means nothing.
        axes[-1, index].set_xlabel(name, fontsize=8, parse_math=False)
        axes[index, 0].set_ylabel(name, fontsize=8, parse_math=False)
    if len(arrays) > 1:
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(arrays), fontsize=8)
    return _saved(figure)


def _pair(
    axis: Any,
    rows: np.ndarray,
    columns: tuple[ColumnSchema, ColumnSchema],
    places: tuple[int, int],
    title: str,
    bins: np.ndarray,
) -> None:
    axis.tick_params(labelsize=6)
    down, right = places
    if down < right:
        axis.set_visible(False)
        return
    _set_axis(axis.xaxis, columns[1])
    if down == right:
        axis.stairs(_shares(rows[:, right], bins), on_axis(bins, columns[1]), label=title)
        return
    _set_axis(axis.yaxis, columns[0])
    across, up = (_beside(rows[:, at], column, at) for at, column in ((right, columns[1]), (down, columns[0])))
    axis.scatter(across, up, s=1.5, linewidths=0, alpha=0.5, rasterized=True)


def _set_axis(axis: Any, column: ColumnSchema) -> None:
    if column.kind == "boolean":
        axis.set_ticks((0, 1), ("false", "true"))
        return
    if column.categories is None:
        set_ticks(axis, column, 3)
        axis.offsetText.set_fontsize(6)
        if column.kind != "date":
            axis.get_major_formatter().set_useOffset(False)
        return
    words = [word if len(word) <= LETTERS else f"{word[: LETTERS - 1]}…" for word in column.categories[:MOST_WORDS]]
    axis.set_ticks(range(len(words)), words, parse_math=False)


def _beside(values: np.ndarray, column: ColumnSchema, seed: int) -> np.ndarray:
    """Return values, those of a word or of a truth value beside one another."""
    if column.categories is None and column.kind != "boolean":
        return on_axis(values, column)
    return values + np.random.default_rng(seed).uniform(-JITTER, JITTER, len(values))


def _shares(values: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Return the share of each bin in what is finite."""
    # What is missing in a table is not a number.
    values = values[np.isfinite(values)]
    return np.histogram(values, bins)[0] / max(len(values), 1)


def _bins(values: np.ndarray, column: ColumnSchema) -> np.ndarray:
    """Return the edges of bins for all panels of a column, also of values that differ in their last digits alone.

    Words have a bin each, and whole numbers as many of them in each bin.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return np.array([0.0, 1.0])
    low, high = values.min(), values.max()
    if column.categories is not None or (column.kind == "integer" and high - low < 1 / np.finfo(values.dtype).eps):
        wide = max(1.0, np.ceil((high - low + 1) / BINS)) if column.categories is None else 1.0
        return low - 0.5 + wide * np.arange(np.floor((high - low) / wide) + 2)
    # Halves, whose difference is finite whatever they are.
    half = high / 2 - low / 2
    if not half > 0:
        wide = max(0.5, float(np.spacing(abs(low))))
        return np.array([low - wide, low + wide])
    share = np.linspace(0.0, 1.0, BINS + 1)
    return low * (1 - share) + high * share


def _saved(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    with pillow().open(content) as image:
        # Lines and letters need few colours, and a third of the bytes.
        return png(image.convert("RGB").quantize(COLOURS))


def pillow() -> Any:
    """Return Pillow's module of images."""
    with needs("pillow", "app"):
        from PIL import Image
    return Image
