"""Files packed by gzip, read in bounded pieces: a small file that unpacks to gigabytes is refused early."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from likelify.data.limits import FREE, MOST_SHRINKING
from likelify.errors import DataError

MAGIC = b"\x1f\x8b"
GZIP = 16 + zlib.MAX_WBITS
CHUNK = 2**16
# Files of many parts are made by programs that pack blocks of some thousand bytes each.
PARTS_FREE, PART = 1000, 1024


class Readable(Protocol):
    """Something that gives bytes."""

    def read(self, size: int, /) -> bytes:
        """Return up to that many bytes; none at the end."""
        ...


class Unpacked:
    """The content of a file packed by gzip.

    Args:
        handle: of the packed file, at its start.
        path: for errors.
        packed: its size.

    Raises:
        DataError: when reading, if the content is damaged or cut off, or is more than 32 MiB and thirty times the
            packed file.
    """

    def __init__(self, handle: BinaryIO, path: Path, packed: int) -> None:
        self._handle, self._path = handle, path
        self._most = FREE + MOST_SHRINKING * packed
        self._most_parts = PARTS_FREE + packed // PART
        self._given = self._parts = 0
        self._machine: Any = None
        self._waiting = b""

    def read(self, size: int, /) -> bytes:
        """Return up to that many bytes; none at the end."""
        while size > 0:
            if self._machine is None and not self._next_part():
                break
            piece = self._unpack(size)
            if piece:
                self._given += len(piece)
                if self._given > self._most:
                    raise DataError(
                        f"'{self._path}' unpacks to more than {MOST_SHRINKING} times its size: it is made to fill the "
                        "memory, or nearly empty. If it is honest, unpack it with gunzip and read what comes out."
                    )
                return piece
        return b""

    def _unpack(self, size: int) -> bytes:
        packed = self._waiting or self._handle.read(CHUNK)
        try:
            piece = self._machine.decompress(packed, size)
        except zlib.error as error:
            raise DataError(f"'{self._path}' is damaged or cut off ({error}). Download it again.") from error
        if self._machine.eof:
            self._waiting, self._machine = self._machine.unused_data, None
        elif packed or piece:
            self._waiting = self._machine.unconsumed_tail
        else:
            raise DataError(f"'{self._path}' is damaged or cut off: it ends too early. Download it again.")
        return piece

    def _next_part(self) -> bool:
        """Begin with the next packed part, if there is one; zeros fill the end of some files."""
        while not (waiting := self._waiting.lstrip(b"\0") if self._parts else self._waiting):
            self._waiting = self._handle.read(CHUNK)
            if not self._waiting:
                return False
        if len(waiting) == 1:
            waiting += self._handle.read(1)
        self._waiting, self._parts = waiting, self._parts + 1
        if waiting[:2] != MAGIC:
            raise DataError(f"'{self._path}' is damaged: what follows is not packed by gzip. Download it again.")
        if self._parts > self._most_parts:
            raise DataError(f"'{self._path}' is packed in more than {self._most_parts} tiny parts: it is not read.")
        self._machine = zlib.decompressobj(GZIP)
        return True


@contextmanager
def opened(path: Path) -> Iterator[Readable]:
    """Open a file for reading bytes, packed by gzip or not."""
    with open(path, "rb") as handle:
        packed = handle.read(2) == MAGIC
        handle.seek(0)
        yield Unpacked(handle, path, path.stat().st_size) if packed else handle


def require_usual_size(path: Path) -> None:
    """Unpack a file packed by gzip and keep nothing, so that one made to cost time is refused before it is read.

    To unpack takes a hundredth of the time in which numbers are read.

    Raises:
        DataError: see `Unpacked`.
    """
    with opened(path) as handle:
        while isinstance(handle, Unpacked) and handle.read(CHUNK):
            pass


def read_up_to(handle: Readable, limit: int) -> bytearray:
    """Read up to that many bytes in pieces: a header that lies about the size costs no memory."""
    content = bytearray()
    while len(content) < limit and (piece := handle.read(min(limit - len(content), 2**20))):
        content += piece
    return content
