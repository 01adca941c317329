"""Samples of a run: in memory, written to a file of any size, and those that a run keeps beside its figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from likelify.data import Batch, Source
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
from likelify.fitting.drawing.writing import FORMATS, USUAL_NUMBER, check_file, endings, write_items, write_panels

if TYPE_CHECKING:
    from torch import Tensor

    from likelify.fitting.run import Run

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
    facts = run.config.data
    labels = label_cycle(label, facts, conditional=run.config.conditional)
    chunk = chunk_items(facts.event_shape)
    settings = {"labels": labels, "temperature": temperature, "seed": seed, "on_share": on_share}
    # Not before it is asked for: what is wrong is said first.
    return (Batch(as_stored(part.x, facts), part.labels) for part in draw_chunks(run.flow(), number, chunk, **settings))


def sample(run: Run, number: int, *, label: Labels = None, temperature: float = 1.0, seed: int = 0) -> Tensor:
    """Draw items all at once; see `Run.sample`."""
    import torch

    return torch.cat([part.x for part in sample_chunks(run, number, label=label, temperature=temperature, seed=seed)])


def sample_to(
    run: Run,
    file: Path,
    number: int,
    *,
    label: Labels = None,
    temperature: float = 1.0,
    seed: int = 0,
    force: bool = False,
    on_share: OnShare | None = None,
) -> None:
    """Draw items and write them to a file as they come, in constant memory unless it is a picture.

    Args:
        run: a fitted model.
        file: its ending says how they are written; without one, images go to a new folder, a file each.
        number: of samples.
        label: class (number or name), or several that are drawn in turn, for a class-conditional model; by default all.
        temperature: below 1 samples are less varied; see `Flow.sample`.
        seed: of the draws.
        force: replace a file that exists.
        on_share: called with the share that is drawn.

    Raises:
        ConfigError: if a word or number does not fit, or the file does not fit such items or exists.
        RunError: if it cannot be written.
    """
    check_file(file, run.config.data, number, force=force)
    chunks = sample_chunks(run, number, label=label, temperature=temperature, seed=seed, on_share=on_share)
    write_items(file, run.config.data, number, chunks, force=force)


def keep_samples(run: Run, source: Source) -> Path | None:
    """Keep some draws in the folder of a run, pictures beside those of the test split; return the file.

    None if there is no file for such items.
    """
    import torch

    facts = run.config.data
    if facts.kind not in FORMATS:
        return None
    file, number, seed = run.path / f"samples{endings(facts)[0]}", USUAL_NUMBER[facts.kind], run.config.fit.seed
    held_out = "test" if source.size("test") else "validation"
    if facts.kind == "image" and facts.levels is not None:
        real = source.read(held_out, torch.arange(min(number, source.size(held_out)))).x
        panels = {"samples": sample(run, number, seed=seed), f"real ({held_out})": real}
        write_panels(file, facts, panels, force=True)
    else:
        write_items(file, facts, number, sample_chunks(run, number, seed=seed), force=True)
    return file
