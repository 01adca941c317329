"""The exponential engine: `exp_action` is its one door."""

from likelify.linalg.expm.action import Action, Diagnostics, exp_action

__all__ = ["Action", "Diagnostics", "exp_action"]
