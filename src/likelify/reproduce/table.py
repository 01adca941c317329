"""Tables of text from the results of cells, for the terminal, Markdown and HTML alike."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from likelify.fitting.figures import Figure, Score, Unit
from likelify.reproduce.drawing import Drawing
from likelify.reproduce.experiment import DataSet, Experiment, Method
from likelify.reproduce.results import CellResult, CellState
from likelify.reproduce.statistics import common_time, paired_difference, value_at
from likelify.reproduce.store import CELLS

# Shares of the common time at which the curves are read off.
SHARES = (0.25, 0.5, 1.0)
DIGITS = 3
EMPTY = "-"
Curve = list[tuple[float, float]]
Rows = dict[str, list[CellResult]]


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: above it.
        headings: of its columns.
        rows: of cells, as many as headings; the first column is text, the others are figures.
        notes: below it.
    """

    title: str
    headings: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Picture:
    """A picture file and what it shows."""

    title: str
    file: Path


@dataclass(frozen=True)
class Report:
    """All that is shown of an experiment.

    Attributes:
        title: of the experiment.
        introduction: paragraphs, the caveat first.
        tables: two for each data set, then the paper's.
        curves: for each data set and method its curves `(seconds, figure)`, one for each seed.
        unit: of the curves.
        pictures: drawn from fitted models.
        drawing: the figure that the experiment is about.
    """

    title: str
    introduction: list[str]
    tables: list[Table]
    curves: dict[str, dict[str, list[Curve]]]
    unit: Unit
    pictures: list[Picture]
    drawing: Drawing | None = None


def build_report(experiment: Experiment, states: Sequence[CellState], folder: Path) -> Report:
    """Return the report of an experiment; only finished cells of the present settings count."""
    tables, curves, pictures, drawn = [], {}, [], {}
    for data in experiment.data:
        own = [state for state in states if state.cell.data.source == data.choice.source]
        rows = _finished(experiment, own)
        tables += [_table(experiment, data, own, rows), _course_table(experiment, data, rows)]
        curves[data.title] = {title: [_curve(r, experiment.unit) for r in results] for title, results in rows.items()}
        for title, results in rows.items():
            found = (folder / result.picture for result in results if result.picture is not None)
            files = [file for file in found if file.is_file()]
            if experiment.draw is None:
                pictures += [Picture(f"{title}, {data.title}", file) for file in files]
            else:
                drawn.update((title, file) for file in files)
    drawing = None if experiment.draw is None else experiment.draw(drawn)
    if drawing is not None and drawing.headings:
        tables.insert(0, Table(drawing.title, drawing.headings, drawing.rows))
    tables += _paper_table(experiment)
    introduction = [text for text in (experiment.caveat, _explanation(experiment)) if text]
    return Report(experiment.title, introduction, tables, curves, experiment.unit, pictures, drawing)


def _finished(experiment: Experiment, states: Sequence[CellState]) -> Rows:
    """Return the results of each method, in the order of the methods."""
    rows: Rows = {method.title: [] for method in experiment.methods}
    for state in states:
        if state.status == "finished" and state.result is not None:
            rows[state.cell.method].append(state.result)
    return rows


def _table(experiment: Experiment, data: DataSet, states: Sequence[CellState], rows: Rows) -> Table:
    """Return the table of held-out figures."""
    unit = experiment.unit
    baseline = _by_seed(rows.get(experiment.baseline or "", []), unit)
    printed = experiment.paper.figures
    known = any((method.title, data.title) in printed for method in experiment.methods)
    headings = ["method", "parameters", "seeds", f"ELBO, {unit.name}", f"importance-weighted, {unit.name}"]
    headings += [f"ELBO minus {experiment.baseline} [95 %]"] if experiment.baseline else []
    headings += ["paper"] if known else []
    lines = []
    for method in experiment.methods:
        results = rows[method.title]
        line = [method.title, _parameters(results), str(len(results))]
        line += [_mean([_figure(r.elbo, unit) for r in results])]
        line += [_weighted(results, unit)]
        line += [_difference(method, experiment, _by_seed(results, unit), baseline)] if experiment.baseline else []
        line += [printed.get((method.title, data.title), EMPTY)] if known else []
        lines.append(line)
    everything = [result for results in rows.values() for result in results]
    return Table(data.title, headings, lines, _notes(states, everything))


def _course_table(experiment: Experiment, data: DataSet, rows: Rows) -> Table:
    """Return the table of validation figures at equal times."""
    unit = experiment.unit
    curves = {title: [_curve(result, unit) for result in results] for title, results in rows.items()}
    time = common_time(curve for several in curves.values() for curve in several)
    times = [] if math.isnan(time) else [share * time for share in SHARES]
    headings = ["method", *(f"by {_seconds(t)}" for t in times), "steps", "fit, s", "measuring, s"]
    lines = []
    for method in experiment.methods:
        results = rows[method.title]
        line = [
            _mean([value_at(curve, t, highest=unit.higher_is_better) for curve in curves[method.title]]) for t in times
        ]
        line += [_mean([r.course.steps for r in results], 0, error=False)]
        line += [_mean([r.course.seconds for r in results], 0, error=False)]
        line += [_mean([r.measuring_seconds for r in results], 0, error=False)]
        lines.append([method.title, *line])
    return Table(f"{data.title}: validation figures at equal times, {unit.name}", headings, lines)


