"""The most and the least likely held-out items."""

from __future__ import annotations

import numpy as np

from likelify.fitting.report.blocks import Block, Card, Cards, Section, Table, Text
from likelify.fitting.report.material import Material
from likelify.fitting.report.showing import can_be_shown, cells, headings, item, limits_of

SHOWN = 8


def extremes(material: Material, section: Section) -> None:
    """Show the ends of the order of held-out items by their likelihood."""
    facts = material.facts
    nats = material.scores.nats
    # Of different sizes, as graphs are, items compare by element.
    order = np.argsort(nats if facts.kind != "graph" else nats / material.scores.dims, kind="stable")
    number = min(SHOWN, len(order) // 2) or len(order)
    section.add(
        Text(
            f"Of {material.held.of_how_many()} {material.split} {facts.items}, by their log-likelihood. The least "
            "likely are where faults of the data and rare cases gather; the most likely are often simple rather than "
            "typical."
        )
    )
    ends = (("least", order[:number]), ("most", order[::-1][:number] if len(order) > 1 else order[:0]))
    show = _cards if can_be_shown(facts) else _rows
    for which, some in ends:
        if len(some):
            section.add(show(material, some, f"The {len(some)} {which} likely"))


def _cards(material: Material, order: np.ndarray, title: str) -> Block:
    facts, part = material.facts, material.held
    limits = limits_of(part.batch.x, facts)
    cards = tuple(
        Card((item(part.batch.x[at], facts, f"held-{at}", f"{facts.item} {name}: {value}", limits),), (value, name))
        for at, name, value in ((at, part.name(at), _value(material, at)) for at in map(int, order))
    )
    return Cards(title, cards, width=100 if facts.kind == "image" else 165)


def _rows(material: Material, order: np.ndarray, title: str) -> Block:
    part, facts, table = material.held, material.facts, material.facts.kind == "table"
    rows = [
        (
            part.name(at),
            _value(material, at),
            *(cells(part.batch.x[at], facts) if table else (f"{int(material.scores.dims[at])} elements",)),
        )
        for at in map(int, order)
    ]
    return Table(("", "log-likelihood", *(headings(facts) if table else ("size",))), rows, title)


def _value(material: Material, at: int) -> str:
    value = float(material.scores.nats[at])
    if not np.isfinite(value):
        return "likelihood zero"
    return f"{material.in_unit(material.scores.nats)[at]:.{material.digits}f} {material.unit.name}"
