"""One training step on made-up images: what a model costs before anything is fitted."""

import math
import resource
import sys
import time
from dataclasses import dataclass

import torch
from rich.console import Console
from torch import Tensor, nn

from likelify.app.choices import Choice, Data
from likelify.fitting.loop import Objective, build_optimizer
from likelify.fitting.metrics import bits_per_dim
from likelify.fitting.settings import FitSettings
from likelify.flows import Flow
from likelify.nets import regularized
from likelify.seeding import seeded
from likelify.transforms.core import Chain, Transform
from likelify.transforms.dequantize import Dequantize
from likelify.transforms.surjections.dimension import Slice

# Shape and levels where no data are named: those of CIFAR-10, with its ten classes.
MADE_UP = Data("made-up images", (3, 32, 32), 256, 10)
BATCH = 8
MEGABYTE = 2**20


@dataclass(frozen=True)
class Cost:
    """What one training step takes.

    Attributes:
        seconds: of forward and backward pass and optimizer step, on the wall.
        saved: bytes that the forward pass kept for the backward pass, parameters not counted.
        peak: largest memory of the process so far, in bytes.
        bits: bits per dimension of the fresh model on the batch.
    """

    seconds: float
    saved: int
    peak: int
    bits: float


def dry_run(choice: Choice, data: Data, console: Console) -> None:
    """Build a model, count its parameters, make one training step on random items, and print what it took."""
    config, settings = choice.settle(data)
    rows = settings.batch_size if "batch_size" in {**choice.fit_words, **choice.free} else BATCH
    with seeded(settings.seed):
        flow = config.build()
        images, labels = made_up_batch(data, rows, conditional=choice.conditional)
        cost = measure_step(flow, settings, images, labels)
    shape = "x".join(map(str, data.event_shape))
    kind = f"rows of {shape} real numbers" if data.is_table else f"events {shape} of {data.levels} levels"
    console.print(f"{choice.title(config.model)}: {config.model} for {kind}")
    console.print(f"parameters: {count(flow):,}")
    for name, size in sorted(parts(flow).items(), key=lambda part: -part[1]):
        console.print(f"  {name:<24}{size:>12,}")
    size = rows * math.prod(data.event_shape) * 4
    items = "rows" if data.is_table else "images"
    console.print(
        f"one training step on {rows} {items} ({torch.get_num_threads()} threads): {cost.seconds:.2f} s; kept for the "
        f"backward pass {cost.saved / MEGABYTE:,.0f} MB ({cost.saved / size:,.0f} times the batch); peak memory of the "
        f"process {cost.peak / MEGABYTE:,.0f} MB"
    )
    values = "normal numbers" if data.is_table else "pixels"
    console.print(f"fresh model on random {values}: {data.unit.show(cost.bits)} (likelihood: {flow.likelihood})")


def made_up_batch(data: Data, rows: int, *, conditional: bool = False) -> tuple[Tensor, Tensor | None]:
    """Draw images of independent uniform pixels, or rows of normal numbers, and labels for a conditional model."""
    shape = (rows, *data.event_shape)
    items = torch.randn(shape) if data.levels is None else torch.randint(data.levels, shape)
    return items, torch.arange(rows) % data.classes if conditional and data.classes is not None else None


def measure_step(flow: Flow, settings: FitSettings, images: Tensor, labels: Tensor | None) -> Cost:
    """Initialize a flow and make one training step."""
    dims = math.prod(images.shape[1:])
    flow.initialize(images, labels)
    with torch.no_grad():
        bits = float(bits_per_dim(flow.elbo(images, labels).value, dims).mean())
    objective, optimizer = Objective(flow, dims), build_optimizer(flow, settings)
    kept: dict[int, int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in flow.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    start = time.perf_counter()
    with regularized(flow), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = objective(images, labels)
    loss.backward()
    optimizer.step()
    return Cost(time.perf_counter() - start, sum(kept.values()), peak_memory(), bits)


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def count(module: nn.Module) -> int:
    """Count the parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def parts(flow: Flow) -> dict[str, int]:
    """Count the parameters of a flow by kind of layer; kinds without any are left out."""
    found: dict[str, int] = {}
    for name, module in [*_layers(flow.transform), ("base", flow.base)]:
        found[name] = found.get(name, 0) + count(module)
    return {name: size for name, size in found.items() if size}


def _layers(layer: Transform) -> list[tuple[str, Transform]]:
    if isinstance(layer, Dequantize):
        return [("dequantizer", layer)]
    # A split prior is a slice, alone or behind the coupling that conditions it.
    if isinstance(layer, Slice) or (isinstance(layer, Chain) and isinstance(layer[-1], Slice)):
        return [("split priors", layer)]
    if isinstance(layer, Chain):
        return [named for part in layer for named in _layers(part)]
    return [(type(layer).__name__, layer)]
