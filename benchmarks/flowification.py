"""Flowified models against the published code's way of computing them: steps, forward passes, layers, Fashion-MNIST.

    python -m benchmarks.flowification --quick
    python -m benchmarks.flowification --part steps --part forward --json flowification.json

Times are processor times of one thread, medians of interleaved runs; the rival is `benchmarks.flowification_rival`. The
presets have smaller networks for what is dropped than the published models; `steps` without --quick also gives the
ratio to a rival with networks of the presets' size, which is what the way of computing alone brings.

The part `fashion` prints the results of `likelify reproduce flowification-minutes` (ten minutes for each fit), and
without --quick first runs those that are missing.
"""

import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import flowification_rival as rival
from benchmarks.report import Entry, arguments, measured, report
from benchmarks.timing import medians, use_malloc_settings
from likelify import Flow, seeded
from likelify.nets import density_net
from likelify.reproduce.catalog import experiment
from likelify.reproduce.results import CellState
from likelify.reproduce.runner import Event, run_cells
from likelify.reproduce.session import Session
from likelify.transforms.core import Transform
from likelify.transforms.exponential.parametrizations import SkewMatrix
from likelify.transforms.mixing.circular import CircularConv
from likelify.transforms.surjections.convolution import convolution
from likelify.transforms.surjections.linear import linear
from likelify.zoo import config_from_dict

BATCH = 128
SHAPE = (1, rival.SIDE, rival.SIDE)
NAMES = ("mlp", "conv1", "conv2")
# (must, aim): how many times faster than the rival.
STEP_GOALS = {"mlp": (12.0, 25.0), "conv1": (3.3, 6.0), "conv2": (3.3, 6.0)}
FORWARD_GOALS = {"mlp": (12.0, 20.0), "conv1": (3.5, 6.0), "conv2": (4.5, 8.0)}
BITS_GOALS = {"FMLP": 6.0, "FCONV2": 6.6}
# Largest angle of the rotations when layers are timed: a fresh exponential is that of zero, which costs less.
ANGLE = 2.0
METHODS = {
    "exponential": {"method": "exponential"},
    "Cayley": {"method": "cayley"},
    "Householder, 16 reflections": {"method": "householder"},
    "free": {"method": "free"},
}


def fresh(name: str) -> Flow:
    """Build likelify's model."""
    return config_from_dict({"model": f"f{name}", "event_shape": list(SHAPE), "pixel_levels": 256}).build()


def preset(name: str) -> Flow:
    """Build likelify's model, and initialize it."""
    flow = fresh(name)
    # Fewer than pixels would leave directions without variance.
    flow.initialize(images(2048))
    return flow


def images(rows: int = BATCH) -> Tensor:
    """Draw pixels."""
    return torch.randint(256, (rows, *SHAPE))


def training_step(module: nn.Module, bound: Callable[[], Tensor]) -> Callable[[], None]:
    """Return a forward and a backward pass and a step of Adam, in its fastest form for both sides."""
    optimizer = torch.optim.Adam(module.parameters(), lr=5e-4, fused=True)

    def run() -> None:
        optimizer.zero_grad()
        (-bound().mean()).backward()
        optimizer.step()

    return run


def compare(
    name: str, what: str, runs: dict[str, Callable[[], object]], repeats: int, goals: tuple[float, float]
) -> list[Entry]:
    """Time the runs "likelify", "rival" and perhaps others, which are compared with likelify as well."""
    found = medians(runs, repeats)
    entries = [Entry(f"{name}, {what}, {label}", 1e3 * seconds, "ms") for label, seconds in found.items()]
    for label, seconds in found.items():
        if label != "likelify":
            must, aim = goals if label == "rival" else (None, None)
            ratio = seconds / found["likelify"]
            entries.append(Entry(f"{name}, {what}, against {label}", ratio, "x faster", must, aim, "higher"))
    return entries


def steps(*, quick: bool) -> list[Entry]:
    """Compare training steps."""
    entries = []
    x = images()
    for name in NAMES:
        with seeded(0):
            flow, other = preset(name), rival.model(name)
        runs = {
            "likelify": training_step(flow, lambda flow=flow: flow.elbo(x).value),
            "rival": training_step(other, lambda other=other: other(x)),
        }
        if not quick:
            small = with_small_networks(rival.model(name), 256 if name == "mlp" else 64)
            runs["rival with small networks"] = training_step(small, lambda small=small: small(x))
        entries += compare(name, "training step", runs, 1 if quick else 7, STEP_GOALS[name])
    return entries


