"""The one differentiable door to every exponential, `exp_action`, and the rule that chooses its method."""

import math
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from likelify.errors import ConfigError, ConvergenceError, DomainError, ShapeError, UnsupportedError, unknown_word
from likelify.linalg.bounds import safe_exp, widest
from likelify.linalg.dense import SMALL, Dense, Diagonal
from likelify.linalg.equivariant import SetMap
from likelify.linalg.expm.chebyshev import run_chebyshev
from likelify.linalg.expm.diagnostics import Action, Diagnostics
from likelify.linalg.expm.graphs import run_graphs
from likelify.linalg.expm.kronecker import run_kronecker
from likelify.linalg.expm.matrix import run_closed_form, run_dense, run_fourier, run_polynomial
from likelify.linalg.expm.problem import HOPELESS, ExpProblem, Gradient, largest_of
from likelify.linalg.expm.series import run_series
from likelify.linalg.graph import GraphMap
from likelify.linalg.kronecker import KroneckerSum
from likelify.linalg.maps import LinearMap, Scaled
from likelify.shapes import check_sizes
from likelify.tracing import Recorder, is_tracing

ExpMethod = Literal["auto", "series", "chebyshev", "polynomial", "dense", "fourier", "adjacency", "closed-form"]


def _run_closed_form(problem: ExpProblem) -> tuple[Tensor, Diagnostics]:
    """Use the closed form of the kind of map: graphs and Kronecker sums have their own."""
    if isinstance(problem.map, KroneckerSum):
        return run_kronecker(problem)
    complete = isinstance(problem.map, GraphMap) and problem.map.graph.is_complete
    return run_graphs(problem) if complete else run_closed_form(problem)


METHODS = {
    "series": run_series,
    "chebyshev": run_chebyshev,
    "polynomial": run_polynomial,
    "dense": run_dense,
    "fourier": run_fourier,
    "adjacency": run_graphs,
    "closed-form": _run_closed_form,
}
# With more columns than about this share of its size, a matrix is cheaper to exponentiate than to apply a dozen times
# (`time_methods` shows it on the machine at hand).
CROSSOVER = 0.7
# Of small matrices it is cheaper for any number of columns (`python -m benchmarks.small_exponentials --part layers`).
SMALL_ELEMENTS = 2**15
# The diagnostics of every exponential inside a `with recorded() as found:` block.
recorded = Recorder[Diagnostics]("diagnostics")
# Every value inside a `with applied() as found:` block, with its diagnostics and the map, which measures its items.
applied = Recorder[tuple[Action, LinearMap]]("applied")
# Events up to this size are measured exactly before their map is refused.
SHARPEN_LIMIT = 512
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}


def exp_action(
    map: LinearMap,  # noqa: A002 - the field's word for it; the builtin is not needed here
    x: Tensor,
    *,
    time: float | Tensor = 1.0,
    tol: float | None = None,
    degree: int | None = None,
    method: ExpMethod = "auto",
    gradient: Gradient | None = None,
    throw: bool = True,
) -> Action:
    r"""Apply `exp(time L)` to each item of `x` without forming it.

    In eager mode the degree of the series adapts until the certificate of every item meets `tol`. The degree is a
    fixed integer, found without looking at the data, when `degree` is given; and also when the map knows its norm bound
    as a number and either the tensors live on an accelerator, where looking would stop it, or `torch.compile` or a
    `torch.func` transform is at work. Those transforms need one of the two.

    Args:
        map: a linear map; the exponential always exists and its inverse is `exp(-time L)`.
        x: `(rows, *event)`, floating.
        time: a factor on the map.
        tol: truncation error allowed, relative to the 2-norm of each item. By default 1e-6 in float32 and 1e-12 in
            float64; layers give a looser one in training steps.
        degree: a fixed degree instead of a tolerance.
        method: `"auto"` chooses by structure and sizes (`choose` states the rule): `"series"` (any map),
            `"chebyshev"` (symmetric or skew), `"polynomial"` (`Dense`), `"dense"` (small events), `"fourier"` (circular
            convolutions), `"adjacency"` (graphs), `"closed-form"` (diagonal maps, sets, complete graphs, Kronecker
            sums).
        gradient: how gradients are found: `Stored()` (default), `Recompute()` or `Unrolled()`; for the methods that sum
            terms. The others store small matrices.
        throw: raise when the tolerance is not met or the result cannot be trusted; otherwise the diagnostics say so.
            What no number can stand for (non-finite values, and where terms are summed a norm beyond 600, or 88 in
            single precision) raises in any case.

    Returns:
        The value, shape and dtype of `x`, and its `Diagnostics`.

    Raises:
        ConfigError: for an unknown method and settings out of their range.
        ConvergenceError: if the degree limit was reached before the tolerance, if rounding may leave no digit of the
            result or of its inverse, or if the terms contradict the map's norm bound.
        DomainError: if the input is not floating or in another precision than the map, `time` is not finite, or the
            input, the map or the value is not finite (on a CPU or in adaptive mode; a static degree elsewhere does not
            look).
        ShapeError: if `time` is not one number, or the input has a shape that the map cannot act on.
        UnsupportedError: if the map is no LinearMap or the input no tensor, or if the degree would have to adapt where
            Python cannot look at tensors.

    Source:
        Hoogeboom et al. 2020, section 3 and algorithm 2; certificates, gradients and the other methods are ours.

    Example:
        >>> import torch
        >>> from likelify.linalg.dense import Dense
        >>> turn = Dense(torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64))
        >>> action = exp_action(turn, torch.tensor([[1.0, 0.0]], dtype=torch.float64), time=torch.pi)
        >>> torch.allclose(action.value, torch.tensor([[-1.0, 0.0]], dtype=torch.float64))
        True
        >>> bool(action.diagnostics.error_bound < 1e-12)
        True
    """
    _check_kinds(map, x)
    check_settings(method, tol, degree, gradient)
    if torch.is_autocast_enabled(x.device.type):
        # Half precision in the middle would void every certificate.
        settings = {"time": time, "tol": tol, "degree": degree, "method": method, "gradient": gradient, "throw": throw}
        with torch.autocast(x.device.type, enabled=False):
            return exp_action(map, x, **settings)
    problem = pose(map, x, time=time, tol=tol, degree=degree, gradient=gradient)
    value, diagnostics = METHODS[choose(problem) if method == "auto" else method](problem)
    action = Action(value, check_report(problem, value, diagnostics, throw=throw))
    problem.forget_input()
    if not is_tracing():
        applied.add((action, problem.map))
    return action


