"""The forms in which users of scikit-learn have tables, as what the data layer reads, and back."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from likelify.data.arrow import pyarrow, shown_names
from likelify.data.dialect import is_nothing
from likelify.data.values import widened
from likelify.errors import ConfigError, DataError, UnsupportedError
from likelify.fitting.typed import arrow_table, filled_column, typed_column
from likelify.schema import ColumnSchema, numbered_columns

if TYPE_CHECKING:
    import pyarrow as pa

FormName = Literal["array", "objects", "pandas", "polars", "arrow"]
# Names of types that say all of them, of pandas, polars and Arrow.
PLAIN_TYPE = re.compile(r"\w[\w\[\], /:+-]{0,99}$")
# What an array of objects may hold.
VALUES = (str, int, float, bool, np.number, np.bool_, np.datetime64, type(None))


@dataclass(frozen=True)
class Form:
    """The form of a table that was fitted, in which draws are given back.

    Attributes:
        name: what kind of object it was.
        columns: names of its columns, by which the data layer knows them.
        dtype: of an array.
        types: of data frames the type of each column, by name; it, or what it is called.
        labels: of data frames what the columns are called there, if that is another name: a whole number, perhaps, or
            one with blanks around it.
        texts: of data frames which columns are text, or numbers that are written like it, as 20240131 is.
    """

    name: FormName
    columns: tuple[str, ...]
    dtype: np.dtype = np.dtype(np.float64)
    types: dict[str, Any] = field(default_factory=dict)
    labels: tuple[Any, ...] | None = None
    texts: tuple[str, ...] = ()

    def type_names(self) -> dict[str, str]:
        """Return what the types of columns are called, those that a name says."""
        # Types of polars have their units in brackets: Datetime(time_unit='us').
        names = {column: str(kind).partition("(")[0] for column, kind in self.types.items()}
        return {column: name for column, name in names.items() if PLAIN_TYPE.match(name)}

    def named(self, column: str | int) -> str:
        """Return the name of a column that is given by it, or by its place."""
        if self.labels is not None and column in self.labels:
            return self.columns[self.labels.index(column)]
        if isinstance(column, int | np.integer) and not isinstance(column, bool) and column not in self.columns:
            if not -len(self.columns) <= column < len(self.columns):
                raise ConfigError(f"There is no column {column}; there are {len(self.columns)}, counted from 0.")
            return self.columns[column]
        return str(column)

    def in_order(self, frame: Any) -> Any:
        """Return a data frame with its columns in the order of the table that was fitted, where labels tell that.

        Of texts scikit-learn itself compares the names.

        Raises:
            ValueError: if the labels are others.
        """
        if self.labels is None or self.name != "pandas" or type(frame).__module__.partition(".")[0] != "pandas":
            return frame
        given, wanted = (tuple(map(_plain_label, labels)) for labels in (frame.columns, self.labels))
        if given == wanted:
            return frame
        if sorted(map(str, given)) != sorted(map(str, wanted)) or len(set(given)) < len(given):
            raise ValueError(
                f"The columns are called {', '.join(map(str, given[:10]))}, and those of the table that was fitted "
                f"{', '.join(map(str, wanted[:10]))}. Give the same ones, in any order."
            )
        return frame.iloc[:, [given.index(label) for label in wanted]]

    @staticmethod
    def in_order_of(given: Any, table: Any) -> Any:
        """Return a data frame that `in_order` may have turned round with its columns in the order that they had."""
        moved = type(table).__module__.partition(".")[0] == "pandas" and not given.columns.equals(table.columns)
        return table[list(given.columns)] if moved else table

    def modelled(self, data: Any, schema: tuple[ColumnSchema, ...]) -> Any:
        """Return a table, as `as_arrow` returns it, with the columns of the model alone, as far as it has them."""
        if not isinstance(data, np.ndarray):
            return data.select([column.name for column in schema if column.name in data.column_names])
        if len(schema) == len(self.columns):
            return data
        return data[:, [self.columns.index(column.name) for column in schema]]

    def kept_labels(self) -> tuple[int | str, ...] | None:
        """Return what columns are called in a data frame, as far as a run keeps it: numbers and texts."""
        if self.labels is None:
            return None
        return tuple(map(_plain_label, self.labels))

    def restored(self, rows: np.ndarray, schema: tuple[ColumnSchema, ...]) -> Any:
        """Return rows `(n, len(schema))` as a table of this form, each column of the type that it had."""
        if self.name == "array":
            whole = self.dtype.kind in "iub" and bool(np.isfinite(rows).all()) and _holds(self.dtype, rows)
            return np.rint(rows).astype(self.dtype) if whole else rows.astype(np.float64)
        table = self._drawn(rows, schema)
        if self.name == "objects":
            cells = np.empty((len(table), len(schema)), dtype=object)
            for place in range(len(schema)):
                cells[:, place] = table.column(place).to_pylist()
            return cells
        if self.name == "pandas":
            return self._named_as_given(_typed_pandas(table.to_pandas(), self.types))
        frame = _typed_polars(table, self.types) if self.name == "polars" else _typed_arrow(table, self.types)
        return self._named_as_given(frame)

    def _drawn(self, rows: np.ndarray, schema: tuple[ColumnSchema, ...]) -> pa.Table:
        """Return rows as a table of Arrow, whose columns are text where those of the data were."""
        table = arrow_table(rows, schema, written=self.texts)
        for place, column in enumerate(schema):
            if column.comma and column.name in self.texts:
                cells = [None if value is None else str(value).replace(".", ",") for value in table[place].to_pylist()]
                table = table.set_column(place, column.name, pyarrow().array(cells, pyarrow().string()))
        return table

    def _named_as_given(self, frame: Any) -> Any:
        """Return a data frame whose columns are called as those of the table that was fitted."""
        if self.labels is None:
            return frame
        names = list(frame.column_names if self.name == "arrow" else frame.columns)
        called = [self.labels[self.columns.index(name)] for name in names]
        if self.name == "pandas":
            return frame.set_axis(called, axis=1)
        if self.name == "polars":
            return frame.rename(dict(zip(names, called, strict=True)))
        return frame.rename_columns(called)

    def filled(self, data: Any, rows: np.ndarray, missing: np.ndarray, schema: tuple[ColumnSchema, ...]) -> Any:
        """Return a table of this form, of the same columns, with what is missing taken from rows.

        Args:
            data: the table.
            rows: `(n, len(schema))`.
            missing: where values of the table are missing, of the same shape.
            schema: of those of the columns that the rows have.
        """
        places = [self.columns.index(column.name) for column in schema]
        if self.name == "array":
            filled = np.array(data, dtype=np.float64)
            filled[:, places] = np.where(missing, rows, filled[:, places])
            fits = data.dtype.kind == "f" or bool((filled == np.rint(filled)).all() and _holds(data.dtype, filled))
            return filled.astype(data.dtype) if fits else filled
        table = self._drawn(rows, schema)
        if self.name == "objects":
            filled = np.array(data, dtype=object)
            for place, column, gone in zip(places, table.columns, missing.T, strict=True):
                filled[gone, place] = np.array(column.to_pylist(), dtype=object)[gone]
            return filled
        fill = {"pandas": _filled_pandas, "polars": _filled_polars, "arrow": _filled_arrow}[self.name]
        return fill(data, places, table, missing)

    def numbers(self, data: Any, values: np.ndarray, schema: tuple[ColumnSchema, ...]) -> Any:
        """Return a number for each cell of a table `(n, len(schema))` as a table of this form.

        Args:
            data: the table, whose index they get if it is a data frame of pandas.
            values: the numbers.
            schema: of those of the columns that they are of.
        """
        if self.name in ("array", "objects"):
            return values
        named = {column.name: values[:, place] for place, column in enumerate(schema)}
        if self.name == "pandas":
            return self._named_as_given(type(data)(named, index=data.index))
        return self._named_as_given(type(data)(named) if self.name == "polars" else pyarrow().table(named))


def is_frame(data: Any) -> bool:
    """Tell whether something is a data frame: gives columns as Arrow does, and has rows and columns."""
    return hasattr(data, "__arrow_c_stream__") and len(getattr(data, "shape", ())) == 2


def _texts(table: pa.Table) -> tuple[str, ...]:
    """Return the names of the columns that are text, or numbers, which dates may be written as."""
    types = pyarrow().types
    kinds = (types.is_string, types.is_large_string, types.is_integer, types.is_floating)
    return tuple(field.name for field in table.schema if any(is_kind(field.type) for is_kind in kinds))


def form_of(data: Any, table: pa.Table | np.ndarray | None = None) -> Form:
    """Return the form of a data frame, or of an array `(n, columns)`.

    Args:
        data: what it is of.
        table: the same as `as_arrow` returns it, if that is known already.
    """
    if isinstance(data, np.ndarray):
        kind: FormName = "objects" if data.dtype.kind in "OUSmM" else "array"
        return Form(kind, numbered_columns(data.shape[1]), data.dtype)
    home = type(data).__module__.partition(".")[0]
    given = tuple(getattr(data, "column_names", data.columns))
    names = tuple(shown_names(given))
    known = cast("pa.Table", as_arrow(data) if table is None else table)
    types = data.dtypes if home == "pandas" else data.schema.values() if home == "polars" else known.schema.types
    name: FormName = "pandas" if home == "pandas" else "polars" if home == "polars" else "arrow"
    labels = None if names == given else given
    return Form(name, names, types=dict(zip(names, types, strict=True)), labels=labels, texts=_texts(known))


def unmasked(data: Any) -> Any:
    """Return an array whose masked values are missing; all else as it is."""
    if not isinstance(data, np.ma.MaskedArray):
        return data
    numbers = data.dtype.kind in "biuf"
    plain = np.array(data.data, dtype=np.float64 if numbers else object)
    plain[np.ma.getmaskarray(data)] = np.nan if numbers else None
    return plain


def as_arrow(data: Any, names: tuple[str, ...] | None = None) -> np.ndarray | pa.Table:
    """Return a table as the data layer reads it: arrays of numbers in float64, all others as a table of Arrow.

    Args:
        data: a data frame, or an array `(n, columns)`.
        names: what the columns are called, by default as they are called; its index is no column.

    Raises:
        DataError: if a column holds several types.
        UnsupportedError: if an array of objects holds other things than numbers and words.
    """
    pa = pyarrow()
    if getattr(getattr(data, "columns", None), "nlevels", 1) > 1:
        raise DataError(
            "The data frame has columns of several levels (a MultiIndex), which have no names of their own. Join them: "
            'frame.columns = ["_".join(map(str, name)) for name in frame.columns].'
        )
    if isinstance(data, np.ndarray):
        if data.dtype.kind not in "OUSmM":
            return widened(data)
        read = _moments if data.dtype.kind in "mM" else _of_objects
        columns = [read(column) for column in (data if read is _moments else np.asarray(data, dtype=object)).T]
        return pa.table(columns, names=list(names or numbered_columns(data.shape[1])))
    try:
        if type(data).__module__.partition(".")[0] == "pandas":
            table = pa.Table.from_pandas(data, preserve_index=False, nthreads=1)
        elif type(data).__module__.partition(".")[0] == "polars":
            import polars as pl

            # Categories are not views of texts there, of which Arrow can do little.
            table = data.to_arrow(compat_level=pl.CompatLevel.oldest())
        else:
            table = data if isinstance(data, pa.Table) else pa.table(data)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(_unreadable(data, error)) from error
    for place, name in enumerate(table.column_names):
        table = table.set_column(place, name, _without_views(table.column(place)))
    # What pandas writes of itself tells of an index, which there is not.
    return table.rename_columns(list(names or shown_names(table.column_names))).replace_schema_metadata(None)


def _unreadable(data: Any, error: Exception) -> str:
    """Say which column of a data frame cannot be read, and what to do."""
    pa = pyarrow()
    for name in getattr(data, "columns", ()) if type(data).__module__.partition(".")[0] == "pandas" else ():
        column = data[name]
        try:
            pa.Array.from_pandas(column)
        except (pa.ArrowException, TypeError, ValueError):
            remedy = "Make words of it (.astype(str)) or numbers (pandas.to_numeric), or leave it out."
            if hasattr(column, "sparse"):
                remedy = "Make it dense: .sparse.to_dense()."
            what = f"The column '{name}' of the data frame ({column.dtype})"
            return f"{what} holds several types, or what cannot be read. {remedy}"
    return f"The data frame has a column of several types or of objects: {error}"[:300]


def _plain_label(label: Any) -> int | str:
    """Return a label of a column as far as a run keeps it: a number or a text."""
    return int(label) if isinstance(label, int | np.integer) else str(label)


def _without_views(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column with texts where it has views of them or codes of views, of which rows cannot be taken."""
    pa = pyarrow()
    words = pa.large_string()
    if pa.types.is_string_view(column.type):
        return column.cast(words)
    if not (pa.types.is_dictionary(column.type) and pa.types.is_string_view(column.type.value_type)):
        return column
    chunks = [pa.DictionaryArray.from_arrays(part.indices, part.dictionary.cast(words)) for part in column.chunks]
    return pa.chunked_array(chunks, pa.dictionary(column.type.index_type, words))