def with_small_networks(model: rival.Model, hidden: int) -> rival.Model:
    """Return the layers that drop coordinates networks as small as those of the presets."""
    for layer in model.modules():
        if isinstance(layer, rival.Linear) and layer.dropped:
            image = isinstance(layer, rival.Kernel)
            outputs = layer.inputs if image else layer.dropped
            layer.net = density_net(len(layer.bias), 2 * outputs, 2 if image else 0, hidden=hidden)
    return model


def forward(*, quick: bool) -> list[Entry]:
    """Compare the bound of a batch, without gradients; likelify's model is frozen, as `evaluate` does it."""
    entries = []
    x = images()
    with torch.no_grad():
        for name in NAMES:
            with seeded(0):
                flow, other = preset(name), rival.model(name)
            with flow.frozen():
                runs = {"likelify": lambda flow=flow: flow.elbo(x).value, "rival": lambda other=other: other(x)}
                entries += compare(name, "frozen forward", runs, 5 if quick else 15, FORWARD_GOALS[name])
    return entries


def parameters(*, quick: bool) -> list[Entry]:
    """Count parameters beside the published code's."""
    entries = []
    for name in NAMES:
        published = rival.PUBLISHED[name]
        other, ours = (sum(p.numel() for p in module.parameters()) for module in (rival.model(name), fresh(name)))
        entries += [
            Entry(f"{name}, parameters, published", published / 1e6, "million"),
            Entry(f"{name}, parameters, rival off by", 100 * abs(other / published - 1), "%", 0.5),
            Entry(f"{name}, parameters, likelify", ours / 1e6, "million"),
            Entry(f"{name}, parameters, likelify, share", 100 * ours / published, "% of the published"),
        ]
    return entries


def pass_of(layer: Transform | nn.Module, x: Tensor) -> Callable[[], None]:
    """Return a forward and a backward pass of value and contribution."""
    x = x.clone().requires_grad_()
    leaves = (x, *layer.parameters())
    upstream = [torch.randn_like(value) for value in layer(x)]

    def run() -> None:
        torch.autograd.grad(layer(x), leaves, upstream, allow_unused=True)

    return run


def linears(*, quick: bool) -> list[Entry]:
    """Compare the parametrizations of one linear layer, forward and backward (appendix G of the paper).

    The rotations of likelify turn by angles up to 2, those of the rival are as its fresh layers have them.
    """
    entries = []
    for sizes in [(64, 64), (256, 256), *([] if quick else [(512, 512), (1024, 1024)]), (784, 512)]:
        x = torch.randn(BATCH, sizes[0])
        layers = {label: linear(*sizes, **settings) for label, settings in METHODS.items()}
        if not quick:
            layers["rival"] = rival.Linear(*sizes)
        if not quick and sizes != (784, 512):
            layers["Householder, all reflections"] = linear(*sizes, method="householder", reflections=sizes[0])
        with torch.no_grad():
            for layer in layers.values():
                if isinstance(layer, Transform):
                    layer.initialize(x)
                    turn(layer)
        found = medians({label: pass_of(layer, x) for label, layer in layers.items()}, 3 if quick else 5)
        title = f"linear {sizes[0]} -> {sizes[1]}"
        entries += [Entry(f"{title}, {label}", 1e3 * seconds, "ms") for label, seconds in found.items()]
        against = found["exponential"] / found["Householder, 16 reflections"]
        entries.append(Entry(f"{title}, Householder against exponential", against, "x faster", better="higher"))
        if "rival" in found:
            against = found["rival"] / found["Cayley"]
            entries.append(Entry(f"{title}, Cayley against rival", against, "x faster", better="higher"))
    return entries


def turn(layer: Transform) -> None:
    """Draw new rotations by angles up to `ANGLE`."""
    for source in layer.modules():
        if isinstance(source, SkewMatrix):
            weight = source.get_parameter("weight").normal_()
            weight *= ANGLE / torch.linalg.matrix_norm(source().effective, 2)


def listing_gaps() -> tuple[float, float]:
    """Return the largest differences from `conv1d` in the paper's example: 4 -> 3 channels, 5 taps, length 32.

    First that of a circular convolution of likelify, of which the places that read past the end are left out, then that
    of the product of Fourier transforms, which is what the paper's listing computes.
    """
    kernel, x = torch.randn(3, 4, 5), torch.randn(24, 4, 32)
    with torch.no_grad():
        circular = CircularConv(4, 3, 5, dims=1, weight=kernel, bias=False).mean_forward(x)[..., 2:-2]
    product = torch.einsum("oif,nif->nof", torch.fft.fft(kernel.flip(2), n=32), torch.fft.fft(x))
    expected = nn.functional.conv1d(x, kernel)
    ours, plain = ((z - expected).abs().max() for z in (circular, torch.fft.ifft(product).real[..., 4:]))
    return float(ours), float(plain)


