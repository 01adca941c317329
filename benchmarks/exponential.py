"""Speed, memory and accuracy of exponentials against the unrolled series, torch.matrix_exp and SciPy.

python -m benchmarks.exponential --quick
python -m benchmarks.exponential --part matrices --json matrices.json
"""

import math
from collections.abc import Callable
from functools import partial

import scipy.linalg
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import exponential_graphs
from benchmarks.memory import kept_bytes
from benchmarks.report import Entry, run_parts
from benchmarks.timing import medians, ratio, training
from likelify import ConvMap, Dense, Skew, conv_exponential, exp_action
from likelify.linalg import Gradient, LinearMap, Recompute, Stored

CONVOLUTIONS = {(32, 3, 32, 32): (1.7, 2.0), (32, 12, 16, 16): (1.3, 1.5), (32, 48, 8, 8): (1.1, 1.25)} | {
    (32, 192, 4, 4): (1.1, 1.25)
}
# Degree whose a-priori certificate is 1e-4 at norm 0.9, and the one of the published evaluation.
TRAINING_DEGREE, EVALUATION_DEGREE = 7, 13


def turns(*, quick: bool) -> int:
    """Return how often each run is repeated."""
    return 3 if quick else 31


def convolve(x: Tensor, kernel: Tensor, padding: str = "zeros") -> Tensor:
    """Convolve with 3x3 taps."""
    return (
        F.conv2d(F.pad(x, (1, 1, 1, 1), "circular"), kernel)
        if padding == "circular"
        else F.conv2d(x, kernel, padding=1)
    )


def unrolled(x: Tensor, kernel: Tensor, degree: int, padding: str = "zeros") -> Tensor:
    """Sum the series term by term (Hoogeboom et al. 2020, algorithm 2)."""
    value = term = x
    for k in range(1, degree + 1):
        term = convolve(term, kernel, padding) / k
        value = value + term
    return value


def random_kernel(channels: int, height: int, width: int, norm: float = 0.9) -> Tensor:
    """Return a Gaussian kernel whose convolution has that 2-norm on images of that size (power iteration)."""
    kernel = torch.randn(channels, channels, 3, 3)
    x = torch.randn(1, channels, height, width)
    for _ in range(100):
        y = F.conv2d(x, kernel, padding=1)
        x = F.conv_transpose2d(y, kernel, padding=1)
        x = x / x.norm()
    return kernel * (norm / F.conv2d(x, kernel, padding=1).norm())


def saved(function: Callable[..., Tensor], x: Tensor, kernel: Tensor) -> float:
    """Return the bytes that automatic differentiation keeps, in units of the input; kernels are not counted."""
    leaves = x.clone().requires_grad_(), kernel.clone().requires_grad_()
    kept = kept_bytes(lambda: function(*leaves), lambda tensor: tensor.shape[-2:] == kernel.shape[-2:])
    return kept / x.untyped_storage().nbytes()


def conv_training(*, quick: bool) -> list[Entry]:
    """Compare forward and backward passes, and what they keep, at equal certified accuracy."""
    entries, repeats = [], turns(quick=quick)
    for shape, (must, aim) in CONVOLUTIONS.items():
        torch.manual_seed(0)
        x, kernel = torch.randn(shape), random_kernel(*shape[1:])

        def ours(x: Tensor, kernel: Tensor, gradient: Gradient = Stored()) -> Tensor:  # noqa: B008 - a frozen setting
            return exp_action(ConvMap(kernel, norm=0.9), x, tol=1e-4, gradient=gradient).value

        def lean(x: Tensor, kernel: Tensor, ours: Callable[..., Tensor] = ours) -> Tensor:
            return ours(x, kernel, Recompute())

        def rival(x: Tensor, kernel: Tensor) -> Tensor:
            return unrolled(x, kernel, TRAINING_DEGREE)

        runs = {name: training(f, (x, kernel)) for name, f in (("ours", ours), ("lean", lean), ("rival", rival))}
        times = medians(runs, repeats)
        name = f"conv training {shape}"
        entries += [
            Entry(f"{name}, Stored", times["rival"] / times["ours"], "x faster", must, aim, "higher"),
            Entry(f"{name}, Recompute", times["rival"] / times["lean"], "x faster", better="higher"),
            Entry(f"{name}, kept by Stored", saved(ours, x, kernel) / saved(rival, x, kernel), "of the series'", 0.5),
            Entry(f"{name}, kept by Recompute", saved(lean, x, kernel), "inputs", 1),
        ]
    return entries


