"""Leave the oddest rows of a table out of a fit, for data that hold outliers: a flow would learn these as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from likelify.data import Batch
from likelify.errors import ConfigError
from likelify.fitting.feeding import by_weight
from likelify.fitting.outliers import outlier_score
from likelify.schema import ColumnSchema
from likelify.seeding import seeded

if TYPE_CHECKING:
    from likelify.data import Source, SplitName
    from likelify.flows import Flow

# Simple densities are fitted so often, each to what the one before has left; to at most so many rows; every fifth of
# these weighs them.
ROUNDS, FITTED, WEIGHING = 3, 2**13, 5
# Rows that are scored at a time.
PART = 2**14


def trimmed(source: Source, share: float) -> Source:
    """Return a table without that share of its rows, the oddest, in training and validation; test rows stay.

    Odd is what `outlier_score` says of a mixture of two simple densities, independent columns and a Gaussian copula,
    fitted three times, each time to the rows that the one before has left. Simple ones, since anything with several
    modes makes room for a cluster of outliers. Training rows above the quantile of `1 - share` of the training rows
    leave, and validation rows above the same score. Of rows that weigh something, it is that share of the weights that
    leaves, and the simple densities are fitted to rows as often as they weigh.

    Args:
        source: a table.
        share: from 0 to 0.5; 0 returns the source as it is.

    Raises:
        ConfigError: if the source is no table, or has too few rows to leave some out, or columns of those that stay
            follow from others.
        DataError: as reading the rows and fitting their marginals say.
    """
    from likelify.data.derived import Subset

    if share == 0:
        return source
    if source.kind != "table":
        raise ConfigError(f"Only rows of tables are trimmed, and '{source.name}' has none. Leave 'trim' out.")
    splits: tuple[SplitName, SplitName] = ("train", "validation")
    (rows, weights), (seen, seen_weights) = (_rows(source, split) for split in splits)
    schema = source.meaning
    counts = int((weights > 0).sum())
    if round((1 - share) * counts) < WEIGHING:
        raise ConfigError(
            f"Of {counts} training rows that weigh something too few would be left. Take a smaller 'trim'."
        )
    kept, scores, flow = _oddness(rows, weights, schema, share)
    found: dict[SplitName, Tensor] = {
        "train": kept,
        "validation": _below(_scores(flow, seen), seen_weights, scores[kept].max()),
        "test": torch.arange(source.size("test")),
    }
    left = Subset(source, found, f"by trim={share:g}, which leaves out the oddest rows that are not for testing")
    _refuse_new_dependences(source, left)
    return left


def _oddness(
    rows: Tensor, weights: Tensor, schema: tuple[ColumnSchema, ...], share: float
) -> tuple[Tensor, Tensor, Flow]:
    """Return the places of the rows that stay, the scores of all rows, and what the last ones are of."""
    flow = _simple(rows, weights, schema)
    kept, scores = _staying(flow, rows, weights, share)
    for _ in range(ROUNDS - 1):
        flow = _simple(rows[kept], weights[kept], schema)
        kept, scores = _staying(flow, rows, weights, share)
    return kept, scores, flow


def _staying(flow: Flow, rows: Tensor, weights: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Return the places of the rows that stay, and the scores of all rows."""
    scores = _scores(flow, rows)
    kept = _lowest(scores, weights, 1 - share)
    if int((weights[kept] > 0).sum()) < WEIGHING:
        raise ConfigError(f"{len(kept)} of {len(rows)} training rows would be left. Take a smaller 'trim'.")
    return kept, scores


def _rows(source: Source, split: SplitName) -> tuple[Tensor, Tensor]:
    batch = source.read_all(split)
    rows = batch.x.double()
    return rows, torch.ones(len(rows), dtype=rows.dtype) if batch.weights is None else batch.weights.double()


def _refuse_new_dependences(source: Source, left: Source) -> None:
    """Refuse a table of which the rows that stay have no density, though all rows have one."""
    from likelify.data.screening import dependent_columns

    found = dependent_columns(left)
    if found and not dependent_columns(source):
        raise ConfigError(
            f"Without the oddest rows of '{source.name}' {found[0]}, and there is no density: the rows in which it is "
            "otherwise are just those that are trimmed. Leave one of these columns out (drop), or take a smaller trim."
        )


def _simple(rows: Tensor, weights: Tensor, schema: tuple[ColumnSchema, ...]) -> Flow:
    """Return a mixture of densities that need no training, fitted to some of the rows and weighed on others."""
    from likelify.distributions import AutoregressiveColumns, Mixture
    from likelify.flows import Flow
    from likelify.transforms import MixedColumns

    generator = torch.Generator().manual_seed(0)
    rows, weights = rows[weights > 0], weights[weights > 0]
    chosen = torch.randperm(len(rows), generator=generator)[:FITTED]
    rows, weights = rows[chosen], weights[chosen]
    columns = MixedColumns(schema)
    flow = Flow(Mixture(AutoregressiveColumns.simple(schema), apart=True), columns, event_shape=(len(schema),)).double()
    weighing = torch.arange(len(rows)) % WEIGHING == 0
    with seeded(0), torch.no_grad():
        flow.initialize(_as_they_weigh(rows[~weighing], weights[~weighing]))
        flow.stack(_as_they_weigh(rows[weighing], weights[weighing]))
    return flow


def _as_they_weigh(rows: Tensor, weights: Tensor) -> Tensor:
    return by_weight(Batch(rows, weights=weights)).x


def _scores(flow: Flow, rows: Tensor) -> Tensor:
    with torch.no_grad(), flow.frozen():
        return torch.cat([outlier_score(flow, part) for part in rows.split(PART)])


def _lowest(scores: Tensor, weights: Tensor, share: float) -> Tensor:
    """Return the places of the lowest scores that have a share of the weights, in the order of the rows."""
    order = scores.argsort(stable=True)
    middles = weights[order].cumsum(0) - weights[order] / 2
    return order[middles < share * weights.sum()].sort().values


def _below(scores: Tensor, weights: Tensor, highest: Tensor) -> Tensor:
    """Return the places of scores up to one, in any case of the lowest: without validation there is no fit."""
    return (scores <= torch.maximum(highest, scores[weights > 0].min())).nonzero()[:, 0]
