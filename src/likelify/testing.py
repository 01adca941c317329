"""The laws that every map and layer must pass, for users' own classes too.

Each function raises `AssertionError` with the observed value if a law is broken, and returns nothing. Call them in
double precision with parameters away from their initial values (`randomize`): at zero, signs cannot be seen.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from likelify.flows import Flow
from likelify.linalg.expm import exp_action
from likelify.linalg.maps import LinearMap
from likelify.seeding import seeded
from likelify.structure import Context, ContextLike, as_context
from likelify.transforms.core import Transform

__all__ = [
    "check_exponential",
    "check_flow",
    "check_linear_map",
    "check_mass",
    "check_transform",
    "check_weights",
    "randomize",
]

# Draws from which the mean of a noisy contribution is found.
NOISY_DRAWS = 100


def randomize(module: nn.Module, *, scale: float = 0.3, seed: int = 0) -> nn.Module:
    """Move all floating parameters of a module away from where they are, in place; return the module."""
    with seeded(seed), torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point():
                parameter.add_(scale * torch.randn_like(parameter))
    return module


def check_linear_map(map_: LinearMap, x: Tensor, *, tol: float = 1e-9) -> None:
    """Check that a map is linear, row by row, and that adjoint, matrix, trace, bounds and gradients belong to it.

    Args:
        map_: the map.
        x: some rows `(rows, *event)`, at least two, in double precision; for a map made for a number of rows, as many.
        tol: allowed deviation.
    """
    event_shape = tuple(x.shape[1:])
    with seeded(0):
        y = torch.randn_like(x)
    applied = map_.apply(x)
    _close(map_.apply(2 * x - 3 * y), 2 * applied - 3 * map_.apply(y), tol, "linearity")
    if map_.rows is None:
        _close(torch.cat([map_.apply(row[None]) for row in x]), applied, tol, "independence of rows")
    _close((applied * y).sum(), (x * map_.adjoint().apply(y)).sum(), tol, "adjoint <L x, y> = <x, L* y>")
    matrix = map_.materialize(event_shape).to(x).detach()
    _close(_times(map_, matrix, x), applied, tol, "equality with its matrix")
    _close(map_.adjoint().materialize(event_shape).to(x), matrix.mT, tol, "matrix of the adjoint")
    _close(_trace(map_, x), matrix.diagonal(dim1=-2, dim2=-1).sum(-1), tol, "trace")
    _check_facts(map_, matrix, event_shape, tol)
    _close(map_.with_tensors(map_.tensors()).apply(x), applied, 0.0, "rebuilding from its tensors")
    _close(map_.arrange(x), x, 0.0, "arranging the memory layout only")
    _check_pullback(map_, x, y, tol)


def _check_facts(map_: LinearMap, matrix: Tensor, event_shape: tuple[int, ...], tol: float) -> None:
    if map_.symmetry is not None:
        sign = 1 if map_.symmetry == "symmetric" else -1
        _close(matrix.mT, sign * matrix, tol, f"being {map_.symmetry}")
    scale = float(torch.linalg.matrix_norm(matrix).max())
    items = float(len(matrix) / math.prod(event_shape)) if map_.couples_rows else 1.0
    for name, bound, true in (
        ("norm", map_.norm_bound(event_shape), torch.linalg.matrix_norm(matrix, 2)),
        ("growth", map_.growth_bound(event_shape), torch.linalg.matrix_norm((matrix + matrix.mT) / 2, 2)),
        ("Frobenius", map_.frobenius_bound(event_shape) * math.sqrt(items), torch.linalg.matrix_norm(matrix)),
    ):
        low, high = float(torch.as_tensor(bound).detach().max()), float(true.detach().max())
        _require(low >= high * (1 - 1e-12) - 1e-13 * scale, f"{name} bound {low} is below the true value {high}")
    shift, rest = map_.centered(event_shape)
    identity = torch.eye(matrix.shape[-1]).to(matrix)
    _close(rest.materialize(event_shape).to(matrix) + shift * identity, matrix, tol, "shift + centered map = map")


def _check_pullback(map_: LinearMap, u: Tensor, v: Tensor, tol: float) -> None:
    names = [name for name, tensor in map_.tensors().items() if tensor.is_floating_point()]
    leaves = {name: map_.tensors()[name].detach().clone().requires_grad_() for name in names}
    value = (map_.with_tensors(map_.tensors() | leaves).apply(u) * v).sum()
    if not value.requires_grad:
        return
    expected = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    with torch.no_grad():
        found = map_.pullback(u, v)
    _require(set(found) >= set(names), f"pullback names {sorted(found)}, the map has {sorted(names)}")
    for name, grad in zip(names, expected, strict=True):
        if grad is not None:
            _close(found[name], grad, tol, f"pullback with respect to {name}")


def _times(map_: LinearMap, matrix: Tensor, x: Tensor) -> Tensor:
    """Multiply rows by the matrix of `materialize`."""
    flat = x.reshape(1, -1) if map_.couples_rows else x.flatten(1)
    return (matrix @ flat[:, :, None]).reshape(x.shape)


def _trace(map_: LinearMap, x: Tensor) -> Tensor:
    """Return the trace of the matrix of `materialize` from that of the map, which may count per row."""
    trace = map_.trace(tuple(x.shape[1:])).to(x)
    return trace.expand(len(x)).sum() if map_.couples_rows else trace


def check_exponential(map_: LinearMap, x: Tensor, *, tol: float = 1e-10) -> None:
    """Check `exp_action` of a map against the exponential of its matrix: value, inverse, certificate, log-determinant.

    The reference is the power series of the matrix in double precision, scaled until its norm is at most one and
    squared back: written out here, so that it shares nothing with the engine. `torch.matrix_exp` would not do: it is
    off by 2.5e-5 for single matrices in float32, and by up to 1e-11 in double precision.

    Args:
        map_: the map.
        x: some rows in double precision.
        tol: allowed deviation, relative to the input's norm.
    """
    matrix = map_.materialize(tuple(x.shape[1:])).to(x)
    exact = _times(map_, _reference_exponential(matrix), x)
    action = exp_action(map_, x)
    scale = float(x.norm())
    _close(action.value, exact, tol * scale, "equality with the dense exponential")
    _close(exp_action(-map_, action.value).value, x, tol * scale, "exp(-L) undoing exp(L)")
    for degree in (2, 5, 9):
        cut = exp_action(map_, x, degree=degree, method="series")
        error = map_.item_norms(cut.value - exact)
        allowed = cut.diagnostics.error_bound + cut.diagnostics.round_off_allowance * map_.item_norms(x)
        _require(bool((error <= allowed).all()), f"error {error.tolist()} above the certificate {allowed.tolist()}")
        if map_.rows is None:
            _check_log_det(map_, matrix, x, degree)


def _reference_exponential(matrix: Tensor) -> Tensor:
    """Compute the exponential of a matrix, or of each of several, to rounding in double precision."""
    squarings = math.ceil(math.log2(max(float(torch.linalg.matrix_norm(matrix.detach()).max()), 1.0)))
    scaled = matrix.detach().double() / 2**squarings
    value = term = torch.eye(matrix.shape[-1]).to(scaled)
    for k in range(1, 21):
        term = term @ scaled / k
        value = value + term
    for _ in range(squarings):
        value = value @ value
    return value.to(matrix)


def _check_log_det(map_: LinearMap, matrix: Tensor, x: Tensor, degree: int) -> None:
    units = torch.eye(len(matrix)).to(x).reshape(-1, *x.shape[1:])
    cut = exp_action(map_, units, degree=degree, method="series")
    gap = abs(float(torch.linalg.slogdet(cut.value.flatten(1))[1] - matrix.trace()))
    limit = float(torch.as_tensor(cut.diagnostics.log_det_error_bound).max()) + 1e-12 * len(matrix)
    _require(gap <= limit, f"log-determinant off by {gap} nats, above the certificate {limit}")


def check_transform(
    transform: Transform,
    x: Tensor,
    context: ContextLike = None,
    *,
    tol: float = 1e-9,
    near_identity: bool = False,
    positive: bool = False,
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
    """
    kept = x.clone()
    with seeded(1):
        z, contribution = transform(x, context)
    _check_shapes(transform, x, z, contribution, context)
    _check_round_trip(transform, x, z, contribution, context, tol)
    if not (transform.random_forward or transform.random_inverse):
        if transform.noisy_log_det:
            _check_noise(transform, x, z, context)
        else:
            _check_jacobian(transform, x, contribution, context, positive=positive)
    _check_gradients(transform, x, context)
    _check_state(transform, x, z, context)
    _require(torch.equal(x, kept), "the input was modified")
    repr(transform)
    if near_identity:
        size = float((z - x).detach().abs().max())
        _require(size < 0.5 * float(x.abs().max()), f"a fresh layer moves its input by {size}")


