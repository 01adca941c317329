"""Whether the ranks of test items among validation items are what they promise to be: uniform."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from likelify.errors import DataError
from likelify.fitting.report.blocks import Picture, Section, Text
from likelify.fitting.report.comparing import compare
from likelify.fitting.report.drawing import INK, LINE, MODEL, figure
from likelify.fitting.report.material import Material
from likelify.fitting.report.sections.graph_likelihoods import per_node
from likelify.fitting.scoring.ranks import ranks as ranks_of
from likelify.fitting.scoring.reference import held_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS, FEWEST, UNLIKELY = 10, 20, 0.001


def ranks(material: Material, section: Section) -> None:
    """Show the ranks of held-out items as a histogram, with what chance allows.

    Raises:
        DataError: if there are no test items, or too few.
    """
    facts = material.facts
    if material.split != "test":
        raise DataError(
            "Left out: there is no test split, and the ranks of validation items among themselves say nothing."
        )
    known = held_out(material.run, flow=material.flow, source=material.source)
    test, validation = material.scores.nats, known.nats
    if known.per_node is not None:
        test, validation = per_node(test, material.held), known.per_node
    if min(len(test), len(validation)) < FEWEST:
        raise DataError(f"Left out: {len(test)} test and {len(validation)} validation {facts.items} are too few.")
    found = ranks_of(test, validation)
    distance, chance = compare(test, validation)
    each = " per node" if known.per_node is not None else ""
    section.add(
        Text(
            f"'likelify score' gives a new {facts.item} a rank: the share of held-out validation {facts.items} that "
            f"are at most as likely{each}. Of items like these it is uniform, so that a rank of 0.01 or less happens "
            f"to one in a hundred. On the test split the largest difference from that is {distance:.3f} "
            f"(Kolmogorov-Smirnov, p = {chance:.2g})."
        ),
        _picture(found, len(validation), facts.items),
    )
    if chance < UNLIKELY:
        section.doubts.append(
            f"Test {facts.items} are not ranked as validation {facts.items} are (p = {chance:.1g}): the two splits "
            "differ, or the weights were chosen too closely by the validation split. Ranks mean little then."
        )


def _picture(found: np.ndarray, validation: int, items: str) -> Picture:
    counts = np.histogram(found, BINS, (0, 1))[0]
    expected = len(found) / BINS
    # Two deviations: of the counts, and of where the bins end among so many validation items.
    spread = 2 * np.sqrt(expected * (1 - 1 / BINS) * (1 + len(found) / validation))

    def draw(axes: Axes) -> None:
        axes.set_axisbelow(True)
        axes.bar((np.arange(BINS) + 0.5) / BINS, counts, 0.9 / BINS, color=MODEL)
        axes.axhspan(max(0, expected - spread), expected + spread, color=LINE, alpha=0.3, linewidth=0, zorder=0)
        axes.axhline(expected, color=INK, linewidth=0.8, linestyle=":")
        axes.set_xlabel(f"rank among validation {items} (0: the least likely)")
        axes.set_ylabel(f"test {items}")

    return figure(
        "ranks",
        draw,
        alt=f"Counts of ranks in {BINS} bins: {', '.join(map(str, counts))}; {expected:.0f} are expected in each.",
        caption=f"{len(found):,} test among {validation:,} validation {items}. If ranks are uniform, about nine of ten "
        "bars end in the grey band.",
    )
