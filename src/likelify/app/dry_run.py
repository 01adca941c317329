"""One training step: what a model costs before anything is fitted."""

import resource
import sys
from collections import Counter

import torch
from torch import nn

from likelify.app.show import console, say_remarks
from likelify.data import Batch, Facts, Source
from likelify.fitting.checks import for_flow
from likelify.fitting.choose import Choice
from likelify.fitting.cost import made_up_batch, one_step
from likelify.fitting.figures import Unit
from likelify.fitting.memory import KeptMemory, in_memory_of
from likelify.fitting.training import Objective
from likelify.flows import Flow
from likelify.seeding import seeded
from likelify.transforms.core import Chain, Transform
from likelify.transforms.dequantize import Dequantize
from likelify.transforms.surjections.dimension import Slice

# Items of the step, where no number is given; and rows that the layers which depend on data are fitted to.
BATCH, ROWS = 8, 512
MEGABYTE = 2**20


def dry_run(choice: Choice, facts: Facts, items: int, source: Source | None = None) -> None:
    """Build a model, count its parameters, make one training step on random items, and print what it took.

    Graphs, whose edges are not made up in a way that costs as much, and rows, which a column of words or whole numbers
    makes impossible where they are random, are the first ones of the source.
    """
    real = None if source is None or source.kind not in ("graph", "table") else source
    with seeded(choice.fit.seed):
        flow = choice.model.build()
        batch = made_up_batch(facts, items) if real is None else for_flow(flow, _first(real, items))
        sample = batch if facts.kind != "table" or real is None else for_flow(flow, _first(real, ROWS))
        flow.initialize(sample.x, sample.context(conditional=choice.conditional))
        objective = Objective(flow, conditional=choice.conditional)
        with torch.no_grad():
            bits, nats = map(float, objective(batch))
        with KeptMemory(in_memory_of(flow.parameters())) as memory:
            seconds = one_step(objective, choice.fit, batch)
    shape = "x".join(map(str, facts.event_shape)) + (" at each node" if facts.kind == "graph" else "")
    items, drawn = len(batch), "random " if real is None else ""
    of = "real numbers" if facts.levels is None else f"{facts.levels} levels"
    console.print(f"{choice.title}: {choice.model.model} for {facts.items} of {shape}, {of}")
    say_remarks(choice)
    console.print(f"parameters: {count(flow):,}")
    for name, size in parts(flow).most_common():
        console.print(f"  {name:<24}{size:>12,}")
    times = memory.most / (4 * int(batch.dims().sum()))
    console.print(
        f"one training step on {items} {facts.items} ({torch.get_num_threads()} threads): {seconds:.2f} s; kept "
        f"for the backward pass {memory.most / MEGABYTE:,.0f} MB ({times:,.0f} times the batch); "
        f"peak memory of the process {peak_memory() / MEGABYTE:,.0f} MB"
    )
    shown = Unit.of(facts.kind).show(bits, nats)
    console.print(f"fresh model on {drawn}{facts.items}: {shown} (likelihood: {flow.likelihood})")


def _first(source: Source, items: int) -> Batch:
    return source.read("train", torch.arange(min(items, source.size("train"))))


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
