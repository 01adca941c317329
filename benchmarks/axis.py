"""What a layer that mixes costs on a CPU: forward and backward, as multiples of a 1x1 convolution's.

One thread, interleaved in one process, medians, at full tolerance. The exponentials are measured by themselves; in a
model they follow a 1x1 convolution. Their kernels are as large as after training on photographs: fresh ones take fewer
terms.
"""

from collections.abc import Callable

import torch

from benchmarks.report import Entry, run_parts
from benchmarks.timing import medians
from likelify import Conv1x1, Transform, axis_exponential, conv_exponential, testing
from likelify.transforms import emerging_conv

SHAPES = ((32, 12, 16, 16), (32, 24, 8, 8), (32, 48, 8, 8))
# The sum of the magnitudes of the largest kernel's taps.
TAP_SUM = 0.8
LAYERS: dict[str, Callable[[tuple[int, ...]], Transform]] = {
    "1x1": lambda shape: Conv1x1(shape[1]),
    "axis exponential": lambda shape: _trained(axis_exponential(shape[1], positions=shape[2:])),
    "emerging": lambda shape: emerging_conv(shape[1]),
    "convolution exponential": lambda shape: testing.randomize(conv_exponential(shape[1]), scale=0.02),
}


def _trained(layer: Transform) -> Transform:
    """Scale kernels up to the size that they have after training."""
    with torch.no_grad():
        for taps in layer.parameters():
            taps.mul_(TAP_SUM / taps.abs().sum(-1).amax())
    return layer


def training_step(layer: Transform, x: torch.Tensor) -> Callable[[], object]:
    """Return one forward and backward pass of a likelihood's terms."""
    leaves = (x, *layer.parameters())
    upstream = torch.randn_like(x)

    def run() -> object:
        z, log_det = layer(x)
        if not log_det.requires_grad:
            return torch.autograd.grad(z, leaves, upstream)
        return torch.autograd.grad([z, log_det.sum()], leaves, [upstream, None])

    return run


def sampling_step(layer: Transform, x: torch.Tensor) -> Callable[[], object]:
    """Return an inverse pass."""

    def run() -> object:
        with torch.no_grad():
            return layer.inverse(x)

    return run


def training(*, quick: bool) -> list[Entry]:
    """Time training steps."""
    return _entries("training", training_step, {"axis exponential": (2.3, 1.7)}, quick=quick)


def sampling(*, quick: bool) -> list[Entry]:
    """Time inverses."""
    return _entries("inverse", sampling_step, {}, quick=quick)


def _entries(
    title: str,
    step: Callable[[Transform, torch.Tensor], Callable[[], object]],
    goals: dict[str, tuple[float, float]],
    *,
    quick: bool,
) -> list[Entry]:
    entries = []
    for shape in SHAPES:
        x = torch.randn(*shape, requires_grad=True)
        layers = {name: build(shape) for name, build in LAYERS.items()}
        times = medians({name: step(layer, x) for name, layer in layers.items()}, 9 if quick else 41)
        entries.append(Entry(f"{title} 1x1 {shape}", 1e3 * times["1x1"], "ms"))
        for name in list(LAYERS)[1:]:
            must, aim = goals.get(name, (None, None))
            entries.append(Entry(f"{title} {name} {shape}", times[name] / times["1x1"], "x 1x1", must, aim))
    return entries


if __name__ == "__main__":
    run_parts(__doc__ or "", {"training": training, "sampling": sampling})
