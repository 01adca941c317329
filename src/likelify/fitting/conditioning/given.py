"""Some columns of rows given others, under a model of tables: draws, quantiles, densities.

A model draws its columns one after the other, each given those before it. Where all that is known comes first, that
draws from the conditional distribution exactly. Elsewhere what is known later weighs the draws: they are particles of
importance sampling, whose number grows until they are worth enough independent ones, and of which as many as are wanted
are chosen by systematic resampling.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from likelify.errors import ConfigError, LikelifyWarning
from likelify.fitting.conditioning.asked import Asked
from likelify.fitting.conditioning.closed import closed_quantiles
from likelify.fitting.conditioning.dependent import following
from likelify.fitting.conditioning.growing import particles_of
from likelify.flows import Flow
from likelify.schema import ColumnSchema
from likelify.seeding import seeded
from likelify.shapes import check_size
from likelify.transforms import MixedColumns

# So many independent draws the particles of a row should be worth, and those that quantiles are taken from.
ENOUGH, FOR_QUANTILES = 30, 1000
OnShare = Callable[[float], None]


@dataclass(frozen=True, eq=False)
class Drawn:
    """Draws of rows of which some columns were known.

    Attributes:
        rows: raw rows `(n, draws, columns)`; what was known is as it was.
        ess: of each row, how many independent draws its particles are worth `(n,)`; the number of draws where these
            are independent draws from the conditional distribution itself.
        exact: of each row, whether they are `(n,)`.
    """

    rows: np.ndarray
    ess: np.ndarray
    exact: np.ndarray


class Density(NamedTuple):
    """Log-densities of some columns given the others.

    Attributes:
        nats: `(n,)`, in the units of the columns.
        standard_error: of each; zero where it is exact.
    """

    nats: np.ndarray
    standard_error: np.ndarray


def draw_given(
    flow: Flow,
    schema: Sequence[ColumnSchema],
    rows: np.ndarray | Tensor,
    known: np.ndarray | Tensor,
    *,
    draws: int = 1,
    present: bool = False,
    seed: int = 0,
    on_share: OnShare | None = None,
) -> Drawn:
    """Draw what is not known of rows, given the rest.

    Args:
        flow: a model of tables.
        schema: of its columns.
        rows: raw rows `(n, columns)`; what they hold at places that are not known is not looked at.
        known: `(columns,)` or `(n, columns)`, true where a value is known, be it that it is known to be missing.
        draws: of each row.
        present: whether what is drawn must not be missing: to fill in missing values.
        seed: of all draws.
        on_share: called with the share that is done.

    Warns:
        LikelifyWarning: if the draws of a row are worth few independent ones, or a known value lies outside of the
            data; far outside it is taken for the nearest that they have, or a tenth of their width beyond.

    Raises:
        ConfigError: if the model cannot draw some columns given others, or a condition of it is not known.
        DataError: if a known value is not possible.
    """
    if not isinstance(draws, Integral) or isinstance(draws, bool) or draws < 1:
        raise ConfigError(f"The number of draws must be 1, 2, ..., got {draws}.")
    asked = Asked.of(schema, rows, known, near=True)
    result = Drawn(
        np.repeat(asked.rows[:, None], draws, 1), np.zeros(len(asked.rows)), np.zeros(len(asked.rows), dtype=bool)
    )
    done = 0
    with seeded(seed), torch.no_grad(), flow.frozen():
        for part in particles_of(flow, asked, asked.numbers, draws, max(ENOUGH, draws / 2), present=present):
            chosen = _systematic(part.log_weight, draws)
            taken = np.take_along_axis(part.rows, chosen[..., None], 0).transpose(1, 0, 2)
            result.rows[part.of] = taken
            result.ess[part.of] = np.minimum(part.ess, draws) if part.exact else part.ess
            result.exact[part.of] = part.exact
            done += len(part.of)
            if on_share is not None:
                on_share(done / len(asked.rows))
    _warn_of_few(result.ess[~result.exact])
    return result


def quantiles(
    flow: Flow,
    schema: Sequence[ColumnSchema],
    rows: np.ndarray | Tensor,
    target: int,
    levels: Sequence[float],
    *,
    seed: int = 0,
) -> np.ndarray:
    """Return quantiles of a column given all others, `(n, len(levels))`, in the units of the column.

    Where the model has the column last, these are quantiles of its own conditional distribution, found by bisection;
    elsewhere of weighted draws. Of values that may be missing they are those of the values that are not.

    Args:
        flow: a model of tables.
        schema: of its columns.
        rows: raw rows `(n, columns)`; what they hold of the target is not looked at.
        target: number of the column, of numbers or dates, or in an order.
        levels: probabilities inside (0, 1).
        seed: of the draws, where there are some.

    Warns:
        LikelifyWarning: if the draws of a row are worth few independent ones, or as `draw_given`.

    Raises:
        ConfigError: if the column has no order or is not there, a level is none, or the model cannot draw columns given
            others.
        DataError: if a known value is not possible.
    """
    wanted = np.asarray(levels, dtype=np.float64).reshape(-1)
    if not len(wanted) or not ((wanted > 0) & (wanted < 1)).all():
        raise ConfigError(f"Quantiles are at probabilities between 0 and 1, got {list(levels)}.")
    (target,) = _columns(schema, [target])
    if schema[target].kind == "category":
        raise ConfigError(f"'{schema[target].name}' is of words without an order, which have no quantiles.")
    asked = Asked.of(schema, rows, _rest(schema, [target]), near=True)
    found, ess = np.empty((len(asked.rows), len(wanted))), np.empty(len(asked.rows))
    with seeded(seed), torch.no_grad(), flow.frozen():
        closed = closed_quantiles(flow, asked, asked.numbers, target, wanted)
        if closed is not None:
            return closed
        for part in particles_of(flow, asked, asked.numbers, FOR_QUANTILES, FOR_QUANTILES / 4, present=True):
            found[part.of] = _weighted_quantiles(part.rows[:, :, target], part.log_weight, wanted)
            ess[part.of] = part.ess
    _warn_of_few(ess)
    return found


def log_prob_of(
    flow: Flow, schema: Sequence[ColumnSchema], rows: np.ndarray | Tensor, target: int | Sequence[int], *, seed: int = 0
) -> Density:
    """Return log p(some columns | all others) of rows, in nats and in the units of the columns.

    `log p(target | rest) = log p(row) - log p(rest)`, where the last is the mean of the weights of draws of the target:
    exact where the rest comes first in the model, and everywhere for a model that was fitted with the rest given.

    Args:
        flow: a model of tables.
        schema: of its columns.
        rows: raw rows `(n, columns)`.
        target: numbers of the columns.
        seed: of the draws, where there are some.

    Raises:
        ConfigError: if the model cannot draw some columns given others, or there are no such columns.
        DataError: if a value of the rest is not possible.
    """
    wanted = _columns(schema, target if isinstance(target, Iterable) else [target])
    asked = Asked.of(schema, rows, _rest(schema, wanted))
    nats, error = np.empty(len(asked.rows)), np.zeros(len(asked.rows))
    with seeded(seed), torch.no_grad(), flow.frozen():
        whole = torch.as_tensor(np.asarray(rows, dtype=np.float64))
        for part in particles_of(flow, asked, asked.numbers, 1, ENOUGH, present=False):
            rest = _of_known(flow, asked, part.of)
            nats[part.of] = (flow.log_prob(whole[part.of]) - rest).double().numpy() - part.log_mean
            error[part.of] = 0.0 if part.exact else part.relative_error
    return Density(nats, error)


def _of_known(flow: Flow, asked: Asked, some: np.ndarray) -> Tensor:
    """Return what the first layer adds to the log-likelihood of the known values of rows."""
    rows = torch.from_numpy(asked.known_cells(some))
    added = flow.transform(rows)[1]
    if not isinstance(flow.transform, MixedColumns):
        return added
    # What is not known stands there as missing, which has a share of its own.
    return added - flow.transform.shares(rows).where(~torch.from_numpy(asked.known[some]), 0.0).sum(1)


def _columns(schema: Sequence[ColumnSchema], targets: Iterable[int]) -> list[int]:
    """Return numbers of columns, of which there is at least one.

    Raises:
        ConfigError: if there are no such columns.
    """
    numbers = [check_size(target, "The number of a column", least=0) for target in targets]
    if not numbers or max(numbers) >= len(schema):
        raise ConfigError(f"The columns have the numbers 0 to {len(schema) - 1}; asked for {numbers}.")
    return numbers


def _rest(schema: Sequence[ColumnSchema], targets: Sequence[int]) -> np.ndarray:
    """Return where the other columns are, but for those that follow from a target and would give it away."""
    return ~following(targets, schema)


def _systematic(log_weight: np.ndarray, draws: int) -> np.ndarray:
    """Choose particles by systematic resampling: the numbers `(draws, n)` of those of each row, in random order.

    From equally spaced places with one random offset, so that a particle of weight `w` is taken `w draws` times but for
    rounding to a neighbouring whole number.
    """
    weight = np.exp(log_weight - log_weight.max(0))
    ends = np.cumsum(weight, 0) / weight.sum(0)
    offset = torch.rand(weight.shape[1], dtype=torch.float64).numpy()
    places = (np.arange(draws)[:, None] + offset) / draws
    chosen = np.stack([np.searchsorted(ends[:, at], places[:, at]) for at in range(weight.shape[1])], 1)
    # One order for all rows: between rows draws are independent, whichever stands where.
    return np.minimum(chosen, len(weight) - 1)[torch.randperm(draws).numpy()]


def _weighted_quantiles(values: np.ndarray, log_weight: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return for each row the smallest of its values `(particles, n)` below or at which there is enough weight."""
    weight = np.exp(log_weight - log_weight.max(0))
    order = np.argsort(values, 0)
    ends = np.cumsum(np.take_along_axis(weight, order, 0), 0)
    ordered, ends = np.take_along_axis(values, order, 0), ends / ends[-1]
    last = len(values) - 1
    found = [ordered[np.searchsorted(ends[:, at], levels).clip(0, last), at] for at in range(values.shape[1])]
    return np.array(found)


def _warn_of_few(ess: np.ndarray) -> None:
    few = int((ess < ENOUGH).sum())
    if few:
        warnings.warn(
            f"The draws of {few} of {len(ess)} rows whose weights differ are worth few independent ones: the smallest "
            f"effective sample size is {ess.min():.1f}, where {ENOUGH} are wanted. They may miss much of what is "
            "possible there. A model that is fitted given what is known (--given a,b) has no such weights.",
            LikelifyWarning,
            stacklevel=3,
        )
