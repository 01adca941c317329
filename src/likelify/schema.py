"""What the columns of a table mean: their kinds, states and bounds, as plain data that belong to a fitted model."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from pydantic import ConfigDict, Field, model_validator

from likelify.errors import ConfigError, unknown_word
from likelify.names import ColumnKind
from likelify.settings import Settings

if TYPE_CHECKING:
    import numpy as np

Name = Annotated[str, Field(min_length=1, max_length=1000)]
# More states of one column are no classes of anything, and each costs a weight of the model.
MOST_STATES = 2**12
# How far from a multiple of its step a value may be, in steps.
OFF_STEP = 1e-6
# Seconds.
DAY = 86400


def is_clock(written: str | None) -> bool:
    """Tell whether dates that are written so are times of day."""
    return written is not None and not re.search("%[dbBmyYj]", written)


class LinearFunction(Settings):
    """A column that is a sum of multiples of others.

    Attributes:
        of: names of the others; none if the column has one value only.
        factors: of the others.
        offset: what is added.
        tolerance: how far a value may be from the sum, in the units of the column.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    of: tuple[Name, ...] = ()
    factors: tuple[float, ...] = ()
    offset: float = 0.0
    tolerance: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.of) != len(self.factors):
            raise ValueError(f"there are {len(self.factors)} factors for {len(self.of)} columns")
        return self


class ColumnSchema(Settings):
    """What one column of a table holds, and how a model of it is to treat its values.

    In the rows of a table every value is a number in float64: of categories, ordered ones too, the place in
    `categories`; of truth values 0 or 1; of dates the days or seconds since the start of 1970 (of times of day the
    seconds since midnight); NaN where a value is missing.

    A value is in one of the `size` states of its column: one of `states`, each of which has a probability of its own;
    or else `continuous`, where there is one, which has a density, or probabilities of whole steps; or `other`, the last
    state, for what is missing or was never seen. A value that was never seen is none of the states and no multiple of
    the step (of a word: the place -1). All of these together have about the probability of one row of the sample.

    Attributes:
        name: of the column.
        kind: real, integer, category, ordered, boolean or date.
        categories: the words that the places stand for; of the kinds category and ordered, else None.
        states: values with a probability of their own: all values of categories and truth values and of integers of few
            values; of other columns those that are met far too often for a density, such as zeros and caps.
        rest: what there is for all other values: a `density`, `steps` (probabilities of whole multiples of `step`), or
            `none`.
        step: distance of neighbouring values of integers and dates; of real numbers the largest step of which all are
            multiples as they are written (0.01, or 0.25): draws are rounded to it, and the density knows nothing of it.
        decimals: of numbers that the data have as text, all with as many decimals, how many; else None.
        comma: whether numbers that the data have as text have decimal commas.
        lower: end of the range.
        upper: end of the range.
        seen: smallest and largest value of the data, of columns whose values are not all `states`.
        declared: the user gave the range, so nothing lies outside of it. One that was found is believed up to a
            probability below that of one row of the sample.
        missing: values may be missing.
        written: of dates, how they are written, as `strptime` knows it.
        truth: of truth values, the words for false and true where the data are text and have one for each.
        unit: of dates, what is counted; of numbers that are lengths of time, seconds.
        zone: of moments in a time zone, its name; they are counted by its clocks, so that its days are days.
        function: the column follows from others, or has one value only; it has no density, and no place in the model.
            Where one of these others is missing its own value counts as unseen, whatever it is.
        given: the column is a condition: the model is of the others, given it.
        said: how that was decided, in words.

    Example:
        >>> age = ColumnSchema(name="age", kind="integer", rest="steps", step=1.0, lower=0.0)
        >>> age.size, age.continuous, age.other
        (2, 0, 1)
        >>> ColumnSchema.category("colour", ("blue", "red")).states
        (0.0, 1.0)
    """

    model_config = ConfigDict(allow_inf_nan=False)

    name: Name
    kind: ColumnKind = "real"
    categories: tuple[str, ...] | None = Field(default=None, max_length=MOST_STATES)
    states: tuple[float, ...] = Field(default=(), max_length=MOST_STATES)
    rest: Literal["density", "steps", "none"] = "density"
    step: float | None = Field(default=None, gt=0)
    decimals: int | None = Field(default=None, ge=1, le=10)
    comma: bool = False
    lower: float | None = None
    upper: float | None = None
    seen: tuple[float, float] | None = None
    declared: bool = False
    missing: bool = False
    written: str | None = Field(default=None, max_length=100)
    truth: tuple[str, str] | None = None
    unit: Literal["day", "second"] | None = None
    zone: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_+:/-]{1,100}$")
    function: LinearFunction | None = None
    given: bool = False
    said: str = ""

    @classmethod
    def category(cls, name: str, categories: Sequence[str], **settings: object) -> ColumnSchema:
        """Return the schema of a column of words."""
        states = tuple(map(float, range(len(categories))))
        facts = {"kind": "category", "categories": tuple(categories), "states": states, "rest": "none"}
        return cls(name=name, **facts | settings)

    @classmethod
    def meant(cls) -> str:
        """Return what these settings are, for errors."""
        return "facts of a column"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.states)) < len(self.states):
            raise ValueError(f"a state of '{self.name}' is named twice")
        if (self.kind in ("category", "ordered")) != (self.categories is not None):
            raise ValueError(f"'{self.name}' must have categories if it is of words, and only then")
        if self.rest == "steps" and self.step is None:
            raise ValueError(f"'{self.name}' has no step")
        if self.lower is not None and self.upper is not None and not self.lower < self.upper:
            raise ValueError(f"'{self.name}' ends at {self.upper} before it starts at {self.lower}")
        if self.rest == "none" and not self.states and self.function is None:
            raise ValueError(f"'{self.name}' has no values")
        return self

    @property
    def is_modelled(self) -> bool:
        """Whether the column has a place in the model."""
        return self.function is None

    @property
    def continuous(self) -> int | None:
        """The number of the state that has a density or steps; None if there is none."""
        return None if self.rest == "none" else len(self.states)

    @property
    def other(self) -> int:
        """The number of the state of what is missing or was never seen."""
        return len(self.states) + (self.rest != "none")

    @property
    def size(self) -> int:
        """Number of states."""
        return self.other + 1

    @property
    def is_plain(self) -> bool:
        """Whether all values have a density, and none is missing: what models of real numbers take."""
        return self.rest == "density" and not self.states and not self.missing and self.function is None

    @property
    def range(self) -> tuple[float, float]:
        """Both ends of the range, infinite where there is none."""
        return (-math.inf if self.lower is None else self.lower, math.inf if self.upper is None else self.upper)


