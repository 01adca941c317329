"""The model of sequences on processes with a known density and on real series, beside a Gaussian with full covariance.

Each is fitted as `likelify fit` fits it, by the recipe. Figures are held-out nats per sequence: of real numbers the
exact log-density; of integers the ELBO, one draw, for the Gaussian with the same kind of noise. The Gaussian is the
better of the sample covariance and that of Ledoit and Wolf.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_discrete_lyapunov

from benchmarks.report import Entry, arguments, report
from likelify import seeded
from likelify.data.source import ArraySource
from likelify.fitting.choose import choose
from likelify.fitting.loop import fit
from likelify.fitting.metrics import evaluate

LENGTH = 64
TRAIN, HELD_OUT = 2000, 2000
FREQUENCIES, NOISE, AMPLITUDES = (0.03, 0.07, 0.11), 0.1, (0.5, 1.5)


@dataclass(frozen=True)
class Data:
    """Sequences `(items, channels, length)`.

    Attributes:
        train: a tenth of them validates.
        test: held out.
        levels: number of values of integers.
        exact: log-density of the test sequences, where it is known.
    """

    train: np.ndarray
    test: np.ndarray
    levels: int | None = None
    exact: np.ndarray | None = None

    def source(self, name: str) -> ArraySource:
        """Return them as a source."""
        cut = len(self.train) * 9 // 10
        numbers = np.arange(len(self.train) + len(self.test))
        parts = {
            "train": numbers[:cut],
            "validation": numbers[cut : len(self.train)],
            "test": numbers[len(self.train) :],
        }
        items = np.concatenate([self.train, self.test])
        return ArraySource.cut(name, items, parts, labels=None, kind="sequence", levels=self.levels, description=name)


def autoregression(*matrices: list[list[float]]) -> Data:
    """Draw a stationary vector autoregression with these coefficients and independent innovations of one."""
    coefficients = [np.array(matrix) for matrix in matrices]
    channels, order = len(coefficients[0]), len(coefficients)
    companion = np.eye(order * channels, k=-channels)
    companion[:channels] = np.concatenate(coefficients, 1)
    driven = np.zeros_like(companion)
    driven[:channels, :channels] = np.eye(channels)
    stationary = solve_discrete_lyapunov(companion, driven)
    size = channels * LENGTH
    covariance, lagged = np.zeros((size, size)), stationary
    for lag in range(LENGTH):
        for time in range(LENGTH - lag):
            here, later = (slice(channels * at, channels * (at + 1)) for at in (time, time + lag))
            covariance[later, here] = lagged[:channels, :channels]
            covariance[here, later] = lagged[:channels, :channels].T
        lagged = companion @ lagged
    factor = np.linalg.cholesky(covariance)
    rows = np.random.default_rng(0).normal(size=(TRAIN + HELD_OUT, size)) @ factor.T
    items = rows.reshape(-1, LENGTH, channels).swapaxes(1, 2)
    return Data(items[:TRAIN], items[TRAIN:], exact=log_normal(rows[TRAIN:], np.zeros(size), covariance))


def sines() -> Data:
    """Draw noisy sines: one of three frequencies, any phase, amplitudes from 0.5 to 1.5."""
    rng, count = np.random.default_rng(0), TRAIN + HELD_OUT
    frequency = np.array(FREQUENCIES)[rng.integers(len(FREQUENCIES), size=count)]
    phase, amplitude = rng.uniform(0, 2 * np.pi, count), rng.uniform(*AMPLITUDES, count)
    angles = 2 * np.pi * frequency[:, None] * np.arange(LENGTH) + phase[:, None]
    rows = amplitude[:, None] * np.sin(angles) + NOISE * rng.normal(size=(count, LENGTH))
    return Data(rows[:TRAIN, None], rows[TRAIN:, None], exact=log_sines(rows[TRAIN:]))


def log_sines(rows: np.ndarray) -> np.ndarray:
    """Return the log-density of noisy sines: the integral over cosine and sine parts on a grid about the best ones."""
    steps = np.linspace(-6, 6, 61)
    grid = np.stack(np.meshgrid(steps, steps, indexing="ij")).reshape(2, -1)
    each = []
    for frequency in FREQUENCIES:
        angles = 2 * np.pi * frequency * np.arange(LENGTH)
        waves = np.stack([np.sin(angles), np.cos(angles)], 1)
        precision = waves.T @ waves / NOISE**2
        best = np.linalg.solve(precision, waves.T @ rows.T / NOISE**2)
        left = ((rows.T - waves @ best) ** 2).sum(0) / NOISE**2
        root = np.linalg.inv(np.linalg.cholesky(precision).T)
        parts = best[:, :, None] + (root @ grid)[:, None]
        radius = np.hypot(*parts)
        low, high = AMPLITUDES
        prior = np.where((radius > low) & (radius < high), 1 / (2 * np.pi * (high - low) * radius), 0)
        integral = (prior * np.exp(-0.5 * (grid**2).sum(0))).sum(1) * (steps[1] - steps[0]) ** 2
        constant = np.linalg.slogdet(root)[1] - LENGTH * math.log(math.sqrt(2 * math.pi) * NOISE)
        each.append(np.log(np.maximum(integral, 1e-300)) - 0.5 * left + constant)
    return np.logaddexp.reduce(each) - math.log(len(FREQUENCIES))


def photographs() -> Data:
    """Cut windows from rows of two photographs: the upper four fifths train, the rest is held out."""
    from sklearn.datasets import load_sample_images

    rng, pictures = np.random.default_rng(0), load_sample_images().images
    cut = len(pictures[0]) * 4 // 5

    def windows(count: int, first: int, last: int) -> np.ndarray:
        rows = [pictures[rng.integers(len(pictures))][rng.integers(first, last)] for _ in range(count)]
        starts = rng.integers(0, len(rows[0]) - LENGTH + 1, count)
        return np.stack([row[start : start + LENGTH].T for row, start in zip(rows, starts, strict=True)])

    return Data(windows(4 * TRAIN, 0, cut), windows(HELD_OUT, cut, len(pictures[0])), levels=256)


def digits() -> Data:
    """Read scikit-learn's digits as series of 64 values."""
    from sklearn.datasets import load_digits

    items = load_digits().images.reshape(-1, 1, LENGTH).astype(np.uint8)
    items = items[np.random.default_rng(0).permutation(len(items))]
    return Data(items[:1500], items[1500:], levels=17)


