"""The exponential engine: `exp_action` is its one door."""

from likelify.linalg.expm.action import exp_action
from likelify.linalg.expm.calibrate import time_methods
from likelify.linalg.expm.diagnostics import Action, Diagnostics, recorded
from likelify.linalg.expm.explicit import Precomputed
from likelify.linalg.expm.gradients import Recompute, Stored, Unrolled
from likelify.linalg.expm.plan import Method

__all__ = [
    "Action",
    "Diagnostics",
    "Method",
    "Precomputed",
    "Recompute",
    "Stored",
    "Unrolled",
    "exp_action",
    "recorded",
    "time_methods",
]
