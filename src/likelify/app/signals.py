"""Ends of a long command that come from outside."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn


@contextmanager
def ended_like_ctrl_c() -> Iterator[None]:
    """Let the signals to end, and of a terminal that is closed, do in the block what Ctrl-C does.

    What ignores such a signal, as `nohup` lets a program do, goes on ignoring it.
    """

    def stop(number: int, frame: Any) -> NoReturn:  # noqa: ARG001 - as handlers are called
        raise KeyboardInterrupt

    meant = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in meant}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
