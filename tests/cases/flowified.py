"""Cases of the layers of any shape: dimension, copies, linear layers, convolutions, branches."""

import torch

import likelify as lk
from likelify import nets
from likelify.distributions import ChannelNoise
from likelify.transforms.reshape import Identity
from likelify.transforms.surjections.combinators import Parallel, concat, residual
from likelify.transforms.surjections.convolution import convolution, transposed_convolution
from likelify.transforms.surjections.copying import FoldSum, Repeat, Sum, Unfold
from likelify.transforms.surjections.dimension import Augment, Crop, Pad
from likelify.transforms.surjections.linear import PrincipalAxes, RotatedLinear, Spectrum, linear
from tests.cases.common import LayerCase, normal, on_graphs

VECTOR, LINE, IMAGE = (nets.density_nets(dims, hidden=4) for dims in range(3))


def _axes() -> PrincipalAxes:
    layer = PrincipalAxes(3).double()
    layer.initialize(normal(20, 3) * torch.tensor([1.0, 2.0, 3.0]))
    return layer


def _branches() -> Parallel:
    return Parallel([None, linear(3, 2, method="householder", net_factory=VECTOR)], [2, 3], [2, 2])


LAYERS: dict[str, LayerCase] = {
    "identity-graphs": LayerCase(Identity, lambda: normal(5, 3), Identity, on_graphs, near_identity=True),
    "augment": LayerCase(lambda: Augment(2, ChannelNoise(2)), lambda: normal(3, 3, 2), Augment),
    "augment-uniform": LayerCase(lambda: Augment(2, ChannelNoise(2, "uniform")), lambda: normal(3, 3), Augment),
    "augment-posterior-graphs": LayerCase(
        lambda: Augment(2, lk.ConditionalNormal(VECTOR(3, 4))), lambda: normal(5, 3), Augment, on_graphs
    ),
    "pad": LayerCase(lambda: Pad((2, 3, 2), ((1, 0), (2, 1))), lambda: normal(3, 2, 3, 2), Pad),
    "pad-uniform": LayerCase(lambda: Pad((2, 3), ((1, 2),), noise="uniform", value=0.5), lambda: normal(3, 2, 3), Pad),
    "crop": LayerCase(lambda: Crop((2, 5, 4), ((1, 0), (1, 1)), net_factory=IMAGE), lambda: normal(3, 2, 5, 4), Crop),
    "repeat": LayerCase(lambda: Repeat(2, 3), lambda: normal(3, 2, 2), Repeat),
    "repeat-uniform": LayerCase(lambda: Repeat(2, 3, noise="uniform", blocks=True), lambda: normal(3, 2), Repeat),
    "repeat-posterior-graphs": LayerCase(
        lambda: Repeat(2, 3, posterior_factory=VECTOR), lambda: normal(5, 2), Repeat, on_graphs
    ),
    "unfold-overlap": LayerCase(lambda: Unfold((2, 4, 5), 3), lambda: normal(3, 2, 4, 5), Unfold),
    "unfold-disjoint": LayerCase(lambda: Unfold((2, 4, 4), 2, stride=2), lambda: normal(3, 2, 4, 4), Unfold),
    "unfold-dropped": LayerCase(
        lambda: Unfold((2, 5, 5), 1, stride=2, net_factory=IMAGE), lambda: normal(3, 2, 5, 5), Unfold
    ),
    "unfold-everything": LayerCase(
        lambda: Unfold((2, 6, 7), (2, 3), stride=(3, 2), dilation=(2, 1), posterior_factory=IMAGE, net_factory=IMAGE),
        lambda: normal(3, 2, 6, 7),
        Unfold,
    ),
    "unfold-line": LayerCase(
        lambda: Unfold((2, 7), 3, stride=2, posterior_factory=LINE), lambda: normal(3, 2, 7), Unfold
    ),
    "unfold-uniform": LayerCase(lambda: Unfold((2, 4, 5), 3, noise="uniform"), lambda: normal(3, 2, 4, 5), Unfold),
    "sum": LayerCase(lambda: Sum(2, 2), lambda: normal(3, 4), Sum),
    "sum-graphs": LayerCase(lambda: Sum(2, 2, net_factory=VECTOR, blocks=True), lambda: normal(5, 4), Sum, on_graphs),
    "fold-sum-overlap": LayerCase(
        lambda: FoldSum((2, 5, 5), 3, net_factory=IMAGE), lambda: normal(3, 18, 3, 3), FoldSum
    ),
    "fold-sum-disjoint": LayerCase(lambda: FoldSum((2, 4, 4), 2, stride=2), lambda: normal(3, 8, 2, 2), FoldSum),
    "fold-sum-gaps": LayerCase(lambda: FoldSum((2, 5, 5), 1, stride=2), lambda: normal(3, 2, 3, 3), FoldSum),
    "fold-sum-line": LayerCase(
        lambda: FoldSum((2, 7), 3, stride=2, net_factory=LINE), lambda: normal(3, 6, 3), FoldSum
    ),
    "principal-axes-graphs": LayerCase(_axes, lambda: normal(5, 3), PrincipalAxes, on_graphs),
    "spectrum-graphs": LayerCase(
        lambda: Spectrum(torch.tensor([0.1, 0.2]), torch.zeros(2), 3), lambda: normal(5, 3), Spectrum, on_graphs
    ),
    "linear-by-exponential": LayerCase(
        lambda: linear(3, 3, method="exponential"), lambda: normal(3, 3, 2), RotatedLinear
    ),
    "linear-cayley-reduce": LayerCase(lambda: linear(4, 2, net_factory=VECTOR), lambda: normal(3, 4), RotatedLinear),
    "linear-householder-reduce": LayerCase(
        lambda: linear(4, 2, method="householder", net_factory=IMAGE), lambda: normal(3, 4, 2, 2), RotatedLinear
    ),
    "linear-increase-graphs": LayerCase(
        lambda: linear(2, 4, weight=normal(4, 2), bias=normal(4)),
        lambda: normal(5, 2),
        RotatedLinear,
        on_graphs,
    ),
    "linear-increase-posterior": LayerCase(
        lambda: linear(2, 4, posterior_factory=VECTOR, method="exponential"), lambda: normal(3, 2), RotatedLinear
    ),
    "convolution": LayerCase(
        lambda: convolution((2, 5, 5), 3, 3, stride=2, padding=1, net_factory=IMAGE),
        lambda: normal(2, 2, 5, 5),
        lk.Chain,
    ),
    "convolution-groups": LayerCase(
        lambda: convolution((4, 6), 2, 2, stride=3, groups=2, net_factory=LINE), lambda: normal(2, 4, 6), lk.Chain
    ),
    "transposed-convolution": LayerCase(
        lambda: transposed_convolution((3, 2, 2), 2, 3, stride=2, padding=1, output_padding=1, net_factory=IMAGE),
        lambda: normal(2, 3, 2, 2),
        lk.Chain,
    ),
    "parallel-graphs": LayerCase(_branches, lambda: normal(5, 5), Parallel, on_graphs),
    "residual": LayerCase(
        lambda: residual(lk.Conv1x1(2), (2, 2, 2), net_factory=IMAGE), lambda: normal(3, 2, 2, 2), lk.Chain
    ),
    "concat": LayerCase(lambda: concat([None, linear(3, 2, net_factory=VECTOR)], (3,)), lambda: normal(3, 3), lk.Chain),
}
