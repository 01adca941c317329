"""How a fit shows its progress: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from likelify.fitting.figures import Unit

if TYPE_CHECKING:
    from likelify.fitting.loop import Progress

LINES = 10


class LiveBar:
    """A context manager that shows `bar` while its block runs."""

    bar: Bar

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()


class FitProgress(LiveBar):
    """A context manager whose `update` is the `on_step` of `fit`; figures are shown in the unit."""

    def __init__(self, console: Console, unit: Unit) -> None:
        self.console = console
        self.unit = unit
        self.live = console.is_terminal
        self.bar = Bar(
            TextColumn("step {task.fields[step]}"),
            BarColumn(),
            TextColumn("{task.percentage:.0f}%"),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]} left"),
            console=console,
            disable=not self.live,
        )
        self.task = self.bar.add_task("fit", total=1.0, step=0, figures="", left="?")
        self.lines = 0

    def update(self, progress: Progress) -> None:
        """Show one step."""
        left = progress.seconds * (1 - progress.fraction) / max(progress.fraction, 1e-9)
        train = self._figure(progress.last.train_bits, progress.last.train_nats)
        best = self._figure(progress.best.validation_bits, progress.best.validation_nats)
        figures = f"train {train}, best validation {best} {self.unit.name}"
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


@contextmanager
def share_done(console: Console, title: str) -> Iterator[Callable[[float], None]]:
    """Show a bar on a terminal; the block gets a function that takes the share that is done."""
    columns = (TextColumn(title), BarColumn(), TextColumn("{task.percentage:.0f}%"), TimeRemainingColumn())
    with Bar(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda share: bar.update(task, completed=share)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes}:{seconds:02d}"
