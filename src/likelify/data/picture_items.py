"""Pictures in their order: those of a folder, or a single one, in the form that a model was fitted to."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from likelify.data.ahead import read_ahead
from likelify.data.facts import Facts
from likelify.data.folder import FolderSource, Skipping
from likelify.data.listing import list_pictures, split_of
from likelify.data.options import SourceOptions
from likelify.data.ordered import ItemBatch, Items
from likelify.data.pictures import Target, decode, look, require_form
from likelify.data.sizing import Sizing
from likelify.errors import DataError

# For so few pictures no other process is worth its start.
FEW = 256
MEND_ALL = "Mend or remove it, or, where others are scored, leave such files out: --skip-unreadable."


class PictureItems(Items):
    """Pictures in the order of their names, each with the name of its file below the folder.

    They are brought to the size of the model's images as those that it was fitted to: the middle of each, or all of it
    where those were stretched. With `labels="folders"` the name of the subfolder is carried too, and is the label where
    the model knows classes of these names.

    Args:
        place: a folder, whose pictures are read whatever splits they are in; or a file.
        facts: of the data that the model was fitted to.
        options: how these were read.

    Attributes:
        target: form of the model's images.
        folder: that the pictures are below.
        looks: what the headers of the pictures say.
        labels: names of their subfolders, or None.
        numbers: classes of these names, or None.
        left_out: names of pictures that were left out.
        sizing: what the pictures are, and what is done to them.

    Raises:
        DataError: if it is not there or has no pictures, the model is not of images with levels, or a header shows that
            a picture cannot be read, is too small or of other pixels than the model's; the message names it. Where
            unreadable ones are skipped, such pictures are left out.
    """

    def __init__(self, place: str | Path, facts: Facts, options: SourceOptions | None = None) -> None:
        options, place = options or SourceOptions(), Path(place)
        self.target = picture_target(place, facts, options)
        folder, names = (place.parent, (place.name,)) if not place.is_dir() else (place, list_pictures(place).names)
        self.folder = folder
        self._skip = bool(options.skip_unreadable)
        skipping = Skipping(skip=self._skip, remedy=MEND_ALL if place.is_dir() else "Mend it.")
        self.looks = skipping.all_of(lambda name: self._looked_at(folder, name), names)
        if not self.looks:
            raise DataError(f"None of the {len(names)} pictures of '{place}' can be read. {skipping.first}")
        self.left_out = tuple(skipping.names)
        self.sizing = Sizing(self.target, tuple(self.looks), ())
        self.said = "; ".join(self.sizing.changed())
        names = [each.name for each in self.looks]
        self.name, self.count, self.carried = f"'{place}'", len(names), ("file",)
        self.labels = None
        if options.labels == "folders" and place.is_dir():
            self.carried = ("file", "label")
            self.labels = _subfolders(place, names)
        known = dict(zip(facts.class_names or (), range(len(facts.class_names or ())), strict=True))
        numbered = self.labels is not None and set(self.labels) <= set(known)
        self.numbers = np.array([known[label] for label in self.labels or ()], np.int64) if numbered else None
        self._source = FolderSource(
            folder,
            {"test": names},
            self.target,
            labels=None if self.numbers is None else {"test": self.numbers},
            class_names=facts.class_names or (),
        )

    def _looked_at(self, folder: Path, name: str) -> Any:
        found = look(folder, name)
        require_form(folder / name, found.form, self.target)
        if found.height < self.target.height or found.width < self.target.width:
            raise DataError(
                f"'{folder / name}' has {found.height}x{found.width} pixels; the model is of images of "
                f"{self.target.height}x{self.target.width}, and pictures are not enlarged."
            )
        if self._skip:
            # Headers do not tell whether all is there, or whether a file of colours is grey.
            decode(folder / name, self.target)
        return found

    def batches(self, size: int, start: int = 0) -> Iterator[ItemBatch]:
        """Decode picture after picture, by several processes where they are many; see `Items.batches`."""
        import torch

        count = len(self.looks)
        starts = range(start, count, size)
        parts = (torch.arange(first, min(first + size, count)) for first in starts)
        workers = 0 if count <= FEW else None
        for first, batch in zip(starts, read_ahead(self._source, "test", parts, workers=workers), strict=True):
            carried: dict[str, list[Any] | np.ndarray] = {
                "file": list(self._source.files["test"][first : first + size])
            }
            if self.labels is not None:
                carried["label"] = self.labels[first : first + size]
            yield ItemBatch(batch, carried)

    def fingerprint(self) -> str:
        """Hash the form, and the names and contents of all files."""
        digest = hashlib.sha256(f"{self.target} {self.labels is not None}".encode())
        for each in self.looks:
            digest.update(os.fsencode(each.name) + b"\0" + each.digest)
        return digest.hexdigest()[:16]


def picture_target(place: Path, facts: Facts, options: SourceOptions) -> Target:
    """Return the form of a model's images, which pictures are brought to.

    Raises:
        DataError: if the model is of something else, or of images that no files of pictures have.
    """
    if facts.kind != "image" or facts.levels is None:
        raise DataError(f"'{place}' is of pictures; the model is of {facts.items}.")
    if not place.exists():
        raise DataError(f"There is no file or folder '{place}'.")
    channels, height, width = facts.event_shape
    if channels not in (1, 3) or facts.levels not in (2, 256, 65536):
        raise DataError(
            f"'{place}' is of pictures; the model is of images of {channels} channels with {facts.levels} levels, "
            "which no files of pictures have. Give an array."
        )
    return Target(channels, height, width, facts.levels, options.crop or "centre")


def _subfolders(folder: Path, names: list[str]) -> list[str]:
    """Return the subfolder of each picture, below those of splits; of one that is in none, nothing."""
    depth = 0 if split_of(folder, names) is None else 1
    parts = [name.split("/")[depth:] for name in names]
    return [part[0] if len(part) > 1 else "" for part in parts]
