"""The methods that sum an expansion: the power series, and Chebyshev for symmetric and skew maps."""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from likelify.errors import ConfigError, ConvergenceError, UnsupportedError
from likelify.linalg.bounds import safe_exp
from likelify.linalg.expm import chebyshev, series
from likelify.linalg.expm.chebyshev import Chebyshev
from likelify.linalg.expm.diagnostics import Bounds, Diagnostics, uniform_log_det
from likelify.linalg.expm.expansion import Expansion, evaluate, on_grid
from likelify.linalg.expm.gradients import Gradient, Job, Stored, Unrolled, expand
from likelify.linalg.expm.problem import Problem
from likelify.linalg.expm.series import PowerSeries
from likelify.linalg.expm.watch import Watch, watch, wrong_norm


def run_series(problem: Problem) -> tuple[Tensor, Diagnostics]:
    """Sum the power series, in steps if the norm is large."""
    if problem.degree is not None:
        return _fixed_series(problem)
    problem.check_range()
    norm = problem.radius
    steps, degree = series.static_plan(norm, problem.growth, problem.allowed, problem.x.dtype)
    expansion = PowerSeries(norm / steps, problem.time / steps, problem.gain ** (1 / steps))
    x, jobs, watches, errors = problem.x, [], [], []
    for step in range(steps):
        later = safe_exp((problem.growth / steps) * (steps - 1 - step)) * expansion.gain ** (steps - 1 - step)
        seen = None
        if problem.looks:
            start = problem.item_norms if step == 0 else problem.given.item_norms(x.detach())
            # A gain below one is no licence to be less exact than the result is small.
            allowed = problem.tol * min(1.0, problem.gain) / steps / later * problem.item_norms
            seen = watch(problem.map_, expansion, start, allowed, degree)
            watches.append(seen)
        x, job, used = _step(problem, expansion, x, degree, seen)
        jobs.append((job, used))
        if seen is not None:
            errors.append(later * seen.certified(used))
    degrees = tuple(used for _, used in jobs)
    bounds = _series_bounds(problem, degrees, [job for job, _ in jobs])
    a_priori = series.a_priori_error(norm, problem.growth, steps, degree) <= problem.allowed
    if not problem.looks:
        return x, problem.report("series", degrees, bounds, converged=a_priori)
    error = torch.stack(errors).sum(0)
    converged = bool((error <= problem.tol * problem.item_norms).all())
    return x, problem.report(
        "series", degrees, bounds, certified=error, converged=converged, problem=contradiction(watches)
    )


def _fixed_series(problem: Problem) -> tuple[Tensor, Diagnostics]:
    degree = problem.degree or 0
    if degree > series.MAX_DEGREE:
        raise ConfigError(f"degree must be at most {series.MAX_DEGREE}, got {degree}.")
    # The radius is only needed to watch the terms; without looking no number is at hand.
    radius = problem.radius if problem.looks or isinstance(problem.norm, float) else 1.0
    expansion = PowerSeries(radius, problem.time, problem.gain)
    seen = None
    if problem.looks and degree > 0:
        nothing = torch.zeros_like(problem.item_norms)
        seen = Watch(problem.map_, expansion, problem.item_norms, nothing - 1, degree, plain=False)
    x, _, _ = _step(problem, expansion, problem.x, degree, seen)
    found = None if seen is None else contradiction([seen])
    return x, problem.report("series", (degree,), _series_bounds(problem, (degree,), []), problem=found)


def _series_bounds(problem: Problem, degrees: tuple[int, ...], jobs: list[Job | None]) -> Bounds:
    steps, least = len(degrees), min(degrees, default=0)

    def gradient() -> float | None:
        errors = [job.error for job in jobs if job is not None]
        if not errors:
            return None
        others = problem.gain ** (1 - 1 / steps) * safe_exp(problem.growth * (1 - 1 / steps))
        # The inputs of all but the first step, and of their adjoints, are off by what the certificate allows.
        inputs = (1 + steps) * problem.tol * max(1.0, problem.gain) * safe_exp(problem.growth * (1 + 1 / steps))
        return problem.span * (sum(errors) / steps * others + (inputs if steps > 1 else 0.0))

    return Bounds(
        error=lambda: problem.gain * series.a_priori_error(problem.radius, problem.growth, steps, least),
        log_det=lambda: problem.log_det_error(degrees),
        amplification=lambda: problem.gain * safe_exp(problem.radius / max(steps, 1) + problem.growth),
        gradient=gradient,
    )