def conv_frozen(*, quick: bool) -> list[Entry]:
    """Compare evaluation inside frozen() with the published series of degree 13."""
    entries, repeats = [], turns(quick=quick)
    for channels, height, width in ((12, 4, 4), (48, 4, 4), (12, 8, 8), (3, 16, 16)):
        for rows in (32, 128):
            value = _frozen_ratio((rows, channels, height, width), "zeros", repeats)
            name = f"conv frozen {(rows, channels, height, width)}"
            entries.append(Entry(name, value, "x faster", 1.5, 10, "higher"))
    for shape in CONVOLUTIONS:
        value = _frozen_ratio(shape, "circular", repeats)
        entries.append(Entry(f"circular conv frozen {shape}", value, "x faster", 4, 8, "higher"))
    return entries


def _frozen_ratio(shape: tuple[int, ...], padding: str, repeats: int) -> float:
    torch.manual_seed(0)
    x, layer = torch.randn(shape), conv_exponential(shape[1], padding=padding)
    with torch.no_grad():
        layer.parametrization.weight.copy_(random_kernel(*shape[1:]))
    kernel = layer.map().effective.detach().clone()
    with torch.no_grad(), layer.frozen():
        return ratio(lambda: layer(x), lambda: unrolled(x, kernel, EVALUATION_DEGREE, padding), repeats)


def inverse_cost(*, quick: bool) -> list[Entry]:
    """Compare the inverse of a layer with its forward pass."""
    entries, repeats = [], turns(quick=quick)
    for shape in CONVOLUTIONS:
        torch.manual_seed(0)
        x, layer = torch.randn(shape), conv_exponential(shape[1])
        with torch.no_grad():
            layer.parametrization.weight.copy_(random_kernel(*shape[1:]))
            times = medians({"forward": partial(layer, x), "inverse": partial(layer.inverse, x)}, 3 * repeats)
        entries.append(Entry(f"inverse over forward {shape}", times["inverse"] / times["forward"], "", 1.05))
    return entries


