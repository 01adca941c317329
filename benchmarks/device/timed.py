"""Fits whose steps are timed on a device: some after the recording of a step, and none with a validation."""

import time
from typing import Any

import torch

from likelify.data import Source
from likelify.fitting.cost import wait_for
from likelify.fitting.figures import Course
from likelify.fitting.loop import Progress, fit
from likelify.fitting.process import OneProcess
from likelify.fitting.settings import FitSettings
from likelify.flows import Flow

# Steps in front of those that are timed: after the half, where the second validation is.
BEHIND_VALIDATION = 4


def timed_fit(flow: Flow, source: Source, settings: FitSettings, place: torch.device) -> tuple[Course, float]:
    """Fit a flow with two validations; return the course, and the mean time of steps of the second half in seconds."""
    first, last = settings.steps // 2 + BEHIND_VALIDATION, settings.steps - 1
    marks: dict[int, float] = {}

    def note(progress: Progress) -> None:
        if progress.step in (first, last):
            wait_for(place)
            marks[progress.step] = time.perf_counter()

    changes: dict[str, Any] = {"validations": 2}
    course = fit(flow, source, settings, fabric=OneProcess(place), on_step=note, **changes)
    return course, (marks[last] - marks[first]) / (last - first)
