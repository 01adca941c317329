"""Training steps of the convolution exponential behind `mixing="conv-exponential"`, in steps of a 1x1 convolution.

Forward and backward pass of one layer by its input and its parameters, at full tolerance and at looser ones as in the
training steps of a fit (`FitSettings.exp_tol`); interleaved in one process, one thread, medians. "At its limit" the
kernel is random and its norm is scaled down, which needs the tight bound and its gradient; "below" a cheap bound shows
that nothing has to be done. `python -m benchmarks.against TREE --steps mixing` compares the same layers with those of
another checkout.
"""

from collections.abc import Callable

import torch

from benchmarks.report import Entry, run_parts
from benchmarks.timing import medians
from likelify import Conv1x1, Transform, conv_exponential, nets
from likelify.linalg import recorded
from likelify.linalg.bounds import reshape_bound

SHAPES = ((32, 12, 16, 16), (32, 24, 8, 8), (32, 48, 8, 8))
# Cheap bound of the kernel's norm; the limit is 0.9.
NORMS = {"at its limit": 1.8, "below": 0.7}
TOLERANCES = (None, 1e-3, 1e-2)


def layer_of(channels: int, norm: float) -> Transform:
    """Return the layer with a random kernel of which the cheap bound is given."""
    layer = conv_exponential(channels, norm_limit=0.9, norm_bound="torus")
    with torch.no_grad():
        weight = layer.get_parameter("parametrization.weight")
        weight.copy_(torch.randn_like(weight))
        weight.mul_(norm / reshape_bound(weight))
    return layer


def step(layer: Transform, x: torch.Tensor, tol: float | None) -> Callable[[], object]:
    """Return a forward and a backward pass, with the same random gradient each time."""
    leaves, upstream = [x, *layer.parameters()], torch.randn_like(x)

    def run() -> object:
        with nets.regularized(layer, exp_tol=tol):
            z, log_det = layer(x)
        loss = (z * upstream).sum() + log_det.sum()
        return torch.autograd.grad(loss, leaves, allow_unused=True)

    return run


def terms(layer: Transform, x: torch.Tensor, tol: float | None) -> int:
    """Return the number of terms of the forward pass."""
    with nets.regularized(layer, exp_tol=tol), recorded() as found:
        layer(x)
    return found[0].degree


def entries_of(repeats: int) -> list[Entry]:
    """Time all shapes, kernels and tolerances."""
    found = []
    for shape in SHAPES:
        x = torch.randn(shape, requires_grad=True)
        runs, counts = {"1x1": step(Conv1x1(shape[1]), x, None)}, {}
        for kind, norm in NORMS.items():
            layer = layer_of(shape[1], norm)
            for tol in TOLERANCES:
                name = f"{shape} {kind}, {'full tolerance' if tol is None else f'tolerance {tol:g}'}"
                runs[name], counts[name] = step(layer, x, tol), terms(layer, x, tol)
        times = medians(runs, repeats)
        for name, count in counts.items():
            found.append(Entry(f"step {name}", times[name] / times["1x1"], "steps of 1x1"))
            found.append(Entry(f"terms {name}", count, "applications"))
    return found


PARTS = {"steps": lambda *, quick: entries_of(7 if quick else 41)}


if __name__ == "__main__":
    run_parts(__doc__ or "", PARTS)
