"""Pictures of images that were scored: the least likely of them, and where what is unlikely in them is."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from likelify.data import Batch, Facts
from likelify.errors import ConfigError, DataError, MissingDependencyError
from likelify.fitting.scoring.replacing import replacements
from likelify.plots import grid_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from likelify.fitting.scoring.scoring import Scoring

OnShare = Callable[[float], None]
# Images in a row of a picture, and dots for each inch.
COLUMNS, DPI = 10, 150


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
    on_share: OnShare | None = None,
) -> Shown:
    """Read some images again, to be shown.

    Args:
        scoring: what they were scored with.
        numbers: of the items, from 0.
        titles: a line for each.
        heat: also find out where what is unlikely in them is.
        on_share: called with the share that is done.

    Raises:
        DataError: if they are not there any more.
        ConfigError: as `check_pictures`.
    """
    check_pictures(scoring.run.config.data)
    batch = _again(scoring, numbers)
    maps = _heat(scoring, batch, on_share) if heat else None
    return Shown(batch.x.cpu(), tuple(titles), maps)


def _again(scoring: Scoring, numbers: Sequence[int]) -> Batch:
    """Read items by their numbers."""
    found: list[Batch] = []
    for number in numbers:
        part = next(iter(scoring.items.batches(1, number)), None)
        if part is None:
            raise DataError(f"{scoring.items.name} has no item {number} any more.")
        found.append(part.batch)
    labels = [part.labels for part in found if part.labels is not None]
    return Batch(torch.cat([part.x for part in found]), torch.cat(labels) if labels else None)


def _heat(scoring: Scoring, batch: Batch, on_share: OnShare | None) -> np.ndarray:
    others, size, maps = replacements(scoring.run), scoring.scorer.effort.items, []
    starts = range(0, len(batch), size)
    with scoring.scorer.flow.frozen():
        for number, start in enumerate(starts):
            rows = slice(start, start + size)
            part = Batch(batch.x[rows], None if batch.labels is None else batch.labels[rows])

            def tell(share: float, number: int = number) -> None:
                if on_share is not None:
                    on_share((number + share) / len(starts))

            maps.append(scoring.scorer.heat(part, number, others, tell))
    return np.concatenate(maps)


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
        # Pixel for pixel, so that the heat lies on it.
        pixels = grid_of(shown.images[place : place + 1], levels, columns=1, usual=1)
        axis = axes[times * place]
        axis.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_title(title, fontsize=8)
        if shown.heat is not None:
            beside = axes[times * place + 1]
            beside.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            coloured = beside.imshow(shown.heat[place], cmap="inferno", vmin=0, vmax=highest, alpha=0.75)
    if coloured is not None:
        figure.colorbar(coloured, ax=list(axes), label="nats gained if the place is replaced", shrink=0.8)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    return content.getvalue()


def _layout(count: int, *, doubled: bool) -> tuple[int, int]:
    """Return rows and columns of the places of images."""
    rows = -(-count // (COLUMNS // 2 if doubled else COLUMNS))
    return rows, -(-count // rows) * (2 if doubled else 1)


def _figure(count: int, *, doubled: bool) -> Figure:
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "app") from error
    rows, columns = _layout(count, doubled=doubled)
    return Figure(figsize=(max(1.1 * columns + doubled, 2.5), 1.3 * rows), layout=ConstrainedLayoutEngine())
