"""Tables of text from the results of cells, for the terminal, Markdown and HTML alike."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from likelify.fitting.figures import Score, Unit
from likelify.reproduce.cell import Cell
from likelify.reproduce.costs import CostResult
from likelify.reproduce.course import course_table, equal_table, time_curve
from likelify.reproduce.divergences import divergence_table, overview_table
from likelify.reproduce.drawing import Drawing
from likelify.reproduce.evidence import Evidence
from likelify.reproduce.experiment import DataSet, Experiment, Method
from likelify.reproduce.numbers import EMPTY, difference_text, listed, mean_text
from likelify.reproduce.results import CellResult, CellState
from likelify.reproduce.shown import Curve, Rows, Table
from likelify.reproduce.statistics import paired_difference
from likelify.reproduce.store import CELLS

MEGABYTE = 2**20
# Above this shape of its tail the mean of importance weights is not to be trusted.
HEAVY = 0.7
GAIN = "weighting gains"


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
        discussion: sentences on what the figures show.
        tables: two or three for each data set, then the paper's.
        curves: for each data set and method its curves `(seconds, figure)`, one for each seed.
        unit: of the curves.
        pictures: drawn from fitted models.
        drawing: the figure that the experiment is about.
    """

    title: str
    introduction: list[str]
    discussion: list[str]
    tables: list[Table]
    curves: dict[str, dict[str, list[Curve]]]
    unit: Unit
    pictures: list[Picture]
    drawing: Drawing | None = None


def build_report(experiment: Experiment, states: Sequence[CellState], folder: Path) -> Report:
    """Return the report of an experiment; only finished cells of the present settings count."""
    tables, curves, pictures, drawn = [], {}, [], {}
    evidence = Evidence(experiment.unit, {}, {}, experiment.equal)
    for data in experiment.data:
        own = [state for state in states if state.cell.data.source == data.choice.source]
        rows = _finished(experiment, own)
        tables += _tables(experiment, data, own, rows)
        evidence.rows[data.title] = rows
        for result in _costs(own):
            tables.append(_cost_table(experiment, data, result, rows))
            evidence.costs[data.title] = result
        curves[data.title] = {
            title: [time_curve(r, experiment.unit) for r in results] for title, results in rows.items()
        }
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
    if experiment.measuring.truth:
        tables.insert(0, overview_table(experiment, evidence.rows))
    tables += _paper_table(experiment)
    introduction = [text for text in (experiment.caveat, _explanation(experiment)) if text]
    # The figures of a trial mean nothing.
    discuss = None if experiment.scale == "quick" else experiment.discuss
    discussion = [] if discuss is None else discuss(evidence)
    return Report(experiment.title, introduction, discussion, tables, curves, experiment.unit, pictures, drawing)


def _tables(experiment: Experiment, data: DataSet, states: Sequence[CellState], rows: Rows) -> list[Table]:
    """Return the tables of one data set."""
    if experiment.measuring.truth:
        notes = _notes(states, [result for results in rows.values() for result in results])
        return [divergence_table(experiment, data, rows, notes)]
    course = equal_table if experiment.equal else course_table
    return [_table(experiment, data, states, rows), course(experiment, data, rows)]


def _finished(experiment: Experiment, states: Sequence[CellState]) -> Rows:
    """Return the results of each method, in the order of the methods."""
    rows: Rows = {method.title: [] for method in experiment.methods}
    for state in states:
        if state.status == "finished" and isinstance(state.result, CellResult) and isinstance(state.cell, Cell):
            rows[state.cell.method].append(state.result)
    return rows


def _costs(states: Sequence[CellState]) -> list[CostResult]:
    found = [state.result for state in states if state.status == "finished"]
    return [result for result in found if isinstance(result, CostResult)]


