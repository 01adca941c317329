"""What a cell measures of a fitted model: the code that decides its figures, for `code_hashes`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from likelify.data import Batch, Source, true_log_prob
from likelify.errors import RunError
from likelify.fitting.figures import Evaluation, Score
from likelify.fitting.metrics import evaluate
from likelify.flows import Flow

if TYPE_CHECKING:
    from likelify.reproduce.cell import Measuring

OnProgress = Callable[[str, float, str], None]
# Items, and elements, of one pass.
PASS_ITEMS, PASS_ELEMENTS, FEWEST_PASS_ITEMS = 1024, 200_000, 128
# Share of the time left that importance weighting may plan to use: its cost is estimated from that of the ELBO.
PLANNED = 0.85
FEWEST_ITEMS = 20


def measure(
    flow: Flow, source: Source, measuring: Measuring, clock: Callable[[], float], on_progress: OnProgress
) -> tuple[Evaluation, float]:
    """Measure a model on the test split.

    Args:
        flow: the model.
        source: the data.
        measuring: how much of it.
        clock: that `measuring.seconds` counts.
        on_progress: called with the phase, its share that is done, and the latest figure.

    Returns:
        The figures, and the seconds that they took. The ELBO is that of all items that were asked for; what importance
        weighting gains is measured on those that it weighs.

    Raises:
        RunError: if a figure is not finite.
    """
    start = clock()
    elements = int(source.read("train", torch.arange(1)).dims())
    truth = true_density(source) if measuring.truth else None
    plain = evaluate(
        flow,
        source,
        elbo_samples=measuring.elbo_samples,
        iw_samples=0,
        limit=measuring.items,
        truth=truth,
        batch_size=max(FEWEST_PASS_ITEMS, min(PASS_ITEMS, PASS_ELEMENTS // elements)),
        on_batch=lambda share: on_progress("measuring the ELBO", share, ""),
    )
    elbo = _finite(plain.elbo)
    spent = clock() - start
    draws = elbo.bits.count * measuring.elbo_samples
    # Exact models need none, noisy ones allow none.
    items = _iw_items(measuring, elbo.bits.count, spent / draws, spent) if flow.likelihood == "bound" else 0
    if not items:
        return plain, spent
    weighted = evaluate(
        flow,
        source,
        elbo_samples=1,
        iw_samples=measuring.iw_samples,
        batch_size=max(1, PASS_ITEMS // measuring.iw_samples),
        limit=items,
        truth=truth,
        on_batch=lambda share: on_progress("importance weighting", share, ""),
    )
    iw = None if weighted.iw is None else _finite(weighted.iw)
    return plain.model_copy(update={"iw": iw, "gain": weighted.gain}), clock() - start


def true_density(source: Source) -> Callable[[Batch], Tensor]:
    """Return what gives the true log-densities of items of a simulated source."""
    name = source.facts().family

    def truth(batch: Batch) -> Tensor:
        return true_log_prob(name, batch.x, None if batch.structure is None else batch.structure.sizes)

    return truth


def _iw_items(measuring: Measuring, available: int, cost: float, spent: float) -> int:
    """Return the number of items that the time allows at that cost of a draw."""
    items = min(measuring.iw_items, available) if measuring.iw_samples else 0
    if items and measuring.seconds is not None:
        affordable = int(PLANNED * (measuring.seconds - spent) / (cost * (measuring.iw_samples + 1)))
        items = min(items, affordable) if affordable >= min(FEWEST_ITEMS, items) else 0
    return items


def _finite(score: Score) -> Score:
    if not math.isfinite(score.bits.mean):
        raise RunError(
            f"The held-out figure is {score.bits.mean}: the model gives some test items no probability at all, or an "
            "infinite density. Nothing was written for this cell."
        )
    return score