def _check_shapes(transform: Transform, x: Tensor, z: Tensor, contribution: Tensor, context: ContextLike) -> None:
    structure = as_context(context).structure
    items = len(x) if structure is None else len(structure)
    _require(contribution.shape == (items,), f"contribution has shape {tuple(contribution.shape)}, not ({items},)")
    _require(contribution.dtype == z.dtype, f"contribution is {contribution.dtype}, the value {z.dtype}")
    _require(not x.is_floating_point() or z.dtype == x.dtype, f"the dtype changed from {x.dtype} to {z.dtype}")
    told, true = tuple(transform.out_shape(tuple(x.shape[1:]))), tuple(z.shape[1:])
    _require(told == true, f"out_shape says {told}, the output has {true}")
    if transform.moves_elements:
        same = torch.equal(z.flatten().sort().values, x.flatten().sort().values)
        _require(same and not bool(contribution.any()), "elements or volumes change, though moves_elements is declared")


def _check_round_trip(
    transform: Transform, x: Tensor, z: Tensor, contribution: Tensor, context: ContextLike, tol: float
) -> None:
    with seeded(2):
        back, undone = transform.inverse(z, context)
    if transform.random_forward and transform.random_inverse:
        _require(back.shape == x.shape, f"the inverse gives shape {tuple(back.shape)}, not {tuple(x.shape)}")
        _require(undone.shape == contribution.shape, f"the inverse's contribution has shape {tuple(undone.shape)}")
        _require(bool(torch.isfinite(undone).all()), "the inverse's contribution is not finite")
        return
    if not transform.random_inverse:
        _close(back.to(x.dtype), x, tol, "round trip data -> latent -> data")
        if not transform.noisy_log_det:
            _close(undone, -contribution, tol * max(1, x[0].numel()), "inverse contribution = - forward contribution")
        return
    # A layer that draws in its inverse must be a right inverse: what it draws maps back to the same latent.
    again, contribution = transform(back, context)
    _close(again, z, tol, "right inverse f(f^-1(z)) = z")
    _close(undone, -contribution, tol * max(1, x[0].numel()), "inverse contribution = - forward contribution")