def _table(experiment: Experiment, data: DataSet, states: Sequence[CellState], rows: Rows) -> Table:
    """Return the table of held-out figures."""
    unit = experiment.unit
    printed = experiment.paper.figures
    known = any((method.title, data.title) in printed for method in experiment.methods)
    headings = ["method", "parameters", "seeds", f"ELBO, {unit.name}", f"importance-weighted, {unit.name}"]
    headings += [f"ELBO minus {experiment.compared} [95 %]"] if experiment.baseline else []
    headings += ["paper"] if known else []
    weighed = [r.iw for results in rows.values() for r in results if r.iw is not None and r.iw.ess is not None]
    headings += [GAIN] if any(r.gain is not None for results in rows.values() for r in results) else []
    headings += ["effective draws"] if weighed else []
    headings += ["tail k"] if any(score.k is not None for score in weighed) else []
    lines = []
    for method in experiment.methods:
        results = rows[method.title]
        line = [method.title, _parameters(results), str(len(results))]
        line += [mean_text([_figure(r.elbo, unit) for r in results])]
        line += [_weighted(results, unit)]
        if experiment.baseline:
            baseline = experiment.against(method) or ""
            paired = paired_difference(_by_seed(results, unit), _by_seed(rows.get(baseline, []), unit))
            line += ["0" if results and method.title == baseline else difference_text(paired)]
        line += [_printed(experiment, method, data)] if known else []
        line += [_gained(results, unit)] if GAIN in headings else []
        lines.append((line + _diagnostics(results))[: len(headings)])
    everything = [result for results in rows.values() for result in results]
    return Table(data.title, headings, lines, _notes(states, everything))


def _cost_table(experiment: Experiment, data: DataSet, result: CostResult, rows: Rows) -> Table:
    """Return the table of costs, beside what the paper printed."""
    baseline, printed = result.settings["costing"]["baseline"], experiment.paper.costs
    headings = ["method", "parameters", f"training step, % of {baseline}", f"sampling, % of {baseline}"]
    headings += ["paper: training", "paper: sampling"] if printed else []
    headings += ["training step, ms", "sampling, ms an image", "memory of a step, MB"]
    samples = result.settings["costing"]["samples"]
    lines = []
    for method in experiment.methods:
        cost = result.costs[method.title]
        line = [method.title, f"{cost.parameters:,}", f"{cost.step_percent:.0f}", f"{cost.sample_percent:.0f}"]
        line += list(printed.get(method.title, (EMPTY, EMPTY))) if printed else []
        line += [f"{1000 * cost.step_seconds:.0f}", f"{1000 * cost.sample_seconds / samples:.2f}"]
        lines.append([*line, f"{cost.kept_bytes / MEGABYTE:.0f}"])
    code = result.versions.get("fitting")
    fits = {fit.versions.get("fitting") for results in rows.values() for fit in results}
    fresh = [title for title, cost in result.costs.items() if cost.steps == 0]
    clock = "processor" if result.clock == "processor" else "wall"
    notes = [
        f"All methods in one process, one after the other in each of {result.rounds} rounds: one training step on "
        f"{result.batch_size} items, and {samples} samples. Percentages are medians over the rounds of the share of "
        f"{baseline}'s seconds in the same round ({clock} time; {result.machine.get('name')}).",
        "Memory: the most that autograd holds at any moment of a training step, forward and backward, what a layer "
        "holds inside of its own forward or backward pass included; parameters are not counted.",
    ]
    notes += [f"With fresh weights, since they were not fitted yet: {', '.join(fresh)}."] if fresh else []
    notes += ["By another version of the code than that of the fits."] if code is not None and fits - {code} else []
    return Table(f"{data.title}: costs", headings, lines, notes)


def _paper_table(experiment: Experiment) -> list[Table]:
    """Return the table of what the paper printed for methods and data that no row has."""
    shown = {(method.title, data.title) for method in experiment.methods for data in experiment.data}
    paper = experiment.paper
    places = [place for place in paper.figures if place not in shown]
    headings = ["method", "data", experiment.unit.name]
    headings += ["importance-weighted"] if paper.weighted else []
    headings += ["training, %", "sampling, %"] if paper.costs else []
    rows = []
    for place in places:
        row = [*place, paper.figures[place]]
        row += [paper.weighted.get(place, EMPTY)] if paper.weighted else []
        rows.append(row + (list(paper.costs.get(place[0], (EMPTY, EMPTY))) if paper.costs else []))
    notes = [f"Source: {paper.source}"] if paper.source else []
    return [Table("What the paper printed", headings, rows, notes)] if rows else []