def fourier(*, quick: bool) -> list[Entry]:
    """Check the paper's listing, and compare the Fourier form of a convolution with windows (appendix H)."""
    with seeded(0):
        ours, plain = zip(*(listing_gaps() for _ in range(100)), strict=True)
    entries = [
        Entry("listing of figure 13, likelify, largest of 100 draws", max(ours), "from conv1d, float32", 1e-5),
        Entry("listing of figure 13, likelify, median draw", statistics.median(ours), "from conv1d (paper: 2.9e-6)"),
        Entry("listing of figure 13, as printed, median draw", statistics.median(plain), "from conv1d (paper: 2.9e-6)"),
    ]
    for channels, out, side in [(16, 16, 14), *([] if quick else [(16, 8, 14), (64, 48, 8)])]:
        x = torch.randn(BATCH, channels, side, side)
        settings = {"kernel_size": 3, "padding": "same"}
        layers = {
            "Fourier": CircularConv(channels, out, 3),
            "windows, Cayley": convolution((channels, side, side), out, **settings),
            "windows, free": convolution((channels, side, side), out, method="free", **settings),
        }
        with torch.no_grad():
            for layer in layers.values():
                layer.initialize(x)
        found = medians({label: pass_of(layer, x) for label, layer in layers.items()}, 3 if quick else 9)
        title = f"convolution {channels} -> {out} on {side} x {side}"
        entries += [Entry(f"{title}, {label}", 1e3 * seconds, "ms") for label, seconds in found.items()]
        against = found["Fourier"] / found["windows, Cayley"]
        entries.append(Entry(f"{title}, Fourier against windows", against, "x the time (paper: slower)"))
    return entries


def fashion(*, quick: bool, seeds: int = 1) -> list[Entry]:
    """Print held-out bits/dim after ten minutes on Fashion-MNIST, as the experiment measures them."""
    session = Session.open(experiment("flowification-minutes", "cpu"), seeds=seeds)
    if not quick:
        run_cells(session.checked().todo(), session.folders(), on_event=tell)
        session = session.again()
    entries = []
    for method in session.experiment.methods:
        states = [state for state in session.of("finished") if state.cell.method == method.title]
        entries += fitted(method.title, states) if states else []
    if not entries:
        print("fashion: no results in", session.results)
    return entries


def tell(event: Event) -> None:
    """Say which cells start and end."""
    if event.kind != "progress":
        print(event.kind, event.cell.name, event.message, flush=True)


def fitted(title: str, states: list[CellState]) -> list[Entry]:
    """Return the means over seeds."""
    results = [state.result for state in states if state.result is not None]
    seconds = statistics.mean(result.course.seconds for result in results)
    entries = [
        Entry(f"{title}, Fashion-MNIST, seeds", len(results), ""),
        Entry(f"{title}, Fashion-MNIST, time of the fit", seconds, f"s ({results[0].course.clock})"),
        Entry(f"{title}, Fashion-MNIST, steps", statistics.mean(result.course.steps for result in results), ""),
    ]
    bits = statistics.mean(result.elbo.bits.mean for result in results)
    unit = f"bits/dim, ELBO of {results[0].elbo.bits.count} images"
    entries.append(Entry(f"{title}, Fashion-MNIST", bits, unit, BITS_GOALS.get(title)))
    weighted = [result.iw for result in results if result.iw is not None]
    if weighted:
        bits = statistics.mean(each.bits.mean for each in weighted)
        unit = f"bits/dim, {weighted[0].samples} draws for each of {weighted[0].bits.count} images"
        entries.append(Entry(f"{title}, Fashion-MNIST, importance-weighted", bits, unit))
    return entries


PARTS = {
    "steps": steps,
    "forward": forward,
    "parameters": parameters,
    "linear": linears,
    "fourier": fourier,
}


def main() -> None:
    """Run the parts that are asked for, all by default."""
    use_malloc_settings()
    options = arguments(__doc__ or "", seeds=1, parts=[*PARTS, "fashion"])
    entries = measured(PARTS | {"fashion": partial(fashion, seeds=options.seeds)}, options.part, quick=options.quick)
    if entries:
        report(entries, options.json)


if __name__ == "__main__":
    main()
