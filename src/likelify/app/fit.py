"""Fitting, once the words of the command are parsed.

torch is imported where it is needed first: errors about names, files and settings come before.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likelify.app.evaluate import measure
from likelify.app.progress import FitProgress
from likelify.app.report import keep_report
from likelify.app.score import keep_reference
from likelify.app.show import console, program, say_remarks
from likelify.app.signals import ended_like_ctrl_c
from likelify.data import Facts, SourceOptions, open_source
from likelify.errors import ConfigError
from likelify.fitting.figures import Unit
from likelify.fitting.run import Run
from likelify.fitting.sampling import keep_samples

if TYPE_CHECKING:
    from likelify.fitting.choose import Choice
    from likelify.flows import Flow


def fit_command(
    source_name: str,
    words: Mapping[str, Any],
    *,
    options: SourceOptions | None = None,
    threads: int | None,
    out: Path | None,
    report: bool = True,
) -> None:
    """Fit a model, evaluate it, draw samples, and say where everything is; `words` are arguments of `choose`."""
    check_names(words)
    # Before anything is imported or read that takes seconds.
    console.print(f"Opening {source_name}")
    source = open_source(source_name, options)
    facts = source.facts()
    from likelify.fitting.choose import choose

    choice = choose(facts, **words)
    use_threads(threads, choice)
    from likelify.fitting.checks import check_columns
    from likelify.fitting.loop import fit
    from likelify.fitting.settings import RunConfig
    from likelify.fitting.sources import chosen
    from likelify.seeding import seeded

    check_columns(source)
    config = RunConfig(data=facts, opened=chosen(source, options), **choice.configured())
    with seeded(choice.fit.seed):
        flow = choice.model.build()
    run = Run.create(out or default_folder(facts), config, numbered=out is None)
    _announce(choice, flow, facts)
    progress = FitProgress(console, Unit.of(facts.kind))
    with progress.bar, ended_like_ctrl_c():
        course = fit(flow, source, run=run, on_step=progress.update)
    console.print(f"Training ended ({course.reason}) after {course.steps} steps, {course.seconds:.0f} s.")
    best = course.best
    if best is None:
        console.print("No weights were worth keeping yet.")
        return
    shown = Unit.of(facts.kind).show(best.validation_bits, best.validation_nats)
    console.print(f"Best weights: step {best.step}, validation {shown}.")
    if course.reason == "interrupted":
        console.print(f"They are kept. Go on with: {program()} evaluate {run.path}")
        return
    console.print(f"Evaluating on {facts.sizes['test']} test {facts.items}; this comes on top of --max-time.")
    measure(run, source)
    samples = keep_samples(run, source)
    keep_reference(run, flow)
    if report:
        keep_report(run, source)
    console.print(f"Run folder: {run.path}")
    if samples is not None:
        console.print(f"Samples: {samples}")
    _say_what_comes_next(run, flow, choice, samples)


def dry_run_command(
    source_name: str | None, words: Mapping[str, Any], *, options: SourceOptions | None = None, threads: int | None
) -> None:
    """Try a model on made-up items of the shape of a source, or on images of the shape of CIFAR-10."""
    check_names(words)
    facts = MADE_UP if source_name is None else open_source(source_name, options).facts()
    from likelify.fitting.choose import choose

    choice = choose(facts, **words)
    use_threads(threads, choice)
    from likelify.app.dry_run import BATCH, dry_run

    named = {**words["fit_settings"], **words["settings"]}
    dry_run(choice, facts, choice.fit.batch_size if "batch_size" in named else BATCH)


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


def use_threads(threads: int | None, choice: Choice) -> None:
    """Set the number of CPU threads: what was asked for, or what suits the data."""
    threads = choice.threads if threads is None else threads
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"--threads must be at least 1, got {threads}.")
        import torch

        torch.set_num_threads(threads)


def default_folder(facts: Facts) -> Path:
    """Name a new run folder, after the file for a table of the user."""
    name = Path(facts.name).name.partition(".")[0] if facts.family == "table" else facts.family
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


def _say_what_comes_next(run: Run, flow: Flow, choice: Choice, samples: Path | None) -> None:
    follow = [] if samples is None else [f"sample {run.path} -n 100 -o samples{samples.suffix}"]
    if flow.likelihood != "estimate":
        follow.insert(0, f"evaluate {run.path} --iw-samples {10 * choice.draws.iw_samples}")
    for number, words in enumerate(follow):
        console.print(f"{'      ' if number else 'Next: '}{program()} {words}")
