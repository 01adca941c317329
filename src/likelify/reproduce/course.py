"""What validation had found in the course of the fits: figures at equal times and at equal numbers of steps."""

import math
from collections.abc import Iterable, Sequence

from likelify.fitting.figures import Unit
from likelify.reproduce.experiment import DataSet, Experiment
from likelify.reproduce.numbers import difference_text, mean_text, seconds_text
from likelify.reproduce.results import CellResult
from likelify.reproduce.shown import Curve, Rows, Table
from likelify.reproduce.statistics import common_time, paired_difference, value_at, value_between

# Shares of the common time at which the curves are read off.
SHARES = (0.25, 0.5, 1.0)


def time_curve(result: CellResult, unit: Unit) -> Curve:
    """Return the curve `(seconds, figure)` of a fit."""
    points = result.course.points
    return [(point.seconds, unit.pick(point.validation_bits, point.validation_nats)) for point in points]


def printed_time(seconds: float) -> float:
    """Return a time as `seconds_text` prints it, not before it: what is read there is what stands below it."""
    return float(math.ceil(seconds)) if seconds > 9.9 else math.ceil(10 * seconds) / 10


def step_curve(result: CellResult, unit: Unit) -> Curve:
    """Return the curve `(steps, figure)` of a fit."""
    points = result.course.points
    return [(float(point.step), unit.pick(point.validation_bits, point.validation_nats)) for point in points]


def common_steps(results: Iterable[CellResult]) -> float:
    """Return the number of steps that all fits have made, NaN without fits."""
    return min((float(result.course.steps) for result in results), default=math.nan)


def at_time(results: Sequence[CellResult], seconds: float, unit: Unit) -> dict[int, float]:
    """Return for each seed the best figure that validation had found by a time; NaN before the first after a step."""
    best = unit.higher_is_better
    curves = {result.seed: time_curve(result, unit)[_untrained(result) :] for result in results}
    return {seed: value_at(curve, seconds, highest=best) for seed, curve in curves.items()}


def _untrained(result: CellResult) -> int:
    """Return how many of the first points of a course are of fresh weights."""
    return sum(point.step == 0 for point in result.course.points)


def at_steps(results: Sequence[CellResult], steps: float, unit: Unit) -> dict[int, float]:
    """Return for each seed the figure of validation after so many steps."""
    return {result.seed: value_between(step_curve(result, unit), steps) for result in results}


def shared_time(rows: Rows, unit: Unit) -> float:
    """Return the time that all fits reach, as it is printed."""
    time = common_time(time_curve(result, unit) for results in rows.values() for result in results)
    return time if math.isnan(time) else printed_time(time)


def course_table(experiment: Experiment, data: DataSet, rows: Rows) -> Table:
    """Return the table of validation figures at equal times."""
    unit = experiment.unit
    time = shared_time(rows, unit)
    times = [] if math.isnan(time) else [printed_time(share * time) for share in SHARES]
    headings = ["method", *(f"by {seconds_text(t)}" for t in times), "steps", "fit, s", "measuring, s"]
    lines = []
    for method in experiment.methods:
        results = rows[method.title]
        line = [mean_text(list(at_time(results, t, unit).values())) for t in times]
        lines.append([method.title, *line, *_efforts(results)])
    return Table(f"{data.title}: validation figures at equal times, {unit.name}", headings, lines)


def equal_table(experiment: Experiment, data: DataSet, rows: Rows) -> Table:
    """Return the table of validation figures at equal steps and at equal times, with differences to the baseline."""
    unit = experiment.unit
    steps = common_steps(result for results in rows.values() for result in results)
    time = shared_time(rows, unit)
    known = not math.isnan(time)
    minus = f"minus {experiment.compared} [95 %]"
    reached = [f"after {steps:,.0f} steps", minus, f"by {seconds_text(time)}", minus] if known else []
    headings = ["method", *reached, "steps", "fit, s", "measuring, s"]
    lines = []
    for method in experiment.methods:
        results, line, baseline = rows[method.title], [], experiment.against(method) or ""
        for read, place in ((at_steps, steps), (at_time, time)) if known else ():
            ours, theirs = read(results, place, unit), read(rows.get(baseline, []), place, unit)
            line.append(mean_text(list(ours.values())))
            line.append("0" if method.title == baseline else difference_text(paired_difference(ours, theirs)))
        lines.append([method.title, *line, *_efforts(results)])
    title = f"{data.title}: validation figures at equal steps and at equal times, {unit.name}"
    return Table(title, headings, lines, _how_read(time) if known else [])


def _how_read(time: float) -> list[str]:
    """Return what is read off the curves, and why it may be."""
    return [
        "Equal steps: the number that every fit of these data has made, on a straight line between two validations. "
        f"Equal time: the best figure by {seconds_text(time)} of the fit, validation included.",
        "Behind its warm-up the learning rate does not fall, and what is validated is a moving average of the "
        "weights: a figure in the middle of a fit is that of a fit which ends there.",
    ]


def _efforts(results: Sequence[CellResult]) -> list[str]:
    """Return the columns of steps and seconds."""
    efforts = (
        [result.course.steps for result in results],
        [result.course.seconds for result in results],
        [result.measuring_seconds for result in results],
    )
    return [mean_text(effort, 0, error=False) for effort in efforts]
