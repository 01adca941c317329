"""Samples of a run: in memory, written to a file of any size, and those that a run keeps beside its figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from likelify.data import Batch, Source, SplitName
from likelify.errors import ConfigError
from likelify.fitting.conditioning.asked import nearest_data
from likelify.fitting.drawing.conditions import Conditions, conditions, rows_of
from likelify.fitting.drawing.draw import (
    Label,
    OnShare,
    as_stored,
    check_draws,
    check_seed,
    chunk_items,
    draw_chunks,
    label_cycle,
)
from likelify.fitting.drawing.filling import (
    Worth,
    columns_of,
    completing_flow,
    given_chunks,
    missing_words_of,
    refuse_without_conditions,
)
from likelify.fitting.drawing.graph_files import write_pictures
from likelify.fitting.drawing.graphs import graph_chunks, sample_graphs
from likelify.fitting.drawing.writing import USUAL_NUMBER, check_file, endings, write_items, write_panels
from likelify.fitting.quality import Quality, quality
from likelify.fitting.sources import refuse_other_units
from likelify.fitting.typed import rounded
from likelify.schema import ColumnSchema, compute_functions

if TYPE_CHECKING:
    from torch import Tensor

    from likelify.fitting.run import Run

# Samples, unless a number is given; rows that are compared with drawn ones at most.
USUAL, MOST_COMPARED = 64, 10_000
Labels = Label | Sequence[Label] | None


def sample_chunks(
    run: Run,
    number: int,
    *,
    label: Labels = None,
    temperature: float = 1.0,
    seed: int = 0,
    on_share: OnShare | None = None,
) -> Iterator[Batch]:
    """Draw items in the units of the data, a chunk at a time, with their classes; see `Run.sample`.

    Raises:
        ConfigError: if the run has no such class, or a number does not fit.
    """
    check_draws(number, temperature)
    check_seed(seed)
    refuse_without_conditions(run)
    facts = run.config.data
    labels = label_cycle(label, facts, conditional=run.config.conditional)
    chunk = chunk_items(facts.event_shape)
    settings = {"labels": labels, "temperature": temperature, "seed": seed, "on_share": on_share}
    # Not before it is asked for: what is wrong is said first.
    chunks = draw_chunks(run.flow(), number, chunk, **settings)
    if facts.kind == "table" and temperature > 1:
        return (Batch(_near_data(part.x, facts.meaning), part.labels) for part in chunks)
    return (Batch(as_stored(part.x, facts), part.labels) for part in chunks)


def _near_data(rows: Tensor, schema: Sequence[ColumnSchema]) -> Tensor:
    """Return rows with values far outside of the data at their end: behind it models have nothing but a floor."""
    import torch

    values = rows.double().numpy()
    for place, column in enumerate(schema):
        if column.is_modelled:
            values[:, place] = nearest_data(values[:, place], column)
    compute_functions(values, schema)
    return torch.from_numpy(values)


def sample(
    run: Run,
    number: int | None = None,
    *,
    given: Any = None,
    label: Labels = None,
    nodes: int | None = None,
    structure: Any = None,
    temperature: float = 1.0,
    seed: int = 0,
) -> Tensor | Batch:
    """Draw items all at once; see `Run.sample`."""
    import torch

    of_graphs = {"nodes": nodes, "structure": structure}
    if run.config.data.kind == "graph" and given is None:
        return sample_graphs(run, number, label=label, temperature=temperature, seed=seed, **of_graphs)
    refuse_structures(run, of_graphs)
    if given is None:
        number = USUAL if number is None else number
        chunks = sample_chunks(run, number, label=label, temperature=temperature, seed=seed)
        return torch.cat([part.x for part in chunks])
    chunks = conditional_chunks(run, given, number, label=label, temperature=temperature, seed=seed)[0]
    return torch.cat([part.x for part in chunks])


def refuse_structures(run: Run, of_graphs: Mapping[str, Any]) -> None:
    """Refuse what is said of graphs for other items, and conditions for graphs."""
    said = [name for name, value in of_graphs.items() if value is not None]
    if said and run.config.data.kind != "graph":
        raise ConfigError(
            f"{' and '.join(said)} say which graphs are drawn, and this is a run of {run.config.data.items}."
        )


def conditional_chunks(
    run: Run,
    given: Any,
    number: int | None,
    *,
    label: Labels = None,
    temperature: float = 1.0,
    seed: int = 0,
    on_share: OnShare | None = None,
    worth: Worth | None = None,
) -> tuple[Iterator[Batch], int]:
    """Draw rows given conditions, a chunk at a time; return how many there will be as well.

    Raises:
        ConfigError: if there are labels or a temperature, too, or the number does not fit.
        DataError: as `conditions`.
    """
    if label is not None or temperature != 1.0:
        raise ConfigError("Rows that are drawn given some of their columns have neither a label nor a temperature.")
    schema = columns_of(run)
    refuse_other_units(run.config.opened, run.path)
    found = conditions(given, schema, missing_words_of(run))
    number = (USUAL if found.single else 1) if number is None else number
    check_draws(number, 1.0)
    flow = completing_flow(run)
    chunks = given_chunks(flow, schema, found, number, seed=seed, on_share=on_share, worth=worth)
    return chunks, number * len(found)


def sample_to(
    run: Run,
    file: Path,
    number: int | None = None,
    *,
    given: Any = None,
    label: Labels = None,
    nodes: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    force: bool = False,
    on_share: OnShare | None = None,
    worth: Worth | None = None,
) -> int:
    """Draw items and write them to a file as they come, in constant memory unless it is a picture; return how many.

    Args:
        run: a fitted model.
        file: its ending says how they are written; without one, images go to a new folder, a file each.
        number: of samples; by default 64, and one for each condition of a table of them.
        given: what is known of rows; see `Run.sample`.
        label: class (number or name), or several that are drawn in turn, for a class-conditional model; by default all.
        nodes: of each graph; see `Run.sample`.
        temperature: below 1 samples are less varied; see `Flow.sample`.
        seed: of the draws.
        force: replace a file that exists.
        on_share: called with the share that is drawn.
        worth: told what conditional draws are worth.

    Raises:
        ConfigError: if a word or number does not fit, or the file does not fit such items or exists.
        RunError: if it cannot be written.
    """
    settings = {"label": label, "temperature": temperature, "seed": seed, "on_share": on_share}
    refuse_structures(run, {"nodes": nodes})
    if given is None:
        number = USUAL if number is None else number
        check_file(file, run.config.data, number, force=force)
        if run.config.data.kind == "graph":
            chunks = graph_chunks(run, number, nodes=nodes, **settings)[0]
        else:
            chunks = sample_chunks(run, number, **settings)
    else:
        check_file(file, run.config.data, force=force)
        chunks, number = conditional_chunks(run, given, number, worth=worth, **settings)
    write_items(file, run.config.data, number, chunks, force=force)
    return number


def keep_samples(run: Run, source: Source) -> Path:
    """Keep some draws in the folder of a run, pictures and graphs beside those of the test split; return the file."""
    import torch

    facts = run.config.data
    file, number, seed = run.path / f"samples{endings(facts)[0]}", USUAL_NUMBER[facts.kind], run.config.fit.seed
    held_out = "test" if source.size("test") else "validation"
    if facts.kind == "graph":
        real = source.read(held_out, torch.arange(min(number, source.size(held_out))))
        write_pictures(file, facts, {"samples": sample_graphs(run, number, seed=seed), f"real ({held_out})": real})
    elif facts.kind == "image" and facts.levels is not None:
        real = source.read(held_out, torch.arange(min(number, source.size(held_out)))).x
        panels = {"samples": sample(run, number, seed=seed), f"real ({held_out})": real}
        write_panels(file, facts, panels, force=True)
    else:
        chunks = sample_chunks_like(run, lambda: source, held_out, number, seed=seed)
        write_items(file, facts, number, chunks, force=True)
    return file


def sample_chunks_like(
    run: Run, source: Callable[[], Source], split: SplitName, number: int, *, seed: int = 0
) -> Iterator[Batch]:
    """Draw items; a model that was fitted given some columns takes these from the rows of a split, in turn.

    Only then the source is opened.
    """
    import torch

    schema = run.config.data.meaning
    given = np.array([column.given for column in schema], dtype=bool)
    if not given.any():
        return sample_chunks(run, number, seed=seed)
    opened = source()
    places = torch.arange(number) % opened.size(split)
    rows = np.where(given, opened.read(split, places).x.double().numpy(), np.nan)
    return given_chunks(completing_flow(run), schema, Conditions(rows, given, single=False), 1, seed=seed)


def quality_of(
    run: Run, rows: Any = None, source: Source | None = None, *, split: SplitName | None = None, seed: int = 0
) -> Quality:
    """Compare drawn rows with held-out ones; see `Run.quality`."""
    import torch

    schema, source = columns_of(run), source or run.source()
    held_out: SplitName = split or ("test" if source.size("test") else "validation")
    number = min(source.size(held_out), MOST_COMPARED)
    real = source.read(held_out, torch.arange(number)).x.double().numpy()
    if rows is None:
        rows = torch.cat([part.x for part in sample_chunks_like(run, lambda: source, held_out, number, seed=seed)])
    return quality(real, rounded(rows_of(rows, schema, missing=missing_words_of(run)), schema), schema)
