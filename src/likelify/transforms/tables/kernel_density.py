"""The density of one column, fitted to a sample of it: a smoothed histogram on a scale that tames heavy tails."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

# In units of the interquartile range: where the scale turns from linear to logarithmic.
TURNS = (0.5, 3.0)
# About an end of the range instead, where the distance from it grows so many times over the middle half of the values.
DECADE = 10.0
# Bandwidths that are tried, as multiples of the rule for normal data.
MULTIPLES = tuple(2.0 ** (power / 2) for power in range(-14, 4))
# Cells reach this far on the logarithmic scale, as long as data do; a cell of what is farther would be too coarse.
FARTHEST = 60.0
# Bandwidths between the outermost values and the end of the cells.
MARGIN = 4.0
# Share of the floor, which is the density where the sample has no values.
LEAST_FLOOR, MOST_FLOOR = 1e-4, 0.02
# Of a cell.
SLACK = 1e-6
# Rows that each side of a range that was found may have outside.
OUTSIDE = 0.2
# Share of the rows with ties whose way to their neighbours is the usual one.
USUAL = 0.95
# The smallest scale that float64 can divide by.
SMALLEST = 1e-300
# Interquartile range of Student's t with three degrees of freedom.
RANGE_OF_T3 = 1.5297856
Scales = Callable[[Tensor, float, float, float], list[tuple[float, float]]]


class Grid(NamedTuple):
    """Where a density lives: `a = asinh((x - center) / unit)`, and cells of equal width in `a`.

    Attributes:
        center: where `a` is zero.
        unit: where `a` turns from linear to logarithmic.
        low: the lower end of the first cell.
        high: the upper end of the last one.
        typical: distance from the middle to the ends of the bulk, in `a`.
    """

    center: float
    unit: float
    low: float
    high: float
    typical: float


class Density(NamedTuple):
    """The fitted density of one column.

    Attributes:
        grid: of its cells.
        mass: probability of each cell, `(cells,)`.
        tails: probability below the cells and above them.
    """

    grid: Grid
    mass: Tensor
    tails: tuple[float, float]


def squashed(x: Tensor, center: Tensor | float, unit: Tensor | float) -> Tensor:
    """Return `asinh((x - center) / unit)` for all that float64 can hold."""
    largest = torch.finfo(x.dtype).max
    away = (x - center).clamp(-largest, largest)
    size = away.abs().clamp_min(unit)
    log_unit = unit.log() if isinstance(unit, Tensor) else math.log(unit)
    far = away.sign() * (size.log() - log_unit + math.log(2.0))
    scaled = away / unit
    return torch.where(scaled.abs() < 1e5, torch.asinh(scaled), far)


def fit_density(values: Tensor, low: float, high: float, *, hard: bool, cells: int) -> Density:
    """Fit the density of a column, with the scale and the bandwidth of the best leave-one-out likelihood.

    Args:
        values: `(n,)` finite numbers in float64 on the CPU, at least one.
        low: lower end of the range; minus infinity if there is none.
        high: upper end.
        hard: nothing is outside of the range. Otherwise there is a floor outside, of less than half a row.
        cells: how many there are.
    """
    ordered = values.sort().values
    tried: list[tuple[float, Density]] = []
    for origin, scales in _scales(ordered, low, high):
        # Ties of large numbers have no room to be spread in, but their distances from an origin among them do.
        moved, start, stop = ordered - origin, low - origin, high - origin
        moved = apart(moved).clamp(start, stop) if len(values) > 1 else moved
        for center, unit in scales(moved, start, stop, origin):
            grid, a = _grid(moved, start, stop, center, unit)
            mass, tails, score = _smoothed(a, grid, cells, bounded=(low > -math.inf, high < math.inf), hard=hard)
            # In the units of the column, so that scales compare.
            score = score - float((math.log(grid.unit) + log_cosh(a)).mean())
            tried.append((score, Density(grid._replace(center=grid.center + origin), mass, tails)))
    return max(tried, key=lambda each: each[0])[1]


def _subtracted(ordered: Tensor, low: float, high: float) -> float:
    """Return the median, or zero where what is left of a value or an end would be too large for float64."""
    middle = float(ordered[len(ordered) // 2])
    return middle if _leaves_numbers(middle, ordered, low, high) else 0.0


def _leaves_numbers(origin: float, ordered: Tensor, low: float, high: float) -> bool:
    """Return whether an origin can be subtracted from all values and ends in float64."""
    ends = [float(ordered[0]), float(ordered[-1]), *(end for end in (low, high) if math.isfinite(end))]
    return all(math.isfinite(end - origin) for end in ends)


def apart(ordered: Tensor) -> Tensor:
    """Spread values that are the same evenly, halfway to their neighbours on both sides.

    Without that the best bandwidth for values that were rounded would be zero, and the density one of spikes. The
    way is at most as wide as it is for most rows, so that a value far from others does not lose its place.
    """
    values, count = ordered.unique_consecutive(return_counts=True)
    if len(values) in (1, len(ordered)):
        return ordered
    gap = values.diff()
    left, right = torch.cat([gap[:1], gap]), torch.cat([gap, gap[-1:]])
    nearest, place = torch.minimum(left, right)[count > 1].sort()
    rows = count[count > 1][place].cumsum(0)
    widest = nearest[torch.searchsorted(rows, USUAL * rows[-1])]
    left, right = left.clamp_max(widest) / 2, right.clamp_max(widest) / 2
    place = torch.arange(len(values)).repeat_interleave(count)
    rank = torch.arange(len(ordered)) - (count.cumsum(0) - count)[place]
    share = (rank + 0.5) / count[place]
    moved = ordered - left[place] + share * (left + right)[place]
    return torch.where(count[place] > 1, moved, ordered)


def fresh_density(low: float, high: float, *, hard: bool, cells: int) -> Density:
    """Return the density of a column of which nothing is known but its range."""
    ends = [end for end in (low, high) if math.isfinite(end)]
    center = sum(ends) / len(ends) if ends else 0.0
    unit = max((high - low) / 2, SMALLEST) if len(ends) == 2 else 1.0
    if len(ends) == 1:
        center += 1.0 if math.isfinite(low) else -1.0
    start, stop = squashed_end(low, center, unit, -10.0), squashed_end(high, center, unit, 10.0)
    grid = Grid(center, unit, start, stop, 1.0)
    mass, tails = _floor(grid, cells, bounded=(low > -math.inf, high < math.inf), hard=hard, rows=1)
    return Density(grid, mass, tails)


def log_cosh(a: Tensor) -> Tensor:
    """Return the logarithm of the hyperbolic cosine."""
    size = a.abs()
    return size + torch.log1p((-2 * size).exp()) - math.log(2.0)


def _scales(ordered: Tensor, low: float, high: float) -> list[tuple[float, Scales]]:
    """Return numbers to measure values from, each with the scales `(center, unit)` that are tried about it."""
    found: list[tuple[float, Scales]] = [(_subtracted(ordered, low, high), _about_the_middle)]
    for end in (low, high):
        near, far = sorted(abs(float(_quantile(ordered, share)) - end) for share in (0.25, 0.75))
        if math.isfinite(end) and far > DECADE * near and _leaves_numbers(end, ordered, low, high):
            found.append((end, _about_an_end))
    return found


def _about_the_middle(ordered: Tensor, low: float, high: float, middle: float) -> list[tuple[float, float]]:
    """Return the scales about the median of a sample whose origin is `middle`."""
    # One of the numbers that are left when it is added.
    center = (middle + float(_quantile(ordered, 0.5))) - middle
    spread = _spread(ordered) or abs(middle + float(ordered[0])) or 1.0
    if low <= center <= high:
        return [(center, max(turn * spread, SMALLEST)) for turn in TURNS]
    # A range that was found elsewhere, and has hardly any of these values in it.
    nearest = min(max(center, low), high)
    return [(nearest, min(max(turn * spread, SMALLEST), high - low)) for turn in TURNS]


def _about_an_end(ordered: Tensor, _low: float, _high: float, _end: float) -> list[tuple[float, float]]:
    """Return the scale that is logarithmic in the distance from an end, but for the nearest hundredth of the values.

    About the middle what lies next to the end shares a cell or two, however many decades it spans. There is no such
    scale where the nearest hundredth lies at the end itself.
    """
    nearest = min(abs(float(_quantile(ordered, share))) for share in (0.01, 0.99))
    return [(0.0, nearest)] if nearest >= SMALLEST else []


def _grid(ordered: Tensor, low: float, high: float, center: float, unit: float) -> tuple[Grid, Tensor]:
    """Return the grid of a scale for a sample in order, and the sample on it, all from the same origin."""
    a = squashed(ordered, center, unit)
    quartiles = _quantile(a, 0.75) - _quantile(a, 0.25)
    whole = float(a[-1] - a[0])
    typical = max(float(quartiles) / RANGE_OF_T3, whole / 20, 1e-3)
    margin = MARGIN * MULTIPLES[-1] * _rule(a)
    margin = max(margin, 0.01 * whole, 0.05 * typical)
    start = squashed_end(low, center, unit, max(float(a[0]) - margin, -FARTHEST))
    stop = squashed_end(high, center, unit, min(float(a[-1]) + margin, FARTHEST))
    # A range that has none of the values in it has cells all the same.
    if high == math.inf:
        stop = max(stop, start + margin)
    elif low == -math.inf:
        start = min(start, stop - margin)
    return Grid(center, unit, start, stop, typical), a


def squashed_end(end: float, center: float, unit: float, otherwise: float) -> float:
    """Return an end of a range on the scale of a grid, if there is one."""
    return float(squashed(torch.tensor(end, dtype=torch.float64), center, unit)) if math.isfinite(end) else otherwise


def _quantile(ordered: Tensor, share: float) -> Tensor:
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    # Weighted, since the difference of two of opposite sign may be infinite.
    return ordered[below] * (1 - place + below) + ordered[above] * (place - below)


def _spread(ordered: Tensor) -> float:
    """Return the interquartile range, or a wider one where most values are the same; zero if all are."""
    largest = torch.finfo(ordered.dtype).max
    for share in (0.25, 0.1, 0.05, 0.01, 0.0):
        found = min(float(_quantile(ordered, 1 - share) - _quantile(ordered, share)), largest)
        if found > 0:
            return found
    return 0.0


def _rule(a: Tensor) -> float:
    """Return the bandwidth that suits normal data."""
    quartiles = float(_quantile(a, 0.75) - _quantile(a, 0.25)) / 1.349
    deviation = float(a.std(correction=0))
    scale = min(quartiles, deviation) or deviation or 1e-3
    return scale * len(a) ** -0.2


def _smoothed(
    a: Tensor, grid: Grid, cells: int, *, bounded: tuple[bool, bool], hard: bool
) -> tuple[Tensor, tuple[float, float], float]:
    """Return masses of cells and tails at the best bandwidth, and the mean leave-one-out log-density."""
    rows, width = len(a), (grid.high - grid.low) / cells
    place = (a - grid.low) / width
    # What rounding has put beyond the end of a range is in the outermost cell.
    below, above = place < -SLACK, place > cells + SLACK
    inside = place[~(below | above)].floor().clamp(0, cells - 1).long()
    counts = torch.bincount(inside, minlength=cells).double()
    share = min(max(2 / rows, LEAST_FLOOR), MOST_FLOOR)
    floor, floor_tails = _floor(grid, cells, bounded=bounded, hard=hard, rows=rows)
    bandwidths = _rule(a) / width * torch.tensor(MULTIPLES, dtype=torch.float64)
    smooth, own = _filtered(counts, bandwidths)
    others = (smooth - own).clamp_min(0) / max(rows - 1, 1)
    scores = ((1 - share) * others + share * floor).log() @ counts / rows - math.log(width)
    best = int(scores.argmax())
    mass = (1 - share) * smooth[best].clamp_min(0) / rows + share * floor
    tails = tuple(
        share * floor_tail + (1 - share) * count / rows
        for floor_tail, count in zip(floor_tails, (int(below.sum()), int(above.sum())), strict=True)
    )
    total = float(mass.sum()) + sum(tails)
    return mass / total, (tails[0] / total, tails[1] / total), float(scores[best])


def _filtered(counts: Tensor, bandwidths: Tensor) -> tuple[Tensor, Tensor]:
    """Return counts smoothed with each bandwidth, in cells, and what each cell gives to itself.

    The kernel is the discrete one that has no negative weights however narrow it is, of variance `bandwidth^2`; at both
    ends it is reflected, so no mass is lost.
    """
    cells = len(counts)
    spectrum = torch.fft.rfft(torch.cat([counts, counts.flip(0)]))
    angle = torch.arange(len(spectrum), dtype=torch.float64) * (math.pi / cells)
    transfer = (-bandwidths.square()[:, None] * (1 - angle.cos())).exp()
    smooth = torch.fft.irfft(spectrum * transfer, n=2 * cells)[:, :cells]
    kernel = torch.fft.irfft(transfer.to(spectrum.dtype), n=2 * cells)
    image = (2 * torch.arange(cells) + 1) % (2 * cells)
    return smooth, kernel[:, :1] + kernel[:, image]


def _floor(
    grid: Grid, cells: int, *, bounded: tuple[bool, bool], hard: bool, rows: int
) -> tuple[Tensor, tuple[float, float]]:
    """Return the masses of Student's t with three degrees of freedom in the cells and beyond them.

    Beyond the ends of a range there is none, or less than half a row on both sides together.
    """
    edges = torch.linspace(grid.low, grid.high, cells + 1, dtype=torch.float64) / grid.typical
    lower, upper = student_below(edges), student_below(-edges)
    mass = torch.where(edges[1:] < 0, lower.diff(), -upper.diff())
    tails = [float(lower[0]), float(upper[-1])]
    share = min(max(2 / rows, LEAST_FLOOR), MOST_FLOOR)
    for side, has_end in enumerate(bounded):
        if has_end:
            tails[side] = 0.0 if hard else min(tails[side], OUTSIDE / (share * rows), OUTSIDE)
    inside = 1 - sum(tails)
    return mass.clamp_min(torch.finfo(mass.dtype).tiny) * (inside / mass.sum()), (tails[0], tails[1])


def student_below(t: Tensor) -> Tensor:
    """Return the probability that Student's t with three degrees of freedom is below `t`."""
    y = math.sqrt(3.0) / t.abs().clamp_min(1e-100)
    square = y.square()
    # For far values the two terms cancel, and their series does not.
    near = torch.atan(y) - y / (1 + square)
    far = y * square * (2 / 3 - square * (4 / 5 - square * (6 / 7 - square * 8 / 9)))
    tail = torch.where(y < 1e-2, far, near) / math.pi
    return torch.where(t < 0, tail, 1 - tail)
