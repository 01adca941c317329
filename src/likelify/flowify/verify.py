"""What a conversion must prove: every parameter use is covered once, and the noise-free path is the network."""

from __future__ import annotations

from collections import defaultdict

import torch

from likelify.errors import UnsupportedError
from likelify.flowify.nodes import Graph
from likelify.flowify.options import Options
from likelify.flowify.problems import Problems
from likelify.transforms.core import Transform

# Relative to the largest number of the result; sums of a deep network in float32 reach about 1e-5.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4}
COARSE = 5e-2


def check_uses(graph: Graph, options: Options, problems: Problems) -> tuple[str, ...]:
    """Note parameters that several steps read, unless copies are wanted; give the names of those that none reads."""
    names: dict[int, list[str]] = defaultdict(list)
    for name, tensor in graph.module.named_parameters(remove_duplicate=False):
        names[id(tensor)].append(name)
    users: dict[int, list[str]] = defaultdict(list)
    for node in graph.nodes:
        for use in set(node.uses):
            users[use].append(node.name)
    if options.shared == "refuse":
        shared: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for use, where in users.items():
            if len(where) > 1 and use in names:
                shared[tuple(where)] += names[use][:1]
        for where, parameters in shared.items():
            problems.add(
                ", ".join(where),
                f"share the weights {', '.join(parameters)}, which the flow could not keep equal in training. Give "
                "each place a layer of its own (copy.deepcopy), or let flowify copy them: shared='copy'.",
            )
    tensors = [*graph.module.named_parameters(), *graph.module.named_buffers()]
    return tuple(name for name, tensor in tensors if id(tensor) not in users)


def check_equal(transform: Transform, graph: Graph, name: str) -> None:
    """Compare the noise-free path with the network on two batches.

    Raises:
        UnsupportedError: if they differ: a rule is wrong, or the network changes tensors in place that it still reads.
    """
    with torch.no_grad():
        for x, expected in graph.batches:
            found = transform.mean_forward(x)
            if found.shape != expected.shape:
                raise UnsupportedError(_difference(name, f"gives {tuple(found.shape)}, not {tuple(expected.shape)}"))
            error = float((found - expected).abs().max())
            scale = max(1.0, float(expected.abs().max()))
            if not error <= TOLERANCE.get(expected.dtype, COARSE) * scale:
                raise UnsupportedError(_difference(name, f"is off by {error:.2g} (values reach {scale:.2g})"))


def _difference(name: str, what: str) -> str:
    return (
        f"flowify converted this {name}, but the noise-free path of the result {what}. A rule does not compute what "
        "its layer does, the module depends on more than its input (random numbers, the number of rows), or it changes "
        "a tensor in place that is read again later (use inplace=False). No flow was made."
    )
