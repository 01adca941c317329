"""Simple densities that a fit to images or sequences has to beat, on the same held-out items and in the same unit.

All are fitted to the training items, and what they leave open is chosen on the validation items. Of integers they are
probabilities or lower bounds of probabilities, never densities, so that they compare with a model of integers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from likelify.errors import DataError
from likelify.fitting.beside import Baseline

# Variance of the uniform noise that makes integers continuous.
NOISE = 1 / 12
# Elements of an item up to which a covariance has all of them on its sides; above, the training items span it.
WIDEST = 1024
# Cells of histograms that are kept at once.
MOST_CELLS = 4_000_000
# Strengths of what a histogram is drawn towards, in items.
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
# Numbers of bins of real numbers, and the share that a histogram has beside a normal distribution.
BINS, SHARES, TINY = (8, 16, 32, 64, 128), (0.0, 0.5, 0.9, 0.99), 1e-300
# How far a covariance is drawn towards a multiple of the unit matrix.
SHRINKAGE = (1e-6, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 0.9)
# Components of mixtures that are tried, and the work that is quick: items x components x elements^2 of a round
# (where only variances are fitted, elements count three times).
COMPONENTS, QUICK, ROUNDS = (2, 4, 8, 16, 32), 3e7, 40
FULL_MIXTURE, MIXTURE_ITEMS = 128, 3000
# Of mixtures of counts: their items x components x elements, and the rounds that fit them.
QUICK_COUNTS, COUNT_ROUNDS = 6e6, 10


@dataclass(frozen=True, eq=False)
class Split:
    """The items that baselines are fitted to, chosen on and measured on, each `(items, elements)` in float64.

    Attributes:
        train: to fit to.
        validation: to choose on.
        held: to measure on.
        levels: number of values of an element, or None for real numbers.
        labels: of the three, if the items are to be told apart by class, else None.
    """

    train: np.ndarray
    validation: np.ndarray
    held: np.ndarray
    levels: int | None
    labels: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    @property
    def elements(self) -> int:
        """Number of elements of an item."""
        return self.train.shape[1]


Maker = Callable[[Split], Baseline]


def baselines(split: Split) -> list[Baseline]:
    """Fit all simple densities; one that was not possible has no figures, and says why.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(300, 2))
        >>> found = baselines(Split(rows[:200], rows[200:250], rows[250:], levels=None))
        >>> [each.name for each in found], found[1].nats.shape
        (['independent elements', 'one Gaussian', 'Gaussian mixture'], (50,))
    """
    if split.levels is None and bool((split.train.std(0) == 0).any()):
        raise DataError(
            "Some elements have one value in all training items, so no simple density of real numbers can be compared."
        )
    makers: dict[str, Maker] = {
        "independent elements": independent,
        "one Gaussian": gaussian,
        "Gaussian mixture": mixture,
    }
    if split.levels is not None:
        makers["groups of items"] = counted_mixture
    found = []
    for name, make in makers.items():
        try:
            found.append(replace(_by_class(make, split), name=name))
        except DataError as error:
            found.append(Baseline(name, str(error), np.empty(0)))
    return found


def _by_class(make: Maker, split: Split) -> Baseline:
    """Fit a density of each class where the items are told apart, and measure each item by that of its class."""
    if split.labels is None:
        return make(split)
    nats, what = np.empty(len(split.held)), ""
    for label in np.unique(split.labels[2]):
        here = [labels == label for labels in split.labels]
        parts = [
            items[of] if of.sum() > 1 and (split.levels or items[of].std(0).all()) else items
            for items, of in zip((split.train, split.validation), here[:2], strict=True)
        ]
        done = make(Split(parts[0], parts[1], split.held[here[2]], split.levels))
        nats[here[2]], what = done.nats, done.what
    return Baseline("", f"For each class: {what}", nats)


def independent(split: Split) -> Baseline:
    """Describe each element alone: integers by counts, real numbers by a histogram beside a normal distribution."""
    if split.levels is None:
        return _independent_real(split)
    counted = split.elements * split.levels <= MOST_CELLS
    found = _counts(split, split.levels) if counted else _normal_cells(split, split.levels)
    what = "the values of each element are counted" if counted else "a normal distribution of each element, in cells"
    return replace(found, what=f"Each element alone: {what}. Exact probabilities of the integers.")


def _normal_cells(split: Split, levels: int) -> Baseline:
    """Give each integer the mass of a normal distribution over its cell; the outermost cells have its tails."""
    mean, scale = split.train.mean(0), np.sqrt(split.train.var(0) + NOISE)

    def nats(x: np.ndarray) -> np.ndarray:
        return np.log(0.99 * _cell(x, mean, scale, levels) + 0.01 / levels).sum(1)

    return Baseline("", "", nats(split.held), float(nats(split.validation).mean()))


def _cell(x: np.ndarray, mean: np.ndarray, scale: np.ndarray, levels: int) -> np.ndarray:
    from scipy.special import ndtr

    upper = np.where(x >= levels - 1, 1.0, ndtr((x + 0.5 - mean) / scale))
    return upper - np.where(x <= 0, 0.0, ndtr((x - 0.5 - mean) / scale))


def _counts(split: Split, levels: int) -> Baseline:
    """Count values, drawn towards a normal distribution in cells with the strength that suits the validation items."""
    counts, smooth = _counted(split.train, levels), _smooth(split.train, levels)

    def nats(x: np.ndarray, strength: float) -> np.ndarray:
        return _looked_up(np.log((counts + strength * smooth) / (len(split.train) + strength)), x)

    best, strength = max((float(nats(split.validation, each).mean()), each) for each in STRENGTHS)
    return Baseline("", "", nats(split.held, strength), best)


def _counted(x: np.ndarray, levels: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Return how often each element has each value, `(elements, levels)`."""
    cells = x.astype(np.int64) + levels * np.arange(x.shape[1])
    spread = None if weights is None else np.repeat(weights, x.shape[1])
    return np.bincount(cells.ravel(), spread, levels * x.shape[1]).reshape(-1, levels)


