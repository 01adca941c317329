"""Fits that are killed: how many of their runs are lost, and how many go on to another result.

A tiny flow is fitted once without a break. Then it is fitted again and again in processes of their own, which get
SIGKILL at random instants spread over the whole time of a fit, from before its folder is made to after its end, up to
four times in a row for the same run. In a third of the runs a checkpoint follows every step, so that many kills fall
into a save; in another third every write is held up for ten milliseconds besides. In the end each run goes on
undisturbed, and its weights, course and evaluation are compared with those of the fit without a break, bit by bit but
for seconds. What saving costs is measured on the default model of the digits.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import likelify as lk
from benchmarks.report import Entry, arguments, report
from likelify import zoo
from likelify.data import ArraySource, open_source
from likelify.fitting import checkpoint
from likelify.fitting.choose import choose
from likelify.fitting.loop import fit
from likelify.fitting.run import CONFIG, Run
from likelify.fitting.scoring.kept import FOLDER as SCORES
from likelify.fitting.settings import FitSettings, RunConfig

STEPS, ROW = 24, 4
# Seconds between checkpoints, and those that a write is held up for, of the kinds of runs.
KINDS = ((30.0, 0.0), (0.0, 0.0), (0.0, 0.01))


@dataclass
class Fate:
    """What became of some runs.

    Attributes:
        kills: processes that were killed before they had ended.
        saving: kills that left a file half written.
        lost: runs that could not go on.
        differ: runs that went on to another result.
    """

    kills: int = 0
    saving: int = 0
    lost: int = 0
    differ: int = 0


def images() -> ArraySource:
    """Return tiny images in which neighbours are equal."""
    values = np.random.default_rng(0).integers(0, 3, (300, 1, 1, 1))
    whole = np.broadcast_to(values, (300, 1, 2, 2))
    parts = {"train": whole[:240], "validation": whole[240:270], "test": whole[270:]}
    return ArraySource("stripes", parts, kind="image", levels=3)


def work(folder: Path, kind: int) -> None:
    """Fit into a folder, or go on there, as somebody does who types the same command again; then evaluate."""
    source = images()
    if (folder / CONFIG).exists():
        run = Run.load(folder)
        if (course := run.course()) is None or not course.ended:
            run.resume(source)
        else:
            # As `likelify fit --resume` does: a kill at the very end of a fit leaves it.
            checkpoint.remove_checkpoint(folder)
    else:
        model = zoo.MODELS["marginal-spline"](
            event_shape=(1, 2, 2), pixel_levels=3, couplings=1, hidden=(8,), dropout=0.1
        )
        settings = FitSettings(
            steps=STEPS, lr=1e-2, batch_size=64, validations=4, warmup=5, checkpoint_seconds=KINDS[kind][0]
        )
        run = Run.create(folder, RunConfig(data=source.facts(), model=model, fit=settings))
        with lk.seeded(0):
            fit(model.build(), source, run=run)
    run.evaluate(source, elbo_samples=2, iw_samples=3)


def started(folder: Path, kind: int) -> int:
    """Start a process that works in a folder; return its number. It is forked, so that it need not import anything."""
    sys.stdout.flush()
    if number := os.fork():
        return number
    code, force, held_up = 1, os.fsync, KINDS[kind][1]

    def force_late(handle: int) -> None:
        force(handle)
        time.sleep(held_up)

    os.fsync = force_late
    try:
        work(folder, kind)
        code = 0
    except BaseException:  # noqa: BLE001 - nothing may go on in this process
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(process: int, seconds: float | None = None) -> int:
    """Wait for a process, or kill it after so many seconds; return its exit code, minus the signal that ended it."""
    until = None if seconds is None else time.monotonic() + seconds
    while True:
        found, status = os.waitpid(process, 0 if until is None else os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if until is not None and time.monotonic() >= until:
            os.kill(process, signal.SIGKILL)
            until = None
        else:
            time.sleep(0.0005)


def results(folder: Path) -> dict[str, Any]:
    """Return all that a run holds but for seconds."""
    run = Run.load(folder)
    course, measured = run.course(), run.evaluation()
    if course is None or measured is None:
        raise RuntimeError(f"'{folder}' is not complete.")
    # What the tolerance of exponentials did is measured when the fit is safe; a kill before that leaves it out.
    values = course.model_dump(exclude={"seconds", "truncation"})
    values["points"] = [{**point, "seconds": None} for point in values["points"]]
    # Scores of held-out items are kept by what goes on, and not by the plain call of `fit`.
    files = sorted(file.name for file in folder.iterdir() if file.name != SCORES)
    return {"weights": run.digest(), "course": values, "evaluation": measured.model_dump(), "files": files}


def killed(folder: Path, kind: int, kills: int, seconds: float, random: Random, fate: Fate) -> None:
    """Start the work in a folder so many times, and kill each before it has ended, if it takes that long."""
    for _ in range(kills):
        # What an earlier kill has left is cleared after an hour only.
        before = set(folder.glob(".*.part"))
        if ended(started(folder, kind), random.uniform(0, seconds)) == -signal.SIGKILL:
            fate.kills += 1
            fate.saving += bool(set(folder.glob(".*.part")) - before)


def survive(kills: int, seed: int, place: Path) -> Fate:
    """Kill fits that many times in all, let each go on to its end, and compare."""
    fate, random, number = Fate(), Random(seed), 0
    times, expected = [], []
    # What is imported late is imported here once.
    work(place / "warm", 0)
    for kind in range(len(KINDS)):
        begin = time.monotonic()
        ended(started(place / f"whole{kind}", kind))
        times.append(time.monotonic() - begin)
        expected.append(results(place / f"whole{kind}"))
    while fate.kills < kills:
        kind, folder = number % len(KINDS), place / f"run{number}"
        row = min(random.randint(1, ROW), kills - fate.kills)
        killed(folder, kind, row, times[kind], random, fate)
        code, number = ended(started(folder, kind)), number + 1
        if code != 0:
            fate.lost += 1
            continue
        # Half-written files, and the lock of a process that was killed when all was kept: it locks nothing.
        for left in [*folder.glob(".*.part"), *folder.glob(".lock")]:
            left.unlink()
        fate.differ += results(folder) != expected[kind]
    return fate


def share_of_saving(steps: int, place: Path) -> tuple[float, int]:
    """Fit the default model of the digits; return the share of its time that checkpoints took, and their number."""
    source = open_source("digits")
    choice = choose(source.facts(), fit_settings={"steps": steps})
    run = Run.create(place / "digits", RunConfig(data=source.facts(), **choice.configured()))
    spent, write = [], checkpoint.Checkpoints._write

    def timed(*arguments: Any) -> None:
        begin = time.perf_counter()
        write(*arguments)
        spent.append(time.perf_counter() - begin)

    checkpoint.Checkpoints._write = timed
    try:
        with lk.seeded(0):
            course = fit(choice.model.build(), source, run=run)
    finally:
        checkpoint.Checkpoints._write = write
    return sum(spent) / course.seconds, len(spent)


def main() -> None:
    """Kill and report."""
    options = arguments(__doc__ or "", more={"--kills": {"type": int, "default": 50}})
    kills = 9 if options.quick else options.kills
    with tempfile.TemporaryDirectory() as folder:
        fate = survive(kills, 0, Path(folder))
        share, number = share_of_saving(60 if options.quick else 600, Path(folder))
    entries = [
        Entry("kills of a fit at random instants", fate.kills, "", better="higher"),
        Entry("of these during a write", fate.saving, "", better="higher"),
        Entry("runs lost", fate.lost, "", 0),
        Entry("runs that went on to another result", fate.differ, "", 0),
        Entry("share of the time of a fit of digits that its checkpoints take", share, "", 0.02),
        Entry("checkpoints of that fit", number, "", better="higher"),
    ]
    report(entries, options.json)


if __name__ == "__main__":
    main()
