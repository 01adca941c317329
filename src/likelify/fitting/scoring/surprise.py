r"""How surprising each pixel of a picture is, by models that write pixels one after the other.

Such a model gives every element its own probability given those that are written before it, and the log-probability of
an image is the sum. The surprise of a pixel is `-log2` of that, per channel: its mean over the pixels are the bits per
dimension of the image.

A picture larger than the model's images is cut into tiles of that size, from the top left, row by row, which the model
takes for independent. Where a side is no multiple of theirs, the last tiles overlap those before them, and count only
their new pixels: each factor is a probability of one element given others that come before it, so the product over all
pixels is still the probability of the whole picture under a distribution that sums to one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from likelify.data import Batch
from likelify.data.tiles import TileItems, tile_starts
from likelify.errors import DataError
from likelify.fitting.checks import for_flow
from likelify.fitting.scoring.likelihoods import items_per_pass
from likelify.linalg.bounds import widest
from likelify.structure import ContextLike
from likelify.transforms.core import require_writer

if TYPE_CHECKING:
    from likelify.fitting.run import Run
    from likelify.flows import Flow

OnShare = Callable[[float], None]
# The share of pixels that a scale of surprises reaches: few pixels are far beyond all others.
REACHED = 0.998


@dataclass(frozen=True, eq=False)
class Surprise:
    """A picture, and how surprising its pixels are.

    Attributes:
        name: of its file, or its number.
        pixels: `(channels, height, width)`, whole numbers.
        bits: surprise of each pixel `(height, width)` in bits per dimension.
        tiles: how many tiles it was cut into; 1 for an image of the model's size.
        said: what was done to the pixels of its file, such as turning it; nothing if nothing was.
    """

    name: str
    pixels: np.ndarray
    bits: np.ndarray
    tiles: int = 1
    said: str = ""

    def __repr__(self) -> str:
        height, width = self.bits.shape
        said = f"; {self.said}" if self.said else ""
        return f"<Surprise of {self.name}, {height}x{width}: {self.bits_per_dim:.3f} bits/dim{said}>"

    @property
    def bits_per_dim(self) -> float:
        """Bits per dimension of the whole picture."""
        return float(self.bits.mean())

    @property
    def nats(self) -> float:
        """The log-probability of the whole picture."""
        return -float(self.bits.sum()) * len(self.pixels) * math.log(2)


@torch.no_grad()
def surprise_of(flow: Flow, x: Tensor, context: ContextLike = None) -> Tensor:
    """Return how surprising the pixels of images are, in bits per dimension.

    Args:
        flow: a model that writes pixels one after the other.
        x: images `(rows, channels, height, width)`, whole numbers.
        context: as for `log_prob`.

    Returns:
        `(rows, height, width)`, in float64 where the device has it. The mean of a row is `-log p / (D ln 2)` of its
        image.

    Raises:
        ConfigError: if it is another kind of model.
    """
    from likelify.door import admit

    require_writer(flow.transform, "Where images are unlikely shows --heat, for all models of images.")
    x, encoded, _ = admit(flow, x, context)
    return -widest(flow.transform.log_masses(x, encoded)).mean(1) / math.log(2)


def scale_end(bits: np.ndarray) -> float:
    """Return the end of a scale of surprises, which starts at 0: but few pixels are beyond, and impossible ones."""
    known = bits[np.isfinite(bits)]
    return max(float(np.quantile(known, REACHED)) if known.size else 0.0, 1e-9)


def picture_surprises(
    run: Run, what: Any, *, flow: Flow | None = None, on_share: OnShare | None = None
) -> Iterator[Surprise]:
    """Give one large picture after the other with the surprise of its pixels, by tiles at their full size.

    Args:
        run: of a model that writes pixels one after the other.
        what: a picture, a folder of them, an array; see `data.tiles.TileItems`.
        flow: the model, if it is at hand.
        on_share: called with the share of the tiles that are done.

    Raises:
        ConfigError: if it is another kind of model.
        DataError: if there are no such pictures, or the model knows images of a class only and they have none.
    """
    from likelify.fitting.scoring.scoring import items_of

    flow = run.flow() if flow is None else flow
    require_writer(flow.transform, "Likelihoods of tiles has --tiles, for all models of images.")
    items = what if isinstance(what, TileItems) else items_of(run, what, tiles=True)
    if not isinstance(items, TileItems):
        raise DataError(f"{items.name} has no pictures.")
    done, count = 0, items.count or 1
    for number, picture in enumerate(items.pictures):
        if run.config.conditional and picture.label is None:
            raise DataError("The model knows images of a class only, and these pictures have none.")
        label = picture.label if run.config.conditional else None
        name = str(picture.carried.get("file", number))

        def tell(tiles: int, done: int = done) -> None:
            if on_share is not None:
                on_share((done + tiles) / count)

        found = _by_tiles(flow, run, picture.read(), label, tell)
        done += found.tiles
        yield replace(found, name=name, said=picture.said)


def _by_tiles(flow: Flow, run: Run, pixels: np.ndarray, label: int | None, tell: Callable[[int], None]) -> Surprise:
    facts = run.config.data
    height, width = facts.event_shape[1:]
    places = list(product(tile_starts(pixels.shape[1], height), tile_starts(pixels.shape[2], width)))
    bits = np.full(pixels.shape[1:], np.nan)
    size = items_per_pass(facts)
    with flow.frozen():
        for start in range(0, len(places), size):
            part = places[start : start + size]
            tiles = np.stack([pixels[:, top : top + height, left : left + width] for top, left in part])
            labels = None if label is None else torch.full((len(part),), label)
            batch = for_flow(flow, Batch(torch.from_numpy(tiles), labels))
            maps = surprise_of(flow, batch.x, batch.context(conditional=label is not None)).cpu().numpy()
            for (top, left), own in zip(part, maps, strict=True):
                there = bits[top : top + height, left : left + width]
                # What an earlier tile has counted is known to this one.
                np.copyto(there, own, where=np.isnan(there))
            tell(start + len(part))
    return Surprise("", pixels, bits, len(places))
