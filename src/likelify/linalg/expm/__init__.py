"""The exponential engine: `exp_action` is its one door."""

from likelify.linalg.expm.action import exp_action
from likelify.linalg.expm.diagnostics import Action, Diagnostics, recorded
from likelify.linalg.expm.gradients import Recompute, Stored, Unrolled

__all__ = ["Action", "Diagnostics", "Recompute", "Stored", "Unrolled", "exp_action", "recorded"]
