"""What the best model of simulated graphs can reach: entropies of point sets, and of particles by annealing.

Point sets: the closed form beside the mean of the exact log-density over test graphs, in nats per node.

Particles: `E U + ln Z` in nats per configuration, which is what `-log p` of held-out configurations is for the density
that they come from. Densities are on the positions whose mean is zero, in orthonormal coordinates of that space, of
dimension 6 (dw4) and 36 (lj13). `ln Z` is by annealed importance sampling in both directions; the mean energy is that
of the test configurations, whose error is by the number that count as independent.
"""

import math
import time

from benchmarks.report import Entry, arguments, measured, report
from likelify.data import energy, entropy, log_normalizer, open_source, true_log_prob
from likelify.data.simulated.configurations import configurations
from likelify.data.simulated.mixtures import MIXTURES
from likelify.data.simulated.particles import SYSTEMS

# Further from the closed form than this in standard errors, something is wrong.
FAR = 4.0
# Levels of the way to the system, and chains in each direction.
LEVELS, QUICK_LEVELS, CHAINS = 2000, 200, 1000


def point_sets(*, quick: bool) -> list[Entry]:
    """Compare entropies with the mean of the exact log-density."""
    entries = []
    for name, mixture in MIXTURES.items():
        batch = open_source(name).read_all("test")
        batch = batch.head(200) if quick else batch
        began = time.process_time()
        nats = -true_log_prob(name, batch.x, batch.structure and batch.structure.sizes) / mixture.nodes
        took = time.process_time() - began
        error = float(nats.std()) / math.sqrt(len(nats))
        known = entropy(name) / mixture.nodes
        entries += [
            Entry(f"{name}: entropy", known, "nats per node"),
            Entry(f"{name}: mean of -log p of {len(nats)} test graphs", float(nats.mean()), "nats per node"),
            Entry(f"{name}: its standard error", error, "nats per node"),
            Entry(f"{name}: apart", abs(float(nats.mean()) - known) / error, "standard errors", must=FAR),
            Entry(f"{name}: log-densities of {len(nats)} graphs", took, "processor seconds"),
        ]
    return entries


def particles(*, quick: bool) -> list[Entry]:
    """Estimate the entropies of particles."""
    entries = []
    for name, system in SYSTEMS.items():
        found, test = configurations(name), open_source(name).read_all("test")
        energies = energy(name, test.x)
        began = time.process_time()
        normalizer = log_normalizer(name, chains=CHAINS, levels=QUICK_LEVELS if quick else LEVELS)
        took = time.process_time() - began
        independent = found.effective * len(energies)
        error = math.sqrt(float(energies.var()) / independent + normalizer.error**2)
        constant = system.dimension / 2 * math.log(2 * math.pi)
        reference = float(energies.mean()) + normalizer.value
        entries += [
            Entry(f"{name}: R-hat", found.r_hat, "", must=1.05),
            Entry(f"{name}: draws that count as independent", found.effective, "share", must=0.5, better="higher"),
            Entry(f"{name}: mean energy", float(energies.mean()), "kT"),
            Entry(f"{name}: ln Z", normalizer.value, "nats"),
            Entry(f"{name}: ln Z, standard error", normalizer.error, "nats", must=0.1),
            Entry(f"{name}: ln Z, too low on average", normalizer.lower, "nats"),
            Entry(f"{name}: ln Z, too high on average", normalizer.upper, "nats"),
            Entry(f"{name}: reference E U + ln Z", reference, "nats per configuration"),
            Entry(f"{name}: reference, standard error", error, "nats per configuration", must=0.15),
            Entry(f"{name}: reference less (dimension / 2) ln 2 pi", reference - constant, "nats per configuration"),
            Entry(f"{name}: annealing", took, "processor seconds"),
        ]
    return entries


PARTS = {"point-sets": point_sets, "particles": particles}


def main() -> None:
    """Estimate and report."""
    options = arguments(__doc__ or "", parts=PARTS)
    report(measured(PARTS, options.part, quick=options.quick), options.json)


if __name__ == "__main__":
    main()
