"""What all settings share: plain data, validated, frozen."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from likelify.errors import ConfigError


class Settings(BaseModel):
    """Frozen, validated settings: an unknown name or a value out of range is an error of one paragraph."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Validate plain data, such as parsed JSON or command-line values.

        Raises:
            ConfigError: naming each setting that does not fit, and the known ones if a name is unknown.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = [
                f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg'].removeprefix('Value error, ')}"
                for e in error.errors()
            ]
            unknown = any(e["type"] == "extra_forbidden" for e in error.errors())
            known = f" Known settings: {', '.join(cls.model_fields)}." if unknown else ""
            raise ConfigError(f"{cls.__name__} refuses these settings: {'; '.join(problems)}.{known}") from error
