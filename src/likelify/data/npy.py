"""Tables of numbers from numpy's files."""

import io
import math
from pathlib import Path

import numpy as np

from likelify.data.limits import reading, require_values
from likelify.data.unpacking import read_up_to
from likelify.data.values import require_usual
from likelify.errors import DataError

KIND = "a whole numpy file of numbers"
LONGEST_HEADER = 2**16


def read_array(path: str | Path) -> np.ndarray:
    """Read a numpy file `.npy` of rows of numbers as float64; pickled objects are refused.

    Raises:
        DataError: if it is something else, is larger than `limits` allow, or holds values that are missing, infinite or
            above 1e150.
    """
    path = Path(path)
    with reading(path, KIND), open(path, "rb") as handle:
        shape, fortran, dtype, start = _header(handle.read(LONGEST_HEADER), path)
        handle.seek(start)
        count = math.prod(shape)
        require_values(path, count)
        size = count * dtype.itemsize
        content = read_up_to(handle, size + 1)
        if len(content) != size:
            raise DataError(f"'{path}' is not {KIND}: it announces {size} bytes and holds {len(content)} or more.")
        with np.errstate(over="ignore"):
            values = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
            values = np.ascontiguousarray(values, dtype=np.float64)
    require_usual(f"'{path}'", values)
    return values


def _header(content: bytes, path: Path) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Read shape, order and kind of number, and where the numbers start."""
    handle = io.BytesIO(content)
    version = np.lib.format.read_magic(handle)
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in headers:
        raise DataError(f"'{path}' is not {KIND}: it is of version {version[0]}.{version[1]} of the format.")
    shape, fortran, dtype = headers[version](handle)
    if dtype.hasobject:
        raise DataError(f"'{path}' is not {KIND}: it holds Python objects, which only running a pickle would give.")
    if len(shape) != 2 or dtype.kind not in "iuf" or 0 in shape:
        raise DataError(
            f"'{path}' does not hold rows of numbers: an array (rows, columns) of numbers is needed, and it has shape "
            f"{shape} of {dtype}."
        )
    return shape, fortran, dtype, handle.tell()
