"""Data in memory as a source: tensors, arrays, data frames, torch data sets and loaders."""

from __future__ import annotations

import sys
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from likelify.data.formats import frame_of
from likelify.data.frames import Frame
from likelify.data.graph_files import framed_graphs
from likelify.data.graph_forms import Forms, Found, graphs_in, is_pyg, point_sets
from likelify.data.graphs import GraphSource, require_several
from likelify.data.hub import datasets_source, is_dataset
from likelify.data.layout import Channels, find_layout
from likelify.data.lists import ListFrame
from likelify.data.npy import ArrayFrame, Mapped
from likelify.data.options import SourceOptions
from likelify.data.source import ArraySource, Parts, Source, shuffled, sizes_of
from likelify.data.table_files import read_table
from likelify.data.tables import TableSource
from likelify.data.values import class_labels, plain_array, table_rows
from likelify.errors import DataError
from likelify.names import ItemKind
from likelify.schema import numbered_columns

if TYPE_CHECKING:
    from torch.utils.data import DataLoader


def as_source(
    data: Any,
    *,
    kind: ItemKind | None = None,
    levels: int | None = None,
    channels: Channels | None = None,
    labels: Any = None,
    validation: float = 0.1,
    seed: int = 0,
    name: str = "data",
    **columns: Any,
) -> Source:
    """Make a source of data in memory, with a training and a validation split; the test split is empty.

    What an item is follows from plain rules:

    - bytes (`uint8`) with four axes are images of 256 levels, truth values of 2; their channels are the axis after the
      items or the last, whichever has at most 4 entries;
    - bytes `(n, height, width)` of which both are equal are grey images;
    - other integers need `levels` to be images, or `kind="table"` to be measurements that happen to be whole;
    - real numbers `(n, columns)` are rows of a table, `(n, channels, length)` are sequences;
    - real numbers with more axes need a `kind`: pixels should be given as integers, since a density of scaled pixels is
      no probability of images;
    - a data frame of pandas, polars or pyarrow is a table (with `graphs=` one of the nodes of graphs), and so is an
      array of objects or words `(n, columns)`; the index of a frame is left out;
    - graphs of networkx or of PyTorch Geometric, one by one in a list or data set, a `Batch` of graphs and `GraphItems`
      are graphs; so are arrays `(graphs, nodes, features)` and lists of arrays `(nodes, features)` with `kind="graph"`:
      sets of points, each a complete graph;
    - a data set of the library `datasets` is what its columns say, with its own splits; see `hub.datasets_source`.

    Items are shuffled by `numpy.random.default_rng(seed).permutation`, and the last share of them validates. A torch
    data set is read once, from its first item to its last, and kept in memory; what it gives beside the items, such as
    `(image, label)`, must be one integer for each, and is their label. Of a `DataLoader` the data set and the function
    that collates are used; batches and their order are those of the fit.

    Args:
        data: a source, which is returned as it is; or a tensor, an array, a data frame, graphs, a torch data set with a
            length, or a loader of one.
        kind: of the items, where the rules leave it open.
        levels: number of values of an element, of images or sequences of whole numbers.
        channels: `"first"` or `"last"`, where the axes of images leave it open.
        labels: classes `0 .. k - 1` of the items `(n,)`; of a data frame also the name of a column, of graphs of
            networkx that of an entry of `graph.graph`.
        validation: share of the items that validates.
        seed: of the shuffling.
        name: of the source.
        **columns: of tables, what is said of their columns, as `SourceOptions` takes it: `columns`, `drop`, `given`,
            `dependent`. Of the nodes of graphs `columns` and `drop` say which attributes are their features. `graphs`
            names the column of a table of nodes that says which graph a node belongs to, and `edges` is the table of
            its edges, a data frame or a path, or None for sets of points; see `graph_files.graph_file`.

    Raises:
        DataError: if the rules do not decide, there are fewer than 10 items, or values do not fit.
        ConfigError: if what is said of columns does not fit.

    Example:
        >>> source = as_source(np.random.default_rng(0).normal(size=(50, 3)))
        >>> source.kind, source.size("train"), source.size("validation"), source.size("test")
        ('table', 45, 5, 0)
    """
    if isinstance(data, Source):
        return data
    if not isinstance(validation, Real) or not 0 < validation < 1:
        raise DataError(f"The share that validates must lie between 0 and 1, got {validation!r}.")
    if is_dataset(data):
        given = {"kind": kind, "levels": levels, "channels": channels, "labels": labels}
        return datasets_source(data, SourceOptions(**given, **columns), name)
    edges = columns.pop("edges", None)
    options = SourceOptions(**columns, labels=labels if isinstance(labels, str) else None)
    found = graphs_of(data, options, kind, labels, edges)
    if found is not None:
        if levels is not None or channels is not None or kind not in (None, "graph"):
            raise DataError("These are graphs: levels=, channels= and other kinds have no effect on them.")
        return _of_graphs(found, options, validation, seed, name)
    frame = table_in(data)
    if frame is not None:
        if kind not in (None, "table") or levels is not None or channels is not None:
            raise DataError("A data frame is a table: kind=, levels= and channels= have no effect on it.")
        return _of_frame(frame, options, labels, validation, seed, name)
    items, found = _arrays(data)
    given = found if labels is None else class_labels(labels, len(items))
    layout = find_layout("The data", items, kind=kind, levels=levels, channels=channels)
    if layout.kind == "table":
        frame = ArrayFrame("The table", Mapped(Path("the table"), table_rows(items, "The table")))
        return _of_frame(frame, options, given, validation, seed, name)
    if options.chosen():
        raise DataError(f"{', '.join(f'{word}=' for word in options.chosen())} have no effect: these are no tables.")
    parts, described = _held_out(len(items), validation, seed, layout.said)
    facts = {"kind": layout.kind, "levels": layout.levels, "description": described}
    return ArraySource.cut(name, layout.arranged(items), parts, labels=given, **facts)


