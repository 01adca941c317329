"""A file of one part of the scores: the table of each pass in the Arrow format, then how many rows that were."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from likelify.errors import RunError
from likelify.fitting.files import beside, force_to_disk

if TYPE_CHECKING:
    import pyarrow

# At the end: number of rows, CRC-32 of all before, and a word that tells the file from others.
END, WORD = struct.Struct("<QI4s"), b"LKSP"
# Bytes that are checked at a time.
CHECKED = 2**16


def write_part(file: Path, tables: Iterable[pyarrow.Table]) -> None:
    """Write tables as they come, none of which is kept; the file is there once all are on the disk, in one instant.

    Every table is a stream of its own, since what is carried through can be of another type in each.

    Raises:
        RunError: if it cannot be written.
    """
    import pyarrow as pa

    rows = 0
    with beside(file) as temporary:
        for table in tables:
            with temporary.open("ab") as handle, pa.ipc.new_stream(handle, table.schema) as stream:
                stream.write_table(table)
            rows += len(table)
            # Else it would be there while the next is made.
            del table
        crc = _crc(temporary, temporary.stat().st_size)
        with temporary.open("ab") as handle:
            handle.write(END.pack(rows, crc, WORD))
        force_to_disk(temporary)
        temporary.replace(file)


def rows_of(file: Path) -> int | None:
    """Return the number of rows of a part, or None if it is none."""
    try:
        with file.open("rb") as handle:
            handle.seek(-END.size, 2)
            rows, _, word = END.unpack(handle.read(END.size))
    except OSError:
        return None
    return rows if word == WORD else None


def read_part(file: Path) -> Iterator[pyarrow.Table]:
    """Read the tables of a part one after the other.

    Raises:
        RunError: if it is damaged.
    """
    import pyarrow as pa

    try:
        size = file.stat().st_size - END.size
        with file.open("rb") as handle:
            handle.seek(size)
            if END.unpack(handle.read(END.size))[1] != _crc(file, size):
                raise ValueError("bytes have changed")
            handle.seek(0)
            while handle.tell() < size:
                with pa.ipc.open_stream(handle) as stream:
                    yield stream.read_all()
    except (pa.ArrowException, OSError, ValueError, struct.error) as error:
        raise RunError(f"'{file}' is damaged. Remove it, and give the same words again.") from error


def _crc(file: Path, size: int) -> int:
    crc = 0
    with file.open("rb") as handle:
        while size > 0:
            content = handle.read(min(CHECKED, size))
            if not content:
                break
            crc, size = zlib.crc32(content, crc), size - len(content)
    return crc
