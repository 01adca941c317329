"""Data sets of the library `datasets` as tables whose columns are read by name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from likelify.data.arrow import ROWS, ArrowFrame, pyarrow
from likelify.errors import needs


def package() -> Any:
    """Return the library.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    with needs("datasets", "hub"):
        import datasets
    return datasets


class HubFrame(ArrowFrame):
    """A split of a data set whose columns are read as those of a table.

    Args:
        name: of the data set, for errors.
        data: the split.
        numbers: names of the columns whose classes are read as numbers; those of others are words. None for all.

    Attributes:
        label: the one column of classes, or None.
    """

    def __init__(self, name: str, data: Any, *, numbers: Sequence[str] | None = None) -> None:
        self._data = data.with_format("arrow")
        schema, classes = data.features.arrow_schema, class_columns(data.features)
        self.label = classes[0] if len(classes) == 1 else None
        self._words = {
            column: data.features[column].names for column in classes if numbers is not None and column not in numbers
        }
        for column in self._words:
            schema = schema.set(schema.get_field_index(column), pyarrow().field(column, pyarrow().string()))
        super().__init__(name, schema, len(data))

    def batches(self, columns: list[str], start: int) -> Iterator[Any]:
        """Read these columns in pieces."""
        chosen = self._data.select_columns(columns)
        for first in range(start, len(self._data), ROWS):
            part = chosen[first : first + ROWS].select(columns)
            for place, column in enumerate(columns):
                if column in self._words:
                    part = part.set_column(place, column, _in_words(part.column(place), self._words[column]))
            yield from part.combine_chunks().to_batches()

    def fingerprint(self) -> str:
        """Hash all columns, a piece at a time."""
        digest = hashlib.sha256(str(self._schema.names).encode())
        for batch in self.batches(list(self._schema.names), 0):
            digest.update(batch.serialize())
        return digest.hexdigest()[:16]


def _in_words(classes: Any, names: Sequence[str]) -> Any:
    """Return the names of classes; nothing for an item without one."""
    words = [names[number] if number is not None and number >= 0 else None for number in classes.to_pylist()]
    return pyarrow().array(words, pyarrow().string())


def class_columns(features: Mapping[str, Any]) -> list[str]:
    """Return the names of the columns of classes."""
    return [column for column, feature in features.items() if isinstance(feature, package().ClassLabel)]
