"""Quantiles of a column that a model draws last: of its own conditional distribution, without draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from likelify.distributions import AutoregressiveColumns, Mixture
from likelify.distributions.conditional import ColumnConditional
from likelify.distributions.normal_mixtures import NormalMixtures
from likelify.fitting.conditioning.asked import Asked
from likelify.flows import Flow
from likelify.transforms import MixedColumns

# Scores beyond this, which one row in 30,000 has, are taken for this: further out a marginal of fewer rows has only its
# floor, which reaches as far as float64 does.
FARTHEST = 4.0


def closed_quantiles(flow: Flow, asked: Asked, some: np.ndarray, target: int, levels: np.ndarray) -> np.ndarray | None:
    """Return quantiles of a column given all others, `(n, levels)`, or None if the model does not draw it last.

    With the values `s_1 < s_2 < ...` that have a probability of their own, and `y_i` the value at which the continuous
    part reaches what the level leaves for it behind the first `i` of them, the quantile is the smallest `max(s_i, y_i)`
    below `s_(i+1)`. Scores are kept within 4 of zero.

    Args:
        flow: a model of tables.
        asked: all rows.
        some: numbers of those that are wanted.
        target: number of the column.
        levels: inside (0, 1).
    """
    column, transform = asked.schema[target], flow.transform
    place = int(np.searchsorted(asked.modelled, target))
    members = _members(flow, place)
    if members is None or not isinstance(transform, MixedColumns) or asked.modelled[place] != target:
        return None
    cells = transform(torch.from_numpy(asked.known_cells(some)))[0]
    states, scores = _together(*members, cells, place, column.size)
    order = np.argsort(column.states, kind="stable")
    ends = np.array(column.states)[order]
    share = states.T.numpy()[:, order]
    below = np.concatenate([np.zeros((len(some), 1)), share.cumsum(1)], 1)
    starts = np.concatenate([[-np.inf], ends])
    stops = np.concatenate([ends, [np.inf]])
    found = np.empty((len(some), len(levels)))
    for number, level in enumerate(levels):
        reached = _reached(transform, cells, scores, place, target, level - below, 1 - below[:, -1:])
        values = np.maximum(starts, reached)
        found[:, number] = np.where(values < stops, values, np.inf).min(1)
    last = ends[-1] if scores is None else column.range[1]
    return np.clip(found, column.range[0], last)


def _members(flow: Flow, place: int) -> tuple[list[AutoregressiveColumns], Tensor] | None:
    """Return the members of a mixture and their log-weights, if each of them draws the column last."""
    base = flow.base
    members = list(base.members) if isinstance(base, Mixture) else [base]
    weights = base.log_weights.detach() if isinstance(base, Mixture) else torch.zeros(1)
    found = [member for member in members if isinstance(member, AutoregressiveColumns)]
    # Where columns are independent each can be taken for the last.
    last = [member.order[-1] == place or not member.linear for member in found]
    return (found, weights) if len(found) == len(members) and all(last) else None


def _together(
    members: Sequence[AutoregressiveColumns], log_weights: Tensor, cells: Tensor, place: int, size: int
) -> tuple[Tensor, NormalMixtures | None]:
    """Return the probabilities of the values that are states, `(states, n)`, and one mixture of all members' scores.

    Both are given that the value is not missing; members count by their weights and by how likely the others are.
    """
    found: list[ColumnConditional] = []
    weights = []
    for member, weight in zip(members, log_weights, strict=True):
        terms = member.terms(cells).double()
        terms[:, place] = 0.0
        conditional, known = member.conditional(cells, place).double().present()
        found.append(conditional)
        weights.append(weight.double() + terms.sum(1) + known)
    share = torch.stack(weights).log_softmax(0)
    log_states = torch.stack([_log_states(each, size, cells) for each in found])
    states = (share[:, None] + log_states).logsumexp(0).exp()
    continuous = found[0].continuous
    if continuous is None:
        return states[:-1], None
    parts = []
    for number, each in enumerate(found):
        if each.mixture is not None:
            parts.append((each.mixture, share[number] + log_states[number, continuous]))
    mixture = NormalMixtures(
        torch.cat([part.log_weights + weight for part, weight in parts]).log_softmax(0),
        torch.cat([part.means for part, _ in parts]),
        torch.cat([part.log_scales for part, _ in parts]),
    )
    return states[:continuous], mixture


def _log_states(conditional: ColumnConditional, size: int, cells: Tensor) -> Tensor:
    if conditional.log_states is not None:
        return conditional.log_states
    sure = torch.full((size, len(cells)), -torch.inf, dtype=torch.float64)
    sure[conditional.continuous] = 0.0
    return sure


def _reached(
    transform: MixedColumns,
    cells: Tensor,
    scores: NormalMixtures | None,
    place: int,
    target: int,
    left: np.ndarray,
    share: np.ndarray,
) -> np.ndarray:
    """Return the values at which the continuous part reaches some probabilities `(n, k)`, infinite beyond its ends."""
    found = np.where(left <= 0, -np.inf, np.inf)
    if scores is None:
        return found
    for at in range(left.shape[1]):
        inside = (left[:, at] > 0) & (left[:, at] < share[:, 0])
        level = torch.from_numpy(np.where(inside, left[:, at] / np.maximum(share[:, 0], 1e-300), 0.5))
        z = scores.from_noise(torch.special.ndtri(level)).clamp(-FARTHEST, FARTHEST)
        middle, width = transform.snap(z, place)
        whole = cells.clone()
        continuous = transform.schema[target].continuous or 0
        whole[:, :, place] = torch.stack([torch.full_like(middle, continuous), middle, width], 1).to(whole)
        values = transform.inverse(whole)[0][:, target].double().numpy()
        found[:, at] = np.where(inside, values, found[:, at])
    return found