def _explanation(experiment: Experiment) -> str:
    if not experiment.data:
        return f"After {experiment.paper.source}" if experiment.paper.source else ""
    better = "higher is better" if experiment.unit.higher_is_better else "lower is better"
    text = (
        f"Figures in {experiment.unit.name}, {better}: mean over seeds +- standard error over seeds. Seeds set "
        "weights, order of the data and noise, and are paired between methods."
    )
    if not experiment.equal and not experiment.measuring.truth:
        text += (
            " At equal times: the best figure on the validation split that a fit had logged by then, that of fresh "
            "weights not counted; a dash where a seed had none. The last time is the end of the shortest fit, or up to "
            "5 % later where others of the same budget end there. As the learning rate falls over a whole fit, figures "
            "of earlier times are not those of shorter fits."
        )
    if experiment.baseline:
        text += (
            f" Differences to {experiment.compared} are paired by seed, with Student's 95 % interval; it takes "
            "differences to be normal, which so few seeds cannot show."
        )
    source = f" The paper's figures: {experiment.paper.source}" if experiment.paper.source else ""
    return text + source


def _notes(states: Sequence[CellState], results: Sequence[CellResult]) -> list[str]:
    notes = [*_gaps(states), *_setbacks(results)]
    kinds = {
        "states of the data": len({result.facts.fingerprint for result in results}),
        "versions of the code": _code_versions(results),
        "versions of torch": len({result.versions.get("torch") for result in results}),
        "machines": len({result.machine.get("name") for result in results}),
    }
    for what, count in kinds.items():
        if count > 1:
            advice = f"compare with care, or remove them from {CELLS} to run them again"
            notes.append(f"These cells are of {count} {what}: {advice}.")
    items = {result.iw.bits.count for result in results if result.iw is not None}
    if items:
        weighted = " to ".join(str(count) for count in sorted({min(items), max(items)}))
        draws = ", ".join(sorted({str(result.iw.samples) for result in results if result.iw is not None}))
        notes.append(f"Importance weighting: {draws} draws on the first {weighted} test items.")
        # Divergences have no column of their own for what is weighted.
        notes += [] if any(result.elbo.kl is not None for result in results) else _unweighted(results)
        notes += _doubts(results)
    if len(items) > 1:
        notes.append("How many items these are differs, as time allowed: the column compares different items.")
    if results:
        first = results[0]
        sizes = " / ".join(str(size) for size in first.facts.sizes.values())
        counts = {result.elbo.bits.count for result in results}
        tested = " to ".join(str(count) for count in sorted({min(counts), max(counts)}))
        notes.append(f"Data: {first.facts.description} ({sizes}). Test items of the ELBO: {tested}.")
        clocks = {"processor s" if r.course.clock == "processor" else "s on the wall" for r in results}
        notes.append(f"Times are {' or '.join(sorted(clocks))}; {first.machine.get('name')}.")
    return notes


def _gaps(states: Sequence[CellState]) -> list[str]:
    """Name the cells that are not there, or not taken."""
    notes = []
    missing = [state.cell.name for state in states if state.status == "missing"]
    if missing:
        notes.append(f"{len(missing)} of {len(states)} cells are not there yet: {', '.join(missing)}.")
    failed = [f"{state.cell.name}: {state.why}" for state in states if state.status == "failed"]
    if failed:
        notes.append(f"Failed, so that means are those of the other seeds: {' '.join(failed)}")
    for status, what in (("stale", "have other settings or data"), ("damaged", "cannot be read")):
        names = [state.cell.name for state in states if state.status == status]
        if names:
            notes.append(f"Left out, because they {what}: {', '.join(names)}.")
    return notes


