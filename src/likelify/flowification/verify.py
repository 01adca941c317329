"""What a conversion must prove: every parameter use is covered once, and the noise-free path is the network."""

from __future__ import annotations

import contextlib
import copy
from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from likelify.errors import LikelifyError, UnsupportedError
from likelify.flowification.graph import Graph
from likelify.flowification.options import Options
from likelify.flowification.refusals import Refusals
from likelify.seeding import seeded
from likelify.transforms.core import Transform

# Relative to the largest value of a channel of the result; sums of a deep network in float32 reach about 1e-5.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4}
COARSE = 5e-2
# Channels much smaller than the largest one are held to this part of it.
SMALLEST = 1e-3
# What the rounding of weights, inputs and values in between may do to the result is measured, and allowed for so often.
ROUND_OFF = 30.0


def check_uses(graph: Graph, options: Options, refusals: Refusals) -> tuple[str, ...]:
    """Note parameters that several steps read, unless copies are wanted; return the names of those that none reads."""
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
            refusals.add(
                ", ".join(where),
                f"share the weights {', '.join(parameters)}, which the flow could not keep equal in training. Give "
                "each place a layer of its own (copy.deepcopy), or let flowify copy them: shared='copy'.",
            )
    tensors = [*graph.module.named_parameters(), *graph.module.named_buffers()]
    return tuple(name for name, tensor in tensors if id(tensor) not in users)


def check_equal(transform: Transform, graph: Graph, name: str) -> None:
    """Compare the noise-free path with the network: on the example, and on values of either sign beyond it.

    Raises:
        UnsupportedError: if they differ: a rule is wrong, or the network depends on more than its input.
    """
    with torch.no_grad():
        twins = [_perturbed(graph.module, seed) for seed in range(2)]
        for x, expected in (*graph.batches, *_further(graph)):
            try:
                found = transform.mean_forward(x)
            except LikelifyError:
                # A layer may know that further values are not in its domain.
                if any(x is given for given, _ in graph.batches):
                    raise
                continue
            if found.shape != expected.shape:
                what = f"gives {tuple(found.shape)}, not {tuple(expected.shape)}"
            else:
                error = _largest(found - expected)
                if bool((error <= _allowed(expected, found.dtype, _round_off(graph, twins, x))).all()):
                    continue
                what = f"is off by {error.max():.2g} (values reach {float(expected.abs().max()):.2g})"
            raise UnsupportedError(
                f"flowify converted this {name}, but the noise-free path of the result {what}. A rule does not compute "
                "what its layer does, or the module depends on more than its input (random draws, the number of rows). "
                f"{_hooked(graph.module)}No flow was made."
            )


def _hooked(module: nn.Module) -> str:
    """Return what is said of hooks, which change results without a rule that could know of it."""
    with_hooks = [
        name or "the module itself"
        for name, part in module.named_modules()
        if part._forward_hooks or part._forward_pre_hooks  # noqa: SLF001
    ]
    where = ", ".join(with_hooks[:3])
    return f"There are forward hooks ({where}); do in forward what they change, or remove them. " if where else ""


def _further(graph: Graph) -> Iterator[tuple[Tensor, Tensor]]:
    """Return inputs other than the example, of which that may hold none below zero, and what the network gives."""
    example = graph.batches[0][0]
    noise = torch.randn(example.shape, generator=torch.Generator().manual_seed(0)).to(example)
    for x in (example.mean() + example.abs().amax() * noise, -example):
        try:
            expected = graph.module(x.clone())
        except Exception:  # noqa: BLE001, S112 - whatever the user's forward raises outside of its domain.
            continue
        if bool(torch.isfinite(expected).all()):
            yield x, expected


def _perturbed(module: nn.Module, seed: int) -> Callable[[Tensor], Tensor]:
    """Return the network with its weights and inputs changed by about one rounding."""
    twin, generator = copy.deepcopy(module), torch.Generator().manual_seed(seed)

    def changed(tensor: Tensor) -> Tensor:
        # Matrices are rounded as a whole by what takes them apart into rotations.
        size = tensor.abs().amax() if tensor.ndim > 1 and tensor.numel() else tensor.abs()
        eps = torch.finfo(tensor.dtype).eps
        return tensor + eps * size * torch.randn(tensor.shape, generator=generator).to(tensor)

    for tensor in (*twin.parameters(), *twin.buffers()):
        if tensor.is_floating_point():
            tensor.data = changed(tensor)
    return lambda x: twin(changed(x))


def _largest(values: Tensor) -> Tensor:
    """Return the largest value of each channel."""
    channels = values.shape[1] if values.ndim > 1 else 1
    return values.abs().reshape(len(values), channels, -1).amax((0, 2))


def _round_off(graph: Graph, twins: list[Callable[[Tensor], Tensor]], x: Tensor) -> Tensor:
    """Return what rounding does to each channel. A network that draws noise does not pass for one that rounds."""
    with seeded(0):
        plain = graph.module(x.clone())
    found = [torch.zeros_like(_largest(plain))]
    for twin in twins:
        with seeded(0), contextlib.suppress(Exception):  # A module may insist on the very values it has.
            found.append(_largest(twin(x) - plain).nan_to_num(posinf=0.0))
    return torch.stack(found).amax(0)


def _allowed(expected: Tensor, dtype: torch.dtype, round_off: Tensor) -> Tensor:
    """Return the difference that each channel may have."""
    sizes = _largest(expected)
    relative = max(TOLERANCE.get(kind, COARSE) for kind in (expected.dtype, dtype))
    allowed = relative * torch.maximum(sizes, SMALLEST * sizes.max()) + ROUND_OFF * round_off
    return allowed.clamp(max=COARSE * float(sizes.max()))
