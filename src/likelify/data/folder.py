"""A folder of pictures of any sizes as a source: read at once where it is small, and by index where it is large."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from likelify.data.facts import SPLITS, SplitName
from likelify.data.listing import NAMED, classes_of, list_pictures, split_of
from likelify.data.options import SourceOptions
from likelify.data.pictures import Look, Target, decode, has_equal_channels, look
from likelify.data.sizing import Sizing, choose_sizing, named
from likelify.data.source import Batch, Parts, Source, require_split, sizes_of, taken
from likelify.errors import DataError, unknown_word
from likelify.machine import processors

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
# A folder is read at once and held in memory up to so many bytes of files and of items.
AT_ONCE_FILES, AT_ONCE_ITEMS = 2**29, 2**28
# Without folders of splits a tenth validates and a tenth tests, at least one each.
HELD_OUT, FEWEST = 10, 3
MOST_WORKERS = 4
SKIP = "Mend or remove it, or leave such files out with --skip-unreadable."


class FolderSource(Source):
    """The pictures of a folder; see `image_folder`.

    Args:
        folder: that they are in.
        files: for each split the names of its files below the folder.
        target: the form of the items.
        labels: for each split the classes of its items, or None.
        class_names: names of the classes.
        pixels: for each split its items, or None where files are decoded when they are read.
        description: see `Facts`.
        fingerprint: of files, form and splits.
    """

    kind = "image"

    def __init__(
        self,
        folder: Path,
        files: Mapping[SplitName, Sequence[str]],
        target: Target,
        *,
        labels: Parts | None = None,
        class_names: Sequence[str] = (),
        pixels: Parts | None = None,
        description: str = "",
        fingerprint: str = "",
    ) -> None:
        self.name, self.folder, self.target = f"images:{folder}", folder, target
        self.files = {split: tuple(files.get(split, ())) for split in SPLITS}
        self.event_shape, self.levels = (target.channels, target.height, target.width), target.levels
        self.class_names = tuple(class_names) or None
        self.classes = len(class_names) or None
        self.description, self._fingerprint = description, fingerprint
        self._labels, self._pixels = labels, pixels
        # Where all is in memory there is nothing to read ahead.
        self.workers = 0 if pixels is not None else max(1, min(MOST_WORKERS, processors() - 1))

    def size(self, split: SplitName) -> int:
        """Return the number of items of a split."""
        require_split(split)
        return len(self.files[split])

    def read(self, split: SplitName, indices: Tensor) -> Batch:
        """Read the items with these numbers.

        Raises:
            DataError: if a file cannot be read any more; the message names it.
        """
        import torch

        numbers = taken(self, split, torch.arange(self.size(split)), indices)
        labels = None if self._labels is None else torch.from_numpy(self._labels[split])[numbers]
        if self._pixels is not None:
            return Batch(torch.from_numpy(self._pixels[split])[numbers], labels)
        items = np.empty((len(numbers), *self.event_shape), _dtype(self.target))
        for item, number in zip(items, numbers.tolist(), strict=True):
            item[...] = decode(self.folder / self.files[split][number], self.target)
        return Batch(torch.from_numpy(items), labels)

    def item_names(self, split: SplitName) -> Sequence[str]:
        """Return the names of the files, below the folder."""
        require_split(split)
        return self.files[split]

    def fingerprint(self) -> str:
        """Return the hash of the names and contents of all files, their form, splits and classes."""
        return self._fingerprint


def image_folder(place: str | Path, options: SourceOptions | None = None) -> FolderSource:
    """Make a source of the pictures in a folder and the folders below it.

    Headers are read first, and decide what an item is (`sizing.choose_sizing`). Where all files have at most 512 MiB
    and all items 256 MiB they are decoded at once and kept; where there are more, each is decoded when it is read.

    Splits are folders `train`, `validation` and `test` at the top; of those that are missing, and where there are none,
    a tenth each (at least one) validates and tests: the first by the hash of their content, so that copies of a picture
    are in one split, and pictures stay in theirs when others are added.

    Args:
        place: the folder.
        options: `image_size`, `crop`, `labels` (`"folders"`: the subfolders are classes) and `skip_unreadable`.

    Raises:
        DataError: if it is no folder or has fewer than 3 pictures, one cannot be read, or options do not fit.
    """
    folder, options = _folder(Path(place)), options or SourceOptions()
    if options.labels not in (None, "folders"):
        raise DataError(
            f"--labels of a folder of images: {unknown_word('kind of labels', options.labels, ['folders'])}"
        )
    listing = list_pictures(folder)
    skipping = Skipping(skip=bool(options.skip_unreadable), remedy=SKIP)
    looks = skipping.all_of(lambda name: look(folder, name), listing.names)
    if not looks:
        raise DataError(f"None of the {len(listing.names)} pictures of '{folder}' can be read. {skipping.first}")
    sizing = choose_sizing(folder, looks, options)
    items, sizing = _at_once(folder, sizing, skipping)
    cut = _Cut.of(folder, sizing.looks)
    labels: Parts | None = None
    class_names: tuple[str, ...] = ()
    if options.labels:
        numbers, class_names = classes_of(folder, [each.name for each in sizing.looks], split=cut.by_folders)
        labels = {split: np.array(numbers)[part] for split, part in cut.parts.items()}
        _require_all_trained(folder, labels["train"], class_names)
    said = [*sizing.said(), *skipping.said(), listing.said(), cut.said(sizing.looks), _classes_said(class_names)]
    return FolderSource(
        folder,
        {split: [sizing.looks[number].name for number in part] for split, part in cut.parts.items()},
        sizing.target,
        labels=labels,
        class_names=class_names,
        pixels=None if items is None else {split: items[part] for split, part in cut.parts.items()},
        description="; ".join(filter(None, said)),
        fingerprint=_fingerprint(sizing, cut.parts, labels),
    )


def _folder(place: Path) -> Path:
    if place.is_file():
        raise DataError(f"'{place}' is a file; images are read from a folder: name '{place.parent}'.")
    if not place.is_dir():
        raise DataError(f"There is no folder '{place}'.")
    return place.resolve()


class Skipping:
    """Does something for each of many files, and leaves out those that cannot be read if that is wanted."""

    def __init__(self, *, skip: bool, remedy: str) -> None:
        self.skip, self.remedy = skip, remedy
        self.names: list[str] = []
        self.first = ""

    def all_of(self, function: Callable[[str], T], names: Iterable[str]) -> list[T]:
        """Return what the function gives for each name; without those for which it raises `DataError`.

        Raises:
            DataError: for the first of these, if none is to be left out.
        """
        given = []
        for name in names:
            try:
                given.append(function(name))
            except DataError as error:
                if not self.skip:
                    raise DataError(f"{error} {self.remedy}") from error
                self.first = self.first or str(error)
                self.names.append(name)
        return given

    def said(self) -> list[str]:
        """Return what was left out as a part of a sentence."""
        return [f"left out since they cannot be read: {named(self.names)}"] if self.names else []


def _at_once(folder: Path, sizing: Sizing, skipping: Skipping) -> tuple[np.ndarray | None, Sizing]:
    """Return all items, or None if they are too many to be kept; of pictures that turn out to be readable."""
    target, looks = sizing.target, sizing.looks
    item = np.empty((target.channels, target.height, target.width), _dtype(target))
    small = sum(each.bytes for each in looks) <= AT_ONCE_FILES and len(looks) * item.nbytes <= AT_ONCE_ITEMS
    if not small and not skipping.skip:
        return None, sizing
    items = np.empty((len(looks) if small else 1, *item.shape), item.dtype)
    readable: list[Look] = []

    def read(each: Look) -> None:
        items[len(readable) if small else 0] = decode(folder / each.name, target)
        readable.append(each)

    by_name = {each.name: each for each in looks}
    skipping.all_of(lambda name: read(by_name[name]), by_name)
    sizing = replace(sizing, looks=tuple(readable))
    if not small:
        return None, sizing
    items = items[: len(readable)]
    if target.channels == 3 and len(items) and has_equal_channels(items):
        return items[:, :1], replace(sizing, target=replace(target, channels=1))
    return items, sizing


@dataclass(frozen=True)
class _Cut:
    """The splits of pictures: for each the numbers of those in it, and whether folders said so."""

    parts: Parts
    by_folders: bool
    made: tuple[SplitName, ...]

    @staticmethod
    def of(folder: Path, looks: Sequence[Look]) -> _Cut:
        given = split_of(folder, [each.name for each in looks])
        splits: list[SplitName] = given or ["train"] * len(looks)
        made: list[SplitName] = [split for split in SPLITS[1:] if split not in splits]
        trained = [number for number, split in enumerate(splits) if split == "train"]
        order = sorted(trained, key=lambda number: looks[number].digest)
        digests = [looks[number].digest for number in order]
        if len(order) < FEWEST and made:
            raise DataError(
                f"Pictures in '{folder}' to train on that can be read: {len(order)}. At least {FEWEST} are needed, of "
                f"which some are held out."
            )
        held, start = max(1, len(order) // HELD_OUT), 0
        for split in made:
            end = start + held
            while end < len(order) and digests[end] == digests[end - 1]:
                end += 1
            for number in order[start:end]:
                splits[number] = split
            start = end
        if start >= len(order):
            raise DataError(f"Too many pictures of '{folder}' are copies of each other: none is left to train on.")
        parts: Parts = {split: np.array([n for n, own in enumerate(splits) if own == split], int) for split in SPLITS}
        return _Cut(parts, given is not None, tuple(made))

    def said(self, looks: Sequence[Look]) -> str:
        """Return how they were split as a part of a sentence."""
        how = "by their folders" if self.by_folders else "by the hash of their content"
        if self.by_folders and self.made:
            how += f", {' and '.join(self.made)} being taken from train by the hash of the content"
        trained = {looks[number].digest for number in self.parts["train"]}
        copies = sum(looks[number].digest in trained for split in SPLITS[1:] for number in self.parts[split])
        warned = f" ({copies} held-out pictures are copies of training pictures)" if copies else ""
        return f"{sizes_of(self.parts)} {how}{warned}"


def _require_all_trained(folder: Path, labels: np.ndarray, class_names: Sequence[str]) -> None:
    missing = [name for number, name in enumerate(class_names) if number not in labels]
    if missing:
        raise DataError(
            f"'{folder}' has no training pictures of the class {named(missing)}, only held-out ones. Add some, or take "
            "these out."
        )


def _classes_said(class_names: Sequence[str]) -> str:
    shown = [f"{number} {name}" for number, name in enumerate(class_names[:NAMED])]
    more = f", ... {len(class_names) - 1} {class_names[-1]}" if len(class_names) > NAMED else ""
    return f"classes: {', '.join(shown)}{more}" if shown else ""


def _fingerprint(sizing: Sizing, parts: Parts, labels: Parts | None) -> str:
    digest = hashlib.sha256(repr(sizing.target).encode())
    for split in SPLITS:
        digest.update(f"{split} {len(parts[split])}".encode())
        for number in parts[split]:
            each = sizing.looks[number]
            digest.update(os.fsencode(each.name) + b"\0" + each.digest)
        if labels is not None:
            digest.update(labels[split].astype(np.int64).tobytes())
    return digest.hexdigest()[:16]


def _dtype(target: Target) -> type[np.generic]:
    return np.uint8 if target.levels <= 256 else np.int32
