"""The laws of layers: round trip, contribution against the Jacobian, gradients, state, hygiene."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from likelify.seeding import seeded
from likelify.structure import ContextLike, as_context
from likelify.support import Interval
from likelify.testing.batches import items_of
from likelify.testing.law import close, require
from likelify.testing.state import check_state
from likelify.transforms.core import Transform

# Draws from which the mean of a noisy contribution is found.
NOISY_DRAWS = 100


def check_transform(
    transform: Transform,
    x: Tensor,
    context: ContextLike = None,
    *,
    tol: float = 1e-9,
    near_identity: bool = False,
    positive: bool = False,
    at_rest: bool = False,
) -> None:
    """Check the laws of a layer: round trip, contribution against the Jacobian, gradients, state, hygiene.

    For layers that draw at random, draws are made equal by seeding, and the Jacobian is left out where the event
    changes its size. Layers that draw in both directions have no round trip; put them in a flow for `check_weights`.
    Where the log-determinant is an estimate, the mean of repeated draws is compared, and the gradient of the value
    alone.

    Args:
        transform: the layer, in double precision, with its parameters moved from their start.
        x: data rows `(rows, *event)`, at least two, in double precision (or integers for dequantization).
        context: if the layer needs one.
        tol: allowed error of a round trip; the log-determinant is held to `1e-9 max(1, D)` nats.
        near_identity: also check that the layer differs little from the identity.
        positive: also check that the determinant is positive, as that of every exponential is.
        at_rest: the parameters are where gradients may be zero (see `set_parameters`); `check_gradients` looks at them.
    """
    fresh = copy.deepcopy(transform)
    with _Unmodified(x, context):
        with seeded(1):
            z, contribution = transform(x, context)
    _check_shapes(transform, x, z, contribution, context)
    _check_support(transform, x, z)
    with _Unmodified(z, context):
        _check_round_trip(transform, x, z, contribution, context, tol)
    if not (transform.random_forward or transform.random_inverse):
        if transform.noisy_log_det:
            _check_noise(transform, x, z, context)
        elif x.is_floating_point():
            _check_jacobian(transform, x, contribution, context, positive=positive)
    if not at_rest:
        _check_gradients(transform, x, context)
    check_state(transform, fresh, x, z, context)
    repr(transform)
    if near_identity:
        size = float((z - x).detach().abs().max())
        require(size < 0.5 * float(x.abs().max()), f"a fresh layer moves its input by {size}")


def _check_shapes(transform: Transform, x: Tensor, z: Tensor, contribution: Tensor, context: ContextLike) -> None:
    structure = as_context(context).structure
    items = len(x) if structure is None else len(structure)
    require(contribution.shape == (items,), f"contribution has shape {tuple(contribution.shape)}, not ({items},)")
    same = contribution.dtype == z.dtype if z.is_floating_point() else contribution.is_floating_point()
    require(same, f"contribution is {contribution.dtype}, the value {z.dtype}")
    require(not x.is_floating_point() or z.dtype == x.dtype, f"the dtype changed from {x.dtype} to {z.dtype}")
    told, true = tuple(transform.out_shape(tuple(x.shape[1:]))), tuple(z.shape[1:])
    require(told == true, f"out_shape says {told}, the output has {true}")
    if transform.keeps_integers and not x.is_floating_point():
        whole = torch.equal(z, z.round()) and not bool(contribution.any())
        require(whole, "fractions or a change of probability, though keeps_integers is declared")
    if transform.moves_elements:
        same = torch.equal(z.flatten().sort().values, x.flatten().sort().values)
        require(same and not bool(contribution.any()), "elements or volumes change, though moves_elements is declared")


class _Unmodified:
    """Requires that a value and the condition are as they were at the end of the block."""

    def __init__(self, value: Tensor, context: ContextLike) -> None:
        condition = as_context(context).condition
        self._tensors = {"the input": value} | ({} if condition is None else {"the condition": condition})

    def __enter__(self) -> None:
        self._kept = {name: tensor.detach().clone() for name, tensor in self._tensors.items()}

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            for name, tensor in self._tensors.items():
                require(torch.equal(tensor, self._kept[name]), f"{name} was modified")


def _check_support(transform: Transform, x: Tensor, z: Tensor) -> None:
    """Check what a layer says of where its values lie: a base is accepted or refused by that."""
    for what, values, interval in (("the data", x, transform.domain), ("the latent", z, transform.image)):
        if interval is not None:
            require(_lies_in(values, interval), f"{what} leaves {interval}, which the layer declares")
    if transform.fills_space:
        require(transform.image is None, f"fills_space is declared beside an image, {transform.image}")


def _lies_in(values: Tensor, interval: Interval) -> bool:
    # Rounding may end at an open end.
    return bool(((values >= interval.low) & (values <= interval.high)).all())


def _check_round_trip(
    transform: Transform, x: Tensor, z: Tensor, contribution: Tensor, context: ContextLike, tol: float
) -> None:
    with seeded(2):
        back, undone = transform.inverse(z, context)
    if transform.random_forward and transform.random_inverse:
        require(back.shape == x.shape, f"the inverse gives shape {tuple(back.shape)}, not {tuple(x.shape)}")
        require(undone.shape == contribution.shape, f"the inverse's contribution has shape {tuple(undone.shape)}")
        require(bool(torch.isfinite(undone).all()), "the inverse's contribution is not finite")
        return
    if not transform.random_inverse:
        close(back.double(), x.double(), tol, "round trip data -> latent -> data")
        if not transform.noisy_log_det:
            close(undone, -contribution, tol * max(1, x[0].numel()), "inverse contribution = - forward contribution")
        return
    # A layer that draws in its inverse must be a right inverse: what it draws maps back to the same latent.
    again, contribution = transform(back, context)
    close(again, z, tol, "right inverse f(f^-1(z)) = z")
    if not transform.noisy_log_det:
        close(undone, -contribution, tol * max(1, x[0].numel()), "inverse contribution = - forward contribution")


def _check_jacobian(
    transform: Transform, x: Tensor, contribution: Tensor, context: ContextLike, *, positive: bool
) -> None:
    for item, (rows, own) in enumerate(items_of(x, as_context(context))):
        part = x[rows]
        jacobian = torch.autograd.functional.jacobian(lambda v, own=own: transform(v, own)[0], part)
        _check_determinant(jacobian, part.numel(), contribution[item], positive=positive)
        _check_tangent(jacobian, part, lambda v, own=own: transform(v, own)[0])


def _check_tangent(jacobian: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> None:
    """Compare the Jacobian with a difference along one direction: what is cut off from autograd is in no Jacobian."""
    with seeded(6):
        direction = torch.randn_like(x)
    with torch.no_grad():
        # Small steps, and where values are large steps that are not lost to rounding: one of them has to fit.
        steps = {1e-6, 1e-6 * (1 + float(x.abs().max()))}
        found = [(function(x + step * direction) - function(x - step * direction)) / (2 * step) for step in steps]
    expected = (jacobian.reshape(found[0].numel(), x.numel()) @ direction.flatten()).reshape(found[0].shape)
    best = min(found, key=lambda observed: float((observed - expected).abs().max()))
    scale = 1 + float(expected.abs().max())
    close(best, expected, 1e-4 * scale, "the Jacobian of autograd = that of differences")


def _check_noise(transform: Transform, x: Tensor, z: Tensor, context: ContextLike) -> None:
    """Check that a noisy contribution is right on average, in both directions: within five standard errors."""
    with seeded(5), torch.no_grad():
        draws = torch.stack([transform(x, context)[1].sum() for _ in range(NOISY_DRAWS)])
        undone = torch.stack([-transform.inverse(z, context)[1].sum() for _ in range(NOISY_DRAWS)])
    exact = 0.0
    for rows, own in items_of(x, as_context(context)):
        jacobian: Any = torch.autograd.functional.jacobian(lambda v, c=own: transform(v, c)[0], x[rows])
        exact += float(torch.linalg.slogdet(jacobian.reshape(x[rows].numel(), x[rows].numel()))[1])
    for found, law in ((draws, "contribution"), (undone, "minus the contribution of the inverse")):
        gap, error = abs(float(found.mean()) - exact), float(found.std()) / math.sqrt(NOISY_DRAWS)
        require(gap <= 5 * error + 1e-9, f"mean {law}: off by {gap:.3g} nats, standard error {error:.2g}")


def _check_determinant(jacobian: Any, size: int, contribution: Tensor, *, positive: bool) -> None:
    sign, log_abs_det = torch.linalg.slogdet(jacobian.reshape(size, size))
    close(log_abs_det, contribution, 1e-9 * max(1, size), "log-determinant")
    require(not positive or float(sign) > 0, "the determinant is not positive")


def _check_gradients(transform: Transform, x: Tensor, context: ContextLike) -> None:
    trained = {name: p for name, p in transform.named_parameters() if p.requires_grad}
    if not trained:
        return

    def loss() -> Tensor:
        with seeded(3):
            z, contribution = transform(x, context)
            # The gradient of an estimate may be another estimate than the slope of the value that was drawn.
            weighted = (z * torch.randn_like(z)).sum()
            return weighted if transform.noisy_log_det else weighted + contribution.sum()

    grads = torch.autograd.grad(loss(), list(trained.values()), allow_unused=True)
    for name, grad in zip(trained, grads, strict=True):
        require(grad is not None, f"the parameter {name} gets no gradient")
        require(bool(torch.isfinite(grad).all()), f"the gradient of {name} is not finite")
        require(bool((grad != 0).any()), f"the gradient of {name} is zero")
        _check_slope(loss, trained[name], grad, name)


def _check_slope(loss: Callable[[], Tensor], parameter: Tensor, grad: Tensor, name: str) -> None:
    """Compare a gradient with the difference quotient along a random direction."""
    with seeded(4):
        direction = torch.randn_like(parameter)
    kept, step = parameter.detach().clone(), 1e-6
    with torch.no_grad():
        values = []
        for sign in (1, -1):
            parameter.copy_(kept + sign * step * direction)
            values.append(float(loss()))
        parameter.copy_(kept)
    slope, expected = (values[0] - values[1]) / (2 * step), float((grad * direction).sum())
    scale = float(grad.norm() * direction.norm()) + abs(values[0])
    require(
        abs(slope - expected) <= 1e-5 * scale, f"the gradient of {name} gives the slope {expected}, observed {slope}"
    )
