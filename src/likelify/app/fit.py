"""Fitting, once the words of the command are parsed.

torch is imported where it is needed first: errors about names, files and settings come before.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likelify.app.devices import Where
from likelify.app.environment import is_one_of_many
from likelify.app.resume import refuse_taken, resume_command
from likelify.app.show import command, console, say_remarks, show_columns
from likelify.app.threads import use_threads
from likelify.data import Facts, SourceOptions, open_source
from likelify.errors import LikelifyError
from likelify.fitting.locks import LOCK
from likelify.fitting.run import CONFIG, Run

if TYPE_CHECKING:
    from likelify.fitting.choose import Choice
    from likelify.fitting.figures import Course
    from likelify.fitting.loop import Progress
    from likelify.flows import Flow


def fit_command(
    source_name: str,
    words: Mapping[str, Any],
    *,
    options: SourceOptions | None = None,
    threads: int | None,
    out: Path | None,
    report: bool = True,
    where: Where,
) -> None:
    """Fit a model, and make all that belongs to a fitted run; `words` are arguments of `choose`."""
    check_names(words)
    if where.by_first(lambda: out is not None and refuse_taken(out)):
        resume_command(out or Path(), source_name, words, options=options, threads=threads, report=report, where=where)
        return
    # Before anything is imported or read that takes seconds.
    console.print(f"Opening {source_name}")
    with where.agreed():
        source = open_source(source_name, options)
        facts = source.facts()
        from likelify.fitting.choose import choose
        from likelify.fitting.starting import built

        choice = choose(facts, **words)
        use_threads(threads, choice.threads)
        config, flow = built(source, facts, choice, options)
        # Before a folder is made: a device that is not there is refused.
        place = where.place
    run = where.by_first(lambda: Run.create(out or default_folder(facts), config, numbered=out is None))
    _announce(choice, flow, facts)
    show_columns(source)
    console.print(f"Everything goes to {run.path}; if it is stopped: {command('fit', '--resume', run.path)}")
    held_out = f"{config.fit.validated(facts.sizes['validation']):,} {facts.items} for validation"
    console.print(f"First come starting values and a measurement of {held_out}; then steps, at least one.")
    from likelify.app.after import see_through
    from likelify.fitting.loop import fit

    def train(show: Callable[[Progress], None] | None) -> Course:
        return fit(flow, source, run=run, fabric=place, on_step=show)

    try:
        see_through(run, source, train, where=where, report=report)
    except LikelifyError:
        if not is_one_of_many():
            discard(run)
        raise


def discard(run: Run) -> None:
    """Take the folder away that a fit was refused in before it had begun: nothing could go on in it."""
    if run.course() is None and {file.name for file in run.path.iterdir()} <= {CONFIG, LOCK}:
        shutil.rmtree(run.path)


def dry_run_command(
    source_name: str | None, words: Mapping[str, Any], *, options: SourceOptions | None = None, threads: int | None
) -> None:
    """Try a model on a few items like those of a source, or on images of the shape of CIFAR-10."""
    check_names(words)
    source = None if source_name is None else open_source(source_name, options)
    facts = MADE_UP if source is None else source.facts()
    from likelify.fitting.choose import choose

    choice = choose(facts, **words)
    use_threads(threads, choice.threads)
    from likelify.app.dry_run import BATCH, dry_run
    from likelify.fitting.checks import check_columns

    if source is not None:
        check_columns(source)
    named = {**words["fit_settings"], **words["settings"]}
    dry_run(choice, facts, choice.fit.batch_size if "batch_size" in named else BATCH, source)


# The shape and levels where no data are named: those of CIFAR-10, with its ten classes.
MADE_UP = Facts(
    name="made-up images",
    family="made-up images",
    kind="image",
    event_shape=(3, 32, 32),
    levels=256,
    classes=10,
    sizes={},
    fingerprint="",
)


def default_folder(facts: Facts) -> Path:
    """Name a new run folder, after the file or folder of the user if there is one."""
    place = facts.name.removeprefix(f"{facts.family}:")
    name = (
        Path(place).name.partition(".")[0] if facts.family in ("table", "array", "graphs", "images") else facts.family
    )
    name = name or facts.family
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def check_names(words: Mapping[str, Any]) -> None:
    """Answer an unknown model or preset before the data are opened, which can take long."""
    from likelify.zoo import config_class, preset

    for name, find in ((words["model"], config_class), (words["preset"], preset)):
        if name is not None:
            find(name)


def _announce(choice: Choice, flow: Flow, facts: Facts) -> None:
    """Say what is fitted to what, and what the model decided because of the shape of the items."""
    parameters = sum(parameter.numel() for parameter in flow.parameters())
    console.print(f"Fitting {choice.title} ({parameters:,} parameters) to {facts.name}: {facts.description}")
    say_remarks(choice)
