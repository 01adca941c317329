"""What `likelify reproduce --dry-run` does: list the cells of an experiment and the hours that they take."""

from collections import Counter

from rich.box import SIMPLE
from rich.table import Table

from likelify.app.reproduce import Asked, time_of
from likelify.app.show import console, print_table
from likelify.reproduce.cell import Cell
from likelify.reproduce.planning import Estimate, device_name, estimates

HEADINGS = ("method", "data", "cells", "steps", "hours a cell")


def plan_command(asked: Asked, *, jobs: int, again: bool) -> None:
    """Print the cells of an experiment that would be run, and the hours that they take, and run nothing."""
    session = asked.session().checked()
    for source, reason in session.absent.items():
        console.print(f"Left out: {source} cannot be opened. {reason}")
    if not session.cells:
        console.print(f"{asked.name} has no cells: its figure is drawn in seconds.")
        return
    cells = session.todo(again=again)
    if there := len(session.cells) - len(cells):
        console.print(f"{there} of {len(session.cells)} cells are there, or their data are not.")
    if not cells:
        console.print("Nothing is left to run.")
        return
    fits = [cell for cell in cells if isinstance(cell, Cell)]
    counts = Counter((cell.method, cell.data.source) for cell in fits)
    # One of each method on each data set, whatever seeds are left.
    first = list({(cell.method, cell.data.source): cell for cell in reversed(fits)}.values())[::-1]
    if unlimited := sum(cell.most_seconds is None for cell in first):
        console.print(f"Measuring one training step of {unlimited} models on {device_name()}; large ones take a while.")
    found = list(estimates(first, asked.devices))
    table = Table(title=f"{asked.name}, scale {asked.scale}", title_justify="left", box=SIMPLE)
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="right" if number > 1 else "left")
    for estimate in found:
        table.add_row(*_row(estimate, counts[estimate.cell.method, estimate.cell.data.source]))
    print_table(table)
    if others := [cell.name for cell in cells if not isinstance(cell, Cell)]:
        console.print(f"And cells of costs, which take minutes: {', '.join(others)}.")
    if any(estimate.measured for estimate in found):
        hours = sum(counts[each.cell.method, each.cell.data.source] * each.hours for each in found) / jobs
        shared = f", each shared by {asked.devices} devices" if asked.devices > 1 else ""
        console.print(
            f"{len(fits)} cells, about {hours:,.1f} hours, {jobs} at a time{shared}: from one training step of each "
            f"model on {device_name()}, scaled to its batches and steps."
        )
    else:
        console.print(f"{len(cells)} cells, {time_of(cells, jobs)}, {jobs} at a time.")


def _row(estimate: Estimate, count: int) -> list[str]:
    steps = "by time" if estimate.steps is None else f"{estimate.steps:,}"
    usual = f"{'at most' if estimate.cell.is_limited else 'about'} {estimate.hours:.2f}"
    hours = f"about {estimate.hours:,.1f}" if estimate.measured else usual
    return [estimate.cell.method, estimate.cell.data.source, str(count), steps, hours]
