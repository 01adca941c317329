"""What `likelify reproduce` does: run what is missing of an experiment, and show its report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table

from likelify.app.devices import require_fabric
from likelify.app.progress import CellProgress
from likelify.app.show import command, console, print_table, program
from likelify.errors import ConfigError, RunError
from likelify.machine import processors
from likelify.reproduce.catalog import EXPERIMENTS, experiment
from likelify.reproduce.cell import Cell
from likelify.reproduce.costs import AnyCell
from likelify.reproduce.experiment import DataSet, Experiment, most_hours
from likelify.reproduce.render import PAGE_MARK
from likelify.reproduce.runner import run_cells
from likelify.reproduce.session import Session
from likelify.reproduce.table import Report


def list_command(scale: str, jobs: int) -> None:
    """List the experiments and how long they take."""
    width = max(map(len, EXPERIMENTS))
    for name in EXPERIMENTS:
        entry = experiment(name, scale)
        console.print(f"  {name:<{width}}  {entry.title}")
        if not entry.data:
            console.print(f"  {'':<{width}}  drawn in seconds")
        ready = [data for data in entry.data if not data.from_files]
        own = [data for data in entry.data if data.from_files]
        if ready:
            console.print(f"  {'':<{width}}  {_names(ready)}: {_effort(entry, ready, jobs)}")
        if own:
            console.print(f"  {'':<{width}}  {_names(own)} (your files, --data FOLDER): {_effort(entry, own, jobs)}")
    console.print(f"\nTry the machinery in a minute or two: {program()} reproduce {next(iter(EXPERIMENTS))} --quick")


@dataclass(frozen=True)
class Asked:
    """An experiment as it was asked for.

    Attributes:
        name: of the experiment.
        scale: at which it is run.
        seeds: how many; None for the usual number.
        devices: that share each fit.
        budget: seconds of each fit; None for the usual ones.
        data: folder of the user's files.
        out: folder of the results.
    """

    name: str
    scale: str
    seeds: int | None
    devices: int
    budget: float | None
    data: Path | None
    out: Path | None

    def session(self) -> Session:
        """Open it, if it can be run on so many devices."""
        entry = experiment(self.name, self.scale)
        check_devices(entry, self.devices)
        files = folder_of(self.data)
        return Session.open(entry, seeds=self.seeds, budget=self.budget, files=files, out=self.out)


def reproduce_command(
    asked: Asked, *, jobs: int, again: bool, render_only: bool, html: Path | None, words: Sequence[str]
) -> None:
    """Run the cells that are missing, then show the report; `words` repeat the command."""
    check_page(html)
    session = asked.session()
    if render_only and session.cells and not session.of("finished"):
        others = "".join(f" {state.cell.name} is {state.status}: {state.why}." for state in session.of("stale")[:1])
        raise RunError(
            f"There is nothing to show: no cell of {asked.name} has been run in '{session.results}'.{others} Leave "
            "--render-only out to run it, or name the folder of its results by --out."
        )
    failures: dict[str, str] = {}
    if session.cells and not render_only:
        session = session.checked()
        failures = _run(session, jobs, asked.devices, again=again, command=command("reproduce", *words))
    session = session.again()
    report = session.report()
    show(report)
    for file in session.write(report, html):
        console.print(f"Report: {file}")
    for name in () if report.drawing is None else report.drawing.files:
        console.print(f"Figure: {session.pictures / name}")
    if failures:
        lines = " ".join(f"{cell}: {reason}" for cell, reason in failures.items())
        raise RunError(
            f"{len(failures)} of {len(session.cells)} cells failed; the others are kept. {lines} To try these again, "
            "give the same command."
        )


def check_page(file: Path | None) -> None:
    """Refuse to write a page where something else is, before anything is run for it.

    Raises:
        ConfigError: unless it is a new file, or a page of ours, that ends in .html.
    """
    if file is None:
        return
    if file.suffix.lower() not in (".html", ".htm") or file.is_dir():
        raise ConfigError(f"--html writes a page, such as results.html; '{file}' is none.")
    if file.exists() and PAGE_MARK.encode() not in file.read_bytes()[:2000]:
        raise ConfigError(f"--html: '{file}' exists and is no page of likelify. Name another file.")


def folder_of(data: Path | None) -> str | None:
    """Return the folder of the user's data, from the root.

    Raises:
        ConfigError: if there is no such folder.
    """
    if data is not None and not data.is_dir():
        raise ConfigError(f"--data '{data}' is not a folder.")
    return None if data is None else str(data.resolve())


def check_devices(entry: Experiment, devices: int) -> None:
    """Refuse several devices where cells are timed on one processor, or where there is no Fabric.

    Raises:
        ConfigError: saying what to leave out.
        MissingDependencyError: if Fabric is not installed.
    """
    if devices < 1:
        raise ConfigError(f"--devices must be at least 1, got {devices}.")
    if devices > 1 and entry.device == "cpu":
        raise ConfigError(
            f"--devices {devices} is for --scale paper. At the scale '{entry.scale}' a fit has one processor, whose "
            "time is what is compared; leave it out."
        )
    if devices > 1:
        require_fabric()


def jobs_beside(devices: int, jobs: int | None) -> int:
    """Return how many cells run at a time: as many as were asked for; by default two, or one if devices share it.

    Raises:
        ConfigError: if there would be none, or several that share the same devices.
    """
    if jobs is None:
        return 2 if devices == 1 else 1
    if jobs < 1:
        raise ConfigError(f"--jobs must be at least 1, got {jobs}.")
    if jobs > 1 and devices > 1:
        raise ConfigError(
            f"With --devices {devices} all devices share one cell, so that --jobs {jobs} would run several on the same "
            "ones. Leave --jobs out."
        )
    return jobs


def show(report: Report) -> None:
    """Print a report."""
    console.print(f"\n{report.title}\n")
    for text in report.introduction:
        console.print(f"{text}\n")
    for text in () if report.drawing is None else report.drawing.caption:
        console.print(f"{text}\n")
    for text in report.discussion:
        console.print(f"- {text}")
    for entry in report.tables:
        table = Table(title=entry.title, title_justify="left", box=SIMPLE)
        for number, heading in enumerate(entry.headings):
            table.add_column(heading, justify="right" if number else "left")
        for row in entry.rows:
            table.add_row(*row)
        print_table(table)
        for note in entry.notes:
            console.print(f"- {note}")
    for picture in report.pictures:
        console.print(f"Picture of {picture.title}: {picture.file}")


def _run(session: Session, jobs: int, devices: int, *, again: bool, command: str) -> dict[str, str]:
    for source, reason in session.absent.items():
        console.print(f"Left out: {source} cannot be opened. {reason}")
    if session.absent and not session.of("finished") and len(session.absent) == len(session.experiment.data):
        raise RunError(
            f"None of the data of {session.experiment.name} can be opened, so there is nothing to run. Name their "
            "folder with --data."
        )
    for state in session.of("damaged"):
        console.print(f"Damaged, so run again: {state.cell.name}: {state.why}")
    for state in session.of("failed"):
        console.print(f"Failed before, so tried again: {state.cell.name}: {state.why}")
    stale = session.of("stale")
    for state in stale:
        console.print(f"Stale: {state.cell.name}: {state.why}")
    if stale and not again:
        console.print("Stale cells are left as they are and out of the table; --again replaces them.")
    todo = session.todo(again=again)
    done = len(session.of("finished"))
    if not todo:
        console.print(f"Nothing to run: {done} of {len(session.cells)} cells are there, in {session.results}.")
        return {}
    time = "" if most_hours(todo, jobs) is None else f", {time_of(todo, jobs)}"
    console.print(f"{done} of {len(session.cells)} cells are there; running {len(todo)}, {jobs} at a time{time}.")
    if jobs > processors():
        console.print(f"More jobs than the {processors()} processors there are: their times will not be those of one.")
    try:
        progress = CellProgress(console, len(todo))
        with progress.bar:
            return run_cells(todo, session.folders(again=again), jobs=jobs, devices=devices, on_event=progress.update)
    except KeyboardInterrupt:
        left = len(session.again().todo(again=again))
        console.print(f"Interrupted. Finished cells are kept; {left} are left. Go on with: {command}")
        raise


def _names(data: Sequence[DataSet]) -> str:
    return ", ".join(each.title for each in data)


def _effort(entry: Experiment, data: Sequence[DataSet], jobs: int) -> str:
    cells = replace(entry, data=data).cells()
    time = time_of(cells, jobs)
    return f"{len(cells)} cells, {time}" + ("" if time == "days" else f" with --jobs {jobs}")


def time_of(cells: Sequence[AnyCell], jobs: int) -> str:
    """Return in words how long cells take, so many at a time: at most or, where steps end some of the fits, about."""
    hours = most_hours(cells, jobs)
    if hours is None:
        return "days"
    sure = all(cell.is_limited for cell in cells if isinstance(cell, Cell))
    return f"{'at most' if sure else 'about'} {duration(hours)}"


def duration(hours: float) -> str:
    """Return hours in words."""
    if hours >= 1:
        return f"{hours:.1f} hours"
    minutes = math.ceil(60 * hours)
    return f"{minutes} minute{'s' if minutes > 1 else ''}"
