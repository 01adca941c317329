"""Text files in pieces of whole lines, packed by gzip or not."""

import codecs
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from likelify.data.limits import LONGEST_LINE
from likelify.data.unpacking import opened, require_usual_size
from likelify.errors import DataError

BLOCK = 2**20
# Pieces that one quoted cell may go over.
MOST_JOINED = 4
# What else files with the ending of a text often are.
STARTS = {
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
    b"PK": "the start of a ZIP archive, as spreadsheets are",
    b"\x1f\x8b": "packed twice",
}


class Piece(NamedTuple):
    """Some lines of a text, without their ends.

    Attributes:
        first: number of the first line in the file, from 1.
        lines: of which the last can be cut off where the file ends.
        quoted: whether there may be quotes in them.
    """

    first: int
    lines: list[str]
    quoted: bool

    def without(self, count: int) -> "Piece":
        """Return the piece without its first lines."""
        return Piece(self.first + count, self.lines[count:], self.quoted)


def pieces(path: Path) -> Iterator[Piece]:
    """Read a text in UTF-8, piece by piece; none holds much more than a million characters.

    Raises:
        DataError: if it is packed and damaged or unpacks to too much, is not UTF-8, a line is longer than a row of a
            table, or a million characters are blank.
    """
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")(), translate=True)
    first, rest, quoted = 1, "", False
    require_usual_size(path)
    with opened(path) as handle:
        while True:
            block = handle.read(BLOCK)
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise _foreign(path, error, first) from error
            if len(text) >= BLOCK and text.isspace():
                raise DataError(f"'{path}' has a million blanks and blank lines after line {first}: it is no table.")
            quoted = '"' in rest or '"' in text
            lines = (rest + text).split("\n")
            rest = lines.pop()
            _require_short(path, first, lines[0] if lines else "")
            _require_short(path, first + len(lines), rest)
            if lines:
                yield Piece(first, lines, quoted)
                first += len(lines)
            if not block:
                break
    if rest:
        yield Piece(first, [rest], quoted)


def whole_rows(text: Iterator[Piece]) -> Iterator[Piece]:
    """Join pieces between which a quoted cell goes over the end of a line, so that each holds whole rows.

    A cell is joined over a few pieces at most; of what is longer reading names the line where its quote begins.
    """
    waiting: Piece | None = None
    joined = 0
    for piece in text:
        if waiting is not None:
            piece, joined = Piece(waiting.first, waiting.lines + piece.lines, quoted=True), joined + 1
        open_quote = piece.quoted and sum(line.count('"') for line in piece.lines) % 2 == 1
        waiting = piece if open_quote and joined < MOST_JOINED else None
        if waiting is None:
            joined = 0
            yield piece
    if waiting is not None:
        yield waiting


def without_end(text: Iterator[Piece], delimiter: str) -> Iterator[Piece]:
    """Leave out the lines at the end of a text that have no value: blank ones, and those of delimiters alone."""
    blank = f"{delimiter} \t\r"
    waiting: Piece | None = None
    for piece in text:
        kept = len(piece.lines)
        while kept and not piece.lines[kept - 1].strip(blank):
            kept -= 1
        if kept and waiting is not None:
            lines, quoted = waiting.lines + piece.lines[:kept], waiting.quoted or piece.quoted
            yield Piece(waiting.first, lines, quoted)
            waiting = None
        elif kept:
            yield Piece(piece.first, piece.lines[:kept], piece.quoted)
        if kept < len(piece.lines):
            rest = Piece(piece.first + kept, piece.lines[kept:], piece.quoted)
            waiting = rest if waiting is None else Piece(waiting.first, waiting.lines + rest.lines, waiting.quoted)


def _require_short(path: Path, number: int, line: str) -> None:
    if len(line) > LONGEST_LINE:
        raise DataError(f"'{path}', line {number} has more than {LONGEST_LINE:,} characters: it is no row of a table.")


def _foreign(path: Path, error: UnicodeDecodeError, first: int) -> DataError:
    content = bytes(error.object)
    line = first + content.count(b"\n", 0, error.start)
    kind = STARTS.get(content[:2]) if first == 1 else None
    kind = kind or f"not UTF-8 (the byte {content[error.start]:#04x})"
    return DataError(f"'{path}' cannot be read as text: line {line} is {kind}. Save the file as text in UTF-8.")
