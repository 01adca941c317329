"""One training step on made-up items: what a model costs before anything is fitted."""

import resource
import sys
import time
from collections import Counter

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


def dry_run(choice: Choice, facts: Facts, items: int) -> None:
    """Build a model, count its parameters, make one training step on random items, and print what it took."""
    with seeded(choice.fit.seed):
        flow = choice.model.build()
        batch = made_up_batch(facts, items)
        flow.initialize(batch.x, batch.context(conditional=choice.conditional))
        objective = Objective(flow, conditional=choice.conditional)
        with torch.no_grad():
            bits, nats = map(float, objective(batch))
        seconds, kept = one_step(objective, choice.fit, batch)
    shape = "x".join(map(str, facts.event_shape))
    kind = f"rows of {shape} real numbers" if facts.kind == "table" else f"events {shape} of {facts.levels} levels"
    console.print(f"{choice.title}: {choice.model.model} for {kind}")
    console.print(f"parameters: {count(flow):,}")
    for name, size in parts(flow).most_common():
        console.print(f"  {name:<24}{size:>12,}")
    times = kept / (4 * int(batch.dims().sum()))
    console.print(
        f"one training step on {items} {facts.items} ({torch.get_num_threads()} threads): {seconds:.2f} s; kept "
        f"for the backward pass {kept / MEGABYTE:,.0f} MB ({times:,.0f} times the batch); "
        f"peak memory of the process {peak_memory() / MEGABYTE:,.0f} MB"
    )
    values, shown = "normal numbers" if facts.levels is None else "pixels", Unit.of(facts.kind).show(bits, nats)
    console.print(f"fresh model on random {values}: {shown} (likelihood: {flow.likelihood})")


def made_up_batch(facts: Facts, items: int) -> Batch:
    """Draw images of independent uniform pixels, or rows of normal numbers, with labels where the data have them."""
    shape = (items, *facts.event_shape)
    x = torch.randn(shape) if facts.levels is None else torch.randint(facts.levels, shape)
    return Batch(x, None if facts.classes is None else torch.arange(items) % facts.classes)


def one_step(objective: Objective, settings: FitSettings, batch: Batch) -> tuple[float, int]:
    """Make one training step; return its seconds, and the bytes that its forward pass kept, parameters not counted."""
    flow, optimizer = objective.flow, build_optimizer(objective.flow, settings)
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
    return time.perf_counter() - start, sum(kept.values())


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def count(module: nn.Module) -> int:
    """Count the parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def parts(flow: Flow) -> Counter[str]:
    """Count the parameters of a flow by kind of layer; kinds without any are left out."""
    found: Counter[str] = Counter()
    for name, module in [*_layers(flow.transform), ("base", flow.base)]:
        found[name] += count(module)
    return +found


def _layers(layer: Transform) -> list[tuple[str, Transform]]:
    if isinstance(layer, Dequantize):
        return [("dequantizer", layer)]
    # A split prior is a slice, alone or behind the coupling that conditions it.
    if isinstance(layer, Slice) or (isinstance(layer, Chain) and isinstance(layer[-1], Slice)):
        return [("split priors", layer)]
    if isinstance(layer, Chain):
        return [named for part in layer for named in _layers(part)]
    return [(type(layer).__name__, layer)]
