"""Exponentials of batches of small matrices: ours against `torch.matrix_exp`, and the layers that may use them.

Forward and backward, one thread, interleaved in one process, medians. The errors are those of the value and of the
gradient against scipy in double precision, relative to the largest element.
"""

from collections.abc import Callable

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from benchmarks.report import Entry, run_parts
from benchmarks.timing import medians, ratio, training
from likelify import Dense, Skew, exp_action
from likelify.linalg.expm import ExpMethod
from likelify.linalg.expm.polynomial import evaluate_polynomial, plan_polynomial

BATCHES = ((24, 16, 16), (48, 8, 8), (96, 8, 8), (32, 64, 64), (1, 12, 12), (1, 48, 48), (1, 192, 192))
# Of the matrices, as after training.
NORM = 0.8
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


def _matrices(*shape: int, dtype: torch.dtype) -> Tensor:
    matrices = torch.randn(*shape, dtype=torch.float64)
    norms = torch.linalg.matrix_norm(matrices, 2)[:, None, None]
    return (NORM * matrices / norms).to(dtype)


def _ours(matrices: Tensor) -> Tensor:
    dtype = matrices.dtype
    plan = plan_polynomial(NORM, NORM, TOLERANCE[dtype], dtype)
    return evaluate_polynomial(matrices, plan)


def speed(*, quick: bool) -> list[Entry]:
    """Time both."""
    entries = []
    for dtype, word in ((torch.float32, "float32"), (torch.float64, "float64")):
        for shape in BATCHES[:2] if quick else BATCHES:
            matrices = _matrices(*shape, dtype=dtype)
            repeats = 20 if quick or shape[-1] > 64 else 200
            found = ratio(training(_ours, (matrices,)), training(torch.matrix_exp, (matrices,)), repeats)
            entries.append(Entry(f"speed {shape} {word}", found, "x matrix_exp", 1.0, 2.0, "higher"))
    return entries


def errors(*, quick: bool) -> list[Entry]:
    """Measure the errors of both."""
    entries = []
    for dtype, word in ((torch.float32, "float32"), (torch.float64, "float64")):
        for shape in BATCHES[:2] if quick else BATCHES[:4]:
            matrices, upstream = _matrices(*shape, dtype=dtype), torch.randn(*shape, dtype=dtype)
            for name, function in (("ours", _ours), ("matrix_exp", torch.matrix_exp)):
                of_value, of_gradient = _errors(function, matrices, upstream)
                entries.append(Entry(f"value {shape} {word}, {name}", of_value, "relative"))
                entries.append(Entry(f"gradient {shape} {word}, {name}", of_gradient, "relative"))
    return entries


def _errors(function: Callable[[Tensor], Tensor], matrices: Tensor, upstream: Tensor) -> tuple[float, float]:
    leaf = matrices.clone().requires_grad_()
    value = function(leaf)
    (grad,) = torch.autograd.grad(value, leaf, upstream)
    wide, direction = matrices.double().numpy(), upstream.double().numpy()
    exact = np.stack([scipy.linalg.expm(m) for m in wide])
    slopes = [scipy.linalg.expm_frechet(m.T, g, compute_expm=False) for m, g in zip(wide, direction, strict=True)]
    gaps = (value.detach().double().numpy() - exact, grad.double().numpy() - np.stack(slopes))
    return (
        float(np.abs(gaps[0]).max() / np.abs(exact).max()),
        float(np.abs(gaps[1]).max() / np.abs(np.stack(slopes)).max()),
    )


def layers(*, quick: bool) -> list[Entry]:
    """Time rotations and dense exponentials by each method that could serve them, as multiples of what is chosen."""
    entries = []
    shapes = (
        (((24, 16), 24), ((48, 8), 48))
        if quick
        else (((24, 16), 24), ((48, 8), 48), ((48, 8, 8, 8), 48), ((32, 64), 32), ((8, 16), 0), ((8, 64), 0))
    )
    for event, own_rows in shapes:
        for kind in (Dense, Skew):
            size = event[1]
            matrix = _matrices(own_rows or 1, size, size, dtype=torch.float32)
            matrix = matrix if own_rows else matrix[0]
            x = torch.randn(*event)
            methods: tuple[ExpMethod, ...] = ("auto", "polynomial", "series", "chebyshev")[: 4 if kind is Skew else 3]
            runs = {
                m: training(lambda x, a, m=m, kind=kind: exp_action(kind(a), x, method=m).value, (x, matrix))
                for m in methods
            }
            found = medians(runs, 20 if quick else 100)
            rows = "own rows" if own_rows else "shared"
            entries += [
                Entry(f"{kind.__name__} {event} {rows}, {m}", found[m] / found["auto"], "x auto") for m in methods[1:]
            ]
    return entries


if __name__ == "__main__":
    run_parts(__doc__ or "", {"speed": speed, "errors": errors, "layers": layers})
