"""The most and the least likely held-out items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from likelify.fitting.checks import read_for
from likelify.fitting.outliers import outlier_score
from likelify.fitting.report.blocks import Block, Card, Cards, Picture, Section, Table, Text
from likelify.fitting.report.drawing import item_picture
from likelify.fitting.report.graph_pictures import panels_of, single
from likelify.fitting.report.material import Material
from likelify.fitting.report.sections.graph_likelihoods import per_node
from likelify.fitting.report.showing import can_be_shown, cells, headings, item, limits_of
from likelify.fitting.scoring.surprise import scale_end, surprise_of

# Items of each end.
SHOWN = 8


def extremes(material: Material, section: Section) -> None:
    """Show the ends of the order of held-out items by their likelihood, of rows by how odd they are."""
    facts = material.facts
    if facts.kind == "table":
        _odd_rows(material, section)
        return
    nats = material.scores.nats
    # Of different sizes, as graphs are, items compare by element.
    order = np.argsort(nats if facts.kind != "graph" else nats / material.scores.dims, kind="stable")
    number = min(SHOWN, len(order) // 2) or len(order)
    each = " per node" if facts.kind == "graph" else ""
    section.add(
        Text(
            f"Of {material.held.of_how_many()} {material.split} {facts.items}, by their log-likelihood{each}. The "
            "least likely are where faults of the data and rare cases gather; the most likely are often simple rather "
            "than typical."
        )
    )
    surprises = _surprises(material, order, number)
    if surprises:
        section.add(
            Text(
                f"Beside each {facts.item} is the surprise of its pixels given those that the model writes before "
                f"them, from black, none, to light, {surprises.highest:.1f} bits per dimension; the mean is the figure "
                "below."
            )
        )
    ends = (("least", order[:number]), ("most", order[::-1][:number] if len(order) > 1 else order[:0]))
    for which, some in ends:
        title = f"The {len(some)} {which} likely"
        if len(some):
            make = _graphs if facts.kind == "graph" else _rows
            shown = can_be_shown(facts)
            section.add(_cards(material, some, title, surprises) if shown else make(material, some, title))


def _odd_rows(material: Material, section: Section) -> None:
    """Show the oddest and the most usual rows.

    Likelihoods do not tell: a row with a probability in a column, of zero or of a missing value, is no less odd for it.
    """
    part, nats = material.held, material.scores.nats
    odd = outlier_score(material.flow, part.batch.x, torch.from_numpy(nats)).cpu().numpy()
    # What is not known comes last of the oddest, as in scores.
    order = np.argsort(-np.nan_to_num(odd, nan=-np.inf), kind="stable")
    number = min(SHOWN, len(order) // 2) or len(order)
    section.add(
        Text(
            f"Of {part.of_how_many()} {material.split} rows, by the outlier score of 'likelify score': how unlikely a "
            "row is once all columns are on one scale. The oddest are where faults of the data and rare cases gather; "
            "the most usual are often simple rather than typical."
        )
    )
    titles = ("oddest", order[:number]), ("most usual", order[::-1][:number] if len(order) > 1 else order[:0])
    for which, some in titles:
        if len(some):
            section.add(_rows(material, some, f"The {len(some)} {which}", odd))


@dataclass(frozen=True)
class _Surprises:
    """The surprise of the pixels of some items, by their places among the held-out ones, and the end of its scale."""

    maps: dict[int, np.ndarray]
    highest: float

    def picture(self, at: int, alt: str) -> Picture:
        from matplotlib import colormaps

        coloured = colormaps["inferno"](np.minimum(self.maps[at] / self.highest, 1.0))[..., :3]
        return item_picture(coloured.transpose(2, 0, 1), alt)


def _surprises(material: Material, order: np.ndarray, number: int) -> _Surprises | None:
    """Return the surprise of the pixels of what is shown, if the model has it."""
    if not material.flow.transform.writes_elements:
        return None
    shown = torch.from_numpy(np.unique(np.concatenate([order[:number], order[::-1][:number]])))
    batch = read_for(material.flow, material.source, material.split, material.held.indices[shown])
    with material.flow.frozen():
        found = surprise_of(material.flow, batch.x, batch.context(conditional=material.config.conditional))
    maps = found.cpu().numpy()
    return _Surprises(dict(zip(shown.tolist(), maps, strict=True)), scale_end(maps))


def _cards(material: Material, order: np.ndarray, title: str, surprises: _Surprises | None) -> Block:
    facts, part = material.facts, material.held
    limits = limits_of(part.batch.x, facts)
    cards = []
    for at in map(int, order):
        name, value = part.name(at), _value(material, at)
        pictures = [item(part.batch.x[at], facts, f"held-{at}", f"{facts.item} {name}: {value}", limits)]
        if surprises is not None:
            pictures.append(surprises.picture(at, f"Surprise of the pixels of {facts.item} {name}"))
        cards.append(Card(tuple(pictures), (value, name)))
    width = (100 if surprises is None else 165) if facts.kind == "image" else 165
    return Cards(title, tuple(cards), width=width)


def _graphs(material: Material, order: np.ndarray, title: str) -> Block:
    part, nats = material.held, per_node(material.scores.nats, material.held)
    cards = []
    for at, panel in zip(map(int, order), panels_of(part.batch, order), strict=True):
        value = f"{nats[at]:.{material.digits}f} per node" if np.isfinite(nats[at]) else "likelihood zero"
        nodes = f"{len(panel.features)} node{'s' * (len(panel.features) != 1)}"
        picture = single(panel, material.view, f"held-{at}", f"graph {part.name(at)}: {value}")
        cards.append(Card((picture,), (value, f"{part.name(at)}, {nodes}")))
    return Cards(title, tuple(cards), width=130)


def _rows(material: Material, order: np.ndarray, title: str, odd: np.ndarray | None = None) -> Block:
    part, facts = material.held, material.facts
    own = [] if odd is None else ["outlier score"]
    rows = [
        (
            part.name(at),
            *([] if odd is None else [f"{odd[at]:.2f}"]),
            _value(material, at),
            *cells(part.batch.x[at], facts),
        )
        for at in map(int, order)
    ]
    return Table(("", *own, "log-likelihood", *headings(facts)), rows, title)


def _value(material: Material, at: int) -> str:
    value = float(material.scores.nats[at])
    if not np.isfinite(value):
        return "likelihood zero"
    return f"{material.in_unit(material.scores.nats)[at]:.{material.digits}f} {material.unit.name}"
