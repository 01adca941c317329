"""What is asked of arrays given in Python: numbers, finite, of a size that can be computed with, one label each."""

from __future__ import annotations

from typing import Any

import numpy as np

from likelify.data.limits import LARGEST_VALUE, REMEDY
from likelify.errors import DataError

# Labels that reach far beyond the number of items are numbers of something else.
FEW_CLASSES = 1000
# Squares of values up to this, and of their inverses, are far from the ends of float64.
ORDINARY = 1e100


def plain_array(data: Any, what: str) -> np.ndarray:
    """Return data as an array of real numbers or truth values, whatever holds them.

    Args:
        data: an array, a tensor, or lists of numbers.
        what: its name, for errors.

    Raises:
        DataError: if it holds something else, or masked values.
    """
    if isinstance(data, np.ma.MaskedArray) and np.ma.is_masked(data):
        if data.ndim != 2:
            raise DataError(f"{what} has masked values, which are missing. {REMEDY}")
        data = np.where(np.ma.getmaskarray(data), np.nan, data.data.astype(np.float64))
    array = _as_array(data, what)
    if array.dtype.kind == "c":
        raise DataError(f"{what} holds complex numbers. Give real and imaginary parts as columns of their own.")
    if array.dtype.kind not in "iubf":
        raise DataError(
            f"{what} must hold numbers, got {array.dtype} of shape {array.shape}. Turn words, dates and objects into "
            "numbers first: array.astype(float), if that is what they are."
        )
    return array


def table_rows(data: Any, what: str) -> np.ndarray:
    """Return rows of a table `(rows, columns)` in float64, NaN where a value is missing.

    Raises:
        DataError: if they are something else, or a value is infinite or above 1e150, naming row and column.
    """
    rows = plain_array(data, what)
    if rows.ndim != 2 or rows.shape[1] == 0:
        hint = " Give one column as array[:, None]." if rows.ndim == 1 else ""
        raise DataError(f"{what} is not a table: rows have shape {rows.shape}, expected (rows, columns).{hint}")
    with np.errstate(over="ignore"):
        rows = widened(rows)
    require_usual(what, rows, missing=True)
    return rows


def widened(values: np.ndarray) -> np.ndarray:
    """Return numbers in float64; of narrower ones the shortest decimal that is they, 0.1 where float32 has 0.1.

    So a value is the same whether a table was read in single or in double precision.

    Example:
        >>> widened(np.array([0.1, 2.5, np.nan], dtype=np.float32)).tolist()
        [0.1, 2.5, nan]
    """
    wide = values.astype(np.float64, copy=False)
    if values.dtype.kind != "f" or values.dtype.itemsize >= 8:
        return wide
    open_ = np.isfinite(wide) & (wide != np.rint(wide))
    left, sizes = wide[open_], np.floor(np.log10(np.abs(wide[open_])))
    best, exact = left.copy(), values[open_]
    # From the most digits down, so that what stays is the shortest.
    with np.errstate(over="ignore", invalid="ignore"):
        for digits in range(9, 0, -1):
            power = 10.0 ** np.clip(digits - 1 - sizes, -300, 300)
            shorter = np.rint(left * power) / power
            best = np.where(shorter.astype(values.dtype) == exact, shorter, best)
    wide = wide.copy()
    wide[open_] = best
    return wide


def require_usual(what: str, rows: np.ndarray, first: int = 0, *, missing: bool = False) -> None:
    """Refuse values that are not finite, or so large that their squares are not.

    Args:
        what: their name, for errors.
        rows: the values, items along the first axis.
        first: number of the first item.
        missing: whether values may be missing, NaN.

    Raises:
        DataError: naming row and column, or item and element.
    """
    # Comparisons with what is not a number are false.
    if not rows.size or (-LARGEST_VALUE <= float(rows.min()) and float(rows.max()) <= LARGEST_VALUE):
        return
    values = rows.astype(np.float64)
    wrong = np.abs(values) > LARGEST_VALUE if missing else ~(np.abs(values) <= LARGEST_VALUE)
    if not wrong.any():
        return
    place = tuple(int(n) for n in np.argwhere(wrong)[0])
    item = first + place[0]
    where = f"row {item}, column {place[1]}" if rows.ndim == 2 else f"item {item}, element {place[1:]}"
    remedy = "Write it in other units, or mend the value." if np.isfinite(rows[place]) else REMEDY
    raise DataError(f"{what}, {where}: the value is {rows[place]}. {remedy}")


