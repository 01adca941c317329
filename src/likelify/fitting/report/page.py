"""The page: its sections in their order, what is said at its top, and the file that it is written to."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from likelify.data import Facts, Source
from likelify.errors import ConfigError, LikelifyError, LikelifyWarning, MissingDependencyError, RunError
from likelify.fitting.files import make_folder, refuse_taken, write_atomically
from likelify.fitting.report.blocks import Section
from likelify.fitting.report.drawing import label
from likelify.fitting.report.graph_pictures import names_of_features
from likelify.fitting.report.material import Material
from likelify.fitting.report.sections.certificate import certificate
from likelify.fitting.report.sections.copies import copies
from likelify.fitting.report.sections.course import course
from likelify.fitting.report.sections.extremes import extremes
from likelify.fitting.report.sections.latents import latents
from likelify.fitting.report.sections.ranks import ranks
from likelify.fitting.report.sections.samples import samples
from likelify.fitting.report.sections.settings import settings
from likelify.fitting.report.sections.standing import standing
from likelify.fitting.report.showing import nodes_in_words

if TYPE_CHECKING:
    from likelify.fitting.run import Run

REPORT = "report.html"
TEMPLATE = "page.html"
# What a page needs, by the names under which it is imported.
PACKAGES = {"jinja2": "jinja2", "matplotlib": "matplotlib", "PIL": "pillow", "sklearn": "scikit-learn"}

# What fills each section, its name in the list of sections, and its title; in the order of the page.
Maker = Callable[[Material, Section], None]
SECTIONS: tuple[tuple[Maker, str, str], ...] = (
    (standing, "Held-out", "How well it describes what it has not seen"),
    (samples, "Samples", "What it draws"),
    (copies, "Copies", "Whether it copies"),
    (extremes, "Extremes", "What it finds likely and unlikely"),
    (course, "Fit", "How the fit went"),
    (ranks, "Ranks", "Whether ranks can be believed"),
    (latents, "Latents", "Whether its latents look like its base"),
    (certificate, "Certificate", "What is proved of these figures"),
    (settings, "Settings", "How to make it again"),
)
# How the sentence of a section starts that failed by a fault of ours.
BROKEN = "This is a fault of likelify"


def write_report(run: Run, file: Path | None = None, *, source: Source | None = None, force: bool = False) -> Path:
    """Write the report of a run as one page of HTML that needs nothing beside it.

    A part that cannot be made, say since the data are gone, says why in a sentence.

    Args:
        run: whose report it is.
        file: to write; by default `report.html` in the run.
        source: the data of the run, if they are open already.
        force: replace a file that exists; the report of the run is made again while its data are there.

    Raises:
        ConfigError: if the file has another ending than `.html`, or exists.
        RunError: if the file cannot be written, or is a report of the data, which are not there any more.
        MissingDependencyError: if jinja2, matplotlib, pillow or scikit-learn are not installed.

    Warns:
        LikelifyWarning: if a part failed by an error of the library's own, which is named.
    """
    place = run.path / REPORT if file is None else Path(file)
    check_place(run, place, force=force)
    if source is None and file is None and place.exists() and not force:
        source = _data_of(run, place)
    # Names of files may hold bytes that are no letters.
    content = as_html(run, source=source).encode(errors="replace")
    make_folder(place.parent)
    write_atomically(place, content)
    return place


def _data_of(run: Run, place: Path) -> Source:
    """Open the data of a run, or refuse to replace a report by one without all that needs them."""
    try:
        return run.source()
    except LikelifyError as error:
        raise RunError(
            f"The data cannot be opened ({_sentence(error).removesuffix('.')}), and '{place}' may say more than a "
            "report without them: it was left as it is. Make the new one elsewhere (-o), or replace it (--force)."
        ) from error


def check_place(run: Run, place: Path, *, force: bool) -> None:
    """Refuse a file that a report is not written to."""
    if place.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"A report is a page of HTML; '{place}' does not end in .html.")
    if place.exists() and not force and place.resolve() != (run.path / REPORT).resolve():
        refuse_taken(place)


def as_html(run: Run, *, source: Source | None = None) -> str:
    """Return the page."""
    for name, package in PACKAGES.items():
        if find_spec(name) is None:
            raise MissingDependencyError(package, "app")
    from jinja2 import Environment, StrictUndefined

    material = Material(run, source)
    sections = [made(material, fill, Section(word, title)) for fill, word, title in SECTIONS]
    doubts = list(dict.fromkeys(doubt for section in sections for doubt in section.doubts))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("likelify.fitting.report").joinpath(TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        title=f"{run.config.model.model} on {_name(material)}",
        lead=_lead(material),
        tiles=[tile for section in sections for tile in section.tiles],
        doubts=doubts,
        sections=sections,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def made(material: Material, fill: Maker, section: Section) -> Section:
    """Return a section filled; one that could not be says why, and warnings on the way become doubts."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        section.missing = _filled(material, fill, section)
    for each in found:
        if isinstance(each.message, LikelifyWarning):
            section.doubts.append(_sentence(each.message))
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    if section.missing and section.missing.startswith(BROKEN):
        warnings.warn(f"A part of the report failed. {section.missing}", LikelifyWarning, stacklevel=2)
    return section


