"""What a page is made of: sections of sentences, tables, pictures and cards, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Picture:
    """A picture with what it shows in words.

    Attributes:
        alt: what one would say of it to somebody who does not see it.
        caption: below it.
        svg: markup of matplotlib, whose text is escaped; or None.
        uri: content of another picture as a `data:` address; or None.
        width: at which it is shown where there is room, in pixels.
        pixels: whether single pixels are to stay visible when it is enlarged.
    """

    kind: ClassVar[str] = "picture"
    alt: str
    caption: str = ""
    svg: str | None = None
    uri: str | None = None
    width: int = 460
    pixels: bool = False


@dataclass(frozen=True)
class Card:
    """Small pictures beside each other with a few words below."""

    pictures: tuple[Picture, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Cards:
    """Cards in rows, as many as there is room for.

    Attributes:
        title: above them.
        cards: in their order.
        width: of a card at least, in pixels.
    """

    kind: ClassVar[str] = "cards"
    title: str
    cards: tuple[Card, ...]
    width: int = 130


@dataclass(frozen=True)
class Row:
    """Pictures beside each other where there is room."""

    kind: ClassVar[str] = "row"
    pictures: tuple[Picture, ...]
    width: int = 320


@dataclass(frozen=True)
class Table:
    """A table, which scrolls by itself if it is wider than the page.

    Attributes:
        headings: of the columns.
        rows: cells as text.
        caption: above it.
        strong: numbers of the rows that stand out.
        folded: whether it is shown only when it is opened, under its caption.
    """

    kind: ClassVar[str] = "table"
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    caption: str = ""
    strong: tuple[int, ...] = ()
    folded: bool = False


@dataclass(frozen=True)
class Terms:
    """Words with what they mean."""

    kind: ClassVar[str] = "terms"
    terms: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Code:
    """Something to type."""

    kind: ClassVar[str] = "code"
    text: str


Block = Text | Picture | Cards | Row | Table | Terms | Code


@dataclass
class Section:
    """A part of the page.

    Attributes:
        word: its name in the list of sections and in the address.
        title: as a heading.
        blocks: in their order.
        tiles: what of it is shown large at the top of the page: a figure and what it is.
        doubts: what it found that makes the figures mean less, shown at the top of the page.
        missing: why it could not be made, or None.
    """

    word: str
    title: str
    blocks: list[Block] = field(default_factory=list)
    tiles: list[tuple[str, str]] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    missing: str | None = None

    def add(self, *blocks: Block) -> None:
        """Put blocks at the end."""
        self.blocks.extend(blocks)