def _check_jacobian(
    transform: Transform, x: Tensor, contribution: Tensor, context: ContextLike, *, positive: bool
) -> None:
    structure = as_context(context).structure
    if structure is not None:
        jacobian = torch.autograd.functional.jacobian(lambda v: transform(v, context)[0], x)
        _check_determinant(jacobian, x.numel(), contribution.sum(), positive=positive)
        return
    for row in range(len(x)):
        own = _row_context(context, row)
        jacobian = torch.autograd.functional.jacobian(lambda v, own=own: transform(v, own)[0], x[row : row + 1])
        _check_determinant(jacobian, x[row].numel(), contribution[row], positive=positive)


def _check_noise(transform: Transform, x: Tensor, z: Tensor, context: ContextLike) -> None:
    """Check that a noisy contribution is right on average, in both directions: within five standard errors."""
    with seeded(5), torch.no_grad():
        draws = torch.stack([transform(x, context)[1].sum() for _ in range(NOISY_DRAWS)])
        undone = torch.stack([-transform.inverse(z, context)[1].sum() for _ in range(NOISY_DRAWS)])
    if as_context(context).structure is None:
        own = [(x[row : row + 1], _row_context(context, row)) for row in range(len(x))]
    else:
        own = [(x, context)]
    exact = 0.0
    for rows, rows_context in own:
        jacobian = torch.autograd.functional.jacobian(lambda v, c=rows_context: transform(v, c)[0], rows)
        exact += float(torch.linalg.slogdet(jacobian.reshape(rows.numel(), rows.numel()))[1])  # pyright: ignore[reportAttributeAccessIssue]
    for found, law in ((draws, "contribution"), (undone, "minus the contribution of the inverse")):
        gap, error = abs(float(found.mean()) - exact), float(found.std()) / math.sqrt(NOISY_DRAWS)
        _require(gap <= 5 * error + 1e-9, f"mean {law}: off by {gap:.3g} nats, standard error {error:.2g}")


