"""The facts of a source of data that everything above it needs: what an item is, its shape, how many there are."""

from typing import Literal

from likelify.names import ColumnType, ItemKind
from likelify.settings import Settings

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")

# What one item and several items of each kind are called.
WORDS: dict[ItemKind, tuple[str, str]] = {
    "image": ("image", "images"),
    "table": ("row", "rows"),
    "graph": ("graph", "graphs"),
    "sequence": ("sequence", "sequences"),
}


def numbered_columns(count: int) -> tuple[str, ...]:
    """Return what the columns of a table without names are called."""
    return tuple(f"column {number}" for number in range(1, count + 1))


class Facts(Settings):
    """What is known of a source without reading its items.

    Attributes:
        name: of the source, as `open_source` and the command line spell it.
        family: the part of the name before the colon, by which recipes are found: the name without the user's folder.
        kind: what an item is.
        description: where the data come from and how they were split.
        event_shape: shape of one item; of a graph that of the features of one node.
        levels: number of values that an element can take, or None for real numbers.
        classes: number of classes, or None if there are no labels.
        sizes: number of items of each split.
        fingerprint: short hash of the data and the splits.
        class_names: what the classes are called, or None where they are only numbers.
        columns: names of the columns of a table, or None.
        column_types: what the values of each of them were in the file: real or whole numbers, or truth values.

    Example:
        >>> from likelify.data import open_source
        >>> facts = open_source("iris").facts()
        >>> facts.kind, facts.event_shape, facts.sizes["test"], facts.items
        ('table', (4,), 15, 'rows')
    """

    name: str
    family: str
    kind: ItemKind
    description: str = ""
    event_shape: tuple[int, ...]
    levels: int | None = None
    classes: int | None = None
    sizes: dict[SplitName, int]
    fingerprint: str
    columns: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None
    column_types: tuple[ColumnType, ...] | None = None

    @property
    def item(self) -> str:
        """The word for one item: image, row, graph or sequence."""
        return WORDS[self.kind][0]

    @property
    def called(self) -> tuple[str, ...]:
        """What the classes are called; those without names by their numbers."""
        return self.class_names or tuple(map(str, range(self.classes or 0)))

    @property
    def items(self) -> str:
        """The word for several items."""
        return WORDS[self.kind][1]
