"""What is known of a column before its values are looked at: from the file it comes from, or from the user."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from likelify.errors import unknown_word
from likelify.names import ColumnKind
from likelify.schema import LinearFunction

KINDS: tuple[ColumnKind, ...] = get_args(ColumnKind)
# `integer[0,120]`, `real(0,)`, `ordered[low,high]`, `date[%d.%m.%Y]`.
WISH = re.compile(r"\s*(?P<kind>[a-z]+)\s*(?:(?P<open>[\[(])(?P<inside>.*)(?P<close>[\])]))?\s*", re.DOTALL)
EXAMPLE = "age=integer[0,120],zip=category,price=real[0,),size=ordered[S,M,L],day=date[%d.%m.%Y]"


@dataclass(frozen=True)
class Told:
    """What is known of a column.

    Attributes:
        kind: what its values are taken for; None where the values decide.
        lower: end of the range that the user declared, itself inside.
        upper: the same of the other end.
        words: the words that the places stand for, in their order; of truth values, those for false and true.
        written: how dates are written, as `strptime` knows it.
        unit: what is counted of dates, or of numbers that are lengths of time.
        zone: of moments in a time zone, its name.
        decimals: of numbers in text that all have as many, how many.
        comma: whether numbers in text have decimal commas.
        function: that it is of other columns.
        by: who said it: the user, or nobody but the file.
        said: how the kind was found, in words.
    """

    kind: ColumnKind | None = None
    lower: float | None = None
    upper: float | None = None
    words: tuple[str, ...] | None = None
    written: str | None = None
    unit: Literal["day", "second"] | None = None
    zone: str | None = None
    decimals: int | None = None
    comma: bool = False
    function: LinearFunction | None = None
    by: Literal["user", "file"] = "file"
    said: str = ""

    @property
    def declares_range(self) -> bool:
        """Whether the user gave an end of the range."""
        return self.lower is not None or self.upper is not None


def read_wish(text: str) -> Told:
    """Read what a user wishes a column to be taken for.

    Args:
        text: a kind, then perhaps in brackets the ends of its range, its words in their order, or how its dates are
            written: `integer[0,120]`, `real(0,)`, `ordered[S,M,L]`, `date[%d.%m.%Y]`.

    Raises:
        ValueError: if it is something else.

    Example:
        >>> told = read_wish("integer[0,120]")
        >>> told.kind, told.lower, told.upper
        ('integer', 0.0, 120.0)
    """
    match = WISH.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text[:80]}' says nothing about a column. Write it like {EXAMPLE}.")
    kind, inside = match["kind"], match["inside"]
    if kind not in KINDS:
        raise ValueError(unknown_word("kind of column", kind, KINDS))
    known: ColumnKind = KINDS[KINDS.index(kind)]
    if inside is None:
        return Told(known, by="user", said="as you said")
    if known in ("category", "ordered"):
        return Told(known, words=_words(inside, text), by="user", said="as you said")
    if known == "date":
        return Told(known, written=inside.strip(), by="user", said="as you said")
    if known == "boolean":
        raise ValueError(f"'{text[:80]}': truth values have no range.")
    return _ranged(known, inside, (match["open"] == "(", match["close"] == ")"), text)


def _words(inside: str, text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in next(csv.reader([inside], skipinitialspace=True), []))
    if len(set(words)) < len(words) or len(words) < 2 or not all(words):
        raise ValueError(f"'{text[:80]}' must name each of its words once, and two at least.")
    return words


def _ranged(kind: ColumnKind, inside: str, outside: tuple[bool, bool], text: str) -> Told:
    ends = [end.strip() for end in inside.split(",")]
    try:
        lower, upper = (float(end) if end else None for end in ends)
    except ValueError:
        raise ValueError(f"'{text[:80]}' has no range. Write it like [0,120], or [0,) without an end.") from None
    if kind == "integer":
        # The end itself does not belong to it.
        lower = lower + 1 if lower is not None and outside[0] else lower
        upper = upper - 1 if upper is not None and outside[1] else upper
    if lower is not None and upper is not None and not lower < upper:
        raise ValueError(f"The range of '{text[:80]}' ends before it starts.")
    return Told(kind, lower, upper, by="user", said="as you said")


def split_wishes(text: str) -> dict[str, str] | None:
    """Cut `age=integer[0,120],zip=category` into names and what is wished; None if it is a list of names.

    Raises:
        ValueError: if it says what some are and only names others.
    """
    parts = _parts(text)
    cut = [_at_kind(part) for part in parts]
    if not any(name for name, _ in cut):
        return None
    if not all(name for name, _ in cut):
        plain = next(wish for name, wish in cut if not name)
        raise ValueError(
            f"'{plain[:80]}' is only named, others are said to be of a kind. Either keep some columns (a,b,c), or say "
            f"what they are ({EXAMPLE}), which keeps all."
        )
    return dict(cut)


def _at_kind(part: str) -> tuple[str, str]:
    """Cut at the first equals sign that a kind follows, so that names may have one."""
    match = re.fullmatch(r"\s*\"?(?P<name>.+?)\"?\s*=\s*(?P<wish>[a-z]+\s*([\[(].*)?)", part, re.DOTALL)
    return (match["name"].strip(), match["wish"].strip()) if match else ("", part.strip())


def _parts(text: str) -> list[str]:
    """Cut a text at commas that are neither in brackets nor in quotes."""
    parts, depth, quoted = [""], 0, False
    for letter in text:
        quoted ^= letter == '"'
        depth += 0 if quoted else (letter in "[(") - (letter in "])")
        if letter == "," and not quoted and depth <= 0:
            parts.append("")
            depth = 0
        else:
            parts[-1] += letter
    return parts


def read_wishes(wishes: Mapping[str, Any]) -> dict[str, Told]:
    """Read what a user wishes of each column; see `read_wish`."""
    return {name: read_wish(wish) for name, wish in wishes.items()}
