"""Pictures of images that were scored: the least likely of them, and where what is unlikely in them is."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from likelify.data import Batch, Facts
from likelify.errors import ConfigError, DataError, MissingDependencyError
from likelify.fitting.scoring.replacing import replacements
from likelify.plots import image_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from likelify.fitting.scoring.scoring import Scoring

# Images in a row of a picture, the most of them in one, and dots for each inch.
COLUMNS, MOST, DPI = 10, 100, 150


@dataclass(frozen=True, eq=False)
class Shown:
    """Images that are shown with a line above each.

    Attributes:
        images: `(n, c, h, w)`.
        titles: a line for each.
        heat: for each pixel what is gained if its place is replaced, in nats `(n, h, w)`, or None.
    """

    images: Tensor
    titles: tuple[str, ...]
    heat: np.ndarray | None = None


def check_pictures(facts: Facts) -> None:
    """Refuse pictures of what is no image of pixels.

    Raises:
        ConfigError: if items are no images, or images of real numbers, whose colours are not known.
    """
    if facts.kind != "image" or facts.levels is None:
        what = facts.items if facts.kind != "image" else "images of real numbers"
        raise ConfigError(f"Pictures show images of pixels, and the run is a model of {what}.")


def look_at(
    scoring: Scoring,
    numbers: Sequence[int],
    titles: Sequence[str],
    *,
    heat: bool = False,
    on_image: Callable[[float], None] | None = None,
) -> Shown:
    """Read some images again, to be shown.

    Args:
        scoring: what they were scored with.
        numbers: of the items, from 0.
        titles: a line for each.
        heat: also find out where what is unlikely in them is.
        on_image: called with the share that is done.

    Raises:
        DataError: if they are not there any more.
        ConfigError: as `check_pictures`.
    """
    check_pictures(scoring.run.config.data)
    others = replacements(scoring.run) if heat else None
    images, maps = [], []
    with scoring.scorer.flow.frozen():
        for done, batch in enumerate(_again(scoring, numbers), 1):
            images.append(batch.x.cpu())
            if others is not None:
                maps.append(scoring.scorer.heat(batch, numbers[done - 1], others))
            if on_image is not None:
                on_image(done / len(numbers))
    return Shown(torch.cat(images), tuple(titles), np.concatenate(maps) if maps else None)


def _again(scoring: Scoring, numbers: Sequence[int]) -> Iterator[Batch]:
    for number in numbers:
        found = next(iter(scoring.items.batches(1, number)), None)
        if found is None:
            raise DataError(f"{scoring.items.name} has no item {number} any more.")
        yield found.batch


def picture_of(shown: Shown, levels: int) -> bytes:
    """Return images as the content of a PNG file, each with its title; with heat each twice, plain and coloured.

    The colours of all images are on one scale, which the bar gives in nats.
    """
    figure = _figure(len(shown.images), doubled=shown.heat is not None)
    axes = np.atleast_1d(figure.subplots(*_layout(len(shown.images), doubled=shown.heat is not None))).ravel()
    for axis in axes:
        axis.axis("off")
    coloured = None
    highest = None if shown.heat is None else max(float(np.nan_to_num(shown.heat, posinf=0.0).max()), 1e-9)
    times = 1 if shown.heat is None else 2
    for place, title in enumerate(shown.titles):
        pixels = image_grid(shown.images[place : place + 1], levels, columns=1)
        axis = axes[times * place]
        axis.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(title, fontsize=8)
        if shown.heat is not None:
            beside = axes[times * place + 1]
            beside.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            coloured = beside.imshow(shown.heat[place], cmap="inferno", vmin=0, vmax=highest, alpha=0.75)
    if coloured is not None:
        figure.colorbar(coloured, ax=list(axes), label="nats gained if the place is replaced", shrink=0.8)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    return content.getvalue()


def _layout(count: int, *, doubled: bool) -> tuple[int, int]:
    """Return rows and columns of the places of images."""
    images = min(count, COLUMNS // 2 if doubled else COLUMNS)
    return -(-count // images), images * (2 if doubled else 1)


def _figure(count: int, *, doubled: bool) -> Figure:
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "app") from error
    rows, columns = _layout(count, doubled=doubled)
    return Figure(figsize=(max(1.1 * columns + doubled, 2.5), 1.3 * rows), layout=ConstrainedLayoutEngine())
