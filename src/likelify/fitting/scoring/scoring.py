"""Scoring items with a run: in memory, or to a file in constant memory that a kill at any instant leaves resumable."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from likelify.data import Facts, Items, Source, SourceOptions, SplitName, open_items
from likelify.data.items import SourceItems
from likelify.data.picture_items import PictureItems
from likelify.data.tiles import TileItems
from likelify.errors import ConfigError, DataError, LikelifyError, RunError
from likelify.fitting.files import make_folder
from likelify.fitting.locks import locked
from likelify.fitting.scoring.likelihoods import elements_of
from likelify.fitting.scoring.parts import Asked, Parts, check_out
from likelify.fitting.scoring.reference import HeldOut, held_out
from likelify.fitting.scoring.scorer import Scorer, Wanted
from likelify.fitting.scoring.scores import Scores
from likelify.fitting.scoring.sharing import scored_passes
from likelify.fitting.scoring.summary import Summary
from likelify.fitting.sources import refuse_other_units

if TYPE_CHECKING:
    import pyarrow

    from likelify.fitting.run import Run

# Elements times draws of a part, as far as whole passes allow: a second of work or one pass; and its most passes.
PART_WORK, PART_PASSES = 2**20, 16
OnItems = Callable[[int], None]


class Scoring:
    """All that scoring needs: the model of a run, the items, and what they are ranked among.

    Args:
        run: the run.
        items: of the kind of its data.
        wanted: what is asked for; by default ranks among the validation items, and the usual draws.
        jobs: processes, see `sharing.scored_passes`.

    Raises:
        DataError: if there are no held-out items to rank among.
        ConfigError, RunError: as `Scorer` and `held_out`; if none is rare enough for the contamination.
    """

    def __init__(self, run: Run, items: Items, wanted: Wanted | None = None, *, jobs: int | None = 1) -> None:
        self.run, self.items, self.jobs = run, items, jobs
        self.wanted = Wanted() if wanted is None else wanted
        self.scorer = Scorer(run, self.wanted)
        self.reference = None if self.wanted.reference is None else self._held_out(self.wanted.reference)
        self._check_contamination()
        effort = self.scorer.effort
        work = effort.items * effort.draws * elements_of(run.config.data)
        self.passes = min(max(1, PART_WORK // work), PART_PASSES)

    def _held_out(self, split: SplitName) -> HeldOut:
        try:
            return held_out(self.run, split, draws=self.wanted.draws, flow=self.scorer.flow)
        except (DataError, RunError) as error:
            raise type(error)(
                f"There is nothing to rank among. {error} Without ranks: --reference none, in Python reference=None."
            ) from error

    def _check_contamination(self) -> None:
        """Refuse a share below that of one held-out row: no row could be marked."""
        share, count = self.wanted.contamination, 0 if self.reference is None else len(self.reference)
        if share is not None and share * (1 + count) < 1:
            digits = 1 - math.floor(math.log10(1 / (1 + count)))
            least = math.ceil(10**digits / (1 + count)) / 10**digits
            raise ConfigError(
                f"Of {count} held-out rows the rarest {share:g} cannot be told: no rank among them is below "
                f"1/{1 + count}. Take a contamination of at least {least:g}, or sort by the outlier score."
            )

    def scores(self, start: int = 0, on_items: OnItems | None = None) -> Generator[Scores]:
        """Score pass after pass in their order, from that number on; `on_items` gets how many items are done."""
        first = start * self.scorer.effort.items
        for part, scored in scored_passes(self.run, self.scorer, self.wanted, self.items, start=start, jobs=self.jobs):
            facts, share = self.scorer.facts, self.wanted.contamination
            scores = Scores.of(part.carried, scored, facts, self.reference, first, contamination=share)
            first += len(scores)
            yield scores
            if on_items is not None:
                on_items(first)

    def parts(self, start: int = 0, on_items: OnItems | None = None) -> Generator[Iterator[pyarrow.Table]]:
        """Score part after part from that number on: of each the tables of its passes, which are read before the next.

        No pass is kept while the next one is scored: small arrays among the large ones of a model would make the memory
        of the process grow.
        """
        with closing(self.scores(start * self.passes, on_items)) as scores:
            tables = (one.to_arrow() for one in scores)
            while (first := next(tables, None)) is not None:
                part = chain([first], islice(tables, self.passes - 1))
                del first
                yield part

    def asked(self) -> Asked:
        """Return all that the scores depend on."""
        return Asked(
            items=self.items.fingerprint(),
            weights=self.run.digest(),
            effort=self.scorer.effort,
            passes=self.passes,
            reference=None if self.reference is None else self.reference.digest(),
            contamination=self.wanted.contamination,
            blame=self.wanted.blame,
        )


def items_of(
    run: Run,
    what: Any = None,
    *,
    split: SplitName = "test",
    skip_unreadable: bool = False,
    tiles: bool = False,
    edges: Any = None,
) -> Items:
    """Return items for a run's model.

    Args:
        run: the run.
        what: see `data.open_items`; by default the data that the run was fitted to. Files are read as those were.
        split: of a source.
        skip_unreadable: leave out pictures of a folder that cannot be read or are not such as the model takes; else
            they are an error.
        tiles: cut large pictures at their full size into tiles of the model's size, see `data.tiles`; else they are
            reduced to it as those that the model was fitted to.
        edges: of graphs in a table of nodes, the table of their edges.

    Raises:
        DataError: if they cannot be read or are not of the kind and shape of the run's data.
        RunError: if the data of the run have changed.
        ConfigError: if the run is a model of standardised columns, and the items are not; if unreadable ones are to be
            left out, and the items are no pictures of a folder.
    """
    facts, opened = facts_for(run), run.config.opened
    if tiles and what is None:
        raise ConfigError("Tiles are parts of pictures that are larger than the model's images: name their file.")
    if edges is not None and what is None:
        raise ConfigError("Edges are those of a table of nodes: name its file too.")
    if what is None:
        items = SourceItems(run.source(), split)
        if skip_unreadable:
            _refuse_skipping(items)
        return items
    if not isinstance(what, Source):
        refuse_other_units(opened, run.path)
    options = (None if opened is None else opened.options) or SourceOptions()
    if skip_unreadable:
        options = options.model_copy(update={"skip_unreadable": True})
    items = TileItems(what, facts, options) if tiles else open_items(what, facts, options, split=split, edges=edges)
    if skip_unreadable and not isinstance(items, PictureItems | TileItems):
        _refuse_skipping(items)
    return items


def _refuse_skipping(items: Items) -> NoReturn:
    raise ConfigError(
        f"Only pictures of a folder can be left out because they cannot be read (--skip-unreadable), and {items.name} "
        "is none. Leave the option out."
    )


def facts_for(run: Run) -> Facts:
    """Return the facts that items for a run's model have to agree with; one that is not conditional takes any class."""
    facts = run.config.data
    return facts if run.config.conditional else facts.model_copy(update={"classes": None})


