r"""The methods that form the exponential of a matrix: on the channels, of each frequency, of a small event, of means.

Matrices of any size are exponentiated by the polynomials of `polynomial`, with scaling and squaring, whose gradient is
a few matrix products; `torch.matrix_exp` forms a matrix twice as large for its gradient, which is slow and in float32
loses up to three digits. A few small matrices are exponentiated on the host (`SmallExponential`), where tensor
operations would cost more than the arithmetic: one polynomial of fixed degree serves all of norm up to 5/4, larger ones
are scaled and squared, and the gradient stands in the exponential of a matrix twice as large,

    exp [[M^T, G], [0, M^T]] = [[exp(M)^T, dM], [0, exp(M)^T]].

Source: Al-Mohy and Higham 2009 for the derivative.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from likelify.errors import ConfigError, ShapeError
from likelify.linalg.bounds import rounding_of_sums, safe_exp
from likelify.linalg.conv import ConvMap
from likelify.linalg.dense import Dense, Diagonal, apply_matrix
from likelify.linalg.equivariant import SetMap
from likelify.linalg.expm.diagnostics import Bounds, Diagnostics
from likelify.linalg.expm.expansion import ORDERS
from likelify.linalg.expm.polynomial import PolynomialPlan, evaluate_polynomial, plan_polynomial
from likelify.linalg.expm.problem import ExpProblem
from likelify.linalg.expm.series import a_priori_error
from likelify.linalg.frequencies import kernel_frequencies, multiply_frequencies
from likelify.tracing import is_watched, outside_autocast, refuse_old_batches

# 1 / k! for k = 0..19, in rows of four. The series without the rest differs from the exponential by at most 4e-17 at
# norm 5/4.
SMALL_COEFFICIENTS = np.array([1 / math.factorial(k) for k in range(20)]).reshape(5, 4)
SMALL_LONGEST = 1.25


class SmallExponential(torch.autograd.Function):
    """The exponentials of real matrices `(k, f, f)` to rounding in double precision; differentiable to any order."""

    @staticmethod
    def forward(ctx: Any, matrices: Tensor) -> Tensor:
        """Compute the exponentials."""
        ctx.save_for_backward(matrices)
        ctx.save_for_forward(matrices)
        return to_tensor(small_exponential(to_array(matrices)), matrices)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Compute the derivative in the direction of the tangent."""
        (matrices,) = ctx.saved_tensors
        return _derivative(matrices, tangents[0])

    @staticmethod
    @outside_autocast
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Compute the derivative in the direction of the gradient."""
        refuse_old_batches("an exponential", *grads)
        (matrices,) = ctx.saved_tensors
        (grad,) = grads
        if not is_watched():
            return to_tensor(small_derivative(to_array(matrices), to_array(grad)), matrices)
        return _derivative(matrices.mT, grad)


def _derivative(matrices: Tensor, direction: Tensor) -> Tensor:
    """Return the derivative of the exponentials in a direction, which can be differentiated again."""
    size = float(2 * torch.linalg.vector_norm(direction.detach())) or 1.0
    upper = torch.cat([matrices, direction / size], 2)
    lower = torch.cat([torch.zeros_like(matrices), matrices], 2)
    features = matrices.shape[-1]
    block: Any = SmallExponential.apply(torch.cat([upper, lower], 1))
    return block[:, :features, features:] * size


def to_array(tensor: Tensor) -> np.ndarray:
    """Return a tensor as an array on the host, in double precision."""
    return tensor.detach().cpu().double().numpy()


def to_tensor(array: np.ndarray, like: Tensor) -> Tensor:
    """Return an array as a tensor of the dtype and on the device of another one."""
    return torch.from_numpy(array).to(like.dtype).to(like.device)


def small_exponential(matrices: np.ndarray) -> np.ndarray:
    """Compute the exponentials of matrices `(k, f, f)`; NaN if any entry is not finite."""
    norm = math.sqrt(np.vdot(matrices, matrices))
    if not math.isfinite(norm):
        return np.full_like(matrices, math.nan)
    squarings = math.ceil(math.log2(norm / SMALL_LONGEST)) if norm > SMALL_LONGEST else 0
    powers = np.empty((4, *matrices.shape), matrices.dtype)
    powers[0], powers[1] = np.eye(matrices.shape[-1]), matrices / 2**squarings
    np.matmul(powers[1], powers[1], out=powers[2])
    np.matmul(powers[2], powers[1], out=powers[3])
    fourth = powers[2] @ powers[2]
    rows = (SMALL_COEFFICIENTS.astype(matrices.dtype) @ powers.reshape(4, -1)).reshape(5, *matrices.shape)
    value = rows[4]
    for row in rows[3::-1]:
        value = value @ fourth
        value += row
    for _ in range(squarings):
        value = value @ value
    return value


def small_derivative(matrices: np.ndarray, grad: np.ndarray) -> np.ndarray:
    """Return the gradient of `<grad, exp(matrices)>`, in the precision of `grad`."""
    # The derivative is linear in the gradient, whose size must not swamp that of the matrices.
    size = 2 * math.sqrt(np.vdot(grad, grad)) or 1.0
    count, features, _ = matrices.shape
    block = np.zeros((count, 2 * features, 2 * features), grad.dtype)
    block[:, :features, :features] = block[:, features:, features:] = matrices.swapaxes(1, 2)
    block[:, :features, features:] = grad / size
    # A gradient that is too large for the precision stays infinite or NaN, which whoever steps along it looks at.
    with np.errstate(over="ignore", invalid="ignore"):
        return small_exponential(block)[:, :features, features:] * size


@dataclass(frozen=True, eq=False)
class Formed:
    """An exponential that has been formed.

    Attributes:
        apply: multiplies rows by it.
        report: what its making reported, with the norms of the input at hand then.
    """

    apply: Callable[[Tensor], Tensor]
    report: Diagnostics


def form_channels(problem: ExpProblem) -> Formed:
    """Form the exponential of a matrix on the channels, for every position."""
    map_, plan = problem.centered, plan_for(problem)
    if not isinstance(map_, Dense):
        raise ConfigError(f"method='polynomial' needs a Dense map, not {type(map_).__name__}. Use 'series' or 'dense'.")
    exponential = form(problem, map_.effective, plan)
    report = polynomial_report(problem, "polynomial", plan, size=exponential.shape[-1])
    return Formed(lambda x: apply_matrix(exponential, x), report)


def form_frequencies(problem: ExpProblem) -> Formed:
    """Form the exponential of the matrix of each frequency of a circular convolution."""
    map_, plan = problem.centered, plan_for(problem)
    if not isinstance(map_, ConvMap) or map_.padding != "circular" or map_.rows is not None:
        raise ConfigError(
            "method='fourier' needs a ConvMap with padding='circular' and one kernel for all rows: only such a "
            "convolution is a product at each frequency. Use 'series'."
        )
    matrices = kernel_frequencies(map_.effective, problem.event_shape[1:], map_.groups)
    exponential = form(problem, matrices, plan)
    report = polynomial_report(problem, "fourier", plan, size=exponential.shape[-1])
    return Formed(lambda x: multiply_frequencies(x, exponential), report)


def run_polynomial(problem: ExpProblem) -> tuple[Tensor, Diagnostics]:
    """Form the exponential of the matrix on the channels, and apply it at every position."""
    formed = form_channels(problem)
    return formed.apply(problem.x), formed.report


def run_fourier(problem: ExpProblem) -> tuple[Tensor, Diagnostics]:
    """Exponentiate the matrix of each frequency of a circular convolution."""
    formed = form_frequencies(problem)
    return formed.apply(problem.x), formed.report


def run_dense(problem: ExpProblem) -> tuple[Tensor, Diagnostics]:
    """Form the exponential of the whole event's matrix, and apply it; for small events and many rows."""
    map_, plan = problem.centered, plan_for(problem)
    if map_.couples_rows:
        raise ConfigError(f"method='dense' needs a map on single rows; {type(map_).__name__} couples rows.")
    exponential = form(problem, map_.materialize(problem.event_shape, like=problem.x), plan)
    x = problem.x.flatten(1)
    value = x @ exponential.T if map_.rows is None else (exponential @ x[:, :, None]).squeeze(2)
    return value.reshape(problem.x.shape), polynomial_report(problem, "dense", plan, size=x.shape[1])