def _moments(column: np.ndarray) -> pa.Array:
    """Return a column of dates, times or lengths of time of numpy, of which Arrow knows not all units."""
    unit = np.datetime_data(column.dtype)[0]
    return pyarrow().array(column if unit in ("s", "ms", "us", "ns") else column.astype(f"{column.dtype.kind}8[s]"))


def _of_objects(column: np.ndarray) -> pa.Array:
    """Return a column of Python objects as one of numbers, of moments of numpy, or else of words."""
    pa = pyarrow()
    present = [value for value in column if not is_nothing(value)]
    if present and all(isinstance(value, np.datetime64) for value in present):
        return _moments(np.array([np.datetime64("NaT") if is_nothing(value) else value for value in column], "M8[us]"))
    for value in column:
        if not isinstance(value, VALUES) and not hasattr(value, "isoformat"):
            raise UnsupportedError(f"A value of X: argument must be a string or a number, not '{type(value).__name__}'")
    missing = [is_nothing(value) for value in column]
    if not all(missing) and all(
        gone or isinstance(v, bool | np.bool_) for v, gone in zip(column, missing, strict=True)
    ):
        return pa.array([None if gone else bool(v) for v, gone in zip(column, missing, strict=True)], pa.bool_())
    if not any(isinstance(value, str) or hasattr(value, "isoformat") for value in column):
        numbers = [np.nan if gone else float(value) for value, gone in zip(column, missing, strict=True)]
        return pa.array(numbers, pa.float64())
    return pa.array([None if gone else str(value) for value, gone in zip(column, missing, strict=True)], pa.string())


