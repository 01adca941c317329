"""The laws of state: what a layer gives depends on what it saves and on its input, and on nothing else."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from likelify.seeding import seeded
from likelify.structure import ContextLike
from likelify.testing.law import close
from likelify.transforms.core import Transform

Results = dict[str, Tensor]


def check_saving(
    build: Callable[[], Transform], transform: Transform, x: Tensor, context: ContextLike = None, *, tol: float = 0.0
) -> None:
    """Check that a layer which is made anew and loads the state of another one is that one, in both directions.

    Whatever a layer has beside its settings has to be in its `state_dict`: what is fitted and kept in a plain
    attribute, or in a buffer that is not persistent, is lost with every model that is saved.

    Args:
        build: makes a layer of the same settings.
        transform: the layer, with its parameters moved from their start, initialised or fitted.
        x: data rows, at least two, in double precision (or integers for dequantization).
        context: if the layer needs one.
        tol: allowed deviation, relative to the largest entry.
    """
    state = transform.state_dict()
    dtype = next((tensor.dtype for tensor in state.values() if tensor.is_floating_point()), torch.float64)
    fresh = build().to(dtype)
    fresh.load_state_dict(state)
    fresh.train(transform.training)
    with torch.no_grad(), seeded(1):
        z, _ = transform(x, context)
    _same(fresh, _results(transform, x, z, context), x, z, context, "the layer that loaded its state", tol)


def check_state(transform: Transform, fresh: Transform, x: Tensor, z: Tensor, context: ContextLike) -> None:
    """Check that modes, earlier calls, `frozen()` and loading change nothing, in both directions.

    Args:
        transform: the layer, which has been called with the data.
        fresh: a copy of it from before that.
        x: data rows.
        z: their latents.
        context: if the layer needs one.
    """
    x, z = x.detach(), z.detach()
    expected = _results(transform, x, z, context)
    # The threads of a device may add up in another order each time, and PyTorch's attention does so in eval().
    dtype = z.dtype if z.is_floating_point() else torch.float32
    rounding = 64 * torch.finfo(dtype).eps
    repeats = 0.0 if z.device.type == "cpu" else rounding
    twin = copy.deepcopy(transform)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    twin.load_state_dict(transform.state_dict())
    for mode in (not transform.training, transform.training):
        transform.train(mode)
        _same(transform, expected, x, z, context, "independence of train() and eval()", rounding)
    _same(twin, expected, x, z, context, "independence of saving and loading", repeats)
    with transform.frozen():
        # The first time something is kept, the second time it is used.
        for _ in range(2):
            _same(transform, expected, x, z, context, "frozen() = not frozen", max(repeats, 1e-12))
    other, latent = x[:1].expand_as(x).clone(), z[:1].expand_as(z).clone()
    _results(fresh, other, latent, context)
    _same(fresh, expected, x, z, context, "independence of an earlier call", repeats)


def _results(transform: Transform, x: Tensor, z: Tensor, context: ContextLike) -> Results:
    """Return all that a layer gives for data and for latents, with the same draws each time."""
    found: Results = {}
    with torch.no_grad():
        for name, method, given in (("forward", transform, x), ("inverse", transform.inverse, z)):
            with seeded(1):
                found[f"value of {name}"], found[f"contribution of {name}"] = method(given, context)
    return found


def _same(
    transform: Transform, expected: Results, x: Tensor, z: Tensor, context: ContextLike, law: str, tol: float
) -> None:
    for name, tensor in _results(transform, x, z, context).items():
        wanted = expected[name].double()
        scale = 1 + float(wanted.abs().max()) if wanted.numel() else 1.0
        close(tensor.double(), wanted, tol * scale, f"{law}: {name}")
