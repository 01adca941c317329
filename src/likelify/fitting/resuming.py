"""Going on with the fit of a run."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from likelify.data import as_source
from likelify.errors import LikelifyWarning, RunError
from likelify.fitting.checkpoint import Saved, remove_checkpoint
from likelify.fitting.figures import Course
from likelify.fitting.loop import Progress, fit
from likelify.fitting.process import OneProcess, processes
from likelify.fitting.scoring.reference import keep_if_ended
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
    **changes: Any,
) -> Course:
    """Go on with the fit of a run, see `Run.resume`."""
    place = processes(fabric)
    course, saved = None, None
    with place.together():
        if place.is_first:
            course = run.course()
            saved = None if course is not None and course.ended else run.saved()
    # Of several processes the others may not see the folder.
    course, settings = place.from_first((course, run.config.fit if saved is None else saved.facts.fit))
    if course is not None and course.ended:
        with place.at_work():
            if place.is_first:
                remove_checkpoint(run.path)
            warnings.warn(run.ended_words(course), LikelifyWarning, stacklevel=3)
        return course
    with place.together():
        source = run.source() if data is None else as_source(data)
        if saved is None and place.is_first and (found := source.fingerprint()) != run.config.data.fingerprint:
            raise RunError(f"These data are not those of '{run.path}' (fingerprint {found}); nothing was changed.")
        flow = unfitted(run, saved)
    course = fit(flow, source, settings, run=run, fabric=place, on_step=on_step, **changes)
    if place.is_first:
        keep_if_ended(run, course, source)
    return course


def unfitted(run: Run, saved: Saved | None) -> Flow:
    """Build the model of a run as it was before its fit; with a checkpoint within the bounds that this sets."""
    build: Callable[..., Flow] = run.config.model.build
    with seeded(run.config.fit.seed):
        if run.config.model.needs_module:
            return build(run.module)
        return build() if saved is None else build_within(build, saved.header, run.path)
