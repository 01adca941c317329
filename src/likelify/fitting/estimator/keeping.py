"""What a run keeps of an estimator beside its model: parameters, the form of its tables, the threshold of outliers."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from likelify.errors import ConfigError, RunError
from likelify.fitting.estimator.forms import FormName
from likelify.fitting.files import as_json, read_json, write_atomically
from likelify.fitting.run import Run
from likelify.settings import Settings

FILE = "estimator.json"


class Kept(Settings):
    """What makes an estimator of a run.

    Attributes:
        params: of its constructor.
        form: of the table that was fitted.
        dtype: of an array that was fitted.
        columns: names of all columns of it, those that are no part of the model too.
        named: whether these are the user's names.
        offset: the threshold of outliers, if there is one.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    params: dict[str, Any]
    form: FormName
    dtype: str | None = Field(default=None, pattern="^[biuf][0-9]{1,2}$")
    columns: tuple[str, ...] = Field(max_length=2**16)
    named: bool
    offset: float | None

    @classmethod
    def meant(cls) -> str:
        """Return what these settings are, for errors."""
        return "facts of an estimator"


def keep_estimator(run: Run, kept: Kept) -> None:
    """Write what makes an estimator of a run.

    Raises:
        RunError: if it cannot be written.
    """
    write_atomically(run.path / FILE, as_json(kept))


def kept_estimator(run: Run) -> Kept | None:
    """Return what `keep_estimator` wrote, or None if it did not.

    Raises:
        RunError: if it is damaged.
    """
    try:
        return Kept.parse(read_json(run.path / FILE))
    except FileNotFoundError:
        return None
    except ConfigError as error:
        raise RunError(f"'{run.path / FILE}' is damaged: {error}") from error
