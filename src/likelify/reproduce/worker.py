"""A process that runs one cell: `python -m likelify.reproduce.worker`.

Its order is the first line of standard input, as JSON; its progress goes to standard output, a JSON line at a time.
Standard input stays open as long as the parent lives: when it ends, so does the worker.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

from likelify.errors import LikelifyError

REPORT_SECONDS = 0.5


def main() -> None:
    """Read the order, run the cell, report."""
    signal.signal(signal.SIGTERM, _stop)
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        _run(order)
    except (LikelifyError, OSError, MemoryError) as error:
        _say(error=f"{type(error).__name__}: {' '.join(str(error).split())}")
        sys.exit(2)


def _run(order: dict) -> None:
    import torch

    from likelify.reproduce.cell import Cell
    from likelify.reproduce.measure import run_cell

    if order["threads"] is not None:
        torch.set_num_threads(order["threads"])
    last = 0.0

    def report(phase: str, share: float, figure: str) -> None:
        nonlocal last
        if (now := time.monotonic()) - last > REPORT_SECONDS:
            last = now
            _say(phase=phase, share=share, figure=figure)

    weights = order["weights"]
    run_cell(
        Cell.parse(order["cell"]),
        Path(order["folder"]),
        None if weights is None else Path(weights),
        reuse=order["reuse"],
        report=report,
    )


def _say(**words: object) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def _stop(*_: object) -> NoReturn:
    # An exception, so that a file that is being written is cleaned up.
    sys.exit(130)


def _follow_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
