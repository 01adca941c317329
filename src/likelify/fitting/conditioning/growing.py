"""Particles of rows in numbers that grow until they are worth enough independent draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch

from likelify.fitting.conditioning.asked import Asked
from likelify.fitting.conditioning.particles import Particles, drawn
from likelify.fitting.conditioning.states import with_missed_states
from likelify.flows import Flow

# Particles of a row: as many as that, four times as many while they are worth too few, and never more.
PARTICLES, MOST = 256, 4096
# Where each is a draw by itself, one in so many more than are wanted, and at most so many times as many: those outside
# of a range are left out.
SPARE, MOST_TIMES = 16, 16
# Rounding of effective sample sizes.
WITHIN = 1e-3
# Particles that are worked on at a time.
AT_A_TIME = 2**15


def particles_of(
    flow: Flow, asked: Asked, some: np.ndarray, wanted: int, enough: float, *, present: bool
) -> Iterator[Particles]:
    """Draw what is not known of rows, of those together whose draws are exact, and of all others.

    Args:
        flow: the model.
        asked: all rows.
        some: numbers of those that are wanted.
        wanted: draws of each row.
        enough: of how many independent draws the worth is wanted where weights differ.
        present: whether what is drawn must not be missing.
    """
    places = torch.from_numpy(asked.known[np.ix_(some, asked.modelled)])
    exact = flow.base.completes_exactly(places, present=present).numpy()
    more = wanted + wanted // SPARE

    def exactly(rows: np.ndarray, number: int) -> Iterator[Particles]:
        yield drawn(flow, asked, rows, number, exact=True, present=present)

    draw = partial(drawn, flow, exact=False, present=present)
    weighted = partial(with_missed_states, draw, asked, present=present)
    yield from _growing(exactly, some[exact], more, MOST_TIMES * wanted, wanted)
    yield from _growing(weighted, some[~exact], max(PARTICLES, wanted), wanted, enough)


def _growing(
    draw: Callable[[np.ndarray, int], Iterator[Particles]], left: np.ndarray, number: int, most: int, enough: float
) -> Iterator[Particles]:
    """Draw so many particles of rows, and four times as many of those that are worth too few, up to a number."""
    while len(left):
        again = []
        last = 4 * number > max(MOST, most)
        at_a_time = max(1, AT_A_TIME // number)
        for start in range(0, len(left), at_a_time):
            for part in draw(left[start : start + at_a_time], number):
                good = part.ess >= enough - WITHIN if not last else np.ones(len(part.of), dtype=bool)
                if good.any():
                    yield part.some(good)
                again.append(part.of[~good])
        left, number = np.concatenate(again), 4 * number