def _typed_pandas(frame: Any, types: dict[str, Any]) -> Any:
    """Give columns the types that they had, where they still fit."""
    for name in set(frame.columns) & set(types):
        typed = _typed_series(frame[name], types[name])
        if typed is not None:
            frame[name] = typed
    return frame


def _typed_series(values: Any, dtype: Any) -> Any:
    """Return a column of pandas in another type; None if a value does not fit into it."""
    import pandas

    # Of its stubs a checker knows less than of itself.
    pd: Any = pandas
    try:
        dtype = pd.api.types.pandas_dtype(dtype)
        categories = dtype.categories if isinstance(dtype, pd.CategoricalDtype) else None
        if categories is not None and not pd.api.types.is_string_dtype(categories.dtype):
            # Categories that are no words are drawn as the words that they are written as, 1.0 perhaps as 1.
            written = {_as_written(category): category for category in categories}
            given = values.astype(object).map(lambda value: written.get(_as_written(value)), na_action="ignore")
            return given.astype(dtype) if int(given.isna().sum()) == int(values.isna().sum()) else None
        plain = getattr(dtype, "numpy_dtype", dtype)
        if getattr(plain, "kind", "") in ("i", "u", "f"):
            numbers: Any = pd.to_numeric(values)
            if not _holds(plain, numbers.to_numpy(dtype=np.float64, na_value=np.nan)):
                return None
        return values.astype(dtype)
    except (TypeError, ValueError, OverflowError):
        # Such as a value that is missing in a column of whole numbers that had none.
        return None