def graphs_of(
    data: Any, options: SourceOptions, kind: ItemKind | None = None, labels: Any = None, edges: Any = None
) -> Found | None:
    """Return data in memory as graphs, if that is what they are, or are to be by their kind; else None.

    Args:
        data: what `as_source` takes.
        options: `columns`, `drop` and `labels` name attributes.
        kind: `"graph"` makes sets of points of arrays.
        labels: classes of the graphs, where they are not in them.
        edges: of a data frame of nodes.

    Raises:
        DataError: if they are graphs that cannot be read, or `kind` is that of graphs and they are none.
    """
    frame = frame_of(data)
    if frame is not None and (kind == "graph" or options.graphs or edges is not None):
        return framed_graphs(frame, edges, options)
    if edges is not None or options.graphs:
        raise DataError(f"graphs= and edges= are for data frames of nodes, and this is a {type(data).__name__}.")
    forms = Forms(options.kept, options.drop or (), "weight", options.labels or "label")
    given = None if labels is None or isinstance(labels, str) else labels
    found = graphs_in(_pyg_graphs(data) or data, forms, given)
    if found is None and kind == "graph":
        points = data if isinstance(data, list | tuple) else _arrays(data)[0]
        found = graphs_in(point_sets(points), forms, given)
    return found


def _pyg_graphs(data: Any) -> list[Any] | None:
    """Return the graphs of a data set of PyTorch Geometric, or of a loader; None if it is something else."""
    import torch.utils.data as torch_data

    # Items can be such graphs only where their class was imported; reading one may take long.
    if "torch_geometric.data" not in sys.modules or not isinstance(data, torch_data.Dataset | torch_data.DataLoader):
        return None
    dataset: Any = data.dataset if isinstance(data, torch_data.DataLoader) else data
    if not hasattr(dataset, "__len__") or not len(dataset) or not is_pyg(dataset[0]):
        return None
    if isinstance(data, torch_data.DataLoader):
        _require_all(data)
    return [dataset[index] for index in range(len(dataset))]


