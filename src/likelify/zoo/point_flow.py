"""Continuous flows of sets of points and of graphs, trained by flow matching."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from likelify import nets, transforms
from likelify.zoo.registry import ModelConfig, Size, register

if TYPE_CHECKING:
    from torch import nn

    from likelify.distributions.core import Distribution
    from likelify.flows import Flow
    from likelify.transforms.core import Transform


@register("point-flow", kind="graph", summary="continuous flow of point sets and graphs, by flow matching")
class PointFlowConfig(ModelConfig):
    """Settings of a continuous flow of point sets and graphs of any sizes, whose density knows no order of the nodes.

    It is trained by flow matching, which solves no equation: many cheap steps. Scoring and drawing solve one, in
    `4 * solver_steps` calls of the network; the likelihood is exact up to the error of that
    (`transforms.solver_error`), in nats per graph, in the units of the features.

    Attributes:
        event_shape: `(features,)` of one node.
        symmetry: what the density does not change under: permutations of the nodes; or also rotations and reflections
            of all positions together about their centre.
        centre: with rotations, what becomes of the centre of each graph: `"dropped"`, a density of centred positions in
            `(n - 1) d` dimensions; or `"normal"`, a density of positions whose centres are normal.
        width: hidden features, of each node or, with rotations, of each pair; a multiple of the heads.
        rounds: how often nodes ask the others, without rotations.
        heads: of the gates, without rotations.
        frequencies: of waves of each feature, without rotations.
        bumps: of distances, with rotations.
        times: waves of the time.
        solver_steps: of the solver, both ways.
        training: `"matching"`, or `"likelihood"`, which takes some hundred times as long for a step.
    """

    reads_weights: ClassVar[bool] = False

    event_shape: tuple[Size]
    symmetry: Literal["permutations", "rotations"] = "permutations"
    centre: Literal["dropped", "normal"] = "normal"
    width: Size = 64
    rounds: int = Field(default=2, ge=0, le=256)
    heads: int = Field(default=4, ge=1, le=2**16)
    frequencies: int = Field(default=6, ge=0, le=4096)
    bumps: int = Field(default=20, ge=2, le=4096)
    times: int = Field(default=4, ge=0, le=4096)
    solver_steps: int = Field(default=16, ge=1, le=4096)
    training: Literal["matching", "likelihood"] = "matching"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.symmetry == "permutations" and self.width % self.heads:
            raise ValueError(f"the width is a multiple of the heads, not {self.width} for {self.heads}")
        if self.symmetry == "rotations" and self.event_shape == (1,):
            raise ValueError("there are no rotations on a line. Set symmetry to 'permutations'")
        return self

    def build(self) -> Flow:
        """Return the flow with fresh weights."""
        from likelify.flows import Flow

        front, net, base = self._turning() if self.symmetry == "rotations" else self._plain()
        layer = transforms.ContinuousFlow(net, steps=self.solver_steps, training=self.training)
        encoder = None if self.classes is None else nets.OneHot(self.classes)
        return Flow(base, transforms.Chain([front, layer]), encoder=encoder, event_shape=self.event_shape)

    def _plain(self) -> tuple[Transform, nn.Module, Distribution]:
        from likelify.distributions import Normal

        (features,) = self.event_shape
        net = nets.SetVelocity(
            features,
            width=self.width,
            rounds=self.rounds,
            heads=self.heads,
            frequencies=self.frequencies,
            times=self.times,
            context_features=self.classes or 0,
        )
        return transforms.Columns(features), net, Normal((features,))

    def _turning(self) -> tuple[Transform, nn.Module, Distribution]:
        from likelify.distributions import CentredNormal

        (features,) = self.event_shape
        net = nets.RotationVelocity(
            features, width=self.width, bumps=self.bumps, times=self.times, context_features=self.classes or 0
        )
        return transforms.Centre(features, centre=self.centre), net, CentredNormal((features,))