def as_images(data: Any, what: str, channels: int) -> np.ndarray:
    """Return images as `(n, channels, height, width)`, of any size: one or several, channels first or last.

    Args:
        data: what holds them; those of one channel may lack its axis. Where first and last axis can be the channels it
            is the first.
        what: their name, for errors.
        channels: how many they have.

    Raises:
        DataError: if they are none, or of other channels.
    """
    array = given = plain_array(data, what)
    if channels == 1 and (array.ndim == 2 or (array.ndim == 3 and 1 not in (array.shape[0], array.shape[2]))):
        array = array[..., None, :, :]
    array = array[None] if array.ndim == 3 else array
    if array.ndim == 4 and array.shape[1] != channels and array.shape[-1] == channels:
        array = np.moveaxis(array, -1, 1)
    if array.ndim != 4 or array.shape[1] != channels or not array.size:
        raise DataError(
            f"{what} have the shape {given.shape}; one is ({channels}, height, width), several are (n, {channels}, "
            "height, width), with channels first or last."
        )
    return array


def require_levels(what: str, values: np.ndarray, levels: int, first: int = 0) -> None:
    """Refuse values that are not whole numbers from 0 to below a number of levels.

    Args:
        what: their name, for errors.
        values: items along the first axis.
        levels: how many values an element can take.
        first: number of the first item.

    Raises:
        DataError: naming item and element of the first.
    """
    if not values.size:
        return
    whole = values.dtype.kind in "iub" or bool((values == np.floor(values)).all())
    # Comparisons with what is not a number are false.
    if whole and 0 <= values.min() and values.max() < levels:
        return
    wrong = ~((values >= 0) & (values < levels) & (values == np.floor(values)))
    place = tuple(int(n) for n in np.argwhere(wrong)[0])
    raise DataError(
        f"{what}, item {first + place[0]}, element {place[1:]}: the value is {values[place]}; it must "
        f"hold integers 0..{levels - 1}."
    )


def stored_dtype(events: np.ndarray, levels: int | None) -> type[np.generic]:
    """Return the kind of number in which a source gives items: bytes where they suffice, else 32 or 64 bits."""
    if levels is None:
        return np.float32 if events.dtype == np.float32 else np.float64
    return np.uint8 if levels <= 256 else np.int32


def moments(rows: np.ndarray, ddof: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each column, without squares that overflow or vanish.

    Args:
        rows: `(n, columns)`.
        ddof: of the rows, what is taken off their number for the deviation.
    """
    largest = np.abs(rows).max(0, initial=0)
    unusual = (largest > ORDINARY) | ((largest > 0) & (largest < 1 / ORDINARY))
    if not unusual.any():
        return rows.mean(0), rows.std(0, ddof=ddof)
    # By powers of two, which change no digit.
    unit = np.where(unusual, np.ldexp(1.0, np.frexp(largest)[1] - 1), 1.0)
    mean, scale = moments(rows / unit, ddof)
    return mean * unit, scale * unit


def distinct(rows: np.ndarray) -> np.ndarray:
    """Return the number of distinct values of each column."""
    return (np.diff(np.sort(rows, axis=0), axis=0) > 0).sum(0) + 1


def class_labels(labels: Any, count: int) -> np.ndarray:
    """Return the classes of items as integers `(count,)`; truth values are classes 0 and 1.

    Real numbers are refused, also whole ones: cut to integers in silence, a measurement would become a class.

    Raises:
        DataError: if they are something else, negative, not one for each item, or far more than the items.
    """
    array = _as_array(labels, "The sequence of labels")
    if isinstance(labels, np.ma.MaskedArray) and np.ma.is_masked(labels):
        raise DataError("The labels have masked values, which are missing. Drop these items, or give them a class.")
    if array.dtype.kind not in "iub" or array.shape != (count,):
        raise DataError(
            f"Labels must be classes 0, 1, ... of shape ({count},), got {array.dtype} of shape {array.shape}."
            + _label_remedy(array)
        )
    if count and (array.min() < 0 or array.max() >= max(count, FEW_CLASSES)):
        end = f"the lowest is {array.min()}" if array.min() < 0 else f"the highest is {array.max()}"
        raise DataError(
            f"Labels must be classes 0, 1, ... of shape ({count},), {end}. "
            "numpy.unique(labels, return_inverse=True)[1] numbers them from 0."
        )
    return array.astype(np.int64)


def _label_remedy(array: np.ndarray) -> str:
    if array.dtype.kind == "f":
        return " Real numbers are not rounded to classes; if they mean classes and are whole, give labels.astype(int)."
    if array.dtype.kind in "OUS":
        return " numpy.unique(labels, return_inverse=True)[1] numbers words from 0."
    return ""


def _as_array(data: Any, what: str) -> np.ndarray:
    """Return data as an array; numpy has no bfloat16."""
    try:
        if hasattr(data, "detach"):
            data = data.detach().cpu()
            data = (data.float() if str(data.dtype) == "torch.bfloat16" else data).numpy()
        return np.asarray(data)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{what} is no array of numbers: {str(error).splitlines()[0][:200]}") from error
