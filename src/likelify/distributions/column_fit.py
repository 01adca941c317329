r"""Closed forms for tables: how often states are met, and linear regressions of each score on the columns before it.

The regressions come from the Cholesky factor of the correlations of all features in the order of the model, shrunk
towards none. For a table of real numbers whose scores are normal that is the Gaussian copula.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from likelify.nets.cells import CellLayout, expected_score

# Shares by which correlations may be shrunk, of which cross-validation takes the best.
SHRINKAGES = (1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3)
FOLDS = 5
# Rows that are looked at.
MOST_ROWS = 20_000
# States that regressions look at, those met most often: what rare ones tell, a ridge would shrink away.
MOST_STATES = 500
# Products of numbers that the choice among them may cost.
MOST_WORK = 2e10
# Deviations are at least that much of the score's own.
LEAST = 1e-3

Fit = tuple[Tensor, Tensor, Tensor]


def log_odds(layout: CellLayout, cells: Tensor) -> Tensor:
    """Return log-probabilities of the states of all columns whose state is not sure, `(states,)`.

    Each state has been met half a time more than it was, so that all are finite.
    """
    met = _met(layout, cells).double() + 0.5
    member = layout.segments.to(met)
    return (met / (member.T @ (member @ met))).log().to(cells.dtype)


def _met(layout: CellLayout, cells: Tensor) -> Tensor:
    """Return how often each state is met, `(states,)`."""
    # Column by column: a truth value for each state and row would take more room than the rows.
    sizes = [layout.columns[place].size for place in layout.open]
    counts = [
        cells[:, 0, place].long().bincount(minlength=size)[:size]
        for place, size in zip(layout.open, sizes, strict=True)
    ]
    return torch.cat([layout.state_values[:0], *counts])


def moments(layout: CellLayout, cells: Tensor) -> Fit:
    """Return no linear part, and means and log deviations of scores where there are any."""
    scores, within, scored = _scores(layout, cells)
    count = scored.sum(1).clamp_min(1)
    mean = (scores * scored).sum(1) / count
    # One value of deviation one keeps that of few values, or of one that is met again and again, away from zero.
    variance = ((((scores - mean[:, None]).square() + within) * scored).sum(1) + 1) / (count + 1)
    matrix = scores.new_zeros(layout.scores, layout.features)
    return matrix.to(cells.dtype), mean.to(cells.dtype), (0.5 * variance.log()).clamp_min(-7).to(cells.dtype)


def ridge(layout: CellLayout, cells: Tensor) -> Fit:
    """Return factors `(scores, features)`, offsets and log deviations of regressions on earlier columns.

    The ridge is one for all of them, by cross-validation. A column that has a score in some rows only is regressed
    in those. Of more than `MOST_STATES` states the others have factors of zero.
    """
    cells = cells[:: -(-len(cells) // MOST_ROWS)] if len(cells) > MOST_ROWS else cells
    used, chosen = _used(layout, cells)
    factors, offset, log_scale = _ridge(chosen, *_features(layout, cells, used))
    matrix = factors.new_zeros(layout.scores, layout.features)
    matrix[:, used] = factors
    return matrix.to(cells.dtype), offset.to(cells.dtype), log_scale.to(cells.dtype)


class _Chosen(NamedTuple):
    """Features that are looked at: how many of them are scores, which come first, and their places in the order."""

    scores: int
    positions: Tensor

    @property
    def features(self) -> int:
        return len(self.positions)


def _used(layout: CellLayout, cells: Tensor) -> tuple[Tensor, _Chosen]:
    """Return the numbers of the features that are looked at."""
    states = torch.arange(layout.states, device=cells.device)
    if layout.states > MOST_STATES:
        states = _met(layout, cells).argsort(descending=True, stable=True)[:MOST_STATES].sort().values
    used = torch.cat([torch.arange(layout.scores, device=cells.device), layout.scores + states])
    return used, _Chosen(layout.scores, layout.feature_positions[used])


def _features(layout: CellLayout, cells: Tensor, used: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return these features `(features, rows)`, and variances within scores and where there are any."""
    scores, within, scored = _scores(layout, cells)
    states = used[layout.scores :] - layout.scores
    state = cells[:, 0].T.index_select(0, layout.state_columns[states])
    return torch.cat([scores, (state == layout.state_values[states, None]).double()]), within, scored


def _ridge(layout: _Chosen, features: Tensor, within: Tensor, scored: Tensor) -> Fit:
    shrinkage = _best_shrinkage(layout, features, scored)
    matrix = features.new_zeros(layout.scores, layout.features)
    offset, log_scale = features.new_zeros(layout.scores), features.new_zeros(layout.scores)
    everywhere = scored.all(1)
    if bool(everywhere.any()):
        found = _regressions(layout, features, shrinkage)
        for whole, part in zip((matrix, offset, log_scale), found, strict=True):
            whole[everywhere] = part[everywhere]
    for number in (~everywhere).nonzero()[:, 0].tolist():
        chosen = features[:, scored[number]]
        found = _regression(layout, chosen, number, shrinkage) if chosen.shape[1] > 1 else None
        if found is not None:
            matrix[number], offset[number], log_scale[number] = found
    # Regressions are of expected scores; what scores vary by inside of their cells is left.
    within = (within * scored).sum(1) / scored.sum(1).clamp_min(1)
    return matrix, offset, 0.5 * (log_scale.mul(2).exp() + within).log()


