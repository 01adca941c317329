"""The held-out figures of a run: measured, and kept in its folder unless finer ones are there."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likelify.data import Source, SplitName
from likelify.data.matching import matched
from likelify.errors import LikelifyWarning, RunError
from likelify.fitting.beside import beside
from likelify.fitting.ending import warn_unless_ended
from likelify.fitting.figures import Evaluation
from likelify.fitting.files import as_json, write_atomically
from likelify.fitting.metrics import evaluate
from likelify.fitting.recipes import usual_draws
from likelify.fitting.scoring.scoring import facts_for, items_of
from likelify.fitting.sources import in_memory

if TYPE_CHECKING:
    from likelify.fitting.run import Run
    from likelify.flows import Flow

# One draw is all there is to draw, and nothing to weight.
EXACT = {"elbo_samples": 1, "iw_samples": 0}
# Rows are small: passes of many are quicker.
ROWS = 2048
# From the function that warns to whoever calls `Run.evaluate`.
CALLER = 4


def evaluate_run(
    run: Run, data: Any, changes: Mapping[str, Any], effort: Mapping[str, Any], *, keep: bool
) -> Evaluation:
    """Measure a run and keep the figures in it, see `Run.evaluate`."""
    flow = run.flow(**changes)
    usual = usual_draws(run.config.data).model_dump()
    if flow.likelihood == "exact":
        usual |= EXACT | ({"batch_size": ROWS} if run.config.data.kind in ("table", "graph") else {})
    effort = {**usual, **effort}
    source = run.source() if data is None else _own_kind(run, data)
    warn_unless_ended(run, CALLER - 1)
    measured = evaluate(flow, source, conditional=run.config.conditional, **effort)
    if not changes:
        measured = measured.model_copy(update={"weights": run.digest()})
    own = source.fingerprint() == run.config.data.fingerprint
    if own and not changes and effort.get("limit") is None:
        if source.kind == "table":
            measured = measured.model_copy(update=_beside(run, flow, source, measured, keep=keep))
        if keep:
            _keep(run, measured)
    return measured


def _beside(run: Run, flow: Flow, source: Source, measured: Evaluation, *, keep: bool) -> dict[str, Any]:
    """Return simple densities of the same rows: those that were kept, or where figures are kept new ones."""
    old = run.evaluation(measured.split)
    if old is not None and old.weights == measured.weights and (old.beside or old.not_beside):
        return {"beside": old.beside, "not_beside": old.not_beside}
    if not keep:
        return {}
    figures, left_out = beside(run, flow, source, measured.split)
    return {"beside": figures, "not_beside": left_out}


def evaluation_file(folder: Path, split: SplitName) -> Path:
    """Return the file of a run folder that the figures of a split are kept in."""
    return folder / ("evaluation.json" if split == "test" else f"evaluation-{split}.json")


def _own_kind(run: Run, data: Any) -> Source:
    """Return other data than the run's, if they are such as its model takes; files are read as the run's own were."""
    facts = facts_for(run)
    return matched(data, facts) if isinstance(data, Source) else in_memory(items_of(run, data), facts)


def _keep(run: Run, measured: Evaluation) -> None:
    """Write figures unless finer ones of the same weights are there; a warning says why if they are not written."""
    file, old = evaluation_file(run.path, measured.split), run.evaluation(measured.split)
    try:
        if old is not None and old.weights == measured.weights and old.draws() > measured.draws():
            raise RunError(f"'{file}' holds figures of more draws, and was left as it is.")
        write_atomically(file, as_json(measured))
    except RunError as error:
        warnings.warn(f"These figures were not kept. {error}", LikelifyWarning, stacklevel=CALLER)
