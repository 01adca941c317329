"""What is measured of a model: per item and per dimension, for every kind of item."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from likelify.data import SPLITS, Batch, Source, SplitName
from likelify.errors import ConfigError, DataError, LikelifyWarning, NonFiniteError, unknown_word
from likelify.fitting.checks import check_condition, check_flow
from likelify.fitting.feeding import at_once, in_order
from likelify.fitting.figures import Evaluation, Figure, Score
from likelify.fitting.settings import Draws
from likelify.flows import Flow
from likelify.seeding import seeded
from likelify.shapes import check_size

EVALUATION_SEED = 2**31 - 1
USUAL = Draws()


def bits_per_dim(log_prob: Tensor, dims: Tensor | float) -> Tensor:
    """Turn log-likelihoods in nats into bits per dimension: `-log p / (D ln 2)`.

    Args:
        log_prob: of each item, `(items,)`.
        dims: number of elements D of each item, as `Batch.dims` counts them, or one number for all.

    Example:
        >>> bits_per_dim(torch.tensor([-6.9315]), 10)
        tensor([1.0000])
    """
    if not isinstance(dims, Tensor):
        return -log_prob / (dims * math.log(2))
    double = torch.float64 if dims.device.type != "mps" else torch.float32
    return -log_prob / (dims.to(double) * math.log(2)).to(log_prob)


def dims_of(source: Source) -> float | None:
    """Return the mean number of elements of the training items, if they are graphs of different sizes, else None.

    A fit divides graphs of all sizes by the same, so that what it maximises is their likelihood in another unit.
    """
    graphs = source.graphs
    return None if graphs is None else graphs.mean_nodes * math.prod(source.event_shape)


def mean_dims(dims: Tensor) -> Tensor:
    """Return the mean number of elements of items.

    Args:
        dims: of each item, `(items,)`.

    Example:
        >>> mean_dims(torch.tensor([2, 6])).item()
        4.0
    """
    return dims.to(torch.float64 if dims.device.type != "mps" else torch.float32).mean()


def gap_draws(iw_samples: int) -> tuple[int, ...]:
    """Return the numbers of draws at which a gap is measured: a sixteenth, a quarter and all of those for weighting.

    Raises:
        ConfigError: if there are fewer than two, which are no importance weighting.
    """
    if iw_samples < 2:
        raise ConfigError(f"The gap compares the ELBO with at least 2 draws for weighting; iw_samples is {iw_samples}.")
    return tuple(sorted({max(2, iw_samples // part) for part in (16, 4, 1)}))


def check_split(name: str) -> SplitName:
    """Return the name of a split.

    Raises:
        ConfigError: if there is no such split.
    """
    if name not in SPLITS:
        raise ConfigError(unknown_word("split", str(name), SPLITS))
    return name


def evaluate(
    flow: Flow,
    source: Source,
    *,
    split: SplitName = "test",
    elbo_samples: int = USUAL.elbo_samples,
    iw_samples: int = USUAL.iw_samples,
    conditional: bool = False,
    batch_size: int = 120,
    limit: int | None = None,
    iw_items: int | None = USUAL.iw_items,
    gaps: Sequence[int] = (),
    truth: Callable[[Batch], Tensor] | None = None,
    on_batch: Callable[[float], None] | None = None,
) -> Evaluation:
    """Measure a model on a split, with noise that is the same in every call; items count as they weigh (`weighted`).

    Args:
        flow: the model.
        source: the data.
        split: of the source.
        elbo_samples: draws per item for the ELBO.
        iw_samples: draws per item for importance weighting; 0 leaves it out.
        conditional: give the labels to the model.
        batch_size: items per pass; of large graphs fewer are taken at a time.
        limit: use only that many items, the first of the split.
        iw_items: weight only that many of them, the first; None weights all.
        gaps: also measure the gap between ELBO and importance weighting of the weighted items at these numbers of
            draws, from draws of its own.
        truth: returns the true log-densities of items in nats `(items,)`, for `Score.kl`; see `data.true_log_prob`.
        on_batch: called after every pass with the share that is done.

    Raises:
        DataError: if the split has no items.
        ConfigError: if there is no such split, or a number of draws or items does not fit.
        NonFiniteError: if a weight of the flow is not finite, or the likelihood of an item is not a number.
        UnsupportedError: if it is no flow.

    Warns:
        LikelifyWarning: if items lie outside the support of the model.
    """
    check_flow(flow)
    Draws(elbo_samples=elbo_samples, iw_samples=iw_samples, iw_items=iw_items)
    split = check_split(split)
    batch_size, count = check_size(batch_size, "batch_size"), _count(source, split, limit)
    check_condition(flow, source, split, conditional=conditional)
    weighted = _weighted(flow, count, iw_samples, iw_items)
    work = count * elbo_samples + weighted * iw_samples
    elbos, weights, tails, dims, true, done = [], [], [], [], [], 0
    found: dict[int, list[Tensor]] = {number: [] for number in gaps}
    with seeded(EVALUATION_SEED), torch.no_grad(), flow.frozen():
        for batch in in_order(flow, source, split, at_once(source, batch_size), count=count):
            done += len(batch)
            elbos.append(flow.elbo(batch.x, batch.context(conditional=conditional), samples=elbo_samples).value)
            dims.append(batch.dims())
            if truth is not None:
                true.append(truth(batch).double().cpu())
            items = len(batch) - max(0, done - weighted)
            if items > 0:
                batch = batch.head(items)
                context = batch.context(conditional=conditional)
                estimate = flow.iw_log_prob(batch.x, context, samples=iw_samples, warn=False)
                weights.append(estimate.value)
                tails.append((estimate.ess, estimate.k, estimate.reliable))
                for number, gap in flow.bound_gaps(batch.x, context, samples=gaps).items() if found else ():
                    found[number].append(gap.value)
            if on_batch is not None:
                on_batch((done * elbo_samples + min(done, weighted) * iw_samples) / work)
    elements, elbo, iw = torch.cat(dims), torch.cat(elbos), torch.cat(weights) if weighted else None
    of_items = _Items(source, elements, torch.cat(true) if true else None, source.item_weights(split))
    _look_at(elbo, source, split)
    return Evaluation(
        source=source.name,
        split=split,
        exact=flow.likelihood == "exact",
        elbo=_score(elbo, of_items, elbo_samples),
        iw=None if iw is None else _score(iw, of_items, iw_samples, tails),
        gain=None if iw is None else of_items.figure(iw - elbo[:weighted]),
        gaps={number: of_items.figure(torch.cat(values)) for number, values in found.items() if values} or None,
    )


def _count(source: Source, split: SplitName, limit: int | None) -> int:
    """Return how many items of a split are measured.

    Raises:
        ConfigError: for a limit that is no number of items.
        DataError: if there are none.
    """
    count = source.size(split) if limit is None else min(check_size(limit, "limit"), source.size(split))
    if count == 0:
        raise DataError(f"'{source.name}' has no items in its split '{split}', so nothing can be measured there.")
    return count


def _weighted(flow: Flow, count: int, iw_samples: int, iw_items: int | None) -> int:
    """Return how many of the items are weighted by importance."""
    if iw_samples == 0 or flow.likelihood == "estimate":
        return 0
    return count if iw_items is None else min(iw_items, count)


def _look_at(nats: Tensor, source: Source, split: SplitName) -> None:
    """Say how many items have no probability, for which the mean is minus infinity; refuse what is not a number."""
    broken, outside = int(nats.isnan().sum()), int(nats.isneginf().sum())
    if broken:
        raise NonFiniteError(
            f"The log-likelihood of {broken} of {len(nats)} items of '{source.name}' ({split}) is not a number, the "
            f"first of them item {int(nats.isnan().nonzero()[0])}. Look for items far outside of what was fitted."
        )
    if outside:
        warnings.warn(
            f"{outside} of {len(nats)} items of '{source.name}' ({split}) lie outside the support of the model, the "
            f"first of them item {int(nats.isneginf().nonzero()[0])}: their likelihood is zero, and the mean of the "
            "logarithms minus infinity.",
            LikelifyWarning,
            stacklevel=3,
        )


@dataclass(frozen=True, eq=False)
class _Items:
    """What is known of the items that are measured.

    Attributes:
        source: that they are of.
        dims: elements of each.
        true: log-densities under the truth, if that is known.
        weights: what each of the split counts for, if they do not count alike.
    """

    source: Source
    dims: Tensor
    true: Tensor | None
    weights: Tensor | None

    def figure(self, values: Tensor) -> Figure:
        """Summarise one value for each of the first items."""
        weights = None if self.weights is None else self.weights[: len(values)].numpy()
        return Figure.of(values.detach().cpu().double().numpy(), weights)


def _score(nats: Tensor, items: _Items, samples: int, tails: Sequence[tuple[Tensor | None, ...]] = ()) -> Score:
    """Summarise the first items, of graphs also per node, beside their true densities if these are known.

    With what each batch of importance weights says of itself: sample sizes, shapes, reliable.
    """
    dims, source = items.dims[: len(nats)], items.source
    graphs, features = source.kind == "graph", math.prod(source.event_shape)
    score = Score(bits=items.figure(bits_per_dim(nats, dims)), nats=items.figure(nats), samples=samples)
    if graphs:
        score = score.model_copy(update={"per_node": items.figure(nats * features / dims)})
    if items.true is not None:
        above = items.true[: len(nats)] - nats.cpu().double()
        score = score.model_copy(update={"kl": items.figure(above * features / dims.cpu() if graphs else above)})
    if not tails:
        return score
    ess, shapes, reliable = (
        torch.cat([part for part in parts if part is not None]) for parts in zip(*tails, strict=True)
    )
    # One item without weights, such as one outside of the support, must not hide what those of the others say.
    known = nats.isfinite()
    found: dict[str, float] = {"left_out": int((~known).sum())}
    if bool(known.any()):
        found["ess"] = float(ess[known].median())
    known = known & ~shapes.isnan()
    if bool(known.any()):
        found |= {"k": float(shapes[known].median()), "heavy": float((~reliable[known]).double().mean())}
    return score.model_copy(update=found)
