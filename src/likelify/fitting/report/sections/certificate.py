"""What is proved of the figures, and what is not."""

from __future__ import annotations

import torch

from likelify.data import Batch
from likelify.fitting.checks import read_for
from likelify.fitting.report.blocks import Section, Text
from likelify.fitting.report.material import Material
from likelify.seeding import seeded
from likelify.transforms import solver_error

ITEMS = 64


def certificate(material: Material, section: Section) -> None:
    """State the bound on what truncation does to the likelihoods, or an estimate of what a solver does.

    Raises:
        InexactLikelihoodError: if the log-determinants are noisy, of which there is no such bound.
    """
    flow = material.flow
    indices = material.held.indices[:ITEMS]
    batch = read_for(flow, material.source, material.split, indices)
    with seeded(0), torch.no_grad():
        found = flow.certificate(batch.x, batch.context(conditional=material.config.conditional))
    kinds = {
        "exact": "The likelihoods are exact: the change of variables, with nothing left out and nothing drawn.",
        "bound": "The likelihoods are bounds, since the way to the latent is random; draws of importance weighting "
        "raise them towards the truth.",
    }
    text = kinds[flow.likelihood]
    if flow.likelihood == "exact" and flow.of_integers:
        text = (
            "The likelihoods are exact: probabilities of the levels themselves, which sum to one over all "
            f"{material.facts.items}. Nothing is dequantized, left out or drawn."
        )
    if not bool(found.nats.isfinite().all()):
        section.add(Text(_of_a_solver(material, batch)))
        return
    largest = float(found.nats.max())
    if largest > 0 and (found.exponentials or found.series):
        cut = (_number(found.exponentials, "exponential"), _number(found.series, "log-determinant"))
        text += (
            f" Of its layers {' and '.join(each for each in cut if each)} cut off as a series where that was "
            f"proved to be enough: it moves the log-likelihood of no {material.facts.item} by more than {largest:.2g} "
            f"nats (the largest of {len(found.nats)} held-out {material.facts.items})."
        )
    else:
        text += " No layer cuts a series off."
    section.add(Text(f"{text} Rounding is not part of what is proved."))


def _of_a_solver(material: Material, batch: Batch) -> str:
    """Say what is known of the error of a solver of differential equations: an estimate."""
    with seeded(0):
        changes = solver_error(material.flow, batch.x, batch.context(conditional=material.config.conditional))
    item, middle, largest = material.facts.item, float(changes.median()), float(changes.max())
    return (
        "The model solves a differential equation, and the likelihoods are exact up to the error of its solver, of "
        f"which nothing is proved. Half as many steps change the log-likelihood of a held-out {item} by {middle:.2g} "
        f"nats in the median and by {largest:.2g} at most, of {len(changes)}; where steps are small enough, the error "
        "itself is about a fifteenth of that."
    )


def _number(count: int, what: str) -> str:
    return "" if not count else f"one {what} is" if count == 1 else f"{count} {what}s are"
