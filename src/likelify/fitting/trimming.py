"""Leave the oddest rows of a table out of a fit, for data that hold outliers: a flow would learn these as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from likelify.errors import ConfigError
from likelify.fitting.outliers import outlier_score
from likelify.schema import ColumnSchema, real_columns
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
    leave, and validation rows above the same score.

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
    rows = {split: source.read_all(split).x.double() for split in splits}
    keep = round((1 - share) * len(rows["train"]))
    if keep < WEIGHING:
        raise ConfigError(f"{keep} of {len(rows['train'])} training rows would be left. Take a smaller 'trim'.")
    schema = source.schema or real_columns(source.event_shape[0])
    flow = _simple(rows["train"], schema)
    for _ in range(ROUNDS - 1):
        flow = _simple(rows["train"][_lowest(_scores(flow, rows["train"]), keep)], schema)
    scores = _scores(flow, rows["train"])
    kept = _lowest(scores, keep)
    found: dict[SplitName, Tensor] = {
        "train": kept,
        "validation": _below(_scores(flow, rows["validation"]), scores[kept].max()),
        "test": torch.arange(source.size("test")),
    }
    left = Subset(source, found)
    _refuse_new_dependences(source, left)
    return left


def _refuse_new_dependences(source: Source, left: Source) -> None:
    """Refuse a table of which the rows that stay have no density, though all rows have one."""
    from likelify.data.screening import dependent_columns

    found = dependent_columns(left)
    if found and not dependent_columns(source):
        raise ConfigError(
            f"Without the oddest rows of '{source.name}' {found[0]}, and there is no density: the rows in which it is "
            "otherwise are just those that are trimmed. Leave one of these columns out (drop), or take a smaller trim."
        )


def _simple(rows: Tensor, schema: tuple[ColumnSchema, ...]) -> Flow:
    """Return a mixture of densities that need no training, fitted to some of the rows and weighed on others."""
    from likelify.distributions import AutoregressiveColumns, Mixture
    from likelify.flows import Flow
    from likelify.transforms import MixedColumns

    generator = torch.Generator().manual_seed(0)
    rows = rows[torch.randperm(len(rows), generator=generator)[:FITTED]]
    columns = MixedColumns(schema)
    members = [AutoregressiveColumns(schema, linear=linear) for linear in (False, True)]
    flow = Flow(Mixture(members, apart=True), columns, event_shape=(len(schema),)).double()
    weighing = torch.arange(len(rows)) % WEIGHING == 0
    with seeded(0), torch.no_grad():
        flow.initialize(rows[~weighing])
        flow.stack(rows[weighing])
    return flow


def _scores(flow: Flow, rows: Tensor) -> Tensor:
    with torch.no_grad(), flow.frozen():
        return torch.cat([outlier_score(flow, part) for part in rows.split(PART)])


def _lowest(scores: Tensor, count: int) -> Tensor:
    """Return the places of the lowest scores, in their order."""
    return scores.argsort(stable=True)[:count].sort().values


def _below(scores: Tensor, highest: Tensor) -> Tensor:
    """Return the places of scores up to one, in any case of the lowest: without validation there is no fit."""
    return (scores <= torch.maximum(highest, scores.min())).nonzero()[:, 0]
