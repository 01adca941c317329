"""Data sets of the library `datasets`: by their name at the Hugging Face hub, from a folder, or as objects in Python.

A data set is data: no script of it is run, and pickles are not read. The package loads what its files hold; what they
mean is found from the types of the columns.
"""

from __future__ import annotations

import hashlib
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from likelify.data.facts import Facts, SplitName
from likelify.data.faults import AUTO
from likelify.data.finding import find_schema
from likelify.data.frames import joined
from likelify.data.hub_frames import HubFrame, class_columns, package
from likelify.data.layout import find_layout
from likelify.data.limits import require_values
from likelify.data.npz import SPLIT_WORDS
from likelify.data.options import SourceOptions
from likelify.data.pictures import Held, Look, Target, decode, look_at
from likelify.data.reading import read_as, require_columns
from likelify.data.sizing import Sizing, choose_sizing
from likelify.data.source import ArraySource, Batch, Parts, Source, filled, require_split, sizes_of, taken
from likelify.data.table_files import Content, as_classes, known_classes, read_table
from likelify.data.tables import TableSource
from likelify.data.values import class_labels, stored_dtype
from likelify.errors import DataError, printable, unknown_word
from likelify.schema import ColumnSchema

if TYPE_CHECKING:
    from torch import Tensor

# The files by which a folder is known that `save_to_disk` wrote.
SAVED = ("dataset_dict.json", "dataset_info.json")
_KEPT_ONLY: ContextVar[bool] = ContextVar("kept_only", default=False)


def hub_source(place: str | Path, options: SourceOptions | None = None) -> Source:
    """Make a source of a data set of the hub, or of one that was saved to a folder.

    Args:
        place: its name, perhaps with a colon and the name of a configuration; or the folder that `save_to_disk` wrote.
        options: `columns` or `drop`, `labels` (the column of classes; by default the only one of that type), of images
            `image_size` and `crop`, of arrays `kind`, `levels` and `channels`.

    Raises:
        DataError: if it cannot be loaded, or its columns do not tell what an item is.
        MissingDependencyError: if datasets is not installed.
    """
    return datasets_source(_load(str(place)), options or SourceOptions(), f"hub:{place}")


def is_dataset(data: Any) -> bool:
    """Tell whether something is an object of the library `datasets`, without importing it."""
    # By its modules that hold these classes, since other packages are called so too.
    modules = [sys.modules.get(f"datasets.{name}") for name in ("arrow_dataset", "dataset_dict", "iterable_dataset")]
    names = ("Dataset", "DatasetDict", "IterableDatasetDict", "IterableDataset")
    kinds = [vars(module)[name] for module in modules if module is not None for name in names if name in vars(module)]
    return isinstance(data, tuple(kinds))


def datasets_source(data: Any, options: SourceOptions, name: str = "data") -> Source:
    """Make a source of a `datasets.Dataset` or `DatasetDict`.

    A column of images gives images, one of arrays (`Array2D`, ...) what their shape says, else the columns of numbers
    are a table. Splits that are missing are cut off the training items; see `source.filled`.

    Raises:
        DataError: see `hub_source`.
    """
    splits, said = _splits(data, name)
    columns = _Columns.of(splits["train"].features, options, name)
    for split, part in splits.items():
        if not {*columns.used} <= {*part.column_names}:
            raise DataError(f"'{name}': the split '{split}' has other columns than 'train'.")
    if columns.image is not None:
        return _images(name, splits, columns, options, said)
    if columns.array is not None:
        return _arrays(name, splits, columns, options, said)
    return _table(name, splits, columns, options, said)


