"""The contract of every source of data.

torch is imported when items are read, so that a missing file or an unknown name is answered without it.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from likelify.data.facts import SPLITS, Facts, GraphFacts, SplitName
from likelify.data.values import class_labels, plain_array, require_levels, require_usual, stored_dtype
from likelify.errors import DataError, unknown_word
from likelify.names import ItemKind
from likelify.schema import ColumnSchema, real_columns

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from likelify.shapes import Shape
    from likelify.structure import ContextLike, GraphBatch

Parts = dict[SplitName, np.ndarray]
# Fewer items cannot be cut into parts of which one is a tenth.
FEWEST = 10
# Pixels of more than a byte are kept as integers of 32 bits.
MOST_LEVELS = 2**31 - 1
# Of the sets of images that `hold_out` makes sources of.
LEVELS, CLASSES = 256, 10


@dataclass(frozen=True, eq=False)
class Batch:
    """Some items of a source.

    Attributes:
        x: images, rows or sequences `(items, *event)`; of graphs the features of all nodes `(nodes, *features)`.
        labels: class of each item `(items,)`, or None.
        structure: the graphs that the nodes belong to, or None where each row of `x` is an item.
        weights: of the items in the likelihood `(items,)`, with mean one over a split; None if all count alike.
    """

    x: Tensor
    labels: Tensor | None = None
    structure: GraphBatch | None = None
    weights: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.x) if self.structure is None else len(self.structure)

    def context(self, *, conditional: bool = False) -> ContextLike:
        """Return what a flow has to know beside `x`: the graphs, and the labels if the model is conditional.

        Labels of graphs are repeated for each of their nodes, since a condition has one entry for each row of `x`.

        Args:
            conditional: whether the labels are the condition.
        """
        labels = self.labels if conditional else None
        if self.structure is None:
            return labels
        from likelify.structure import Context

        return Context(None if labels is None else labels[self.structure.owner], self.structure)

    def dims(self) -> Tensor:
        """Return the number of elements of each item, integers `(items,)`: of a graph nodes times features."""
        import torch

        elements = math.prod(self.x.shape[1:])
        if self.structure is None:
            return torch.full((len(self.x),), elements, device=self.x.device)
        return self.structure.sizes * elements

    def head(self, count: int) -> Batch:
        """Return the first items; all of them if there are no more than `count`."""
        if count >= len(self):
            return self
        labels, weights = (None if given is None else given[:count] for given in (self.labels, self.weights))
        if self.structure is None:
            return Batch(self.x[:count], labels, weights=weights)
        graphs = _first_graphs(self.structure, count)
        return Batch(self.x[: len(graphs.owner)], labels, graphs, weights)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Batch:
        """Return the batch on a device; real-valued `x` in the dtype, if one is given."""
        real = dtype is not None and self.x.is_floating_point()
        return Batch(
            _moved(self.x.to(dtype) if real else self.x, device),
            None if self.labels is None else _moved(self.labels, device),
            None if self.structure is None else self.structure.to(device),
            None if self.weights is None else _moved(self.weights, device),
        )

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of one value for each item, as much as each weighs."""
        return (values if self.weights is None else values * self.weights.to(values)).mean()


