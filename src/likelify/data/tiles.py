"""Large pictures at their full size, cut into tiles of the size of a model's images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from likelify.data.catalog import PICTURE_ENDINGS
from likelify.data.facts import Facts
from likelify.data.options import SourceOptions
from likelify.data.ordered import ItemBatch, Items
from likelify.data.picture_items import PictureItems
from likelify.data.pictures import decode
from likelify.data.source import Batch
from likelify.data.values import as_images, require_levels, stored_dtype
from likelify.errors import DataError

if TYPE_CHECKING:
    from likelify.data.pictures import Look


@dataclass(frozen=True)
class Large:
    """A picture that is larger than the images of a model.

    Attributes:
        height: in pixels.
        width: in pixels.
        read: returns its pixels `(channels, height, width)`.
        carried: what belongs to it, by name.
        label: number of its class, or None.
        said: what is done to its pixels, in words; nothing if nothing is.
    """

    height: int
    width: int
    read: Callable[[], np.ndarray]
    carried: dict[str, Any] = field(default_factory=dict)
    label: int | None = None
    said: str = ""


def tile_starts(length: int, side: int) -> list[int]:
    """Return where tiles begin along a side: next to one another, and the last one ends with the picture.

    Example:
        >>> tile_starts(100, 32), tile_starts(64, 32)
        ([0, 32, 64, 68], [0, 32])
    """
    whole = list(range(0, length - side + 1, side))
    return whole if length % side == 0 else [*whole, length - side]


class TileItems(Items):
    """The tiles of pictures, row by row, each with the picture's name and the place of its top left pixel.

    Tiles lie next to one another; where a side is no multiple of theirs, the last ones overlap those before them, so
    that every pixel is in one and every tile is a genuine part. One picture is decoded at a time.

    Args:
        what: a picture, a folder of pictures; or an array of one `(channels, height, width)` or of several, channels
            first or last.
        facts: of the data that the model was fitted to.
        options: how these were read.

    Raises:
        DataError: if there are no such pictures, one is smaller than a tile, or of other pixels than the model's.
    """

    def __init__(self, what: Any, facts: Facts, options: SourceOptions | None = None) -> None:
        if facts.kind != "image" or facts.levels is None:
            raise DataError(f"Tiles are parts of pictures; the model is of {facts.items}.")
        self.side = facts.event_shape[1:]
        self.left_out: tuple[str, ...] = ()
        if isinstance(what, str | Path):
            self.name, self.pictures, self._digest = self._of_files(Path(what).expanduser(), facts, options)
        else:
            self.name, self.pictures, self._digest = _of_array(what, facts)
        self.count = sum(len(self._places(picture)) for picture in self.pictures)
        self.carried = (*self.pictures[0].carried, "top", "left")

    def _of_files(self, place: Path, facts: Facts, options: SourceOptions | None) -> tuple[str, list[Large], str]:
        if not (place.is_dir() or place.name.lower().endswith(PICTURE_ENDINGS)):
            raise DataError(f"'{place}' is no picture and no folder of pictures, whose tiles could be taken.")
        found = PictureItems(place, facts, options)
        self.left_out, self.said = found.left_out, "; ".join(found.sizing.converted())

        def large(number: int, each: Look) -> Large:
            target = replace(found.target, height=each.height, width=each.width)
            carried = {"file": each.name} | ({} if found.labels is None else {"label": found.labels[number]})
            label = None if found.numbers is None else int(found.numbers[number])
            said = "; ".join(replace(found.sizing, looks=(each,)).converted())
            return Large(
                each.height, each.width, lambda: decode(found.folder / each.name, target), carried, label, said
            )

        pictures = [large(number, each) for number, each in enumerate(found.looks)]
        return f"{found.name}, tiles of {self.side[0]}x{self.side[1]}", pictures, found.fingerprint()

    def _places(self, picture: Large) -> list[tuple[int, int]]:
        (height, width), (rows, columns) = self.side, (picture.height, picture.width)
        return list(product(tile_starts(rows, height), tile_starts(columns, width)))

    def batches(self, size: int, start: int = 0) -> Iterator[ItemBatch]:
        """Cut tile after tile; see `Items.batches`."""
        tiles, carried, labels = [], {name: [] for name in self.carried}, []
        for picture, places in self._from(start):
            pixels = picture.read()
            for top, left in places:
                tiles.append(pixels[:, top : top + self.side[0], left : left + self.side[1]])
                labels.append(picture.label)
                for name, value in (picture.carried | {"top": top, "left": left}).items():
                    carried[name].append(value)
                if len(tiles) == size:
                    yield _batch(tiles, labels, carried)
                    tiles, carried, labels = [], {name: [] for name in self.carried}, []
        if tiles:
            yield _batch(tiles, labels, carried)

    def _from(self, start: int) -> Iterator[tuple[Large, list[tuple[int, int]]]]:
        """Give pictures and the places of their tiles, from that tile on; others are not read."""
        for picture in self.pictures:
            places = self._places(picture)
            if start < len(places):
                yield picture, places[start:]
            start = max(0, start - len(places))

    def fingerprint(self) -> str:
        """Hash the pictures and the size of the tiles."""
        return hashlib.sha256(f"{self._digest} tiles {self.side}".encode()).hexdigest()[:16]


def _batch(tiles: list[np.ndarray], labels: list[int | None], carried: dict[str, Any]) -> ItemBatch:
    import torch

    known = [label for label in labels if label is not None]
    numbers = torch.tensor(known) if len(known) == len(labels) else None
    return ItemBatch(Batch(torch.from_numpy(np.stack(tiles)), numbers), carried)


def _of_array(what: Any, facts: Facts) -> tuple[str, list[Large], str]:
    channels, height, width = facts.event_shape
    array = as_images(what, "The pictures", channels)
    if array.shape[2] < height or array.shape[3] < width:
        raise DataError(
            f"The pictures have {array.shape[2]}x{array.shape[3]} pixels; tiles of images of this model are parts of "
            f"pictures of at least {height}x{width}."
        )
    levels = facts.levels or 0
    require_levels("The pictures", array, levels, 0)
    array = np.ascontiguousarray(array, dtype=stored_dtype(array, levels))
    digest = hashlib.sha256(f"{array.shape} {array.dtype}".encode() + array.tobytes()).hexdigest()
    _, rows, columns = array[0].shape
    pictures = [Large(rows, columns, lambda item=item: item, {"picture": number}) for number, item in enumerate(array)]
    return "The pictures", pictures, digest
