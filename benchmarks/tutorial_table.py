"""A multilayer perceptron as the density of a table, against a Gaussian mixture: held-out nats per row.

Behind `docs/tutorials/table.md`. Both may use the validation split: the mixture for its components, covariance and
ridge, the flow for when to stop. Differences are paired over the rows.
"""

import math
import statistics
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import likelify as lk
from benchmarks.report import Entry, arguments, report
from likelify import transforms
from likelify.data import Source, open_source, standardized
from likelify.fitting.loop import fit
from likelify.fitting.settings import FitSettings
from likelify.zoo import config_from_dict

TABLES = ("breast-cancer", "wine", "diabetes")
COMPONENTS = (1, 2, 3, 4, 6, 8, 12)
RIDGES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1)
PERCEPTRON, ZOO, MIXTURE = "flowified perceptron", "zoo's flowified-mlp", "Gaussian mixture"


@dataclass(frozen=True)
class Mixture:
    """The mixture that was best on the validation split, and its log-densities of the test rows."""

    description: str
    test: Tensor


def best_mixture(source: Source, seed: int, *, quick: bool = False) -> Mixture:
    """Fit mixtures of all sizes, kinds of covariance and ridges, and keep the best on the validation split."""
    from sklearn.mixture import GaussianMixture

    train, validation, test = (source.read_all(split).x.double().numpy() for split in ("train", "validation", "test"))
    best, found = -math.inf, Mixture("", torch.empty(0))
    for kind in ("full",) if quick else ("full", "tied", "diag", "spherical"):
        for components in COMPONENTS:
            for ridge in RIDGES:
                mixture = GaussianMixture(components, covariance_type=kind, reg_covar=ridge, random_state=seed)
                with warnings.catch_warnings():
                    # Some of the many do not converge in 100 steps; the validation split judges them as they are.
                    warnings.simplefilter("ignore")
                    mixture.fit(train)
                score = float(mixture.score(validation))
                if score > best:
                    best = score
                    found = Mixture(f"{components} {kind}, {ridge:g}", torch.from_numpy(mixture.score_samples(test)))
    return found


def perceptron(columns: int) -> nn.Sequential:
    """Build an ordinary perceptron: two layers as wide as the table, then half of that."""
    return nn.Sequential(
        nn.Linear(columns, columns),
        nn.LeakyReLU(0.5),
        nn.Linear(columns, columns),
        nn.LeakyReLU(0.5),
        nn.Linear(columns, columns // 2),
    )


def flow_of(name: str, columns: int) -> lk.Flow:
    """Build a flow of rows; in front of the perceptron is a linear layer that starts at the principal directions."""
    if name == ZOO:
        widths = (columns, columns, columns // 2)
        return config_from_dict({"model": "flowified-mlp", "event_shape": (columns,), "widths": widths}).build()
    layer = lk.flowify(perceptron(columns), torch.randn(4, columns))
    return lk.Flow(
        lk.Normal((columns // 2,)),
        lk.Chain([transforms.FreeLinear(columns, columns), layer]),
        event_shape=(columns,),
    )


def fitted(name: str, source: Source, seed: int, steps: int) -> Tensor:
    """Fit a flow, keep its weights that are best on the validation split; return the log-densities of the test rows."""
    with lk.seeded(seed):
        flow = flow_of(name, source.event_shape[0])
    settings = {"lr": 5e-3, "batch_size": 64, "average": 0.99, "weight_decay": 1e-3, "validations": 40}
    fit(flow, source, FitSettings(**settings, steps=steps, patience=10, seed=seed))
    with torch.no_grad(), flow.frozen():
        return flow.log_prob(source.read_all("test").x.float()).double()


def standard_error(values: Tensor) -> float:
    """Return the standard error of a mean over rows."""
    return float(values.std()) / math.sqrt(len(values))


def measure(table: str, seeds: int, *, quick: bool) -> list[Entry]:
    """Fit everything to a table; figures are means over seeds, errors those of the seeds' mean over rows."""
    source = standardized(open_source(table))
    mixtures = [best_mixture(source, seed, quick=quick) for seed in range(seeds)]
    values = {MIXTURE: [mixture.test for mixture in mixtures]}
    for name in (PERCEPTRON, ZOO):
        values[name] = [fitted(name, source, seed, 200 if quick else 600) for seed in range(seeds)]
    print(
        f"{table}, {source.size('test')} test rows; mixtures: {'; '.join(mixture.description for mixture in mixtures)}"
    )
    entries = []
    for name, found in values.items():
        rows = torch.stack(found)
        entries.append(Entry(f"{table}, {name}", float(rows.mean()), "nats", better="higher"))
        entries.append(Entry(f"{table}, {name}, standard error", standard_error(rows.mean(0)), "nats"))
        if seeds > 1:
            spread = statistics.stdev(rows.mean(1).tolist())
            entries.append(Entry(f"{table}, {name}, spread over seeds", spread, "nats"))
    for name in (PERCEPTRON, ZOO):
        entries += _difference(f"{table}, {name} minus {MIXTURE}", values[name], values[MIXTURE])
    return entries


def _difference(name: str, ours: list[Tensor], theirs: list[Tensor]) -> list[Entry]:
    differences = (torch.stack(ours) - torch.stack(theirs)).mean(0)
    return [
        Entry(name, float(differences.mean()), "nats", better="higher"),
        Entry(f"{name}, standard error", standard_error(differences), "nats"),
        Entry(f"{name}, median", float(differences.median()), "nats", better="higher"),
        Entry(f"{name}, rows won", float((differences > 0).double().mean()), "share", better="higher"),
    ]


def main() -> None:
    """Fit to all tables and report."""
    options = arguments(__doc__ or "", seeds=3, parts=TABLES)
    seeds = 1 if options.quick else options.seeds
    entries = [entry for table in options.part for entry in measure(table, seeds, quick=options.quick)]
    report(entries, options.json)


if __name__ == "__main__":
    main()
