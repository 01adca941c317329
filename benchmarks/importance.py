"""Intervals of importance-weighted log p: how often 95 % intervals of several methods hold the truth, by simulation.

Families of weights with known mean: log-normal (what many independent dimensions give), generalized Pareto and Pareto
(tails of known shape k), gamma (bounded to the right of its bulk, but many near zero), log-gamma, and ten normal
dimensions whose noise is too narrow. The truth of the real flows is the mean of 100,000 draws. Methods:

- delta: the logarithm of the mean, with the standard error `sqrt(1 / ess - 1 / K)`;
- delta, bias: the same, moved up by half its variance;
- jackknife: pseudo-values over ten batches left out in turn, with Student's t;
- bootstrap: 2.5 and 97.5 % of 200 resampled means;
- smoothed: the delta method after the largest weights have been replaced by quantiles of the fitted tail;
- Estimate: `Estimate.interval`.

*warned* is the share of estimates with `reliable` false; *of the rest* is the coverage of those without a warning.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import likelify as lk
from benchmarks.fits import timed
from benchmarks.report import Entry, arguments, report
from likelify import importance, seeded
from likelify.data import open_source
from likelify.fitting import recipes
from likelify.fitting.loop import fit
from likelify.zoo import config_from_dict

Draw = Callable[[int, int], Tensor]
Interval = tuple[Tensor, Tensor]
DRAWS = (10, 25, 50, 100, 300, 1000)
BATCHES, RESAMPLES = 10, 200
# The 97.5 % quantile of Student's t with nine degrees of freedom.
STUDENT = 2.262157


def normal(draws: int, items: int) -> Tensor:
    """Return standard normal numbers."""
    return torch.randn(draws, items, dtype=torch.float64)


def log_normal(deviation: float) -> Draw:
    """Return weights whose logarithms are normal."""
    return lambda draws, items: deviation * normal(draws, items) - deviation**2 / 2


def uniform(draws: int, items: int) -> Tensor:
    """Return uniform numbers above zero."""
    return torch.rand(draws, items, dtype=torch.float64).clamp_min(1e-300)


def pareto(k: float, *, from_zero: bool) -> Draw:
    """Return weights whose tail has the shape k: generalized Pareto ones from zero, or Pareto ones."""
    if from_zero:
        return lambda draws, items: (torch.expm1(-k * uniform(draws, items).log()) / k * (1 - k)).log()
    return lambda draws, items: math.log(1 - k) - k * uniform(draws, items).log()


def gamma(shape: float, draws: int, items: int) -> Tensor:
    """Return gamma numbers of scale one."""
    return torch.distributions.Gamma(torch.tensor(shape, dtype=torch.float64), 1.0).sample((draws, items))


def narrow(dimensions: int, deviation: float) -> Draw:
    """Return weights of standard normal noise for a normal density that is wider, in several dimensions."""

    def draw(draws: int, items: int) -> Tensor:
        noise = torch.randn(dimensions, draws, items, dtype=torch.float64)
        return (0.5 * (1 - deviation**-2) * noise**2 - math.log(deviation)).sum(0)

    return draw


FAMILIES: dict[str, Draw] = {
    **{f"log-normal {s:g}": log_normal(s) for s in (0.5, 1, 1.5, 2, 2.5, 3, 4)},
    **{f"generalized Pareto {k:g}": pareto(k, from_zero=True) for k in (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)},
    **{f"Pareto {k:g}": pareto(k, from_zero=False) for k in (0.3, 0.5, 0.7, 0.9)},
    **{f"gamma {a:g}": (lambda d, n, a=a: (gamma(a, d, n) / a).log().clamp_min(-700)) for a in (0.1, 0.5, 2)},
    "log-gamma 0.5": lambda d, n: 0.5 * gamma(2.0, d, n) + 2 * math.log(0.5),
    "ten narrow normals": narrow(10, 1.5),
}


def methods(log_weights: Tensor) -> dict[str, Interval]:
    """Return the intervals of all methods for each item."""
    shift = log_weights.amax(0)
    weights = (log_weights - shift).exp()
    centre, z = weights.mean(0).log() + shift, importance.Z
    error = delta_error(weights)
    found = {
        "delta": around(centre, z * error),
        "delta, bias": around(centre + error**2 / 2, z * error),
        "jackknife": jackknife(weights, shift),
        "bootstrap": bootstrap(weights, shift),
    }
    if len(weights) >= importance.FEWEST_DRAWS:
        smooth = smoothed(weights)
        found["smoothed"] = around(smooth.mean(0).log() + shift, z * delta_error(smooth))
    return found | {"Estimate": importance.weighted(log_weights).interval}


def around(centre: Tensor, half: Tensor) -> Interval:
    """Return an interval about a centre."""
    return centre - half, centre + half


def delta_error(weights: Tensor) -> Tensor:
    """Return the standard error of the logarithm of the mean."""
    ess = weights.sum(0) ** 2 / (weights**2).sum(0)
    return (1 / ess - 1 / len(weights)).clamp_min(0).sqrt()


def jackknife(weights: Tensor, shift: Tensor) -> Interval:
    """Return the interval of pseudo-values over batches."""
    batches = weights[: len(weights) // BATCHES * BATCHES].unflatten(0, (BATCHES, -1)).mean(1)
    without = ((batches.sum(0) - batches) / (BATCHES - 1)).clamp_min(1e-300).log()
    pseudo = BATCHES * batches.mean(0).log() - (BATCHES - 1) * without
    return around(pseudo.mean(0) + shift, STUDENT * pseudo.std(0) / math.sqrt(BATCHES))


def bootstrap(weights: Tensor, shift: Tensor) -> Interval:
    """Return quantiles of resampled means; all items share the places that are drawn."""
    counts = torch.zeros(RESAMPLES, len(weights), dtype=weights.dtype)
    places = torch.randint(len(weights), (RESAMPLES, len(weights)))
    counts.scatter_add_(1, places, torch.ones_like(places, dtype=weights.dtype))
    means = (counts @ weights / len(weights)).clamp_min(1e-300).log().sort(0).values
    return means[int(0.025 * RESAMPLES)] + shift, means[int(0.975 * RESAMPLES) - 1] + shift


def smoothed(weights: Tensor) -> Tensor:
    """Return the weights with those of the tail replaced by quantiles of its fit, none above the largest."""
    weights = weights.sort(0).values
    tail = importance.fit_tail(weights)
    ratio = (tail.ratios * tail.masses).sum(0)
    k = importance.to_prior(tail.k, tail.count, importance.PRIOR_COUNT)
    levels = (torch.arange(tail.count, dtype=weights.dtype)[:, None] + 0.5) / tail.count
    quantiles = tail.threshold - tail.k / ratio * torch.expm1(-k * torch.log1p(-levels)) / k
    return torch.cat([weights[: -tail.count], torch.minimum(quantiles, weights[-1])])


@dataclass(frozen=True)
class Coverage:
    """How one family fares at one number of draws.

    Attributes:
        covered: share of intervals that hold the truth, for each method.
        warned: share of estimates with a warning.
        rest: coverage of those without one.
        told: share that is covered or warned of.
    """

    covered: dict[str, float]
    warned: float
    rest: float
    told: float


def simulate(log_weights: Tensor, truth: Tensor | float) -> Coverage:
    """Count how often the truth is in the intervals."""
    covered = {}
    for name, (lower, upper) in methods(log_weights).items():
        covered[name] = ((lower <= truth) & (truth <= upper)).double()
    reliable, own = importance.weighted(log_weights).reliable, covered["Estimate"]
    rest = float(own[reliable].mean()) if bool(reliable.any()) else math.nan
    told = float(torch.maximum(own, (~reliable).double()).mean())
    return Coverage({n: float(c.mean()) for n, c in covered.items()}, float((~reliable).double().mean()), rest, told)


def show(name: str, draws: int, found: Coverage) -> None:
    """Print a row."""
    methods_ = "  ".join(f"{method} {share:.2f}" for method, share in found.covered.items())
    print(f"{draws:5d}  {name:<24} {methods_}   warned {found.warned:.2f}, of the rest {found.rest:.2f}", flush=True)


def flows(seconds: float) -> dict[str, lk.Flow]:
    """Return fitted flows of digits whose likelihood is a bound."""
    source, found = open_source("digits"), {}
    for model in ("marginal-spline", "glow", "fmlp"):
        values = {"model": model, "event_shape": source.event_shape, "pixel_levels": source.levels}
        with seeded(0):
            flow = config_from_dict(values | recipes.images.SOURCES["digits"].models.get(model, {})).build()
        fit(flow, source, timed(recipes.FITS[model], seconds, 0))
        found[model] = flow
    return found


def of_flows(*, quick: bool) -> list[tuple[str, int, Coverage]]:
    """Return the coverage of real flows: every item is weighted again and again, in groups of K draws."""
    images = open_source("digits").read_all("test").x[: 4 if quick else 8]
    total, rows = 20_000 if quick else 100_000, []
    for name, flow in flows(4.0 if quick else 20.0).items():
        with torch.no_grad(), flow.frozen():
            drawn = flow._log_weights(images, lk.Context(), total, None)
        truth = drawn.logsumexp(0) - math.log(total)
        for draws in DRAWS:
            groups = drawn[: min(total // draws, 400) * draws].unflatten(0, (-1, draws)).movedim(1, 0).flatten(1)
            rows.append((f"digits, {name}", draws, simulate(groups, truth.repeat(groups.shape[1] // len(truth)))))
            show(*rows[-1])
    return rows


def of_families(items: int) -> list[tuple[str, int, Coverage]]:
    """Return the coverage of all families."""
    rows = []
    for draws in DRAWS:
        for name, draw in FAMILIES.items():
            rows.append((name, draws, simulate(draw(draws, items), 0.0)))
            show(*rows[-1])
    return rows


def entries(rows: list[tuple[str, int, Coverage]], kind: str) -> list[Entry]:
    """Return the lowest coverages of all rows."""
    enough = [found for _, draws, found in rows if draws >= 50]
    mostly = [found for found in enough if found.warned < 0.5]
    many = [found for _, draws, found in rows if draws >= 100]
    worst = min(found.covered["delta"] for found in mostly)
    free = sum((1 - found.warned) * found.rest for found in enough if found.warned < 1)
    pooled = free / sum(1 - found.warned for found in enough)
    musts = {
        "lowest coverage without a warning where most have none, 50 draws or more": min(found.rest for found in mostly),
        "coverage of all estimates without a warning, 50 draws or more": pooled,
        "lowest share covered or warned of, 100 draws or more": min(found.told for found in many),
    }
    others = {
        "lowest coverage of all estimates, warned of or not, 100 draws or more": min(
            found.covered["Estimate"] for found in many
        ),
        "lowest share covered or warned of, 50 draws": min(found.told for found in enough),
        "the delta method's lowest coverage, where most have no warning": worst,
    }
    return [
        *(Entry(f"{kind}: {name}", value, "", 0.9, better="higher") for name, value in musts.items()),
        *(Entry(f"{kind}: {name}", value, "", better="higher") for name, value in others.items()),
    ]


def main() -> None:
    """Simulate and report."""
    options = arguments(__doc__ or "")
    with seeded(0):
        rows = of_families(400 if options.quick else 2000)
        real = of_flows(quick=options.quick)
    report([*entries(rows, "families"), *entries(real, "digits flows")], options.json)


if __name__ == "__main__":
    main()