def _check_kinds(map_: object, x: object) -> None:
    if not isinstance(map_, LinearMap):
        raise UnsupportedError(
            f"exp_action takes a LinearMap, not {type(map_).__name__}: likelify.Dense(matrix) for a matrix, "
            "likelify.Function(callable) for any linear function or module."
        )
    if not isinstance(x, Tensor):
        raise UnsupportedError(
            f"exp_action works on a torch.Tensor, not {type(x).__name__}; torch.as_tensor makes one."
        )


def check_settings(method: str, tol: float | None, degree: int | None, gradient: object) -> None:
    """Refuse settings of an exponential that no map and no input can be meant with."""
    if method != "auto" and method not in METHODS:
        raise ConfigError(unknown_word("method", str(method), ["auto", *METHODS]))
    if degree is not None:
        check_sizes(least=0, degree=degree)
    if degree is not None and method not in ("auto", "series", "chebyshev"):
        raise ConfigError(
            f"A fixed degree= goes with the methods 'series' and 'chebyshev' only, not with {method!r}: leave one out."
        )
    if tol is not None and not 0 < tol < math.inf:
        raise ConfigError(f"tol must be positive and finite, got {tol}.")
    if not isinstance(gradient, Gradient | None):
        raise UnsupportedError(
            f"gradient must be Stored(), Recompute() or Unrolled() of likelify.linalg, or None, not {gradient!r}."
        )


def choose(problem: ExpProblem) -> str:
    """Choose the method that serves a map best, by a fixed rule of its structure and its sizes.

    The rule: a fixed degree means the series. Kronecker sums (but for filters on more than 512 positions), diagonal
    maps, sets and complete graphs: closed form.
    Other graphs: the expansion in the adjacency. A matrix that meets at least 0.7 times as many columns (rows times
    positions) as it has, and any small one (up to 64 channels and 32,768 elements, of all rows): its polynomial.
    Symmetric or skew by construction: Chebyshev. All else: the power series.
    While `torch.compile` or `torch.func` is at work it is the series, whose plain sum they can see through.
    """
    map_, x = problem.map, problem.x
    if problem.degree is not None or is_tracing():
        return "series"
    if isinstance(map_, GraphMap):
        return "closed-form" if map_.graph.is_complete else "adjacency"
    if isinstance(map_, KroneckerSum) and not map_.is_long(problem.event_shape):
        return "closed-form"
    if isinstance(map_, Diagonal | SetMap):
        return "closed-form"
    if isinstance(map_, Dense):
        columns = x.numel() // max(x.shape[1], 1) // (map_.rows or 1)
        small = x.shape[1] <= SMALL and map_.matrix.numel() <= SMALL_ELEMENTS
        if small or columns >= CROSSOVER * x.shape[1]:
            return "polynomial"
    return "series" if map_.symmetry is None else "chebyshev"


