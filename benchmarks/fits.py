"""Fits that compare models at equal time."""

from collections.abc import Mapping
from typing import Any

from likelify.fitting.settings import FitSettings


def timed(settings: Mapping[str, Any], seconds: float, seed: int) -> FitSettings:
    """Return the settings of a fit that ends after so many seconds of the processor, not after its steps."""
    return FitSettings(**{**settings, "steps": 10**6, "max_time": seconds, "clock": "processor", "seed": seed})
