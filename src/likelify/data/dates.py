"""Dates and times as they are written, as days or seconds, and back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal

import numpy as np

from likelify.data.dialect import is_missing, is_nothing
from likelify.data.faults import Faults, note_cells
from likelify.data.zones import at_clock
from likelify.schema import DAY, ColumnSchema, is_clock

Unit = Literal["day", "second"]
START = datetime(1970, 1, 1)
# The seconds that calendars have, of the years 1 to 9999; draws far outside of the data can lie beyond.
EARLIEST, LATEST = -62135596800.0, 253402300799.0
ISO_DAY, ISO_TIME = "%Y-%m-%d", "%H:%M:%S"
# How a column of dates can be written, in the order in which they are tried; those of days before those of months can
# both fit, which is decided by the whole column, or not.
DAYS = (
    *(ISO_DAY, "%Y/%m/%d", "%Y.%m.%d"),
    *("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y"),
    *("%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%Y"),
    *("%d/%m/%y", "%m/%d/%y", "%d.%m.%y"),
)
CLOCKS = ("%H:%M", ISO_TIME, "%H:%M:%S.%f", "%I:%M %p", "%I:%M:%S %p")
ZONES = ("", "%z", " %z")
# What a cell must look like to be tried at all.
LOOKS = re.compile(r"(?=.*[0-9])[0-9A-Za-z]{1,9}[-/.: ][0-9A-Za-z]{1,9}[-/.: ,T].*|[0-9]{1,2}:[0-9]{2}")
PROBED = 200
# Of twice as many words this number must be dates of one form for it to be tried on all.
TRIED = 5


def formats() -> Iterable[str]:
    """Return all the ways in which dates and times are found to be written."""
    yield from DAYS
    yield from CLOCKS
    for day in DAYS:
        for between in (" ", "T"):
            for clock in CLOCKS:
                yield from (f"{day}{between}{clock}{zone}" for zone in ZONES)


def fitting_formats(words: Sequence[str]) -> list[str]:
    """Return the ways in which all of some words are dates or times.

    They are found by the first words, then confirmed by all.

    Args:
        words: none missing.
    """
    if not words or not all(LOOKS.fullmatch(word) for word in words[:PROBED]):
        return []
    probed = [form for form in formats() if all(_read(word, form) is not None for word in words[:PROBED])]
    return [form for form in probed if all(_read(word, form) is not None for word in words[PROBED:])]


def usual_formats(words: Sequence[str], least: int) -> list[str]:
    """Return the ways in which most of some words are dates or times, where the others are none at all.

    Args:
        words: none missing.
        least: so many must be.
    """
    likely = [word for word in words if LOOKS.fullmatch(word)]
    if len(likely) < max(least, 2 * TRIED):
        return []
    some = likely[: 2 * TRIED]
    tried = [form for form in formats() if sum(_read(word, form) is not None for word in some) >= TRIED]
    counts = {form: sum(_read(word, form) is not None for word in likely) for form in tried}
    return [form for form, count in counts.items() if count >= least and count == max(counts.values())]


def are_alike(forms: Sequence[str], words: Sequence[str]) -> bool:
    """Tell whether some ways to read words as dates give the same dates."""
    first = [_read(word, forms[0]) for word in words]
    return all([_read(word, form) for word in words] == first for form in forms[1:])


def _read(word: str, form: str) -> datetime | None:
    try:
        return datetime.strptime(word, form)
    except ValueError:
        return None


def unit_of(written: str) -> Unit:
    """Return what is counted of dates that are written so."""
    return "second" if re.search("%[HIMSf]", written) else "day"


def counted(moment: date | time, unit: Unit, zone: str | None = None) -> float:
    """Return days or seconds since the start of 1970 by the clocks of a zone, of a time of day since midnight."""
    if isinstance(moment, time):
        return moment.hour * 3600 + moment.minute * 60 + moment.second + moment.microsecond / 1e6
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    since = at_clock(moment, zone) - START
    seconds = since.days * DAY + since.seconds + since.microseconds / 1e6
    return seconds / DAY if unit == "day" else seconds


def count_words(words: Sequence[str], written: str, unit: Unit) -> list[float | None]:
    """Return the dates of words, None for those that are none."""
    clock = is_clock(written)
    found = (_read(word, written) for word in words)
    return [None if at is None else counted(at.time() if clock else at, unit) for at in found]


def read_dates(
    values: Sequence[Any] | np.ndarray, column: ColumnSchema, faults: Faults, place: Callable[[int], str]
) -> np.ndarray:
    """Return dates in the unit of a column, NaN where one is missing.

    Args:
        values: words as the column is written or as ISO writes them, or dates and times of Python, numpy and pandas.
        column: of dates.
        faults: where values that are no dates are noted, which then count as missing.
        place: tells where a row stands.
    """
    unit: Unit = column.unit or "second"
    if isinstance(values, np.ndarray) and values.dtype.kind == "M":
        return from_datetimes(values, unit)
    plain = list(values)
    known: dict[Any, float | None] = {}
    read = np.empty(len(plain))
    for row, value in enumerate(plain):
        if value not in known:
            known[value] = _moment(value, column.written, unit, column.zone)
        found = known[value]
        read[row] = np.nan if found is None else found
    wrong = [row for row, value in enumerate(plain) if known[value] is None]
    example = "" if column.written is None else f" as {column.written} writes it"
    note_cells(faults, column.name, plain, wrong, f"is no date{example}", place)
    return read


def from_datetimes(values: np.ndarray, unit: Unit) -> np.ndarray:
    """Return an array of `datetime64` in days or seconds, with their fractions; NaN where one is missing."""
    missing = np.isnat(values)
    step = np.timedelta64(1, "s").astype("m8[us]")
    micros = (values.astype("M8[us]") - np.datetime64("1970-01-01", "us")).astype("m8[us]") / step
    seconds = np.where(missing, np.nan, micros)
    return seconds / DAY if unit == "day" else seconds


def _moment(value: Any, written: str | None, unit: Unit, zone: str | None) -> float | None:
    """Return one date, NaN if it is missing, None if it is none."""
    if is_nothing(value) or is_missing(str(value).strip()):
        return np.nan
    if isinstance(value, np.datetime64):
        return float(from_datetimes(np.array([value]), unit)[0])
    if isinstance(value, date | time):
        return counted(value, unit, zone)
    word = str(value).strip()
    at = None if written is None else _read(word, written)
    if at is None:
        at = _iso(word, clock=is_clock(written))
    if at is None:
        return None
    return counted(at.time() if isinstance(at, datetime) and is_clock(written) else at, unit, zone)


def _iso(word: str, *, clock: bool) -> date | time | None:
    try:
        return time.fromisoformat(word) if clock else datetime.fromisoformat(word)
    except ValueError:
        return None


def write_dates(values: np.ndarray, column: ColumnSchema, *, written: bool = True) -> Any:
    """Return days or seconds as dates; see `encoding.decode`."""
    missing = np.isnan(values)
    clock = is_clock(column.written)
    scale = DAY if column.unit == "day" else 1
    filled = np.where(missing, 0.0, values)
    fraction = column.written is None or "%f" in column.written
    seconds = (filled if fraction and column.unit != "day" else np.rint(filled)) * scale
    if not written and not clock:
        micros = np.rint(seconds.clip(EARLIEST, LATEST) * 1e6).astype(np.int64)
        kept = np.where(missing, np.datetime64("NaT"), np.datetime64("1970-01-01", "us") + micros.astype("m8[us]"))
        return kept.astype("M8[D]" if column.unit == "day" else "M8[us]" if fraction else "M8[s]")
    form = column.written or (ISO_DAY if column.unit == "day" else f"{ISO_DAY}T{ISO_TIME}")
    return [
        None if gone else _written(second, form, clock=clock, written=written)
        for second, gone in zip(seconds.tolist(), missing.tolist(), strict=True)
    ]


def _written(seconds: float, form: str, *, clock: bool, written: bool) -> str | time:
    """Return a moment as it is written; those that no calendar has are put at its ends."""
    if clock:
        seconds = min(max(seconds, 0.0), DAY - 1e-6)
    moment = START + timedelta(seconds=min(max(seconds, EARLIEST), LATEST))
    if clock and not written:
        return moment.time()
    # Not all systems write years before 1000 with four digits, and then nothing reads them.
    form = form.replace("%Y", f"{moment.year:04d}")
    return moment.replace(tzinfo=UTC).strftime(form) if "%z" in form else moment.strftime(form)
