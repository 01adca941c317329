"""How the user's files are to be read, where there is more than one way."""

import csv
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from likelify.data.told import Told, read_wishes, split_wishes
from likelify.settings import Settings

# Options of tables that have columns.
OF_COLUMNS = ("columns", "drop", "labels", "missing", "given", "dependent")
# Larger images than these are no items of a density model, and a size from a foreign folder bounds the memory.
LARGEST_SIDE = 4096
Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]


def _size(value: Any) -> Any:
    """Return height and width of `32`, `"32"` or `"32x48"`; what is something else as it is."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return (value, value)
    if isinstance(value, int):
        raise ValueError(f"{value} is no size: an image has a side of 1 at least.")
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([0-9]{1,9})(?:\s*[xX]\s*([0-9]{1,9}))?\s*", value)
    if match is None:
        raise ValueError(f"'{value[:40]}' is no size. Write it like 32, or 32x48 for height and width.")
    return (int(match[1]), int(match[2] or match[1]))


def _names(value: Any) -> Any:
    """Return the names of a list between commas, which may be quoted as in CSV; what is something else as it is."""
    if not isinstance(value, str):
        return value
    return [name.strip() for name in next(csv.reader([value], skipinitialspace=True), [])]


def _columns(value: Any) -> Any:
    """Return names, or what is wished of columns by their names; what is something else as it is."""
    if isinstance(value, str):
        if not value.strip():
            raise ValueError("no column is named.")
        return split_wishes(value) or _names(value)
    return dict(value) if isinstance(value, Mapping) else value


def _readable(value: Any) -> Any:
    """Refuse wishes that say nothing."""
    if isinstance(value, dict):
        read_wishes(value)
    return value


def _whole_path(value: str) -> str:
    """Return a path from the root, so that it is the same file wherever it is opened again."""
    try:
        return str(Path(value).expanduser().resolve())
    except (RuntimeError, OSError, ValueError) as error:
        raise ValueError(f"'{value[:200]}' is no path of a file.") from error


Name = Annotated[str, Field(min_length=1, max_length=1000)]
Names = Annotated[tuple[Name, ...], Field(min_length=1, max_length=2**16), BeforeValidator(_names)]
Wish = Annotated[str, Field(min_length=1, max_length=2**16)]
Columns = Annotated[
    Annotated[tuple[Name, ...], Field(min_length=1, max_length=2**16)]
    | Annotated[dict[Name, Wish], Field(min_length=1, max_length=2**16)],
    BeforeValidator(_columns),
    AfterValidator(_readable),
]


class SourceOptions(Settings):
    """How a source reads the user's files; what is None is decided by the source, which says what it decided.

    A source that has no use for an option that is given refuses it.

    Attributes:
        image_size: height and width that images are brought to.
        crop: how they are brought to it: `centre` reduces an image until it just covers the size and cuts off what
            stands out on both sides, `stretch` keeps all of it and changes its aspect.
        labels: what the classes of items are: `folders` for the subfolders that images lie in, or the name of a column.
        skip_unreadable: leave out files that cannot be read instead of refusing them all.
        channels: whether the channels of an array of images are its first axis after the items or its last.
        kind: what the items of an array are, where its shape leaves it open: `image`, `sequence` or `table`; `graph`
            for sets of points `(graphs, nodes, features)`.
        levels: number of values that an element of an array of whole numbers can take, which are 0 to one less.
        columns: names of the columns of a table to keep, in that order; or what some of them are taken for,
            `age=integer[0,120],zip=category,price=real[0,)`, in Python `{"zip": "category"}`, which keeps all.
        drop: names of the columns of a table to leave out; `auto` stands for all that are proposed for it.
        missing: further words of a table that stand for missing values, in all its columns: `n.a.,-,unknown`. A number
            among them stands for itself however it is written.
        given: names of the columns of a table that are conditions: the model is of the others, given them.
        graphs: of a table of nodes, the column of the graph that a node belongs to; a table is one of nodes only if
            this is said, or its edges are named.
        edges: of a table of nodes, the file of its edges.
        dependent: what becomes of columns that follow from others: `refuse` names them (by default), `drop` leaves them
            out, `function` keeps them as what they are, a function of the others.

    Example:
        >>> SourceOptions(image_size="32x48").image_size
        (32, 48)
        >>> SourceOptions(columns="zip=category,price=real[0,)").columns
        {'zip': 'category', 'price': 'real[0,)'}
    """

    image_size: Annotated[tuple[Side, Side] | None, BeforeValidator(_size)] = None
    crop: Literal["centre", "stretch"] | None = None
    labels: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    skip_unreadable: bool | None = None
    channels: Literal["first", "last"] | None = None
    kind: Literal["image", "sequence", "table", "graph"] | None = None
    levels: Annotated[int, Field(ge=2, le=2**31 - 1)] | None = None
    columns: Columns | None = None
    drop: Names | None = None
    missing: Names | None = None
    given: Names | None = None
    graphs: Name | None = None
    edges: Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_whole_path)] | None = None
    dependent: Literal["refuse", "drop", "function"] | None = None

    @classmethod
    def meant(cls) -> str:
        """Return what these settings are, for errors."""
        return "options of the data"

    @property
    def kept(self) -> tuple[str, ...] | None:
        """The names of the columns to keep, None for all."""
        return None if isinstance(self.columns, dict) else self.columns

    @property
    def told(self) -> dict[str, Told]:
        """What columns are taken for, by their names."""
        return read_wishes(self.columns) if isinstance(self.columns, dict) else {}

    def idle(self, names: Collection[str]) -> list[str]:
        """Return the words of the command line for those among some options that were given."""
        return [f"--{name.replace('_', '-')}" for name in self.chosen() if name in names]

    def chosen(self) -> dict[str, Any]:
        """Return the options that were given, by name."""
        return {name: value for name, value in self if value is not None}
