"""Columns of text: which words they have, and what these mean: numbers, truth values, dates, categories."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import numpy as np

from likelify.data.dates import are_alike, count_words, fitting_formats, unit_of, usual_formats
from likelify.data.dialect import (
    DASHES,
    LEADING,
    SIGNED,
    SPACED,
    advice,
    fixed_decimals,
    has_decimal_commas,
    is_missing,
    is_number,
    looks_like_number,
    with_point,
)
from likelify.data.encoding import FALSE, TRUE, as_word
from likelify.data.limits import LARGEST_VALUE
from likelify.data.proposals import FEW
from likelify.data.told import Told
from likelify.schema import DAY

# Truth values by themselves; with others, such as yes and no, only where the user says so.
TRUTH = frozenset(("true", "false"))
# Where this share of the different words are dates or numbers the column is one of these, and the others are wrong.
USUAL, FEWEST = 0.95, 20


@dataclass
class Words:
    """The different words of a column, and which of them each row has."""

    known: dict[str, int] = field(default_factory=dict)
    parts: list[np.ndarray] = field(default_factory=list)

    def add(self, values: Iterable[Any]) -> None:
        """Add the values of some rows, whatever they are; what is missing is the empty word."""
        known = self.known
        words = (value.strip() if isinstance(value, str) else as_word(value) for value in values)
        self.parts.append(np.fromiter((known.setdefault(word, len(known)) for word in words), np.int64))

    @property
    def places(self) -> np.ndarray:
        """The number of the word of each row."""
        return np.concatenate(self.parts) if self.parts else np.empty(0, np.int64)


@dataclass(frozen=True)
class Meaning:
    """What the words of a column mean.

    Attributes:
        values: of each word, NaN where it is missing or wrong.
        told: what is known of the column by that.
        wrong: the numbers of the words that are not what was asked for.
        said: what is wrong with the first of them, or with all.
        wish: what the column could be taken for instead.
    """

    values: np.ndarray
    told: Told
    wrong: tuple[int, ...] = ()
    said: str = ""
    wish: str = ""


def meaning(words: Sequence[str], told: Told) -> Meaning:
    """Tell what the words of a column mean.

    Args:
        words: the different ones.
        told: what is known of the column.
    """
    present = [word for word in words if not is_missing(word)]
    if told.kind in ("category", "ordered"):
        return _categories(words, present, told)
    if told.kind == "boolean":
        return _each(words, replace(told, words=words_of_truth(present)), _truth, "is neither true nor false")
    if told.kind == "date":
        return _dates(words, present, told)
    if told.kind is not None:
        return _each(words, told, _number, "")
    lower = {word.lower() for word in present}
    if lower and lower <= TRUTH:
        told = replace(told, kind="boolean", words=words_of_truth(present), said="truth values")
        return _each(words, told, _truth, "")
    return _usual(words, present, told) or _categories(words, present, replace(told, kind="category"))


def _usual(words: Sequence[str], present: Sequence[str], told: Told) -> Meaning | None:
    """Tell what nearly all words are: dates of one form, numbers, amounts of money or percentages; None if nothing."""
    if forms := fitting_formats(present):
        return _found_dates(words, present, forms, told)
    least = math.ceil(USUAL * len(present))
    if present and sum(SIGNED.fullmatch(word) is not None for word in present) >= least:
        first = next(word for word in present if SIGNED.fullmatch(word))
        wish = "category" if len(present) <= FEW else ""
        return Meaning(np.full(len(words), np.nan), told, said=f"its values are no numbers: {advice(first)}", wish=wish)
    if has_decimal_commas(present):
        told = replace(told, comma=True, said=told.said or "numbers with decimal commas")
        return _each(words, _with_decimals(told, map(with_point, present)), _comma_number, "")
    if _are_numbers(present, least):
        return _each(words, _with_decimals(told, filter(_is_plain, present)), _number, "")
    if commas := _numbers_with_commas(present):
        wish = "category" if len(present) <= FEW else ""
        return Meaning(
            np.full(len(words), np.nan), told, said=f"its values are no numbers: {advice(commas)}", wish=wish
        )
    # Of few words one that is no date, such as the 30th of February, is more than the others allow for.
    if forms := usual_formats(present, min(least, len(present) - 1)):
        good = [word for word in present if count_words([word], forms[0], "second") != [None]]
        return _found_dates(words, good, forms, told)
    return None


def _with_decimals(told: Told, numbers: Iterable[str | None]) -> Told:
    return replace(told, decimals=fixed_decimals([number for number in numbers if number is not None]))


def _are_numbers(present: Sequence[str], least: int) -> bool:
    """Tell whether words are numbers but for a few, or but for dashes, which may stand for missing values or not."""
    others = {word for word in present if not _is_plain(word)}
    numbers = len(present) - len(others)
    usual = (len(present) >= FEWEST and numbers >= least) or (numbers > 1 and bool(others) and others <= DASHES)
    return usual and not any(map(LEADING.match, present))


def _numbers_with_commas(present: Sequence[str]) -> str:
    """Return the first of words that are all numbers of which it is not known what they mean; else nothing.

    Some have decimal points, or the comma can stand between thousands: `1,5` beside `3.1`, or `1,500` alone; or
    something else stands there: `1 500`.
    """
    found = [word for word in present if "," in word or SPACED.fullmatch(word)]
    return found[0] if found and all(map(looks_like_number, present)) else ""


def in_order(words: Iterable[str]) -> list[str]:
    """Return words in the order of the numbers that they are, then of the alphabet."""
    return sorted(words, key=lambda word: (not _is_plain(word), float(word) if _is_plain(word) else 0.0, word))


def _is_plain(word: str) -> bool:
    return is_number(word) and np.isfinite(float(word))


def _categories(words: Sequence[str], present: Sequence[str], told: Told) -> Meaning:
    known = told.words
    if known is None:
        known = tuple(in_order(present))
        if told.kind == "ordered" and not all(map(_is_plain, known)):
            listed = ",".join(known[:5]) + (",..." if len(known) > 5 else "")
            said = f"the order of its words is not known. Say it: ordered[{listed}]"
            wish = f"ordered[{','.join(known)}]" if len(known) <= 5 else "category"
            return Meaning(np.full(len(words), np.nan), replace(told, words=known), said=said, wish=wish)
    places = {word: float(place) for place, word in enumerate(known)}
    wrong = tuple(n for n, word in enumerate(words) if word not in places and not is_missing(word))
    said = "" if not wrong else f"{words[wrong[0]][:40]!r} is none of the words that you named"
    values = np.array([places.get(word, np.nan) for word in words], dtype=np.float64)
    text = told.said or f"{len(known)} words"
    return Meaning(values, replace(told, words=known, said=text), wrong, said)


def _each(words: Sequence[str], told: Told, read: Any, said: str) -> Meaning:
    """Read word by word; the first that cannot be read is wrong."""
    found = [np.nan if is_missing(word) else read(word) for word in words]
    wrong = tuple(n for n, value in enumerate(found) if value is None)
    if wrong:
        said = f"{words[wrong[0]][:40]!r} {said}" if said else advice(words[wrong[0]])
    values = np.array([np.nan if value is None else value for value in found], dtype=np.float64)
    return Meaning(values, told, wrong, said if wrong else "")


def words_of_truth(present: Iterable[str]) -> tuple[str, str] | None:
    """Return the words for false and true, if there is one for each."""
    values = {word: _truth(word) for word in present}
    pair = sorted(values, key=lambda word: values[word] or 0.0)
    return (pair[0], pair[1]) if sorted(values.values(), key=str) == [0.0, 1.0] else None


def _truth(word: str) -> float | None:
    return 1.0 if word.lower() in TRUE else 0.0 if word.lower() in FALSE else None


def _number(word: str) -> float | None:
    return float(word) if is_number(word) and abs(float(word)) <= LARGEST_VALUE else None


def _comma_number(word: str) -> float | None:
    plain = with_point(word)
    return None if plain is None else _number(plain)


def _dates(words: Sequence[str], present: Sequence[str], told: Told) -> Meaning:
    """Read dates as the user says they are written, or as they are seen to be."""
    if told.written is not None:
        unit = unit_of(told.written)
        read = count_words(words, told.written, unit)
        wrong = tuple(n for n, at in enumerate(read) if at is None and not is_missing(words[n]))
        said = "" if not wrong else f"{words[wrong[0]][:40]!r} is no date as {told.written} writes it"
        values = np.array([np.nan if at is None else at for at in read], dtype=np.float64)
        return Meaning(values, replace(told, unit=unit), wrong, said)
    if forms := fitting_formats(present):
        return _found_dates(words, present, forms, told)
    said = "it has dates in no way that is known. Say how they are written: date[%d.%m.%Y]"
    return Meaning(np.full(len(words), np.nan), told, said=said, wish="category")


def _found_dates(words: Sequence[str], present: Sequence[str], forms: Sequence[str], told: Told) -> Meaning:
    if len(forms) > 1 and not are_alike(forms, present):
        said = (
            f"its dates, such as {present[0]!r}, can be read as {' or '.join(forms[:2])}, and no row decides. Say which"
        )
        known = set(present)
        strange = tuple(n for n, word in enumerate(words) if word not in known and not is_missing(word))
        said += f"; {words[strange[0]][:40]!r} is no date at all" if strange else ""
        return Meaning(np.full(len(words), np.nan), told, strange, said, wish=f"date[{forms[0]}]")
    if "%y" in forms[0] and (late := _in_years_to_come(present, forms[0])):
        said = (
            f"its years have two digits, and {late!r} would be a day to come. Write years of four digits, or say that "
            "it is so"
        )
        return Meaning(np.full(len(words), np.nan), told, said=said, wish=f"date[{forms[0]}]")
    said = told.said or f"dates, as {forms[0]}"
    return _dates(words, present, replace(told, kind="date", written=forms[0], said=said))


def _in_years_to_come(words: Sequence[str], written: str) -> str | None:
    """Return the first date that is yet to come."""
    today = (date.today() - date(1970, 1, 1)).days
    unit = unit_of(written)
    latest = (today + 1) * (1 if unit == "day" else DAY)
    found = zip(words, count_words(words, written, unit), strict=True)
    return next((word for word, at in found if at is not None and at > latest), None)
