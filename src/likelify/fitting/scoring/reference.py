"""The log-likelihoods of a run's held-out items, which new items are ranked among: made once for its weights."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from likelify.errors import LikelifyWarning, RunError
from likelify.fitting.files import make_folder, write_atomically
from likelify.fitting.scoring.likelihoods import Effort, effort_of, score_source

if TYPE_CHECKING:
    from likelify.data import Source, SplitName
    from likelify.fitting.run import Run
    from likelify.flows import Flow

FOLDER, ABOUT = "scores", "likelify.about"
# Of a file beside its numbers, in bytes.
LARGEST_HEADER = 2**16


def reference(
    run: Run,
    split: SplitName = "validation",
    *,
    draws: int | None = None,
    flow: Flow | None = None,
    source: Source | None = None,
    on_batch: Callable[[float], None] | None = None,
) -> np.ndarray:
    """Return the log-likelihoods in nats of all items of a split of a run's data, in their order.

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
    about, file = _about(run, split, effort), run.path / FOLDER / f"{split}-{_word(effort)}.safetensors"
    known = _read(file, about, run.config.data.sizes.get(split, 0))
    if known is not None:
        return known
    found = score_source(
        flow,
        run.source() if source is None else source,
        split,
        facts=run.config.data,
        conditional=run.config.conditional,
        draws=draws,
        on_batch=on_batch,
    )
    _keep(file, found.nats, about)
    return found.nats


def _word(effort: Effort) -> str:
    return "exact" if effort.likelihood == "exact" else f"{effort.draws}-draws"


def _about(run: Run, split: SplitName, effort: Effort) -> str:
    """Return all that the numbers depend on, as a text that can be compared."""
    known = {"weights": run.digest(), "data": run.config.data.fingerprint, "split": split, **effort.model_dump()}
    return json.dumps(known, sort_keys=True)


def _read(file: Path, about: str, count: int) -> np.ndarray | None:
    """Return the numbers of a file if it holds what is meant, else None: it can be made again."""
    from safetensors import SafetensorError, safe_open

    try:
        if file.stat().st_size > LARGEST_HEADER + 8 * count:
            return None
        with safe_open(file, framework="numpy") as content:
            if (content.metadata() or {}).get(ABOUT) != about:
                return None
            nats = content.get_tensor("nats")
    except (OSError, SafetensorError, ValueError, KeyError):
        return None
    usual = nats.dtype == np.float64 and nats.shape == (count,) and not np.isnan(nats).any()
    return nats if usual else None


def _keep(file: Path, nats: np.ndarray, about: str) -> None:
    from safetensors.numpy import save

    try:
        make_folder(file.parent)
        write_atomically(file, save({"nats": nats}, metadata={ABOUT: about}))
    except RunError as error:
        warnings.warn(f"The scores of held-out items were not kept. {error}", LikelifyWarning, stacklevel=4)
