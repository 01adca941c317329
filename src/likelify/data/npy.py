"""Numbers from numpy's files, mapped or read; pickles in them are never opened."""

from __future__ import annotations

import io
import math
import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from likelify.data.faults import Faults
from likelify.data.frames import Column, Frame, Rows, file_hash, require_finite
from likelify.data.limits import MOST_COLUMNS, reading, require_values
from likelify.data.told import Told
from likelify.data.values import require_usual
from likelify.errors import DataError
from likelify.names import ColumnType
from likelify.schema import numbered_columns

KIND = "a whole numpy file of numbers"
LONGEST_HEADER = 2**16
# Values that are copied at a time.
VALUES = 2**18
# What the letters of numpy's kinds of number stand for.
TYPES: dict[str, ColumnType] = {"f": "real", "i": "integer", "u": "integer", "b": "boolean"}


def read_array(path: str | Path) -> np.ndarray:
    """Read a numpy file `.npy` of rows of numbers as float64; pickled objects are refused.

    Raises:
        DataError: if it is something else, is larger than `limits` allow, or holds values that are missing, infinite or
            above 1e150.
    """
    path = Path(path)
    array = map_array(path).values
    if array.ndim != 2 or array.dtype.kind == "b":
        raise DataError(
            f"'{path}' does not hold rows of numbers: an array (rows, columns) of numbers is needed, and it has shape "
            f"{array.shape} of {array.dtype}."
        )
    require_values(f"'{path}'", array.size)
    with np.errstate(over="ignore"):
        values = np.array(array, dtype=np.float64, order="C")
    require_usual(f"'{path}'", values)
    return values


@dataclass(frozen=True)
class Mapped:
    """An array whose values stay in its file until they are used.

    Attributes:
        path: of the file.
        values: the array; it cannot be written.
        pages: what is mapped; None where the values had to be unpacked into the memory.
    """

    path: Path
    values: np.ndarray
    pages: mmap.mmap | None = None

    def release(self) -> None:
        """Give the memory of what was read back to the system; it is read from the file again when it is needed."""
        if self.pages is not None and hasattr(mmap, "MADV_DONTNEED"):
            self.pages.madvise(mmap.MADV_DONTNEED)


class ArrayFrame(Frame):
    """Rows of numbers in a numpy file, or in memory, whose columns have no names.

    Args:
        name: of the file, for errors.
        array: `(rows, columns)`.

    Raises:
        DataError: if it has other axes, or more columns than are read.
    """

    named = False

    def __init__(self, name: str, array: Mapped) -> None:
        self.name, self._mapped = name, array
        values = array.values
        if values.ndim != 2:
            raise DataError(
                f"{name} does not hold rows of numbers: an array (rows, columns) of numbers is needed, and it has "
                f"shape {values.shape} of {values.dtype}."
            )
        if values.shape[1] > MOST_COLUMNS:
            raise DataError(f"{name} has {values.shape[1]:,} columns; at most {MOST_COLUMNS:,} are read.")
        kind = TYPES[values.dtype.kind]
        told = Told(kind="boolean", said="truth values") if kind == "boolean" else Told()
        self.columns = tuple(Column(name, kind, told=told) for name in numbered_columns(values.shape[1]))
        self.count = len(values)

    def rows(
        self, numbers: Sequence[str], carried: Sequence[str] = (), start: int = 0, faults: Faults | None = None
    ) -> Iterator[Rows]:
        """Read columns in order, a million values at a time; see `Frame.rows`."""
        known = [column.name for column in self.columns]
        places, others = [known.index(name) for name in numbers], [known.index(name) for name in carried]
        step = max(1, VALUES // len(known))
        for first in range(start, len(self._mapped.values), step):
            part = np.asarray(self._mapped.values[first : first + step])
            with np.errstate(over="ignore"):
                values = np.array(part[:, places], dtype=np.float64, order="C")
            kept = {name: part[:, place].tolist() for name, place in zip(carried, others, strict=True)}
            rows = Rows(values, kept, lambda row, column, first=first: (f"row {first + row}", "nan"))
            require_finite(self.name, numbers, rows, faults)
            self._mapped.release()
            yield rows

    def fingerprint(self) -> str:
        """Hash the file."""
        return file_hash(self._mapped.path)


def map_array(path: str | Path) -> Mapped:
    """Map a numpy file `.npy` of numbers or truth values into memory.

    Raises:
        DataError: if it is something else, or shorter or longer than its header announces.
    """
    path = Path(path)
    with reading(path, KIND), open(path, "rb") as handle:
        return map_stored(handle, path, 0, os.fstat(handle.fileno()).st_size)


def map_stored(handle: BinaryIO, path: Path, start: int, size: int, name: str = "", *, empty: bool = False) -> Mapped:
    """Map an array that is stored in a file as it would be in one of its own.

    Args:
        handle: of the open file.
        path: for errors.
        start: where the array's file begins.
        size: its length in bytes.
        name: of the array in the file, for errors.
        empty: it may hold nothing.

    Raises:
        DataError: if it is no array of numbers, or of another length than it announces.
    """
    what = f"'{path}'" + (f", '{name}'," if name else "")
    handle.seek(start)
    shape, fortran, dtype, header = read_header(handle.read(min(size, LONGEST_HEADER)), what, empty=empty)
    count = math.prod(shape)
    if header + count * dtype.itemsize != size:
        raise DataError(
            f"{what} is not {KIND}: it announces {count * dtype.itemsize} bytes and holds {max(0, size - header)}."
        )
    pages = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    values = np.frombuffer(pages, dtype, count, start + header).reshape(shape, order="F" if fortran else "C")
    return Mapped(path, values, pages)


def read_header(content: bytes, what: str, *, empty: bool = False) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Read shape, order and kind of number of an array, and where its numbers start.

    Raises:
        DataError: if it holds something else than numbers or, unless it may be `empty`, none.
    """
    handle = io.BytesIO(content)
    version = np.lib.format.read_magic(handle)
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in headers:
        raise DataError(f"{what} is not {KIND}: it is of version {version[0]}.{version[1]} of the format.")
    shape, fortran, dtype = headers[version](handle)
    if dtype.hasobject:
        raise DataError(f"{what} is not {KIND}: it holds Python objects, which only running a pickle would give.")
    if dtype.kind not in "iufb" or (0 in shape and not empty):
        raise DataError(f"{what} does not hold rows of numbers, but an array of shape {shape} of {dtype}.")
    return shape, fortran, dtype, handle.tell()
