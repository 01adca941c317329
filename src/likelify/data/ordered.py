"""The contract of items that are read once, in their order, batch by batch in little memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from likelify.data.source import Batch

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class ItemBatch:
    """Some items, one after the other.

    Attributes:
        batch: the items, as a source gives them.
        carried: what belongs to them and is no part of what is scored, by name: one entry for each item.
    """

    batch: Batch
    carried: dict[str, list[Any] | np.ndarray]

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.batch)


class Items(ABC):
    """Items that are read once, in order.

    Attributes:
        name: of the file or the data.
        count: number of items, or None where only reading tells.
        carried: names of what is carried through beside the items: ids, labels, names of files.
        said: what is done to them to make them such as the model takes, in words; nothing if nothing is.
    """

    name: str
    count: int | None = None
    carried: tuple[str, ...] = ()
    said: str = ""

    @abstractmethod
    def batches(self, size: int, start: int = 0) -> Iterator[ItemBatch]:
        """Read the items in order, in batches of that size but for the last.

        No more is held in memory than a batch and a piece of the file of some million bytes.

        Args:
            size: items of a batch.
            start: number of the first item that is given, from 0; there may be none.

        Raises:
            DataError: if the data are damaged, or an item is not what the model takes, naming where it stands.
        """

    def texts(self, size: int) -> Iterator[dict[str, list[str]]]:
        """Read what is written for each value of the items, by column, in the same batches.

        Of text files that is every column, of other tables those of words, whether the model knows them or not, of all
        other items nothing.
        """
        del size
        return repeat({})

    def typed(self, size: int) -> Iterator[pa.Table | None]:
        """Read the values of the items once more in the types of Arrow that they have, in the same batches.

        That is for tables in files of Arrow and Parquet, and for data frames; None of all other items.
        """
        del size
        return repeat(None)

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a short hash of the whole content: the same only where the same items come in the same order."""
