"""The log-likelihood of each item, exact or estimated from draws that are the same in every call."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from likelify.data import Batch, Facts, Source, SplitName
from likelify.distributions.core import Likelihood
from likelify.errors import DataError, NonFiniteError
from likelify.fitting.checks import check_condition, check_flow, for_flow
from likelify.fitting.feeding import in_order
from likelify.fitting.metrics import check_split
from likelify.fitting.outliers import outlier_score
from likelify.fitting.recipes import usual_draws
from likelify.fitting.structures import graphs_at
from likelify.flows import Flow
from likelify.importance import FEWEST_DRAWS, Estimate
from likelify.seeding import derived_seed, seeded
from likelify.settings import Settings
from likelify.structure import ContextLike

# Elements of the items of one pass, and the most items: more is not faster on a CPU, and takes memory.
PASS_ELEMENTS, PASS_ITEMS = 2**18, 4096
# From fewer draws a standard error says little.
FEWEST = 8


class Effort(Settings):
    """How items are scored. Scores of one effort can be compared with one another, those of two cannot if they draw.

    Attributes:
        likelihood: of the model: "exact" values, importance-weighted draws of a "bound", or the mean of draws where
            each is an "estimate".
        draws: per item; 1 for exact values.
        items: per pass. Each pass has a seed of its own, so its items are part of what is drawn.
    """

    likelihood: Likelihood
    draws: int = Field(ge=1)
    items: int = Field(ge=1)

    @classmethod
    def meant(cls) -> str:
        """Return what these settings are, for errors."""
        return "numbers of draws"


def effort_of(flow: Flow, facts: Facts, draws: int | None = None) -> Effort:
    """Return how the items of a model are scored.

    Args:
        flow: the model.
        facts: of the data that it was fitted to.
        draws: per item; by default those of the usual evaluation, or fewer, but at least 8, if weighting the whole
            validation split would take more work than that evaluation.

    Raises:
        ConfigError: if the number of draws is not 1, 2, ...
    """
    usual = usual_draws(facts)
    if flow.likelihood == "exact":
        # Checked, though they change nothing.
        number = min(1, Effort(likelihood="exact", draws=1 if draws is None else draws, items=1).draws)
    elif draws is not None:
        number = draws
    else:
        held = max(facts.sizes.get("validation", 1), 1)
        affordable = (usual.iw_items or held) * usual.iw_samples // held
        number = min(usual.iw_samples, max(FEWEST, affordable))
    return Effort(likelihood=flow.likelihood, draws=number, items=items_per_pass(facts))


def items_per_pass(facts: Facts) -> int:
    """Return how many items one pass works on."""
    return max(1, min(PASS_ITEMS, PASS_ELEMENTS // max(elements_of(facts), 1)))


def elements_of(facts: Facts) -> int:
    """Return how many elements an item has, of graphs on average, as far as work and memory grow with them."""
    features = math.prod(facts.event_shape)
    if facts.graphs is None:
        return features
    return facts.graphs.elements(features)


@dataclass(frozen=True, eq=False)
class Likelihoods:
    """The log-likelihood of each of some items, in their order.

    Attributes:
        nats: `(items,)` in float64; minus infinity outside of the support.
        standard_error: of each over its draws, NaN where there is but one; None for exact values.
        dims: number of elements of each item.
        reliable: whether the weights of each are light enough to believe its standard error; None where nothing is
            weighted, or with fewer than 25 draws, from which that cannot be told.
        outlier: of rows how odd each is, see `fitting.outliers`; else None.
        nodes: of graphs their number of nodes; else None.
    """

    nats: np.ndarray
    standard_error: np.ndarray | None
    dims: np.ndarray
    reliable: np.ndarray | None = None
    outlier: np.ndarray | None = None
    nodes: np.ndarray | None = None

    @property
    def bits(self) -> np.ndarray:
        """Bits per dimension, `-log p / (D ln 2)`."""
        return -self.nats / (self.dims * math.log(2))

    @property
    def per_node(self) -> np.ndarray | None:
        """Of graphs nats per node, `log p / nodes`; else None."""
        return None if self.nodes is None else self.nats / self.nodes

    @staticmethod
    def joined(parts: Sequence[Likelihoods]) -> Likelihoods:
        """Put parts together, one after the other."""
        names = [name for name, values in vars(parts[0]).items() if values is not None]
        whole: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        whole.setdefault("standard_error", None)
        return Likelihoods(**whole)


def seed_of(stream: str, number: int) -> int:
    """Return the seed of the draws of one pass; passes of other streams draw independently."""
    return derived_seed(0, f"scores of {stream}", number)


def score_batch(
    flow: Flow,
    batch: Batch,
    effort: Effort,
    *,
    seed: int,
    conditional: bool = False,
    outliers: bool = False,
    what: str = "item",
    first: int = 0,
) -> Likelihoods:
    """Score some items in one pass for each draw.

    Args:
        flow: the model, in `frozen()` if there are several batches.
        batch: at most `effort.items` items.
        effort: how they are scored.
        seed: of the draws.
        conditional: give the labels to the model.
        outliers: also tell how odd they are; of rows only.
        what: these items are called, in errors.
        first: number of the first of them, for errors.

    Raises:
        NonFiniteError: if the likelihood of an item is not a number.
    """
    batch = for_flow(flow, batch)
    found = log_likelihoods(flow, batch.x, batch.context(conditional=conditional), effort, seed)
    nats = found.value
    if broken := int(nats.isnan().sum()):
        place = first + int(nats.isnan().nonzero()[0])
        raise NonFiniteError(
            f"The log-likelihood of {what} {place} (counted from 0) is not a number, and that of {broken - 1} more "
            "beside it. Look for values far outside of what was fitted."
        )
    # Of one draw the error is unknown, not zero.
    error = found.standard_error if effort.draws > 1 else nats * math.nan
    weighted = effort.likelihood == "bound" and effort.draws >= FEWEST_DRAWS
    return Likelihoods(
        _array(nats),
        None if effort.likelihood == "exact" else _array(error),
        batch.dims().cpu().numpy(),
        found.reliable.cpu().numpy() if weighted else None,
        _array(outlier_score(flow, batch.x, nats)) if outliers else None,
        None if batch.structure is None else batch.structure.sizes.cpu().numpy(),
    )


def log_likelihoods(flow: Flow, x: Tensor, context: ContextLike, effort: Effort, seed: int) -> Estimate:
    """Return the log-likelihoods of items in nats with what is known of their errors; exact values have none."""
    with seeded(seed), torch.no_grad():
        if effort.likelihood == "bound":
            chunk = max(1, effort.items // max(len(x), 1))
            return flow.iw_log_prob(x, context, samples=effort.draws, chunk=chunk, warn=False)
        # Of an exact model that is its log_prob.
        return flow.elbo(x, context, samples=effort.draws)


def score_source(
    flow: Flow,
    source: Source,
    split: SplitName = "test",
    *,
    facts: Facts | None = None,
    conditional: bool = False,
    draws: int | None = None,
    on_batch: Callable[[float], None] | None = None,
) -> Likelihoods:
    """Score all items of a split, in their order, with draws that are the same in every call.

    Args:
        flow: the model.
        source: the data.
        split: of the source.
        facts: of the data that the model was fitted to; by default those of the source.
        conditional: give the labels to the model.
        draws: per item, see `effort_of`.
        on_batch: called after every pass with the share that is done.

    Raises:
        DataError: if the split has no items.
        ConfigError: if there is no such split, or the number of draws does not fit.
        NonFiniteError: if a weight of the flow is not finite, or the likelihood of an item is not a number.
        UnsupportedError: if it is no flow.
    """
    check_flow(flow)
    split, count = check_split(split), source.size(split)
    if count == 0:
        raise DataError(f"'{source.name}' has no items in its split '{split}', so none can be scored.")
    check_condition(flow, source, split, conditional=conditional)
    facts, parts = facts or source.facts(), []
    effort, how = effort_of(flow, facts, draws), {"conditional": conditional, "outliers": facts.kind == "table"}
    with flow.frozen():
        for number, batch in enumerate(in_order(flow, source, split, effort.items)):
            seed, what, first = seed_of(split, number), f"'{source.name}' ({split}), item", number * effort.items
            found = score_batch(flow, batch, effort, seed=seed, what=what, first=first, **how)
            parts.append(found)
            if on_batch is not None:
                on_batch((first + len(batch)) / count)
    return Likelihoods.joined(parts)


def score_parts(flow: Flow, batch: Batch, facts: Facts, *, conditional: bool = False) -> Likelihoods:
    """Score graphs that are at hand, in passes as those of a source; see `score_source`."""
    effort, found = effort_of(flow, facts), []
    with flow.frozen():
        for number, numbers in enumerate(torch.arange(len(batch)).split(effort.items)):
            part = graphs_at(batch, numbers)
            found.append(score_batch(flow, part, effort, seed=seed_of("graphs", number), conditional=conditional))
    return Likelihoods.joined(found)


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().double().numpy()
