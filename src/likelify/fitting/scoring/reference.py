"""The scores of a run's held-out items, which new items are ranked among: made once for its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from likelify.errors import DataError, RunError
from likelify.fitting.scoring.kept import FOLDER, keep_numbers, read_numbers
from likelify.fitting.scoring.likelihoods import Effort, effort_of, score_source
from likelify.fitting.scoring.replacing import can_replace, replacements
from likelify.names import ItemKind

if TYPE_CHECKING:
    from likelify.data import Source, SplitName
    from likelify.fitting.figures import Course
    from likelify.fitting.run import Run
    from likelify.flows import Flow

# What the files of these numbers end in.
ENDS = {"nats": "", "outlier": "-outlier", "per_node": "-per-node"}
# What is kept beside the log-likelihoods of some kinds of items.
BESIDE: dict[ItemKind, tuple[str, ...]] = {"table": ("outlier",), "graph": ("per_node",)}


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Scores of held-out items, in their order.

    Attributes:
        nats: log-likelihoods `(n,)`.
        outlier: of rows how odd each is `(n,)`, see `fitting.outliers`; else None.
        per_node: of graphs nats per node `(n,)`; else None.
    """

    nats: np.ndarray
    outlier: np.ndarray | None = None
    per_node: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.nats)

    def digest(self) -> str:
        """Return a hash of the numbers."""
        whole = b"".join(part.tobytes() for part in (self.nats, self.outlier, self.per_node) if part is not None)
        return hashlib.sha256(whole).hexdigest()


def held_out(
    run: Run,
    split: SplitName = "validation",
    *,
    draws: int | None = None,
    flow: Flow | None = None,
    source: Source | None = None,
    on_batch: Callable[[float], None] | None = None,
) -> HeldOut:
    """Return the scores of all items of a split of a run's data, in their order.

    They are kept in the run, with the digest of the weights and the way of scoring, and made again if one has changed.

    Args:
        run: the run.
        split: validation, or test for items that had no say in the choice of the weights.
        draws: per item, see `effort_of`.
        flow: the model of the run, if it is at hand.
        source: the data of the run, if they are open already.
        on_batch: called after every pass with the share that is done, if they are made.

    Raises:
        DataError: if they have to be made and the data are not there any more, or the split is empty.
        RunError: if the data have changed, or the weights are missing or damaged.

    Warns:
        LikelifyWarning: if they cannot be written.
    """
    flow = run.flow() if flow is None else flow
    effort = effort_of(flow, run.config.data, draws)
    about, files, count = _about(run, split, effort), _files(run, split, effort), run.config.data.sizes.get(split, 0)
    known = {name: read_numbers(file, about, (count,)) for name, file in files.items()}
    if known["nats"] is not None and all(values is not None for values in known.values()):
        return HeldOut(known["nats"], known.get("outlier"), known.get("per_node"))
    found = score_source(
        flow,
        run.source() if source is None else source,
        split,
        facts=run.config.data,
        conditional=run.config.conditional,
        draws=draws,
        on_batch=on_batch,
    )
    for name, file in files.items():
        keep_numbers(file, getattr(found, name), about)
    return HeldOut(found.nats, found.outlier, found.per_node)


def keep_for_scoring(
    run: Run, flow: Flow, source: Source | None = None, *, on_batch: Callable[[float], None] | None = None
) -> None:
    """Keep in a run what the scores of new items need of its data: see `held_out` and `replacing.replacements`.

    Args:
        run: whose fit has ended.
        flow: its model.
        source: the data of the run, if they are open already.
        on_batch: called after every pass with the share that is done.
    """
    held_out(run, flow=flow, source=source, on_batch=on_batch)
    if can_replace(run.config.data):
        replacements(run, source)


def keep_if_ended(run: Run, course: Course, source: Source) -> None:
    """Keep what scores need of data that may be in memory only, if the fit of a run has ended and that can be made."""
    if course.ended and course.best is not None:
        with suppress(DataError, RunError):
            keep_for_scoring(run, run.flow(), source)


def keep_held_out(run: Run, flow: Flow, found: HeldOut) -> None:
    """Keep scores of the rows that validated in a run whose data only its maker has.

    Args:
        run: a new one.
        flow: its model.
        found: the scores, with the usual effort.
    """
    effort = effort_of(flow, run.config.data)
    about = _about(run, "validation", effort)
    for name, file in _files(run, "validation", effort).items():
        keep_numbers(file, getattr(found, name), about)


def _files(run: Run, split: SplitName, effort: Effort) -> dict[str, Path]:
    names = ("nats", *BESIDE.get(run.config.data.kind, ()))
    return {name: run.path / FOLDER / f"{split}-{_word(effort)}{ENDS[name]}.safetensors" for name in names}


def _word(effort: Effort) -> str:
    return "exact" if effort.likelihood == "exact" else f"{effort.draws}-draws"


def _about(run: Run, split: SplitName, effort: Effort) -> str:
    """Return all that the numbers depend on, as a text that can be compared."""
    known = {"weights": run.digest(), "data": run.config.data.fingerprint, "split": split, **effort.model_dump()}
    return json.dumps(known, sort_keys=True)
