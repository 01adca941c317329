"""Which reader is for which table: by the ending of a file, by what an object in memory offers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from likelify.data.arrow import FeatherFrame, MemoryFrame, ParquetFrame
from likelify.data.catalog import TABLE_ENDINGS
from likelify.data.delimited import TextFrame
from likelify.data.frames import Frame
from likelify.data.npy import ArrayFrame, map_array
from likelify.errors import DataError


def open_frame(path: Path) -> Frame:
    """Open a file of a table.

    Raises:
        DataError: if it is not there, its name has another ending, or it is damaged.
    """
    ending = path.suffix.lower()
    if not path.name.lower().endswith(TABLE_ENDINGS):
        raise DataError(f"'{path}' is not a table that can be read: its name must end in {', '.join(TABLE_ENDINGS)}.")
    if not path.is_file():
        raise DataError(f"'{path}' is a folder." if path.is_dir() else f"There is no file '{path}'.")
    if ending == ".npy":
        return ArrayFrame(f"'{path}'", map_array(path))
    if ending == ".parquet":
        return ParquetFrame(path)
    return FeatherFrame(path) if ending in (".feather", ".arrow") else TextFrame(path)


def frame_of(data: Any) -> Frame | None:
    """Return a data frame of pandas, polars or pyarrow, or what else gives its columns as Arrow does, as a table.

    Returns:
        None if it is something else.
    """
    return MemoryFrame(data) if hasattr(data, "__arrow_c_stream__") else None
