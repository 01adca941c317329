"""What `frozen()` keeps: exponentials that are formed once, while parameters count as constants."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from likelify.linalg.conv import ConvMap
from likelify.linalg.dense import Dense, Diagonal
from likelify.linalg.equivariant import SetMap
from likelify.linalg.expm.action import check_report, pose, recorded, require_finite
from likelify.linalg.expm.diagnostics import Action
from likelify.linalg.expm.expansion import evaluate
from likelify.linalg.expm.kronecker import form_kronecker
from likelify.linalg.expm.matrix import Formed, form_channels, form_frequencies, polynomial_report
from likelify.linalg.expm.problem import ExpProblem, unless_changed
from likelify.linalg.expm.series import PowerSeries, static_plan
from likelify.linalg.kronecker import KroneckerSum
from likelify.linalg.maps import LinearMap
from likelify.tracing import HALF

# Events up to this size get their exponential formed inside frozen(): 4 MB in float32, and one matrix product a call.
DENSE_LIMIT = 1024


def form_exponential(map_: LinearMap, x: Tensor, *, time: float, tol: float | None) -> Formed | None:
    """Form the exponential for inputs like `x` if that pays when parameters are constant, else return None."""
    if map_.rows is not None:
        return None
    # An empty batch: what is formed must not hold on to the first one it meets.
    problem = pose(map_, x.new_empty(0, *x.shape[1:]), time=time, tol=tol)
    formed = _form(problem)
    if formed is not None:
        check_report(problem, problem.x, formed.report, throw=True, record=False)
    return formed


def apply_formed(formed: Formed, map_: LinearMap, x: Tensor) -> Action:
    """Apply what `form_exponential` has formed."""
    value = formed.apply(x)
    if x.device.type == "cpu":
        require_finite(x, value)
    diagnostics = replace(formed.report, measure=unless_changed(x, lambda: map_.item_norms(x.detach())))
    recorded.add(diagnostics)
    return Action(value, diagnostics)


def _form(problem: ExpProblem) -> Formed | None:
    """Form the exponential of axes, channels, small events, circular convolutions; of others it does not pay."""
    map_ = problem.centered
    if isinstance(map_, Diagonal | SetMap):
        return None
    if isinstance(map_, KroneckerSum) and not map_.is_long(problem.event_shape):
        return form_kronecker(problem)
    problem.check_range()
    if isinstance(map_, Dense):
        return form_channels(problem)
    if math.prod(problem.event_shape) <= DENSE_LIMIT:
        return _form_event(problem)
    # Libraries of Fourier transforms have no half precision.
    if isinstance(map_, ConvMap) and map_.padding == "circular" and problem.x.dtype not in HALF:
        return form_frequencies(problem)
    return None


def _form_event(problem: ExpProblem) -> Formed:
    """Apply the series to all unit vectors: cheaper than forming the map's matrix and its powers."""
    norm = problem.radius
    steps, degree = static_plan(norm, problem.growth, problem.allowed, problem.x.dtype)
    expansion = PowerSeries(norm / steps, problem.time / steps, problem.exponent / steps)
    size = math.prod(problem.event_shape)
    rows = torch.eye(size, dtype=problem.x.dtype, device=problem.x.device).reshape(size, *problem.event_shape)
    for _ in range(steps):
        rows, _ = evaluate(expansion, problem.centered, rows, degree)
    matrix = rows.reshape(size, size)
    report = polynomial_report(problem, "dense", None, size=size, degree=degree, steps=steps)
    return Formed(lambda x: (x.flatten(1) @ matrix).reshape(x.shape), report)
