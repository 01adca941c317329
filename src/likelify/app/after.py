"""A fit seen through: trained, then measured, drawn from and scored; or stopped, and how to go on is said."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from likelify.app.devices import Where
from likelify.app.environment import INTERRUPTED, is_silent
from likelify.app.evaluate import measure
from likelify.app.made import is_noted, note
from likelify.app.progress import FitProgress
from likelify.app.report import keep_report
from likelify.app.score import keep_reference
from likelify.app.show import command, console
from likelify.app.signals import ended_like_ctrl_c
from likelify.data import Source
from likelify.errors import ProcessError, RunError
from likelify.fitting.drawing.sampling import keep_samples
from likelify.fitting.drawing.writing import endings, free_file
from likelify.fitting.figures import Course, Unit
from likelify.fitting.locks import locked
from likelify.fitting.recipes import usual_draws
from likelify.fitting.run import Run

if TYPE_CHECKING:
    from likelify.fitting.loop import Progress
    from likelify.flows import Flow


@dataclass(frozen=True)
class Step:
    """Something that is made of a run when its fit has ended.

    Attributes:
        is_done: whether it is there, made of the weights that the run has.
        make: makes it, and prints what there is to say.
    """

    is_done: Callable[[Run], bool]
    make: Callable[[Run, Source, Flow], object]


def see_through(
    run: Run,
    source: Source,
    train: Callable[[Callable[[Progress], None] | None], Course],
    *,
    where: Where,
    report: bool = True,
) -> None:
    """Fit, and make all that belongs to a fitted run; other processes are kept out of its folder meanwhile.

    Args:
        run: the run.
        source: its data.
        train: fits, given what is to be called after each step.
        where: in which processes; the first one does all but training.
        report: also make the page of HTML.

    Raises:
        SystemExit: with the code 130, after saying how to go on, if it was interrupted.
    """
    if is_silent():
        _train_along(train, where)
        return
    with locked(run.path, wait=False), ended_like_ctrl_c():
        try:
            progress = FitProgress(console, Unit.of(run.config.data.kind))
            with progress.bar:
                course = train(progress.update)
            _say_how_it_went(run, course)
            _complete(run, source, report=report)
        except KeyboardInterrupt:
            _stop(run)


def _train_along(train: Callable[[None], Course], where: Where) -> None:
    """Train in a process that is not the first; if it was interrupted, end when that has said how to go on."""
    with ended_like_ctrl_c():
        course = train(None)
        if not course.ended:
            with suppress(ProcessError):
                where.place.from_first(None)
            raise SystemExit(INTERRUPTED)


def _complete(run: Run, source: Source, *, report: bool) -> None:
    """Make what a run whose fit has ended does not have yet, and say where everything is."""
    flow = run.flow()
    for step in (*AFTER, REPORT) if report else AFTER:
        if not step.is_done(run):
            step.make(run, source, flow)
    samples = _samples(run)
    console.print(f"Run folder: {run.path}")
    console.print(f"Samples: {samples}")
    _say_what_comes_next(run, flow, samples)


def is_complete(run: Run, *, report: bool = True) -> bool:
    """Tell whether a run has all that is made after its fit."""
    return all(step.is_done(run) for step in ((*AFTER, REPORT) if report else AFTER))


def _say_how_it_went(run: Run, course: Course) -> None:
    console.print(f"Training ended ({course.reason}) after {course.steps} steps, {course.seconds:.0f} s.")
    best = course.best
    if best is not None:
        shown = Unit.of(run.config.data.kind).show(best.validation_bits, best.validation_nats)
        console.print(f"Best weights: step {best.step}, validation {shown}.")
    if course.truncation is not None:
        console.print(course.truncation.words(Unit.of(run.config.data.kind)))
    if course.recording is not None:
        console.print(course.recording)
    if not course.ended:
        raise KeyboardInterrupt


def _stop(run: Run) -> NoReturn:
    """Say how to go on with a run that was interrupted."""
    course = run.course()
    if course is not None and course.best is not None:
        console.print(f"The best weights are kept: {command('evaluate', run.path)}, or sample.")
    what = "What is still to be made of it" if course is not None and course.ended else _where(run)
    console.print(f"{what} goes on with: {command('fit', '--resume', run.path)}")
    raise SystemExit(INTERRUPTED)


def _where(run: Run) -> str:
    """Say from where a fit can go on: not always from where it was stopped, if the disk is full."""
    try:
        saved = run.saved()
    except RunError as error:
        console.print(str(error))
        saved = None
    return "The fit" if saved is None else f"The fit is saved at step {saved.facts.position.step}, and"


def _is_measured(run: Run) -> bool:
    measured = run.evaluation()
    return measured is not None and measured.weights == run.digest()


def _measure(run: Run, source: Source, flow: Flow) -> None:  # noqa: ARG001 - as all steps are called
    facts = run.config.data
    console.print(f"Evaluating on {facts.sizes['test']} test {facts.items}; this comes on top of --max-time.")
    measure(run, source)


def _samples(run: Run) -> Path:
    """Return the file that a run's first samples go to."""
    return run.path / f"samples{endings(run.config.data)[0]}"


def _sample(run: Run, source: Source, flow: Flow) -> None:  # noqa: ARG001 - as all steps are called
    file = _samples(run)
    if file.exists() and not is_noted(run, "samples"):
        # No fit has made it, so that it may be the user's.
        aside = free_file(file.with_name("samples-before"), file.suffix)
        file.rename(aside)
        console.print(f"{file} was there before the fit had ended, and is {aside} now.")
    keep_samples(run, source)


def _noted(name: str, is_there: Callable[[Run], bool], make: Callable[[Run, Source, Flow], object]) -> Step:
    """Return a step that is done if it was after a fit had ended with the weights that the run has."""

    def make_and_note(run: Run, source: Source, flow: Flow) -> None:
        make(run, source, flow)
        note(run, name)

    return Step(lambda run: is_there(run) and is_noted(run, name, of=run.digest()), make_and_note)


# In this order; what is there already is left as it is, unless it was made of other weights or while the fit went on.
AFTER = (
    Step(_is_measured, _measure),
    _noted("samples", lambda run: _samples(run).exists(), _sample),
    _noted(
        "reference",
        lambda run: (run.path / "scores").is_dir(),
        lambda run, source, flow: keep_reference(run, flow),
    ),
)
REPORT = _noted(
    "report",
    lambda run: (run.path / "report.html").exists(),
    lambda run, source, flow: keep_report(run, source),
)


def _say_what_comes_next(run: Run, flow: Flow, samples: Path) -> None:
    conditions = any(column.given for column in run.config.data.meaning)
    which = ["--given", "conditions.csv"] if conditions else ["-n", "100"]
    follow = [["sample", run.path, *which, "-o", f"samples{samples.suffix}"]]
    if flow.likelihood == "bound":
        draws = usual_draws(run.config.data).iw_samples
        follow.insert(0, ["evaluate", run.path, "--iw-samples", 10 * draws])
    for number, words in enumerate(follow):
        console.print(f"{'      ' if number else 'Next: '}{command(*words)}")
