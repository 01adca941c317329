"""The exponential engine: `exp_action` is its one door."""

from likelify.linalg.expm.action import ExpMethod as ExpMethod
from likelify.linalg.expm.action import applied as applied
from likelify.linalg.expm.action import exp_action as exp_action
from likelify.linalg.expm.action import recorded as recorded
from likelify.linalg.expm.diagnostics import Action as Action
from likelify.linalg.expm.diagnostics import Diagnostics as Diagnostics
from likelify.linalg.expm.problem import Gradient as Gradient
from likelify.linalg.expm.problem import Recompute as Recompute
from likelify.linalg.expm.problem import Stored as Stored
from likelify.linalg.expm.problem import Unrolled as Unrolled
from likelify.linalg.expm.timing import time_methods as time_methods
