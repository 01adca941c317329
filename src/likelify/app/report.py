"""The report of a run, once the words of the command are parsed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from likelify.app.show import console, warnings_last
from likelify.fitting.ending import warn_unless_ended
from likelify.fitting.run import Run

if TYPE_CHECKING:
    from likelify.data import Source


def report_command(path: Path, out: Path | None, *, force: bool = False) -> None:
    """Write the report of a run and say where it is."""
    run = Run.load(path)
    console.print(f"Making a report of {run.path} ({run.config.model.model} on {run.config.data.name})")
    warn_unless_ended(run)
    keep_report(run, out=out, force=force)


def keep_report(run: Run, source: Source | None = None, *, out: Path | None = None, force: bool = False) -> None:
    """Write the report of a run, in the run itself unless another place is named, and say how long that took."""
    start = time.monotonic()
    with warnings_last():
        file = run.report(out, source=source, force=force)
    size = max(1, round(file.stat().st_size / 1000))
    console.print(f"Report: {file} ({size:,} kB, made in {time.monotonic() - start:.1f} s)")