def run_chebyshev(problem: Problem) -> tuple[Tensor, Diagnostics]:
    """Sum the Chebyshev expansion of a map that is symmetric or skew by construction."""
    skew = problem.map_.symmetry == "skew"
    if problem.map_.symmetry is None:
        raise ConfigError(
            "method='chebyshev' needs a map that is symmetric or skew by construction (Skew, Dense(symmetry=...), "
            f"ConvMap(symmetry=...)); {type(problem.map_).__name__} is not known to be either. Use 'series'."
        )
    problem.check_range()
    radius = on_grid(problem.radius)
    expansion = Chebyshev(radius, problem.time, problem.gain, skew=skew)
    degree = chebyshev.degree_for(radius, problem.allowed, skew=skew) if problem.degree is None else problem.degree
    if problem.degree is None and degree >= chebyshev.MAX_DEGREE:
        raise ConvergenceError(
            f"The norm bound of the map is {problem.radius:.3g}, and more than {chebyshev.MAX_DEGREE} terms would be "
            "needed. Limit the norm of the map (norm_limit=), or apply a small part of it several times (time=)."
        )
    seen = None
    if problem.looks and degree > 0:
        seen = watch(problem.map_, expansion, problem.item_norms, problem.tol * problem.item_norms, degree)
    x, job, _ = _step(problem, expansion, problem.x, degree, seen)
    error = expansion.tail(degree)
    backward = safe_exp(0.0 if skew else radius) * chebyshev.bessel_tail(radius, degree, skew=skew)
    bounds = Bounds(
        error=lambda: error,
        log_det=lambda: uniform_log_det(backward, problem.item_size),
        amplification=lambda: expansion.amplification,
        gradient=lambda: None if job is None else problem.span * job.error,
    )
    converged = None if problem.degree is not None else error <= problem.tol * (1 + 1e-9)
    found = None if seen is None else contradiction([seen])
    return x, problem.report("chebyshev", (degree,), bounds, converged=converged, problem=found)


def _step(
    problem: Problem, expansion: Expansion, x: Tensor, degree: int, seen: Watch | None
) -> tuple[Tensor, Job | None, int]:
    """Compute one step with the gradient strategy that was asked for; also give the degree that was used."""
    gradient = choose_gradient(problem) if torch.is_grad_enabled() else Unrolled()
    if isinstance(gradient, Unrolled):
        value, used = evaluate(expansion, problem.map_, x, degree, done=seen)
        return value, None, used
    if problem.degree is not None or not problem.declared:
        used = degree

        def again(x: Tensor) -> Tensor:
            nonlocal used
            value, used = evaluate(expansion, problem.map_, x, used, done=seen if used == degree else None)
            return value

        value = checkpoint(again, x, use_reentrant=False, preserve_rng_state=False)
        return value, None, used  # pyright: ignore[reportReturnType]
    job = Job(expansion, problem.map_, degree, problem.tol, gradient, seen)
    value = expand(job, x)
    return value, job, job.used


def choose_gradient(problem: Problem) -> Gradient:
    """Return the strategy: what was asked for where it is possible, else the leanest that is right."""
    asked = problem.gradient
    if problem.traced:
        return Unrolled()
    if asked is None:
        return Unrolled() if problem.degree is not None or not problem.declared else Stored()
    if isinstance(asked, Stored) and problem.degree is not None:
        raise ConfigError(
            "gradient=Stored() works to a tolerance and cannot go with a fixed degree; give tol= instead of degree=, "
            "or choose Unrolled() or Recompute()."
        )
    if isinstance(asked, Stored) and not problem.declared:
        raise UnsupportedError(
            f"gradient=Stored() needs a map whose tensors are known; {type(problem.map_).__name__} uses some that are "
            "not among its fields. Choose Recompute() or Unrolled()."
        )
    return asked


def contradiction(watches: list[Watch]) -> str | None:
    """Say if the terms grew more than the norm bound allows."""
    factor = max((seen.contradiction for seen in watches), default=1.0)
    if factor <= 1:
        return None
    return wrong_norm(factor)
