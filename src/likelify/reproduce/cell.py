"""A cell: one method fitted to one data set with one seed, as plain data that settles into complete settings."""

import re
from typing import Literal

from pydantic import Field

from likelify.data import Facts
from likelify.errors import ConfigError
from likelify.fitting.choose import complete_model
from likelify.fitting.settings import BEFORE, Draws, FitSettings
from likelify.fitting.sources import DataChoice
from likelify.seeding import seeded
from likelify.settings import Settings, Values
from likelify.zoo import ModelConfig, config_from_dict

PictureKind = Literal["samples", "inverses", "tiles"]


class Measuring(Draws):
    """How a fitted model is measured on the test split: with these draws, as far as the time allows.

    Attributes:
        items: of the test split that are measured, the first; None for all.
        truth: compare with the true density of the data, item by item; see `data.true_log_prob`.
        seconds: that the whole measurement may take on the clock of the fit; importance weighting takes fewer items
            if need be. None is without limit.
    """

    elbo_samples: int = Field(default=1, ge=1)
    iw_samples: int = Field(default=128, ge=0)
    iw_items: int = Field(default=500, ge=1)  # pyright: ignore[reportIncompatibleVariableOverride] - never all
    items: int | None = Field(default=None, ge=1)
    truth: bool = False
    seconds: float | None = Field(default=110.0, gt=0)


class Cell(Settings):
    """One method on one data set with one seed.

    Attributes:
        experiment: name of the experiment it belongs to.
        method: title of the method.
        data: what is fitted.
        seed: of weights, batches and noise; cells of equal seed read the data in the same order.
        model: settings of the model with its name under `"model"`; what the data decide is filled in.
        fit: settings of the fit.
        epochs: passes through the training split, instead of `steps` in `fit`.
        measuring: how the result is measured.
        usual_seconds: that the fit takes where its steps end it, as measured once, for plans.
        picture: what to draw from the fitted model, or None: samples or inverses beside real images, or as `tiles` as
            many samples as real images after them, pixel for pixel, so that pictures of several cells can be made one.
        device: `"cpu"`, or `"auto"` for the accelerator there is.
    """

    experiment: str
    method: str
    data: DataChoice
    seed: int = Field(ge=0)
    model: Values
    fit: Values = Field(default_factory=dict)
    epochs: int | None = Field(default=None, ge=1)
    measuring: Measuring = Measuring()
    usual_seconds: float | None = Field(default=None, gt=0)
    picture: PictureKind | None = None
    device: Literal["cpu", "auto"] = "cpu"

    @property
    def name(self) -> str:
        """The name of the cell among those of its experiment, fit for a file."""
        return f"{slug(self.method)}.{slug(self.data.source)}.{self.seed}"

    @property
    def is_limited(self) -> bool:
        """Whether its fit has a limit on time."""
        return self.fit.get("max_time") is not None

    @property
    def most_seconds(self) -> float | None:
        """The most seconds that fit and measurement can take, or usually take; None if nothing is known of that."""
        limit = self.fit.get("max_time", self.usual_seconds)
        return None if limit is None or self.measuring.seconds is None else limit + self.measuring.seconds

    def settle(self, facts: Facts) -> dict[str, Values]:
        """Return the complete settings of the cell as plain data, by which results are compared.

        Args:
            facts: of the data.

        Raises:
            ConfigError: if the model is unknown or a setting does not fit.
        """
        fit = FitSettings.parse(self.fit | {"seed": self.seed})
        if self.epochs is not None:
            steps = self.epochs * max(1, facts.sizes["train"] // fit.batch_size)
            fit = fit.model_copy(update={"steps": steps})
        return {
            "model": complete_model(self.model, facts).model_dump(mode="json"),
            "fit": fit.model_dump(mode="json"),
            "data": self.data.model_dump(mode="json", exclude={"folder"}),
            "measuring": self.measuring.model_dump(mode="json"),
            "output": {"picture": self.picture, "device": self.device},
        }

    @staticmethod
    def refreshed(settings: dict[str, Values]) -> dict[str, Values]:
        """Return the settings of an earlier version, with what it did where settings have come since.

        Raises:
            ConfigError: if a setting no longer exists or no longer fits.
        """
        model = config_from_dict(settings.get("model", {}))
        return settings | {
            "model": model.model_dump(mode="json"),
            "fit": _fit_then(settings.get("fit", {}), model).model_dump(mode="json"),
            "data": DataChoice.parse(settings.get("data", {})).model_dump(mode="json", exclude={"folder"}),
            "measuring": Measuring.parse(settings.get("measuring", {})).model_dump(mode="json"),
        }


def _fit_then(values: Values, model: ModelConfig) -> FitSettings:
    """Return the settings of a fit of an earlier version; what has come since and did not matter to it is as now."""
    missing = {name: value for name, value in BEFORE.items() if name not in values}
    if "exp_tol" in missing and not _has_exponentials(model):
        del missing["exp_tol"]
    return FitSettings.parse(missing | values)


def _has_exponentials(model: ModelConfig) -> bool:
    from likelify.fitting.truncation import loosens

    with seeded(0):
        return loosens(model.build())


def slug(text: str) -> str:
    """Return a title as a part of a file name.

    Raises:
        ConfigError: if it has neither letters nor digits.

    Example:
        >>> slug("FCONV1 + NSF")
        'fconv1-nsf'
    """
    words = re.findall(r"[a-z0-9]+", text.lower())
    if not words:
        raise ConfigError(f"'{text}' has no letters or digits to name a file with.")
    return "-".join(words)


def changes(old: dict[str, Values], new: dict[str, Values]) -> list[str]:
    """Return the names of the settings that differ, with both values."""
    found = []
    for part in sorted(old.keys() | new.keys()):
        before, after = old.get(part, {}), new.get(part, {})
        for name in sorted(before.keys() | after.keys()):
            one, other = before.get(name, "nothing"), after.get(name, "nothing")
            if one != other:
                found.append(f"{part}.{name} {one} -> {other}")
    return found
