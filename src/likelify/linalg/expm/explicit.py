"""The methods that form a small matrix: on the channels, on the frequencies, on a whole small event, on a few means."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from likelify.errors import ConfigError, ShapeError
from likelify.linalg.bounds import safe_exp
from likelify.linalg.conv import ConvMap
from likelify.linalg.dense import Dense, Diagonal, apply_matrix
from likelify.linalg.equivariant import SetMap
from likelify.linalg.expm import adjacency, series
from likelify.linalg.expm.dense import PolynomialPlan, evaluate_polynomial, plan_polynomial
from likelify.linalg.expm.diagnostics import Bounds, Diagnostics
from likelify.linalg.expm.expansion import evaluate
from likelify.linalg.expm.problem import Problem
from likelify.linalg.expm.series import PowerSeries
from likelify.linalg.frequencies import kernel_frequencies, multiply_frequencies
from likelify.linalg.graph import GraphMap

# Events up to this size get their exponential formed inside frozen(): 4 MB in float32, and one matrix product a call.
DENSE_LIMIT = 1024


def run_polynomial(problem: Problem) -> tuple[Tensor, Diagnostics]:
    """Form the exponential of the matrix on the channels, and apply it at every position."""
    map_, plan = problem.map_, _plan(problem)
    if not isinstance(map_, Dense):
        raise ConfigError(f"method='polynomial' needs a Dense map, not {type(map_).__name__}. Use 'series' or 'dense'.")
    exponential = _polynomial(problem, map_.effective, plan)
    return apply_matrix(exponential, problem.x), _polynomial_report(problem, "polynomial", plan)


def run_dense(problem: Problem) -> tuple[Tensor, Diagnostics]:
    """Form the exponential of the whole event's matrix, and apply it; for small events and many rows."""
    map_, plan = problem.map_, _plan(problem)
    if map_.couples_rows:
        raise ConfigError(f"method='dense' needs a map on single rows; {type(map_).__name__} couples rows.")
    exponential = _polynomial(problem, map_.materialize(problem.event_shape, like=problem.x), plan)
    x = problem.x.flatten(1)
    value = x @ exponential.T if map_.rows is None else (exponential @ x[:, :, None]).squeeze(2)
    return value.reshape(problem.x.shape), _polynomial_report(problem, "dense", plan)


def run_fourier(problem: Problem) -> tuple[Tensor, Diagnostics]:
    """Exponentiate the matrix of each frequency of a circular convolution."""
    map_, plan = problem.map_, _plan(problem)
    if not isinstance(map_, ConvMap) or map_.padding != "circular" or map_.rows is not None:
        raise ConfigError(
            "method='fourier' needs a ConvMap with padding='circular' and one kernel for all rows: only such a "
            "convolution is a product at each frequency. Use 'series'."
        )
    exponential = _polynomial(problem, _frequencies(map_, problem), plan)
    return multiply_frequencies(problem.x, exponential), _polynomial_report(problem, "fourier", plan)


def _frequencies(map_: ConvMap, problem: Problem) -> Tensor:
    return kernel_frequencies(map_.effective, problem.event_shape[1:], map_.groups)


def run_closed_form(problem: Problem) -> tuple[Tensor, Diagnostics]:
    """Use what is known of the map: factors of channels, means of sets."""
    map_, time = problem.given, problem.time
    if isinstance(map_, GraphMap) and map_.graph.is_complete:
        return run_adjacency(problem)
    if isinstance(map_, Diagonal):
        value = replace(map_, factors=(time * map_.factors).exp()).apply(problem.x)
        return value, _exact_report(problem, "closed-form", 0, 0.0, lambda: 0.0)
    if not isinstance(map_, SetMap):
        raise ConfigError(
            "method='closed-form' is for Diagonal and SetMap and for GraphMap on complete graphs, not "
            f"{type(map_).__name__}. Use 'series'."
        )
    if problem.x.ndim != 3 or problem.x.shape[1] != map_.theta0.shape[-1]:
        raise ShapeError(
            f"A SetMap on {map_.theta0.shape[-1]} channels needs an input (rows, channels, elements), got "
            f"{tuple(problem.x.shape)}."
        )
    # The map is two matrices, one on the mean and one on what is left, and its norm bound bounds both. A set of one
    # element is all mean: nothing is known of the other matrix, and there is nothing it could act on.
    plan = _plan(problem)
    eye = problem.shift * torch.eye(map_.theta0.shape[-1]).to(map_.theta0)
    mean = _polynomial(problem, map_.theta0 + map_.theta1 - eye, plan)
    rest = mean if problem.x.shape[2] == 1 else _polynomial(problem, map_.theta0 - eye, plan)
    means = problem.x.mean(2, keepdim=True)
    value = apply_matrix(rest, problem.x - means) + apply_matrix(mean, means)
    return value, _polynomial_report(problem, "closed-form", plan)