def run_closed_form(problem: ExpProblem) -> tuple[Tensor, Diagnostics]:
    """Use what is known of the map: factors of channels, means of sets (complete graphs: see `graphs`)."""
    map_ = problem.map
    if isinstance(map_, Diagonal):
        value = replace(map_, factors=(problem.time * map_.factors).exp()).apply(problem.x)
        return value, report_without_norm(problem, "closed-form", 0, 0.0, lambda: 0.0)
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
    plan = plan_for(problem)
    eye = problem.shift * torch.eye(map_.theta0.shape[-1]).to(map_.theta0)
    mean = form(problem, map_.theta0 + map_.theta1 - eye, plan)
    rest = mean if problem.x.shape[2] == 1 else form(problem, map_.theta0 - eye, plan)
    means = problem.x.mean(2, keepdim=True)
    value = apply_matrix(rest, problem.x - means) + apply_matrix(mean, means)
    return value, polynomial_report(problem, "closed-form", plan, size=mean.shape[-1])


def report_without_norm(
    problem: ExpProblem, method: str, degree: int, error: float, log_det: Callable[[], float | Tensor]
) -> Diagnostics:
    """Report a method that needs no norm bound; a rough one, the sum of the Frobenius norms, stands in for it."""
    tensors = [tensor.detach() for tensor in problem.map.tensors().values() if tensor.is_floating_point()]
    # Added up where they are, so that the host waits once.
    rough = abs(problem.time) * float(sum(torch.linalg.vector_norm(tensor) for tensor in tensors))
    # Rounding an exponent of that size costs as many units in the last place.
    bounds = Bounds(
        error=lambda: error,
        log_det=log_det,
        amplification=lambda: (2 + rough) * safe_exp(problem.growth + problem.exponent),
    )
    return problem.report(method, (degree,), bounds, converged=True, norm_bound=rough)


