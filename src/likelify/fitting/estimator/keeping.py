"""What a run keeps of an estimator beside its model: parameters, the form of its tables, the threshold of outliers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field, field_validator

from likelify.errors import ConfigError, RunError
from likelify.fitting.estimator.forms import Form, FormName
from likelify.fitting.files import read_json
from likelify.fitting.run import Run
from likelify.settings import Settings

FILE = "estimator.json"


# Names of columns, or their places.
Columns = list[str | int]


class Params(Settings):
    """What the constructor of an estimator takes, see `FlowDensity`."""

    model_config = ConfigDict(allow_inf_nan=False)

    model: str | None = None
    time_budget: float | None = Field(default=None, gt=0)
    columns: dict[str, str] | Columns | None = None
    drop: Columns | str | None = None
    missing: list[str | int | float] | str | None = None
    given: Columns | str | None = None
    dependent: str = "function"
    contamination: float = Field(default=0.1, gt=0, le=0.5)
    trim: float = Field(default=0.0, ge=0, le=0.5)
    validation: float | None = None
    settings: dict[str, Any] | None = None
    random_state: int | None = Field(default=None, ge=0, lt=2**32)
    device: str | None = None
    verbose: bool = False

    @classmethod
    def meant(cls) -> str:
        """Return what these settings are, for errors."""
        return "parameters of an estimator"


class Kept(Settings):
    """What makes an estimator of a run.

    Attributes:
        params: of its constructor.
        form: of the table that was fitted.
        dtype: of an array that was fitted.
        types: of data frames the names of the types of columns, where names say them.
        columns: names of all columns of it, those that are no part of the model too.
        labels: what they are called in a data frame of pandas, if that is no text.
        texts: names of those that are text there, or numbers that are written like it.
        named: whether these are the user's names.
        offset: the threshold of outliers, if there is one.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    params: Params
    form: FormName
    dtype: str | None = Field(default=None, pattern="^[biuf][0-9]{1,2}$")
    types: dict[str, Annotated[str, Field(pattern=r"^\w[\w\[\], /:+-]*$", max_length=100)]] = {}
    columns: tuple[str, ...] = Field(max_length=2**16)
    labels: tuple[int | str, ...] | None = Field(default=None, max_length=2**16)
    texts: tuple[str, ...] = Field(default=(), max_length=2**16)
    named: bool
    offset: float | None

    def as_form(self) -> Form:
        """Return the form of the table that was fitted."""
        dtype = np.dtype(self.dtype or np.float64)
        return Form(self.form, self.columns, dtype, dict(self.types), self.labels, self.texts)

    @field_validator("dtype")
    @classmethod
    def _of_numpy(cls, name: str | None) -> str | None:
        try:
            np.dtype(name or float)
        except TypeError as error:
            raise ValueError(f"there is no type '{name}'") from error
        return name

    @classmethod
    def meant(cls) -> str:
        """Return what these settings are, for errors."""
        return "facts of an estimator"

    def require_columns(self, columns: Sequence[str], path: Path) -> None:
        """Refuse facts that are not of a model of these columns.

        Raises:
            RunError: naming a column that they lack.
        """
        lacking = [name for name in columns if name not in self.columns]
        if lacking:
            raise RunError(f"'{path / FILE}' is damaged: it lacks the column '{lacking[0]}' of the model.")


def plain(value: Any) -> Any:
    """Return a value as JSON has it: arrays and other sequences as lists, numbers of numpy as those of Python.

    Raises:
        ConfigError: if it is none that can be kept.
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    elif hasattr(value, "to_list"):
        value = value.to_list()
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
        return [plain(each) for each in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise ConfigError(
        f"A parameter of the estimator cannot be kept in a run, since it is no plain value: {value!r:.80}"
    )


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
