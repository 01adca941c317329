"""What a case is, and how an answer is judged against an exponential in extended precision."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

import likelify as lk
from benchmarks.certificates.reference import extended_action
from likelify.linalg.expm import recorded
from likelify.linalg.expm.action import TOLERANCE
from likelify.linalg.maps import LinearMap

FACTOR = 10
SINGLE, DOUBLE = torch.float32, torch.float64


@dataclass(frozen=True)
class Case:
    """Something that should fail, be refused, or just work.

    Attributes:
        group: what it is about.
        name: what it is.
        run: takes a seed and returns an outcome, or raises.
        times: number of seeds.
        must: `"accept"` if it must not be refused, `"refuse"` if there is no right answer.
        informative: a contract that is broken and cannot be checked; counted apart.
    """

    group: str
    name: str
    run: Callable[[int], str]
    times: int = 1
    must: str | None = None
    informative: bool = False


CASES: list[Case] = []


def add(group: str, name: str, run: Callable[[], str], *, times: int = 1, must: str | None = None, **more: Any) -> None:
    """Add a case that takes its random numbers from the global generator."""
    CASES.append(Case(group, name, lambda seed: run(), times, must, **more))


def tolerance(dtype: torch.dtype) -> float:
    """Return the tolerance that `exp_action` takes by default."""
    return TOLERANCE.get(dtype, 8 * torch.finfo(dtype).eps)


def exponential(matrix: Tensor) -> Tensor:
    """Compute the exponential in double precision."""
    return torch.from_numpy(np.asarray(scipy.linalg.expm(matrix.detach().double().numpy())))


def compare(value: Tensor, exact: Tensor, x: Tensor, diagnostics: Any, tol: float) -> str:
    """Judge an answer row by row."""
    # The smallest values of a format have few digits; what is lost there is lost in the input already.
    grain = 64 * torch.finfo(x.dtype).smallest_normal * torch.finfo(x.dtype).eps
    value, exact, x = (t.detach().double().flatten(1) for t in (value, exact, x))
    if not bool(torch.isfinite(value).all()):
        return "SILENT: not finite" if claims(diagnostics) else "admitted"
    scale = x.abs().amax().clamp_min(1e-300) if x.numel() else 1.0
    value, exact, x = value / scale, exact / scale, x / scale
    norms = torch.linalg.vector_norm(x, dim=1)
    error = torch.linalg.vector_norm(value - exact, dim=1)
    relative = error / norms.maximum(torch.linalg.vector_norm(exact, dim=1)).clamp_min(1e-300)
    worst = float(relative.max()) if len(relative) else 0.0
    if worst <= FACTOR * tol + grain / float(scale):
        return "right"
    if not claims(diagnostics):
        return "admitted"
    allowance = 0.0 if diagnostics is None else diagnostics.round_off_allowance + tol
    covered = diagnostics is not None and bool((error <= allowance * norms).all())
    return f"admitted as rounding ({worst:.0e})" if covered else f"SILENT: error {worst:.0e}"


def claims(diagnostics: Any) -> bool:
    """Tell whether diagnostics claim that the answer is right; what reports nothing claims it."""
    return diagnostics is None or (diagnostics.converged is True and diagnostics.problem is None)


def exact_value(matrix: Tensor, x: Tensor, time: float) -> Tensor:
    """Return `exp(t M) x` in double precision, for one matrix or one for each row."""
    rows = x.detach().double().flatten(1)
    if matrix.ndim == 3:
        value = torch.cat([act(time * m, r[None]) for m, r in zip(matrix, rows, strict=True)])
    elif len(matrix) == rows.numel() != rows.shape[1]:
        value = act(time * matrix, rows.reshape(1, -1))
    else:
        value = act(time * matrix, rows)
    return value.reshape(x.shape)


def act(matrix: Tensor, rows: Tensor) -> Tensor:
    """Return `exp(M) r` for each row, where it matters in 80-bit precision."""
    norm = float(torch.linalg.matrix_norm(matrix, 2)) if matrix.numel() else 0.0
    if not 8 < norm < 2000:
        return rows @ exponential(matrix).T
    return torch.from_numpy(extended_action(matrix.numpy(), rows.T.numpy()).T.astype(np.float64))


def judge(
    map_: LinearMap, matrix: Tensor, x: Tensor, *, time: float = 1.0, tol: float | None = None, **more: Any
) -> str:
    """Run the engine and judge its answer."""
    before = x.detach().clone()
    action = lk.exp_action(map_, x, time=time, tol=tol, **more)
    if not torch.equal(before, x.detach()) and not bool(torch.isnan(before).any()):
        return "SILENT: the input was changed"
    if action.value.dtype != x.dtype or action.value.shape != x.shape:
        return f"SILENT: {action.value.dtype} {tuple(action.value.shape)} for {x.dtype} {tuple(x.shape)}"
    used = tolerance(x.dtype) if tol is None else tol
    if matrix.numel() and (norm := abs(time) * float(torch.linalg.matrix_norm(matrix, 2).max())) > 2000:
        # There the reference is no better than its own rounding.
        used = max(used, 1e-15 * norm)
    return compare(action.value, exact_value(matrix, before, time), before, action.diagnostics, used)


def judge_layer(layer: Any, matrix: Tensor, x: Tensor, context: Any = None, tol: float | None = None) -> str:
    """Run a layer both ways and judge values and log-determinants."""
    used = tolerance(x.dtype) if tol is None else tol
    for time in (1.0, -1.0):
        with recorded() as found, torch.no_grad():
            value, log_det = layer(x, context) if time > 0 else layer.inverse(x, context)
        if not found:
            return "SILENT: nothing was recorded"
        outcome = compare(value, exact_value(matrix, x, time), x, found[-1], used)
        trace = time * matrix.diagonal(dim1=-2, dim2=-1)
        wrong = float((log_det.double() - trace.sum(-1)).abs().max()) if len(log_det) else 0.0
        if not wrong <= FACTOR * used * max(1.0, float(trace.abs().sum(-1).max())):
            return f"SILENT: log-determinant off by {wrong:.1g}"
        if outcome != "right":
            return outcome
    return "right"