def _moved(part: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor on a device; from the host to a GPU without waiting for what the GPU is at."""
    if part.device.type == "cpu" and str(device).startswith("cuda"):
        return part.pin_memory().to(device, non_blocking=True)
    return part.to(device)


def _first_graphs(graphs: GraphBatch, count: int) -> GraphBatch:
    from likelify.structure import GraphBatch

    sizes = graphs.sizes[:count]
    if graphs.is_complete:
        return GraphBatch.complete(sizes)
    inside = graphs.edge_index[0] < sizes.sum()
    weight = None if graphs.edge_weight is None else graphs.edge_weight[inside]
    return GraphBatch(sizes, graphs.edge_index[:, inside], weight)


class Source(ABC):
    """Fixed splits of items that can be read in any order.

    Images are integers `0 .. levels - 1` in `uint8` (or `int32` above 256 levels), channels first; the number of levels
    belongs to the data, and likelihoods are probabilities. Rows of tables are real numbers; they have no levels, and
    likelihoods are densities, whose values depend on the units. Reading is by index, so a batch is a pure function of
    the indices.

    Its attributes are those of `Facts`; every source declares its `kind`. Where reading takes long, such as the
    decoding of files, `workers` is the number of processes that should read ahead.
    """

    name: str
    kind: ItemKind
    event_shape: Shape
    levels: int | None = None
    classes: int | None = None
    description: str = ""
    columns: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None
    schema: tuple[ColumnSchema, ...] | None = None
    graphs: GraphFacts | None = None
    workers: int = 0

    @property
    def family(self) -> str:
        """The part of the name before the colon: the name without the user's folder."""
        return self.name.partition(":")[0]

    @abstractmethod
    def size(self, split: SplitName) -> int:
        """Return the number of items of a split."""

    @abstractmethod
    def read(self, split: SplitName, indices: Tensor) -> Batch:
        """Read the items with these numbers, integers of shape `(items,)`."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a short hash of the data and the splits, by which a run recognises what it was fitted to."""

    def read_all(self, split: SplitName) -> Batch:
        """Read a whole split."""
        import torch

        require_split(split)
        return self.read(split, torch.arange(self.size(split)))

    def item_names(self, split: SplitName) -> Sequence[str] | None:
        """Return what the items of a split are called, such as the names of their files, or None."""
        require_split(split)
        return None

    def item_weights(self, split: SplitName) -> Tensor | None:
        """Return what the items of a split weigh, `(items,)` with mean one, or None if all count alike."""
        require_split(split)
        return None

    def node_counts(self, split: SplitName) -> Tensor | None:
        """Return the number of nodes of each graph of a split, integers `(items,)`, or None if items are no graphs."""
        require_split(split)
        return None

    @property
    def meaning(self) -> tuple[ColumnSchema, ...]:
        """What each column of a table means; see `Facts.meaning`."""
        if self.kind != "table":
            return ()
        return self.schema or real_columns(self.columns or self.event_shape[0])

    def facts(self) -> Facts:
        """Return what everything above has to know of the source."""
        measured = {"sizes": {split: self.size(split) for split in SPLITS}, "fingerprint": self.fingerprint()}
        return Facts(**{fact: getattr(self, fact) for fact in Facts.model_fields if fact not in measured}, **measured)

    def __repr__(self) -> str:
        """Return name, kind and sizes."""
        sizes = ", ".join(f"{self.size(split)} {split}" for split in SPLITS)
        shape = "x".join(map(str, self.event_shape))
        return f"<{self.name}: {self.kind} of {shape}, {sizes}; {self.description}>"


class ArraySource(Source):
    """A source whose items are arrays in memory.

    Args:
        name: see `Facts`, as kind, levels, classes and description.
        splits: for each split the items `(n, *event)`, integers; real numbers if there are no levels. The test split
            may be left out; then it is empty. Rows of tables have NaN where a value is missing.
        labels: for each split the labels `(n,)`, or None.

    Raises:
        DataError: if a split is missing or empty, shapes disagree, or values lie outside the levels or are not finite.
    """

    def __init__(
        self,
        name: str,
        splits: Mapping[SplitName, np.ndarray],
        *,
        kind: ItemKind,
        levels: int | None,
        labels: Mapping[SplitName, np.ndarray] | None = None,
        classes: int | None = None,
        description: str = "",
    ) -> None:
        import torch

        require_splits(name, splits)
        require_splits(name, labels or {})
        if levels is not None and not (isinstance(levels, int | np.integer) and 2 <= levels <= MOST_LEVELS):
            raise DataError(f"Pixels of '{name}' need 2 to {MOST_LEVELS} levels, a whole number, got {levels!r}.")
        splits = {split: plain_array(part, _of(split, name)) for split, part in splits.items()}
        self.name, self.kind = name, kind
        self.levels, self.classes, self.description = levels, classes, description
        self.event_shape = tuple(splits["train"].shape[1:]) if "train" in splits else ()
        self._splits: dict[SplitName, Batch] = {}
        for split in SPLITS:
            events = splits.get(split, np.empty(0))
            if split not in splits and split == "test" and "train" in splits:
                events = splits["train"][:0]
            else:
                _check_events(_of(split, name), events, self.event_shape, levels, missing=kind == "table")
            assigned = None
            if labels is not None:
                given = class_labels(labels.get(split, np.empty(0, np.int64)), len(events))
                if classes is not None and given.max(initial=0) >= classes:
                    raise DataError(
                        f"'{name}' has labels up to {given.max()}; with {classes} classes they end before it."
                    )
                assigned = torch.from_numpy(given)
            copy = np.array(events, dtype=stored_dtype(events, levels), order="C")
            self._splits[split] = Batch(torch.from_numpy(copy), assigned)

    @classmethod
    def cut(cls, name: str, items: np.ndarray, parts: Parts, *, labels: np.ndarray | None = None, **facts: Any) -> Self:
        """Make a source of one array, cut into parts: for each split the numbers of its items."""
        if labels is not None:
            labels = class_labels(labels, len(items))
            facts = {"classes": int(labels.max()) + 1} | facts
            facts["labels"] = {split: labels[part] for split, part in parts.items()}
        return cls(name, {split: items[part] for split, part in parts.items()}, **facts)

    def size(self, split: SplitName) -> int:
        """Return the number of items of a split."""
        require_split(split)
        return len(self._splits[split])

    def read(self, split: SplitName, indices: Tensor) -> Batch:
        """Read the items with these numbers."""
        require_split(split)
        batch = self._splits[split]
        labels = None if batch.labels is None else taken(self, split, batch.labels, indices)
        return Batch(taken(self, split, batch.x, indices), labels)

    def fingerprint(self) -> str:
        """Hash the events of all splits, and their labels."""
        kept = self.event_shape if self.kind == "table" else (self.event_shape, self.levels)
        digest = hashlib.sha256(repr(kept).encode())
        words = [column.categories for column in self.schema or () if column.categories]
        digest.update(repr(words).encode() if words else b"")
        for split in SPLITS:
            batch = self._splits[split]
            digest.update(f"{split} {len(batch)}".encode())
            digest.update(batch.x.numpy().tobytes())
            digest.update(b"" if batch.labels is None else batch.labels.numpy().tobytes())
        return digest.hexdigest()[:16]


def require_split(split: str) -> None:
    """Refuse a name that is no split.

    Raises:
        DataError: naming those there are.
    """
    if split not in SPLITS:
        raise DataError(unknown_word("split", str(split), SPLITS))


def taken(source: Source, split: SplitName, values: Tensor, indices: Tensor) -> Tensor:
    """Return the values with these numbers.

    Raises:
        DataError: if the numbers are not those of items of the split.
    """
    try:
        return values[indices]
    except (IndexError, TypeError) as error:
        raise DataError(
            f"The split '{split}' of '{source.name}' has the items 0..{len(values) - 1}; they cannot be read by the "
            f"numbers {str(indices)[:60]}."
        ) from error


def require_splits(name: str, splits: Mapping[SplitName, Any]) -> None:
    """Refuse something that is not one array for each of some splits.

    Raises:
        DataError: if it is no mapping, or a name is no split.
    """
    if not isinstance(splits, Mapping):
        raise DataError(f"'{name}' needs its arrays by split: {{'train': ..., 'validation': ..., 'test': ...}}.")
    for split in splits:
        require_split(split)


def shuffled(count: int, *, validation: int, test: int = 0, seed: int = 0) -> Parts:
    """Return the numbers `0 .. count - 1` in the order `numpy.random.default_rng(seed).permutation`, cut into splits.

    Args:
        count: of the items, at least 10.
        validation: how many validate, those before the last that test.
        test: how many test; without any there is no such split.
        seed: of the order.

    Raises:
        DataError: if there are too few items, or the seed is no number of at least 0.
    """
    if count < FEWEST:
        raise DataError(f"Data need at least {FEWEST} items to be cut into splits, got {count}.")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise DataError(f"The seed of the shuffling must be a whole number of at least 0, got {seed!r}.")
    order = np.random.default_rng(seed).permutation(count)
    parts = zip(SPLITS, np.split(order, [count - validation - test, count - test]), strict=True)
    return {split: part for split, part in parts if len(part)}


def filled(sizes: Mapping[SplitName, int]) -> tuple[dict[SplitName, tuple[SplitName, np.ndarray | None]], str]:
    """Cut the splits that data do not have off their training items, by `shuffled`: a tenth for each.

    Args:
        sizes: number of items of each split that is there, training items among them.

    Returns:
        For each split the one whose items it takes and their numbers, None for all of them; and how that is said.
    """
    tenths = {split: 0 if split in sizes else max(1, sizes["train"] // 10) for split in ("validation", "test")}
    if not any(tenths.values()):
        return {split: (split, None) for split in SPLITS}, "splits as they are"
    cut = shuffled(sizes["train"], validation=tenths["validation"], test=tenths["test"])
    missing = " and ".join(split for split, count in tenths.items() if count)
    said = f"by default_rng(0).permutation, {missing} being a tenth each"
    if len(sizes) > 1:
        said = f"splits as they are; {missing}: the last tenth of the training items by default_rng(0).permutation"
    return {split: ("train", cut[split]) if split in cut else (split, None) for split in SPLITS}, said


def hold_out(name: str, images: np.ndarray, labels: np.ndarray, test: int, described: str) -> ArraySource:
    """Make a source of images of `LEVELS` levels and `CLASSES` classes that come as training files and test files.

    Of the training files the last of `shuffled` validate, see `held_out`.

    Args:
        name: of the source.
        images: `(n, channels, height, width)`, those of the test files last.
        labels: classes `(n,)`.
        test: how many are of the test files.
        described: how the description starts.
    """
    count = len(images) - test
    parts = shuffled(count, validation=held_out(count))
    parts["test"] = count + np.arange(test)
    text = f"{described}; {sizes_of(parts)}, the training files by default_rng(0).permutation"
    return ArraySource.cut(
        name, images, parts, labels=labels, kind="image", levels=LEVELS, classes=CLASSES, description=text
    )


def held_out(training: int) -> int:
    """Return how many of so many images of training files validate: 5,000, or a tenth if that is less."""
    return min(5000, training // 10)


def sizes_of(parts: Mapping[SplitName, Sized]) -> str:
    """Write the sizes of splits, for descriptions."""
    return " / ".join(str(len(part)) for part in parts.values())


def _of(split: str, name: str) -> str:
    return f"The split '{split}' of '{name}'"


def _check_events(what: str, events: np.ndarray, event_shape: Shape, levels: int | None, *, missing: bool) -> None:
    if events.ndim == 0 or len(events) == 0:
        raise DataError(f"{what} has no items.")
    if tuple(events.shape[1:]) != event_shape:
        raise DataError(f"{what} has events {events.shape[1:]}, 'train' has {event_shape}.")
    if levels is None:
        require_usual(what, events, missing=missing)
        return
    require_levels(what, events, levels)