def _smooth(x: np.ndarray, levels: int) -> np.ndarray:
    """Return probabilities `(elements, levels)` that leave no value out: mostly those of a normal distribution."""
    mean, scale = x.mean(0), np.sqrt(x.var(0) + NOISE)
    return 0.9 * _cell(np.arange(levels)[:, None], mean, scale, levels).T + 0.1 / levels


def _looked_up(logs: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return for each item the sum of the logarithms `(elements, levels)` of its values."""
    return logs[np.arange(len(logs)), x.astype(np.int64)].sum(1)


def counted_mixture(split: Split) -> Baseline:
    r"""Describe integers by groups of items in each of which the elements are independent: `sum_k w_k prod_i P_ki`.

    Groups start from k-means and are fitted by expectation and maximization, their counts drawn towards those of all.

    Raises:
        DataError: if that would not be quick.
    """
    levels = split.levels or 2
    train = split.train[:: -(-len(split.train) // MIXTURE_ITEMS)]
    work, cells = len(train) * split.elements, levels * split.elements
    possible = [
        each for each in (*COMPONENTS[1:], 64) if each * work <= QUICK_COUNTS and each * cells <= MOST_CELLS / 2
    ]
    if not possible or len(train) < 10 * possible[0]:
        raise DataError(_left_out(split, len(train), 40))
    best: tuple[float, np.ndarray, int] = (-np.inf, np.empty(0), 0)
    for number in [each for each in possible if 10 * each <= len(train)]:
        validation, held = _fit_groups(train, levels, number, (split.validation, split.held))
        if not (mean := float(validation.mean())) > best[0]:
            break
        best = mean, held, number
    what = f"{best[2]} groups of items, found by k-means and fitted, with the values of each element counted in each. "
    return Baseline("", f"{what}Exact probabilities of the integers.", best[1], best[0])


def _fit_groups(
    train: np.ndarray, levels: int, number: int, measured: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, ...]:
    """Return the logarithms of the probabilities of some items, after rounds of expectation and maximization."""
    from sklearn.cluster import KMeans

    with _not_converging():
        groups = KMeans(number, max_iter=30, random_state=0).fit_predict(train)
    shares = np.eye(number)[groups].T
    overall = (_counted(train, levels) + 10 * _smooth(train, levels)) / (len(train) + 10)
    logs, weights = [], np.empty(0)
    for _ in range(COUNT_ROUNDS):
        sizes = shares.sum(1)
        weights = np.log((sizes + 1) / (sizes.sum() + number))
        counts = (_counted(train, levels, share) for share in shares)
        logs = [np.log((c + 5 * overall) / (size + 5)) for c, size in zip(counts, sizes, strict=True)]
        each = _of_groups(logs, weights, train)
        shares = np.exp(each - _log_sum(each))
    return tuple(_log_sum(_of_groups(logs, weights, x)) for x in measured)


@contextmanager
def _not_converging() -> Iterator[None]:
    """Let a fit end before it has converged, or with fewer groups than were asked for, without a word."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def _log_sum(logs: np.ndarray) -> np.ndarray:
    """Return the logarithm of the sum of exponentials over the first axis."""
    return np.logaddexp.reduce(logs, axis=0)


def _of_groups(logs: list[np.ndarray], weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.stack([weight + _looked_up(each, x) for each, weight in zip(logs, weights, strict=True)])


def _independent_real(split: Split) -> Baseline:
    mean, scale = split.train.mean(0), split.train.std(0)
    measured = split.validation, split.held
    normal = [_normal(x, mean, scale) for x in measured]
    best, held = -np.inf, np.empty(0)
    for bins in BINS:
        binned = _histograms(split.train, measured, bins)
        for share in SHARES:
            # A share of nothing but the histogram would give no density to what is beyond it.
            both = [np.log(share * d + (1 - share) * n + TINY) for d, n in zip(binned, normal, strict=True)]
            if (value := float(both[0].sum(1).mean())) > best:
                best, held = value, both[1].sum(1)
    return Baseline("", "Each element alone: a histogram beside a normal distribution. Exact densities.", held, best)


def _histograms(train: np.ndarray, measured: tuple[np.ndarray, ...], bins: int) -> list[np.ndarray]:
    """Return the densities of histograms of each element at some items."""
    found = [np.zeros_like(x) for x in measured]
    for element, values in enumerate(train.T):
        number = int(min(bins, max(_finest(values), BINS[0])))
        edges = np.linspace(values.min(), values.max(), number + 1)
        density = np.histogram(values, edges)[0] / len(values) / (edges[1] - edges[0])
        for x, into in zip(measured, found, strict=True):
            into[:, element] = _lookup(x[:, element], edges, density)
    return found


def _finest(values: np.ndarray) -> float:
    """Return how many bins hold two values each where values are rounded: finer ones would describe the rounding."""
    distinct = np.unique(values)
    return 0.5 * float((distinct[-1] - distinct[0]) / np.quantile(np.diff(distinct), 0.05))


def _normal(x: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * ((x - mean) / scale) ** 2) / (scale * np.sqrt(2 * np.pi))


def _lookup(x: np.ndarray, edges: np.ndarray, density: np.ndarray) -> np.ndarray:
    cell = np.searchsorted(edges, x, side="right") - 1
    cell = np.where(x == edges[-1], len(density) - 1, cell)
    return np.where((cell >= 0) & (cell < len(density)), density[cell.clip(0, len(density) - 1)], 0.0)


def gaussian(split: Split) -> Baseline:
    r"""Describe all elements together by one normal distribution with a full covariance.

    Of integers its figure is `E_u log N(x + u)` with uniform u, in closed form `log N(x + 1/2) - tr(inverse) / 24`: by
    Jensen's inequality a lower bound of the logarithm of the mass over the cell.
    """
    scale, noise = _units(split)
    train = split.train[:: -(-len(split.train) // WIDEST)] if split.elements > WIDEST else split.train
    mean = train.mean(0)
    values, axes = _principal((train - mean) / scale)
    validation, held = ((x - mean) / scale for x in (split.validation, split.held))

    def nats(x: np.ndarray, shrinkage: float) -> np.ndarray:
        floor = shrinkage * values.sum() / split.elements + noise
        return _gaussian_nats(x, (1 - shrinkage) * values + floor, axes, floor, noise) - np.log(scale).sum()

    best, shrinkage = max((float(nats(validation, each).mean()), each) for each in SHRINKAGE)
    exact = "Exact densities." if split.levels is None else "A lower bound of the probability of the integers."
    what = f"One normal distribution with a full covariance, shrunk by {shrinkage:g} towards the unit matrix. {exact}"
    return Baseline("", what, nats(held, shrinkage), best)


def _units(split: Split) -> tuple[np.ndarray, float]:
    """Return the units in which covariances are computed, and the variance of noise in them."""
    if split.levels is None:
        return split.train.std(0), 0.0
    return np.ones(split.elements), NOISE


def _principal(centred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return variances `(k,)` and the axes `(elements, k)` along which they are."""
    items, elements = centred.shape
    if elements <= items:
        values, axes = np.linalg.eigh(centred.T @ centred / items)
        return values.clip(0), axes
    values, weights = np.linalg.eigh(centred @ centred.T / items)
    kept = values > 1e-10 * values.max(initial=0)
    values, weights = values[kept], weights[:, kept]
    return values, centred.T @ weights / np.sqrt(items * values)


def _gaussian_nats(x: np.ndarray, values: np.ndarray, axes: np.ndarray, rest: float, noise: float) -> np.ndarray:
    """Return `log N(x)` for variances along axes and `rest` across them, less half the noise over each variance."""
    across = x.shape[1] - len(values)
    along = (x @ axes) ** 2
    distance = (along / values).sum(1)
    precision, volume = (1 / values).sum(), np.log(values).sum()
    if across:
        distance += ((x**2).sum(1) - along.sum(1)).clip(0) / rest
        precision, volume = precision + across / rest, volume + across * np.log(rest)
    return -0.5 * (distance + noise * precision + volume + x.shape[1] * np.log(2 * np.pi))


def mixture(split: Split) -> Baseline:
    r"""Describe the items by a mixture of normal distributions, with as many as suit the validation items.

    Of integers `log sum_k w_k exp(E_u log N_k(x + u))`, which is a lower bound twice over: of the bound by Jensen's
    inequality, since the logarithm of a sum of exponentials is convex.

    Raises:
        DataError: if that would not be quick, or its likelihoods are not finite.
    """
    scale, noise = _units(split)
    rng = np.random.default_rng(0)
    train = split.train[:: -(-len(split.train) // MIXTURE_ITEMS)] / scale
    train = train if split.levels is None else train + rng.random(train.shape) - 0.5
    full = split.elements <= FULL_MIXTURE and len(train) > 4 * split.elements
    work = len(train) * split.elements * (split.elements if full else 3)
    possible = [number for number in COMPONENTS if number * work <= QUICK and 10 * number <= len(train)]
    if not possible:
        raise DataError(_left_out(split, len(train), 20))
    best: tuple[float, np.ndarray, int] = (-np.inf, np.empty(0), 0)
    for number in possible:
        means, factors, logs = _components(train, number, full=full)
        validation, held = (
            _mixture_nats(x / scale, means, factors, logs, noise) - np.log(scale).sum()
            for x in (split.validation, split.held)
        )
        if not (mean := float(validation.mean())) > best[0]:
            break
        best = mean, held, number
    if not best[2]:
        raise DataError("Left out: its likelihood of the validation items is not a finite number.")
    exact = "Exact densities." if split.levels is None else "A lower bound of the probability of the integers."
    kind = "all covariances" if full else "variances only"
    few = f", fitted to {len(train):,} training items" if len(train) < len(split.train) else ""
    what = f"{best[2]} normal distributions with {kind} (scikit-learn, at most {ROUNDS} rounds{few}). {exact}"
    return Baseline("", what, best[1], best[0])


def _left_out(split: Split, items: int, needed: int) -> str:
    if items < needed:
        return f"Left out: {items} training items are too few for it."
    return f"Left out: with {split.elements:,} elements in an item it would take long."


def _components(train: np.ndarray, number: int, *, full: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return means `(k, d)`, factors of the precisions `(k, d, d)` or `(k, d)`, and logarithms of the weights."""
    from sklearn.mixture import GaussianMixture

    with _not_converging():
        fitted: Any = GaussianMixture(
            number, covariance_type="full" if full else "diag", reg_covar=1e-3, max_iter=ROUNDS, random_state=0
        ).fit(train)
    return fitted.means_, fitted.precisions_cholesky_, np.log(fitted.weights_)


def _mixture_nats(x: np.ndarray, means: np.ndarray, factors: np.ndarray, logs: np.ndarray, noise: float) -> np.ndarray:
    found = np.empty((len(logs), len(x)))
    for number, (mean, factor, log) in enumerate(zip(means, factors, logs, strict=True)):
        full = factor.ndim == 2
        white = (x - mean) @ factor if full else (x - mean) * factor
        volume = np.log(np.diag(factor) if full else factor).sum()
        distance = (white**2).sum(1) + noise * (factor**2).sum()
        found[number] = log + volume - 0.5 * (distance + x.shape[1] * np.log(2 * np.pi))
    return _log_sum(found)
