r"""Velocities of positions that turn with them: networks of distances, with a cheap exact divergence.

As in `points`, what a node is told of the others may not depend on its own position. What another node `j` has around
it does, but only by the distance to `i` itself, which is taken out again: the sum of what it sees, less what it sees of
`i`. So distances between the others count, and the block `dv_i / dx_i` still is found by one tangent.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from likelify.nets.points import Dual, NodeVelocity, Sets, waves
from likelify.shapes import check_size
from likelify.structure import Context

# Distances at which bumps are centred, in units of the deviation of a coordinate.
NEAR, FAR = 0.0, 6.0
# Added to squares of distances, whose roots then have slopes everywhere.
TINY = 1e-12


class RotationVelocity(NodeVelocity):
    r"""Velocities `v_i = sum_j (x_i - x_j) f_ij / sqrt(n)`, less their mean, with `f_ij` of distances alone.

    Equivariant under permutations of the nodes, rotations and reflections, and the same after a translation; it moves
    no centre. `f_ij` is made of the distance to `j`, of the distances of `j` to all others but `i`, of the sum over all
    nodes of such messages, of the time and of conditions. All nodes of complete graphs see each other; of other graphs
    neighbours do.

    `with_divergence` costs about two passes, whatever the number of nodes and coordinates.

    Args:
        features: coordinates of a position.
        width: of the network.
        bumps: of distances from 0 to 6, in which positions should have deviations about one.
        times: waves of the time.
        context_features: of the condition of each node, given and not modelled, such as one-hot types of atoms.
        zero_start: begin with velocity zero.

    Source:
        After Garcia Satorras et al. 2021 (E(n) equivariant graph networks); the form of the divergence as in Chen and
        Duvenaud 2019.

    Example:
        >>> from likelify import Context, GraphBatch
        >>> net = RotationVelocity(2, width=8)
        >>> net(torch.randn(5, 2), torch.tensor(0.5), Context(structure=GraphBatch.complete([3, 2]))).shape
        torch.Size([5, 2])
    """

    rotates = True
    centred = True
    called = "coordinates"

    def __init__(
        self,
        features: int,
        *,
        width: int = 32,
        bumps: int = 20,
        times: int = 4,
        context_features: int = 0,
        zero_start: bool = True,
    ) -> None:
        super().__init__(features, times, context_features)
        width = check_size(width, "width")
        self.bumps = bumps = check_size(bumps, "bumps", least=2)
        moments = 1 + 2 * self.times
        self.around = nn.Sequential(
            nn.Linear(bumps + 2 * self.context_features, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.pair = nn.Linear(bumps, width)
        self.told = nn.Linear(width + 2 * self.context_features, width)
        self.time = nn.Linear(moments, width, bias=False)
        self.message = nn.Linear(width, width)
        self.know = nn.Linear(width, width)
        self.again = nn.Linear(2 * width, width)
        self.again_time = nn.Linear(moments, width, bias=False)
        self.out = nn.Linear(width, 1)
        self.pull = nn.Linear(moments, 1)
        if zero_start:
            self._rest()

    def _run(self, x: Tensor, t: Tensor, context: Context, *, changes: bool) -> tuple[Tensor, Tensor | None]:
        sets = self._sets(x, context)
        time = waves(t, self.times)
        time = sets.spread(time)[:, :, None] if time.ndim > 1 else time
        place = sets.spread(x)
        gap = place[:, :, None] - place[:, None]
        distance = (gap.square().sum(-1) + TINY).sqrt()
        sees = sets.sees[..., None].to(x.dtype)
        bump, slope = self._bumps(distance)
        told = self._told(bump, sees, context, sets)
        first = Dual(bump, slope[None] if changes else None).linear(self.pair, told + self.time(time))
        pair = first.silu().linear(self.message).silu()
        factor = self._factor(pair, gap, distance, time, sees, sets)
        scale = sets.scale.to(x.dtype)[..., None]
        strength = (factor.value * scale + self.pull(time) * scale.square()) * sees
        velocity = (gap * strength).sum(2)
        centred = velocity - velocity.sum(1, keepdim=True) / sets.count.to(x.dtype)[..., None]
        if factor.change is None:
            return sets.gather(centred), None
        trace = (self.features * strength + factor.change[0] * scale * sees).sum((2, 3))
        return sets.gather(centred), sets.gather(trace)

    def _factor(self, pair: Dual, gap: Tensor, distance: Tensor, time: Tensor, sees: Tensor, sets: Sets) -> Dual:
        """Return what multiplies `x_i - x_j`, and how it changes as `x_i` moves along that vector."""
        scale = sets.scale.to(gap.dtype)
        known = (pair.value * sees).sum(2) * scale
        change = None
        if pair.change is not None:
            # Along each coordinate, by the unit vectors from the others; then along the vector from each of them.
            unit = gap / distance[..., None]
            along = torch.einsum("gijw,gijc->giwc", pair.change[0] * sees, unit) * scale[..., None]
            change = torch.einsum("giwc,gijc->gijw", along, gap)[None]
            pair = Dual(pair.value, pair.change * distance[..., None])
        everywhere = known[:, :, None].expand_as(pair.value)
        know = Dual(everywhere, change).linear(self.know)
        both = pair.beside(know).linear(self.again, self.again_time(time))
        return both.silu().linear(self.out)

    def _bumps(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Return bumps of distances, `(..., bumps)`, and their slopes."""
        width = (FAR - NEAR) / (self.bumps - 1)
        centres = torch.linspace(NEAR, FAR, self.bumps, dtype=distance.dtype, device=distance.device)
        off = (distance[..., None] - centres) / width
        bump = (-0.5 * off.square()).exp()
        return bump, -off / width * bump

    def _told(self, bump: Tensor, sees: Tensor, context: Context, sets: Sets) -> Tensor:
        """Return what the first layer adds: what `j` has around it but for `i`, and the conditions of both."""
        kinds = []
        if context.condition is not None:
            kind = sets.spread(context.condition.to(bump.dtype))
            shape = (*bump.shape[:-1], kind.shape[-1])
            kinds = [kind[:, :, None].expand(shape), kind[:, None].expand(shape)]
        # Seen by j: the first axis of nodes is j, the second k.
        seen = self.around(torch.cat([bump, *kinds], -1)) * sees
        others = seen.sum(2)[:, None] - seen.transpose(1, 2)
        scale = sets.scale.to(bump.dtype)[:, None]
        return self.told(torch.cat([others * scale, *kinds], -1))
