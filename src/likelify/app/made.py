"""A note in a run of what was made of it after its fit, and of which weights.

A page or a picture does not show what it was made of. Whoever made it while the fit went on, it is made again after it.
"""

from __future__ import annotations

from pydantic import Field

from likelify.errors import ConfigError, RunError
from likelify.fitting.files import as_json, read_json, write_atomically
from likelify.fitting.run import Run
from likelify.settings import Settings

FILE = "made.json"


class Made(Settings):
    """For the name of each thing that was made of a run whose fit had ended, the digest of the weights then."""

    weights: dict[str, str | None] = Field(default_factory=dict)


def is_noted(run: Run, name: str, **known: str | None) -> bool:
    """Tell whether something was made after the fit: of the weights with the digest `of`, if that is given."""
    found = _read(run).weights
    return name in found and ("of" not in known or found[name] == known["of"])


def note(run: Run, name: str) -> None:
    """Note that something was made of the weights that a run has, now that its fit has ended.

    Raises:
        RunError: if that cannot be written.
    """
    made = Made(weights={**_read(run).weights, name: run.digest()})
    write_atomically(run.path / FILE, as_json(made))


def _read(run: Run) -> Made:
    try:
        return Made.parse(read_json(run.path / FILE))
    except (OSError, ConfigError, RunError):
        # All can be made again.
        return Made()
