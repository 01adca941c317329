"""Ends of a long command that come from outside."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ended_like_ctrl_c() -> Iterator[None]:
    """Let the signals to end, and of a terminal that is closed, do in the block what Ctrl-C does.

    What ignores such a signal, as `nohup` lets a program do, goes on ignoring it.
    """
    meant = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]
    # The handler of Ctrl-C itself, by which a fit knows what may wait until a step is whole.
    before = {number: signal.signal(number, signal.default_int_handler) for number in meant}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
