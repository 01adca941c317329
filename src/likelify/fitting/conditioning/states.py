"""States of columns of few values that draws in the order of the columns miss: these rows are drawn state by state.

What stands before a known column is drawn without a look at it. A state that is rare there, and likely once the known
value is seen, is then among few particles or none, and their weights do not show it. So each combination of states of
the unknown columns of few values is also taken as known, which gives its probability from a few particles; where one
that counts was missed, all combinations get particles of their own, weighted by what they are worth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from likelify.fitting.conditioning.asked import Asked
from likelify.fitting.conditioning.particles import Particles
from likelify.schema import ColumnSchema

# So many combinations of states of a row are looked at, with so many particles each.
MOST, EACH = 32, 8
# A combination of that share counts, and is missed if so few particles have it.
SHARE, FEWEST = 0.01, 4
Draw = Callable[[Asked, np.ndarray, int], Particles]


def with_missed_states(
    draw: Draw, asked: Asked, some: np.ndarray, number: int, *, present: bool
) -> Iterator[Particles]:
    """Draw particles of rows, and of those that miss states that count by each combination of them.

    Args:
        draw: draws so many particles of some of the rows that are asked for.
        asked: all rows.
        some: numbers of those that are wanted.
        number: of particles of each.
        present: whether what is drawn must not be missing.
    """
    plain = draw(asked, some, number)
    patterns, groups = np.unique(asked.known[some], axis=0, return_inverse=True)
    for pattern, known in enumerate(patterns):
        places = np.flatnonzero(groups.reshape(-1) == pattern)
        columns = _few_valued(asked, known, present=present)
        if not columns:
            yield plain.taken(places)
            continue
        states = _combinations([asked.schema[column] for column in columns], present=present)
        missed = _missed(draw, asked, plain.taken(places), columns, states)
        if not missed.all():
            yield plain.taken(places[~missed])
        if missed.any():
            each = max(EACH, math.ceil(number / len(states)))
            yield _by_state(draw, asked, some[places[missed]], columns, states, each)


def _few_valued(asked: Asked, known: np.ndarray, *, present: bool) -> list[int]:
    """Return the unknown columns of which the states are tried, those of the fewest first."""
    unknown = [at for at in asked.modelled if not known[at] and asked.schema[at].rest == "none"]
    sizes = {int(at): len(_states(asked.schema[at], present=present)) for at in unknown}
    found, count = [], 1
    for at in sorted(sizes, key=lambda at: sizes[at]):
        count *= sizes[at]
        if count > MOST:
            break
        found.append(at)
    return found


def _states(column: ColumnSchema, *, present: bool) -> list[float]:
    return [*column.states, *([math.nan] if column.missing and not present else [])]


def _combinations(columns: list[ColumnSchema], *, present: bool) -> np.ndarray:
    """Return all combinations of the states of columns `(combinations, columns)`, NaN where a value is missing."""
    states = np.meshgrid(*(_states(column, present=present) for column in columns), indexing="ij")
    return np.stack([values.reshape(-1) for values in states], 1)


def _by_state(
    draw: Draw, asked: Asked, some: np.ndarray, columns: list[int], states: np.ndarray, each: int
) -> Particles:
    """Draw so many particles of rows for each combination of states; their weights say what each is worth."""
    rows, known = (values[some].repeat(len(states), 0) for values in (asked.rows, asked.known))
    rows[:, columns], known[:, columns] = np.tile(states, (len(some), 1)), True
    found = draw(replace(asked, rows=rows, known=known), np.arange(len(rows)), each)

    def pooled(values: np.ndarray) -> np.ndarray:
        # One combination after the other: resampling at equal steps would fall in step with any other order.
        apart = np.moveaxis(values.reshape(each, len(some), len(states), *values.shape[2:]), 2, 0)
        return apart.reshape(len(states) * each, len(some), *values.shape[2:])

    # Each combination has as many particles as all others: their mean is then the sum over combinations.
    log_weight, log_known = (pooled(values) + math.log(len(states)) for values in (found.log_weight, found.log_known))
    return Particles(some, pooled(found.rows), log_weight, log_known, exact=False)


def _missed(draw: Draw, asked: Asked, plain: Particles, columns: list[int], states: np.ndarray) -> np.ndarray:
    """Tell of each row whether a combination of states that counts is hardly among its particles."""
    tried = _by_state(draw, asked, plain.of, columns, states, EACH)
    worth = np.logaddexp.reduce(tried.log_weight.reshape(len(states), EACH, -1), axis=1)
    top = worth.max(0)
    share = np.exp(worth - np.where(np.isfinite(top), top, 0.0))
    share /= np.maximum(share.sum(0), 1e-300)
    values = plain.rows[:, :, None, columns]
    same = ((values == states) | (np.isnan(values) & np.isnan(states))).all(-1)
    count = (same & np.isfinite(plain.log_weight)[..., None]).sum(0).T
    return ((share > SHARE) & (count < FEWEST)).any(0)