def _as_written(value: Any) -> float | str:
    """Return what a value is written as: a number, however it is written, or else a word."""
    try:
        return float(str(value))
    except ValueError:
        return str(value)


def _holds(dtype: Any, values: np.ndarray) -> bool:
    """Tell whether a type of numbers has room for values; what is missing aside."""
    known = values[np.isfinite(values)]
    limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype) if dtype.kind == "f" else None
    if limits is None or not len(known):
        return True
    return float(limits.min) <= known.min() and known.max() <= float(limits.max)


def _typed_polars(table: pa.Table, types: dict[str, Any]) -> Any:
    import polars as pl

    frame = cast("pl.DataFrame", pl.from_arrow(table))
    kinds = {name: getattr(pl, kind, None) if isinstance(kind, str) else kind for name, kind in types.items()}
    # A name alone says neither the words of an Enum nor the digits of a Decimal: such columns stay as Arrow has them,
    # as does what is no name of a type, and times that have a zone.
    partly = (pl.Enum, pl.Decimal, pl.List, pl.Array, pl.Struct)
    zoned = {name for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime) and kind.time_zone}
    known = {
        name: kind
        for name, kind in kinds.items()
        if isinstance(kind, pl.DataType)
        or (isinstance(kind, type) and issubclass(kind, pl.DataType) and kind not in partly and name not in zoned)
    }
    columns = [
        _typed_polars_column(column, known[column.name]) if column.name in known else column
        for column in frame.get_columns()
    ]
    return frame.with_columns(columns)


