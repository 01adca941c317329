"""Models of sets whose points are put into an order first: a bound of a density that knows none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from likelify import nets, transforms
from likelify.zoo.registry import Bins, ModelConfig, Size, register

if TYPE_CHECKING:
    from likelify.distributions.core import Distribution
    from likelify.flows import Flow
    from likelify.transforms.core import Transform


class OrderedConfig(ModelConfig):
    """What models of ordered sets share: the front, and that their likelihood is a bound.

    Attributes:
        event_shape: `(features,)` of one node.
    """

    event_shape: tuple[Size]

    def _behind_order(self, base: Distribution, order: Transform, layers: list[Transform]) -> Flow:
        from likelify.flows import Flow

        encoder = None if self.classes is None else nets.OneHot(self.classes)
        chain = transforms.Chain([transforms.Columns(*self.event_shape), order, *layers])
        return Flow(base, chain, encoder=encoder, event_shape=self.event_shape)


@register("set-canonical", kind="graph", summary="points assigned to anchors or sorted, then splines of the whole set")
class SetCanonicalConfig(OrderedConfig):
    """Settings of a flow of point sets of one size: the points get places, and then are one long vector.

    `log p(x) >= log q(points in their places) - log n!`, tight where the places of points are never in doubt; no number
    of draws narrows it. Call `flow.initialize` once before training: it fits the anchors, and the linear layer, so that
    the flow begins as a normal distribution with full covariance.

    Attributes:
        nodes: of every graph.
        order: `"anchors"`, points that are fitted, to which those of a set are assigned at least distance in all;
            `"angle"`, by the angle in the plane, and as `(log r, angle)`; or `"feature"`, by the first one.
        couplings: spline couplings of the vector.
        hidden: width of their networks.
        bins: pieces of the splines.
        interval: they act on `[-interval, interval]`.
    """

    reads_labels = False

    nodes: Size
    order: Literal["anchors", "angle", "feature"] = "anchors"
    couplings: int = Field(default=4, ge=0, le=4096)
    hidden: tuple[Size, ...] = (64,)
    bins: Bins = 8
    interval: float = Field(default=5.0, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.order == "angle" and self.event_shape != (2,):
            raise ValueError("angles are those of points in the plane, of 2 features. Set order to 'anchors'")
        return self

    def build(self) -> Flow:
        """Return the flow with fresh weights."""
        from likelify.distributions import Normal

        (features,) = self.event_shape
        order = transforms.NodeOrder(features, self.order, nodes=self.nodes if self.order == "anchors" else None)
        vectors = transforms.GraphVectors(transforms.Chain(self._layers(self.nodes * features)), self.nodes, features)
        return self._behind_order(Normal((features,)), order, [vectors])

    def _layers(self, size: int) -> list[Transform]:
        """Return layers of a vector: linear, each element by itself, then halves by halves that change."""
        layers: list[Transform] = [
            transforms.FreeLinear(size, size),
            transforms.ChannelSpline(size, bins=self.bins, interval=self.interval),
        ]
        for number in range(self.couplings if size > 1 else 0):
            split = transforms.ChannelSplit(size, swap=number % 2 == 1)
            bijector = transforms.SplineBijector(self.bins, self.interval)
            read, changed = split.sizes
            layers.append(transforms.Coupling(split, bijector, nets.MLP(read, changed * bijector.size, self.hidden)))
            if number % 2 == 1:
                layers.append(transforms.Permute([*range(0, size, 2), *range(1, size, 2)]))
        return layers


@register("set-autoregressive", kind="graph", summary="one point after the other, each a mixture given those before")
class SetAutoregressiveConfig(OrderedConfig):
    """Settings of an autoregressive model of point sets of any sizes: each point given those before it.

    The density of the points in an order is exact; that of the set is a bound, an average over random orders that
    weighting by importance narrows, or the one order that points are sorted into.

    Attributes:
        order: `"random"`; or `"feature"`, sorted by the first one.
        components: normal distributions in the mixture of each point.
        width: of the network, a multiple of the heads.
        rounds: how often it asks those before.
        heads: of the gates.
        frequencies: of waves of each feature.
    """

    order: Literal["random", "feature"] = "random"
    components: int = Field(default=24, ge=1, le=4096)
    width: Size = 64
    rounds: int = Field(default=2, ge=1, le=256)
    heads: int = Field(default=4, ge=1, le=2**16)
    frequencies: int = Field(default=6, ge=0, le=4096)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"the width is a multiple of the heads, not {self.width} for {self.heads}")
        return self

    def build(self) -> Flow:
        """Return the flow with fresh weights."""
        from likelify.distributions import AutoregressiveSet

        (features,) = self.event_shape
        net = nets.CausalSetNet(
            features,
            AutoregressiveSet.size(features, self.components),
            width=self.width,
            rounds=self.rounds,
            heads=self.heads,
            frequencies=self.frequencies,
            context_features=self.classes or 0,
        )
        base = AutoregressiveSet((features,), net, components=self.components)
        return self._behind_order(base, transforms.NodeOrder(features, self.order), [])