def score_items(scoring: Scoring) -> Scores:
    """Score all items, in memory.

    Raises:
        DataError, NonFiniteError: as reading and scoring the items say; if there are no items.
    """
    with closing(scoring.scores()) as scores:
        found = list(scores)
    if not found:
        raise _no_items(scoring)
    return replace(Scores.joined(found), said=scoring.items.said)


def score_file(
    scoring: Scoring, out: Path, *, force: bool = False, top: int = 0, on_items: OnItems | None = None
) -> Summary | None:
    """Score items and write what is found to a file, in constant memory; go on where the same was interrupted.

    A kill leaves the parts that were done; the same call goes on after them, and the file is the same as if nothing
    had happened, since parts and passes have fixed sizes and every pass a seed of its own.

    Args:
        scoring: what is to be done.
        out: the file, in `.csv` or `.parquet`. While it is made there is a folder of its name and `.parts` beside it.
        force: replace a file that exists, and start again where a folder of parts belongs to something else.
        top: number of the least likely items that the summary has.
        on_items: called with the number of items that are done, as it grows.

    Returns:
        A summary; None if the file was whole already, and a kill only kept its parts from being removed.

    Raises:
        ConfigError: for another ending, or a file that exists.
        RunError: if the parts that are there belong to other items, weights or settings, another process is at work
            there, or something cannot be written.
        DataError, NonFiniteError: as reading and scoring the items say; what was done by then stays.
    """
    check_out(out, force=force)
    make_folder(out.parent)
    parts = Parts(out, scoring.asked())
    with locked(parts.folder, wait=False):
        if parts.begin(force=force):
            parts.remove()
            return None
        start = parts.done()
        if on_items is not None:
            on_items(start * parts.size)
        try:
            with closing(scoring.parts(start, on_items)) as found:
                for number, tables in enumerate(found, start):
                    parts.keep(number, tables)
            if not parts.done():
                raise _no_items(scoring)
        except LikelifyError:
            if not parts.done():
                parts.remove()
            raise
        return parts.finish(top, force=force)


def summarize(scoring: Scoring, *, top: int = 0, on_items: OnItems | None = None) -> Summary:
    """Score items in constant memory, and keep no more than a summary.

    Raises:
        DataError, NonFiniteError: as reading and scoring the items say; if there are no items.
    """
    summary = Summary(top)
    with closing(scoring.scores(0, on_items)) as scores:
        for one in scores:
            summary.add(one.to_arrow())
    if not summary.count:
        raise _no_items(scoring)
    return summary


def _no_items(scoring: Scoring) -> DataError:
    return DataError(f"{scoring.items.name} has no {scoring.scorer.facts.items} to score.")
