"""Tables of experiments on data of a known density: how far the models are from it."""

from collections.abc import Iterable, Mapping, Sequence

from likelify.fitting.figures import Figure
from likelify.reproduce.experiment import DataSet, Experiment, Method
from likelify.reproduce.numbers import EMPTY, difference_text, mean_text
from likelify.reproduce.results import CellResult, divergences
from likelify.reproduce.shown import Rows, Table
from likelify.reproduce.statistics import paired_difference

# Models come within some ten-thousandths of a nat.
DIGITS = 4
HOW = (
    "KL: the mean over test graphs of the true log-density minus the model's, graph by graph, in {unit}. The error "
    "behind it is that over seeds, or over graphs for a single seed; 'over graphs' is the mean of the errors over "
    "graphs. All seeds and methods that have as many test graphs have the same ones; those that have fewer have the "
    "first, and no difference to a row of more is printed. Entropy + KL is to be compared with the paper's negative "
    "log-likelihoods, whose test graphs carry noise of their own. Where the likelihood is a bound, so is the figure: "
    "'<='."
)


def overview_table(experiment: Experiment, rows: Mapping[str, Rows]) -> Table:
    """Return one table of all data sets: entropy plus divergence, beside what the paper printed.

    Args:
        experiment: the experiment.
        rows: for the titles of data sets the results of each method.
    """
    groups = any(method.group for method in experiment.methods)
    headings = ["method", *(["kind"] if groups else [])]
    for data in experiment.data:
        headings += [data.title, "paper"]
    lines = []
    for method in experiment.methods:
        line = [method.title, *([method.group] if groups else [])]
        for data in experiment.data:
            line.append(_total(rows[data.title][method.title]))
            line.append(_printed(experiment, method, data))
        lines.append(line)
    known = {data.title: entropy_of(rows[data.title]) for data in experiment.data}
    entropies = [f"{title} {value:.{DIGITS}f}" for title, value in known.items() if value is not None]
    notes = [f"Entropy: {', '.join(entropies)}."] if entropies else []
    return Table(f"Entropy + KL, {experiment.unit.name}", headings, lines, notes)


def divergence_table(experiment: Experiment, data: DataSet, rows: Rows, notes: Sequence[str]) -> Table:
    """Return the table of divergences on one data set.

    Args:
        experiment: the experiment.
        data: the data set.
        rows: the results of each method.
        notes: on the cells.
    """
    groups = any(method.group for method in experiment.methods)
    headings = ["method", *(["kind"] if groups else []), "parameters", "seeds", "steps", "fit, s", "measuring, s"]
    headings += ["test graphs", "KL", "over graphs", f"KL minus {experiment.compared} [95 %]", "entropy + KL", "paper"]
    known = {title: divergences(results) for title, results in rows.items()}
    lines = []
    for method in experiment.methods:
        results = rows[method.title]
        line = [method.title, *([method.group] if groups else []), _counts(r.parameters for r in results)]
        line += [str(len(results)), _counts(r.course.steps for r in results)]
        line += [mean_text([r.course.seconds for r in results], 0, error=False)]
        line += [mean_text([r.measuring_seconds for r in results], 0, error=False)]
        line += [_counts(kl.count for kl in known[method.title].values())]
        line += [_divergence(results), _over_graphs(results)]
        against = experiment.against(method) or ""
        own = results and method.title == against
        line += ["0" if own else _difference(known[method.title], known.get(against, {}))]
        lines.append([*line, _total(results), _printed(experiment, method, data)])
    return Table(data.title, headings, lines, [HOW.format(unit=experiment.unit.name), *notes])


def entropy_of(rows: Rows) -> float | None:
    """Return the entropy of the data of some results, or None without results."""
    return next((r.entropy for results in rows.values() for r in results if r.entropy is not None), None)


def _difference(ours: Mapping[int, Figure], theirs: Mapping[int, Figure]) -> str:
    """Return the difference of two rows, seed by seed; none if they are of different numbers of graphs."""
    if len({kl.count for kl in (*ours.values(), *theirs.values())}) > 1:
        return EMPTY
    means = [{seed: kl.mean for seed, kl in row.items()} for row in (ours, theirs)]
    return difference_text(paired_difference(*means))


def _divergence(results: Sequence[CellResult], above: float = 0.0) -> str:
    """Return the mean divergence with its error, of a bound as one; shifted by the entropy where it is given."""
    found = list(divergences(results).values())
    if len(found) == 1 and found[0].standard_error is not None:
        text = f"{above + found[0].mean:.{DIGITS}f} +- {found[0].standard_error:.{DIGITS}f}"
    else:
        text = mean_text([above + kl.mean for kl in found], DIGITS)
    return f"<= {text}" if text != EMPTY and any(result.likelihood == "bound" for result in results) else text


def _total(results: Sequence[CellResult]) -> str:
    entropies = [result.entropy for result in results if result.entropy is not None]
    return _divergence(results, entropies[0]) if entropies else EMPTY


def _over_graphs(results: Sequence[CellResult]) -> str:
    errors = [kl.standard_error for kl in divergences(results).values()]
    return mean_text([error for error in errors if error is not None], DIGITS, error=False)


def _counts(values: Iterable[int]) -> str:
    found = sorted(set(values))
    return " to ".join(f"{value:,}" for value in sorted({found[0], found[-1]})) if found else EMPTY


def _printed(experiment: Experiment, method: Method, data: DataSet) -> str:
    return experiment.paper.figures.get((method.title, data.title), EMPTY)
