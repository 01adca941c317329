"""What a file of Arrow IPC announces, read from its messages before anything of them is unpacked.

A message is described by a table of FlatBuffers (format/Message.fbs of Apache Arrow): fields are found by their number
in a list of offsets, and stand for their default where they are absent.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from likelify.data.limits import FREE, MOST_SHRINKING
from likelify.errors import DataError

# How a file begins and ends; a stream begins with a message.
MAGIC, END = b"ARROW1\0\0", b"ARROW1"
# Numbers of fields: of a message, of a batch of rows, of a dictionary, of the footer.
HEADER_TYPE, HEADER, BODY = 1, 2, 3
LENGTH, BUFFERS, COMPRESSION = 0, 2, 3
DATA = 1
PLACES = (2, 3)
# Kinds of messages.
DICTIONARY, BATCH = 2, 3
# Marks the start of a message; older files have none.
MARK = 2**32 - 1
MOST_MESSAGES = 2**20


def require_honest(path: Path, content: memoryview) -> int:
    """Look through the messages of a file or stream of Arrow IPC, and return the number of rows that they announce.

    Args:
        path: of the file, for errors.
        content: all of it.

    Raises:
        DataError: if its parts unpack to much more than the file holds, or announce fewer than no rows.
    """
    rows = unpacked = 0
    for number, place in enumerate(_places(content)):
        if number >= MOST_MESSAGES:
            raise DataError(f"'{path}' has more than {MOST_MESSAGES:,} parts.")
        kind, batch, body = _message(content, place)
        if batch is None:
            continue
        announced = batch.integer(LENGTH)
        if announced < 0:
            raise DataError(f"'{path}' is damaged: a part announces {announced} rows.")
        rows += announced if kind == BATCH else 0
        unpacked += batch.unpacked(body)
        if unpacked > FREE + MOST_SHRINKING * len(content):
            raise DataError(
                f"'{path}' unpacks to more than {MOST_SHRINKING} times its size: it is made to fill the memory, or "
                "nearly empty. If it is honest, write it without compression."
            )
    return rows


def _places(content: memoryview) -> Iterator[int]:
    """Find where messages start: in a file the footer says it, in a stream each follows the one before."""
    if content[: len(MAGIC)] == MAGIC:
        end = len(content) - len(END) - 4
        footer = _Fields.first(content, end - _at(content, "<i", end))
        for field in PLACES:
            yield from footer.starts(field)
        return
    place = 0
    while place + 8 <= len(content):
        length, start = _length(content, place)
        if length == 0:
            return
        yield place
        after = start + length + _Fields.first(content, start).integer(BODY)
        if after <= place:
            raise ValueError("a part ends before it begins")
        place = after


def _length(content: memoryview, place: int) -> tuple[int, int]:
    """Return the length of the description of a message, and where it starts."""
    length = _at(content, "<I", place)
    return (_at(content, "<I", place + 4), place + 8) if length == MARK else (length, place + 4)


def _message(content: memoryview, place: int) -> tuple[int, _Fields | None, memoryview]:
    """Read the kind of a message, the batch of rows (or values of a dictionary) that it holds, if any, and its body."""
    length, start = _length(content, place)
    message = _Fields.first(content, start)
    kind, size = message.number("<B", HEADER_TYPE), message.integer(BODY)
    if size < 0 or start + length + size > len(content):
        raise ValueError("a part reaches over the end")
    body = content[start + length : start + length + size]
    batch = message.table(HEADER) if kind in (DICTIONARY, BATCH) else None
    if batch is not None and kind == DICTIONARY:
        batch = batch.table(DATA)
    return kind, batch, body


def _at(content: memoryview, kind: str, place: int) -> int:
    if place < 0:
        raise ValueError("a part points to before the start")
    return struct.unpack_from(kind, content, place)[0]


class _Fields:
    """A table of FlatBuffers.

    Args:
        content: in which it stands.
        place: where.
    """

    def __init__(self, content: memoryview, place: int) -> None:
        self._content, self._place = content, place
        self._list = place - _at(content, "<i", place)
        self._length = _at(content, "<H", self._list)

    @classmethod
    def first(cls, content: memoryview, place: int) -> _Fields:
        """Return the table to which the number at a place points."""
        return cls(content, place + _at(content, "<I", place))

    def _field(self, number: int) -> int | None:
        entry = 4 + 2 * number
        offset = _at(self._content, "<H", self._list + entry) if entry < self._length else 0
        return self._place + offset if offset else None

    def number(self, kind: str, number: int) -> int:
        """Return a field that is a number."""
        place = self._field(number)
        return 0 if place is None else _at(self._content, kind, place)

    def integer(self, number: int) -> int:
        """Return a field that is a whole number of 64 bits."""
        return self.number("<q", number)

    def table(self, number: int) -> _Fields | None:
        """Return a field that is a table."""
        place = self._field(number)
        return None if place is None else _Fields.first(self._content, place)

    def _list_of(self, number: int) -> tuple[int, int]:
        """Return how many entries a field has that is a list, and where the first stands."""
        place = self._field(number)
        if place is None:
            return 0, 0
        place += _at(self._content, "<I", place)
        return _at(self._content, "<I", place), place + 4

    def starts(self, number: int) -> Iterator[int]:
        """Give the starts of the parts that a field lists: each has its start, two lengths, and a gap."""
        count, first = self._list_of(number)
        for entry in range(count):
            yield _at(self._content, "<q", first + 24 * entry)

    def unpacked(self, body: memoryview) -> int:
        """Return how many bytes the buffers of a batch have when they are unpacked."""
        packed, total = self._field(COMPRESSION) is not None, 0
        count, first = self._list_of(BUFFERS)
        for entry in range(count):
            start, length = struct.unpack_from("<qq", self._content, first + 16 * entry)
            if start < 0 or length < 0 or start + length > len(body):
                raise ValueError("a part lies outside its message")
            # A packed buffer begins with its size when unpacked; -1 where it is not packed.
            announced = _at(body, "<q", start) if packed and length >= 8 else -1
            total += length if announced < 0 else announced
        return total
