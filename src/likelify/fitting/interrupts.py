"""Ends of a fit that come from outside: they wait until a step, or what is written, is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from likelify.fitting.process import OneProcess

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Lets Ctrl-C end a block only between pieces of work that are whole; a second one ends it at once.

    With several processes all end after the same piece of work, see `OneProcess.together`.

    Taken over are the signals that raise `KeyboardInterrupt` in Python's own way, in the main thread; whoever has a
    handler of his own, or ignores a signal, keeps that.

    Args:
        place: the processes.

    Attributes:
        broken: whether a piece of work was left half done.
    """

    def __init__(self, place: OneProcess) -> None:
        self.place = place
        self.broken = False
        self._busy = self._waiting = False
        self._before: list[int] = []

    def __enter__(self) -> Self:
        """Take the signals over."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is signal.default_int_handler:
                    signal.signal(number, self._come)
                    self._before.append(number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give them back."""
        for number in self._before:
            signal.signal(number, signal.default_int_handler)
        self._before.clear()

    def _come(self, number: int, frame: Any) -> None:  # noqa: ARG002 - as handlers are called
        if self.place.wants_to_end():
            return
        if self._busy and not self._waiting:
            self._waiting = True
            return
        self.broken = self.broken or self._busy
        raise KeyboardInterrupt

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Let a piece of work end before the block is interrupted."""
        self._busy = True
        try:
            yield
        except BaseException:
            self._busy = self._waiting = False
            raise
        self._busy = False
        if self._waiting:
            self._waiting = False
            raise KeyboardInterrupt