def _check_determinant(jacobian: Any, size: int, contribution: Tensor, *, positive: bool) -> None:
    sign, log_abs_det = torch.linalg.slogdet(jacobian.reshape(size, size))
    _close(log_abs_det, contribution, 1e-9 * max(1, size), "log-determinant")
    _require(not positive or float(sign) > 0, "the determinant is not positive")


def _row_context(context: ContextLike, row: int) -> ContextLike:
    condition = as_context(context).condition
    return context if condition is None else Context(condition[row : row + 1])


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
        _require(grad is not None, f"the parameter {name} gets no gradient")
        _require(bool(torch.isfinite(grad).all()), f"the gradient of {name} is not finite")
        _require(bool((grad != 0).any()), f"the gradient of {name} is zero")
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
    _require(
        abs(slope - expected) <= 1e-5 * scale, f"the gradient of {name} gives the slope {expected}, observed {slope}"
    )


def _check_state(transform: Transform, x: Tensor, z: Tensor, context: ContextLike) -> None:
    twin = copy.deepcopy(transform)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    twin.load_state_dict(transform.state_dict())
    for layer, what in ((twin, "saving and loading"), (transform, "an earlier call")):
        with seeded(1):
            _close(layer(x, context)[0], z, 0.0, f"independence of {what}")
    modes = [transform.training, not transform.training, transform.training]
    for mode in modes:
        transform.train(mode)
        with seeded(1):
            _close(transform(x, context)[0], z, 0.0, "independence of train() and eval()")
    with transform.frozen(), seeded(1):
        _close(transform(x, context)[0], z, 1e-12 * (1 + float(z.detach().abs().max())), "frozen() = not frozen")


def check_flow(
    flow: Flow,
    *,
    box: Sequence[tuple[float, float]],
    points: int = 400,
    samples: int = 20000,
    tol: float = 2e-3,
) -> None:
    """Check an exact flow on one or two dimensions: its density integrates to one, and its samples follow it.

    Args:
        flow: exact, on events `(1,)` or `(2,)`.
        box: for each dimension an interval outside of which there is practically no mass.
        points: grid points per dimension.
        samples: draws for the comparison of moments.
        tol: allowed deviation of the total mass from one.
    """
    dtype = next((p.dtype for p in flow.parameters()), torch.float64)
    axes = [torch.linspace(low, high, points, dtype=dtype) for low, high in box]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(box))
    cell = math.prod((high - low) / (points - 1) for low, high in box)
    with torch.no_grad(), seeded(0):
        mass = flow.log_prob(grid).exp() * cell
        _require(abs(float(mass.sum()) - 1) < tol, f"the density integrates to {float(mass.sum())}")
        drawn = flow.sample((samples,))
        for power in (1, 2):
            expected = (mass[:, None] * grid**power).sum(0)
            error = 5 * (drawn**power).std(0) / math.sqrt(samples) + tol
            _require(
                bool(((drawn**power).mean(0) - expected).abs().le(error).all()),
                f"moment {power} of the samples is not that of the density",
            )
        x, log_prob = flow.sample_and_log_prob((100,))
        _close(log_prob, flow.log_prob(x), 1e-6, "sample_and_log_prob = log_prob of the sample")


