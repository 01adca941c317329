"""A cell: one method fitted to one data set with one seed, as plain data that settles into complete settings."""

import re
from typing import Any, Literal

from pydantic import Field

from likelify.data import SPLITS, Source, SplitName
from likelify.errors import ConfigError
from likelify.fitting.settings import FitSettings
from likelify.settings import Settings
from likelify.zoo import MODELS, ModelConfig, config_from_dict

Values = dict[str, Any]
Picture = Literal["samples", "inverses"]


class DataChoice(Settings):
    """The data of a cell.

    Attributes:
        source: name of the source.
        limits: for each split how many of its first items to use; the others are used whole.
        folder: where the user's files are; not part of what was measured, the fingerprint is.
    """

    source: str
    limits: dict[SplitName, int] = Field(default_factory=dict)
    folder: str | None = None


class Measuring(Settings):
    """How a fitted model is measured on the test split.

    Attributes:
        elbo_samples: draws per item for the ELBO, on all items.
        iw_samples: draws per item for importance weighting; 0 leaves it out.
        iw_items: the first items of the split, on which importance weighting is done.
        seconds: that the whole measurement may take on the clock of the fit; importance weighting takes fewer items
            if need be. None is without limit.
    """

    elbo_samples: int = Field(default=1, ge=1)
    iw_samples: int = Field(default=128, ge=0)
    iw_items: int = Field(default=500, ge=1)
    seconds: float | None = Field(default=110.0, gt=0)


class Facts(Settings):
    """What a cell has to know of its data, and what a reader wants to know.

    Attributes:
        name: of the source.
        description: of the source.
        fingerprint: of the data and their splits.
        event_shape: of one item.
        levels: number of values of a pixel; None for real numbers.
        sizes: of the splits.
    """

    name: str
    description: str
    fingerprint: str
    event_shape: tuple[int, ...]
    levels: int | None
    sizes: dict[SplitName, int]

    @staticmethod
    def of(source: Source, name: str) -> "Facts":
        """Read them off a source; its own name may hold a folder of the user, which is nobody's business."""
        return Facts(
            name=name,
            description=source.description,
            fingerprint=source.fingerprint(),
            event_shape=source.event_shape,
            levels=source.levels,
            sizes={split: source.size(split) for split in SPLITS},
        )


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
        picture: what to draw from the fitted model, or None.
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
    picture: Picture | None = None
    device: Literal["cpu", "auto"] = "cpu"

    @property
    def name(self) -> str:
        """Name the cell; its files are called so."""
        return f"{slug(self.method)}.{slug(self.data.source)}.{self.seed}"

    def model_config_for(self, facts: Facts) -> ModelConfig:
        """Complete the settings of the model.

        Raises:
            ConfigError: if the model is unknown or a setting does not fit.
        """
        name = self.model.get("model")
        known = MODELS[name].model_fields if name in MODELS else {}
        decided = {"event_shape": facts.event_shape, "pixel_levels": facts.levels}
        decided = {setting: value for setting, value in decided.items() if setting in known and value is not None}
        return config_from_dict(decided | self.model)

    def fit_settings_for(self, facts: Facts) -> FitSettings:
        """Complete the settings of the fit.

        Raises:
            ConfigError: if a setting does not fit.
        """
        settings = FitSettings.parse(self.fit | {"seed": self.seed})
        if self.epochs is None:
            return settings
        steps = self.epochs * max(1, facts.sizes["train"] // settings.batch_size)
        return settings.model_copy(update={"steps": steps})

    def settle(self, facts: Facts) -> dict[str, Values]:
        """Return all settings that decide what is measured, as JSON would hold them."""
        return {
            "model": self.model_config_for(facts).model_dump(mode="json"),
            "fit": self.fit_settings_for(facts).model_dump(mode="json"),
            "data": self.data.model_dump(mode="json", exclude={"folder"}),
            "measuring": self.measuring.model_dump(mode="json"),
            "output": {"picture": self.picture, "device": self.device},
        }


def refreshed(settings: dict[str, Values]) -> dict[str, Values]:
    """Complete settings that an earlier version wrote by the defaults of those that have come since.

    Raises:
        ConfigError: if a setting no longer exists or no longer fits.
    """
    return settings | {
        "model": config_from_dict(settings.get("model", {})).model_dump(mode="json"),
        "fit": FitSettings.parse(settings.get("fit", {})).model_dump(mode="json"),
        "data": DataChoice.parse(settings.get("data", {})).model_dump(mode="json", exclude={"folder"}),
        "measuring": Measuring.parse(settings.get("measuring", {})).model_dump(mode="json"),
    }


def slug(text: str) -> str:
    """Turn a title into a part of a file name.

    Example:
        >>> slug("FCONV1 + NSF")
        'fconv1-nsf'
    """
    words = re.findall(r"[a-z0-9]+", text.lower())
    if not words:
        raise ConfigError(f"'{text}' has no letters or digits to name a file with.")
    return "-".join(words)


def changes(old: dict[str, Values], new: dict[str, Values]) -> list[str]:
    """Name the settings that differ, with both values."""
    found = []
    for part in sorted(old.keys() | new.keys()):
        before, after = old.get(part, {}), new.get(part, {})
        for name in sorted(before.keys() | after.keys()):
            one, other = before.get(name, "nothing"), after.get(name, "nothing")
            if one != other:
                found.append(f"{part}.{name} {one} -> {other}")
    return found
