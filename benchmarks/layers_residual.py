"""The residual-flow layer: bias and spread of its estimated log-determinant, its inverse, its memory and its time.

    python -m benchmarks.layers_residual --quick
    python -m benchmarks.layers_residual --json residual.json

The estimate is compared with the exact log-determinant of the same layers, fresh and after some training on digits.
Memory and time are those of one layer with the network of the papers (3x3, 1x1, 3x3 convolutions, 528 channels) against
a coupling and a Sylvester layer of the same width, and against the same estimate by plain automatic differentiation,
which keeps the graph of the network and of its products. Memory: what is kept between forward and backward, and the
peak of both with everything that is made of the weights, in multiples of the input. Times are CPU times of one thread.
"""

import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import likelify as lk
from benchmarks.memory import kept_bytes
from benchmarks.report import Entry, run_parts
from benchmarks.timing import medians
from likelify import nets
from likelify.data import open_source
from likelify.fitting.memory import in_memory_of
from likelify.linalg.log_det import NOISE, Roulette
from likelify.transforms.core import Transform

SETTINGS = {
    "default": Roulette(),
    "2 terms, then 1/2": Roulette(exact_terms=2, continuation=0.5),
    "20 terms, then 1/2": Roulette(exact_terms=20, continuation=0.5),
}


def digits_flow(blocks: int, method: Roulette | str, hidden: int = 48) -> lk.Flow:
    """Return a flow of residual layers on digits, `(4, 4, 4)` after the squeeze."""
    layers: list[Transform] = [lk.Dequantize(17), lk.Squeeze()]
    for _ in range(blocks):
        layers += [lk.ActNorm(4), lk.LipschitzResidual(nets.LipschitzConvNet(4, hidden), log_det=method)]
    return lk.Flow(lk.Normal((4, 4, 4)), lk.Chain([*layers, lk.ActNorm(4)]))


def train(flow: lk.Flow, x: Tensor, steps: int) -> None:
    """Maximise the bound of the likelihood, with the gradients of the estimate."""
    flow.initialize(x[:500])
    optimizer = torch.optim.Adam(flow.parameters(), 5e-3)
    for _ in range(steps):
        batch = x[torch.randint(len(x), (64,))]
        optimizer.zero_grad()
        (-flow.elbo(batch).value.mean()).backward()
        optimizer.step()


def estimates(flow: lk.Flow, x: Tensor, title: str, draws: int) -> list[Entry]:
    """Compare estimates of the log-determinant of all blocks with the exact one, for fixed inputs."""
    entries, bijection = [], lk.Chain(list(flow.transform)[1:])
    with torch.no_grad():
        inputs = x + torch.rand(x.shape)
        exact = lk.with_log_det(bijection, "exact")(inputs)[1].double()
        for name, method in SETTINGS.items():
            noisy = lk.Chain([_with(layer, method) for layer in bijection])
            with noisy.frozen():
                drawn = torch.stack([noisy(inputs)[1].double() for _ in range(draws)])
            # The number of terms is shared by the rows of a call, so calls are the independent draws.
            gaps = (drawn - exact).mean(1)
            error = float(gaps.std()) / math.sqrt(draws)
            spread = float(drawn.std(0).mean())
            entries += [
                Entry(f"{title}, {name}: bias", abs(float(gaps.mean())) / error, "standard errors", 3, 2),
                Entry(f"  standard error, {title}, {name}", error, "nats"),
                Entry(f"  spread of one estimate, {title}, {name}", spread, "nats"),
                Entry(f"  the same, {title}, {name}", spread / (x[0].numel() * math.log(2)), "bits/dim"),
            ]
    return entries


def _with(layer: Transform, method: Roulette) -> Transform:
    return lk.LipschitzResidual(layer.net, log_det=method) if isinstance(layer, lk.LipschitzResidual) else layer


