"""The laws of flows: total mass, samples, weights."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from likelify.flows import Flow
from likelify.seeding import seeded
from likelify.testing.law import close, require

# Directions and lengths, in inverse standard deviations, of the frequencies at which samples and density are compared.
DIRECTIONS = 8
FREQUENCIES = (0.5, 1.0, 2.0, 4.0)
# Standard errors that the overlap of model and events has to have, for a law to mean something.
SEEN = 25.0


def check_flow(
    flow: Flow,
    *,
    box: Sequence[tuple[float, float]],
    points: int = 400,
    samples: int = 20000,
    event_shape: tuple[int, ...] | None = None,
    tol: float = 2e-3,
) -> None:
    """Check an exact flow on one or two dimensions: its density integrates to one, and its samples follow it.

    Samples and density are compared by their characteristic functions, the means of `cos(<w, x>)` and `sin(<w, x>)`, at
    frequencies `w` of eight directions and four lengths: they see more than moments of each axis alone, and as they lie
    between -1 and 1, five standard errors can be trusted.

    Args:
        flow: exact, on events of one or two numbers.
        box: for each dimension an interval outside of which there is practically no mass.
        points: grid points per dimension.
        samples: draws for the comparison.
        event_shape: of the events, by default `(1,)` or `(2,)`.
        tol: allowed deviation of the total mass from one, and of the characteristic functions.
    """
    event_shape = (len(box),) if event_shape is None else event_shape
    steps = [(high - low) / (points - 1) for low, high in box]
    axes = [torch.linspace(low, high, points, dtype=_dtype(flow)) for low, high in box]
    grid = torch.cartesian_prod(*axes).reshape(-1, *event_shape)
    with torch.no_grad(), seeded(0):
        mass = flow.log_prob(grid).exp() * math.prod(steps)
        total = float(mass.sum())
        if not abs(total - 1) < tol:
            moved = torch.cartesian_prod(*(axis - step / 2 for axis, step in zip(axes, steps, strict=True)))
            again = float(flow.log_prob(moved.reshape(-1, *event_shape)).exp().sum()) * math.prod(steps)
            coarse = f", and on a grid moved by half a cell to {again:.5g}: take more points"
            require(False, f"the density integrates to {total:.5g}" + coarse * (abs(again - total) > tol / 2))  # noqa: FBT003
        drawn = flow.sample((samples,))
        require(drawn.shape[1:] == grid.shape[1:], f"samples have the event shape {tuple(drawn.shape[1:])}")
        _check_samples(drawn.reshape(samples, -1), grid.reshape(len(grid), -1), mass, tol)
        x, log_prob = flow.sample_and_log_prob((100,))
        rounding = 1e-6 if x.dtype == torch.float64 else 1e-3
        close(log_prob, flow.log_prob(x), rounding, "sample_and_log_prob = log_prob of the sample")


def _check_samples(drawn: Tensor, grid: Tensor, mass: Tensor, tol: float) -> None:
    spread = (mass @ grid.square() - (mass @ grid).square()).clamp(min=1e-12).sqrt()
    angles = torch.arange(DIRECTIONS) * math.pi / DIRECTIONS
    units = torch.stack([angles.cos(), angles.sin()], -1)[:, : grid.shape[1]] if grid.shape[1] > 1 else torch.ones(1, 1)
    for length in FREQUENCIES:
        waves = length * units.to(grid) / spread
        for function in (torch.cos, torch.sin):
            ours = function(drawn.to(grid) @ waves.mT)
            expected = mass @ function(grid @ waves.mT)
            error = 5 * ours.std(0) / math.sqrt(len(drawn)) + tol
            gap = (ours.mean(0) - expected).abs()
            law = f"the samples do not follow the density: characteristic functions differ by {float(gap.max()):.3g}"
            require(bool((gap <= error).all()), law)


def _dtype(flow: Flow) -> torch.dtype:
    tensors = (tensor.dtype for tensor in (*flow.parameters(), *flow.buffers()) if tensor.is_floating_point())
    return next(tensors, torch.get_default_dtype())


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
    require(flow.likelihood != "estimate", "a noisy log-determinant gives no unbiased weights, so no mass")
    size = math.prod(event_shape)
    corners = [(bound,) * size if isinstance(bound, int | float) else tuple(bound) for bound in (low, high)]
    require(size in (1, 2) and all(len(c) == size for c in corners), f"no grid for events {event_shape} in {corners}")
    dtype = _dtype(flow)
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
    require(mean <= 1 + allowed, f"{what} integrates to {mean:.5f}, above 1 by more than {allowed:.2g}")
    require(leaky or mean >= 1 - allowed, f"{what} integrates to {mean:.5f}, below 1 by more than {allowed:.2g}")
    bound = float((logs / len(masses)).exp().sum()) * cell
    require(bound <= 1 + allowed, f"the bound integrates to {bound:.5f}, above 1 by more than {allowed:.2g}")


def check_weights(flow: Flow, events: Tensor, *, samples: int = 20000, tol: float = 1e-3) -> None:
    r"""Check that the weights of a flow on a finite space, such as tiny integer images, are right in both directions.

    Let `Q` draw an event uniformly and its latent by `forward`, and `P` a latent from the base and its event by
    `inverse`. Both directions report `log t = log Q - log P`, and whatever `P` and `Q` are,

        E_P[t / (1 + t)] = E_Q[1 / (1 + t)]

    (both are the integral of `P Q / (P + Q)`; Bennett 1976). A constant missing in the contributions breaks it, as a
    wrong sign in one direction does. Everything lies between 0 and 1, so five standard errors can be trusted. Where
    model and uniform distribution hardly overlap, both sides are near zero and nothing can be seen: that is refused.

    Args:
        flow: without a condition; a bound, or exact.
        events: all events there are, `(n, *event)`, each once.
        samples: draws in each direction.
        tol: allowed deviation beside the standard errors, as a share of the larger side.

    Raises:
        AssertionError: if the law is broken, or the overlap is too small to see that.
    """
    with torch.no_grad(), seeded(0):
        log_count = math.log(len(events))
        rows = events[torch.arange(samples) % len(events)]
        z, contribution = flow.transform(rows)
        there = torch.sigmoid(flow.base.log_prob(z) + contribution + log_count)
        z = flow.base.sample((samples,))
        back = torch.sigmoid(flow.transform.inverse(z)[1] - flow.base.log_prob(z) - log_count)
    error = math.sqrt((float(there.var()) + float(back.var())) / samples)
    gap, overlap = abs(float(there.mean() - back.mean())), max(float(there.mean()), float(back.mean()))
    require(
        gap <= 5 * error + tol * overlap,
        f"weights: E_Q[1 / (1 + t)] is {float(there.mean()):.4f}, E_P[t / (1 + t)] is {float(back.mean()):.4f}, "
        f"standard error {error:.2g}",
    )
    require(
        overlap >= SEEN * error,
        f"weights: model and uniform distribution overlap by {overlap:.2g} only, standard error {error:.2g}, so that "
        "errors of some nats could not be seen: move the model to where the events are",
    )
