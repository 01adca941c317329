"""Whether samples are copies of training items: their nearest ones, and how near held-out items come."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from likelify.errors import DataError
from likelify.fitting.report.blocks import Block, Card, Cards, Picture, Section, Table, Text
from likelify.fitting.report.drawing import DATA, LINE, MODEL, figure
from likelify.fitting.report.material import Material, as_rows
from likelify.fitting.report.mixed_rows import Measure
from likelify.fitting.report.neighbours import Neighbours, nearest
from likelify.fitting.report.showing import can_be_shown, cells, headings, item, limits_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST, SHOWN, FEWEST = 500, 6, 10
# The quantile of held-out distances below which a sample is near.
NEAR = 0.05
# What is said under all of it for rows, since drawn rows are handed on in the place of real ones.
PROMISE = (
    "Drawn rows are not anonymous by being drawn. That none is a copy says nothing about what can be inferred of a "
    "person in the training rows: a model can still give away that somebody was among them, or a rare value that only "
    "one row had. Nothing here bounds that, as training with differential privacy would; do not hand on drawn rows, or "
    "the model, as if they were free of what the data must keep secret."
)


def copies(material: Material, section: Section) -> None:
    """Show the samples that are nearest to training items, and compare distances with those of held-out items.

    Raises:
        DataError: for graphs.
    """
    points, drawn = _points(material), material.drawn[:MOST]
    # Of rows of tables what is missing is NaN.
    rows = as_rows(drawn)
    broken = np.isinf(rows) if material.facts.kind == "table" else ~np.isfinite(rows)
    finite = np.asarray(~broken.any(1))
    if not finite.any():
        raise DataError("Left out: no sample is finite.")
    if lost := len(finite) - int(finite.sum()):
        section.doubts.append(f"{lost} of {len(finite)} samples hold values that are not finite.")
    drawn = drawn[finite]
    held, train = points(material.held.rows[:MOST]), points(material.train.rows)
    found, usual = nearest(points(as_rows(drawn)), train), nearest(held, train)
    section.add(Text(_in_words(material, found, usual)))
    section.doubts += _doubts(material, found, usual)
    if min(len(drawn), len(held)) >= FEWEST:
        section.add(_picture(material, found, usual))
    order = np.argsort(found.distance)[:SHOWN]
    section.add(*(_cards if can_be_shown(material.facts) else _rows)(material, drawn, found, order))
    if material.facts.kind == "table":
        section.add(Text(PROMISE))


def _points(material: Material) -> Callable[[np.ndarray], np.ndarray]:
    """Return what makes points of items, whose distances are root mean squares over elements in their units."""
    rows = material.train.rows
    if material.facts.kind == "table":
        return Measure.of(rows, material.facts.meaning).points
    scale = (float(rows.max() - rows.min()) or 1.0) * rows.shape[1] ** 0.5
    return lambda items: items / scale


def _in_words(material: Material, found: Neighbours, usual: Neighbours) -> str:
    facts = material.facts
    unit = "root mean square over the elements, in the range of all values"
    if facts.kind == "table":
        unit = (
            "root mean square over the columns: of numbers in their spread, of words and of what is missing 1 where "
            "they differ"
        )
    exact, same = int((found.distance == 0).sum()), int((usual.distance == 0).sum())
    equal = (
        f" {exact} of {len(found.distance)} samples equal a training {facts.item}, and so do {same} of "
        f"{len(usual.distance)} held-out {facts.items}."
        if exact or same
        else f" No sample equals a training {facts.item}."
    )
    return (
        f"Each sample's nearest among {material.train.of_how_many()} training {facts.items} is "
        f"{np.median(found.distance):.3g} away in the median; of a held-out {facts.item} it is "
        f"{np.median(usual.distance):.3g} ({unit})."
        f"{_nearer(material, found, usual)}{equal}"
    )


def _share(found: Neighbours, usual: Neighbours) -> float | None:
    """Return how many samples are nearer than the nearest held-out items, where there are enough of these to say."""
    if len(usual.distance) < 1 / NEAR:
        return None
    return float((found.distance < np.quantile(usual.distance, NEAR)).mean())


def _nearer(material: Material, found: Neighbours, usual: Neighbours) -> str:
    share = _share(found, usual)
    if share is None:
        return ""
    return (
        f" {share:.0%} of the samples are nearer than the nearest {NEAR:.0%} of held-out {material.facts.items}; much "
        f"more than {NEAR:.0%} would mean copies."
    )


def _doubts(material: Material, found: Neighbours, usual: Neighbours) -> list[str]:
    facts, count = material.facts, len(found.distance)
    exact, same = float((found.distance == 0).mean()), float((usual.distance == 0).mean())
    error = np.sqrt(max(exact * (1 - exact), 1 / count) / count)
    if exact - same > 3 * error + 1 / len(usual.distance):
        return [
            f"{exact:.0%} of the samples equal a training {facts.item}, of held-out {facts.items} {same:.0%}: the "
            "model copies what it was fitted to."
        ]
    share = _share(found, usual)
    if share is not None and share > 2 * NEAR + 3 * np.sqrt(NEAR / min(count, len(usual.distance))):
        return [
            f"{share:.0%} of the samples are nearer to a training {facts.item} than the nearest {NEAR:.0%} of held-out "
            f"{facts.items}: see whether they are copies, or whether samples vary less than the data."
        ]
    return []


def _picture(material: Material, found: Neighbours, usual: Neighbours) -> Picture:
    items = material.facts.items

    def draw(axes: Axes) -> None:
        for each, colour, name in ((usual, DATA, f"held-out {items}"), (found, MODEL, "samples")):
            values = np.sort(each.distance)
            axes.step(values, (np.arange(len(values)) + 1) / len(values), where="post", color=colour, label=name)
        axes.set_xlabel("distance to the nearest training " + material.facts.item)
        axes.set_ylabel("share that is nearer")
        axes.set_ylim(0, 1.02)
        # A single sample far out would squeeze all others to one line.
        axes.set_xlim(0, 1.05 * max(float(usual.distance.max()), float(np.quantile(found.distance, 0.9))) or 1.0)
        axes.grid(color=LINE, alpha=0.25, linewidth=0.6)
        axes.legend(loc="best")

    caption = f"Samples that were copies would lie far to the left of the held-out {items}."
    alt = "Distribution functions of the distances of samples and of held-out items to their nearest training items."
    return figure("copies", draw, alt=alt, caption=caption)


def _cards(material: Material, drawn: Tensor, found: Neighbours, order: np.ndarray) -> list[Block]:
    facts, train = material.facts, material.train
    limits = limits_of(train.batch.x, facts)
    cards = []
    for at in map(int, order):
        index = int(found.index[at])
        pictures = (
            item(drawn[at], facts, f"sample-{at}", f"Sample {at}.", limits),
            item(train.batch.x[index], facts, f"nearest-{at}", f"The training {facts.item} nearest to it.", limits),
        )
        cards.append(Card(pictures, (f"distance {found.distance[at]:.3g}", f"sample {at}, {train.name(index)}")))
    title = f"The {len(cards)} samples nearest to training {facts.items}: left the sample, right its neighbour"
    return [Cards(title, tuple(cards), width=190 if facts.kind == "image" else 300)]


def _rows(material: Material, drawn: Tensor, found: Neighbours, order: np.ndarray) -> list[Block]:
    facts, train, rows = material.facts, material.train, []
    if facts.kind != "table":
        return []
    for at in map(int, order[:3]):
        index = int(found.index[at])
        rows.append((f"sample {at}", f"{found.distance[at]:.3g}", *cells(drawn[at], facts)))
        rows.append((train.name(index), "", *cells(train.batch.x[index], facts)))
    caption = "The three samples nearest to training rows, each above its neighbour"
    return [Table(("", "distance", *headings(facts)), rows, caption)]
