"""What there is to say of a run whose fit has not ended, or ended badly."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from likelify.errors import LikelifyWarning
from likelify.fitting.locks import is_locked

if TYPE_CHECKING:
    from likelify.fitting.run import Run


def warn_unless_ended(run: Run, stacklevel: int = 2) -> None:
    """Say of which step the weights are, if the fit of a run has not ended or has diverged.

    Warns:
        LikelifyWarning: then.
    """
    course = run.course()
    if course is not None and (course.reason == "diverged" or not course.ended):
        end = {"interrupted": "was interrupted", "diverged": "ended when its loss was not finite any more"}
        killed = "is still running" if is_locked(run.path) else "did not end: it was killed"
        warnings.warn(
            f"The fit of '{run.path}' {end.get(course.reason, killed)}. Its weights are the best that were kept "
            f"so far, of step {course.best_step}.",
            LikelifyWarning,
            stacklevel=stacklevel + 1,
        )
