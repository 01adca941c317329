"""Speed and memory of mixing layers: reflections, and the inverse of emerging convolutions.

Householder. What is timed is a forward and a backward pass. "Building Q" goes from the vectors to the matrix and back;
the rival multiplies K dense C x C reflections under autograd, the published form. "With 1x1" also applies the matrix to
the images and differentiates by them; the rival then adds an ordinary 1x1 convolution, whose own time is most of ours.
Each turn makes several passes in a row: one alone takes a tenth of a millisecond, and after the rival's large matrices
it would be timed with cold caches. Memory is what is kept for the backward pass of building and applying, each storage
once, beyond the input itself.

Emerging. The layer is the published one: a 1x1 convolution and two autoregressive 2x2 convolutions. The unit is its own
forward pass without gradients. The rival solves pixel after pixel, batch and channels at once: one matrix product with
the window of pixels that are known already, and one triangular solve. "Frozen" keeps what depends on weights alone.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.memory import kept_bytes
from benchmarks.report import Entry, run_parts
from benchmarks.timing import medians, ratio, training
from likelify import Chain, Conv1x1, emerging_conv, transforms
from likelify.fitting.memory import in_memory_of
from likelify.linalg.dense import apply_matrix
from likelify.linalg.householder import householder_matrix, reflect

# Input, number of reflections, passes in a row, goals of the speed of building Q.
REFLECTIONS = (
    ((32, 192, 4, 4), 64, 3, 40.0, 60.0),
    ((32, 48, 4, 4), 48, 10, 10.0, 16.0),
    ((32, 12, 16, 16), 12, 10, 4.0, 6.0),
)
# Input, goals of the inverse in forward passes.
EMERGING = (((32, 12, 16, 16), 7.0, 5.0), ((32, 24, 8, 8), 4.0, 3.0), ((32, 48, 8, 8), 4.0, 3.0))


def dense_product(vectors: Tensor) -> Tensor:
    """Multiply the reflections as matrices."""
    eye = torch.eye(vectors.shape[1])
    product = eye
    for v in vectors:
        product = product @ (eye - 2 * torch.outer(v, v) / (v @ v))
    return product


def published_reflections(x: Tensor, vectors: Tensor) -> Tensor:
    """Convolve with the product."""
    return F.conv2d(x, dense_product(vectors)[:, :, None, None])


def building(function: Callable[[Tensor], Tensor], vectors: Tensor) -> Callable[[], object]:
    """Return a forward and a backward pass from vectors to a matrix, from the same random gradient each time."""
    leaf, upstream = vectors.clone().requires_grad_(), torch.randn(vectors.shape[1], vectors.shape[1])
    return lambda: torch.autograd.grad(function(leaf), leaf, upstream)


def in_a_row(step: Callable[[], object], passes: int) -> Callable[[], object]:
    """Return several passes."""

    def run() -> None:
        for _ in range(passes):
            step()

    return run


def reflection_entries(repeats: int) -> list[Entry]:
    """Compare reflections with the dense product."""

    def ours(x: Tensor, vectors: Tensor) -> Tensor:
        return reflect(vectors, x)

    found = []
    for shape, count, passes, must, aim in REFLECTIONS:
        x, vectors = torch.randn(shape), torch.randn(count, shape[1])
        title = f"householder {shape} K={count}"
        steps = (building(function, vectors) for function in (householder_matrix, dense_product))
        gain = ratio(*(in_a_row(step, passes) for step in steps), repeats)
        found.append(Entry(f"{title}, building Q", gain, "times faster", must, aim, "higher"))
        steps = (training(function, (x, vectors)) for function in (ours, published_reflections))
        gain = ratio(*(in_a_row(step, passes) for step in steps), repeats)
        found.append(Entry(f"{title}, with 1x1", gain, "times faster", better="higher"))
        gap = float((householder_matrix(vectors) - dense_product(vectors)).abs().max())
        found.append(Entry(f"{title}, difference of Q", gap, "largest"))
        x.requires_grad_()
        vectors.requires_grad_()
        kept = {
            function: kept_bytes(partial(function, x, vectors), in_memory_of([x])) / x.nbytes
            for function in (ours, published_reflections)
        }
        goals = (0.5, 0.3) if shape[1] == 192 else (None, None)
        found.append(Entry(f"{title}, memory", kept[ours], "x input", *goals))
        found.append(Entry(f"{title}, memory of the dense product", kept[published_reflections], "x input"))
    return found


def pixel_loop(z: Tensor, layer: transforms.AutoregressiveConv) -> Tensor:
    """Undo a 2x2 autoregressive convolution pixel by pixel."""
    if layer.reverse:
        z = z.flip(2, 3)
    kernel = layer.kernel()
    rows, channels, height, width = z.shape
    x = z.new_zeros(rows, channels, height + 1, width + 1)
    centre, before = kernel[:, :, 1, 1], kernel.clone()
    before[:, :, 1, 1] = 0
    before = before.flatten(1).T.contiguous()
    for i in range(height):
        for j in range(width):
            rest = z[:, :, i, j] - x[:, :, i : i + 2, j : j + 2].flatten(1) @ before
            x[:, :, i + 1, j + 1] = torch.linalg.solve_triangular(centre, rest.T, upper=layer.reverse).T
    x = x[:, :, 1:, 1:]
    return x.flip(2, 3) if layer.reverse else x


def loop_inverse(layer: Chain, z: Tensor) -> Tensor:
    """Undo an emerging convolution pixel by pixel."""
    for part in list(layer)[:0:-1]:
        z = pixel_loop(z, part)
    return layer[0].inverse(z)[0]


@torch.no_grad()
def emerging_entries(repeats: int) -> list[Entry]:
    """Time the inverse of emerging convolutions."""
    found = []
    for shape, must, aim in EMERGING:
        layer, x = emerging_conv(shape[1]), torch.randn(shape)
        z, _ = layer(x)
        title = f"emerging {shape}"
        runs = {
            "forward": lambda layer=layer, x=x: layer(x),
            "inverse": lambda layer=layer, z=z: layer.inverse(z),
            "loop": lambda layer=layer, z=z: loop_inverse(layer, z),
        }
        times = medians(runs, repeats)
        with layer.frozen():
            frozen = medians({name: runs[name] for name in ("forward", "inverse")}, repeats)
        found += [
            Entry(f"{title}, inverse", times["inverse"] / times["forward"], "forwards", must, aim),
            Entry(f"{title}, inverse, frozen", frozen["inverse"] / frozen["forward"], "frozen forwards"),
            Entry(f"{title}, pixel loop", times["loop"] / times["inverse"], "times slower", 8.0, 20.0, "higher"),
            Entry(
                f"{title}, pixel loop over frozen", times["loop"] / frozen["inverse"], "times slower", better="higher"
            ),
            Entry(f"{title}, round trip", float((layer.inverse(z)[0] - x).abs().max()), "largest error"),
            Entry(f"{title}, round trip of the loop", float((loop_inverse(layer, z) - x).abs().max()), "largest error"),
        ]
    return found


def _convolve(matrix: Tensor, x: Tensor) -> Tensor:
    return F.conv2d(x, matrix[:, :, None, None])


def product_entries(repeats: int) -> list[Entry]:
    """Compare the product that `Conv1x1` uses with a 1x1 convolution of PyTorch, in a training step."""
    found = []
    for shape in ((32, 12, 16, 16), (32, 24, 8, 8), (32, 48, 8, 8), (32, 192, 4, 4)):
        matrix = Conv1x1(shape[1]).matrix().detach()
        for name, layout in (("first", torch.contiguous_format), ("last", torch.channels_last)):
            x = torch.randn(shape).contiguous(memory_format=layout)
            ours, theirs = (training(lambda x, m, f=f: f(m, x), (x, matrix)) for f in (apply_matrix, _convolve))
            gain = ratio(ours, theirs, repeats)
            found.append(Entry(f"1x1 {shape} channels {name}, over conv2d", gain, "times faster", better="higher"))
    return found


PARTS = {
    "reflections": lambda *, quick: reflection_entries(5 if quick else 21),
    "emerging": lambda *, quick: emerging_entries(5 if quick else 21),
    "products": lambda *, quick: product_entries(7 if quick else 41),
}


if __name__ == "__main__":
    run_parts(__doc__ or "", PARTS)
