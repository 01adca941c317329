"""Writes reports as Markdown and as a page of HTML that needs nothing beside it."""

import base64
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

from likelify.plots.files import new_figure, png_of
from likelify.reproduce.drawing import Drawing
from likelify.reproduce.shown import Curve, Table
from likelify.reproduce.table import Report

DISCUSSION = "What the figures say"
# Of curves, ten colours each.
STYLES = ("-", "--", ":")
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; font-size: 0.9rem; display: block; overflow-x: auto; }
th, td { padding: 0.3rem 0.7rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
td { white-space: nowrap; font-variant-numeric: tabular-nums; }
.notes { color: #555; font-size: 0.85rem; }
figure { margin: 1.5rem 0; } img { max-width: 100%; }
"""


def to_markdown(report: Report, folder: Path = Path(), drawn: Path = Path()) -> str:
    """Return a report as Markdown.

    Args:
        report: what to write.
        folder: where the text will be; pictures are linked relative to it.
        drawn: folder of the files of the drawing.
    """
    parts = [f"# {_plain(report.title)}", *map(_plain, report.introduction)]
    if report.drawing is not None:
        parts += _markdown_drawing(report.drawing, folder, drawn)
    if report.discussion:
        parts += [f"## {DISCUSSION}", "\n".join(f"- {_plain(text)}" for text in report.discussion)]
    for table in report.tables:
        parts += [f"## {_plain(table.title)}", _markdown_table(table)]
        if table.notes:
            parts.append("\n".join(f"- {_plain(note)}" for note in table.notes))
    if report.pictures:
        parts.append("## Pictures")
        for picture in report.pictures:
            parts += [f"{_plain(picture.title)}:", f"![{_plain(picture.title)}]({_link(picture.file, folder)})"]
    return "\n\n".join(parts) + "\n"


def markdown_rows(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of Markdown as a table; the first holds the headings, and the first column is text, others figures.

    Example:
        >>> print(markdown_rows([["method", "bits"], ["**ours**", "3.1"]]))
        | method | bits |
        | --- | ---: |
        | **ours** | 3.1 |
    """
    rule = ["---"] + ["---:"] * (len(rows[0]) - 1)
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


# By which a page is known to be one of ours.
PAGE_MARK = '<meta name="generator" content="likelify">'


def to_html(report: Report) -> str:
    """Return a report as one page of HTML, pictures and curves inside."""
    body = [f"<h1>{escape(report.title)}</h1>", *(f"<p>{escape(text)}</p>" for text in report.introduction)]
    if report.drawing is not None:
        body += _html_drawing(report.drawing)
    if report.discussion:
        body += [
            f"<h2>{DISCUSSION}</h2>",
            f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in report.discussion)}</ul>",
        ]
    for table in report.tables:
        body += [f"<h2>{escape(table.title)}</h2>", _html_table(table)]
        if table.notes:
            body.append(f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in table.notes)}</ul>')
        curves = {name: several for name, several in report.curves.get(table.title, {}).items() if several}
        if curves:
            title = f"Validation split of {table.title} during the fits, one line per seed"
            body.append(_html_figure(title, draw_curves(curves, report.unit.name)))
    body += [_html_figure(picture.title, picture.file.read_bytes()) for picture in report.pictures]
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{PAGE_MARK}\n'
        f"<title>{escape(report.title)}</title>\n"
        f"<style>{STYLE}</style>\n</head>\n<body>\n{chr(10).join(body)}\n</body>\n</html>\n"
    )


def draw_curves(curves: dict[str, list[Curve]], unit: str) -> bytes:
    """Draw the curves of methods against time as PNG; their first point, before any step, is left out.

    Args:
        curves: for each method one curve `(seconds, figure)` per seed.
        unit: of the figures.
    """
    figure = new_figure(7.5, 4.2)
    axis = figure.subplots()
    for number, (name, several) in enumerate(curves.items()):
        for index, curve in enumerate(several):
            points = curve[1:] or curve
            times, values = zip(*points, strict=True)
            colour, style = f"C{number % 10}", STYLES[number // 10 % len(STYLES)]
            axis.plot(times, values, color=colour, linestyle=style, label=name if index == 0 else None, lw=1.2)
    axis.set_xlabel("seconds of the fit")
    axis.set_ylabel(unit)
    axis.legend(frameon=False)
    return png_of(figure, dpi=110)


def _link(file: Path, folder: Path) -> str:
    """Return the place of a file as a page in a folder names it."""
    return Path(os.path.relpath(file, folder)).as_posix()


def _markdown_drawing(drawing: Drawing, folder: Path, drawn: Path) -> list[str]:
    places = {name: _link(drawn / name, folder) for name in drawing.files}
    shown = f"![{_plain(drawing.title)}]({places[f'{drawing.name}.svg']})"
    links = ", ".join(f"[{name}]({place})" for name, place in places.items())
    return [shown, *map(_plain, drawing.caption), f"As files: {links}."]


def _html_drawing(drawing: Drawing) -> list[str]:
    return [_html_figure(drawing.title, drawing.png), *(f"<p>{escape(text)}</p>" for text in drawing.caption)]


def _markdown_table(table: Table) -> str:
    return markdown_rows([[_plain(cell) for cell in row] for row in (table.headings, *table.rows)])


def _plain(text: str) -> str:
    """Keep text from being read as Markdown or HTML."""
    for sign in "\\`*_<>|#":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in table.headings)
    rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in table.rows)
    return f"<table>\n<tr>{head}</tr>\n{chr(10).join(f'<tr>{row}</tr>' for row in rows)}\n</table>"


def _html_figure(title: str, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    caption = escape(title)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'
    )