def _filled(material: Material, fill: Maker, section: Section) -> str | None:
    """Fill a section; return why it ended early, if it did."""
    try:
        fill(material, section)
    except LikelifyError as error:
        return _sentence(error)
    # Whatever else it is must not take the rest of the page with it, and must not go unnoticed either.
    except Exception as error:
        return f"{BROKEN}, {type(error).__name__} in '{section.title}': {_sentence(error)} Please report it."
    return None


def _sentence(error: Warning | Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _name(material: Material) -> str:
    """Return the name of the data without the user's folders."""
    family, colon, place = material.facts.name.partition(":")
    return label(Path(place).name if colon and place else family, 60)


def _lead(material: Material) -> list[str]:
    """Say in plain words what was fitted to what."""
    facts, model = material.facts, material.config.model.model
    sizes = {split: f"{size:,}" for split, size in facts.sizes.items()}
    given = ", given the class of each" if material.config.conditional else ""
    if conditions := [label(column.name) for column in facts.meaning if column.given]:
        given += f", given their {_listed(conditions)}"
    tests = f" and {sizes['test']} for testing" if facts.sizes.get("test") else ", and there are none for testing"
    lead = [
        f"A model '{model}'{_parameters(material)} learnt how probable {facts.items} like these are{given}, from "
        f"{sizes.get('train', '?')} {facts.items} of {_item(facts)}. {sizes.get('validation', '?')} more were kept for "
        f"validation{tests}."
    ]
    if facts.description:
        lead.append(f"Data: {label(facts.description, 400)}.")
    return lead + [label(remark, 400) for remark in material.config.model.remarks()]


def _listed(names: list[str]) -> str:
    shown = names[:6] + ([f"{len(names) - 6} more columns"] if len(names) > 6 else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _item(facts: Facts) -> str:
    """Say what one item is made of."""
    if facts.kind == "graph":
        return _graph(facts)
    values = f"{facts.levels} values each" if facts.levels else "real numbers"
    if facts.kind == "table":
        return "one column" if facts.event_shape == (1,) else f"{facts.event_shape[0]} columns"
    if facts.kind == "image" and len(facts.event_shape) == 3:
        channels, height, width = facts.event_shape
        colours = {1: "", 3: ", in colour"}.get(channels, f", {channels} channels")
        return f"{height} × {width} pixels{colours}, {values}"
    return f"{' × '.join(map(str, facts.event_shape)) or 'single'} elements, {values}"


def _graph(facts: Facts) -> str:
    """Say what a graph is made of."""
    names = names_of_features(facts)
    features = f"{len(names)} feature{'s' * (len(names) != 1)}"
    called = f" ({_listed(list(names))})" if facts.columns is not None else ""
    if facts.graphs is None:
        return f"nodes with {features} each{called}"
    joined = "each two of them joined" if facts.graphs.complete else "joined as the data say"
    return f"{nodes_in_words(facts.graphs)} with {features} each{called}, {joined}"


def _parameters(material: Material) -> str:
    try:
        number = sum(parameter.numel() for parameter in material.flow.parameters())
    except LikelifyError:
        return ""
    return f" of {number:,} parameters"
