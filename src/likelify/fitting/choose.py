"""From the facts of some data and what a user says to complete settings of a model and of its fit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from likelify.data import Facts
from likelify.errors import ConfigError, unknown_word
from likelify.fitting.plain import require_plain
from likelify.fitting.recipes import KINDS, Recipe, preset_fit, recipe
from likelify.fitting.settings import Draws, FitSettings
from likelify.settings import Values
from likelify.zoo import MODELS, ModelConfig, Preset, config_class, config_from_dict, preset
from likelify.zoo.presets import PresetSize

# Settings of a model that the data decide.
OF_THE_DATA = ("model", "event_shape", "pixel_levels", "classes", "schema", "nodes")


@dataclass(frozen=True)
class Choice:
    """Everything that a fit needs beside the data.

    Attributes:
        model: complete settings of the model.
        fit: complete settings of the fit.
        title: name of the model, or of the preset and what was changed of it.
        preset: the title if the settings started from a preset, else None.
        conditional: learn p(item | label).
        threads: of the CPU that suit the data, or None for all.
        draws: of the usual evaluation.
        unread: what the data have and the model does not look at, a sentence each.
    """

    model: ModelConfig
    fit: FitSettings
    title: str
    preset: str | None
    conditional: bool
    threads: int | None
    draws: Draws
    unread: tuple[str, ...] = ()

    def configured(self) -> dict[str, Any]:
        """Return what a run keeps of it, by the names of `RunConfig`."""
        return {name: getattr(self, name) for name in ("conditional", "preset", "model", "fit")}


def choose(
    facts: Facts,
    *,
    model: str | None = None,
    preset: str | None = None,
    size: PresetSize | None = None,
    conditional: bool = False,
    model_settings: Mapping[str, Any] | None = None,
    fit_settings: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Choice:
    """Complete the settings for some data; what is said more explicitly wins.

    Args:
        facts: of the data.
        model: name of a model, by default the one that suits the data.
        preset: name of a preset, instead of a model and its recipe.
        size: of the preset, `"paper"` by default, or `"small"`.
        conditional: learn p(item | label).
        model_settings: settings of the model.
        fit_settings: settings of the fit.
        settings: of either, by name: `"clip"`, or `"fit.clip"` and `"model.width"` to say whose it is.

    Raises:
        ConfigError: if a name is not known, or could be one of the model or of the fit, a value does not fit, or model
            and data do not belong together.

    Example:
        >>> from likelify.data import open_source
        >>> chosen = choose(open_source("digits").facts(), settings={"couplings": 8, "clip": 0.5})
        >>> chosen.title, chosen.model.couplings, chosen.fit.clip
        ('marginal-spline', 8, 0.5)
    """
    words, free = dict(model_settings or {}), dict(settings or {})
    suitable = recipe(facts)
    if model is not None and model not in MODELS:
        raise ConfigError(unknown_word("model", model, [name for name in MODELS if MODELS[name].kind == facts.kind]))
    wanted = _preset(preset, size, model)
    # The model of the kind if only that has what was asked for.
    usual = suitable.model if set(words) <= set(MODELS[suitable.model].model_fields) else KINDS[facts.kind].model
    name, chosen, fitting = _start(wanted, size or "paper", model or usual, suitable)
    known = [setting for setting in MODELS[name].model_fields if setting not in OF_THE_DATA]
    _check_model(name, known, facts, words, conditional=conditional)
    others, said = _told_apart(free, name, known)
    twice = sorted((words.keys() & others.keys()) | ((fit_settings or {}).keys() & said.keys()))
    if twice:
        raise ConfigError(
            f"The setting {twice[0]} is given twice, by a word of its own and among others; leave one out."
        )
    of_model = words | others
    chosen |= of_model
    said |= fit_settings or {}
    if "max_time" in said or "steps" in said:
        # The limit on time of a recipe belongs to its own steps, and its clock to its limit.
        fitting.pop("max_time", None)
        fitting.pop("clock", None)
    fitting |= said
    title = name if wanted is None else _title(wanted.name, size, words | free)
    config = complete_model(chosen | {"model": name}, facts, conditional=conditional)
    if idle := config.idle(of_model):
        raise ConfigError(f"These settings have no effect: {' '.join(idle)} Leave them out.")
    return Choice(
        model=config,
        fit=FitSettings.parse(fitting),
        title=title,
        preset=None if wanted is None else title,
        conditional=conditional,
        threads=suitable.threads,
        draws=suitable.draws,
        unread=_unread(name, facts),
    )


def _unread(model: str, facts: Facts) -> tuple[str, ...]:
    """Return what graphs have that a model does not look at."""
    graphs, config = facts.graphs, MODELS[model]
    if graphs is None:
        return ()
    if not config.reads_edges and not graphs.complete:
        return (f"The model {model} does not look at edges: graphs that differ in these alone are as likely.",)
    if graphs.weighted and not (config.reads_edges and config.reads_weights):
        return (f"The model {model} does not look at the weights of edges.",)
    return ()


def complete_model(values: Values, facts: Facts, *, conditional: bool = False) -> ModelConfig:
    """Complete the settings of a model, its name under `"model"`, by what the data decide.

    Raises:
        ConfigError: if the model is unknown or a setting does not fit.
    """
    decided = {"event_shape": facts.event_shape, "pixel_levels": facts.levels, "schema": facts.meaning or None}
    decided |= {"classes": facts.classes} if conditional else {}
    known = config_class(str(values.get("model"))).model_fields
    if "nodes" in known and facts.graphs is not None:
        decided |= {"nodes": _one_size(str(values.get("model")), facts)}
    decided = {setting: value for setting, value in decided.items() if setting in known and value is not None}
    return config_from_dict(decided | values)


def _one_size(model: str, facts: Facts) -> int:
    """Return the number of nodes of every graph, for a model of graphs of one size."""
    fewest, most = facts.graphs.nodes if facts.graphs is not None else (0, 0)
    if fewest != most:
        others = [
            name for name, config in MODELS.items() if config.kind == "graph" and "nodes" not in config.model_fields
        ]
        raise ConfigError(
            f"The model '{model}' is for graphs of one size, and those of this source have {fewest} to {most} nodes. "
            f"Models for graphs of any sizes: {', '.join(others)}."
        )
    return most


def _preset(name: str | None, size: PresetSize | None, model: str | None) -> Preset | None:
    if name is None:
        if size is not None:
            raise ConfigError(f"Only presets have sizes: name a preset too, or leave out the size '{size}'.")
        return None
    wanted = preset(name)
    if model not in (None, wanted.model):
        raise ConfigError(f"The preset '{wanted.name}' is of the model '{wanted.model}', not of '{model}'.")
    return wanted


def _start(wanted: Preset | None, size: PresetSize, model: str, suitable: Recipe) -> tuple[str, Values, Values]:
    """Return the model's name, and the settings of model and fit before the user's words."""
    if wanted is not None:
        return wanted.model, wanted.settings(size), preset_fit(wanted.name, size)
    return model, dict(suitable.models.get(model, {})), suitable.fit(model)


def _title(preset: str, size: PresetSize | None, changes: Mapping[str, Any]) -> str:
    changed = ", ".join(f"{name}={value}" for name, value in changes.items())
    return f"{preset} ({size or 'paper'} size{', with ' + changed if changed else ''})"


def _told_apart(free: Values, model: str, known: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return those of some settings that are the model's, and those that are the fit's."""
    allowed = {"model": known, "fit": list(FitSettings.model_fields)}
    found: dict[str, dict[str, Any]] = {"model": {}, "fit": {}}
    for said, value in free.items():
        whose, _, name = said.rpartition(".")
        owners = [owner for owner, names in allowed.items() if name in names and whose in ("", owner)]
        if not owners:
            names = [f"{whose}.{name}" for name in allowed.get(whose, ())] or [*known, *allowed["fit"]]
            raise ConfigError(unknown_word(f"setting of the model {model} or of the fit", said, names))
        if len(owners) > 1:
            raise ConfigError(
                f"The model {model} has a setting '{name}', and the fit has one: say which, model.{name} or fit.{name}."
            )
        if name in found[owners[0]]:
            raise ConfigError(f"The setting {name} is given twice, as {name} and {owners[0]}.{name}; leave one out.")
        found[owners[0]][name] = value
    return found["model"], found["fit"]