def as_fitted(
    data: Any, facts: Facts, options: SourceOptions, split: SplitName
) -> tuple[HubFrame | HubImages | np.ndarray, np.ndarray | None]:
    """Return all items of a data set, or of one of its splits, in the form of those that a model was fitted to.

    Returns:
        A table; or a source of images whose split of that name has all of them in order, described by what is done to
        them; or an array. And the classes of the items, if they have any and are no table.

    Raises:
        DataError: if it has no such split, or no items of that kind.
    """
    splits, _ = ({split: data}, "") if isinstance(data, package().Dataset) else _splits(data, "data")
    if split not in splits:
        raise DataError(f"The data set has no split '{split}', but {', '.join(map(repr, splits))}.")
    part, name = splits[split], "The data set"
    if facts.kind == "table":
        return HubFrame(name, part, numbers=facts.columns or ()), None
    columns = _Columns.of(part.features, options, "data")
    if columns.array is not None:
        return _array(part, columns.array), _as_known(part, columns, facts, name)[0]
    if columns.image is None or facts.kind != "image" or facts.levels is None:
        raise DataError(f"The data set has no column of {facts.items}, but {', '.join(map(repr, part.features))}.")
    channels, height, width = facts.event_shape
    given, names = _as_known(part, columns, facts, name)
    crop = "stretch" if options.crop == "stretch" else "centre"
    target = Target(channels, height, width, facts.levels, crop)
    stored = _stored(part, columns.image)
    images = HubImages(name, {split: stored}, columns.image, {split: (split, None)}, target)
    images.description = "; ".join(Sizing(target, tuple(_looks(stored, columns.image, name, split)), ()).changed())
    images.labels = None if given is None else {split: given}
    images.classes, images.class_names = None if given is None else facts.classes or len(names or ()), names
    return images, given


def _as_known(
    part: Any, columns: _Columns, facts: Facts, name: str
) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """Return the classes of items by the numbers that a model has for them, and what these are called."""
    found, names = _labels({"train": part}, columns, name)
    if found is None or facts.classes is None:
        return None if found is None else found["train"], names
    words = [str(number) if names is None else names[number] for number in found["train"].tolist()]
    return known_classes(words, facts.called, f"{name}, column '{columns.label}'", 0), facts.class_names


def _array(data: Any, column: str) -> np.ndarray:
    # The format of numpy makes 64 bits of all numbers.
    return data.with_format("numpy")[column][:].astype(data.features[column].dtype)


def _stored(data: Any, column: str) -> Any:
    """Return a data set of nothing but encoded images."""
    plain = package().Image(decode=False)
    return data.select_columns([column]).with_format(None).cast_column(column, plain)


@contextmanager
def nothing_downloaded() -> Iterator[None]:
    """Open data sets of the hub only from where they were downloaded to before, while this lasts.

    For names that come from elsewhere than from the user.
    """
    token = _KEPT_ONLY.set(True)
    try:
        yield
    finally:
        _KEPT_ONLY.reset(token)


def _load(place: str) -> Any:
    if not _KEPT_ONLY.get():
        return _loaded(place)
    if re.fullmatch(r"(?!buckets/)[\w.-]+(/[\w.-]+)?(:.*)?", place) is None and not Path(place).is_dir():
        raise DataError(f"'{printable(place[:200])}' is no name of a data set, and no folder.")
    import huggingface_hub

    # Both packages look at their switches whenever they want to reach the hub.
    switches: tuple[Any, ...] = (package().config, huggingface_hub.constants)
    before = [switch.HF_HUB_OFFLINE for switch in switches]
    try:
        for switch in switches:
            switch.HF_HUB_OFFLINE = True
        return _loaded(place)
    except DataError as error:
        raise DataError(
            f"{error} What a run names is not downloaded. If you trust it, load it yourself first, in Python: "
            f"lk.data.open_source('hub:{printable(place[:200])}')."
        ) from error
    finally:
        for switch, was in zip(switches, before, strict=True):
            switch.HF_HUB_OFFLINE = was