def check_mass(
    flow: Flow,
    low: float | Sequence[float],
    high: float | Sequence[float],
    points: int = 200,
    *,
    event_shape: tuple[int, ...] = (2,),
    draws: int = 100,
    leaky: bool = False,
    tol: float = 1e-3,
) -> None:
    r"""Check the total mass of a flow on one or two continuous dimensions, on a grid.

    An exact density integrates to one. The weights `p(z) exp(contribution)` of a bound do so on average over the draws
    of `forward`, and what the bound promises, `exp E[log weight]`, to at most one. It is `check_weights` for events
    that cannot be listed, and looks at `forward` only.

    Args:
        flow: without a condition; a bound, or exact.
        low: lower corner of a box outside of which there is practically no mass; one number, or one per dimension.
        high: upper corner.
        points: of the grid along each dimension.
        event_shape: of the data, one or two numbers in all, such as `(1,)` or `(1, 2, 1)`.
        draws: passes over the grid, for bounds.
        leaky: noise of bounded support loses mass for good; with it only "at most one" is asked.
        tol: allowed deviation from one, beside five standard errors over the draws.
    """
    _require(flow.likelihood != "estimate", "a noisy log-determinant gives no unbiased weights, so no mass")
    size = math.prod(event_shape)
    corners = [(bound,) * size if isinstance(bound, int | float) else tuple(bound) for bound in (low, high)]
    _require(size in (1, 2) and all(len(c) == size for c in corners), f"no grid for events {event_shape} in {corners}")
    dtype = next((p.dtype for p in flow.parameters()), torch.float64)
    axes = [torch.linspace(a, b, points, dtype=dtype) for a, b in zip(*corners, strict=True)]
    grid = torch.cartesian_prod(*axes).reshape(-1, *event_shape)
    cell = math.prod((b - a) / (points - 1) for a, b in zip(*corners, strict=True))
    masses, logs = [], torch.zeros(len(grid), dtype=dtype)
    with torch.no_grad(), seeded(0):
        for _ in range(1 if flow.likelihood == "exact" else draws):
            z, contribution = flow.transform(grid)
            log_weight = flow.base.log_prob(z) + contribution
            masses.append(float(log_weight.exp().sum()) * cell)
            logs += log_weight
    mean = sum(masses) / len(masses)
    allowed = tol + 5 * math.sqrt(sum((mass - mean) ** 2 for mass in masses)) / len(masses)
    what = "the density" if flow.likelihood == "exact" else "the mean weight"
    _require(mean <= 1 + allowed, f"{what} integrates to {mean:.5f}, above 1 by more than {allowed:.2g}")
    _require(leaky or mean >= 1 - allowed, f"{what} integrates to {mean:.5f}, below 1 by more than {allowed:.2g}")
    bound = float((logs / len(masses)).exp().sum()) * cell
    _require(bound <= 1 + allowed, f"the bound integrates to {bound:.5f}, above 1 by more than {allowed:.2g}")


def check_weights(flow: Flow, events: Tensor, *, samples: int = 20000, tol: float = 1e-3) -> None:
    r"""Check that the weights of a flow on a finite space, such as tiny integer images, are right in both directions.

    Let `Q` draw an event uniformly and its latent by `forward`, and `P` a latent from the base and its event by
    `inverse`. Both directions report `log t = log Q - log P`, and whatever `P` and `Q` are,

        E_P[t / (1 + t)] = E_Q[1 / (1 + t)]

    (both are the integral of `P Q / (P + Q)`; Bennett 1976). A constant missing in the contributions breaks it, as a
    wrong sign in one direction does. Everything lies between 0 and 1, so five standard errors can be trusted.

    Args:
        flow: without a condition; a bound, or exact.
        events: all events there are, `(n, *event)`, each once.
        samples: draws in each direction.
        tol: allowed deviation beside the standard errors.
    """
    with torch.no_grad(), seeded(0):
        log_count = math.log(len(events))
        rows = events[torch.arange(samples) % len(events)]
        z, contribution = flow.transform(rows)
        there = torch.sigmoid(flow.base.log_prob(z) + contribution + log_count)
        z = flow.base.sample((samples,))
        back = torch.sigmoid(flow.transform.inverse(z)[1] - flow.base.log_prob(z) - log_count)
    error = math.sqrt((float(there.var()) + float(back.var())) / samples)
    gap = abs(float(there.mean() - back.mean()))
    _require(
        gap <= 5 * error + tol,
        f"weights: E_Q[1 / (1 + t)] is {float(there.mean()):.4f}, E_P[t / (1 + t)] is {float(back.mean()):.4f}, "
        f"standard error {error:.2g}",
    )


def _close(left: Tensor, right: Tensor, tol: float, law: str) -> None:
    gap = float((left.detach() - right.detach()).abs().max()) if left.numel() else 0.0
    _require(gap <= tol, f"{law}: off by {gap:.3g}, allowed {tol:.3g}")


def _require(holds: bool, message: str) -> None:  # noqa: FBT001 - the condition itself
    if not holds:
        raise AssertionError(f"Law broken: {message}.")
