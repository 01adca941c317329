"""Pictures of images that were scored: the least likely of them, and where what is unlikely in them is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from likelify.data import Batch, Facts
from likelify.errors import ConfigError, DataError
from likelify.fitting.checks import for_flow
from likelify.fitting.scoring.replacing import replacements
from likelify.fitting.scoring.surprise import Surprise, scale_end, surprise_of
from likelify.plots import grid_of
from likelify.plots.files import new_figure, png_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from likelify.fitting.scoring.scoring import Scoring

OnShare = Callable[[float], None]
HeatKind = Literal["replaced", "surprise"]
HEAT_WORDS: dict[HeatKind, str] = {
    "replaced": "nats gained if the place is replaced",
    "surprise": "surprise in bits per dimension",
}
# How much of an image colours cover: what is replaced is a place of it, a surprise belongs to each pixel.
COVER: dict[HeatKind, float] = {"replaced": 0.75, "surprise": 1.0}
# Width of a large picture in inches.
LARGE = 6.0
# Inches of the longer side of a picture at most, and of the width at least.
LONGEST, NARROWEST = 32.0, 3.0
# Images in a row of a picture, and dots for each inch.
COLUMNS, DPI = 10, 150


@dataclass(frozen=True, eq=False)
class Shown:
    """Images that are shown with a line above each.

    Attributes:
        images: `(n, c, h, w)`.
        titles: a line for each.
        heat: a number for each pixel, `(n, h, w)`, or None.
        kind: what these are: what is gained if the place of the pixel is replaced, in nats, or its surprise in bits per
            dimension.
    """

    images: Tensor
    titles: tuple[str, ...]
    heat: np.ndarray | None = None
    kind: HeatKind = "replaced"


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
    heat: HeatKind | None = None,
    on_share: OnShare | None = None,
) -> Shown:
    """Read some images again, to be shown.

    Args:
        scoring: what they were scored with.
        numbers: of the items, from 0.
        titles: a line for each.
        heat: also find out where what is unlikely in them is, and how.
        on_share: called with the share that is done.

    Raises:
        DataError: if they are not there any more.
        ConfigError: as `check_pictures`; for the surprise of pixels that have no probability of their own.
    """
    check_pictures(scoring.run.config.data)
    batch = _again(scoring, numbers)
    if heat is None:
        return Shown(batch.x.cpu(), tuple(titles))
    maps = _heat(scoring, batch, on_share) if heat == "replaced" else _surprise(scoring, batch)
    return Shown(batch.x.cpu(), tuple(titles), maps, heat)


def _surprise(scoring: Scoring, batch: Batch) -> np.ndarray:
    flow = scoring.scorer.flow
    batch = for_flow(flow, batch)
    conditional, maps = scoring.run.config.conditional, []
    with flow.frozen():
        for part in _parts(batch, scoring.scorer.effort.items):
            maps.append(surprise_of(flow, part.x, part.context(conditional=conditional)).cpu().numpy())
    return np.concatenate(maps)


def _parts(batch: Batch, size: int) -> list[Batch]:
    rows = [slice(start, start + size) for start in range(0, len(batch), size)]
    return [Batch(batch.x[part], None if batch.labels is None else batch.labels[part]) for part in rows]


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
    parts = _parts(batch, size)
    with scoring.scorer.flow.frozen():
        for number, part in enumerate(parts):

            def tell(share: float, number: int = number) -> None:
                if on_share is not None:
                    on_share((number + share) / len(parts))

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
    highest = None if shown.heat is None else _highest(shown.heat, shown.kind)
    times = 1 if shown.heat is None else 2
    for place, title in enumerate(shown.titles):
        # Pixel for pixel, so that the heat lies on it.
        pixels = grid_of(shown.images[place : place + 1], levels, columns=1, usual=1)
        axis = axes[times * place]
        axis.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_title(title, fontsize=8, parse_math=False)
        if shown.heat is not None:
            beside = axes[times * place + 1]
            beside.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            coloured = beside.imshow(shown.heat[place], cmap="inferno", vmin=0, vmax=highest, alpha=COVER[shown.kind])
    if coloured is not None:
        figure.colorbar(coloured, ax=list(axes), label=HEAT_WORDS[shown.kind], shrink=0.8)
    return png_of(figure, dpi=DPI)


def picture_of_surprises(found: Sequence[Surprise], levels: int) -> bytes:
    """Return large pictures as the content of a PNG file, each above the surprise of its pixels on one scale."""
    if not found:
        raise DataError("There are no pictures to show.")
    tallest = max(each.bits.shape[0] / each.bits.shape[1] for each in found)
    # Neither side is longer than a picture can be.
    wide = min(LARGE, LONGEST / (2 * tallest), LONGEST / len(found))
    figure = new_figure(max(wide * len(found) + 1, NARROWEST), 2 * wide * tallest + 0.5)
    axes = np.atleast_2d(np.array(figure.subplots(2, len(found))).reshape(2, len(found)))
    highest = max(scale_end(each.bits) for each in found)
    coloured = None
    for each, above, below in zip(found, *axes, strict=True):
        pixels = grid_of(torch.from_numpy(each.pixels[None].astype(np.int64)), levels, columns=1, usual=1)
        above.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        named = f"{each.name}: " if each.name else ""
        above.set_title(f"{named}{each.bits_per_dim:.3f} bits/dim", fontsize=9, parse_math=False)
        coloured = below.imshow(each.bits, cmap="inferno", vmin=0, vmax=highest, interpolation="nearest")
    for axis in axes.ravel():
        axis.axis("off")
    figure.colorbar(coloured, ax=list(axes.ravel()), label=HEAT_WORDS["surprise"], shrink=0.6)  # pyright: ignore[reportArgumentType]
    return png_of(figure, dpi=DPI)


def _highest(heat: np.ndarray, kind: HeatKind) -> float:
    """Return the end of the scale: the largest value, of surprises one that but few pixels are beyond."""
    return max(float(np.nan_to_num(heat, posinf=0.0).max()), 1e-9) if kind == "replaced" else scale_end(heat)


def _layout(count: int, *, doubled: bool) -> tuple[int, int]:
    """Return rows and columns of the places of images."""
    rows = -(-count // (COLUMNS // 2 if doubled else COLUMNS))
    return rows, -(-count // rows) * (2 if doubled else 1)


def _figure(count: int, *, doubled: bool) -> Figure:
    rows, columns = _layout(count, doubled=doubled)
    return new_figure(max(1.1 * columns + doubled, 2.5), 1.3 * rows)
