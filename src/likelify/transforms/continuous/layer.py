r"""A flow in continuous time: the layer that solves `dx/dt = v(x, t)`.

Source: Chen et al. 2018 (neural ordinary differential equations); Grathwohl et al. 2019 (FFJORD); Lipman et al. 2023
(flow matching); Klein et al. 2023 (equivariant flow matching). Different here: the divergence is exact, never an
estimate, and the steps are fixed, so that no item is seen differently because of others in its batch. Derivations are
in `docs/maths/continuous.md`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from likelify.distributions.centred import graph_means
from likelify.errors import ConfigError, UnsupportedError, unknown_word
from likelify.linalg.log_det import truncations
from likelify.shapes import check_size
from likelify.structure import Context, ContextLike, as_context, sum_items
from likelify.tracing import is_tracing
from likelify.transforms.continuous.field import check_velocity, velocity_and_divergence
from likelify.transforms.continuous.pairing import assigned, turned
from likelify.transforms.continuous.solver import runge_kutta
from likelify.transforms.core import Transform

Training = Literal["matching", "likelihood"]
TRAININGS = ("matching", "likelihood")


class ContinuousFlow(Transform):
    r"""The layer that follows `dx/dt = v(x, t, context)` from data at `t = 1` to the latent at `t = 0`.

    The contribution is minus the integral of the divergence of `v` along the way, summed over each item. The divergence
    is exact; the integral is found by the classical method of Runge and Kutta in `steps` equal steps, four calls of the
    network each. So the likelihood is exact up to the error of the solver, which falls as `steps^-4` and of which
    nothing is proved: `flow.certificate` has no bound, `solver_error` an estimate. Round trips are as exact as that.

    Trained by `"matching"`, no equation is solved: `matching_losses` compare the velocity at `(1 - t) noise + t x` with
    `x - noise`, at a random time (Lipman et al. 2023); of complete graphs the points of the noise are first assigned to
    those of the data (Klein et al. 2023). `lk.fit` trains so. Trained by `"likelihood"`, gradients run through the
    solver.

    Args:
        net: called as `net(x, t, context)` with the time as a tensor that broadcasts against `x`; returns velocities of
            the shape of `x`. `nets.SetVelocity` and `nets.RotationVelocity` are for sets of points and graphs. Rows of
            different items must not see each other.
        steps: of the solver, both ways.
        training: what `fit` minimises.

    Attributes:
        centred: the network moves no centre of a graph, so its data and its noise are centred (`CentredNormal`).

    Raises:
        ConfigError: if there is no such training.
        ShapeError: if the network returns another shape.

    Example:
        >>> from likelify import GraphBatch, nets
        >>> layer = ContinuousFlow(nets.SetVelocity(2, width=8), steps=4)
        >>> context = Context(structure=GraphBatch.complete([3, 2]))
        >>> x = torch.randn(5, 2)
        >>> z, log_det = layer(x, context)
        >>> log_det.shape, layer.matching_loss(x, context).shape
        (torch.Size([2]), torch.Size([2]))

    Source:
        Chen et al. 2018, section 4; Lipman et al. 2023; Klein et al. 2023.
    """

    fills_space = True
    # Both ways are as stable as the equation; what a step is off is no matter of rounding.
    inverse_check = None

    def __init__(self, net: nn.Module, *, steps: int = 16, training: Training = "matching") -> None:
        super().__init__()
        if not isinstance(net, nn.Module):
            raise UnsupportedError(
                f"The network of a ContinuousFlow is a torch.nn.Module called as net(x, t, context), not a "
                f"{type(net).__name__}."
            )
        if training not in TRAININGS:
            raise ConfigError(unknown_word("training", str(training), TRAININGS))
        self.net = net
        self.steps = check_size(steps, "The steps of a ContinuousFlow")
        self.training_by: Training = training

    @property
    def centred(self) -> bool:
        """Whether the network keeps the centre of each graph where it is."""
        return bool(getattr(self.net, "centred", False))

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Follow the velocity back from `t = 1` to `t = 0`."""
        return self._with_log_det(x, as_context(context), start=1.0, end=0.0)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Follow the velocity from `t = 0` to `t = 1`."""
        return self._with_log_det(z, as_context(context), start=0.0, end=1.0)

    def mean_forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the latent alone, without a divergence."""
        return self._alone(x, as_context(context), start=1.0, end=0.0)

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Return the data alone, without a divergence."""
        return self._alone(z, as_context(context), start=0.0, end=1.0)

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the latent; nothing here depends on data."""
        with torch.no_grad():
            return self.mean_forward(x, context)

    def matching_loss(self, x: Tensor, context: ContextLike = None) -> Tensor:
        r"""Return `||v((1 - t) u + t x, t) - (x - u)||^2` of each item, with noise `u` and a time `t` of its own.

        Args:
            x: what reaches this layer, `(rows, *event)`.
            context: as for the call.
        """
        context = as_context(context)
        noise = self._noise(x, context)
        items = len(x) if context.structure is None else len(context.structure)
        # Evenly spread over the batch, which its order is independent of: less noise than of independent times.
        t = (torch.arange(items, device=x.device, dtype=x.dtype) / max(items, 1) + torch.rand_like(x[:1].sum())) % 1.0
        rows = t if context.structure is None else t[context.structure.owner]
        rows = rows.reshape(-1, *(1,) * (x.ndim - 1))
        velocity = self._velocity(noise + rows * (x - noise), rows, context)
        return sum_items((velocity - (x - noise)).square(), context)

    def _noise(self, x: Tensor, context: Context) -> Tensor:
        """Draw noise, paired with the data as far as the symmetries of the network allow."""
        with torch.no_grad():
            noise = torch.randn_like(x)
            if self.centred:
                noise = noise - graph_means(noise, context)
            if getattr(self.net, "permutes", False):
                noise = assigned(noise, x, context)
            return turned(noise, x, context) if getattr(self.net, "rotates", False) else noise

    def _velocity(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        return check_velocity(self.net(x, t, context), x)

    def _with_log_det(self, x: Tensor, context: Context, *, start: float, end: float) -> tuple[Tensor, Tensor]:
        def rates(t: float, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            found = velocity_and_divergence(self.net, state[0], x.new_tensor(t), context)
            return check_velocity(found[0], x), found[1]

        value, log_det = runge_kutta(rates, (x, x.new_zeros(len(x))), start, end, self.steps)
        contribution = sum_items(log_det, context)
        if not is_tracing():
            # Nothing is proved of the solver.
            truncations.add(torch.full_like(contribution.detach(), math.inf))
        return value, contribution

    def _alone(self, x: Tensor, context: Context, *, start: float, end: float) -> Tensor:
        def rates(t: float, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (self._velocity(state[0], x.new_tensor(t), context),)

        return runge_kutta(rates, (x,), start, end, self.steps)[0]

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"steps={self.steps}, training={self.training_by!r}"
