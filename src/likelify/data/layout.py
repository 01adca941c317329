"""What the items of an array are, found from its shape and its kind of number, or asked where both are possible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from likelify.data.facts import WORDS
from likelify.errors import DataError, unknown_word
from likelify.names import ItemKind

# Axes of real-valued data that say what an item is: rows of a table, sequences (channels, length).
AXES: dict[int, ItemKind] = {2: "table", 3: "sequence"}
# Whole numbers of which all values that they can take are levels.
OWN_LEVELS = {"uint8": 256, "bool": 2}
# An axis of at most so many entries can be that of channels: grey, with transparency, colours.
MOST_CHANNELS = 4

Channels = Literal["first", "last"]


@dataclass(frozen=True)
class Layout:
    """How the items of an array are to be understood.

    Attributes:
        kind: what an item is.
        levels: number of values of an element, or None for real numbers.
        channels: whether they are the first axis of an image or its last; None where an axis of one channel is put in.
        said: what was found, for descriptions.
    """

    kind: ItemKind
    levels: int | None = None
    channels: Channels | None = "first"
    said: str = ""

    def arranged(self, array: np.ndarray) -> np.ndarray:
        """Return a view of items with their channels first."""
        if self.channels is None:
            return array[:, None]
        return np.moveaxis(array, -1, 1) if self.channels == "last" else array


def find_layout(
    what: str,
    array: np.ndarray,
    *,
    kind: ItemKind | None = None,
    levels: int | None = None,
    channels: Channels | None = None,
) -> Layout:
    """Find what the items of an array of numbers are; the values are not looked at.

    Args:
        what: its name, for errors.
        array: items along the first axis.
        kind: of the items, if it was said.
        levels: number of values of an element, if it was said.
        channels: of images with four axes, if it was said where they are.

    Raises:
        DataError: if the rules do not decide, naming what to say.
    """
    if kind not in (None, *WORDS):
        raise DataError(unknown_word("kind of item", str(kind), WORDS))
    if channels not in (None, "first", "last"):
        raise DataError(unknown_word("place of channels", str(channels), ["first", "last"]))
    if array.ndim < 2:
        raise DataError(
            f"{what} must be numbers with items along the first axis, got {array.dtype} of shape {array.shape}. Items "
            "of one number are data[:, None]."
        )
    kind = kind or _kind(what, array, levels)
    levels = _levels(what, array, kind, levels)
    if channels is not None and (kind != "image" or array.ndim != 4):
        raise DataError(f"{what} has {WORDS[kind][1]} of shape {array.shape[1:]}: --channels has no effect on them.")
    if kind == "image" and array.ndim == 4:
        channels = channels or _channels(what, array.shape)
        height, width, count = (array.shape[n] for n in ((2, 3, 1) if channels == "first" else (1, 2, 3)))
        said = f"{count} channel{'s' * (count != 1)} {channels}, {height}x{width}"
        return Layout(kind, levels, channels, said)
    if kind == "image" and array.ndim == 3:
        return Layout(kind, levels, None, f"grey, {array.shape[1]}x{array.shape[2]}")
    if kind == "sequence":
        return _sequence(what, array, levels)
    return Layout(kind, levels)


def _kind(what: str, array: np.ndarray, levels: int | None) -> ItemKind:
    shape, whole = array.shape, array.dtype.kind in "iub"
    if whole and array.ndim == 3 and (levels is not None or str(array.dtype) in OWN_LEVELS) and shape[1] != shape[2]:
        raise DataError(
            f"{what} has whole numbers of shape {shape}, which can be grey images or sequences (channels, length). Say "
            "--kind image or --kind sequence (in Python: kind=)."
        )
    if levels is not None:
        return "image"
    if whole:
        if str(array.dtype) in OWN_LEVELS and array.ndim in (3, 4):
            return "image"
        raise DataError(
            f"{what} has whole numbers ({array.dtype}) of shape {shape}, which can be pixels or measurements; these "
            "have different likelihoods. Say --levels N for pixels 0..N-1 (in Python: lk.data.as_source(data, "
            "levels=...)), or --kind table (kind='table') for rows of measurements."
        )
    kind = AXES.get(array.ndim)
    if kind is None:
        raise DataError(
            f"{what} has real numbers of shape {shape}, which can be scaled pixels, of which a density is no "
            "probability of images. Give pixels as integers, or say --kind image (in Python: "
            "lk.data.as_source(data, kind=...)) if a density is what you want."
        )
    return kind


def _levels(what: str, array: np.ndarray, kind: ItemKind, levels: int | None) -> int | None:
    if kind not in ("image", "sequence"):
        if levels is not None:
            raise DataError(f"levels are those of pixels and sequences; data of the kind '{kind}' have none.")
        return None
    if levels is None and array.dtype.kind in "iub":
        levels = OWN_LEVELS.get(str(array.dtype))
        if levels is None:
            raise DataError(
                f"{what} has whole numbers ({array.dtype}). Say --levels N (in Python: levels=) where they are 0..N-1 "
                "and nothing else, or write them as real numbers where they are measurements."
            )
    return levels


def _channels(what: str, shape: tuple[int, ...]) -> Channels:
    """Find the axis of channels: it is short, and leaves an image of more than one row and column."""
    first = shape[1] <= MOST_CHANNELS and min(shape[2:]) > 1
    last = shape[3] <= MOST_CHANNELS and min(shape[1:3]) > 1
    if first == last:
        seen = "both its first and its last axis can" if first else "neither its first nor its last axis seems to"
        raise DataError(
            f"{what} has images of shape {shape[1:]}, of which {seen} be the channels. Say --channels first or "
            "--channels last (in Python: channels=)."
        )
    return "first" if first else "last"


def _sequence(what: str, array: np.ndarray, levels: int | None) -> Layout:
    if array.ndim == 2:
        return Layout("sequence", levels, None, f"1 channel, length {array.shape[1]}")
    if array.ndim != 3:
        raise DataError(f"{what} has shape {array.shape}; sequences are (n, channels, length) or (n, length).")
    said = f"{array.shape[1]} channel{'s' * (array.shape[1] != 1)}, length {array.shape[2]}"
    return Layout("sequence", levels, "first", said)


def arranged_as(array: np.ndarray, event_shape: tuple[int, ...], channels: Channels | None = None) -> np.ndarray:
    """Return a view of items in the shape of those that are known, if they are the same in another order of axes.

    Args:
        array: items along the first axis.
        event_shape: of an item that is known, `(channels, ...)`.
        channels: whether they are the first axis or the last, where that was said.
    """
    shape = array.shape[1:]
    if len(event_shape) == 3 and (*event_shape[1:], event_shape[0]) == shape and channels != "first":
        return np.moveaxis(array, -1, 1) if shape != event_shape or channels == "last" else array
    return array[:, None] if len(event_shape) > 1 and (1, *shape) == event_shape else array
