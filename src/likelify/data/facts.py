"""The facts of a source of data that everything above it needs: what an item is, its shape, how many there are."""

from typing import Literal, Self

import numpy as np
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


class GraphFacts(Settings):
    """What is known of the graphs that a source has as items.

    Attributes:
        sizes: of the training graphs, how many have each number of nodes.
        complete: whether every node has an edge to every other of its graph, as in sets of points.
        weighted: whether edges have weights of their own.
        centred: whether all features have mean zero in every graph, as positions without a place in space have: their
            density is one of `(nodes - 1) features` numbers.

    Example:
        >>> GraphFacts(sizes={4: 30, 5: 10}, complete=True).mean_nodes
        4.25
    """

    sizes: dict[int, int]
    complete: bool
    weighted: bool = False
    centred: bool = False

    @classmethod
    def meant(cls) -> str:
        """Return what these settings are, for errors."""
        return "facts of the graphs"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.sizes or min(self.sizes) < 1 or min(self.sizes.values()) < 1:
            raise ValueError("of each number of nodes, from 1 on, there must be a graph")
        return self

    @property
    def nodes(self) -> tuple[int, int]:
        """The fewest and the most nodes of a training graph."""
        return min(self.sizes), max(self.sizes)

    def elements(self, features: int) -> int:
        """Return how many elements a graph has on average, as far as work and memory grow with them.

        Of a complete graph these are the pairs of its nodes, if that is more.

        Example:
            >>> sizes = {10: 3}
            >>> GraphFacts(sizes=sizes, complete=True).elements(2), GraphFacts(sizes=sizes, complete=False).elements(2)
            (100, 20)
        """
        each = {nodes: nodes * max(features, nodes if self.complete else 1) for nodes in self.sizes}
        return round(sum(each[nodes] * count for nodes, count in self.sizes.items()) / sum(self.sizes.values()))

    @property
    def mean_nodes(self) -> float:
        """The mean number of nodes of a training graph."""
        return sum(nodes * count for nodes, count in self.sizes.items()) / sum(self.sizes.values())


def count_sizes(sizes: np.ndarray) -> dict[int, int]:
    """Return how many graphs have each number of nodes, by number of nodes."""
    values, counts = np.unique(sizes, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


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
        columns: names of the columns of a table, or of the features of the nodes of graphs, or None.
        schema: what each of them means: kind, states, range; of every table.
        graphs: what is known of graphs beside that: how many nodes they have, whether they are complete.

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
    graphs: GraphFacts | None = None

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
        if self.graphs is not None and self.kind != "graph":
            raise ValueError(f"{self.items} are no graphs")
        self._check_names()
        return self

    def _check_names(self) -> None:
        if self.class_names is not None and len(self.class_names) != self.classes:
            raise ValueError(f"there are {len(self.class_names)} names for {self.classes} classes")
        for what, names, kinds in (("names", self.columns, ("table", "graph")), ("schemas", self.schema, ("table",))):
            if names is not None and (self.kind not in kinds or (len(names),) != self.event_shape):
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
