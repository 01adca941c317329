"""Everything that is needed to make the fit again."""

from __future__ import annotations

import csv
import io
import json
import platform
import shlex
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from likelify._version import __version__
from likelify.data import SOURCES
from likelify.errors import LikelifyError
from likelify.fitting.choose import OF_THE_DATA, choose
from likelify.fitting.report.blocks import Code, Section, Table, Text
from likelify.fitting.report.material import Material
from likelify.fitting.report.showing import nodes_in_words
from likelify.fitting.settings import FitSettings, RunConfig
from likelify.fitting.sources import DataChoice
from likelify.zoo import ModelConfig

# Settings that have an option of their own; all others are given with --set.
MODEL_OPTIONS, FIT_OPTIONS = ("mixing", "coupling"), ("steps", "lr", "batch_size", "seed", "workers")
PACKAGES = ("torch", "numpy", "scikit-learn", "matplotlib")


def settings(material: Material, section: Section) -> None:
    """List settings and versions, and the commands that make fit and page again."""
    config = material.config
    command = fit_command(config)
    if command is None:
        section.add(Text("It was fitted from Python: its settings below, with lk.fit on the same data, make it again."))
    else:
        section.add(Code(command))
    section.add(Text("This page, from the run folder:"), Code(f"likelify report {shlex.quote(str(material.run.path))}"))
    section.add(
        Text(
            f"Fitted with likelify {config.likelify}. The page was made with likelify {__version__}, Python "
            f"{platform.python_version()}, {', '.join(_versions())}. Equal results need equal versions, the same "
            "number of threads, and no limit on time."
        ),
        Table(("", ""), _facts(material), "Data", folded=True),
        Table(("", ""), _listed(config.model.model_dump(mode="json")), "Settings of the model", folded=True),
        Table(("", ""), _listed(config.fit.model_dump(mode="json")), "Settings of the fit", folded=True),
    )


def _versions() -> list[str]:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


def _facts(material: Material) -> list[tuple[str, str]]:
    facts = material.facts
    rows = [
        ("source", facts.name),
        ("description", facts.description),
        ("shape", _shape(facts.event_shape)),
    ]
    rows += [(f"{split} {facts.items}", f"{size:,}") for split, size in facts.sizes.items()]
    if facts.graphs is not None:
        rows += [("a training graph has", nodes_in_words(facts.graphs))]
        rows += [("edges", "each two nodes" if facts.graphs.complete else "as in the data")]
    rows += [("values of an element", str(facts.levels))] if facts.levels is not None else []
    rows += [("classes", str(facts.classes))] if facts.classes is not None else []
    rows += [("preset", material.config.preset)] if material.config.preset else []
    opened = material.config.opened
    rows += [("opened as", json.dumps(opened.model_dump(mode="json", exclude_defaults=True)))] if opened else []
    return [*rows, ("fingerprint", facts.fingerprint), ("run folder", str(material.run.path))]


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def _listed(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, json.dumps(value) if not isinstance(value, str) else value) for name, value in values.items()]


def fit_command(config: RunConfig) -> str | None:
    """Return the command line that fits with these settings, or None if there is none that leads to all of them."""
    facts = config.data
    if facts.name not in SOURCES and ":" not in facts.name:
        return None
    try:
        usual = choose(facts, model=config.model.model, conditional=config.conditional)
        model = _changed(read_settings(config.model), usual.model.model_dump(mode="json"))
        fit = _changed(config.fit.model_dump(mode="json"), usual.fit.model_dump(mode="json"))
        again = choose(
            facts, model=config.model.model, conditional=config.conditional, model_settings=model, fit_settings=fit
        )
    except LikelifyError:
        return None
    same = read_settings(again.model) == read_settings(config.model) and again.fit == config.fit
    if not same or any(name in OF_THE_DATA for name in model):
        return None
    opened = _opened(config)
    return None if opened is None else shlex.join(["likelify", "fit", *opened, *_words(config, model, fit)])


def read_settings(model: ModelConfig) -> dict[str, Any]:
    """Return the settings of a model, but for those that nothing in it reads."""
    settings = model.model_dump(mode="json")
    return {name: value for name, value in settings.items() if not model.idle([name])}


def _changed(found: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value != usual.get(name)}


def _words(config: RunConfig, model: Mapping[str, Any], fit: Mapping[str, Any]) -> list[str]:
    words = ["--model", config.model.model, *(["--conditional"] if config.conditional else [])]
    for name, value in fit.items():
        if name == "max_time" and value is not None:
            words += ["--max-time", f"{np.format_float_positional(value, trim='-')}s"]
        elif name in FIT_OPTIONS and value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
        else:
            whole = f"fit.{name}" if name in type(config.model).model_fields else name
            words += ["--set", f"{whole}={json.dumps(value)}"]
    for name, value in model.items():
        own = name in MODEL_OPTIONS and isinstance(value, str)
        whole = f"model.{name}" if name in FitSettings.model_fields else name
        words += [f"--{name}", value] if own else ["--set", f"{whole}={json.dumps(value)}"]
    return words


def _opened(config: RunConfig) -> list[str] | None:
    """Return the words that open the data, or None if the command line has none for how they were opened."""
    name, opened = config.data.name, config.opened
    words = [name]
    if opened is None:
        return words
    if opened != DataChoice(source=opened.source, options=opened.options):
        return None
    for option, value in ({} if opened.options is None else opened.options.chosen()).items():
        words += _as_option(option, value)
    return words


def _as_option(name: str, value: Any) -> list[str]:
    """Return an option of the data as it is typed."""
    option = f"--{name.replace('_', '-')}"
    if value is True:
        return [option]
    if name == "image_size":
        return [option, "x".join(map(str, value))]
    if isinstance(value, tuple):
        quoted = io.StringIO()
        csv.writer(quoted, lineterminator="").writerow(value)
        return [option, quoted.getvalue()]
    return [option, str(value)]
