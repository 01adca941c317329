"""One training step on made-up items: what a model costs before anything is fitted."""

import resource
import sys
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from likelify.app.show import console
from likelify.data import Batch, Facts
from likelify.fitting.choose import Choice
from likelify.fitting.figures import Unit
from likelify.fitting.loop import Objective, build_optimizer
from likelify.fitting.settings import FitSettings
from likelify.flows import Flow
from likelify.nets import regularized
from likelify.seeding import seeded
from likelify.transforms.core import Chain, Transform
from likelify.transforms.dequantize import Dequantize
from likelify.transforms.surjections.dimension import Slice

# Items of the step, where no number is given.
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
        nats: log-likelihood of the fresh model on the batch, per item.
    """

    seconds: float
    saved: int
    peak: int
    bits: float
    nats: float


def dry_run(choice: Choice, facts: Facts, items: int) -> None:
    """Build a model, count its parameters, make one training step on random items, and print what it took."""
    with seeded(choice.fit.seed):
        flow = choice.model.build()
        batch = made_up_batch(facts, items)
        cost = measure_step(flow, choice.fit, batch, conditional=choice.conditional)
    shape = "x".join(map(str, facts.event_shape))
    kind = f"rows of {shape} real numbers" if facts.kind == "table" else f"events {shape} of {facts.levels} levels"
    console.print(f"{choice.title}: {choice.model.model} for {kind}")
    console.print(f"parameters: {count(flow):,}")
    for name, size in sorted(parts(flow).items(), key=lambda part: -part[1]):
        console.print(f"  {name:<24}{size:>12,}")
    size = int(batch.dims().sum()) * 4
    console.print(
        f"one training step on {items} {facts.items} ({torch.get_num_threads()} threads): {cost.seconds:.2f} s; kept "
        f"for the backward pass {cost.saved / MEGABYTE:,.0f} MB ({cost.saved / size:,.0f} times the batch); peak "
        f"memory of the process {cost.peak / MEGABYTE:,.0f} MB"
    )
    values = "normal numbers" if facts.levels is None else "pixels"
    shown = Unit.of(facts.kind).show(cost.bits, cost.nats)
    console.print(f"fresh model on random {values}: {shown} (likelihood: {flow.likelihood})")


def made_up_batch(facts: Facts, items: int) -> Batch:
    """Draw images of independent uniform pixels, or rows of normal numbers, with labels where the data have them."""
    shape = (items, *facts.event_shape)
    x = torch.randn(shape) if facts.levels is None else torch.randint(facts.levels, shape)
    return Batch(x, None if facts.classes is None else torch.arange(items) % facts.classes)


def measure_step(flow: Flow, settings: FitSettings, batch: Batch, *, conditional: bool = False) -> Cost:
    """Initialize a flow and make one training step."""
    flow.initialize(batch.x, batch.context(conditional=conditional))
    objective, optimizer = Objective(flow, conditional=conditional), build_optimizer(flow, settings)
    with torch.no_grad():
        bits, nats = map(float, objective(batch))
    kept: dict[int, int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in flow.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    start = time.perf_counter()
    with regularized(flow), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss, _ = objective(batch)
    loss.backward()
    optimizer.step()
    return Cost(time.perf_counter() - start, sum(kept.values()), peak_memory(), bits, nats)


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
