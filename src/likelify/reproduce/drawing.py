"""A drawn figure of a paper: the content of its files, and what is said below it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Drawing:
    """A figure.

    Attributes:
        name: of its files.
        title: what it shows, in a few words.
        caption: paragraphs below it.
        png: content of its PNG file.
        svg: content of its SVG file.
        headings: of a table of numbers below the caption; none for no table.
        rows: of that table.
    """

    name: str
    title: str
    caption: tuple[str, ...]
    png: bytes
    svg: bytes
    headings: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)

    @property
    def files(self) -> dict[str, bytes]:
        """Names of its files and their content."""
        return {f"{self.name}.png": self.png, f"{self.name}.svg": self.svg}


# What draws the figure of an experiment from the pictures of its finished cells, by titles of their methods; None
# where those that it needs are not there.
Draw = Callable[[Mapping[str, Path]], Drawing | None]
