"""Passes of items shared out among processes: what comes back is in order, and the same for any number of them."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from likelify import errors
from likelify.data import Batch, ItemBatch, Items
from likelify.data.graphs import packed
from likelify.errors import ConfigError, LikelifyError, ProcessError
from likelify.fitting.scoring.likelihoods import Likelihoods
from likelify.fitting.scoring.scorer import Scored, Scorer, Wanted
from likelify.machine import processors

if TYPE_CHECKING:
    from likelify.fitting.run import Run

# How long one process works alone before others are started unasked; each takes seconds to start.
ALONE_SECONDS = 20.0
# Passes in work or waiting, for each process.
AHEAD = 2
END_SECONDS = 60


def scored_passes(
    run: Run, scorer: Scorer, wanted: Wanted, items: Items, *, start: int = 0, jobs: int | None = 1
) -> Iterator[tuple[ItemBatch, Scored]]:
    """Score items pass by pass, in their order.

    Args:
        run: the run of the model.
        scorer: of the run, for this process.
        wanted: what it was made for.
        items: the items.
        start: number of the first pass.
        jobs: processes; None for one, and as many as there are processors if there is work for longer than that is
            worth. Others than this one have one thread each.

    Raises:
        ConfigError: if the number of processes does not fit, or other processes cannot build the model.
        ProcessError: if one of them was ended.
    """
    jobs = _checked(run, jobs)
    passes = enumerate(items.batches(scorer.effort.items, start * scorer.effort.items), start)
    alone = float("inf") if jobs == 1 else time.monotonic() + ALONE_SECONDS
    if jobs in (1, None):
        with scorer.flow.frozen():
            for number, part in passes:
                yield part, scorer(part.batch, number, items.name)
                if time.monotonic() > alone:
                    break
    following = next(passes, None)
    if following is not None:
        with Helpers(run, wanted, items.name, jobs or processors()) as helpers:
            yield from helpers.scored(_after(following, passes))


def _after(first: Any, rest: Iterable[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _checked(run: Run, jobs: int | None) -> int | None:
    if jobs is not None and (not isinstance(jobs, int) or jobs < 1):
        raise ConfigError(f"The number of processes must be 1, 2, ..., got {jobs}.")
    if run.module is not None:
        if jobs not in (None, 1):
            raise ConfigError(
                "A model that was made of a network of yours is scored in one process: leave the number of processes "
                "out."
            )
        return 1
    return 1 if jobs is None and processors() == 1 else jobs


class Helpers:
    """Processes that score passes with the model of a run, one thread each.

    They end with the block; and by themselves if this process is killed, since what they read from then ends.
    """

    def __init__(self, run: Run, wanted: Wanted, name: str, number: int) -> None:
        request = {"run": str(run.path.resolve()), "digest": run.digest(), "wanted": wanted.model_dump(), "name": name}
        self.number, self.idle = number, queue.SimpleQueue[_Helper]()
        self.all: list[_Helper] = []
        self.threads = ThreadPoolExecutor(number)
        self.request = request

    def __enter__(self) -> Helpers:
        try:
            for _ in range(self.number):
                self.all.append(_Helper(self.request))
                self.idle.put(self.all[-1])
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)
        for helper in self.all:
            helper.end()
        self.threads.shutdown()

    def scored(self, passes: Iterable[tuple[int, ItemBatch]]) -> Iterator[tuple[ItemBatch, Scored]]:
        """Give passes to whoever is idle, and what comes back in their order."""
        waiting: deque[tuple[ItemBatch, Future[Scored]]] = deque()
        for number, part in passes:
            waiting.append((part, self.threads.submit(self._score, number, part.batch)))
            if len(waiting) >= AHEAD * self.number:
                yield _first(waiting)
        while waiting:
            yield _first(waiting)

    def _score(self, number: int, batch: Batch) -> Scored:
        helper = self.idle.get()
        try:
            return helper.score(number, batch)
        finally:
            self.idle.put(helper)


def _first(waiting: deque[tuple[ItemBatch, Future[Scored]]]) -> tuple[ItemBatch, Scored]:
    part, future = waiting.popleft()
    return part, future.result()


class _Helper:
    """One process."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        single = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        # A session of its own: Ctrl-C reaches the first process alone, which then ends the others.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "likelify.fitting.score_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            env=os.environ | single,
            start_new_session=True,
        )
        self.request: dict[str, Any] | None = request

    def score(self, number: int, batch: Batch) -> Scored:
        given = {"x": batch.x, "labels": batch.labels}
        arrays = {name: values.numpy() for name, values in given.items() if values is not None}
        arrays = {name: np.ascontiguousarray(part) for name, part in (arrays | packed(batch.structure)).items()}
        try:
            if self.process.stdin is None or self.process.stdout is None:
                raise OSError("no pipes")
            if self.request is not None:
                send(self.process.stdin, self.request, {})
                self.request = None
            send(self.process.stdin, {"number": number}, arrays)
            answer = receive(self.process.stdout)
        except OSError:
            answer = None
        if answer is None:
            raise ProcessError(f"A process that shares the scoring has ended: {self._reason()}. Try fewer processes.")
        header, found = answer
        if "error" in header:
            raise _error(header["error"], header["text"])
        gains = found.pop("gains", None)
        likelihoods: dict[str, Any] = {"standard_error": None} | found
        return Scored(Likelihoods(**likelihoods), gains)

    def _reason(self) -> str:
        code = self.process.wait(END_SECONDS)
        self.said.seek(0)
        lines = self.said.read().decode(errors="replace").strip().splitlines()
        killed = f"by signal {-code}" + (" (out of memory?)" if code == -9 else "") if code < 0 else f"with code {code}"
        return killed + (f": {lines[-1][:300]}" if lines else "")

    def end(self) -> None:
        """End the process; what it was doing is done again another time."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.said):
            with suppress(OSError):  # what is left in a pipe whose reader is gone
                if pipe is not None:
                    pipe.close()


def _error(name: str, text: str) -> LikelifyError:
    found = getattr(errors, name, None)
    return found(text) if isinstance(found, type) and issubclass(found, LikelifyError) else ProcessError(text)


def send(pipe: IO[bytes], header: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Write a message: a header of JSON, and arrays as safetensors."""
    from safetensors.numpy import save

    content = save(arrays, metadata={"header": json.dumps(header)})
    pipe.write(len(content).to_bytes(8, "little"))
    pipe.write(content)
    pipe.flush()


def receive(pipe: IO[bytes]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Read a message; return None where the other side has ended."""
    from safetensors.numpy import load

    length = pipe.read(8)
    content = pipe.read(int.from_bytes(length, "little")) if len(length) == 8 else b""
    if not content or len(content) < int.from_bytes(length, "little"):
        return None
    size = int.from_bytes(content[:8], "little")
    header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["header"])
    return header, load(content)