def _loaded(place: str) -> Any:
    datasets, folder = package(), Path(place)
    name, _, config = place.partition(":")
    try:
        if folder.is_dir() and any((folder / file).is_file() for file in SAVED):
            return datasets.load_from_disk(str(folder))
        return datasets.load_dataset(name, config or None)
    except Exception as error:
        # The package has errors of many libraries, for networks and for formats.
        said = printable((str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip("."))
        raise DataError(
            f"The data set '{printable(place[:200])}' cannot be loaded from the hub or from a folder: {said}."
        ) from error


def _splits(data: Any, name: str) -> tuple[dict[SplitName, Any], str]:
    """Return the splits that are known by their names, and what is said of others."""
    datasets = package()
    if isinstance(data, datasets.Dataset):
        return {"train": data}, ""
    if not isinstance(data, datasets.DatasetDict):
        raise DataError(
            f"'{name}' is a {type(data).__name__}, which cannot be read in any order. Load it without streaming."
        )
    found: dict[SplitName, Any] = {}
    others = []
    for key, part in data.items():
        split = SPLIT_WORDS.get(str(key).lower())
        if split is None or split in found:
            others.append(str(key))
        else:
            found[split] = part
    if "train" not in found:
        raise DataError(f"'{name}' has no training split, but {', '.join(map(repr, data))}. Give one of them as train.")
    return found, f"without the splits {', '.join(map(repr, others))}" if others else ""


@dataclass(frozen=True)
class _Columns:
    """What the columns of a data set are: one of images, or one of arrays, or those of numbers; and of labels."""

    image: str | None
    array: str | None
    label: str | None
    class_names: tuple[str, ...] | None
    used: tuple[str, ...]

    @staticmethod
    def of(features: Mapping[str, Any], options: SourceOptions, name: str) -> _Columns:
        datasets = package()
        named = (
            *(options.kept or ()),
            *options.told,
            *(options.given or ()),
            *([options.labels] if options.labels else ()),
        )
        for given in (*named, *(name for name in options.drop or () if name != AUTO)):
            if given not in features:
                raise DataError(f"'{name}': {unknown_word('column', given, list(features))}")
        kept = [column for column in options.kept or features if column not in (options.drop or ())]
        classes = [column for column in class_columns(features) if column in kept]
        label = options.labels or (classes[0] if len(classes) == 1 else None)
        images = [column for column in kept if isinstance(features[column], datasets.Image)]
        arrays = [column for column in kept if type(features[column]).__name__ in ("Array2D", "Array3D", "Array4D")]
        for several in (images, arrays):
            if len(several) > 1:
                listed = ", ".join(map(repr, several))
                raise DataError(f"'{name}' has several columns that can be the items: {listed}. Name one: --columns.")
        names = None
        if label is not None and isinstance(features[label], datasets.ClassLabel):
            names = tuple(features[label].names)
        image, array = images[0] if images else None, arrays[0] if arrays and not images else None
        used = [image or array or "", *([label] if label else [])] if image or array else kept
        return _Columns(image, array, label, names, tuple(used))


def _labels(
    splits: Mapping[SplitName, Any], columns: _Columns, name: str
) -> tuple[Parts | None, tuple[str, ...] | None]:
    """Read the column of labels of each split."""
    if columns.label is None:
        return None, None
    read: dict[SplitName, list[Any]] = {
        split: part.with_format(None)[columns.label][:] for split, part in splits.items()
    }
    if columns.class_names is not None:
        numbers: Parts = {split: class_labels(np.array(given), len(given)) for split, given in read.items()}
        return numbers, columns.class_names
    whole, names = as_classes([label for given in read.values() for label in given], f"'{name}', '{columns.label}'")
    ends = np.cumsum([len(given) for given in read.values()])[:-1]
    numbers = dict(zip(read, np.split(whole, ends), strict=True))
    return numbers, names


def _chosen(parts: Mapping[SplitName, Any], arrays: Parts | None) -> Parts | None:
    """Return for each split those of the arrays that it takes."""
    if arrays is None:
        return None
    return {split: arrays[own] if part is None else arrays[own][part] for split, (own, part) in parts.items()}


def _described(name: str, *said: str) -> str:
    return "; ".join(filter(None, (f"the data set {name.removeprefix('hub:')}", *said)))


def _table(name: str, splits: Mapping[SplitName, Any], columns: _Columns, options: SourceOptions, said: str) -> Source:
    options = options.model_copy(update={"labels": columns.label, "image_size": None, "crop": None})
    frames: dict[SplitName, HubFrame] = {split: HubFrame(f"'{name}', {split}", part) for split, part in splits.items()}
    content = read_table(frames["train"], options, columns.class_names)
    schema = find_schema(content.rows, content.columns, content.told)
    read: Parts = {"train": content.rows}
    labels: Parts = {} if content.labels is None else {"train": content.labels}
    for split, frame in frames.items():
        if split == "train":
            continue
        read[split], found = _read_as(frame, content, schema, columns)
        if found is not None:
            labels[split] = found
    parts, cut = filled({split: len(other) for split, other in read.items()})
    rows = _chosen(parts, read) or {}
    return TableSource(
        name,
        rows,
        columns=content.columns,
        told=content.told,
        given=options.given or (),
        labels=_chosen(parts, labels or None),
        classes=_count(content.class_names, labels or None),
        class_names=content.class_names,
        description=_described(name, f"{len(content.columns)} columns{content.said}", f"{sizes_of(rows)} {cut}", said),
    )


def _read_as(
    frame: HubFrame, content: Content, schema: Sequence[ColumnSchema], columns: _Columns
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a split as the training split was read: its rows, and the classes of these."""
    require_columns(frame, schema)
    label = columns.label if content.labels is not None else None
    parts = list(read_as(frame, schema, [label] if label else []))
    rows = joined(frame.name, (part.values for part in parts))
    if label is None:
        return rows, None
    given = [value for part in parts for value in part.carried[label]]
    if columns.class_names is not None or content.class_names is None:
        return rows, class_labels(np.array(given), len(rows))
    return rows, known_classes(given, content.class_names, f"{frame.name}, column '{label}'", 0)


def _count(class_names: tuple[str, ...] | None, labels: Mapping[SplitName, Any] | None) -> int | None:
    if labels is None:
        return None
    return len(class_names) if class_names else max(int(given.max()) for given in labels.values()) + 1


def _arrays(name: str, splits: Mapping[SplitName, Any], columns: _Columns, options: SourceOptions, said: str) -> Source:
    column = columns.array or ""
    feature = splits["train"].features[column]
    for split, part in splits.items():
        require_values(f"'{name}', {split},", len(part) * math.prod(side or 1 for side in feature.shape))
    events: Parts = {split: _array(part, column) for split, part in splits.items()}
    layout = find_layout(
        f"'{name}', '{column}'", events["train"], kind=options.kind, levels=options.levels, channels=options.channels
    )
    parts, cut = filled({split: len(part) for split, part in events.items()})
    items = _chosen(parts, {split: layout.arranged(part) for split, part in events.items()}) or {}
    labels, names = _labels(splits, columns, name)
    source = ArraySource(
        name,
        items,
        kind=layout.kind,
        levels=layout.levels,
        labels=_chosen(parts, labels),
        classes=_count(names, labels),
        description=_described(name, f"its column '{column}', {layout.said}", f"{sizes_of(items)} {cut}", said),
    )
    source.class_names = names
    return source


class HubImages(Source):
    """The images of a data set, decoded when they are read.

    Args:
        name: see `Facts`.
        splits: the data sets that they are in, with the encoded files as they are.
        column: that holds them.
        parts: for each split the data set of its items, and their numbers there or None for all.
        target: the form of the items.
    """

    kind = "image"

    def __init__(
        self,
        name: str,
        splits: Mapping[SplitName, Any],
        column: str,
        parts: Mapping[SplitName, tuple[SplitName, np.ndarray | None]],
        target: Target,
    ) -> None:
        self.name, self.target = name, target
        self.event_shape, self.levels = (target.channels, target.height, target.width), target.levels
        self._splits, self._column = dict(splits), column
        self.parts: dict[SplitName, tuple[SplitName, np.ndarray]] = {
            split: (own, np.arange(len(splits[own])) if part is None else part) for split, (own, part) in parts.items()
        }
        self.labels: Parts | None = None
        self._hash = ""

    def size(self, split: SplitName) -> int:
        """Return the number of items of a split."""
        require_split(split)
        return len(self.parts[split][1]) if split in self.parts else 0

    def read(self, split: SplitName, indices: Tensor) -> Batch:
        """Decode the items with these numbers."""
        import torch

        require_split(split)
        own, part = self.parts[split]
        places = taken(self, split, torch.from_numpy(part), indices)
        items = np.empty((len(places), *self.event_shape), stored_dtype(np.empty(0, np.uint8), self.levels))
        for item, place in zip(items, places.tolist(), strict=True):
            item[...] = decode(_picture(self._splits[own], self._column, place, f"{self.name}, {own}"), self.target)
        if self.labels is None:
            return Batch(torch.from_numpy(items))
        return Batch(torch.from_numpy(items), taken(self, split, torch.from_numpy(self.labels[split]), indices))

    def fingerprint(self) -> str:
        """Hash all files, their form, splits and classes, once."""
        self._hash = self._hash or self._hashed()
        return self._hash

    def _hashed(self) -> str:
        digest = hashlib.sha256(f"{self.target}".encode())
        for split, (own, part) in self.parts.items():
            digest.update(f"{split} {len(part)}".encode())
            for place in part.tolist():
                stored = _picture(self._splits[own], self._column, place, self.name)
                digest.update(stored.content if isinstance(stored, Held) else stored.read_bytes())
            digest.update(b"" if self.labels is None else self.labels[split].tobytes())
        return digest.hexdigest()[:16]


def _picture(data: Any, column: str, place: int, name: str) -> Path | Held:
    """Return the file of an image, which a data set holds or names."""
    stored = data[place][column]
    if stored is None:
        raise DataError(f"{name}, item {place}: the image is missing. Leave it out: filter the data set.")
    if stored["bytes"] is None:
        return Path(stored["path"])
    return Held(f"{name}, item {place}", stored["bytes"])


def _looks(data: Any, column: str, name: str, split: SplitName) -> list[Look]:
    """Return what the headers of the images of a split say."""
    return [
        look_at(_picture(data, column, place, f"{name}, {split}"), f"{split}, item {place}")
        for place in range(len(data))
    ]


def _images(name: str, splits: Mapping[SplitName, Any], columns: _Columns, options: SourceOptions, said: str) -> Source:
    column = columns.image or ""
    stored: dict[SplitName, Any] = {split: _stored(part, column) for split, part in splits.items()}
    looks: dict[SplitName, list[Look]] = {split: _looks(part, column, name, split) for split, part in stored.items()}
    sizing = choose_sizing(Path(name), [each for some in looks.values() for each in some], options)
    large = {each.name for each in sizing.looks}
    kept: Parts = {
        split: np.array([n for n, each in enumerate(some) if each.name in large], int) for split, some in looks.items()
    }
    parts, cut = filled({split: len(numbers) for split, numbers in kept.items()})
    placed: dict[SplitName, tuple[SplitName, np.ndarray | None]] = {
        split: (own, kept[own] if part is None else kept[own][part]) for split, (own, part) in parts.items()
    }
    labels, names = _labels(splits, columns, name)
    source = HubImages(name, stored, column, placed, sizing.target)
    assigned: Parts | None = labels and {split: labels[own][part] for split, (own, part) in source.parts.items()}
    source.labels, source.class_names, source.classes = assigned, names, _count(names, labels)
    sizes = " / ".join(str(len(part)) for _, part in source.parts.values())
    source.description = _described(name, "; ".join(sizing.said()), f"{sizes} {cut}", said)
    return source