def _scores(layout: CellLayout, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return expected scores `(scores, rows)` in double precision, their variances, and where there are any."""
    state, z, width = (part.index_select(0, layout.score_columns) for part in layout.split(cells))
    mean, variance = expected_score(z.double(), width.double())
    return mean, variance, state == layout.score_states[:, None]


def _in_order(layout: _Chosen) -> Tensor:
    """Return the features in the order of the model, the score of a column before its states."""
    return torch.argsort(layout.positions, stable=True)


def _standardized(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return features of mean zero and deviation one, their means and deviations; constant ones are zero."""
    mean = features.mean(1)
    centred = features - mean[:, None]
    deviation = centred.square().mean(1).sqrt()
    deviation = torch.where(deviation > 1e-12, deviation, 1.0)
    return centred / deviation[:, None], mean, deviation


def _shrunk(correlation: Tensor, shrinkage: float) -> Tensor:
    identity = torch.eye(len(correlation), dtype=correlation.dtype, device=correlation.device)
    return (1 - shrinkage) * correlation + shrinkage * identity


def _best_shrinkage(layout: _Chosen, features: Tensor, scored: Tensor) -> float:
    """Return the share with the highest normal log-density of scores in rows that were left out."""
    # Not more work than this, for tables of thousands of states.
    most = max(40 * FOLDS, int(MOST_WORK / len(SHRINKAGES) / max(layout.features, 1) ** 2))
    features, scored = features[:, :most], scored[:, :most]
    rows = features.shape[1]
    if rows < 2 * FOLDS or layout.scores < 1:
        return SHRINKAGES[-1]
    order = _in_order(layout)
    standard = _standardized(features)[0][order]
    places = order.argsort()[: layout.scores]
    losses = torch.zeros(len(SHRINKAGES), dtype=features.dtype, device=features.device)
    for fold in range(FOLDS):
        held = torch.arange(rows, device=features.device) % FOLDS == fold
        left, kept = standard[:, held], standard[:, ~held]
        correlation = kept @ kept.T / kept.shape[1]
        for number, share in enumerate(SHRINKAGES):
            losses[number] += _loss(_shrunk(correlation, share), left, places, scored[:, held])
    return SHRINKAGES[int(losses.argmin())]


def _loss(correlation: Tensor, rows: Tensor, places: Tensor, scored: Tensor) -> Tensor:
    """Return minus the log-density of the scores in some rows, each given the features before it."""
    factor = torch.linalg.cholesky(correlation)
    residuals = (_inverse(factor)[places] @ rows).square()
    return ((0.5 * residuals + factor.diagonal()[places, None].log()) * scored).sum()


def _inverse(factor: Tensor) -> Tensor:
    identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    return torch.linalg.solve_triangular(factor, identity, upper=False)


def _regressions(layout: _Chosen, features: Tensor, shrinkage: float) -> Fit:
    """Return the regressions of all scores on earlier features, in all rows."""
    order = _in_order(layout)
    standard, mean, deviation = _standardized(features)
    correlation = standard[order] @ standard[order].T / features.shape[1]
    factor = torch.linalg.cholesky(_shrunk(correlation, shrinkage))
    inverse = _inverse(factor)
    # A row of the inverse factor is what is left of a feature over its deviation: 1 at itself, minus the factors.
    residual = factor.diagonal()[:, None] * inverse
    factors = torch.zeros_like(factor)
    factors[order[:, None], order[None, :]] = -residual.tril(-1)
    scales = torch.empty_like(mean)
    scales[order] = factor.diagonal()
    return _in_units(layout, factors[: layout.scores], scales[: layout.scores], mean, deviation)


def _in_units(layout: _Chosen, factors: Tensor, scales: Tensor, mean: Tensor, deviation: Tensor) -> Fit:
    """Return regressions of standardized features as those of the features, without the states of the same column."""
    own = deviation[: layout.scores]
    matrix = own[:, None] * factors / deviation[None, :]
    offset = mean[: layout.scores] - matrix @ mean
    return matrix, offset, (own * scales).clamp_min(LEAST).log()


def _regression(layout: _Chosen, features: Tensor, number: int, shrinkage: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the regression of one score on earlier features, in the rows in which it has one."""
    earlier = layout.positions < layout.positions[number]
    standard, mean, deviation = _standardized(features)
    chosen, target = standard[earlier], standard[number]
    rows = features.shape[1]
    factors = features.new_zeros(layout.features)
    products = chosen @ target * (1 - shrinkage) / rows
    solved = torch.linalg.solve(_shrunk(chosen @ chosen.T / rows, shrinkage), products)
    factors[earlier] = deviation[number] * solved / deviation[earlier]
    left = (target - solved @ chosen).square().mean().clamp_min(LEAST**2)
    # One more value of deviation one, for columns that have few.
    variance = (deviation[number].square() * left * rows + 1) / (rows + 1)
    return factors, mean[number] - factors @ mean, 0.5 * variance.log()
