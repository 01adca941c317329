"""How a fit goes, a line at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable

from likelify.fitting.loop import Progress


def tell() -> Callable[[Progress], None]:
    """Return what writes a line to the error output after each validation of a fit."""
    told = -1

    def on_step(progress: Progress) -> None:
        nonlocal told
        last, best = progress.last, progress.best
        if last.step == told:
            return
        told = last.step
        sys.stderr.write(
            f"FlowDensity: {progress.fraction:4.0%} in {progress.seconds:.0f} s, step {last.step}: "
            f"{last.validation_nats:.3f} nats per held-out row (best {best.validation_nats:.3f}, step {best.step})\n"
        )

    return on_step