def stretched(steps: int, hidden: int, draws: int) -> list[Entry]:
    """Return the spread of one estimate after training for the largest determinant, where all terms have one sign."""
    layer = lk.LipschitzResidual(nets.LipschitzConvNet(12, hidden))
    optimizer, x = torch.optim.Adam(layer.parameters(), 1e-2), torch.randn(8, 12, 8, 8)
    for _ in range(steps):
        optimizer.zero_grad()
        (-layer(x)[1].mean()).backward()
        optimizer.step()
    exact = float(lk.with_log_det(layer, "exact")(x[:1])[1].detach())
    entries = [Entry("largest determinant, (12, 8, 8): exact", exact, "nats", better="higher")]
    with torch.no_grad():
        for name, method in SETTINGS.items():
            noisy = _with(layer, method)
            with noisy.frozen():
                drawn = torch.stack([noisy(x[:1])[1][0] for _ in range(draws)])
            entries.append(Entry(f"  spread of one estimate, {name}", float(drawn.std()), "nats"))
    return entries


def inverse(flow: lk.Flow, x: Tensor, title: str) -> list[Entry]:
    """Compare the error of the inverse of the first block with the certified one, and count its steps."""
    layer = flow.transform[3]
    with torch.no_grad():
        inputs = flow.transform[2](flow.transform[1](x + 0.5)[0])[0].double()
        layer = layer.double()
        entries = []
        for tol in (1e-2, 1e-5, None):
            layer.tol = tol
            z, calls = layer.mean_forward(inputs), 0
            run = layer.net.run

            def counted(*given: object, run: Callable = run) -> Tensor:
                nonlocal calls
                calls += 1
                return run(*given)

            layer.net.run = counted
            gap = (layer.mean_inverse(z) - inputs).flatten(1).norm(dim=1)
            layer.net.run = run
            claimed = (1e-12 if tol is None else tol) * z.flatten(1).norm(dim=1).clamp_min(1)
            name = f"inverse, {title}, error allowed {'1e-12' if tol is None else f'{tol:g}'}"
            entries.append(Entry(f"{name}: observed", float((gap / claimed).max()), "of what is certified", 1))
            entries.append(Entry(f"  {name}: work", calls, "evaluations of the network"))
        layer.float()
    return entries


class Peak(TorchDispatchMode):
    """Adds up the memory of all tensors that operations make inside the block and that are alive.

    Attributes:
        largest: most bytes at any time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.largest = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run an operation and take note of its results."""
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.alive:
                    self.alive[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.alive.pop, storage._cdata, None)
        self.largest = max(self.largest, sum(self.alive.values()))
        return result


def peak_bytes(layer: Transform, run: Callable[[], object]) -> int:
    """Return the peak of memory of a call, without parameters and input."""
    gc.collect()
    with Peak() as peak:
        run()
    layer.zero_grad()
    return peak.largest


