"""Archives of arrays, `.npz`: which of them are items and which labels, of which split."""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from likelify.data.facts import SplitName
from likelify.data.limits import FREE, MOST_SHRINKING, reading
from likelify.data.npy import KIND, LONGEST_HEADER, Mapped, map_stored, read_header
from likelify.data.unpacking import read_up_to
from likelify.errors import DataError

ARCHIVE = "a whole numpy archive of arrays of numbers"
MOST_MEMBERS = 1000
LOCAL, LOCAL_LENGTH = b"PK\x03\x04", 30
# Words in the names of arrays.
ITEMS = ("x", "images", "image", "data", "items", "inputs", "features", "sequences", "series", "rows", "arr")
LABELS = ("y", "labels", "label", "targets", "target", "classes")
SPLIT_WORDS: dict[str, SplitName] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
RULES = (
    "One of items is called x, images or data, one of labels y or labels, each perhaps with train, validation or test "
    "before or after it, as in x_train; an array that is alone can be called as it likes."
)


@dataclass
class Archive:
    """What was found in an archive.

    Attributes:
        items: the arrays of items by split; None where there are no splits.
        labels: the arrays of labels.
        others: names of arrays that are not used.
    """

    items: dict[SplitName | None, Mapped] = field(default_factory=dict)
    labels: dict[SplitName | None, Mapped] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)


def read_archive(path: Path) -> Archive:
    """Find the arrays of an archive; those that are not packed stay in the file until they are used.

    Raises:
        DataError: if it is damaged, packed to much less than it holds, or its names do not tell what is what.
    """
    with reading(path, ARCHIVE), open(path, "rb") as handle, zipfile.ZipFile(handle) as archive:
        members = archive.infolist()
        names = [member.filename.removesuffix(".npy") for member in members]
        if len(members) > MOST_MEMBERS or len(set(names)) < len(names):
            raise DataError(f"'{path}' has {len(members):,} arrays, or two of one name; it is not {ARCHIVE}.")
        places = _places(path, names)
        found = Archive(others=[name for name in names if name not in places])
        for member, name in zip(members, names, strict=True):
            if name in places:
                role, split = places[name]
                (found.items if role == "items" else found.labels)[split] = _member(handle, path, archive, member)
    return found


def read_members(path: Path, names: Sequence[str], empty: Collection[str] = ()) -> dict[str, Mapped]:
    """Return the arrays of an archive that have these names, as far as they are there.

    Args:
        path: of the archive.
        names: of the arrays.
        empty: names of those that may hold nothing.

    Raises:
        DataError: if it is damaged, or packed to much less than it holds.
    """
    with reading(path, ARCHIVE), open(path, "rb") as handle, zipfile.ZipFile(handle) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        there = [name for name in names if name in members]
        return {name: _member(handle, path, archive, members[name], empty=name in empty) for name in there}


def _places(path: Path, names: list[str]) -> dict[str, tuple[str, SplitName | None]]:
    """Tell which arrays are items or labels, and of which split."""
    places: dict[str, tuple[str, SplitName | None]] = {name: place for name in names if (place := _place(name))}
    if len(names) == 1:
        places = {names[0]: ("items", None)}
    listed = ", ".join(map(repr, names[:20]))
    if len(set(places.values())) < len(places):
        raise DataError(f"'{path}' has several arrays that can be the items: {listed}. {RULES}")
    splits = {split for role, split in places.values() if role == "items"}
    if not splits or (None in splits and len(splits) > 1) or (None not in splits and "train" not in splits):
        raise DataError(f"'{path}' has the arrays {listed}, which do not tell which are the training items. {RULES}")
    unmatched = [name for name, (role, split) in places.items() if role == "labels" and split not in splits]
    if unmatched:
        raise DataError(f"'{path}' has labels without items: {', '.join(map(repr, unmatched))}. {RULES}")
    return places


def _place(name: str) -> tuple[str, SplitName | None] | None:
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
    splits: list[SplitName] = [SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS]
    rest = [word for word in words if word not in SPLIT_WORDS]
    if len(splits) > 1 or len(rest) > 1 or not words or not set(rest) <= {*ITEMS, *LABELS}:
        return None
    split: SplitName | None = splits[0] if splits else None
    return "labels" if rest and rest[0] in LABELS else "items", split


def _member(
    handle: BinaryIO, path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, *, empty: bool = False
) -> Mapped:
    name = member.filename.removesuffix(".npy")
    if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"'{path}', '{name}' is encrypted, or packed in a way that numpy does not use.")
    if member.compress_type == zipfile.ZIP_STORED:
        handle.seek(member.header_offset)
        header = handle.read(LOCAL_LENGTH)
        if header[:4] != LOCAL or member.file_size != member.compress_size:
            raise DataError(f"'{path}' is not {ARCHIVE}: '{name}' is not where it should be.")
        start = member.header_offset + LOCAL_LENGTH + sum(struct.unpack("<HH", header[26:30]))
        return map_stored(handle, path, start, member.file_size, name, empty=empty)
    if member.file_size > FREE + MOST_SHRINKING * member.compress_size:
        raise DataError(
            f"'{path}', '{name}' unpacks to more than {MOST_SHRINKING} times its size: it is made to fill the memory, "
            "or nearly empty. If it is honest, write it with numpy.savez, which does not pack."
        )
    with archive.open(member) as packed:
        content = read_up_to(packed, member.file_size + 1)
    what = f"'{path}', '{name}',"
    shape, fortran, dtype, start = read_header(bytes(content[:LONGEST_HEADER]), what, empty=empty)
    values = np.frombuffer(content, dtype, offset=start) if (len(content) - start) % dtype.itemsize == 0 else None
    if values is None or len(content) != member.file_size or values.size != np.prod(shape, dtype=object):
        raise DataError(f"'{path}', '{name}' is not {KIND}: it announces an array of {shape} and holds another size.")
    return Mapped(path, values.reshape(shape, order="F" if fortran else "C"))
