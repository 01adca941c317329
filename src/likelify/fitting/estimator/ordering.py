"""An order of the rows of a table that does not depend on how they were ordered."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from likelify.data.arrow import pyarrow, without_dictionary
from likelify.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

# Odd numbers of 64 bits without a pattern, by which values are mixed.
FACTORS = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9], dtype=np.uint64)


def order_of(data: np.ndarray | pa.Table, weights: np.ndarray | None = None) -> np.ndarray:
    """Return an order of rows in which a table is the same however its rows were ordered: that of a hash of each.

    It is as good as random, and the same in every process. Of numbers and moments it knows only which are larger than
    which, so that it is the same in other units, too.

    Args:
        data: as `as_arrow` returns it.
        weights: of the rows, by which equal ones are ordered.
    """
    hashes = np.zeros(len(data), dtype=np.uint64)
    columns = data.T if isinstance(data, np.ndarray) else map(_numbers_of, data.columns, data.column_names)
    with np.errstate(over="ignore"):
        for column in columns:
            hashes = (hashes ^ (column if column.dtype == np.uint64 else _ranks(column))) * FACTORS[0]
            hashes = (hashes ^ (hashes >> np.uint64(29))) * FACTORS[1]
    return np.argsort(hashes, kind="stable") if weights is None else np.lexsort((weights, hashes))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return how many different values are smaller than each; of what is missing how many there are."""
    places = np.unique(values, return_inverse=True)[1]
    return places.reshape(-1).astype(np.uint64)


def _numbers_of(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """Return numbers of which only the order counts, or 64 bits for each word, equal where words are equal."""
    pa = pyarrow()
    types = pa.types
    if types.is_floating(column.type) or types.is_integer(column.type) or types.is_boolean(column.type):
        return column.cast(pa.float64(), safe=False).to_numpy()
    if types.is_temporal(column.type) and not types.is_interval(column.type):
        narrow = types.is_date32(column.type) or types.is_time32(column.type)
        counts = column.cast(pa.int32()) if narrow else column
        return counts.cast(pa.int64()).cast(pa.float64(), safe=False).to_numpy()
    try:
        coded = without_dictionary(column).dictionary_encode().combine_chunks()
    except pa.ArrowNotImplementedError as error:
        raise DataError(
            f"The column '{name}' of the table is of the type {column.type}, which is neither numbers, words nor "
            "dates. Make words of it (.astype(str)), dates of periods (.dt.to_timestamp()), or leave it out (drop=)."
        ) from error
    digests = [hashlib.blake2b(str(word).encode(), digest_size=8).digest() for word in coded.dictionary.to_pylist()]
    codes = coded.indices.fill_null(len(digests)).to_numpy(zero_copy_only=False)
    return np.frombuffer(b"".join([*digests, bytes(8)]), dtype=np.uint64)[codes]
