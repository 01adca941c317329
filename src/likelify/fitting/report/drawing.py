"""Figures of matplotlib as markup in the colours and letters of the page, and items as pictures.

A figure is drawn in colours that stand for roles and are replaced by those of the page, which knows light and dark.
Words stay text, so they have the font of the page and can be searched. Where there are many points they are pixels
inside the figure.
"""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from likelify.errors import needs
from likelify.fitting.report.blocks import Picture
from likelify.plots.files import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Roles as colours that nobody chooses, each a little other than black.
ROLES = {"ink": "#010203", "line": "#010204", "model": "#010205", "data": "#010206", "other": "#010207"}
INK, LINE, MODEL, DATA, OTHER = ROLES.values()
# Of points that are pixels, which cannot follow the page: readable on light and on dark.
MODEL_POINTS, DATA_POINTS = "#3b82c4", "#d97a2b"
DPI = 110
LONGEST_LABEL = 28
# Bytes of one picture of pixels, and the longest side of an item in one.
LARGEST_PICTURE, LARGEST_ITEM = 200_000, 96
# Pixels of the screen that an image of a grid takes at most.
LARGEST_TILE = 72

STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@contextmanager
def _styled(name: str) -> Iterator[None]:
    """Draw in the style of the page; letters that matplotlib's own font lacks are shown by the browser's."""
    with needs("matplotlib", "app"):
        from matplotlib import rc_context
    style: dict[Any, Any] = {**STYLE, "svg.hashsalt": name}
    with rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        # It takes a usable interval all the same.
        warnings.filterwarnings("ignore", message="AutoDateLocator was unable to pick")
        yield


def figure(
    name: str,
    draw: Callable[[Axes], None],
    *,
    alt: str,
    caption: str = "",
    size: tuple[float, float] = (4.2, 2.7),
    width: int = 460,
) -> Picture:
    """Return what a function draws on axes as a picture of the page.

    Args:
        name: of the picture, unlike those of others: its parts are named after it.
        draw: draws on the axes it is given, in the colours of `ROLES`.
        alt: what it shows, in words.
        caption: below it.
        size: in inches.
        width: at which it is shown, in pixels.
    """
    with _styled(name):
        made = new_figure(*size)
        draw(made.subplots())
        text = io.StringIO()
        # Nothing that changes from one time to the next.
        made.savefig(text, format="svg", dpi=DPI, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return Picture(alt=alt, caption=caption, svg=_for_page(text.getvalue(), alt), width=width)


def _for_page(svg: str, alt: str) -> str:
    """Return markup of matplotlib for a page: sized by the page, in its colours, with no names that nothing uses."""
    svg = svg[svg.index("<svg") :]
    for role, colour in ROLES.items():
        svg = svg.replace(colour, f"var(--{role})")
    head, body = svg.split(">", 1)
    head = re.sub(r' (width|height|version|xmlns|xmlns:xlink)="[^"]*"', "", head)
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", body)
    return f'{head} role="img" aria-label="{escape(alt)}">{body}'.strip()


def label(text: str, longest: int = LONGEST_LABEL) -> str:
    """Return a name of the user as a short line: without signs that cannot be seen, its middle left out if long."""
    plain = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split()) or "(no name)"
    if len(plain) <= longest:
        return plain
    half = (longest - 3) // 2
    return f"{plain[:half]}...{plain[-half:]}"


def item_picture(image: np.ndarray, alt: str, *, width: int = 84) -> Picture:
    """Return an image `(channels, height, width)` in [0, 1] as a small picture."""
    return _pixels(_coloured(_reduced(image)), alt, "", width)


def grid_picture(images: np.ndarray, alt: str, caption: str, *, columns: int = 8, width: int = 460) -> Picture:
    """Return images `(n, channels, height, width)` in [0, 1] as one picture, in rows; between them it is clear."""
    tiles = [_coloured(_reduced(image)) for image in images]
    height, wide, _ = tiles[0].shape
    columns = min(columns, len(tiles))
    rows, gap = -(-len(tiles) // columns), max(1, height // 16)
    canvas = np.zeros((rows * (height + gap) - gap, columns * (wide + gap) - gap, 4), np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // columns * (height + gap), number % columns * (wide + gap)
        canvas[top : top + height, left : left + wide] = tile
    return _pixels(canvas, alt, caption, min(width, columns * LARGEST_TILE))


def _coloured(image: np.ndarray) -> np.ndarray:
    """Return `(height, width, 4)` of bytes; of other than three channels the first is shown as grey."""
    shown = image if len(image) == 3 else np.repeat(image[:1], 3, axis=0)
    bytes_ = np.round(255 * np.nan_to_num(shown).clip(0, 1)).astype(np.uint8).transpose(1, 2, 0)
    return np.concatenate([bytes_, np.full_like(bytes_[..., :1], 255)], axis=2)


def _reduced(image: np.ndarray) -> np.ndarray:
    """Return an image with the means of squares of pixels as pixels, if it is large."""
    step = -(-max(image.shape[1:]) // LARGEST_ITEM)
    if step == 1:
        return image
    channels, height, width = image.shape
    high, wide = max(1, height // step), max(1, width // step)
    steps = height // high, width // wide
    cut = image[:, : high * steps[0], : wide * steps[1]]
    return cut.reshape(channels, high, steps[0], wide, steps[1]).mean((2, 4))


def _pixels(pixels: np.ndarray, alt: str, caption: str, width: int) -> Picture:
    """Return pixels as a picture of bounded size: PNG, or with some loss as WebP where that would be large."""
    with needs("pillow", "app"):
        from PIL import Image
    image, kind, content = Image.fromarray(pixels, "RGBA" if pixels.shape[2] == 4 else "RGB"), "png", io.BytesIO()
    image.save(content, "PNG", optimize=True)
    while content.tell() > LARGEST_PICTURE:
        if kind == "webp":
            image = image.resize((max(1, image.width // 2), max(1, image.height // 2)))
        kind, content = "webp", io.BytesIO()
        image.save(content, "WEBP", quality=85)
    uri = f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
    return Picture(alt=alt, caption=caption, uri=uri, width=width, pixels=image.width < width)
