"""Sources made from others: fewer items, smaller images, tables in units of their standard deviations."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np

from likelify.data.facts import SPLITS, Facts, GraphFacts, SplitName, count_sizes
from likelify.data.source import ArraySource, Batch, Parts, Source, require_split, sizes_of, taken
from likelify.data.tables import TableSource, standardize
from likelify.errors import DataError
from likelify.seeding import picked

if TYPE_CHECKING:
    from torch import Tensor


class Subset(Source):
    """Some items of each split of another source; see `subset`. What they weigh has mean one again.

    Args:
        source: the whole.
        kept: the numbers of the items of each split; None for a split as it is.
        said: how they were chosen, as the description ends.

    Raises:
        DataError: if all that is kept of a split weighs nothing.
    """

    def __init__(self, source: Source, kept: Mapping[SplitName, Tensor | None], said: str) -> None:
        self.source, self._kept = source, dict(kept)
        self._factors = {split: self._factor(split) for split in self._kept if self.size(split)}
        sizes = sizes_of({split: range(self.size(split)) for split in self._kept})
        self.name = f"{source.name} ({sizes})"
        self.kind, self.event_shape, self.columns = source.kind, source.event_shape, source.columns
        self.schema, self.class_names = source.schema, source.class_names
        self.levels, self.classes, self.workers = source.levels, source.classes, source.workers
        self.description = f"{source.description}; of these {sizes} {said}"
        self.graphs = None if source.graphs is None else self._graphs(source.graphs)

    @property
    def family(self) -> str:
        """The family of the whole."""
        return self.source.family

    def _graphs(self, whole: GraphFacts) -> GraphFacts:
        counts = None if self._kept["train"] is None else self.node_counts("train")
        return whole if counts is None else whole.model_copy(update={"sizes": count_sizes(counts.numpy())})

    def node_counts(self, split: SplitName) -> Tensor | None:
        """Return the number of nodes of each graph that is kept, or None if items are no graphs."""
        return self._of(split, self.source.node_counts(split))

    def _of(self, split: SplitName, values: Tensor | None) -> Tensor | None:
        """Return of values of all items of a split those of the items that are kept."""
        numbers = self._kept[split]
        return values if values is None or numbers is None else values[numbers]

    def _factor(self, split: SplitName) -> float | None:
        """Return what the weights of the whole are divided by, or None if there are none."""
        weights = self._of(split, self.source.item_weights(split))
        if weights is None:
            return None
        mean = float(weights.double().mean())
        if not mean > 0:
            raise DataError(f"All {len(weights)} items kept of the split '{split}' have the weight 0.")
        return mean

    def size(self, split: SplitName) -> int:
        """Return the number of items of a split."""
        require_split(split)
        numbers = self._kept[split]
        return self.source.size(split) if numbers is None else len(numbers)

    def read(self, split: SplitName, indices: Tensor) -> Batch:
        """Read the items with these numbers."""
        require_split(split)
        numbers = self._kept[split]
        batch = self.source.read(split, indices if numbers is None else taken(self, split, numbers, indices))
        factor = self._factors.get(split)
        if batch.weights is None or factor is None:
            return batch
        return replace(batch, weights=batch.weights / factor)

    def item_names(self, split: SplitName) -> Sequence[str] | None:
        """Return the names that the items have in the whole, if they have any."""
        names, numbers = self.source.item_names(split), self._kept[split]
        return names if names is None or numbers is None else [names[int(number)] for number in numbers]

    def item_weights(self, split: SplitName) -> Tensor | None:
        """Return what the items weigh, with mean one over those that are kept."""
        weights = self._of(split, self.source.item_weights(split))
        return None if weights is None else weights / (self._factors.get(split) or 1.0)

    def fingerprint(self) -> str:
        """Hash the fingerprint of the whole and the choice."""
        digest = hashlib.sha256(self.source.fingerprint().encode())
        for split in SPLITS:
            numbers = self._kept[split]
            digest.update(f"{split} {self.size(split)}".encode() if numbers is None else numbers.numpy().tobytes())
        return digest.hexdigest()[:16]


def subset(
    source: Source, *, train: int | None = None, validation: int | None = None, test: int | None = None
) -> Source:
    """Keep the first N items of `numpy.random.default_rng(0).permutation` of each split (of more than 2^25 an `Order`).

    The choice depends on nothing but the size of the split, and a smaller subset is the start of a larger one.

    Args:
        source: the whole.
        train: training items to keep; None keeps the split as it is.
        validation: the same of the validation split.
        test: the same of the test split.

    Raises:
        DataError: if a number is below 1 or above the size of the split, or all that is kept weighs nothing.
    """
    import torch

    wanted: dict[SplitName, int | None] = {"train": train, "validation": validation, "test": test}
    kept: dict[SplitName, Tensor | None] = {}
    for split, count in wanted.items():
        size = source.size(split)
        if count is not None and not 1 <= count <= size:
            raise DataError(f"The split '{split}' of '{source.name}' has {size} items; a subset of {count} is not one.")
        kept[split] = None if count is None else torch.from_numpy(picked(size, count))
    return Subset(source, kept, "by default_rng(0).permutation of each split")


class Weighted(Source):
    """Another source whose items count as much as they weigh; see `weighted`.

    Args:
        source: the other.
        weights: of the items of each split, with mean one.
    """

    def __init__(self, source: Source, weights: Mapping[SplitName, Tensor]) -> None:
        self.source, self._weights = source, dict(weights)
        for fact in Facts.model_fields:
            if fact not in ("family", "sizes", "fingerprint", "description"):
                setattr(self, fact, getattr(source, fact))
        self.workers, self.description = source.workers, f"{source.description}; weighted"

    @property
    def family(self) -> str:
        """The family of the other."""
        return self.source.family

    def size(self, split: SplitName) -> int:
        """Return the number of items of a split."""
        return self.source.size(split)

    def read(self, split: SplitName, indices: Tensor) -> Batch:
        """Read the items with these numbers, and what they weigh."""
        batch = self.source.read(split, indices)
        weights = self._weights.get(split)
        return batch if weights is None else replace(batch, weights=taken(self, split, weights, indices))

    def node_counts(self, split: SplitName) -> Tensor | None:
        """Return the number of nodes of each graph of the other, or None if items are no graphs."""
        return self.source.node_counts(split)

    def item_names(self, split: SplitName) -> Sequence[str] | None:
        """Return the names that the items have in the other, if they have any."""
        return self.source.item_names(split)

    def item_weights(self, split: SplitName) -> Tensor | None:
        """Return what the items of a split weigh."""
        require_split(split)
        return self._weights.get(split)

    def fingerprint(self) -> str:
        """Hash the fingerprint of the other and the weights."""
        digest = hashlib.sha256(self.source.fingerprint().encode())
        for split in SPLITS:
            digest.update(self._weights[split].numpy().tobytes() if split in self._weights else b"")
        return digest.hexdigest()[:16]


def weighted(source: Source, **weights: np.ndarray) -> Source:
    """Let the items of a source count as much as they weigh: a fit then minimises `-sum_i w_i log p(x_i) / sum_i w_i`.

    The loss of a batch is `-sum_i w_i log p(x_i) / B`, with weights of mean one over the split and B items, which is
    that figure but for the choice of the batch; validation and evaluation are exactly that figure. Layers that are
    fitted to data see items as often as they weigh, rounded by less than one (`fitting.feeding.by_weight`). Items of
    weight zero are read, and count for nothing. Weights that are all the same, whatever they are, are none.

    Args:
        source: the whole.
        **weights: by name of the split, `train=`, `validation=` or `test=`, the weights of its items `(n,)`; all items
            of a split that is not named count alike.

    Raises:
        DataError: if there is not one weight for each item, one is negative or not finite, or all are zero.

    Example:
        >>> from likelify.data import table
        >>> rows = table(np.random.default_rng(0).normal(size=(20, 2)))
        >>> weighted(rows, train=np.arange(16)).read_all("train").weights[:3]
        tensor([0.0000, 0.1333, 0.2667], dtype=torch.float64)
    """
    import torch

    kept: dict[SplitName, Tensor] = {}
    for split, values in weights.items():
        require_split(split)
        name, size = cast("SplitName", split), source.size(cast("SplitName", split))
        known = np.asarray(values, dtype=np.float64)
        if known.shape != (size,):
            raise DataError(f"The split '{split}' of '{source.name}' has {size} items, and weights {known.shape}.")
        if not np.isfinite(known).all() or (known < 0).any() or not known.any():
            raise DataError("Weights must be finite, none below 0 and one above.")
        # Their sum must not overflow.
        known = known / known.max()
        if (known < 1).any():
            kept[name] = torch.from_numpy(known / known.mean())
    return Weighted(source, kept) if kept else source


def resized(source: Source, size: tuple[int, int], *, levels: int | None = None) -> Source:
    """Reduce the images of a source by averaging over areas, and round to fewer levels.

    Pixel `(i, j)` of the result is the mean over the rectangle that it covers in the original, pixels on its edge
    counting by the share that lies inside. A value `v` of `0 .. L - 1` becomes `v (levels - 1) / (L - 1)`, rounded,
    halves upwards. The arithmetic is in whole numbers, so the result is the same everywhere.

    Args:
        source: of images `(channels, height, width)`.
        size: height and width of the result, not larger than the original's.
        levels: number of values of a pixel of the result; by default that of the source.

    Raises:
        DataError: if the source has no images, or the size or number of levels does not fit.
    """
    if source.kind != "image" or source.levels is None:
        raise DataError(f"'{source.name}' has no images: events {source.event_shape} cannot be resized.")
    height, width = source.event_shape[1:]
    if not (1 <= size[0] <= height and 1 <= size[1] <= width):
        raise DataError(f"Images of {height}x{width} can be reduced, not enlarged, to {size[0]}x{size[1]}.")
    wanted = source.levels if levels is None else levels
    if wanted < 2:
        raise DataError(f"Images need at least 2 levels, got {wanted}.")
    rows, columns = area_weights(height, size[0]), area_weights(width, size[1])
    divisor = height * width * (source.levels - 1)
    events, labels = _arrays(source)
    for split, images in events.items():
        # Whole numbers far below 2^53, so that the fast float product is exact.
        sums = (rows @ images.astype(np.float64) @ columns.T).astype(np.int64) * (wanted - 1)
        events[split] = (2 * sums + divisor) // (2 * divisor)
    reduced = ArraySource(
        f"{source.name} {size[0]}x{size[1]}, {wanted} levels",
        events,
        kind="image",
        levels=wanted,
        labels=labels,
        classes=source.classes,
        description=f"{source.description}; reduced to {size[0]}x{size[1]} by area means, {wanted} levels",
    )
    return _weighing(reduced, source)


def standardized(source: Source) -> Source:
    """Return a table in units of the standard deviations of its training split: `(x - mean) / scale` of each column.

    For comparison with figures that were measured in such units. Log-densities of the result are higher than those in
    the units of the source by the sum of `ln scale`.

    Args:
        source: a table.

    Raises:
        DataError: if it is none.
    """
    if source.kind != "table":
        raise DataError(f"'{source.name}' is no table, so it has no columns to standardise.")
    others = [column.name for column in source.schema or () if column.categories is not None or column.missing]
    if others:
        raise DataError(
            f"'{source.name}' cannot be standardised: its column '{others[0]}' has words or missing values. Drop it."
        )
    rows, labels = _arrays(source)
    table = TableSource(
        f"{source.name}, standardised",
        standardize(rows, rows["train"]),
        columns=source.columns,
        labels=labels,
        classes=source.classes,
        description=f"{source.description}; standardised by mean and standard deviation of the training split",
    )
    return _weighing(table, source)


def _weighing(made: Source, source: Source) -> Source:
    """Return a source whose items weigh as much as those that they were made of."""
    known = {split: source.item_weights(split) for split in SPLITS if source.size(split)}
    return weighted(made, **{split: weights.numpy() for split, weights in known.items() if weights is not None})


def _arrays(source: Source) -> tuple[Parts, Parts | None]:
    """Return the items and the labels of the splits that have items."""
    batches: dict[SplitName, Batch] = {split: source.read_all(split) for split in SPLITS if source.size(split)}
    labels: Parts = {split: batch.labels.numpy() for split, batch in batches.items() if batch.labels is not None}
    return {split: batch.x.numpy() for split, batch in batches.items()}, labels or None


def area_weights(length: int, reduced: int) -> np.ndarray:
    """Return the matrix `(reduced, length)` of whole numbers that, divided by `length`, averages over parts of a line.

    In units of a `reduced`-th of a pixel, part `j` of the line is `[j length, (j + 1) length)` and pixel `i` is
    `[i reduced, (i + 1) reduced)`; the entry is the length that they share.
    """
    parts, pixels = np.arange(reduced)[:, None] * length, np.arange(length)[None] * reduced
    shared = np.minimum(parts + length, pixels + reduced) - np.maximum(parts, pixels)
    return shared.clip(0).astype(np.float64)
