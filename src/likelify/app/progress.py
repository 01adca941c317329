"""How long work shows its progress: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from likelify.fitting.figures import Unit

if TYPE_CHECKING:
    from likelify.fitting.loop import Progress
    from likelify.reproduce.runner import Event

LINES = 10
# A column of a bar whose words are not markup.
PlainColumn = partial(TextColumn, markup=False)
TITLE = "{task.description}"
# Where there is no bar, how often a line is printed.
LINE_SECONDS = 30.0


class FitProgress:
    """The progress of a fit, in a unit: `bar` is a context manager, `update` the `on_step` of `fit`."""

    def __init__(self, console: Console, unit: Unit) -> None:
        self.console = console
        self.unit = unit
        self.live = console.is_terminal
        self.bar = Bar(
            PlainColumn("step {task.fields[step]}"),
            BarColumn(),
            PlainColumn("{task.percentage:.0f}%"),
            PlainColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            PlainColumn("{task.fields[left]} left"),
            console=console,
            disable=not self.live,
        )
        self.task = self.bar.add_task("fit", total=1.0, step=0, figures="", left="?")
        self.lines = 0

    def update(self, progress: Progress) -> None:
        """Show one step."""
        left = progress.seconds * (1 - progress.fraction) / max(progress.fraction, 1e-9)
        last = progress.last
        train = f"train {self._figure(last.train_bits, last.train_nats)}"
        if last.train_matching is not None:
            train = f"matching loss {last.train_matching:.4f}"
        best = self._figure(progress.best.validation_bits, progress.best.validation_nats)
        figures = f"{train}, best validation {best} {self.unit.name}"
        if self.live:
            self.bar.update(
                self.task, completed=progress.fraction, step=progress.step, figures=figures, left=_clock(left)
            )
        elif math.floor(progress.fraction * LINES) > self.lines:
            self.lines = math.floor(progress.fraction * LINES)
            self.console.print(
                f"step {progress.step}  {progress.fraction:4.0%}  {figures}  {_clock(progress.seconds)} gone, "
                f"{_clock(left)} left"
            )

    def _figure(self, bits: float | None, nats: float | None) -> str:
        return "..." if bits is None or nats is None else f"{self.unit.pick(bits, nats):.3f}"


class CellProgress:
    """The progress of cells: `bar` is a context manager, `update` takes the events of `run_cells`."""

    def __init__(self, console: Console, cells: int) -> None:
        self.console = console
        self.live = console.is_terminal
        self.bar = Bar(
            PlainColumn(TITLE),
            BarColumn(bar_width=24),
            PlainColumn("{task.fields[words]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not self.live,
        )
        self.cells, self.ended = cells, 0
        self.total = self.bar.add_task("all cells", total=float(cells), words="")
        self.tasks: dict[str, TaskID] = {}

    def update(self, event: Event) -> None:
        """Show what happened to a cell."""
        name = event.cell.name
        if event.kind == "start":
            self.tasks[name] = self.bar.add_task(name, total=1.0, words="starting")
            if not self.live:
                self.console.print(f"{name}: started")
        elif event.kind == "progress":
            words = f"{event.phase} {event.share:.0%} {event.figure}"
            self.bar.update(self.tasks[name], completed=event.share, words=words)
        else:
            self._end(event)

    def _end(self, event: Event) -> None:
        self.ended += 1
        self.bar.remove_task(self.tasks.pop(event.cell.name))
        self.bar.update(self.total, completed=self.ended, words=f"{self.ended} of {self.cells}")
        outcome = "done" if event.kind == "finish" else f"FAILED: {event.message}"
        self.console.print(f"{event.cell.name}: {outcome} ({self.ended} of {self.cells})")


@contextmanager
def share_done(console: Console, title: str) -> Iterator[Callable[[float], None]]:
    """Show a bar on a terminal; the block gets a function that takes the share that is done."""
    columns = (
        PlainColumn(TITLE),
        BarColumn(),
        PlainColumn("{task.percentage:.0f}%"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda share: bar.update(task, completed=share)


class ItemProgress:
    """The progress of items: `bar` is a context manager, `update` takes how many are done, those of before included.

    Args:
        console: to show it on.
        title: of the work.
        items: the word for several items.
        count: of all items, or None where only the work tells.
    """

    def __init__(self, console: Console, title: str, items: str, count: int | None) -> None:
        self.console, self.title, self.items, self.count = console, title, items, count
        self.live = console.is_terminal
        columns = (
            PlainColumn(TITLE),
            BarColumn(),
            PlainColumn("{task.fields[words]}"),
            TimeElapsedColumn(),
        )
        self.bar = Bar(*columns, console=console, disable=not self.live, transient=True)
        self.task = self.bar.add_task(title, total=count, words="")
        self.done, self.begun, self.lines = 0, None, 0
        self.before = 0

    def update(self, done: int) -> None:
        """Show how many items are done."""
        now, self.done = time.monotonic(), done
        if self.begun is None:
            self.begun, self.before = now, done
        words = f"{done:,} {self.items}"
        if self.count is not None:
            words = f"{done:,} of {self.count:,} {self.items}"
            if done > self.before:
                left = (now - self.begun) * (self.count - done) / (done - self.before)
                words += f", {_clock(left)} left"
        if self.live:
            self.bar.update(self.task, completed=done, words=words)
        elif now - self.begun > LINE_SECONDS * (self.lines + 1):
            self.lines = int((now - self.begun) / LINE_SECONDS)
            self.console.print(f"{self.title}: {words}")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes}:{seconds:02d}"
