"""What the columns of a table are, found from their values: kinds, states, steps, ranges."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from likelify.data.atoms import find_atoms, some
from likelify.data.bounds import find_bounds
from likelify.data.faults import Fault, Faults
from likelify.data.told import Told
from likelify.schema import ColumnSchema, LinearFunction

# Whole numbers of so few values have a probability for each, if as many rows on average have it.
FEW_INTEGERS, ROWS_EACH = 30, 4
# So have whole numbers of which most in between are never met: of so many values, each met so often on average.
FEW_SPARSE, ROWS_EACH_SPARSE = 256, 100
# Real numbers of so few values are codes, if so many rows on average have each.
FEW_REALS, ROWS_EACH_CODE = 10, 20
# Whole numbers above this are not all of them in float64.
LARGEST_WHOLE = 2.0**53
# More decimals than this are not written by anybody; nor more digits than float64 has.
MOST_DECIMALS, MOST_DIGITS = 10, 15
LOOKED_AT = 1000
# In as many rows a common factor is none of chance.
ENOUGH = 20


def find_schema(
    rows: np.ndarray,
    names: Sequence[str],
    told: Mapping[str, Told] | None = None,
    *,
    given: Collection[str] = (),
    others: Sequence[np.ndarray] = (),
    what: str = "The table",
) -> tuple[ColumnSchema, ...]:
    """Return what the columns of a table are.

    Kinds and states are those of all rows; values with a probability of their own among real numbers, and ends of
    ranges that nobody declared, those of `rows` alone, which can be the training split of a table.

    Args:
        rows: `(n, columns)` in float64, NaN where a value is missing.
        names: of the columns.
        told: what is known of some of them.
        given: names of those that are conditions.
        others: further rows.
        what: the data's name, for errors.

    Raises:
        DataError: if columns have no values, or others than were told; the message names all of them.

    Example:
        >>> rows = np.random.default_rng(0).integers(0, 3, size=(100, 1)).astype(float)
        >>> find_schema(rows, ["rooms"])[0].states
        (0.0, 1.0, 2.0)
    """
    known, found, faults = told or {}, [], Faults(what)
    for place, name in enumerate(names):
        train = np.ascontiguousarray(rows[:, place])
        rest = [part[:, place] for part in others if len(part)]
        whole = np.concatenate([train, *rest]) if rest else train
        column = known.get(name, Told())
        if fault := fault_of(whole, column):
            faults.add(name, fault)
        else:
            found.append(ColumnSchema(name=name, given=name in given, **_column(train, whole, column)))
    faults.refuse()
    return tuple(found)


def _column(train: np.ndarray, whole: np.ndarray, told: Told) -> dict[str, Any]:
    """Return the facts of a column but for its name."""
    present = whole[~np.isnan(whole)]
    facts: dict[str, Any] = {"missing": len(present) < len(whole), "said": told.said, "unit": told.unit}
    facts |= {"written": told.written, "zone": told.zone} if told.kind == "date" else {}
    facts |= {"decimals": told.decimals, "comma": told.comma} if told.kind in (None, "real", "integer") else {}
    low, high, is_whole = float(present.min()), float(present.max()), _are_whole(present)
    kind = told.kind or ("integer" if is_whole else "real")
    facts |= {"kind": kind, "function": told.function}
    if low == high and not facts["missing"]:
        facts |= {"function": LinearFunction(offset=low), "said": "one value only"}
        words = told.words if kind in ("category", "ordered") else None
        return facts | {"rest": "none", "categories": words, "states": () if words is None else (low,)}
    if kind in ("category", "ordered"):
        states = tuple(map(float, range(len(told.words or ()))))
        return facts | {"categories": told.words, "states": states, "rest": "none"}
    if kind == "boolean":
        return facts | {"states": (0.0, 1.0), "rest": "none", "truth": told.words}
    facts |= {"lower": told.lower, "upper": told.upper, "declared": told.declares_range, "seen": (low, high)}
    if kind == "real" and told.by == "user":
        step = decimal_step(present)
        return facts | {"step": None if step == 1 else step}
    return facts | _numbers(train[~np.isnan(train)], present, facts, is_whole=is_whole)


def _numbers(train: np.ndarray, present: np.ndarray, facts: dict[str, Any], *, is_whole: bool) -> dict[str, Any]:
    """Return states, steps and range of whole numbers, real ones, and dates."""
    kind, said = facts["kind"], facts["said"]
    steps = kind == "integer" or (kind == "date" and is_whole)
    few = _few_integers(present) if kind == "integer" else None
    few = _few(present, FEW_REALS, ROWS_EACH_CODE) if kind == "real" else few
    if few is not None:
        step = 1.0 if kind == "integer" else None
        return {"states": few, "rest": "none", "step": step, "seen": None, "said": said or f"{len(few)} values only"}
    atoms = find_atoms(train)
    found: dict[str, Any] = {"states": atoms, "rest": "steps" if steps else "density"}
    found["step"] = _whole_step(train) if steps else decimal_step(present) if kind == "real" else None
    if not facts["declared"]:
        free = train[~np.isin(train, atoms)] if atoms else train
        found["lower"], found["upper"] = find_bounds(free, whole=steps, zero=kind != "date")
        _at_zero(found, present)
        _widen(found, present)
    words = {"integer": "whole numbers", "real": "numbers", "date": "dates"}[kind]
    return found | {"said": said or words}


def _whole_step(train: np.ndarray) -> float:
    """Return the largest step of which all whole numbers are multiples: 1000, or 900 for times every quarter."""
    factor = int(np.gcd.reduce(train.astype(np.int64))) if len(train) >= ENOUGH else 1
    return float(max(1, factor))


def _at_zero(found: dict[str, Any], present: np.ndarray) -> None:
    """Take zero for an end where it has a probability of its own and all values lie on one side of it."""
    if 0.0 in found["states"]:
        found["lower"] = 0.0 if present.min() >= 0 else found["lower"]
        found["upper"] = 0.0 if present.max() <= 0 else found["upper"]


def _widen(found: dict[str, Any], present: np.ndarray) -> None:
    """Forget an end on whose wrong side values lie, such as held-out ones or those with a probability of their own."""
    if found["lower"] is not None and present.min() < found["lower"]:
        found["lower"] = None
    if found["upper"] is not None and present.max() > found["upper"]:
        found["upper"] = None


def _few_integers(present: np.ndarray) -> tuple[float, ...] | None:
    """Return the values of whole numbers if they are few, or not many and with wide gaps, as amounts are."""
    if few := _few(present, FEW_INTEGERS, ROWS_EACH):
        return few
    sparse = _few(present, FEW_SPARSE, ROWS_EACH_SPARSE)
    return sparse if sparse and len(sparse) < (present.max() - present.min() + 1) / 2 else None


def _few(present: np.ndarray, most: int, rows_each: int) -> tuple[float, ...] | None:
    """Return the values if there are few."""
    if len(np.unique(some(present))) > most:
        return None
    values = np.unique(present)
    few = len(values) <= most and (len(values) * rows_each <= len(present) or len(values) == 2)
    return tuple(map(float, values)) if few else None


def fault_of(values: np.ndarray, told: Told) -> Fault | None:
    """Say what is wrong with the values of a column beside what was told of it; None if nothing is.

    Args:
        values: `(n,)`, NaN where one is missing.
        told: what is known of the column.
    """
    present = values[~np.isnan(values)]
    if not len(present):
        return Fault("it has no values", remedy="drop")
    if told.kind == "integer" and not _are_whole(present):
        wrong = present[(present != np.floor(present)) | (np.abs(present) >= LARGEST_WHOLE)]
        return Fault(
            f"the value {wrong[0]:.10g} is no whole number, as you said; say real", "", len(wrong), "columns", "real"
        )
    if told.kind == "boolean" and not np.isin(present, (0.0, 1.0)).all():
        wrong = present[~np.isin(present, (0.0, 1.0))]
        return Fault(f"the value {wrong[0]:.10g} is neither 0 nor 1, false nor true", "", len(wrong), "columns", "real")
    lower = -np.inf if told.lower is None else told.lower
    upper = np.inf if told.upper is None else told.upper
    outside = present[(present < lower) | (present > upper)]
    if not len(outside):
        return None
    said = (
        f"the value {outside[0]:.10g} lies outside of {lower:.10g} to {upper:.10g}, the range that you declared. Mend "
        "it, or declare a wider range"
    )
    return Fault(said, "", len(outside), "columns", told.kind or "real")


def _are_whole(values: np.ndarray) -> bool:
    largest = max(abs(float(values.min())), abs(float(values.max())))
    return largest < LARGEST_WHOLE and bool((values == np.floor(values)).all())


def decimal_step(values: np.ndarray) -> float | None:
    """Return the largest step of which all numbers are multiples as they are written: 0.01, or 0.25 for quarters.

    Returns:
        None if they have more digits than anybody writes.
    """
    largest = max(abs(float(values.min())), abs(float(values.max())))
    sample = values[:: max(1, len(values) // LOOKED_AT)]
    for decimals in range(MOST_DECIMALS + 1):
        if largest * 10.0**decimals >= 10.0**MOST_DIGITS:
            return None
        if _has_decimals(sample, decimals) and _has_decimals(values, decimals):
            counts = np.rint(values * 10.0**decimals).astype(np.int64)
            factor = int(np.gcd.reduce(counts)) if decimals and len(counts) >= ENOUGH else 1
            return float(f"{max(1, factor)}e-{decimals}")
    return None


def _has_decimals(values: np.ndarray, decimals: int) -> bool:
    allowance = 4 * np.finfo(np.float64).eps * np.abs(values)
    return bool((np.abs(np.round(values, decimals) - values) <= allowance).all())
