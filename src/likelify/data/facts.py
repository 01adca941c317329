"""The facts of a source of data that everything above it needs: what an item is, its shape, how many there are."""

from typing import Literal, Self

from pydantic import model_validator

from likelify.names import ItemKind
from likelify.schema import ColumnSchema, real_columns
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
# How many sizes the shape of one item has; of the features of a node of a graph any number.
AXES: dict[ItemKind, int] = {"image": 3, "table": 1, "sequence": 2}


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
        schema: what each of them means: kind, states, range; of every table.

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
    schema: tuple[ColumnSchema, ...] | None = None  # pyright: ignore[reportIncompatibleMethodOverride]

    @classmethod
    def meant(cls) -> str:
        """Return what these settings are, for errors."""
        return "facts of the data"

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse facts that do not belong together, of which nothing that relies on them could make sense."""
        axes, shape = AXES.get(self.kind), "x".join(map(str, self.event_shape)) or "()"
        if any(size < 1 for size in self.event_shape) or axes not in (None, len(self.event_shape)):
            raise ValueError(f"{self.items} have no items of the shape {shape}")
        if self.levels is not None and (self.levels < 2 or self.kind == "table"):
            raise ValueError(f"{self.items} do not have {self.levels} levels")
        if self.classes is not None and self.classes < 1:
            raise ValueError(f"there are no {self.classes} classes")
        if any(size < 0 for size in self.sizes.values()):
            raise ValueError("a split has fewer than no items")
        self._check_names()
        return self

    def _check_names(self) -> None:
        if self.class_names is not None and len(self.class_names) != self.classes:
            raise ValueError(f"there are {len(self.class_names)} names for {self.classes} classes")
        for what, names in (("names", self.columns), ("schemas", self.schema)):
            if names is not None and (self.kind != "table" or len(names) != self.event_shape[0]):
                shape = "x".join(map(str, self.event_shape))
                raise ValueError(f"there are {len(names)} {what} of columns for {self.items} of {shape}")

    @property
    def meaning(self) -> tuple[ColumnSchema, ...]:
        """What each column of a table means, real numbers where nothing is known of it; of other kinds nothing."""
        if self.kind != "table":
            return ()
        return self.schema or real_columns(self.columns or self.event_shape[0])

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
