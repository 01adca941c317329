"""Tables of text, and what is kept for them: the results of methods, and their curves."""

from dataclasses import dataclass, field

from likelify.reproduce.results import CellResult

Curve = list[tuple[float, float]]
Rows = dict[str, list[CellResult]]


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: above it.
        headings: of its columns.
        rows: of cells, as many as headings; the first column is text, the others are figures.
        notes: below it.
    """

    title: str
    headings: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