def _check_model(model: str, known: list[str], facts: Facts, words: Values, *, conditional: bool) -> None:
    if MODELS[model].kind != facts.kind:
        others = [name for name in MODELS if MODELS[name].kind == facts.kind]
        raise ConfigError(
            f"The model '{model}' is not for {facts.items}, which '{facts.name}' has. Models for {facts.items}: "
            f"{', '.join(others)}."
        )
    if facts.kind == "table" and not MODELS[model].takes_mixed:
        require_plain(model, facts.meaning, [name for name, config in MODELS.items() if config.takes_mixed])
    if facts.kind == "image" and facts.levels is None:
        raise ConfigError(
            f"The images of '{facts.name}' are real numbers, and the ready-made models are of pixels 0..levels-1. Give "
            "integers, lk.data.as_source(pixels, levels=...), or build a flow of real numbers, and fit it with lk.fit."
        )
    for name in words:
        if name not in known:
            raise ConfigError(f"The setting '{name}' does not apply to the model '{model}'.")
    if conditional and facts.classes is None:
        raise ConfigError(f"The source '{facts.name}' has no labels, so no model of it can be conditional.")
    if conditional and not MODELS[model].reads_labels:
        of_rows = " For p(the other columns | some) leave --labels out, and name these with --given, for table-flow."
        remedy = of_rows if facts.kind == "table" else ""
        raise ConfigError(f"The model '{model}' does not read labels, so it cannot be conditional.{remedy}")
