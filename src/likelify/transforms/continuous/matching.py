"""Flow matching as the objective of a whole flow, and the same flow with other steps of its solver."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from likelify.errors import ConfigError, UnsupportedError
from likelify.seeding import seeded
from likelify.shapes import check_size
from likelify.structure import ContextLike
from likelify.transforms.continuous.layer import ContinuousFlow
from likelify.transforms.core import Transform, layers_of

M = TypeVar("M", bound=nn.Module)


def matching_layer(transform: Transform) -> ContinuousFlow | None:
    """Return the last layer if it is a `ContinuousFlow` that is trained by matching; else None."""
    last = None
    for layer in layers_of(transform):
        last = layer
    return last if isinstance(last, ContinuousFlow) and last.training_by == "matching" else None


def matching_losses(transform: Transform, x: Tensor, context: ContextLike = None) -> Tensor:
    """Return the loss of flow matching of each item, a mean of squares summed over its elements, `(items,)`.

    The layers in front map the data and are not trained by it.

    Args:
        transform: of a flow; its last layer is a `ContinuousFlow` that is trained by matching.
        x: data `(rows, *event)`.
        context: as for the call.

    Raises:
        UnsupportedError: for other layers.

    Example:
        >>> from likelify import Context, GraphBatch, nets
        >>> layer = ContinuousFlow(nets.SetVelocity(2, width=8))
        >>> context = Context(structure=GraphBatch.complete([3, 3]))
        >>> matching_losses(layer, torch.randn(6, 2), context).shape
        torch.Size([2])

    Source:
        Lipman et al. 2023; with the assignments of Klein et al. 2023.
    """
    last = matching_layer(transform)
    if last is None:
        raise UnsupportedError(
            "Flow matching trains the last layer of a flow, a ContinuousFlow(net, training='matching'); there is none."
        )
    with torch.no_grad():
        for layer in layers_of(transform):
            if layer is not last:
                x = layer(x, context)[0]
    return last.matching_loss(x, context)


def with_steps(model: M, steps: int) -> M:
    """Return a copy of a flow or layer that shares its parameters and solves with another number of steps.

    Args:
        model: a `Flow`, or a `Transform`.
        steps: of every `ContinuousFlow` inside.

    Raises:
        ConfigError: if there is none.
    """
    steps = check_size(steps, "steps")
    twin, layers = _twin(model)
    if not layers:
        raise ConfigError("with_steps is for models with a ContinuousFlow, and there is none in this one.")
    for layer in layers:
        layer.steps = steps
    return twin


def solver_error(flow: nn.Module, x: Tensor, context: ContextLike = None) -> Tensor:
    """Estimate how far log-likelihoods are off because of the solver: what half of each layer's steps change, in nats.

    Of fourth order, the error is about a fifteenth of that once steps are small enough; where they are not, nothing is
    known. It is an estimate, no bound.

    Args:
        flow: with a `ContinuousFlow` of at least two steps.
        x: as for `log_prob`.
        context: as for `log_prob`.

    Returns:
        The size of the change of each item, `(items,)`.

    Raises:
        ConfigError: if there is no such layer.
    """
    coarse, layers = _twin(flow)
    if not layers:
        raise ConfigError("solver_error is for models with a ContinuousFlow, and there is none in this one.")
    if min(layer.steps for layer in layers) < 2:
        raise ConfigError("The error of one step cannot be estimated by half of it; take at least two steps.")
    for layer in layers:
        layer.steps //= 2
    found = []
    for model in (flow, coarse):
        # Whatever other layers draw, they draw twice.
        with seeded(0), torch.no_grad():
            found.append(model.elbo(x, context).value)  # pyright: ignore[reportCallIssue]
    return (found[0] - found[1]).abs()


def _twin(model: M) -> tuple[M, list[ContinuousFlow]]:
    """Return a copy that shares parameters and buffers, and its layers that have a solver."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, shared)
    return twin, [layer for layer in twin.modules() if isinstance(layer, ContinuousFlow)]
