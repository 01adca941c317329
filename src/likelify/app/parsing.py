"""From the text of words to plain data."""

import json
import re
from typing import Any

from likelify.errors import ConfigError


def given(words: dict[str, Any]) -> dict[str, Any]:
    """Return the words that were said."""
    return {name: value for name, value in words.items() if value is not None}


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
        ConfigError: for a pair without '='.
    """
    values: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set takes name=value, got '{pair}'.")
        try:
            values[name.strip().replace("-", "_")] = json.loads(value)
        except json.JSONDecodeError:
            # As Python and the documentation write it.
            values[name.strip().replace("-", "_")] = None if value in ("None", "none") else value
    return values
