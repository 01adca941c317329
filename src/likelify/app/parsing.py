"""From the text of words to plain data."""

import json
import re
from collections.abc import Sequence
from typing import Any

from cyclopts import Parameter

from likelify.errors import ConfigError


def given(words: dict[str, Any]) -> dict[str, Any]:
    """Return the words that were said."""
    return {name: value for name, value in words.items() if value is not None}


def whole(_type: Any, tokens: Sequence[Any]) -> int:
    """Return the whole number that an option was given; one with a fraction is none."""
    (token,) = tokens
    try:
        return int(token.value)
    except ValueError:
        raise ValueError(f"it takes a whole number, and got '{token.value}'") from None


WHOLE = Parameter(converter=whole)


def parse_duration(text: str, option: str = "--max-time") -> float:
    """Turn '90', '90s', '10m' or '1h30m' into seconds; the option is named if it is something else.

    Raises:
        ConfigError: if it is something else.
    """
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    if match is None or not any(match.groups()):
        raise ConfigError(f"{option} '{text}' is not a time. Write it like 90s, 10m or 1h30m.")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds


def parse_settings(pairs: list[str]) -> dict[str, object]:
    """Turn 'name=value' pairs into plain data: JSON where values can be read as JSON, words otherwise; `none` is null.

    Raises:
        ConfigError: for a pair without '=', and a name that is there twice.
    """
    values: dict[str, object] = {}
    for pair in pairs:
        said, equals, value = pair.partition("=")
        name = said.strip().replace("-", "_")
        if not equals or not name:
            raise ConfigError(f"--set takes name=value, got '{pair}'.")
        if name in values:
            raise ConfigError(f"--set {name} is given twice; leave one out.")
        try:
            values[name] = json.loads(value)
        except json.JSONDecodeError:
            # As Python and the documentation write it.
            values[name] = None if value in ("None", "none") else value
    return values
