"""What all settings share: plain data, validated, frozen."""

import re
import warnings
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from likelify.errors import LONGEST_WORD, ConfigError, printable, unknown_word

# Settings as plain data: names and values.
Values = dict[str, Any]
# Of settings that do not fit, how many an error names.
NAMED = 5


class _SettingsClass(type(BaseModel)):
    """Lets a field be called `schema`, which `BaseModel` has as the old name of a method."""

    def __new__(cls, *args: Any, **settings: Any) -> type:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", 'Field name "schema"', UserWarning)
            return super().__new__(cls, *args, **settings)


class Settings(BaseModel, metaclass=_SettingsClass):
    """Frozen, validated settings: an unknown name or a value out of range is an error of one paragraph."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            problems = _problems(error, list(type(self).model_fields), self.meant())
            raise ConfigError(f"These {self.meant()} do not fit. {problems}") from error

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Return validated settings from plain data, such as parsed JSON or command-line values.

        Raises:
            ConfigError: naming each setting that does not fit; an unknown word is answered with the nearest known ones.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f'These {cls.meant()} do not fit. They must have names, as in {{"name": value}}.')
        return cls(**values)

    @classmethod
    def meant(cls) -> str:
        """Return what a user calls these settings, for errors."""
        return "settings"


def _problems(error: ValidationError, names: list[str], meant: str) -> str:
    """Return a sentence for each of the first settings that do not fit."""
    found = error.errors(include_url=False)
    first = " ".join(_sentence(dict(problem), names, meant) for problem in found[:NAMED])
    return first + (f" And {len(found) - NAMED} more." if len(found) > NAMED else "")


def _sentence(problem: dict[str, Any], names: list[str], meant: str) -> str:
    """Return the sentence that says what is wrong with one setting, for an error that pydantic has found."""
    place = printable(".".join(map(str, problem["loc"]))[:LONGEST_WORD])
    if problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1:
        return unknown_word("setting", place, names)
    words = re.findall(r"'([^']*)'", problem.get("ctx", {}).get("expected", ""))
    if problem["type"] == "literal_error" and words and isinstance(problem["input"], str):
        return unknown_word(place, problem["input"], words)
    if problem["type"] == "model_type":
        # pydantic names the class here.
        return f"{place or meant}: Input should be names with values."
    message = problem["msg"].removeprefix("Value error, ").removesuffix(".")
    # What is wrong with several settings at once has no place.
    return f"{place}: {message}." if place else f"{message[:1].upper()}{message[1:]}."
