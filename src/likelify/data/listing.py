"""The pictures below a folder, by name: which there are, and what their folders say of splits and classes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from likelify.data.catalog import PICTURE_ENDINGS
from likelify.data.facts import SplitName
from likelify.errors import DataError

# What folders of splits are called, in small letters.
SPLIT_FOLDERS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}
# What archives of macOS have beside each file.
FORKS = "__MACOSX"
# Of endings that are ignored, and of classes, how many a description names.
NAMED = 8


@dataclass(frozen=True)
class Listing:
    """The files below a folder.

    Attributes:
        names: of the pictures, below the folder and with slashes, in their order by code points.
        ignored: how many other files there are, by ending; hidden ones, whatever they are, as `hidden`.
    """

    names: tuple[str, ...]
    ignored: Counter[str]

    def said(self) -> str:
        """Return what is ignored as a part of a sentence, or nothing."""
        if not self.ignored:
            return ""
        shown = [f"{count} {what}" for what, count in self.ignored.most_common(NAMED)]
        more = len(self.ignored) - len(shown)
        return f"ignored: {', '.join(shown)}{f' and {more} other kinds' if more else ''}"


def list_pictures(folder: Path) -> Listing:
    """Find the pictures in a folder and all folders below it, by the endings of their names.

    Links are followed, but no folder is entered twice. Files and folders whose names begin with a dot are ignored.

    Raises:
        DataError: if there are none; the message says what was found instead.
        OSError: if a folder cannot be read.
    """
    names: list[str] = []
    ignored: Counter[str] = Counter()
    entered: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        status = place.stat()
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name == FORKS:
                    ignored["hidden"] += 1
                elif entry.is_dir():
                    waiting.append(Path(entry.path))
                elif entry.is_file() and entry.name.lower().endswith(PICTURE_ENDINGS):
                    names.append(Path(entry.path).relative_to(folder).as_posix())
                else:
                    ignored[_ending(entry.name)] += 1
    found = Listing(tuple(sorted(names)), ignored)
    if not names:
        what = found.said().replace("ignored: ", "What is there instead: ") or "It is empty"
        raise DataError(f"'{folder}' has no pictures whose names end in {', '.join(PICTURE_ENDINGS)}. {what}.")
    return found


def _ending(name: str) -> str:
    ending = PurePosixPath(name).suffix.lower()
    return ending if 1 < len(ending) <= 8 and ending.isprintable() else "without a known ending"


def split_of(folder: Path, names: Sequence[str]) -> list[SplitName] | None:
    """Return the split of each name where the folders `train`, `validation` and `test` say it, or None.

    They do if there is a folder `train` at the top.

    Raises:
        DataError: if there are such folders without `train`, two for one split, or pictures beside them.
    """
    tops = sorted({top for name in names if (top := _top(name))})
    known = {top: SPLIT_FOLDERS[top.lower()] for top in tops if top.lower() in SPLIT_FOLDERS}
    if not known:
        return None
    if "train" not in known.values():
        raise DataError(
            f"'{folder}' has pictures in a folder '{min(known)}' and none in a folder 'train'. Put those to train on "
            f"there, or call '{min(known)}' something else if it is no split."
        )
    if len(set(known.values())) < len(known):
        raise DataError(f"'{folder}' has two folders for one split: {', '.join(known)}. Put them together.")
    beside = [name for name in names if _top(name) not in known]
    if beside:
        raise DataError(
            f"'{folder}' has the splits {', '.join(known)}, and {len(beside)} pictures beside them, such as "
            f"'{beside[0]}', which belong to none. Put them into one, or take them out."
        )
    return [SPLIT_FOLDERS[_top(name).lower()] for name in names]


def classes_of(folder: Path, names: Sequence[str], *, split: bool) -> tuple[list[int], tuple[str, ...]]:
    """Return the class of each name, and what the classes are called: the folders, in their order by code points.

    Args:
        folder: for errors.
        names: of the pictures.
        split: whether the folders at the top are splits, and those below them classes.

    Raises:
        DataError: if a picture is in no such folder, or there is only one.
    """
    folders = [PurePosixPath(name).parts[:-1][1 if split else 0 :] for name in names]
    for name, parts in zip(names, folders, strict=True):
        if not parts:
            raise DataError(
                f"'{folder / name}' is in no subfolder, which would be its class. Put it into one, or leave out "
                "--labels folders."
            )
    known = tuple(sorted({parts[0] for parts in folders}))
    if len(known) == 1:
        raise DataError(
            f"All pictures of '{folder}' are in one subfolder, '{known[0]}', so that there is one class only. Leave "
            "out --labels folders."
        )
    numbers = {label: number for number, label in enumerate(known)}
    return [numbers[parts[0]] for parts in folders], known


def _top(name: str) -> str:
    """Return the first folder of a name, or nothing for a file at the top."""
    top, slash, _ = name.partition("/")
    return top if slash else ""