def plain(layer: lk.LipschitzResidual, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the layer gives, with the same estimate and gradient, by plain automatic differentiation."""
    y = layer.net(x)
    probe = (torch.rand_like(x.detach()) < 0.5).to(x.dtype) * 2 - 1
    power = total = probe
    value, reached, first, k = x.new_zeros(len(x)), 1.0, None, 0
    while True:
        k += 1
        (power,) = torch.autograd.grad(y, x, power, retain_graph=True)
        norm = power.flatten(1).norm(dim=1)
        first = norm if first is None else first
        total = total + (-1) ** k / reached * power
        value = value - (-1) ** k / (k * reached) * (power * probe).flatten(1).sum(1)
        if k >= layer.log_det.exact_terms:
            left, before = float((norm / first).max()), reached
            reached = min(reached, left * math.sqrt(x[0].numel()) / (NOISE * (k + 1)))
            if reached <= before * float(torch.rand((), dtype=torch.float64)):
                break
    (pulled,) = torch.autograd.grad(y, x, total, create_graph=True)
    slope = (pulled * probe).flatten(1).sum(1)
    return x + y, value + slope - slope.detach()


def rivals(channels: int, hidden: int) -> dict[str, tuple[Transform, Callable[[Tensor], tuple[Tensor, Tensor]]]]:
    """Return the layers that are compared, each with its call."""
    split = lk.ChannelSplit(channels)
    read, changed = split.sizes
    coupling = lk.Coupling(split, lk.AffineBijector(), nets.ResidualConvNet(read, 2 * changed, hidden, skip=False))
    sylvester = lk.conv_sylvester(channels, hidden=hidden)
    ours = lk.LipschitzResidual(nets.LipschitzConvNet(channels, hidden))
    # Weights at their limits and the last one back along the first, as after training for a large determinant: the
    # number of terms depends on the Jacobian.
    with torch.no_grad():
        enter, middle, leave = ours.net.weights
        middle.copy_(3 * torch.eye(hidden)[:, :, None, None])
        leave.copy_(30 * enter.transpose(0, 1).flip(2, 3))
        for bias in list(ours.net.biases)[:-1]:
            bias.fill_(1.0)
    return {
        "coupling": (coupling, coupling),
        "Sylvester": (sylvester, sylvester),
        "residual": (ours, ours),
        "residual, plain": (ours, lambda x: plain(ours, x)),
    }


def cost(shape: tuple[int, ...], *, rows: int, hidden: int, repeats: int) -> list[Entry]:
    """Measure memory and time of one training step of each layer."""
    layers = rivals(shape[0], hidden)
    x = torch.randn(rows, *shape).to(memory_format=torch.channels_last).requires_grad_()
    title, entries, steps = f"{shape}, batch {rows}", [], {}
    for name, (layer, call) in layers.items():
        own = in_memory_of(layer.parameters())

        def step(call: Callable[[Tensor], tuple[Tensor, Tensor]] = call) -> None:
            with lk.seeded(3):
                # The same number of terms for all.
                z, contribution = call(x)
            (0.5 * (z**2).sum() - contribution.sum()).backward()

        steps[name] = step
        for count in (4, rows):
            part = x.detach()[:count].clone().requires_grad_()
            kept = kept_bytes(lambda call=call, part=part: call(part), own)
            if count == 4:
                few = kept
        # What is kept of the weights does not depend on the batch, so the difference is what the images need.
        entries.append(Entry(f"{name}, {title}: kept", (kept - few) / ((rows - 4) * x[0].nbytes), "x input"))
        entries.append(Entry(f"  {name}, {title}: peak", peak_bytes(layer, step) / x.nbytes, "x input"))
    times = medians(steps, repeats)
    for name, time in times.items():
        entries.append(Entry(f"  {name}, {title}: training step", time / times["coupling"], "x coupling"))
    return entries


def quality(*, quick: bool) -> list[Entry]:
    """Measure estimates and inverses, with fewer draws if there is no time."""
    source = open_source("digits")
    x, test = source.read_all("train").x, source.read_all("test").x[:32]
    draws = 80 if quick else 300
    flow = digits_flow(2 if quick else 4, "roulette")
    flow.initialize(x[:500])
    found = estimates(flow, test, "fresh", draws)
    train(flow, x, 60 if quick else 300)
    found += estimates(flow, test, "trained", draws)
    found += inverse(flow, test, "trained")
    return found + stretched(60 if quick else 150, 32 if quick else 64, draws)


def costs(*, quick: bool) -> list[Entry]:
    """Measure memory and time, of one small shape if there is no time."""
    if quick:
        return cost((12, 16, 16), rows=8, hidden=96, repeats=3)
    shapes = (12, 16, 16), (24, 8, 8), (48, 4, 4)
    return [entry for shape in shapes for entry in cost(shape, rows=32, hidden=528, repeats=5)]


PARTS = {"quality": quality, "costs": costs}


if __name__ == "__main__":
    run_parts(__doc__ or "", PARTS)