def _of_graphs(found: Found, options: SourceOptions, validation: float, seed: int, name: str) -> GraphSource:
    if idle := [word for word in options.chosen() if word not in ("columns", "drop", "labels", "graphs", "missing")]:
        raise DataError(f"{', '.join(f'{word}=' for word in idle)} have no effect on graphs.")
    count = len(found.items.sizes)
    require_several(count, "The data")
    parts, described = _held_out(count, validation, seed, "; ".join(found.said), "graphs")
    facts = {"columns": found.columns, "class_names": found.class_names, "description": described}
    return GraphSource.cut(name, found.items, parts, **facts)


def _held_out(count: int, validation: float, seed: int, said: str = "", what: str = "items") -> tuple[Parts, str]:
    held = min(max(1, round(validation * count)), count - 1)
    parts = shuffled(count, validation=held, seed=seed)
    said = f" ({said})" if said else ""
    return parts, f"{count} {what} in memory{said}; {sizes_of(parts)} by default_rng({seed}).permutation"


def table_in(data: Any) -> Frame | None:
    """Return a data frame, or an array of objects or words `(rows, columns)`, as a table; None if it is neither."""
    if isinstance(data, np.ndarray) and data.ndim == 2 and data.dtype.kind in "OUSM" and data.shape[1]:
        return ListFrame.of_rows("The table", data, numbered_columns(data.shape[1]), named=False)
    return frame_of(data)


def _of_frame(
    frame: Frame, options: SourceOptions, labels: Any, validation: float, seed: int, name: str
) -> TableSource:
    content = read_table(frame, options)
    given = content.labels if labels is None or options.labels else class_labels(labels, len(content.rows))
    parts, described = _held_out(len(content.rows), validation, seed)
    facts = {"columns": content.columns, "told": content.told, "class_names": content.class_names}
    facts["given"] = options.given or ()
    described += content.said
    return TableSource.cut(name, content.rows, parts, labels=given, description=described, **facts)


def _arrays(data: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Return items and labels of a tensor, an array, a data set or a loader."""
    if isinstance(data, np.ndarray):
        return plain_array(data, "The array"), None
    import torch

    if isinstance(data, torch.Tensor):
        return plain_array(data, "The tensor"), None
    dataset, collate = dataset_of(data)
    return collated([dataset[index] for index in range(len(dataset))], collate)


def dataset_of(data: Any) -> tuple[Any, Callable[..., Any]]:
    """Return a torch data set, or that of a loader, and what puts its items together.

    Raises:
        DataError: if it is neither, has no length or no items, or the loader does not give all of them.
    """
    from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate  # noqa: F811

    loader = data if isinstance(data, DataLoader) else None
    dataset = data if loader is None else loader.dataset
    if not isinstance(dataset, Dataset) or isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise DataError(
            f"A {type(data).__name__} is no source of data. lk.fit takes a Source, a tensor, a numpy array, a data "
            "frame, a torch Dataset with a length, or a DataLoader of one."
        )
    if not len(dataset):  # pyright: ignore[reportArgumentType]
        raise DataError("The data set is empty.")
    if loader is not None:
        _require_all(loader)
    return dataset, default_collate if loader is None or loader.collate_fn is None else loader.collate_fn


def collated(read: list[Any], collate: Callable[..., Any]) -> tuple[np.ndarray, np.ndarray | None]:
    """Put items of a data set together, and their labels, if it gives labels.

    Raises:
        DataError: if they are not numbers of one shape, with at most one label each.
    """
    import torch

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


def _require_all(loader: DataLoader) -> None:
    """Refuse a loader that does not give all items."""
    if not _reads_all(loader):
        raise DataError(
            "The DataLoader has a sampler of its own, but a fit reads all items of its data set. Give those that are "
            "meant: torch.utils.data.Subset(dataset, indices)."
        )


def _reads_all(loader: DataLoader) -> bool:
    """Tell whether a loader gives every item of its data set once, in whatever order."""
    from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

    sampler = loader.sampler
    complete = isinstance(sampler, SequentialSampler)
    if isinstance(sampler, RandomSampler):
        complete = not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    return complete and type(loader.batch_sampler) in (BatchSampler, type(None))
