"""Scoring items of a file with a run, once the words of the command are parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from likelify.app.progress import share_done
from likelify.app.show import console

if TYPE_CHECKING:
    from likelify.fitting.run import Run
    from likelify.flows import Flow


def keep_reference(run: Run, flow: Flow) -> None:
    """Score the held-out items that new ones are ranked among, and keep that in the run."""
    from likelify.fitting.scoring.reference import reference

    with share_done(console, f"scoring held-out {run.config.data.items}") as show:
        reference(run, flow=flow, on_batch=show)