def form(problem: ExpProblem, matrix: Tensor, plan: PolynomialPlan) -> Tensor:
    """Form the exponential of a centered matrix by the plan, with the shift put back."""
    return evaluate_polynomial(matrix, plan, time=problem.time, exponent=problem.exponent)


def plan_for(problem: ExpProblem) -> PolynomialPlan:
    """Find the polynomial for the norm and tolerance of a problem."""
    if problem.degree is not None:
        raise ConfigError("A fixed degree= goes with the methods 'series' and 'chebyshev' only; give tol= instead.")
    problem.check_range()
    orders = ORDERS if problem.recorded else 0
    return plan_polynomial(problem.radius, problem.growth, problem.allowed, problem.x.dtype, orders)


def polynomial_report(
    problem: ExpProblem, method: str, plan: PolynomialPlan | None, *, size: int, degree: int = 0, steps: int = 1
) -> Diagnostics:
    """Report a formed matrix of that size: the polynomial of a plan, or a series of a degree in some steps."""
    if plan is not None:
        degree, steps = plan.degree, 2**plan.squarings
    found = a_priori_error(problem.radius, problem.growth, steps, degree)

    def gradient() -> float | None:
        error = a_priori_error(problem.radius, problem.growth, steps, degree - 1)
        return problem.span * problem.magnified(error) if problem.recorded else None

    bounds = Bounds(
        error=lambda: problem.magnified(found),
        log_det=lambda: problem.log_det_error((degree,), repeats=steps),
        # One product is counted already (`operator_calls`).
        amplification=lambda: (
            rounding_of_sums(size) / 2 * steps * safe_exp(problem.exponent + problem.radius / steps + problem.growth)
        ),
        gradient=gradient,
    )
    return problem.report(
        method,
        (degree,),
        bounds,
        operator_calls=1,
        converged=found <= problem.allowed,
        problem=problem.contradicts_declaration(),
    )
