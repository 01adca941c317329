"""Sylvester layers: the autoregressive function, its inverse and the inverse's gradient, against the published forms.

`f` is one evaluation of the autoregressive function as published: four separate output convolutions with all nine taps,
528 hidden units, batch 32. The trained layers have fitted smooth random fields for some steps, by themselves, which
drives their diagonal to its bound; one of them without a norm limit, one with a limit of 3 on bounds that are about two
times loose, which stands for the paper's norm of 1.5. Inverses are timed inside `frozen()`, as samples are drawn.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.memory import kept_bytes
from benchmarks.report import Entry, run_parts
from benchmarks.timing import medians
from likelify.fitting.memory import in_memory_of
from likelify.nets import AutoregressiveNet
from likelify.seeding import seeded
from likelify.transforms.sylvester_flows.triangular import TriangularResidual

ROWS = 32
HIDDEN = 528
SHAPES = ((12, 16, 16), (24, 8, 8), (48, 4, 4))
# (must, aim) for value and gradient of the autoregressive function, by the side of the image.
GOALS = {16: (1.7, 1.8), 8: (1.35, 1.45), 4: (1.08, 1.15)}
TRAIN_STEPS = {16: 70, 8: 100, 4: 150}
# Evaluations after which we stop the published loop.
PATIENCE = 100
TOL = 1e-5


class PublishedNet(nn.Module):
    """The autoregressive function of the published code, with the weights of one of ours."""

    def __init__(self, net: AutoregressiveNet) -> None:
        super().__init__()
        with torch.no_grad():
            enter, (middle,), leave = net.weights()
            self.enter = nn.Parameter(_kernel(enter.permute(1, 0, 2)))
            self.middle = nn.Parameter(middle[:, :, None, None].clone())
            self.leave = nn.ParameterList(_kernel(head) for head in leave.unbind(1))
        self.masks = [(w != 0).float() for w in (self.enter.detach(), self.middle.detach(), *self.leave)]
        self.biases = nn.ParameterList(
            b.detach().clone() for b in (net.enter_bias, net.middle_bias[0], *net.leave_bias)
        )

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return `f(u)` and its diagonal."""
        h = F.relu(F.conv2d(u, self.enter * self.masks[0], self.biases[0], padding=1))
        h = F.relu(F.conv2d(h, self.middle * self.masks[1], self.biases[1]))
        heads = zip(self.leave, self.masks[2:], self.biases[2:], strict=True)
        t1, s1, s2, t2 = (F.conv2d(h, w * m, b, padding=1) for w, m, b in heads)
        s1, s2 = torch.tanh(s1), 0.5 * torch.tanh(s2)
        bend = torch.tanh(s1 * u + t1)
        return s2 * bend + t2, s1 * s2 * (1 - bend**2)


def _kernel(taps: Tensor) -> Tensor:
    """Put live taps `(5, out, in)` into a 3x3 kernel."""
    kernel = taps.new_zeros(*taps.shape[1:], 9)
    kernel[..., :5] = taps.movedim(0, -1)
    return kernel.unflatten(-1, (3, 3))


@torch.no_grad()
def published_inverse(f: PublishedNet, v: Tensor) -> tuple[Tensor, Tensor, float, int]:
    """Iterate `u <- v - f(u)`; a last evaluation has the log-determinant. Return the residual and the steps too."""
    u, steps, gap = v, 0, float("inf")
    while steps < PATIENCE and gap > TOL:
        following = v - f(u)[0]
        gap, steps, u = float(((following - u).abs() / (1 + v.abs())).max()), steps + 1, following
        if gap != gap:
            break
    return u, f(u)[1].log1p().flatten(1).sum(1), gap, steps


@torch.no_grad()
def one_by_one(f: PublishedNet, v: Tensor) -> Tensor:
    """Solve element by element: an evaluation for each, and scalar Newton steps at that element."""
    u = v.clone()
    channels, height, width = v.shape[1:]
    for row in range(height):
        for column in range(width):
            for channel in range(channels):
                place = (slice(None), channel, row, column)
                for _ in range(2):
                    value, slope = f(u)
                    u[place] -= (u[place] + value[place] - v[place]) / (1 + slope[place])
    return u


def smooth(shape: tuple[int, ...], rows: int = ROWS) -> Tensor:
    """Draw smooth fields: noise, blurred, of unit variance."""
    noise = F.avg_pool2d(torch.randn(rows, shape[0], *shape[1:]), 3, stride=1, padding=1)
    noise = noise + 0.5 * noise.roll(1, 1)
    return (noise / noise.std()).contiguous(memory_format=torch.channels_last)


def layer(shape: tuple[int, ...], kind: str, *, steps: int) -> TriangularResidual:
    """Build a layer, and train it unless it shall be fresh."""
    with seeded(0):
        net = AutoregressiveNet(shape[0], hidden=HIDDEN, norm_limit=3.0 if kind == "trained, limit" else None)
        made = TriangularResidual(net, method="wavefront")
        if kind == "fresh":
            return made
        optimizer = torch.optim.Adam(made.parameters(), lr=1e-3)
        for _ in range(steps):
            z, log_det = made(smooth(shape))
            loss = (0.5 * z.square().flatten(1).sum(1) - log_det).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return made


@dataclass
class Setting:
    """A layer at work: its input, its latent, and the published form of it."""

    made: TriangularResidual
    published: PublishedNet
    x: Tensor
    z: Tensor


