"""Runs many cells at a time, each in a process of its own; if one fails, the others go on."""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from likelify.errors import ConfigError
from likelify.reproduce.costs import AnyCell, CostCell
from likelify.reproduce.store import save_failure
from likelify.settings import Settings

PATIENCE_SECONDS = 10
# What starts several processes for one cell; as `torchrun` does it.
LAUNCH = ("-m", "torch.distributed.run", "--standalone")
# Of the environment: the cell, and the folders.
REQUEST = "LIKELIFY_CELL"


@dataclass(frozen=True)
class Event:
    """A report of how the run of a cell proceeds.

    Attributes:
        kind: the cell has started, proceeded, finished or failed.
        cell: the cell.
        phase: what it is doing, such as fitting.
        share: the part of the phase that is done, 0 to 1.
        figure: the latest validation figure, as text.
        message: the reason of a failure.
    """

    kind: Literal["start", "progress", "finish", "fail"]
    cell: AnyCell
    phase: str = ""
    share: float = 0.0
    figure: str = ""
    message: str = ""


class Folders(Settings):
    """The folders that cells write to.

    Attributes:
        results: folder of the results.
        runs: folder of the run folders of fits, which are large.
        reuse: take the models of fits that have ended there.
    """

    results: Path
    runs: Path
    reuse: bool = False


def run_cells(
    cells: Sequence[AnyCell],
    folders: Folders,
    *,
    jobs: int = 1,
    devices: int = 1,
    on_event: Callable[[Event], None] | None = None,
) -> dict[str, str]:
    """Run cells, `jobs` at a time, each in a process of its own; on the CPU with one thread each.

    A cell that measures costs waits until the ones before it are done, and no other runs beside it.

    Ctrl-C, or any other end of this function, ends the processes; cells that have finished are on disk, and why one
    failed is kept beside them.

    Args:
        cells: the cells, in the order of their start.
        folders: where they write.
        jobs: number of cells at a time.
        devices: processes of each cell, every one with a device of its own; several leave room for one job.
        on_event: called with every event, in the calling thread.

    Returns:
        For each cell that failed its name and the reason.

    Raises:
        ConfigError: if several jobs would be on the same devices.
        RunError: if the file of the results cannot be read.
    """
    if jobs > 1 and devices > 1:
        raise ConfigError(f"{jobs} jobs of {devices} devices each would be on the same ones; take jobs=1.")
    waiting, events, failures = list(reversed(cells)), queue.Queue[Event](), {}
    running: dict[str, _Worker] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs and not (running and _alone(waiting[-1], running.values())):
                worker = _Worker(waiting.pop(), folders, events, devices)
                running[worker.cell.name] = worker
            # A limit on the wait, for on some systems nothing else lets Ctrl-C through.
            try:
                event = events.get(timeout=0.5)
            except queue.Empty:
                continue
            if event.kind in ("finish", "fail"):
                running.pop(event.cell.name).wait()
            if event.kind == "fail":
                failures[event.cell.name] = event.message
                save_failure(folders.results, event.cell.name, event.message)
            if on_event is not None:
                on_event(event)
    finally:
        for worker in running.values():
            worker.end()
        for worker in running.values():
            worker.wait()
    return failures


def _alone(cell: AnyCell, running: Iterable[_Worker]) -> bool:
    """Tell whether a cell must not run beside those that are running."""
    return isinstance(cell, CostCell) or any(isinstance(worker.cell, CostCell) for worker in running)


class _Worker:
    """One process, or several that work on one cell, and the thread that listens to it."""

    def __init__(self, cell: AnyCell, folders: Folders, events: queue.Queue[Event], devices: int = 1) -> None:
        self.cell, self.events = cell, events
        self.error_output = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        single = cell.device == "cpu"
        request = {
            "costs": isinstance(cell, CostCell),
            "cell": cell.model_dump(mode="json"),
            "folders": folders.model_dump(mode="json"),
            "threads": 1 if single else None,
        }
        environment = os.environ | ({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} if single else {})
        many = [] if devices == 1 or isinstance(cell, CostCell) else [*LAUNCH, f"--nproc-per-node={devices}"]
        # A session of its own: Ctrl-C reaches this process alone, which then ends the others in good order.
        self.process = subprocess.Popen(
            [sys.executable, *many, "-m", "likelify.reproduce.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.error_output,
            env=environment | {REQUEST: json.dumps(request)},
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def _listen(self) -> None:
        error = ""
        self.events.put(Event("start", self.cell))
        try:
            if self.process.stdout is None:
                raise OSError("The process of a cell was started without pipes.")
            for line in self.process.stdout:
                progress = _parse(line)
                error = progress.pop("error", error)
                if progress:
                    self.events.put(Event("progress", self.cell, **progress))
        except (OSError, TypeError) as trouble:
            error = error or str(trouble)
        code = self.process.wait()
        message = "" if code == 0 else error or self._reason(code)
        self._close()
        self.events.put(Event("finish" if code == 0 else "fail", self.cell, message=message))

    def _close(self) -> None:
        self.error_output.close()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):  # what is left in a pipe whose reader is gone
                if pipe is not None:
                    pipe.close()

    def _reason(self, code: int) -> str:
        self.error_output.seek(0)
        said = last_words(self.error_output.read().decode(errors="replace"))
        killed = f"the process was ended by signal {-code}" if code < 0 else f"the process ended with code {code}"
        hint = " (out of memory?)" if code == -9 else ""
        return f"{killed}{hint}" + (f": {said}" if said else "")

    def end(self) -> None:
        """Ask the process to end."""
        if self.process.poll() is None:
            self.process.terminate()

    def wait(self) -> None:
        """Wait until it has, and insist if it takes too long."""
        try:
            self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.listener.join()


def last_words(errors: str) -> str:
    """Return the line that says most of what processes wrote before they failed.

    That is the last error of a traceback, or else the last line with a word in it: where several processes work on a
    cell, what started them writes a summary behind their tracebacks, which says nothing of the error.
    """
    lines = [line.strip() for line in errors.splitlines() if re.search(r"\w", line)]
    raised = [
        line for line in lines if re.match(r"(\[rank\d+\]: ?)?[A-Za-z_][\w.]*(Error|Exception|Interrupt)\b", line)
    ]
    own = [line for line in raised if "ChildFailedError" not in line]
    return (own or lines or [""])[-1]


def _parse(line: str) -> dict[str, Any]:
    """Read a line of progress; anything else that a library may print there is passed over."""
    try:
        progress = json.loads(line)
    except json.JSONDecodeError:
        return {}
    known = {"phase", "share", "figure", "error"}
    return progress if isinstance(progress, dict) and progress.keys() <= known else {}