def _setbacks(results: Sequence[CellResult]) -> list[str]:
    """Name the fits whose loss blew up, from which their figures may suffer."""
    back = [
        f"{result.method}, seed {result.seed} (step {listed([f'{step:,}' for step in result.course.setbacks])})"
        for result in results
        if result.course.setbacks
    ]
    if not back:
        return []
    return [f"The loss blew up, and the fit went on from its best weights at half of its rate: {'; '.join(back)}."]


def _by_seed(results: Sequence[CellResult], unit: Unit) -> dict[int, float]:
    return {result.seed: _figure(result.elbo, unit) for result in results}


def _code_versions(results: Sequence[CellResult]) -> int:
    """Count the versions of the code: of what all models share or, where these are more, of all that one model needs.

    Cells of before there were two hashes have one, of all code at once.
    """
    versions: dict[str, set[str]] = defaultdict(set)
    for result in results:
        code = result.versions.get("code", "")
        versions["shared"].add(result.versions.get("fitting", code))
        versions[f"model {result.settings['model']['model']}"].add(code)
    return max(map(len, versions.values()), default=0)


def _figure(score: Score, unit: Unit) -> float:
    return unit.pick(score.bits.mean, score.nats.mean)


def _weighted(results: Sequence[CellResult], unit: Unit) -> str:
    """Return the importance-weighted figure; exact models have none, since their first figure is no bound."""
    if results and all(result.likelihood == "exact" for result in results):
        return "exact"
    return mean_text([_figure(result.iw, unit) for result in results if result.iw is not None])


def _gained(results: Sequence[CellResult], unit: Unit) -> str:
    """Return what importance weighting gains over the ELBO of the items that it weighs, in the unit."""
    gains = []
    for result in results:
        if result.gain is not None:
            # Of items of one size the two differ by a factor.
            bits = result.gain.mean * abs(result.elbo.bits.mean / result.elbo.nats.mean)
            gains.append(unit.pick(bits, result.gain.mean))
    return mean_text(gains)


def _unweighted(results: Sequence[CellResult]) -> list[str]:
    """Say where the importance-weighted column has other items, or fewer seeds, than that of the ELBO."""
    weighted = [result for result in results if result.iw is not None]
    notes = []
    if any(result.iw is not None and result.iw.bits.count < result.elbo.bits.count for result in weighted):
        notes.append(
            "The ELBO is that of more items: compare the weighted column from row to row, not with the ELBO beside it."
        )
    methods = {result.method for result in weighted}
    without = [f"{r.method}, seed {r.seed}" for r in results if r.iw is None and r.method in methods]
    if without:
        notes.append(f"Not weighted, for want of time, so that the column has fewer seeds: {'; '.join(without)}.")
    return notes


def _printed(experiment: Experiment, method: Method, data: DataSet) -> str:
    """Return what the paper printed: its bound and, where there is one, its importance-weighted figure."""
    place = (method.title, data.title)
    texts = [found[place] for found in (experiment.paper.figures, experiment.paper.weighted) if place in found]
    return " / ".join(texts) or EMPTY


def _diagnostics(results: Sequence[CellResult]) -> list[str]:
    """Return the columns that say how good importance weights are: means over the seeds of medians over the items."""
    scores = [result.iw for result in results if result.iw is not None]
    effective = [score.ess for score in scores if score.ess is not None]
    shapes = [score.k for score in scores if score.k is not None]
    return [mean_text(effective, 1, error=False), mean_text(shapes, 2, error=False)]


def _doubts(results: Sequence[CellResult]) -> list[str]:
    """Say of which methods importance weighting is not to be trusted."""
    shapes: dict[str, list[float]] = defaultdict(list)
    for result in results:
        if result.iw is not None and result.iw.k is not None:
            shapes[result.method].append(result.iw.k)
    heavy = [method for method, values in shapes.items() if sum(values) / len(values) > HEAVY]
    if not heavy:
        return []
    return [
        f"Tail k is the shape of the tail of the weights, its median over the items. Above {HEAVY} a figure is likely "
        f"too pessimistic, and its error too small: {', '.join(heavy)}."
    ]


def _parameters(results: Sequence[CellResult]) -> str:
    counts = sorted({result.parameters for result in results})
    return " / ".join(f"{count:,}" for count in counts) or EMPTY