DATA: dict[str, Callable[[], Data]] = {
    "AR(1)": lambda: autoregression([[0.9]]),
    "AR(2)": lambda: autoregression([[1.6]], [[-0.8]]),
    "VAR(1), 3 channels": lambda: autoregression([[0.7, 0.2, 0.0], [-0.2, 0.7, 0.2], [0.0, 0.3, 0.5]]),
    "noisy sines": sines,
    "rows of photographs": photographs,
    "digits as series": digits,
}


def log_normal(rows: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Return the log-density of rows under a normal distribution."""
    factor = np.linalg.cholesky(covariance)
    z = np.linalg.solve(factor, (rows - mean).T)
    return -0.5 * (z**2).sum(0) - np.log(np.diag(factor)).sum() - 0.5 * len(mean) * math.log(2 * math.pi)


def gaussian(data: Data) -> float:
    """Return held-out nats of the better of two normal distributions with full covariance."""
    from sklearn.covariance import LedoitWolf

    rng = np.random.default_rng(0)
    noise = 0.0 if data.levels is None else 1.0
    train, test = (
        part.reshape(len(part), -1) + noise * rng.random((len(part), part[0].size)) for part in (data.train, data.test)
    )
    found = [np.cov(train.T), LedoitWolf().fit(train).covariance_]
    return max(float(log_normal(test, train.mean(0), covariance).mean()) for covariance in found)


def measure(name: str, data: Data, steps: int | None) -> list[Entry]:
    """Fit and compare one of them."""
    source = data.source(name)
    changes = {"clock": "processor"} | ({} if steps is None else {"steps": steps})
    choice = choose(source.facts(), fit_settings=changes)
    with seeded(0):
        flow = choice.model.build()
    course = fit(flow, source, choice.fit)
    ours = evaluate(flow, source, elbo_samples=1, iw_samples=0).elbo.nats.mean
    normal = gaussian(data)
    entries = [
        Entry(name, ours, "nats", None, None, "higher"),
        Entry(f"{name}, Gaussian with full covariance", normal, "nats", None, None, "higher"),
        Entry(f"{name}, gain over the Gaussian", ours - normal, "nats", 0.0, None, "higher"),
        Entry(f"{name}, fit", course.seconds, "processor s"),
    ]
    if data.exact is not None:
        entries.append(Entry(f"{name}, exact density", float(data.exact.mean()), "nats", None, None, "higher"))
        entries.append(Entry(f"{name}, lost to the exact density", float(data.exact.mean()) - ours, "nats"))
    line = ", ".join(f"{entry.name.removeprefix(name + ', ')} {entry.value:.2f}" for entry in entries)
    print(line, flush=True)
    return entries


def main() -> None:
    """Measure all of them."""
    options = arguments(__doc__ or "", parts=DATA)
    entries: list[Entry] = []
    for name in options.part:
        entries += measure(name, DATA[name](), 20 if options.quick else None)
    report(entries, options.json)


if __name__ == "__main__":
    main()