def setting(shape: tuple[int, ...], kind: str, steps: int) -> Setting:
    """Build the layer and what it is compared with."""
    made = layer(shape, kind, steps=steps)
    x = smooth(shape)
    with torch.no_grad():
        z = made(x)[0]
    return Setting(made, PublishedNet(made.heads), x, z)  # pyright: ignore[reportArgumentType]


def evaluation(s: Setting, name: str, goals: tuple[float, float], repeats: int) -> list[Entry]:
    """Compare evaluations of f, forward, and forward with backward."""
    plain = s.x.contiguous()

    def training(function: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor, module: nn.Module) -> object:
        x = x.clone().requires_grad_()
        value, slope = function(x)
        return torch.autograd.grad(value.sum() + slope.sum(), [x, *module.parameters()])

    def ours(x: Tensor) -> tuple[Tensor, Tensor]:
        return s.made._evaluate(x, None)

    def without_gradients(function: Callable[[Tensor], object], x: Tensor) -> None:
        with torch.no_grad():
            function(x)

    times = medians(
        {
            "published": lambda: without_gradients(s.published, plain),
            "ours": lambda: without_gradients(ours, s.x),
            "published training": lambda: training(s.published, plain, s.published),
            "ours training": lambda: training(ours, s.x, s.made.heads),
        },
        repeats,
    )
    forward = times["published"] / times["ours"]
    both = times["published training"] / times["ours training"]
    return [
        Entry(f"f forward, {name}", forward, "x", 1.9, 2.2, "higher"),
        Entry(f"f forward + backward, {name}", both, "x", *goals, "higher"),
    ]


def inverse(s: Setting, name: str, kind: str, repeats: int) -> list[Entry]:
    """Compare inverses, with their log-determinants."""
    found = s.made.solve(s.z)
    with s.made.frozen():
        times = medians(
            {"f": lambda: _quiet(s.published, s.x.contiguous()), "ours": lambda: s.made.solve(s.z)}, repeats
        )
    cost = times["ours"] / times["f"]
    _, _, gap, steps = published_inverse(s.published, s.z.contiguous())
    aim = 2.5 if kind == "trained, limit" else None
    ended = "" if gap <= TOL else f" (stopped there, with a residual of {gap:.1g})"
    return [
        Entry(f"inverse, {kind}, {name}", cost, "f", 4.5, aim),
        Entry(f"  residual, {kind}, {name}", found.residual, "relative", TOL),
        # Evaluations, not seconds: each of the loop's is one of `f`.
        Entry(f"  evaluations of the published loop, {kind}, {name}{ended}", steps + 1, "f"),
    ]


def _quiet(function: Callable[[Tensor], object], x: Tensor) -> None:
    with torch.no_grad():
        function(x)


def differentiable(s: Setting, name: str, kind: str, repeats: int) -> list[Entry]:
    """Time value and gradient through the inverse, and see what it keeps."""
    z = s.z.clone().requires_grad_()
    upstream = torch.randn_like(z)
    leaves = [z, *s.made.parameters()]

    def run() -> object:
        value, log_det = s.made.inverse(z)
        return torch.autograd.grad((value * upstream).sum() + log_det.sum(), leaves)

    times = medians({"f": lambda: _quiet(s.published, s.x.contiguous()), "ours": run}, repeats)
    kept = kept_bytes(lambda: s.made.inverse(z), in_memory_of(s.made.parameters()))
    share = kept / s.x.untyped_storage().nbytes()
    return [
        Entry(f"value and gradient of the inverse, {kind}, {name}", times["ours"] / times["f"], "f", 16, 12),
        Entry(f"  kept, {kind}, {name}", share, "x input", 2),
    ]


def against_one_by_one(repeats: int) -> Entry:
    """Compare the fixed point with solving dimension by dimension, on fresh weights at 12 x 4 x 4."""
    shape = (12, 4, 4)
    with seeded(0):
        s = setting(shape, "fresh", 0)
    x = s.z[:8].contiguous()
    times = medians(
        {"fixed point": lambda: published_inverse(s.published, x), "one by one": lambda: one_by_one(s.published, x)},
        repeats,
    )
    name = "fixed point against solving dimension by dimension, (12, 4, 4)"
    return Entry(name, times["one by one"] / times["fixed point"], "x", 1, better="higher")


def layers_of(shape: tuple[int, ...], *, quick: bool) -> list[Entry]:
    """Measure layers of one shape, fresh and trained."""
    found: list[Entry] = []
    name, size = str(shape), shape[1]
    for kind in ("fresh", "trained, limit", "trained, free"):
        s = setting(shape, kind, 20 if quick else TRAIN_STEPS[size])
        repeats = 3 if quick or size == 16 else 7
        if kind == "fresh":
            found += evaluation(s, name, GOALS[size], repeats + 4)
        found += inverse(s, name, kind, repeats)
        found += differentiable(s, name, kind, repeats)
    return found


def large(*, quick: bool) -> list[Entry]:
    """Measure images of 16 x 16 and 8 x 8, if there is time."""
    return [] if quick else [entry for shape in SHAPES[:2] for entry in layers_of(shape, quick=False)]


PARTS = {
    "large": large,
    "4x4": lambda *, quick: layers_of(SHAPES[2], quick=quick),
    "one-by-one": lambda *, quick: [against_one_by_one(1 if quick else 3)],
}


if __name__ == "__main__":
    run_parts(__doc__ or "", PARTS)
