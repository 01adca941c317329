"""A process that runs one cell: `python -m likelify.reproduce.worker`.

Its request is JSON in the environment, and it writes its progress to standard output as JSON lines. Standard input
stays open as long as the parent lives: when it ends, so does the worker. Several of them may work on one cell: then the
first one speaks.
"""

import json
import os
import signal
import sys
import threading
import time

from likelify.errors import LikelifyError
from likelify.reproduce.runner import REQUEST, Folders

REPORT_SECONDS = 0.5


def main() -> None:
    """Read the request, run the cell, report its progress or its error."""
    # As Ctrl-C: a fit saves where it is, and a file that is being written is cleaned up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    request = json.loads(os.environ[REQUEST])
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        _run(request)
    except KeyboardInterrupt:
        sys.exit(130)
    except (LikelifyError, OSError) as error:
        _send(error=" ".join(str(error).split()))
        sys.exit(2)
    except MemoryError:
        _send(error="There is not enough memory for this cell; run fewer jobs at a time.")
        sys.exit(2)


def _run(request: dict) -> None:
    import torch

    from likelify.fitting.joining import joined_processes
    from likelify.reproduce.cell import Cell
    from likelify.reproduce.costing import run_costs
    from likelify.reproduce.costs import CostCell
    from likelify.reproduce.measure import run_cell

    if request["threads"] is not None:
        torch.set_num_threads(request["threads"])
    last = 0.0

    def on_progress(phase: str, share: float, figure: str) -> None:
        nonlocal last
        if (now := time.monotonic()) - last > REPORT_SECONDS:
            last = now
            _send(phase=phase, share=share, figure=figure)

    folders = Folders.parse(request["folders"])
    if request["costs"]:
        run_costs(CostCell.parse(request["cell"]), folders, on_progress)
        return
    cell = Cell.parse(request["cell"])
    if not _is_one_of_many():
        run_cell(cell, folders, on_progress)
        return
    with joined_processes(cell.device, int(os.environ["LOCAL_WORLD_SIZE"])) as place:
        run_cell(cell, folders, on_progress, place=place)


def _is_one_of_many() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _send(**values: object) -> None:
    if os.environ.get("RANK", "0") != "0":
        return
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def _follow_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
