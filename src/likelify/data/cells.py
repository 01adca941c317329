"""Cells of CSV files: what a spreadsheet would run as a formula is written as text, and read as what it was."""

import re
from typing import Any

# What starts a formula: in ASCII, and as wide characters, which spreadsheets of East Asia take for the same.
FORMULAS = re.compile(r"[\s\0]*[=+\-@＝＋－＠]|[\t\r\n]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)", re.IGNORECASE | re.ASCII)


def as_cell(value: Any) -> Any:
    """Return what is written for a value in a cell of a CSV file: text that a spreadsheet would run, as text.

    Such text starts with one of `= + - @`, their wide forms, a tab or a line break, maybe behind spaces; it gets an
    apostrophe in front, which spreadsheets take for "what follows is text". Numbers are never changed, nor is text
    that is one: `-1.5` stays a number. Commas, quotes and line breaks are left to the writer of the file.

    Example:
        >>> as_cell("=1+1"), as_cell("-1.5"), as_cell(-1.5), as_cell("a-b")
        ("'=1+1", '-1.5', -1.5, 'a-b')
    """
    if not isinstance(value, str) or NUMBER.fullmatch(value) or not FORMULAS.match(value):
        return value
    return f"'{value}"


def plain_cell(text: str) -> str:
    """Return what a cell of a text file says: the text itself, without the apostrophe that `as_cell` wrote in front.

    Example:
        >>> plain_cell("'=1+1"), plain_cell("'-a"), plain_cell("'-1.5"), plain_cell("'quoted'")
        ('=1+1', '-a', "'-1.5", "'quoted'")
    """
    return text[1:] if text[:1] == "'" and as_cell(text[1:]) == text else text