def _typed_polars_column(column: Any, kind: Any) -> Any:
    """Return a column in another type, or as it is if a value does not fit into it."""
    typed = column.cast(kind, strict=False)
    return typed if typed.null_count() == column.null_count() else column


def _filled_pandas(frame: Any, places: list[int], table: pa.Table, missing: np.ndarray) -> Any:
    filled, drawn = frame.copy(), table.to_pandas()
    for place, name, gone in zip(places, table.column_names, missing.T, strict=True):
        column = frame.iloc[:, place]
        if gone.any():
            typed, plain = drawn[name].set_axis(frame.index), column.dtype.kind in "iu"
            # What is drawn of a real number is none of the whole numbers that a table happens to hold.
            cut = plain and bool((typed[gone] != typed[gone].round()).any())
            fitting = None if cut else _typed_series(typed, column.dtype)
            if fitting is None and str(column.dtype).startswith(("Int", "UInt")):
                column, fitting = column.astype("Int64"), typed.astype("Int64")
            filled.isetitem(place, column.where(~gone, typed if fitting is None else fitting))
    return filled


def _filled_polars(frame: Any, places: list[int], table: pa.Table, missing: np.ndarray) -> Any:
    import polars as pl

    drawn, columns = pl.DataFrame(table), []
    for place, known, gone in zip(places, drawn.get_columns(), missing.T, strict=True):
        column = frame.to_series(place)
        typed = _typed_polars_column(known, column.dtype)
        # Where a narrow type has no room for what is drawn, the column is a wide one then.
        column = column if typed.dtype == column.dtype else column.cast(typed.dtype)
        columns.append(column.zip_with(pl.Series(~gone), typed.alias(column.name)))
    return frame.with_columns(columns)


def _filled_arrow(table: pa.Table, places: list[int], drawn: pa.Table, missing: np.ndarray) -> pa.Table:
    for place, column, gone in zip(places, drawn.columns, missing.T, strict=True):
        filled = filled_column(_without_views(table.column(place)), column, gone)
        table = table.set_column(place, table.column_names[place], filled)
    return table


def _typed_arrow(table: pa.Table, types: dict[str, Any]) -> Any:
    pa = pyarrow()
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = types.get(name, column.type)
        # Of names, some are none of a type that stands alone: a ValueError.
        with suppress(ValueError):
            column = typed_column(column, pa.type_for_alias(kind) if isinstance(kind, str) else kind)
        columns.append(column)
    return pa.table(columns, names=table.column_names)
