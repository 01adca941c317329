"""Going on with the fit of a run."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from likelify.errors import LikelifyWarning
from likelify.fitting.checkpoint import Saved
from likelify.fitting.figures import Course
from likelify.fitting.loop import Progress, fit
from likelify.fitting.process import OneProcess
from likelify.fitting.weights import build_within
from likelify.flows import Flow
from likelify.seeding import seeded

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from likelify.fitting.run import Run


def resume(
    run: Run,
    data: Any = None,
    *,
    fabric: Fabric | OneProcess | None = None,
    on_step: Callable[[Progress], None] | None = None,
) -> Course:
    """Go on with the fit of a run, see `Run.resume`."""
    course = run.course()
    if course is not None and course.ended:
        warnings.warn(run.ended_words(course), LikelifyWarning, stacklevel=3)
        return course
    saved = run.saved()
    source = run.source() if data is None else data
    settings = run.config.fit if saved is None else saved.facts.fit
    return fit(unfitted(run, saved), source, settings, run=run, fabric=fabric, on_step=on_step)


def unfitted(run: Run, saved: Saved | None) -> Flow:
    """Build the model of a run as it was before its fit; with a checkpoint within the bounds that this sets."""
    with seeded(run.config.fit.seed):
        if run.config.model.needs_module:
            return run.config.model.build(run.module)
        if saved is None:
            return run.config.model.build()
        return build_within(run.config.model.build, saved.header, run.path)
