"""The exponential engine: `exp_action` is its one door."""

from likelify.linalg.expm.action import ExpMethod, exp_action, recorded
from likelify.linalg.expm.diagnostics import Action, Diagnostics
from likelify.linalg.expm.gradients import Gradient, Recompute, Stored, Unrolled
from likelify.linalg.expm.timing import time_methods

__all__ = [
    "Action",
    "Diagnostics",
    "ExpMethod",
    "Gradient",
    "Recompute",
    "Stored",
    "Unrolled",
    "exp_action",
    "recorded",
    "time_methods",
]