def run_adjacency(problem: Problem) -> tuple[Tensor, Diagnostics]:
    """Expand in the adjacency of a graph, with small matrices as coefficients; complete graphs in closed form."""
    map_ = problem.given
    if not isinstance(map_, GraphMap):
        raise ConfigError(f"method='adjacency' needs a GraphMap, not {type(map_).__name__}. Use 'series'.")
    value, degree, error = adjacency.adjacency_exponential(map_, problem.x, problem.time, problem.tol)
    name = "closed-form" if map_.graph.is_complete else "adjacency"
    return value, _exact_report(
        problem, name, degree, error, lambda: adjacency.log_det_error(map_, problem.time, error)
    )


def _exact_report(
    problem: Problem, method: str, degree: int, error: float, log_det: Callable[[], float | Tensor]
) -> Diagnostics:
    """Report a method that needs no norm bound; a rough one, the sum of the Frobenius norms, stands in for it."""
    tensors = [tensor for tensor in problem.given.tensors().values() if tensor.is_floating_point()]
    rough = abs(problem.time) * sum(float(torch.linalg.vector_norm(tensor.detach())) for tensor in tensors)
    # Rounding an exponent of that size costs as many units in the last place.
    bounds = Bounds(
        error=lambda: error,
        log_det=log_det,
        amplification=lambda: (2 + rough) * safe_exp(problem.growth) * problem.gain,
    )
    return problem.report(method, (degree,), bounds, converged=True, norm_bound=rough)


@dataclass(frozen=True, eq=False)
class Precomputed:
    """An exponential that is formed once, for `frozen()`.

    Attributes:
        apply: multiplies rows by it.
        report: what its making reported, with the norms of another input.
    """

    apply: Callable[[Tensor], Tensor]
    report: Diagnostics

    def __call__(self, x: Tensor, measure: Callable[[], Tensor]) -> tuple[Tensor, Diagnostics]:
        """Apply it to rows, whose norms `measure` gives."""
        return self.apply(x), replace(self.report, measure=measure)


def precompute(problem: Problem) -> Precomputed | None:
    """Form the exponential if that pays inside `frozen()`: of channels, small events, circular convolutions."""
    map_ = problem.map_
    if isinstance(map_, Diagonal | SetMap):
        return None
    problem.check_range()
    if isinstance(map_, Dense):
        plan = _plan(problem)
        exponential = _polynomial(problem, map_.effective, plan)
        return Precomputed(lambda x: apply_matrix(exponential, x), _polynomial_report(problem, "polynomial", plan))
    if math.prod(problem.event_shape) <= DENSE_LIMIT:
        return _dense_event(problem)
    if isinstance(map_, ConvMap) and map_.padding == "circular":
        plan = _plan(problem)
        by_frequency = _polynomial(problem, _frequencies(map_, problem), plan)
        report = _polynomial_report(problem, "fourier", plan)
        return Precomputed(lambda x: multiply_frequencies(x, by_frequency), report)
    return None


def _dense_event(problem: Problem) -> Precomputed:
    """Apply the series to all unit vectors: cheaper than forming the map's matrix and its powers."""
    norm = problem.radius
    steps, degree = series.static_plan(norm, problem.growth, problem.allowed, problem.x.dtype)
    expansion = PowerSeries(norm / steps, problem.time / steps, problem.gain ** (1 / steps))
    size = math.prod(problem.event_shape)
    rows = torch.eye(size, dtype=problem.x.dtype, device=problem.x.device).reshape(size, *problem.event_shape)
    for _ in range(steps):
        rows, _ = evaluate(expansion, problem.map_, rows, degree)
    matrix = rows.reshape(size, size)
    plan = PolynomialPlan(degree, 1, 0, series.a_priori_error(norm, problem.growth, steps, degree))
    report = _polynomial_report(problem, "dense", plan, series_steps=steps)
    return Precomputed(lambda x: (x.flatten(1) @ matrix).reshape(x.shape), report)


def _polynomial(problem: Problem, matrix: Tensor, plan: PolynomialPlan) -> Tensor:
    return evaluate_polynomial(matrix, plan, time=problem.time, gain=problem.gain)


def _plan(problem: Problem) -> PolynomialPlan:
    if problem.degree is not None:
        raise ConfigError("A fixed degree= goes with the methods 'series' and 'chebyshev' only; give tol= instead.")
    problem.check_range()
    return plan_polynomial(problem.radius, problem.growth, problem.allowed, problem.x.dtype)


def _polynomial_report(
    problem: Problem, method: str, plan: PolynomialPlan, *, series_steps: int | None = None
) -> Diagnostics:
    steps = 2**plan.squarings if series_steps is None else series_steps
    bounds = Bounds(
        error=lambda: plan.error * problem.gain,
        log_det=lambda: problem.log_det_error((plan.degree,), repeats=steps),
        amplification=lambda: problem.gain * steps * safe_exp(problem.radius / steps + problem.growth),
    )
    return problem.report(
        method,
        (plan.degree,),
        bounds,
        operator_calls=1,
        converged=plan.error <= problem.allowed,
        problem=problem.contradicts_declaration(),
    )
