"""Sources beside the facts that a model was fitted to: the same columns and classes, found by their names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from likelify.data.encoding import decode_column, encode_column, say_strange
from likelify.data.facts import WORDS, Facts, SplitName
from likelify.data.source import Batch, Source
from likelify.errors import DataError, unknown_word
from likelify.names import ItemKind
from likelify.schema import ColumnSchema, numbered_columns

if TYPE_CHECKING:
    from torch import Tensor

# Of names in an error.
NAMED = 20


def matched(source: Source, facts: Facts) -> Source:
    """Return a source whose columns and classes are in the order that a model knows.

    Columns and classes go by their names; those of a source that has no names for them go by their order.

    Raises:
        DataError: if its items are of another kind or shape, or it has columns or classes that the model does not know;
            the message names them.
    """
    if (source.kind, tuple(source.event_shape)) != (facts.kind, tuple(facts.event_shape)):
        raise DataError(
            f"'{source.name}' has {_shaped(source.kind, source.event_shape)}; the model is of "
            f"{_shaped(facts.kind, facts.event_shape)}."
        )
    columns, classes = _columns(source, facts), _classes(source, facts)
    if columns is None and classes is None and not _recoded(source, facts, columns):
        return source
    return Matched(source, facts, columns, classes)


def _shaped(kind: ItemKind, shape: Sequence[int]) -> str:
    """Return what items are in words: `rows of shape (3,)`."""
    return f"{WORDS[kind][1]} {'with nodes ' if kind == 'graph' else ''}of shape {tuple(shape)}"


def _recoded(
    source: Source, facts: Facts, columns: Sequence[int] | None
) -> dict[int, tuple[ColumnSchema, ColumnSchema]]:
    """Return the columns whose values mean something else in a source: by their places what in it, and in the model."""
    if source.schema is None or facts.schema is None:
        return {}
    own = source.schema if columns is None else [source.schema[place] for place in columns]
    pairs = enumerate(zip(own, facts.schema, strict=True))
    return {place: pair for place, pair in pairs if _means(pair[0]) != _means(pair[1])}


def _means(column: ColumnSchema) -> tuple[object, ...]:
    """Return what decides what the numbers of a column mean."""
    is_date = column.kind == "date"
    return column.categories, column.unit if is_date else None, is_date


def _columns(source: Source, facts: Facts) -> list[int] | None:
    """Return the places that the columns of a model have in a source, or None where they are the same."""
    known, given = facts.columns, source.columns
    if known is None or given is None or known == given or given == numbered_columns(len(given)):
        return None
    absent, strange = _without(known, given), _without(given, known)
    if absent:
        raise DataError(
            f"'{source.name}' has no column {', '.join(map(repr, absent[:NAMED]))}, which the model is of, but "
            f"{', '.join(map(repr, strange[:NAMED]))}. Columns go by their names."
        )
    return [given.index(name) for name in known]


def _classes(source: Source, facts: Facts) -> list[int] | None:
    """Return the number that each class of a source has for a model, or None where they are the same."""
    if source.classes is None or facts.classes is None or source.class_names == facts.class_names:
        return None
    known, given = facts.called, source.class_names
    if given is None:
        # Numbers that were given in Python are those of the model's classes.
        if source.classes > len(known):
            raise DataError(
                f"'{source.name}' has the classes 0..{source.classes - 1}; the model has 0..{len(known) - 1}, which "
                f"are called {', '.join(known[:NAMED])}."
            )
        return None
    strange = _without(given, known)
    if strange:
        raise DataError(f"'{source.name}': {unknown_word('class', strange[0], known)}")
    return [known.index(name) for name in given]


def _without(names: Sequence[str], others: Sequence[str]) -> list[str]:
    return [name for name in names if name not in set(others)]


class Matched(Source):
    """Another source with its columns and classes in the order of a model's; see `matched`.

    Args:
        source: the other.
        facts: of what the model was fitted to.
        columns: their places in the other, or None where they are the same.
        classes: the model's number of each class of the other, or None where they are the same.
    """

    def __init__(self, source: Source, facts: Facts, columns: list[int] | None, classes: list[int] | None) -> None:
        self.source, self._columns, self._classes = source, columns, classes
        self.name, self.kind, self.description = source.name, source.kind, source.description
        self.event_shape, self.levels, self.workers = source.event_shape, source.levels, source.workers
        self.columns = source.columns if columns is None else facts.columns
        self.schema, self.graphs = facts.schema, source.graphs
        self._encoded = _recoded(source, facts, columns)
        renamed = source if classes is None else facts
        self.classes, self.class_names = renamed.classes, renamed.class_names

    def size(self, split: SplitName) -> int:
        """Return the number of items of a split."""
        return self.source.size(split)

    def read(self, split: SplitName, indices: Tensor) -> Batch:
        """Read the items with these numbers, and put their columns and classes in order."""
        import torch

        batch = self.source.read(split, indices)
        x = batch.x if self._columns is None else batch.x[:, torch.tensor(self._columns)]
        if self._encoded:
            x = torch.from_numpy(self._in_places(x.numpy().copy()))
        labels = batch.labels
        if labels is not None and self._classes is not None:
            labels = torch.tensor(self._classes)[labels]
        return Batch(x, labels, batch.structure, batch.weights)

    def _in_places(self, rows: np.ndarray) -> np.ndarray:
        """Return rows with the model's places of words, and its units of dates."""
        strange: dict[str, list[str]] = {}
        for place, (own, wanted) in self._encoded.items():
            values = decode_column(rows[:, place], own, written=False)
            rows[:, place], words = encode_column(values, wanted, self.name)
            strange |= {wanted.name: words} if words else {}
        say_strange(f"'{self.name}'", strange, self.schema or (), "unseen")
        return rows

    def node_counts(self, split: SplitName) -> Tensor | None:
        """Return the number of nodes of each graph of the other, or None if items are no graphs."""
        return self.source.node_counts(split)

    def item_weights(self, split: SplitName) -> Tensor | None:
        """Return the weights of the items of the other."""
        return self.source.item_weights(split)

    def item_names(self, split: SplitName) -> Sequence[str] | None:
        """Return the names that the items have."""
        return self.source.item_names(split)

    def fingerprint(self) -> str:
        """Hash the fingerprint of the other and the order."""
        return hashlib.sha256(
            f"{self.source.fingerprint()} {self._columns} {self._classes} {self._encoded}".encode()
        ).hexdigest()[:16]