def pose(
    map_: LinearMap,
    x: Tensor,
    *,
    time: float | Tensor = 1.0,
    tol: float | None = None,
    degree: int | None = None,
    gradient: Gradient | None = None,
) -> ExpProblem:
    """Validate the arguments and return them as an `ExpProblem`."""
    if not x.is_floating_point():
        raise DomainError(f"exp_action needs a floating input, got {x.dtype}. Convert it, e.g. x.float().")
    if x.ndim < 2 or 0 in x.shape[1:]:
        raise ShapeError(f"exp_action needs rows of events that are not empty, (rows, *event), got {tuple(x.shape)}.")
    if not isinstance(time, Tensor) and not math.isfinite(time):
        raise DomainError(f"time must be finite, got {time}.")
    span = 1.0 if isinstance(time, Tensor) else abs(time)
    map_, time = _unwrap(map_, time)
    map_ = map_.matching(x)
    for name, tensor in map_.tensors().items():
        probe = name.split(".")[-1] == "like"
        if tensor.is_floating_point() and tensor.dtype != x.dtype and tensor.ndim and not probe:
            raise DomainError(
                f"The input is {x.dtype} and {name} of the map is {tensor.dtype}. Convert one of them: map and input "
                "must have the same precision."
            )
    tol = default_tolerance(x.dtype) if tol is None else tol
    return ExpProblem(map_, map_.arrange(x), time, tol, degree, gradient, span)


def default_tolerance(dtype: torch.dtype) -> float:
    """Return the truncation error that is allowed where none is given."""
    return TOLERANCE.get(dtype, 8 * torch.finfo(dtype).eps)


def _unwrap(map_: LinearMap, time: float | Tensor) -> tuple[LinearMap, float]:
    """Take numbers that scale a map into the time, and a time that is a tensor into the map."""
    if isinstance(time, Tensor):
        if time.numel() != 1:
            raise ShapeError(f"time must be one number for the whole batch, got a tensor of shape {tuple(time.shape)}.")
        return map_ * time.reshape(()), 1.0
    while isinstance(map_, Scaled) and not isinstance(map_.factor, Tensor):
        map_, time = map_.base, time * map_.factor
    return map_, float(time)


def check_report(
    problem: ExpProblem, value: Tensor, diagnostics: Diagnostics, *, throw: bool, record: bool = True
) -> Diagnostics:
    """Refuse what must not be used, and complete the diagnostics, which count as those of a call unless told not to."""
    if not is_tracing():
        if problem.x.device.type == "cpu" or problem.may_sync:
            require_finite(problem.x, value)
            diagnostics = _with_condition(problem, diagnostics)
        if record:
            recorded.add(diagnostics)
    if throw and diagnostics.problem is not None:
        raise ConvergenceError(diagnostics.problem, diagnostics)
    if throw and diagnostics.converged is False:
        raise ConvergenceError(
            f"The {diagnostics.method} reached degree {diagnostics.degree} in {len(diagnostics.degrees)} steps without "
            f"meeting the tolerance {problem.tol:g}; the map's norm bound is {largest_of(problem.norm):.3g}. Limit the "
            "norm of the map (norm_limit=), or ask for a larger tol.",
            diagnostics,
        )
    return diagnostics


def _with_condition(problem: ExpProblem, diagnostics: Diagnostics) -> Diagnostics:
    """Say so if the condition number of the exponential, at most `e^(2 growth)`, may eat every digit of the format."""
    limit = math.log(HOPELESS / torch.finfo(problem.x.dtype).eps) / 2
    if diagnostics.problem is not None or problem.degree is not None or largest_of(diagnostics.norm_bound) <= limit:
        return diagnostics
    growth = _sharper_growth(problem) if problem.growth > limit else problem.growth
    if growth <= limit:
        return diagnostics
    name = str(problem.x.dtype).removeprefix("torch.")
    return replace(
        diagnostics,
        problem=f"The exponential may have the condition number e^{2 * growth:.3g} = "
        f"{safe_exp(2 * growth):.1e}, which leaves no correct digit in {name}: the inverse would not undo it. "
        "Limit the norm of the map (norm_limit=), work in float64, use a skew map, whose exponential is a rotation for "
        "every norm, or take the value as it is with throw=False.",
    )


def _sharper_growth(problem: ExpProblem) -> float:
    """Measure the symmetric part of a small map before refusing it: bounds may be several times too large."""
    if math.prod(problem.event_shape) > SHARPEN_LIMIT or problem.map.couples_rows:
        return problem.growth
    with torch.no_grad():
        matrix = widest(problem.centered.materialize(problem.event_shape, like=problem.x))
        values = torch.linalg.eigvalsh((matrix + matrix.mT) / 2)
    return min(problem.growth, abs(problem.time) * float(values.abs().max()))


def require_finite(x: Tensor, value: Tensor) -> None:
    """Raise `DomainError` unless all of the value is finite, saying whether the input was."""
    # One pass over the memory; only if the sum itself overflows is every element looked at.
    if math.isfinite(float(value.detach().sum())) or bool(torch.isfinite(value.detach()).all()):
        return
    if not bool(torch.isfinite(x.detach()).all()):
        raise DomainError("exp_action got an input that is not finite (NaN or infinity).")
    raise DomainError(
        "exp_action gave values that are not finite: the map's parameters hold NaN or infinity, or the result is too "
        f"large for {value.dtype}."
    )
