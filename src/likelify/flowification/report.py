"""The record of a conversion: what became of each layer, what it costs, and what the likelihood is."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from likelify.distributions.core import Likelihood
from likelify.flowification.costs import layer_costs
from likelify.flowification.graph import Graph, Node
from likelify.flowification.options import Options
from likelify.transforms.core import Chain, Shape, Transform
from likelify.transforms.residual_flows.layer import LipschitzResidual

FINGERPRINT_VERSION = 3


@dataclass(frozen=True)
class LayerRecord:
    """What became of one node of the network.

    The record of a sum or concatenation counts what hands the input to its branches and joins them; the branches follow
    with records of their own, one deeper.

    Attributes:
        name: dotted path in the module, or place and name of a call.
        kind: what it was.
        depth: how many branches it is inside of.
        likelihood: exact, or a bound.
        in_shape: event shape of the data side.
        out_shape: event shape of the latent side.
        dropped: elements of an event that are dropped and get a conditional density.
        added: elements of noise.
        parameters: of the layer itself, trained noise scales included.
        net_parameters: of the networks of conditional densities.
        cost: multiply-adds of matrix products and convolutions on the noise-free path, for one event.
        extra: those that the likelihood adds; None where it was not measured.
    """

    name: str
    kind: str
    depth: int
    likelihood: Likelihood
    in_shape: Shape
    out_shape: Shape
    dropped: int
    added: int
    parameters: int
    net_parameters: int
    cost: int
    extra: int | None

    @property
    def kept(self) -> int:
        """Count the elements that go on: of the event and the noise, without what is dropped."""
        return math.prod(self.out_shape)


@dataclass(frozen=True)
class Conversion:
    """What `flowify` did. `print` it for a table.

    Attributes:
        layers: in the order of the network, branches one after the other.
        in_shape: event shape of the data.
        out_shape: event shape of the latent.
        likelihood: of the whole.
        latent_range: where the latent lies, `"(-inf, inf)"` unless the network ends in a bounded activation.
        fingerprint: of the architecture (graph, shapes, settings), the options and `contractions`, not of the weights:
            two networks with the same one can exchange weights.
        options: as they were given.
        contractions: which sums became exact residual blocks, in the order in which they were tried.
        unused: parameters and buffers of the module that its output does not depend on.
        freed: layers whose weights the network computes from others, or has once for all channels. They are weights of
            their own now: masks, and what was equal, are not kept in training.
    """

    layers: tuple[LayerRecord, ...]
    in_shape: Shape
    out_shape: Shape
    likelihood: Likelihood
    latent_range: str
    fingerprint: str
    options: Options = field(default_factory=Options)
    contractions: tuple[bool, ...] = ()
    unused: tuple[str, ...] = ()
    freed: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows = [HEADER, *(_row(layer) for layer in self.layers), self._totals()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
        lines = [_line(row, widths) for row in rows]
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], LEGEND, "", self.sentence()])

    def sentence(self) -> str:
        """Return the sentences that say what the likelihood is, and why."""
        dims = f"{math.prod(self.in_shape)} elements to a latent of {math.prod(self.out_shape)}"
        if self.likelihood == "exact":
            what = "The likelihood is exact: every dropped element has a density and no noise is added"
        elif self.likelihood == "bound":
            names = [f"{layer.name} ({layer.kind})" for layer in self.layers if layer.likelihood == "bound"]
            listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            what = (
                f"The likelihood is a lower bound (elbo; iw_log_prob tightens it), because noise is added in {listed}"
            )
        else:
            what = "The likelihood is a noisy estimate, because log-determinants are estimated"
        added, elements = sum(layer.added for layer in self.layers), math.prod(self.in_shape)
        if added > elements:
            what += f". {_count(added)} elements are added to the {elements} of the data, so expect a loose bound"
        ending = "" if self.latent_range == WHOLE else f" The latent lies in {self.latent_range}; give it such a base."
        unused = f" Not used by the network: {', '.join(self.unused)}." if self.unused else ""
        freed = (
            f" Weights of their own, of which training keeps no mask and nothing equal: {', '.join(self.freed)}."
            if self.freed
            else ""
        )
        return f"{dims}. {what}.{ending}{unused}{freed}"

    def _totals(self) -> tuple[str, ...]:
        names = ("added", "dropped", "parameters", "net_parameters", "cost", "extra")
        counts = [_count(sum(getattr(layer, name) or 0 for layer in self.layers)) for name in names]
        counts.insert(2, str(math.prod(self.out_shape)))
        return ("total", "", self.likelihood, _shape(self.in_shape), _shape(self.out_shape), *counts)


WHOLE = "(-inf, inf)"
LEGEND = (
    "added, dropped: elements with noise, and with a density; cost: multiply-adds of the network; extra: those of the "
    "likelihood."
)
COUNTS = ("added", "dropped", "kept", "params", "net params", "cost", "extra")
HEADER = ("layer", "kind", "likelihood", "in", "out", *COUNTS)


def _row(layer: LayerRecord) -> tuple[str, ...]:
    counts = (layer.added, layer.dropped, layer.kept, layer.parameters, layer.net_parameters, layer.cost)
    extra = "?" if layer.extra is None else _count(layer.extra)
    shapes = (_shape(layer.in_shape), _shape(layer.out_shape))
    return ("  " * layer.depth + layer.name, layer.kind, layer.likelihood, *shapes, *map(_count, counts), extra)


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    cells = [cell.ljust(w) if i < 5 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
    return "  ".join(cells).rstrip()


def _shape(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _count(count: int) -> str:
    """Return a count in at most five characters."""
    if count < 10_000:
        return str(count)
    for power, unit in enumerate(("k", "M", "G"), 1):
        if count < 1000 ** (power + 1):
            return f"{count / 1000**power:.3g}{unit}"
    return f"{count:.1e}"


def describe(name: str, kind: str, transform: Transform, in_shape: Shape, depth: int) -> LayerRecord:
    """Return the record of a layer: its shapes, what it adds and drops, its parameters and its cost."""
    dropped, added = _changes(transform, in_shape)
    nets = sum(p.numel() for p in _net_parameters(transform))
    cost, extra = layer_costs(transform, in_shape)
    return LayerRecord(
        name=name,
        kind=kind,
        depth=depth,
        likelihood=transform.likelihood,
        in_shape=tuple(in_shape),
        out_shape=transform.out_shape(in_shape),
        dropped=dropped,
        added=added,
        parameters=sum(p.numel() for p in transform.parameters()) - nets,
        net_parameters=nets,
        cost=cost,
        extra=extra,
    )


def _changes(transform: Transform, in_shape: Shape) -> tuple[int, int]:
    """Return how many elements are dropped and added on the way."""
    if isinstance(transform, Chain):
        dropped = added = 0
        for layer in transform:
            less, more = _changes(layer, in_shape)
            dropped, added, in_shape = dropped + less, added + more, layer.out_shape(in_shape)
        return dropped, added
    change = math.prod(transform.out_shape(in_shape)) - math.prod(in_shape)
    # A layer that does both, such as windows that overlap and leave gaps, knows what it drops.
    missing = getattr(getattr(transform, "pattern", None), "missing", None)
    unread = int(missing.sum()) * in_shape[0] if isinstance(missing, Tensor) and transform.random_inverse else 0
    if unread and transform.random_forward:
        return unread, change + unread
    return max(-change, 0), max(change, 0)


def _net_parameters(transform: Transform) -> list[nn.Parameter]:
    """Return the parameters of the networks that describe what is dropped and added."""
    layers = [layer for layer in transform.modules() if not isinstance(layer, LipschitzResidual)]
    nets = [getattr(layer, "net", None) for layer in layers]
    return list(nn.ModuleList([net for net in nets if isinstance(net, nn.Module)]).parameters())


def fingerprint(graph: Graph, options: Options) -> str:
    """Return a hash of the architecture and the options; names and weights are no part of it."""
    number = {node: i for i, node in enumerate(graph.nodes)}
    nodes = [
        [node.kind, _kind_text(node), list(node.shape), [number[n] for n in node.inputs], node.weights, node.channels]
        for node in graph.nodes
    ]
    text = json.dumps([FINGERPRINT_VERSION, nodes, options.model_dump(), options.density_nets is not None], default=str)
    return _hash(text)


def with_contractions(text: str, contractions: tuple[bool, ...]) -> str:
    """Return a fingerprint that also tells which sums became exact residual blocks."""
    return _hash(f"{text}{contractions}") if contractions else text


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _kind_text(node: Node) -> str:
    if isinstance(node.target, nn.Module):
        sizes = [(name, list(p.shape)) for name, p in (*node.target.named_parameters(), *node.target.named_buffers())]
        return f"{type(node.target).__name__}({node.target.extra_repr()}) {sizes} {_settings_text(node.target)}"
    if node.call is None:
        return ""
    again = node.again or node.call
    pairs = [(call.args, sorted(call.kwargs.items())) for call in (node.call, again)]
    return f"{node.call.name}{_argument_text(*pairs)}"


def _settings_text(module: nn.Module) -> str:
    """Return the public attributes of a module but its tensors and parts; its own description may leave some out."""
    settings = {name: value for name, value in vars(module).items() if not isinstance(value, Tensor | nn.Module)}
    return str(
        sorted((name, _plain_text(value)) for name, value in settings.items() if name[0] != "_" and name != "training")
    )


def _plain_text(value: Any) -> str:
    """Return a setting as text that is the same in another process."""
    if isinstance(value, int | float | str | tuple | None):
        return str(value)
    if isinstance(value, dict):
        return str({_plain_text(key): _plain_text(part) for key, part in value.items()})
    if isinstance(value, list):
        return str([_plain_text(part) for part in value])
    if isinstance(value, set | frozenset):
        return str(sorted(map(_plain_text, value)))
    if isinstance(value, Tensor | np.ndarray):
        return str(torch.as_tensor(value).tolist())
    # Where an object lies in memory says nothing of it.
    text = repr(value)
    return type(value).__name__ if " at 0x" in text else text


def _argument_text(value: Any, again: Any) -> str:
    """Return an argument, or its part, as text; what differs between the batches counts rows, and is left out."""
    if isinstance(value, Tensor):
        return f"tensor{_argument_text(tuple(value.shape), tuple(again.shape))}"
    if isinstance(value, tuple | list) and len(value) == len(again):
        return str([_argument_text(*pair) for pair in zip(value, again, strict=True)])
    return repr(value) if repr(value) == repr(again) else "rows"
