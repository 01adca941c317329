"""Measuring a run, once the words of the command are parsed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from likelify.app.progress import share_done
from likelify.app.show import command, console, show_evaluation, warnings_last
from likelify.data import Source, SplitName
from likelify.fitting.recipes import usual_draws
from likelify.fitting.run import Run


def evaluate_command(
    path: Path, split: SplitName, given: dict[str, Any], changes: dict[str, object], *, gap: bool = False
) -> None:
    """Measure a run on its own data, with the numbers of draws and items that are given.

    With changes: of settings of its model that leave the weights as they are.
    """
    from likelify.fitting.settings import Draws

    run = Run.load(path)
    draws = Draws.parse(usual_draws(run.config.data).model_dump() | given)
    if gap:
        from likelify.fitting.metrics import gap_draws

        given |= {"gaps": gap_draws(draws.iw_samples)}
    measure(run, None, split=split, changes=changes, **given)


def measure(run: Run, source: Source | None, **effort: Any) -> None:
    """Measure a run, keep and print its held-out figures, and then what there is to know of them."""
    with warnings_last():
        with share_done(console, "evaluating") as show:
            measured = run.evaluate(source, on_batch=show, **effort)
        show_evaluation(measured, run.config.data)
    if measured.iw is None and not measured.exact and effort.get("iw_samples", 1):
        console.print(
            "No importance weighting: the log-determinant is a random estimate here, and the figure would be biased "
            "upwards. Without noise, for small images: "
            + command("evaluate", run.path, "--set", "log_det=exact", "--iw-samples", 10)
        )