def matrices(*, quick: bool) -> list[Entry]:
    """Compare forward and backward passes of matrices with torch.matrix_exp."""
    entries, repeats = [], turns(quick=quick)
    for size, must, aim in ((512, 20, 30), *([] if quick else [(1024, 40, 60)])):
        torch.manual_seed(0)
        weight = torch.randn(size, size) / math.sqrt(size)
        skew = (weight - weight.T) / 2
        weight, x = weight / torch.linalg.matrix_norm(skew, 2), torch.randn(128, size)

        def rival(x: Tensor, weight: Tensor) -> Tensor:
            return x @ torch.linalg.matrix_exp((weight - weight.T) / 2).T

        for name, norm, goal in (("norm known", 1.0, (must, aim)), ("norm computed", None, (None, None))):

            def ours(x: Tensor, weight: Tensor, norm: float | None = norm) -> Tensor:
                return exp_action(Skew(weight, norm=norm), x).value

            value = ratio(training(ours, (x, weight)), training(rival, (x, weight)), max(2, repeats // 4))
            entries.append(Entry(f"rotation d={size}, 128 rows, {name}", value, "x faster", *goal, "higher"))
            if norm is not None:
                # Products with many rows cost as much as the exponential itself.
                many = torch.randn(2048, size)
                value = ratio(training(ours, (many, weight)), training(rival, (many, weight)), 2)
                entries.append(Entry(f"rotation d={size}, 2048 rows, {name}", value, "x faster", better="higher"))
    torch.manual_seed(0)
    weight, x = torch.randn(192, 192), torch.randn(512, 192)
    weight = 0.9 * weight / torch.linalg.matrix_norm(weight, 2)
    for name, norm, goal in (("norm known", 0.9, (6, 8)), ("norm computed", None, (None, None))):
        value = ratio(
            training(lambda x, weight, norm=norm: exp_action(Dense(weight, norm=norm), x).value, (x, weight)),
            training(lambda x, weight: x @ torch.linalg.matrix_exp(weight).T, (x, weight)),
            repeats,
        )
        entries.append(Entry(f"1x1 c=192, 512 rows, {name}", value, "x faster", *goal, "higher"))
    return entries


def gradient_accuracy(*, quick: bool) -> list[Entry]:
    """Compare the float32 gradients of parameters with float64 ones."""
    torch.manual_seed(0)
    kernel, weight = random_kernel(4, 6, 6), torch.randn(48, 48) / 20
    cases: dict[str, tuple[Callable[[Tensor], LinearMap], Tensor, Tensor]] = {
        "conv": (ConvMap, kernel, torch.randn(64, 4, 6, 6)),
        "dense": (Dense, weight, torch.randn(16, 48)),
        "polynomial": (Dense, weight, torch.randn(256, 48)),
        "skew": (Skew, weight, torch.randn(16, 48)),
        "skew conv": (lambda kernel: ConvMap(kernel, symmetry="skew"), kernel, torch.randn(64, 4, 6, 6)),
    }
    entries = []
    for name, (build, tensor, x) in cases.items():
        upstream = torch.randn_like(x)
        single = tensor.clone().requires_grad_()
        (found,) = torch.autograd.grad(exp_action(build(single), x).value, single, upstream)
        double = tensor.double().requires_grad_()
        matrix = build(double).materialize(tuple(x.shape[1:]))
        outer = upstream.double().flatten(1).T @ x.double().flatten(1)
        gradient = scipy.linalg.expm_frechet(matrix.detach().mT.numpy(), outer.numpy(), compute_expm=False)
        (exact,) = torch.autograd.grad(matrix, double, torch.from_numpy(gradient))
        error = float((found - exact).norm() / exact.norm())
        entries.append(Entry(f"float32 gradient of the parameters, {name}", error, "relative error", 1e-5, 1e-6))
    return entries


def accuracy(*, quick: bool) -> list[Entry]:
    """Compare the errors of single matrices with those of torch.matrix_exp; the reference is SciPy in float64.

    All columns of a matrix have positive entries with the same sum, which is its 1-norm, by which torch.matrix_exp
    chooses its polynomial, and its largest eigenvalue.
    """
    entries = []
    for dtype, norms in ((torch.float32, (0.1, 0.25, 0.5, 0.9)), (torch.float64, (0.03, 0.5))):
        for norm in norms:
            worst = {"torch.matrix_exp": 0.0, "exp_action": 0.0}
            for _ in range(10 if quick else 100):
                matrix = torch.rand(8, 8, dtype=torch.float64)
                matrix = (norm * matrix / matrix.sum(0)).to(dtype)
                exact = torch.from_numpy(scipy.linalg.expm(matrix.double().numpy()))
                ours = exp_action(Dense(matrix), torch.eye(8, dtype=dtype)).value.T
                for name, found in (("torch.matrix_exp", torch.matrix_exp(matrix)), ("exp_action", ours)):
                    error = float(torch.linalg.matrix_norm(found.double() - exact, 2))
                    worst[name] = max(worst[name], error)
            kind = str(dtype).removeprefix("torch.")
            entries += [Entry(f"{kind}, norm {norm}, {name}", error, "in the 2-norm") for name, error in worst.items()]
    return entries


PARTS = {
    "accuracy": accuracy,
    "convolutions": conv_training,
    "frozen": conv_frozen,
    "inverse": inverse_cost,
    "gradients": gradient_accuracy,
    "matrices": matrices,
    "graphs": exponential_graphs.entries,
}


if __name__ == "__main__":
    run_parts(__doc__ or "", PARTS)
