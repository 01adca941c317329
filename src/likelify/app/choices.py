"""What a user asked for, and the settings that follow from it: recipe or preset, options, --set."""

from dataclasses import dataclass, field
from typing import Any

from likelify.app import recipes
from likelify.data import Source
from likelify.errors import ConfigError
from likelify.fitting.metrics import Unit
from likelify.fitting.settings import FitSettings
from likelify.zoo import MODELS, ModelConfig, Preset, config_class, config_from_dict, preset

# Settings of a model that the data decide.
OF_THE_DATA = ("model", "event_shape", "pixel_levels", "classes")


@dataclass(frozen=True)
class Data:
    """What a model has to know of its data.

    Attributes:
        name: of the source, for its recipes.
        event_shape: of the images or rows.
        levels: number of values of a pixel, or None for real-valued rows.
        classes: number of classes, or None.
    """

    name: str
    event_shape: tuple[int, ...]
    levels: int | None
    classes: int | None

    @property
    def is_table(self) -> bool:
        """Whether these are rows of real numbers."""
        return self.levels is None

    @property
    def unit(self) -> Unit:
        """In what figures of the data are shown."""
        return Unit.of(self.event_shape, self.levels)

    @staticmethod
    def of(source: Source) -> "Data":
        """Read it off a source."""
        return Data(source.family, source.event_shape, source.levels, source.classes)


@dataclass(frozen=True)
class Choice:
    """The words of `likelify fit`.

    Attributes:
        model: name of a model, or None for what suits the data.
        preset: name of a preset, or None.
        size: of the preset.
        model_words: settings of the model that have an option of their own.
        fit_words: settings of the fit that have an option of their own.
        free: what `--set` says; a name goes to whichever of model and fit knows it.
        conditional: learn p(image | label).
    """

    model: str | None = None
    preset: str | None = None
    size: str | None = None
    model_words: dict[str, Any] = field(default_factory=dict)
    fit_words: dict[str, Any] = field(default_factory=dict)
    free: dict[str, object] = field(default_factory=dict)
    conditional: bool = False

    def title(self, model: str) -> str:
        """Name the model, or the preset and what was changed of it."""
        if self.preset is None:
            return model
        changed = ", ".join(f"{name}={value}" for name, value in (self.model_words | self.free).items())
        return f"{self.preset} ({self.size or 'paper'} size{', with ' + changed if changed else ''})"

    def settle(self, data: Data) -> tuple[ModelConfig, FitSettings]:
        """Put everything together for some data; what is said more explicitly wins.

        Raises:
            ConfigError: if neither model nor fit knows a name, or a value does not fit.
        """
        wanted = self._preset()
        model, chosen, fitting = self._start(wanted, data)
        known = [name for name in config_class(model).model_fields if name not in OF_THE_DATA]
        self._check(model, known, data)
        values = chosen | {"model": model, "event_shape": data.event_shape}
        values |= {} if data.is_table else {"pixel_levels": data.levels}
        values |= {"classes": data.classes} if self.conditional else {}
        values |= self.model_words
        # Both have "steps"; the model's is about architecture, and --steps is the fit's.
        values |= {name: value for name, value in self.free.items() if name in known}
        fitting |= self.fit_words
        fitting |= {name: value for name, value in self.free.items() if name not in known}
        return config_from_dict(values), FitSettings.parse(fitting)

    def _preset(self) -> Preset | None:
        if self.preset is None:
            if self.size is not None:
                raise ConfigError("--size is that of a preset: give --preset too, see 'likelify models'.")
            return None
        wanted = preset(self.preset)
        if self.model not in (None, wanted.paper["model"]):
            raise ConfigError(
                f"--model {self.model}: the preset '{wanted.name}' is of the model '{wanted.paper['model']}'."
            )
        return wanted

    def _start(self, wanted: Preset | None, data: Data) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """Return the model's name, and the settings of model and fit before the user's words."""
        if wanted is not None:
            size = "small" if self.size == "small" else "paper"
            return wanted.paper["model"], wanted.model(size), wanted.fit(size)
        model = self.model or self._suitable(data)
        return model, recipes.model_settings(data.name, model), recipes.fit_settings(model, data.name)

    def _suitable(self, data: Data) -> str:
        """Name the default model of the data, or a glow if only that has what was asked for."""
        usual = recipes.default_model(data.name, table=data.is_table)
        return usual if data.is_table or set(self.model_words) <= set(MODELS[usual].model_fields) else "glow"

    def _check(self, model: str, known: list[str], data: Data) -> None:
        if is_for_tables(model) != data.is_table:
            kind, needed = ("rows of numbers", "images") if data.is_table else ("images", "rows of numbers")
            others = ", ".join(name for name in MODELS if is_for_tables(name) == data.is_table)
            raise ConfigError(
                f"The model '{model}' is for {needed}, and '{data.name}' has {kind}. Models for {kind}: {others}."
            )
        for name in self.free:
            if name not in known and name not in FitSettings.model_fields:
                raise ConfigError(
                    f"--set {name}: neither the model '{model}' nor the fit has such a setting. The model has "
                    f"{', '.join(known)}; the fit has {', '.join(FitSettings.model_fields)}."
                )
        for name in self.model_words:
            if name not in known:
                raise ConfigError(f"--{name} does not apply to the model '{model}'.")
        if self.conditional and data.classes is None:
            raise ConfigError(f"--conditional: the source '{data.name}' has no labels.")
        if self.conditional and MODELS[model].model_fields["classes"].annotation is type(None):
            raise ConfigError(f"--conditional does not apply to the model '{model}'.")


def is_for_tables(model: str) -> bool:
    """Tell whether a model is for rows of real numbers; those of images know the number of levels of a pixel."""
    return "pixel_levels" not in MODELS[model].model_fields
