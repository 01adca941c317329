"""Samples of the model beside held-out data."""

from __future__ import annotations

from torch import Tensor

from likelify.fitting.report.blocks import Block, Card, Cards, Row, Section, Table, Text
from likelify.fitting.report.drawing import grid_picture
from likelify.fitting.report.material import Material, Part
from likelify.fitting.report.sections.columns import ENOUGH, columns
from likelify.fitting.report.sections.graphs import graphs
from likelify.fitting.report.showing import as_pixels, cells, headings, item, limits_of

IMAGES, LINES, ROWS = 64, 8, 8
# Pictures beside which samples can be looked at.
FEW = 8


def samples(material: Material, section: Section) -> None:
    """Show what the model draws beside held-out items."""
    facts = material.facts
    if facts.kind == "graph":
        graphs(material, section)
        return
    drawn, real = material.drawn, material.real(FEW)
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
    section.add(*(_grids if facts.kind == "image" else _lines)(material, drawn, real))


def _real(material: Material) -> str:
    real, held = material.real(ENOUGH), material.held
    few = "" if real is held else f", since there are only {len(held)} in the {held.split} split"
    return f"{real.of_how_many()} rows of the {real.split} split{few}"


def _grids(material: Material, drawn: Tensor, real: Part) -> list[Block]:
    limits, pictures = limits_of(real.batch.x, material.facts), []
    for x, what in ((drawn, "samples of the model"), (real.batch.x, f"images of the {real.split} split")):
        shown = as_pixels(x[:IMAGES], limits)
        side = max(4, round(len(shown) ** 0.5))
        caption = f"{len(shown)} {what}"
        pictures.append(grid_picture(shown, f"A grid of {caption}.", caption, columns=side))
    return [Row(tuple(pictures), width=300)]


def _lines(material: Material, drawn: Tensor, real: Part) -> list[Block]:
    ends = [limits_of(x[:LINES], material.facts) for x in (drawn, real.batch.x)]
    limits = min(low for low, _ in ends), max(high for _, high in ends)
    blocks: list[Block] = []
    for x, what in ((drawn, "samples of the model"), (real.batch.x, f"sequences of the {real.split} split")):
        shown = [
            item(each, material.facts, f"{what}-{number}", f"Number {number} of the {what}.", limits)
            for number, each in enumerate(x[:LINES])
        ]
        blocks.append(Cards(f"{len(shown)} {what}", tuple(Card((picture,), ()) for picture in shown), width=160))
    return blocks


def _rows(material: Material, drawn: Tensor, real: Part) -> list[Block]:
    facts = material.facts
    return [
        Table(headings(facts), [cells(row, facts) for row in x[:ROWS]], caption, folded=True)
        for x, caption in (
            (drawn, f"The first {min(ROWS, len(drawn))} rows that were drawn"),
            (real.batch.x, f"{min(ROWS, len(real))} rows of the {real.split} split"),
        )
    ]
