"""Rows of a run given some of their columns, and rows whose missing values are filled in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from likelify.data import Batch, Facts, Items
from likelify.data.arrow import pyarrow
from likelify.distributions.mixture import can_complete
from likelify.errors import ConfigError, DataError, unknown_word
from likelify.fitting.conditioning.asked import kept_values
from likelify.fitting.conditioning.given import Density, Drawn, OnShare, draw_given, log_prob_of, quantiles
from likelify.fitting.drawing.conditions import Conditions, rows_of
from likelify.fitting.drawing.draw import check_seed, whole_draws
from likelify.fitting.drawing.formats import TABLES, column_names, free_name
from likelify.fitting.drawing.writing import check_file
from likelify.fitting.files import beside, give_name, make_folder, refuse_taken
from likelify.fitting.scoring.scoring import items_of
from likelify.fitting.scoring.tables import as_schema, carried_column
from likelify.fitting.sources import refuse_other_units
from likelify.fitting.table_files import as_text, write_tables
from likelify.fitting.typed import arrow_table, filled_column
from likelify.schema import ColumnSchema
from likelify.seeding import chunk_seed

if TYPE_CHECKING:
    import pyarrow as pa

    from likelify.fitting.run import Run
    from likelify.flows import Flow

# Draws that are made together. Each such part has a seed of its own.
PART = 4096


@dataclass
class Worth:
    """What draws are worth, added up over the parts.

    Attributes:
        rows: how many rows there were.
        exact: of these, how many have independent draws from the conditional distribution itself.
        smallest: effective sample size among the others; infinite without any.
        filled: values that were filled in.
    """

    rows: int = 0
    exact: int = 0
    smallest: float = float("inf")
    filled: int = 0

    def add(self, drawn: Drawn) -> None:
        """Add the draws of a part."""
        self.rows += len(drawn.ess)
        self.exact += int(drawn.exact.sum())
        self.smallest = min([self.smallest, *drawn.ess[~drawn.exact].tolist()])

    def __str__(self) -> str:
        if self.exact == self.rows:
            return "All draws are exact."
        weighted = f"by importance weighting, with an effective sample size of at least {self.smallest:.0f}"
        if not self.exact:
            return f"Draws are {weighted}."
        return f"Draws are exact for {self.exact:,} of {self.rows:,} rows, for the others {weighted}."


def columns_of(run: Run) -> tuple[ColumnSchema, ...]:
    """Return what the columns of a run's table mean.

    Raises:
        ConfigError: if it is a model of something else.
    """
    facts = run.config.data
    if facts.kind != "table":
        raise ConfigError(f"Columns are of tables, and '{run.path}' is a model of {facts.items}.")
    return facts.meaning


def completing_flow(run: Run) -> Flow:
    """Return the model of a run, if it can draw some columns given others; see `completing`."""
    return completing(run.flow(), run.config.model.model)


def completing(flow: Flow, name: str) -> Flow:
    """Return a model, if it can draw some columns given others.

    Raises:
        ConfigError: if it cannot.
    """
    if not can_complete(flow.base):
        raise ConfigError(
            f"The model '{name}' does not draw some columns given others; 'table-flow' does. What is "
            "hidden of rows of real numbers any model draws by run.inpaint, at the command line --inpaint."
        )
    return flow


def missing_words_of(run: Run) -> tuple[str, ...]:
    """Return the words that stand for missing values in the data of a run, beside the usual ones."""
    opened = run.config.opened
    options = None if opened is None else opened.options
    return () if options is None else tuple(options.missing or ())


def refuse_without_conditions(run: Run) -> None:
    """Refuse to draw rows of a model that was fitted given some columns, unless these are given.

    Raises:
        ConfigError: naming the columns.
    """
    given = [column.name for column in run.config.data.meaning if column.given]
    if given:
        raise ConfigError(
            f"The model was fitted given {', '.join(map(repr, given))}, so that rows are only drawn where these are "
            f"known: run.sample(given={{'{given[0]}': ...}}), at the command line --given '{given[0]}=...' or --given "
            "conditions.csv."
        )


def given_chunks(
    flow: Flow,
    schema: Sequence[ColumnSchema],
    given: Conditions,
    number: int,
    *,
    seed: int = 0,
    on_share: OnShare | None = None,
    worth: Worth | None = None,
) -> Iterator[Batch]:
    """Draw rows given conditions, so many of each, a part at a time, in the order of the conditions."""
    import torch

    check_seed(seed)
    # One condition is drawn in parts; of many as many together as make a part.
    together = max(1, PART // number)
    starts = [(row, first) for row in range(0, len(given), together) for first in range(0, number, PART)]
    for part, (row, first) in enumerate(starts):
        draws = min(PART, number - first)
        rows = given.rows[row : row + together]
        drawn = draw_given(flow, schema, rows, given.known, draws=draws, seed=chunk_seed(seed, part))
        if worth is not None:
            worth.add(drawn)
        if on_share is not None:
            on_share((part + 1) / len(starts))
        yield Batch(torch.from_numpy(drawn.rows.reshape(-1, len(schema))))


def impute(run: Run, items: Any, *, draws: int = 1, seed: int = 0) -> Drawn:
    """Fill in the missing values of rows; see `Run.impute`."""
    schema = columns_of(run)
    parts = [part.drawn for part in filled(completing_flow(run), schema, items_of(run, items), draws, seed)]
    return Drawn(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "ess", "exact")))


def impute_to(
    run: Run, items: Any, file: Path, *, draws: int = 1, seed: int = 0, force: bool = False, on_rows: Any = None
) -> Worth:
    """Fill in the missing values of rows, and write them to a table, with what else the rows had.

    Of several draws of each row all are written, one after the other, with the numbers of row and draw in front.

    Raises:
        ConfigError: if the file is none of a table, or exists.
    """
    facts, schema, worth = run.config.data, columns_of(run), Worth()
    flow = completing_flow(run)
    check_table(file, facts, force=force)
    ending = file.suffix.lower()
    written = ending == ".csv"

    def tables() -> Iterator[pa.Table]:
        for part in filled(flow, schema, items_of(run, items), draws, seed, ending=ending):
            first = worth.rows
            worth.add(part.drawn)
            worth.filled += part.holes
            yield _as_table(part, first, facts, schema, written=written)
            if on_rows is not None:
                on_rows(worth.rows)

    found = tables()
    first = next(found)
    make_folder(file.parent)
    kinds = _kinds_by(first)
    with beside(file) as temporary:
        # In text a column may hold anything.
        alike = chain([first], found) if written else (_alike(table, kinds) for table in chain([first], found))
        write_tables(temporary, ending, kinds, alike)
        if not give_name(temporary, file, force=force):
            refuse_taken(file)
    return worth


def check_table(file: Path, facts: Facts, *, force: bool) -> None:
    """Refuse a file that filled rows are not written to."""
    if file.suffix.lower() not in TABLES:
        raise ConfigError(f"Rows that are filled in are written to files in {', '.join(TABLES)}; '{file}' is none.")
    check_file(file, facts, force=force)


def _kinds_by(first: pa.Table) -> pa.Schema:
    """Return the schema of tables by that of the first, where a column of nothing may have text later."""
    pa = pyarrow()
    return pa.schema(
        [field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in first.schema]
    )


def _alike(table: pa.Table, schema: pa.Schema) -> pa.Table:
    try:
        return as_schema(table, schema)
    except pyarrow().ArrowInvalid as error:
        raise DataError(
            f"What is carried through has values of another kind in later rows than in the first ones: "
            f"{str(error).splitlines()[0][:200]}. Write a .csv file, where a column may hold anything."
        ) from error


@dataclass(frozen=True)
class Filled:
    """Rows that were filled in.

    Attributes:
        drawn: the rows.
        known: which values were known `(n, columns)`.
        holes: how many were filled in.
        carried: what belongs to the rows, by name.
        texts: how the values were written, by column, where that is known; see `Items.texts`.
        typed: the values in the types that they have, where that is known; see `Items.typed`.
    """

    drawn: Drawn
    known: np.ndarray
    holes: int
    carried: dict[str, Any]
    texts: dict[str, list[str]]
    typed: pa.Table | None = None


def filled(
    flow: Flow, schema: Sequence[ColumnSchema], source: Items, draws: int, seed: int, *, ending: str | None = None
) -> Iterator[Filled]:
    """Give parts of rows that are filled in.

    Args:
        flow: the model.
        schema: of its columns.
        source: the rows.
        draws: of each row.
        seed: of the draws.
        ending: of the file that they are for, if known values are wanted as they are, too.

    Raises:
        DataError: if there are no rows.
    """
    check_seed(seed)
    draws = whole_draws(draws)
    given, missing = (np.array([getattr(c, name) for c in schema], dtype=bool) for name in ("given", "missing"))
    sums = np.array([not column.is_modelled for column in schema])
    size, count = max(1, PART // draws), 0
    written = source.texts(size) if ending else repeat({})
    typed = source.typed(size) if ending and ending != ".csv" else repeat(None)
    for number, (part, text, table) in enumerate(zip(source.batches(size), written, typed, strict=False)):
        rows = part.batch.x.double().numpy()
        known = ~np.isnan(rows) | (given & missing)
        drawn = draw_given(flow, schema, rows, known, draws=draws, present=True, seed=chunk_seed(seed, number))
        count += len(rows)
        yield Filled(drawn, ~np.isnan(rows), int((~known & ~sums).sum()), part.carried, text, table)
    if not count:
        raise DataError(f"{source.name} has no rows.")


def _as_table(part: Filled, first: int, facts: Facts, schema: Sequence[ColumnSchema], *, written: bool) -> pa.Table:
    count, draws = part.drawn.rows.shape[:2]
    # What is known stays as it is: only draws have the decimals of the data.
    kept = kept_values(part.known, schema)
    rows = part.drawn.rows.reshape(count * draws, -1)
    table = arrow_table(rows, schema, written=written, kept=kept.repeat(draws, 0))
    table = table.rename_columns(column_names(facts))
    for at, name in enumerate(table.column_names):
        if part.typed is not None and name in part.typed.column_names:
            known = part.typed.column(name).take(np.arange(count).repeat(draws))
            table = table.set_column(at, name, filled_column(known, table.column(at), ~kept[:, at].repeat(draws)))
        elif name in part.texts:
            as_it_was = _as_it_was if written else _with_its_words
            table = table.set_column(at, name, as_it_was(table.column(at), part.texts[name], kept[:, at], draws))
    for name, values in reversed(part.carried.items()):
        repeated = carried_column([value for value in values for _ in range(draws)])
        table = table.add_column(0, free_name(name, table.column_names), repeated)
    if draws > 1:
        places = {"row": np.repeat(np.arange(first, first + count), draws), "draw": np.tile(np.arange(draws), count)}
        for name, values in reversed(places.items()):
            table = table.add_column(0, free_name(name, table.column_names), pyarrow().array(values))
    return table


def _as_it_was(column: pa.ChunkedArray, texts: Sequence[str], known: np.ndarray, draws: int) -> pa.Array:
    """Return a column as text: what was known as it was written, what was drawn as files of text have it."""
    drawn = as_text(column)
    for row in np.flatnonzero(known).tolist():
        drawn[row * draws : (row + 1) * draws] = [texts[row]] * draws
    return pyarrow().array(drawn, pyarrow().string())


def _with_its_words(
    column: pa.ChunkedArray, texts: Sequence[str], known: np.ndarray, draws: int
) -> pa.ChunkedArray | pa.Array:
    """Return a column of words with those that the model does not know as they were, any other column as it is."""
    pa = pyarrow()
    if not pa.types.is_dictionary(column.type):
        return column
    whole = column.combine_chunks()
    words, places = whole.dictionary.to_pylist(), whole.indices.to_pylist()
    numbers = {word: place for place, word in enumerate(words)}
    for row in np.flatnonzero(known).tolist():
        if places[row * draws] is None:
            place = numbers.setdefault(texts[row], len(numbers))
            places[row * draws : (row + 1) * draws] = [place] * draws
    indices, named = pa.array(places, whole.indices.type), pa.array(list(numbers), whole.dictionary.type)
    return pa.DictionaryArray.from_arrays(indices, named, ordered=column.type.ordered)


def predict_quantiles(
    run: Run, items: Any, levels: Sequence[float], *, target: str | None = None, seed: int = 0
) -> np.ndarray:
    """Return quantiles of a column given the others; see `Run.predict_quantiles`."""
    schema = columns_of(run)
    at = target_of(schema, target)
    return quantiles(completing_flow(run), schema, _rows(run, items, schema, [at]), at, levels, seed=seed)


def conditional_log_prob(run: Run, items: Any, *, target: str | Sequence[str] | None = None, seed: int = 0) -> Density:
    """Return log p(some columns | the others); see `Run.conditional_log_prob`."""
    schema = columns_of(run)
    names = [target] if isinstance(target, str) or target is None else list(target)
    at = [target_of(schema, name) for name in names]
    return log_prob_of(completing_flow(run), schema, _rows(run, items, schema), at, seed=seed)


def _rows(run: Run, items: Any, schema: Sequence[ColumnSchema], optional: Sequence[int] = ()) -> np.ndarray:
    refuse_other_units(run.config.opened, run.path)
    return rows_of(items, schema, optional, missing_words_of(run))


def target_of(schema: Sequence[ColumnSchema], name: str | None) -> int:
    """Return the number of a column by its name, or of the only one that is no condition.

    Raises:
        ConfigError: if there is no such column, or it is not said which of several is meant.
    """
    free = [at for at, column in enumerate(schema) if column.is_modelled and not column.given]
    if name is None:
        if len(free) > 1:
            names = ", ".join(schema[at].name for at in free[:6]) + (", ..." * (len(free) > 6))
            raise ConfigError(f"Several columns could be meant ({names}); say which: target='{schema[free[0]].name}'.")
        return free[0]
    names = [schema[at].name for at in free]
    if name not in names:
        raise ConfigError(unknown_word("column", name, names))
    return free[names.index(name)]