def _paper_table(experiment: Experiment) -> list[Table]:
    """Return the table of what the paper printed for methods and data that no row has."""
    shown = {(method.title, data.title) for method in experiment.methods for data in experiment.data}
    rows = [[*place, text] for place, text in experiment.paper.figures.items() if place not in shown]
    notes = [f"Source: {experiment.paper.source}"] if experiment.paper.source else []
    return [Table("What the paper printed", ["method", "data", experiment.unit.name], rows, notes)] if rows else []


def _explanation(experiment: Experiment) -> str:
    if not experiment.data:
        return f"After {experiment.paper.source}" if experiment.paper.source else ""
    better = "higher is better" if experiment.unit.higher_is_better else "lower is better"
    text = (
        f"Figures in {experiment.unit.name}, {better}: mean over seeds +- standard error over seeds. Seeds set "
        "weights, order of the data and noise, and are paired between methods. At equal times: the best figure on the "
        "validation split that a fit had logged by then; the last time is the end of the shortest fit. As the learning "
        "rate falls over a whole fit, figures of earlier times are not those of shorter fits."
    )
    if experiment.baseline:
        text += (
            f" Differences to {experiment.baseline} are paired by seed, with Student's 95 % interval; it takes "
            "differences to be normal, which so few seeds cannot show."
        )
    source = f" The paper's figures: {experiment.paper.source}" if experiment.paper.source else ""
    return text + source


def _notes(states: Sequence[CellState], results: Sequence[CellResult]) -> list[str]:
    notes = []
    missing = [state.cell.name for state in states if state.status == "missing"]
    if missing:
        notes.append(f"{len(missing)} of {len(states)} cells are not there yet: {', '.join(missing)}.")
    for status, what in (("stale", "have other settings"), ("damaged", "cannot be read")):
        names = [state.cell.name for state in states if state.status == status]
        if names:
            notes.append(f"Left out, because they {what}: {', '.join(names)}.")
    counts = {
        "states of the data": len({result.facts.fingerprint for result in results}),
        "versions of the code": _code_versions(results),
        "versions of torch": len({result.versions.get("torch") for result in results}),
        "machines": len({result.machine.get("name") for result in results}),
    }
    for what, count in counts.items():
        if count > 1:
            advice = f"compare with care, or remove them from {CELLS} to run them again"
            notes.append(f"These cells are of {count} {what}: {advice}.")
    items = {result.iw.bits.count for result in results if result.iw is not None}
    if items:
        weighted = " to ".join(str(count) for count in sorted({min(items), max(items)}))
        draws = ", ".join(sorted({str(result.iw.samples) for result in results if result.iw is not None}))
        notes.append(f"Importance weighting: {draws} draws on the first {weighted} test items.")
    if len(items) > 1:
        notes.append("How many items these are differs, as time allowed: the column compares different items.")
    if results:
        first = results[0]
        sizes = " / ".join(str(size) for size in first.facts.sizes.values())
        notes.append(f"Data: {first.facts.description} ({sizes}). Test items of the ELBO: {first.elbo.bits.count}.")
        clocks = {"processor s" if r.course.clock == "processor" else "s on the wall" for r in results}
        notes.append(f"Times are {' or '.join(sorted(clocks))}; {first.machine.get('name')}.")
    return notes


def _by_seed(results: Sequence[CellResult], unit: Unit) -> dict[int, float]:
    return {result.seed: _figure(result.elbo, unit) for result in results}


def _code_versions(results: Sequence[CellResult]) -> int:
    """Count the versions of the code: of what all models share or, where these are more, of all that one model needs.

    Cells of before there were two hashes have one, of all code at once.
    """
    versions: dict[str, set[str]] = defaultdict(set)
    for result in results:
        code = result.versions["code"]
        versions["shared"].add(result.versions.get("fitting", code))
        versions[f"model {result.settings['model']['model']}"].add(code)
    return max(map(len, versions.values()), default=0)


def _figure(score: Score, unit: Unit) -> float:
    return unit.pick(score.bits.mean, score.nats.mean)


def _curve(result: CellResult, unit: Unit) -> Curve:
    points = result.course.points
    return [(point.seconds, unit.pick(point.validation_bits, point.validation_nats)) for point in points]


def _difference(method: Method, experiment: Experiment, ours: dict[int, float], baseline: dict[int, float]) -> str:
    if method.title == experiment.baseline:
        return "0"
    paired = paired_difference(ours, baseline)
    if paired.count == 0:
        return EMPTY
    text = f"{paired.difference:+.{DIGITS}f}"
    if paired.count == 1:
        return f"{text} (one pair)"
    return f"{text} [{paired.low:+.{DIGITS}f}, {paired.high:+.{DIGITS}f}]"


def _mean(values: Sequence[float], digits: int = DIGITS, *, error: bool = True) -> str:
    if not values or not all(map(math.isfinite, values)):
        return EMPTY
    figure = Figure.of(values)
    text = f"{figure.mean:,.{digits}f}"
    return text if not error or figure.standard_error is None else f"{text} +- {figure.standard_error:.{digits}f}"


def _weighted(results: Sequence[CellResult], unit: Unit) -> str:
    """Return the importance-weighted figure; exact models have none, since their first figure is no bound."""
    if results and all(result.likelihood == "exact" for result in results):
        return "exact"
    return _mean([_figure(result.iw, unit) for result in results if result.iw is not None])


def _parameters(results: Sequence[CellResult]) -> str:
    counts = sorted({result.parameters for result in results})
    return " / ".join(f"{count:,}" for count in counts) or EMPTY


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
