"""Samples of the model beside held-out data."""

from __future__ import annotations

from torch import Tensor

from likelify.fitting.report.blocks import Block, Card, Cards, Row, Section, Table, Text
from likelify.fitting.report.drawing import grid_picture
from likelify.fitting.report.material import Material
from likelify.fitting.report.sections.columns import columns
from likelify.fitting.report.showing import as_pixels, cells, headings, item, limits_of

IMAGES, LINES, ROWS = 64, 8, 8


def samples(material: Material, section: Section) -> None:
    """Show what the model draws beside held-out items.

    Raises:
        DataError: for graphs.
    """
    facts = material.facts
    drawn, real = material.drawn, material.held.batch.x
    classes = " Classes come in turn." if material.config.conditional else ""
    seed = material.config.fit.seed
    if facts.kind == "table":
        section.add(Text(f"{len(drawn):,} rows are drawn (seed {seed}) and compared with {_real(material)}.{classes}"))
        columns(material, section)
        section.add(*_rows(material, drawn, real))
        return
    section.add(
        Text(
            f"A good model's samples cannot be told from data by their looks, nor by the statistics that matter to "
            f"you. Samples have the seed {seed}; nothing was picked by hand.{classes}"
        )
    )
    limits = limits_of(real, facts)
    section.add(*(_grids if facts.kind == "image" else _lines)(material, drawn, real, limits))


def _real(material: Material) -> str:
    real, held = material.real, material.held
    few = "" if real is held else f", since there are only {len(held)} in the {held.split} split"
    return f"{real.of_how_many()} rows of the {real.split} split{few}"


def _grids(material: Material, drawn: Tensor, real: Tensor, limits: tuple[float, float]) -> list[Block]:
    number = min(IMAGES, len(drawn), len(real))
    side = max(4, round(number**0.5))
    pictures = [
        grid_picture(as_pixels(x[:number], limits), f"{number} {what} in a grid.", f"{number} {what}", columns=side)
        for x, what in ((drawn, "samples of the model"), (real, f"images of the {material.split} split"))
    ]
    return [Row(tuple(pictures), width=300)]


def _lines(material: Material, drawn: Tensor, real: Tensor, limits: tuple[float, float]) -> list[Block]:
    both = limits_of(drawn, material.facts)
    limits = min(limits[0], both[0]), max(limits[1], both[1])
    blocks: list[Block] = []
    for x, what, name in ((drawn, "samples of the model", "drawn"), (real, f"the {material.split} split", "real")):
        shown = [
            item(each, material.facts, f"{name}-{number}", f"A sequence: number {number} of {what}.", limits)
            for number, each in enumerate(x[:LINES])
        ]
        title = f"{len(shown)} {what}" if name == "drawn" else f"{len(shown)} sequences of {what}"
        blocks.append(Cards(title, tuple(Card((picture,), ()) for picture in shown), width=160))
    return blocks


def _rows(material: Material, drawn: Tensor, real: Tensor) -> list[Block]:
    facts = material.facts
    return [
        Table(headings(facts), [cells(row) for row in x[:ROWS]], caption, folded=True)
        for x, caption in (
            (drawn, f"The first {min(ROWS, len(drawn))} rows that were drawn"),
            (real, f"{min(ROWS, len(real))} rows of the {material.split} split"),
        )
    ]
