"""Data in memory as a source: tensors, arrays, torch data sets and loaders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from likelify.data.facts import WORDS
from likelify.data.source import ArraySource, Source, shuffled, sizes_of
from likelify.data.tables import TableSource
from likelify.data.values import class_labels, plain_array, table_rows
from likelify.errors import DataError, unknown_word
from likelify.names import ItemKind

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

# Axes of real-valued data that say what an item is: rows of a table, sequences (channels, length).
AXES: dict[int, ItemKind] = {2: "table", 3: "sequence"}


def as_source(
    data: Any,
    *,
    kind: ItemKind | None = None,
    levels: int | None = None,
    labels: Any = None,
    validation: float = 0.1,
    seed: int = 0,
    name: str = "data",
) -> Source:
    """Make a source of data in memory, with a training and a validation split; the test split is empty.

    What an item is follows from plain rules:

    - bytes (`uint8`) `(n, channels, height, width)` are images of 256 levels;
    - other integers need `levels` to be images, or `kind="table"` to be measurements that happen to be whole;
    - real numbers `(n, columns)` are rows of a table, `(n, channels, length)` are sequences;
    - real numbers with more axes need a `kind`: pixels should be given as integers, since a density of scaled pixels is
      no probability of images.

    Items are shuffled by `numpy.random.default_rng(seed).permutation`, and the last share of them validates. A torch
    data set is read once, from its first item to its last, and kept in memory; what it gives beside the items, such as
    `(image, label)`, must be one integer for each, and is their label. Of a `DataLoader` the data set and the function
    that collates are used; batches and their order are those of the fit.

    Args:
        data: a source, which is returned as it is; or a tensor, an array, a torch data set with a length, or a loader
            of one.
        kind: of the items, where the rules leave it open.
        levels: number of values of a pixel.
        labels: classes `0 .. k - 1` of the items `(n,)`.
        validation: share of the items that validates.
        seed: of the shuffling.
        name: of the source.

    Raises:
        DataError: if the rules do not decide, there are fewer than 10 items, or values do not fit.

    Example:
        >>> source = as_source(np.random.default_rng(0).normal(size=(50, 3)))
        >>> source.kind, source.size("train"), source.size("validation"), source.size("test")
        ('table', 45, 5, 0)
    """
    if isinstance(data, Source):
        return data
    items, found = _arrays(data)
    given = found if labels is None else class_labels(labels, len(items))
    kind, levels = _kind(items, kind, levels)
    if kind == "table":
        items = table_rows(items, "The table")
    if not isinstance(validation, int | float) or not 0 < validation < 1:
        raise DataError(f"The share that validates must lie between 0 and 1, got {validation!r}.")
    held = min(max(1, round(validation * len(items))), len(items) - 1)
    parts = shuffled(len(items), validation=held, seed=seed)
    described = f"{len(items)} items in memory; {sizes_of(parts)} by default_rng({seed}).permutation"
    if kind == "table":
        return TableSource.cut(name, items, parts, labels=given, description=described)
    return ArraySource.cut(name, items, parts, labels=given, kind=kind, levels=levels, description=described)


def _kind(items: np.ndarray, kind: ItemKind | None, levels: int | None) -> tuple[ItemKind, int | None]:
    """Decide what an item is, and how many values an element can take."""
    shape, whole = items.shape, items.dtype.kind in "iub"
    if kind not in (None, *WORDS):
        raise DataError(unknown_word("kind of item", str(kind), WORDS))
    if items.ndim < 2:
        raise DataError(
            f"Data must be numbers with items along the first axis, got {items.dtype} of shape {shape}. Items of one "
            "number are data[:, None]."
        )
    if levels is not None and kind not in (None, "image"):
        raise DataError(f"levels are those of pixels; data of the kind '{kind}' have none.")
    if levels is not None:
        return "image", levels
    if whole and kind in (None, "image"):
        if items.dtype == np.uint8 and items.ndim == 4:
            return "image", 256
        raise DataError(
            f"Whole numbers of shape {shape} can be pixels or measurements, which have different likelihoods. Say "
            "lk.data.as_source(data, levels=...) for pixels 0..levels-1, or kind='table' for measurements."
        )
    kind = kind or AXES.get(items.ndim)
    if kind is None:
        raise DataError(
            f"Real numbers of shape {shape} can be scaled pixels, of which a density is no probability of images. Give "
            "pixels as integers, or say lk.data.as_source(data, kind=...) if a density is what you want."
        )
    return kind, None


def _arrays(data: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Return items and labels of a tensor, an array, a data set or a loader."""
    if isinstance(data, np.ndarray):
        return plain_array(data, "The array"), None
    import torch
    from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate  # noqa: F811

    if isinstance(data, torch.Tensor):
        return plain_array(data, "The tensor"), None
    loader = data if isinstance(data, DataLoader) else None
    dataset = data if loader is None else loader.dataset
    if not isinstance(dataset, Dataset) or isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise DataError(
            f"A {type(data).__name__} is no source of data. lk.fit takes a Source, a tensor, a numpy array, a torch "
            "Dataset with a length, or a DataLoader of one."
        )
    if not len(dataset):  # pyright: ignore[reportArgumentType]
        raise DataError("The data set is empty.")
    if loader is not None and not _reads_all(loader):
        raise DataError(
            "The DataLoader has a sampler of its own, but a fit reads all items of its data set. Give those that are "
            "meant: torch.utils.data.Subset(dataset, indices)."
        )
    collate = default_collate if loader is None or loader.collate_fn is None else loader.collate_fn
    read = [dataset[index] for index in range(len(dataset))]  # pyright: ignore[reportArgumentType]
    try:
        whole = collate(read)
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        raise DataError(
            f"The items of the data set cannot be put together: {str(error).splitlines()[0][:200]}. They must be "
            "numbers or tensors of one shape."
        ) from error
    given = list(whole) if isinstance(whole, tuple | list) else [whole]
    if not 1 <= len(given) <= 2 or not all(isinstance(part, torch.Tensor) for part in given):
        raise DataError("The data set must give items, or items with a label each: (item, label).")
    items = plain_array(given[0], "The data set")
    return items, class_labels(given[1], len(items)) if len(given) == 2 else None


def _reads_all(loader: DataLoader) -> bool:
    """Tell whether a loader gives every item of its data set once, in whatever order."""
    from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

    sampler = loader.sampler
    complete = isinstance(sampler, SequentialSampler)
    if isinstance(sampler, RandomSampler):
        complete = not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    return complete and type(loader.batch_sampler) in (BatchSampler, type(None))
