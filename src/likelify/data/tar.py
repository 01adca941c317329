"""Reads plain files out of a tar archive from front to back; nothing is unpacked to the disk."""

from collections.abc import Iterator
from typing import NamedTuple

from likelify.data.unpacking import Readable, read_up_to
from likelify.errors import DataError

BLOCK = 512
PLAIN = (b"0", b"\0")
# Archives of data sets hold a few files; each costs time, even if it is empty.
MOST_MEMBERS = 1000


class Member(NamedTuple):
    """A file in an archive: its name without folders, its size, and what reads it before the next is taken."""

    name: str
    size: int
    content: Readable


class _Part:
    """The next bytes of an archive, as a file of its own."""

    def __init__(self, archive: Readable, left: int) -> None:
        self._archive, self.left = archive, left

    def read(self, size: int, /) -> bytes:
        piece = self._archive.read(min(size, self.left))
        self.left -= len(piece)
        return piece


def members(archive: Readable, what: str, most: int) -> Iterator[Member]:
    """Go through the plain files of an archive; folders, links, long names and what else there is are passed over.

    Args:
        archive: the unpacked archive.
        what: its name, for errors.
        most: bytes of all its members together.

    Raises:
        DataError: if it is no archive, is cut off, or holds more members or bytes than that.
    """
    for number in range(MOST_MEMBERS + 1):
        header = bytes(read_up_to(archive, BLOCK))
        # The end is marked by blocks of zeros, or is the end of the file.
        if not header.strip(b"\0") and number:
            return
        size = _size(header, what)
        most -= size
        if most < 0 or number == MOST_MEMBERS:
            raise DataError(f"'{what}' holds more than the files of the data set, and is not read further.")
        part = _Part(archive, size)
        if header[156:157] in PLAIN:
            yield Member(header[:100].split(b"\0")[0].decode("latin-1").rpartition("/")[2], size, part)
        part.left += -size % BLOCK
        while part.left:
            if not part.read(2**16):
                raise DataError(f"'{what}' is damaged, cut off or not a .tar.gz archive. Download it again.")


def _size(header: bytes, what: str) -> int:
    """Return the size of a member; its header has a sum of its bytes, the sum itself counted as blanks."""
    try:
        total = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
        if len(header) != BLOCK or int(header[148:156].strip(b" \0"), 8) != total:
            raise ValueError("its sum is wrong")
        size = int(header[124:136].strip(b" \0") or b"0", 8)
        if size < 0:
            raise ValueError("a size below zero")
    except ValueError as error:
        raise DataError(f"'{what}' is damaged, cut off or not a .tar.gz archive. Download it again.") from error
    return size
