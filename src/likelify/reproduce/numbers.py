"""How figures are written in tables and sentences."""

import math
from collections.abc import Sequence

from likelify.fitting.figures import Figure
from likelify.reproduce.statistics import Paired

DIGITS = 3
EMPTY = "-"


def mean_text(values: Sequence[float], digits: int = DIGITS, *, error: bool = True) -> str:
    """Return a mean with its standard error, or a dash if there is none."""
    if not values or not all(map(math.isfinite, values)):
        return EMPTY
    figure = Figure.of(values)
    text = f"{figure.mean:,.{digits}f}"
    return text if not error or figure.standard_error is None else f"{text} +- {figure.standard_error:.{digits}f}"


def difference_text(paired: Paired) -> str:
    """Return a mean difference with its interval, or a dash if there are no pairs.

    Example:
        >>> difference_text(Paired(-0.1, -0.2, 0.0, 3)), difference_text(Paired(0.5, math.nan, math.nan, 1))
        ('-0.100 [-0.200, +0.000]', '+0.500 (one pair)')
    """
    if paired.count == 0 or not math.isfinite(paired.difference):
        return EMPTY
    text = f"{paired.difference:+.{DIGITS}f}"
    if paired.count == 1:
        return f"{text} (one pair)"
    return f"{text} [{paired.low:+.{DIGITS}f}, {paired.high:+.{DIGITS}f}]"


def seconds_text(seconds: float) -> str:
    """Return a time, with a decimal where it is short."""
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def listed(words: Sequence[str]) -> str:
    """Return words as part of a sentence.

    Example:
        >>> listed(["a", "b", "c"]), listed(["a"])
        ('a, b and c', 'a')
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
