"""Couplings of the features of nodes that know no order of the nodes: the graph normalizing flow and its successors."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from likelify import nets, transforms
from likelify.names import GraphMixing, GraphNetName
from likelify.zoo.registry import Bins, ModelConfig, Size, register

if TYPE_CHECKING:
    from likelify.flows import Flow
    from likelify.transforms.core import Transform
    from likelify.transforms.coupling import Bijector


class GraphConfig(ModelConfig):
    """What models of couplings on graphs share.

    Attributes:
        event_shape: `(features,)` of one node.
        layers: couplings, each behind what mixes.
        coupling: what they do to a feature: an affine map, or a spline behind one.
        bins: pieces of the splines.
        interval: they act on `[-interval, interval]` behind the affine map.
        limit: of the logarithm of the scale of the affine maps.
        dropout: rate in the networks, acting in training steps only.
    """

    event_shape: tuple[Size]
    layers: int = Field(default=8, ge=1, le=4096)
    bins: Bins = 8
    interval: float = Field(default=4.0, gt=0)
    limit: float = Field(default=2.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)

    def _bijector(self, coupling: str) -> Bijector:
        affine = transforms.AffineBijector(self.limit)
        if coupling == "affine":
            return affine
        return transforms.ChainBijector([affine, transforms.SplineBijector(self.bins, self.interval)])

    def _flow(self, layers: list[Transform]) -> Flow:
        """Return a flow behind what takes the features in their units."""
        from likelify.distributions import Normal
        from likelify.flows import Flow

        (features,) = self.event_shape
        encoder = None if self.classes is None else nets.OneHot(self.classes)
        chain = transforms.Chain([transforms.Columns(features), *layers])
        return Flow(Normal((features,)), chain, encoder=encoder, event_shape=self.event_shape)


@register("graph-flow", kind="graph", summary="couplings and graph exponentials that know no order of nodes")
class GraphFlowConfig(GraphConfig):
    """Settings of a flow of graphs and point sets, of any sizes, whose density knows no order of the nodes.

    Features are standardised, each by its mean and deviation over all nodes (`transforms.Columns`, fitted by
    `flow.initialize`). Then come steps of `ActNorm`, what mixes, and a coupling that changes one half of the features
    of all nodes by what a network on the graph reads off the other half, in turn. Every layer commutes with
    permutations of the nodes; scoring and drawing both cost one call of each network. The likelihood is exact, in nats
    per graph, in the units of the features.

    With `mixing="none"`, affine couplings and messages it is the graph normalizing flow of Liu et al. 2019, with
    `mixing="graph-exponential"` that of Hoogeboom et al. 2020, section 6.3.

    Attributes:
        mixing: before every coupling: nothing; a matrix on the features of each node; the exponential of a graph
            convolution, which also mixes nodes; or both. Whatever mixes begins by rotating the features.
        coupling: `"affine"`; `"spline"`, behind an affine map; or `"sylvester"`, a generalized Sylvester layer in its
            place, autoregressive over the features in the basis of a graph exponential, which one feature suffices for.
        net: how nodes see one another in the networks of couplings.
        width: hidden features of each node, a multiple of the heads.
        heads: of attention.
        rounds: how often nodes see their neighbours in each network.
        frequencies: of Fourier features of what the networks read.
        zero_start: the last layers of networks are zero, so that couplings start as the identity. Where nothing mixes
            the features, that may be a saddle that training does not leave.

    The others are those of `GraphConfig`.
    """

    mixing: GraphMixing = "graph-exponential"
    coupling: Literal["affine", "spline", "sylvester"] = "spline"
    net: GraphNetName = "attention"
    width: Size = 32
    heads: int = Field(default=2, ge=1, le=2**16)
    rounds: int = Field(default=1, ge=1, le=256)
    frequencies: int = Field(default=8, ge=0, le=4096)
    zero_start: bool = True

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.event_shape == (1,) and self.coupling != "sylvester":
            raise ValueError(
                "a coupling changes features of nodes by what it reads off others, and these nodes have one feature. "
                "Set coupling to 'sylvester'"
            )
        if self.net == "attention" and self.coupling != "sylvester" and self.width % self.heads:
            raise ValueError(f"the width is a multiple of the heads, not {self.width} for {self.heads}")
        return self

    def build(self) -> Flow:
        """Return the flow with fresh weights."""
        return self._flow([layer for number in range(self.layers) for layer in self._step(number)])

    def _step(self, number: int) -> list[Transform]:
        (features,) = self.event_shape
        return [transforms.ActNorm(features), *self._mixing(features), self._change(features, number)]

    def _mixing(self, features: int) -> list[Transform]:
        matrix = [transforms.Conv1x1(features)] if self.mixing in ("per-node", "both") else []
        exponential = self.mixing in ("graph-exponential", "both")
        # Beside a matrix, which begins as a rotation too, another one would add nothing.
        turned = self.mixing == "graph-exponential"
        return [*matrix, *([transforms.graph_exponential(features, turned=turned)] if exponential else [])]

    def _change(self, features: int, number: int) -> Transform:
        classes = self.classes or 0
        if self.coupling == "sylvester":
            return transforms.graph_sylvester(features, hidden=max(self.width, features), context_features=classes)
        split = transforms.ChannelSplit(features, swap=number % 2 == 1)
        bijector, (read, changed) = self._bijector(self.coupling), split.sizes
        settings = {
            "rounds": self.rounds,
            "context_features": classes,
            "frequencies": self.frequencies,
            "dropout": self.dropout,
            "zero_start": self.zero_start,
        }
        if self.net == "attention":
            net = nets.GraphAttentionNet(read, bijector.size * changed, self.width, heads=self.heads, **settings)
        else:
            net = nets.MessagePassingNet(read, bijector.size * changed, self.width, **settings)
        return transforms.Coupling(split, bijector, net)


@register("graph-flat", kind="graph", summary="couplings of graphs of one size as vectors; knows the order of nodes")
class GraphFlatConfig(GraphConfig):
    """Settings of couplings of all features of all nodes as one vector: a baseline that knows the order of the nodes.

    For graphs of one size. It has to learn of every order of the nodes by itself; where nodes have names, and so an
    order, it is the model to take.

    Attributes:
        nodes: of every graph; the data decide.
        mixing: before every coupling a fixed permutation of the vector, or a matrix.
        coupling: `"affine"`, or `"spline"`, behind an affine map.
        width: of the two hidden layers of each network.

    The others are those of `GraphConfig`.
    """

    reads_edges: ClassVar[bool] = False

    nodes: Size
    mixing: Literal["permutation", "1x1"] = "1x1"
    coupling: Literal["affine", "spline"] = "affine"
    width: Size = 128

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.nodes * self.event_shape[0] < 2:
            raise ValueError("graphs of one node with one feature are single numbers, which no coupling divides")
        return self

    def build(self) -> Flow:
        """Return the flow with fresh weights."""
        (features,) = self.event_shape
        steps = [layer for number in range(self.layers) for layer in self._step(self.nodes * features, number)]
        return self._flow([transforms.GraphVectors(transforms.Chain(steps), self.nodes, features)])

    def _step(self, size: int, number: int) -> list[Transform]:
        mixing = transforms.Conv1x1(size) if self.mixing == "1x1" else transforms.Permute.random(size)
        split = transforms.ChannelSplit(size, swap=number % 2 == 1)
        bijector, (read, changed) = self._bijector(self.coupling), split.sizes
        net = nets.MLP(
            read,
            bijector.size * changed,
            (self.width, self.width),
            context_features=self.nodes * (self.classes or 0),
            dropout=self.dropout,
        )
        return [transforms.ActNorm(size), mixing, transforms.Coupling(split, bijector, net)]
