"""What all settings share: plain data, validated, frozen."""

import re
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from likelify.errors import ConfigError, unknown_word

# Settings as plain data: names and values.
Values = dict[str, Any]


class Settings(BaseModel):
    """Frozen, validated settings: an unknown name or a value out of range is an error of one paragraph."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Return validated settings from plain data, such as parsed JSON or command-line values.

        Raises:
            ConfigError: naming each setting that does not fit; an unknown word is answered with the nearest known ones.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = " ".join(_sentence(dict(problem), list(cls.model_fields)) for problem in error.errors())
            raise ConfigError(f"These settings do not fit. {problems}") from error


def _sentence(problem: dict[str, Any], names: list[str]) -> str:
    """Return the sentence that says what is wrong with one setting, for an error that pydantic has found."""
    place = ".".join(map(str, problem["loc"])) or "settings"
    if problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1:
        return unknown_word("setting", place, names)
    words = re.findall(r"'([^']*)'", problem.get("ctx", {}).get("expected", ""))
    if problem["type"] == "literal_error" and words and isinstance(problem["input"], str):
        return unknown_word(place, problem["input"], words)
    return f"{place}: {problem['msg'].removeprefix('Value error, ').removesuffix('.')}."