def all_plain(schema: Sequence[ColumnSchema]) -> bool:
    """Tell whether all columns are real numbers without missing values, and none is a condition."""
    return all(column.is_plain and not column.given for column in schema)


def mixed_in(column: ColumnSchema) -> str:
    """Return why a model of rows of real numbers cannot take a column, as "columns ..."; nothing if it can.

    Whole numbers, dates and truth values pass: such a model has a density of them as of any numbers.
    """
    if column.categories is not None:
        return "of words"
    if column.function is not None:
        return "that follow from others, or have one value only"
    if column.missing:
        return "with missing values"
    return "that are conditions" if column.given else ""


def numbered_columns(count: int) -> tuple[str, ...]:
    """Return what the columns of a table without names are called."""
    return tuple(f"column {number}" for number in range(1, count + 1))


def real_columns(columns: int | Sequence[str]) -> tuple[ColumnSchema, ...]:
    """Return the schema of a table of real numbers: of so many columns, or of columns of those names."""
    names = numbered_columns(columns) if isinstance(columns, int) else columns
    return tuple(ColumnSchema(name=name) for name in names)


class PlacedFunction(NamedTuple):
    """A column that follows from others, by the places of all of them in the rows of a table."""

    place: int
    sources: tuple[int, ...]
    factors: tuple[float, ...]
    offset: float
    tolerance: float

    def terms(self, columns: Sequence[Any]) -> list[Any]:
        """Return what each source adds, of arrays or tensors of all columns."""
        return [factor * columns[source] for source, factor in zip(self.sources, self.factors, strict=True)]

    def value(self, columns: Sequence[Any], zero: Any = 0.0) -> Any:
        """Return the values, NaN where a source is; `zero` gives those of a constant their shape."""
        return sum(self.terms(columns), zero + self.offset)


def functions_in_order(schema: Sequence[ColumnSchema]) -> tuple[PlacedFunction, ...]:
    """Return the columns that follow from others, each behind those that it follows from.

    Raises:
        ConfigError: if one follows from a column that is not there, or some from one another.
    """
    places = {column.name: place for place, column in enumerate(schema)}
    known = {place for place, column in enumerate(schema) if column.function is None}
    waiting = [_placed(place, column, places) for place, column in enumerate(schema) if column.function is not None]
    ordered: list[PlacedFunction] = []
    while waiting:
        ready = [function for function in waiting if known.issuperset(function.sources)]
        if not ready:
            names = ", ".join(f"'{schema[function.place].name}'" for function in waiting)
            raise ConfigError(f"The columns {names} are functions of one another, so none of them can be computed.")
        ordered += ready
        known |= {function.place for function in ready}
        waiting = [function for function in waiting if function not in ready]
    return tuple(ordered)


def _placed(place: int, column: ColumnSchema, places: dict[str, int]) -> PlacedFunction:
    function = column.function or LinearFunction()
    for name in function.of:
        if name not in places:
            raise ConfigError(unknown_word(f"source of the column '{column.name}'", name, places))
    sources = tuple(places[name] for name in function.of)
    return PlacedFunction(place, sources, function.factors, function.offset, function.tolerance)


def compute_functions(rows: np.ndarray, schema: Sequence[ColumnSchema], but: Collection[str] = ()) -> None:
    """Write into rows `(..., columns)` the columns that follow from others, but for some; NaN where a source is."""
    columns = [rows[..., place] for place in range(len(schema))]
    for function in functions_in_order(schema):
        if schema[function.place].name not in but:
            rows[..., function.place] = function.value(columns)
