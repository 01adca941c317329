"""Cases that can be built at any sizes, for the law that no size may be taken for another.

A name begins with the public name of the layer or of the function that makes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import nn

import likelify as lk
from likelify import nets, transforms
from likelify.distributions import ChannelNoise
from tests.cases.common import LayerCase, integers, normal, unit

VECTOR, IMAGE = nets.density_nets(0, hidden=4), nets.density_nets(2, hidden=4)
WIDE, ALL = ("rows", "channels", "width"), ("rows", "channels", "height", "width", "features")


@dataclass(frozen=True)
class Sizes:
    """How many there are of everything that a size could be taken for."""

    rows: int = 3
    channels: int = 3
    height: int = 3
    width: int = 3
    features: int = 3

    @property
    def image(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width


Build = Callable[[Sizes], Any]


@dataclass(frozen=True)
class Sized:
    """A layer, its data, what it reads and its graphs, all at given sizes; `axes` are the sizes that it has."""

    build: Build
    data: Build = lambda s: normal(s.rows, *s.image)
    condition: Build = lambda s: None
    graphs: Build = lambda s: None
    scale: float = 0.3
    axes: tuple[str, ...] = ("rows", "channels", "height", "width")

    def coincidences(self) -> list[Sizes]:
        """Return sizes for every way in which those it has are equal to one another, with three different at most."""
        found = {}
        for values in product((3, 2, 4), repeat=len(self.axes)):
            pattern = tuple(values.index(value) for value in values)
            found.setdefault(pattern, Sizes(**dict(zip(self.axes, values, strict=True))))
        return list(found.values())

    def main_coincidences(self) -> list[Sizes]:
        """Return those where the rows alone are equal to one of the others, and where all are."""
        counts = {
            sizes: [getattr(sizes, axis) for axis in self.axes].count(sizes.rows) for sizes in self.coincidences()
        }
        return [sizes for sizes, count in counts.items() if count in (2, len(self.axes))]

    def at(self, sizes: Sizes) -> LayerCase:
        """Return the case at those sizes; what it covers is a matter of `LAYERS`."""
        return LayerCase(
            lambda: self.build(sizes),
            lambda: self.data(sizes),
            lk.Transform,
            lambda: lk.Context(self.condition(sizes), self.graphs(sizes)),
            scale=self.scale,
        )


def image(build: Build, **settings: Any) -> Sized:
    """A layer of images, without a condition."""
    return Sized(build, **settings)


def vector(build: Build, **settings: Any) -> Sized:
    """A layer of vectors, without a condition."""
    return Sized(build, **({"data": lambda s: normal(s.rows, s.channels), "axes": ("rows", "channels")} | settings))


def nodes(build: Build, **settings: Any) -> Sized:
    """A layer of graphs: the rows are their nodes."""
    return vector(build, graphs=_graphs, **settings)


def sets(build: Build) -> Sized:
    """A layer of two complete graphs, each of as many nodes as there are rows of other layers."""
    data = lambda s: normal(2 * s.rows, s.channels)  # noqa: E731
    return vector(build, data=data, graphs=lambda s: lk.GraphBatch.complete([s.rows, s.rows]))


def reading(case: Sized) -> Sized:
    """The same layer, built to read a condition of one number for each feature."""
    return replace(case, condition=lambda s: normal(s.rows, s.features), axes=(*case.axes, "features"))


def _graphs(s: Sizes) -> lk.GraphBatch:
    """One node alone, and a way through all others."""
    way = torch.arange(1, s.rows - 1)
    return lk.GraphBatch(torch.tensor([1, s.rows - 1]), torch.stack([way, way + 1])).undirected()


def _normal_prior(size: int, event: int, features: int = 0) -> lk.ConditionalNormal:
    return lk.ConditionalNormal(nets.MLP(size + features, 2 * event, (5,)))


def _coupling(s: Sizes, bijector: Any, features: int = 0) -> lk.Coupling:
    split = lk.ChannelSplit(s.channels)
    kept, moved = split.sizes
    return lk.Coupling(split, bijector, nets.MLP(kept, bijector.size * moved, (5,), context_features=features))


def _graph_coupling(s: Sizes, net: type[nn.Module], features: int = 0) -> lk.Coupling:
    split = lk.ChannelSplit(s.channels)
    return lk.Coupling(
        split, lk.AffineBijector(), net(split.sizes[0], 2 * split.sizes[1], 4, context_features=features)
    )


def _autoregressive(s: Sizes, bijector: Any) -> transforms.Autoregressive:
    net = nets.AutoregressiveNet(s.channels, dims=0, hidden=max(5, s.channels), heads=bijector.size)
    return transforms.Autoregressive(s.channels, bijector, net)


def _image_coupling(s: Sizes, bijector: Any, features: int = 0) -> lk.Coupling:
    split = lk.ChannelSplit(s.channels)
    kept, moved = split.sizes
    net = nets.ResidualConvNet(kept, bijector.size * moved, 6, blocks=1, context_features=features)
    return lk.Coupling(split, bijector, net)


def _mask_coupling(s: Sizes) -> lk.Coupling:
    mask = (torch.arange(s.channels * s.height * s.width).reshape(s.image) % 2).double()
    kept, moved = int(mask.sum()), int((1 - mask).sum())
    return lk.Coupling(lk.MaskSplit(mask), lk.AffineBijector(), nets.MLP(kept, 2 * moved, (5,)))


def _fitted(layer: Any, sample: torch.Tensor) -> Any:
    layer.initialize(sample)
    return layer


def _latent(s: Sizes, features: int = 0) -> lk.LatentVariable:
    posterior = _normal_prior(s.channels, s.width, features)
    return lk.LatentVariable(posterior, _normal_prior(s.width, s.channels, features), (s.width,))


def _lipschitz(s: Sizes, log_det: Any, features: int = 0) -> lk.LipschitzResidual:
    return lk.LipschitzResidual(nets.LipschitzMLP(s.channels, (5,), context_features=features), log_det=log_det)


def _lipschitz_conv(s: Sizes, log_det: Any, features: int = 0) -> lk.LipschitzResidual:
    return lk.LipschitzResidual(nets.LipschitzConvNet(s.channels, 4, context_features=features), log_det=log_det)


def _triangular(s: Sizes, dims: Any, features: int = 0) -> lk.TriangularResidual:
    net = nets.AutoregressiveNet(s.channels, hidden=5, dims=dims, context_features=features)
    return lk.TriangularResidual(net)


def _noisy_net(s: Sizes, numbers: int) -> nn.Module:
    return nn.Sequential(nn.Linear(s.channels, 5), nn.Tanh(), nn.Linear(5, numbers * s.channels))


def _rotations(**settings: Any) -> dict[str, Sized]:
    """A rotation of vectors and of images, with and without a condition."""
    method = settings["method"]
    return {
        f"rotation {method}": vector(lambda s: lk.rotation(s.channels, **settings)),
        f"rotation {method} image": image(lambda s: lk.rotation(s.channels, **settings)),
        f"rotation {method} condition": reading(
            vector(lambda s: lk.rotation(s.channels, context_features=s.features, **settings))
        ),
        f"rotation {method} condition image": reading(
            image(lambda s: lk.rotation(s.channels, context_features=s.features, **settings))
        ),
        f"rotation {method} condition nodes": reading(
            nodes(lambda s: lk.rotation(s.channels, context_features=s.features, **settings))
        ),
    }


BIJECTIONS: dict[str, Sized] = {
    "ActNorm": image(lambda s: lk.ActNorm(s.channels)),
    "ActNorm nodes": nodes(lambda s: lk.ActNorm(s.channels)),
    "Affine": image(lambda s: lk.Affine(shift=0.5, scale=-2.0)),
    "ChannelAffine": image(lambda s: transforms.ChannelAffine(1 + unit(s.channels), normal(s.channels))),
    "Logit": image(lambda s: lk.Logit(), data=lambda s: unit(s.rows, *s.image)),
    "Sigmoid": image(lambda s: transforms.Sigmoid()),
    "Softplus": image(lambda s: transforms.Softplus()),
    "Tanh": image(lambda s: transforms.Tanh()),
    "ChannelSpline": image(lambda s: lk.ChannelSpline(s.channels, bins=4)),
    "SharedSpline": image(lambda s: transforms.SharedSpline(bins=4)),
    "Columns": vector(lambda s: _fitted(transforms.Columns(s.channels), normal(20, s.channels))),
    "KernelMarginal": vector(lambda s: _fitted(transforms.KernelMarginal(s.channels), normal(20, s.channels))),
    "LinearPrediction": Sized(
        lambda s: _fitted(transforms.LinearPrediction((s.channels, s.width)), normal(40, s.channels, s.width)),
        data=lambda s: normal(s.rows, s.channels, s.width),
        axes=WIDE,
    ),
    "FittedMarginal": image(
        lambda s: _fitted(lk.FittedMarginal(s.image, 4), integers(20, *s.image, levels=4) + 0.5),
        data=lambda s: integers(s.rows, *s.image, levels=4) + unit(s.rows, *s.image),
    ),
    "Flatten": image(lambda s: lk.Flatten(s.image)),
    "Flip": image(lambda s: transforms.Flip()),
    "Identity": image(lambda s: transforms.Identity()),
    "Permute": image(lambda s: lk.Permute(torch.arange(s.channels).flip(0))),
    "PermuteAxes": image(lambda s: transforms.PermuteAxes((3, 1, 2))),
    "Reshape": image(lambda s: lk.Reshape(s.image, (s.width, s.channels, s.height))),
    "Squeeze": image(
        lambda s: lk.Squeeze((2, 3)), data=lambda s: normal(s.rows, s.channels, 2 * s.height, 3 * s.width)
    ),
    "Squeeze square": image(
        lambda s: lk.Squeeze(), data=lambda s: normal(s.rows, s.channels, 2 * s.height, 2 * s.width)
    ),
    "Conv1x1": image(lambda s: lk.Conv1x1(s.channels)),
    "Conv1x1 vector": vector(lambda s: lk.Conv1x1(s.channels)),
    "Conv1x1 nodes": nodes(lambda s: lk.Conv1x1(s.channels)),
    "two_conv1x1": image(lambda s: transforms.two_conv1x1(s.channels)),
    "AutoregressiveConv": image(lambda s: transforms.AutoregressiveConv(s.channels)),
    "emerging_conv": image(lambda s: lk.emerging_conv(s.channels)),
    "periodic_conv": image(lambda s: transforms.periodic_conv(s.channels), scale=0.1),
    "CircularConv": image(lambda s: transforms.CircularConv(s.channels, s.channels), scale=0.1),
    "CircularConv reducing": image(lambda s: transforms.CircularConv(s.channels, 1), scale=0.1),
    "CircularConv increasing": image(lambda s: transforms.CircularConv(s.channels, s.channels + 1), scale=0.1),
    "Woodbury": image(
        lambda s: transforms.Woodbury(s.channels, (s.height, s.width), channel_rank=1, spatial_rank=1), scale=0.1
    ),
    "woodbury_conv": image(lambda s: lk.woodbury_conv(s.channels, (s.height, s.width), rank=2), scale=0.1),
    "Orthogonal": image(lambda s: transforms.Orthogonal(torch.linalg.qr(normal(s.channels, s.channels))[0])),
    **_rotations(method="exponential"),
    **_rotations(method="cayley"),
    **_rotations(method="householder", reflections=2),
    "Coupling affine": vector(lambda s: _coupling(s, lk.AffineBijector())),
    "Coupling affine nodes": nodes(lambda s: _coupling(s, lk.AffineBijector())),
    "Coupling affine condition": reading(vector(lambda s: _coupling(s, lk.AffineBijector(), s.features))),
    "Coupling affine mask": image(_mask_coupling),
    "Coupling spline": vector(lambda s: _coupling(s, lk.SplineBijector(4, 2.0))),
    "Coupling spline condition": reading(vector(lambda s: _coupling(s, lk.SplineBijector(4, 2.0), s.features))),
    "Coupling spline image": image(lambda s: _image_coupling(s, lk.SplineBijector(4, 2.0)), scale=0.1),
    "Coupling affine condition image": reading(image(lambda s: _image_coupling(s, lk.AffineBijector(), s.features))),
    "Autoregressive": vector(lambda s: _autoregressive(s, lk.SplineBijector(4, 2.0))),
    "Coupling messages": nodes(lambda s: _graph_coupling(s, nets.MessagePassingNet)),
    "Coupling messages sets": sets(lambda s: _graph_coupling(s, nets.MessagePassingNet)),
    "Coupling attention condition": reading(nodes(lambda s: _graph_coupling(s, nets.GraphAttentionNet, s.features))),
    "Coupling attention sets": sets(lambda s: _graph_coupling(s, nets.GraphAttentionNet)),
    "GraphVectors": sets(lambda s: transforms.GraphVectors(lk.Conv1x1(s.rows * s.channels), s.rows, s.channels)),
    "Autoregressive nodes": nodes(lambda s: _autoregressive(s, lk.AffineBijector())),
    "Chain": image(lambda s: lk.Chain([lk.ActNorm(s.channels), lk.Conv1x1(s.channels)])),
    "Inverse": image(lambda s: lk.Inverse(lk.Conv1x1(s.channels))),
    "Conjugate": reading(
        vector(lambda s: lk.Conjugate(lk.Conv1x1(s.channels), _coupling(s, lk.AffineBijector(), s.features)))
    ),
}

EXPONENTIALS: dict[str, Sized] = {
    "Exponential": vector(lambda s: lk.Exponential(lk.Dense(0.5 * normal(s.channels, s.channels)))),
    "Exponential image": image(lambda s: lk.Exponential(lk.Dense(0.5 * normal(s.channels, s.channels)))),
    "conv_exponential": image(lambda s: lk.conv_exponential(s.channels)),
    "conv_exponential condition": reading(
        image(lambda s: lk.conv_exponential(s.channels, context_features=s.features))
    ),
    "orthogonal_convolution": image(lambda s: lk.orthogonal_convolution(s.channels)),
    "orthogonal_convolution condition": reading(
        image(lambda s: lk.orthogonal_convolution(s.channels, norm_limit=2.0, context_features=s.features))
    ),
    "axis_exponential": image(lambda s: lk.axis_exponential(s.channels, positions=(s.height, s.width))),
    "axis_exponential condition": reading(
        image(lambda s: lk.axis_exponential(s.channels, 3, context_features=s.features))
    ),
    "dense_exponential": vector(lambda s: lk.dense_exponential(s.channels)),
    "dense_exponential condition": reading(
        vector(lambda s: lk.dense_exponential(s.channels, context_features=s.features))
    ),
    "dense_exponential condition image": reading(
        image(lambda s: lk.dense_exponential(s.channels, context_features=s.features))
    ),
    "dense_exponential condition nodes": reading(
        nodes(lambda s: lk.dense_exponential(s.channels, context_features=s.features))
    ),
    "graph_exponential": nodes(lambda s: lk.graph_exponential(s.channels)),
    "graph_exponential rule": nodes(lambda s: lk.graph_exponential(s.channels, neighbours=3)),
    "linear_exponential": vector(lambda s: lk.linear_exponential(nn.Linear(s.channels, s.channels, bias=False))),
    "linear_exponential image": image(
        lambda s: lk.linear_exponential(nn.Conv2d(s.channels, s.channels, 3, padding=1, bias=False)), scale=0.1
    ),
    "equivariant_exponential rotations": image(
        lambda s: transforms.equivariant_exponential(4 * s.channels, "rotations"),
        data=lambda s: normal(s.rows, 4 * s.channels, s.height, s.width),
        scale=0.1,
    ),
    "equivariant_exponential sets": image(
        lambda s: transforms.equivariant_exponential(s.channels, "sets"),
        data=lambda s: normal(s.rows, s.channels, s.height),
    ),
    "equivariant_exponential sets condition": reading(
        image(
            lambda s: transforms.equivariant_exponential(s.channels, "sets", context_features=s.features),
            data=lambda s: normal(s.rows, s.channels, s.height),
        )
    ),
    "equivariant_exponential pairs condition": reading(
        image(
            lambda s: transforms.equivariant_exponential(s.channels, "pairs", context_features=s.features),
            data=lambda s: normal(s.rows, s.channels, s.height, s.height),
            scale=0.05,
        )
    ),
}

SOLVED: dict[str, Sized] = {
    "planar": vector(lambda s: transforms.planar(s.channels)),
    "planar condition": reading(vector(lambda s: transforms.planar(s.channels, context_features=s.features))),
    "sylvester": vector(lambda s: lk.sylvester(s.channels, 2, reflections=2)),
    "sylvester image": image(lambda s: lk.sylvester(s.channels, 2, reflections=2)),
    "sylvester condition": reading(
        vector(lambda s: lk.sylvester(s.channels, 2, reflections=2, context_features=s.features))
    ),
    "sylvester condition nodes": reading(
        nodes(lambda s: lk.sylvester(s.channels, 2, reflections=2, context_features=s.features))
    ),
    "generalized_sylvester": vector(lambda s: lk.generalized_sylvester(s.channels, hidden=5, exponential=True)),
    "generalized_sylvester condition": reading(
        vector(lambda s: lk.generalized_sylvester(s.channels, hidden=5, context_features=s.features))
    ),
    "conv_sylvester": image(lambda s: lk.conv_sylvester(s.channels, hidden=5), scale=0.1),
    "conv_sylvester condition": reading(
        image(lambda s: lk.conv_sylvester(s.channels, hidden=5, context_features=s.features), scale=0.1)
    ),
    "graph_sylvester": nodes(lambda s: lk.graph_sylvester(s.channels, hidden=5)),
    "graph_sylvester condition": reading(
        nodes(lambda s: lk.graph_sylvester(s.channels, hidden=5, context_features=s.features))
    ),
    "graph_sylvester nodes": nodes(lambda s: lk.graph_sylvester(s.channels, hidden=5, order="nodes")),
    "TriangularResidual": vector(lambda s: _triangular(s, 0)),
    "TriangularResidual image": image(lambda s: _triangular(s, 2), scale=0.1),
    "TriangularResidual condition image": reading(image(lambda s: _triangular(s, 2, s.features), scale=0.1)),
    "TriangularResidual nodes": nodes(lambda s: _triangular(s, "nodes")),
    "LipschitzResidual": vector(lambda s: _lipschitz(s, "exact")),
    "LipschitzResidual truncated condition": reading(vector(lambda s: _lipschitz(s, "truncated", s.features))),
    "LipschitzResidual nodes": nodes(lambda s: _lipschitz(s, "exact")),
    "LipschitzResidual image": image(lambda s: _lipschitz_conv(s, "truncated")),
    "LipschitzResidual condition image": reading(image(lambda s: _lipschitz_conv(s, "exact", s.features))),
}

SURJECTIONS: dict[str, Sized] = {
    "YCoCgR": image(
        lambda s: transforms.YCoCgR(4),
        data=lambda s: integers(s.rows, 3, s.height, s.width, levels=4),
        axes=("rows", "height", "width"),
    ),
    "Dequantize": image(lambda s: lk.Dequantize(4), data=lambda s: integers(s.rows, *s.image, levels=4)),
    "Slice": vector(lambda s: lk.Slice(1, _normal_prior(1, s.channels - 1))),
    "Slice condition": reading(vector(lambda s: lk.Slice(1, _normal_prior(1, s.channels - 1, s.features)))),
    "Augment": image(lambda s: transforms.Augment(s.width, ChannelNoise(s.width))),
    "Augment posterior": vector(lambda s: transforms.Augment(s.width, _normal_prior(s.channels, s.width)), axes=WIDE),
    "Pad": image(lambda s: transforms.Pad(s.image, ((1, 0), (2, 1)))),
    "Crop": image(lambda s: transforms.Crop(s.image, ((1, 0), (0, 1)), net_factory=IMAGE)),
    "Repeat": image(lambda s: transforms.Repeat(s.channels, s.width)),
    "Repeat posterior": vector(lambda s: transforms.Repeat(s.channels, s.width, posterior_factory=VECTOR), axes=WIDE),
    "Sum": vector(
        lambda s: transforms.Sum(s.channels, s.width, net_factory=VECTOR),
        data=lambda s: normal(s.rows, s.channels * s.width),
        axes=WIDE,
    ),
    "Unfold": image(lambda s: transforms.Unfold(s.image, 2)),
    "FoldSum": image(
        lambda s: transforms.FoldSum((s.channels, s.height + 1, s.width + 1), 2, net_factory=IMAGE),
        data=lambda s: normal(s.rows, 4 * s.channels, s.height, s.width),
    ),
    "FreeLinear": vector(lambda s: transforms.surjections.fibre.FreeLinear(s.channels, s.channels)),
    "FreeLinear reducing image": image(lambda s: lk.linear(s.channels, 1, method="free", dims=2), scale=0.1),
    "FreeLinear increasing": vector(lambda s: lk.linear(s.channels, s.channels + s.width, method="free"), axes=WIDE),
    "linear": vector(lambda s: lk.linear(s.channels, s.channels)),
    "linear exponential reducing": vector(lambda s: lk.linear(s.channels, 1, method="exponential", net_factory=VECTOR)),
    "linear householder image": image(lambda s: lk.linear(s.channels, 1, method="householder", net_factory=IMAGE)),
    "linear increasing": vector(
        lambda s: lk.linear(s.channels, s.channels + s.width, posterior_factory=VECTOR), axes=WIDE
    ),
    "convolution": image(
        lambda s: lk.convolution(s.image, s.features, 2, padding=1, net_factory=IMAGE), scale=0.1, axes=ALL
    ),
    "transposed_convolution": image(
        lambda s: transforms.transposed_convolution(s.image, s.features, 2, stride=2, net_factory=IMAGE),
        scale=0.1,
        axes=ALL,
    ),
    "max_pool": image(lambda s: lk.max_pool(s.image, 2, net_factory=IMAGE)),
    "average_pool": image(lambda s: transforms.average_pool(s.image, 2, net_factory=IMAGE)),
    "global_average_pool": image(lambda s: transforms.global_average_pool(s.image, net_factory=IMAGE)),
    "global_max_pool": image(lambda s: transforms.global_max_pool(s.image)),
    "upsample_nearest": image(lambda s: transforms.upsample_nearest(s.image, 2)),
    "ELU": image(lambda s: transforms.ELU()),
    "Abs": vector(lambda s: transforms.Abs(_noisy_net(s, 1))),
    "LeakyReLU": image(lambda s: lk.LeakyReLU(0.3)),
    "NoisyReLU": vector(lambda s: transforms.NoisyReLU(net=_noisy_net(s, 4))),
    "PReLU": image(lambda s: transforms.PReLU(s.channels)),
    "ReLU": vector(lambda s: transforms.ReLU(_noisy_net(s, 1))),
    "Parallel": vector(
        lambda s: transforms.Parallel([None, lk.Conv1x1(s.channels - 1)], [1, s.channels - 1], [1, s.channels - 1])
    ),
    "concat": vector(lambda s: transforms.concat([None, lk.Conv1x1(s.channels)], (s.channels,))),
    "residual": image(lambda s: lk.residual(lk.Conv1x1(s.channels), s.image, net_factory=IMAGE)),
    "LatentVariable": vector(_latent, axes=WIDE),
    "LatentVariable condition": reading(vector(lambda s: _latent(s, s.features), axes=WIDE)),
    "LatentVariable nodes": nodes(_latent, axes=WIDE),
}


def _sets(s: Sizes) -> lk.GraphBatch:
    """One point alone, and a set of all others."""
    return lk.GraphBatch.complete([1, s.rows - 1])


SETS = {
    "NodeOrder": vector(lambda s: transforms.NodeOrder(s.channels, "feature"), graphs=_sets),
    "Centre": nodes(lambda s: transforms.Centre(s.channels, centre="normal")),
    "ContinuousFlow": nodes(
        lambda s: transforms.ContinuousFlow(nets.SetVelocity(s.channels, width=2, heads=1, frequencies=0, times=0)),
        scale=0.002,
    ),
}
SIZED = BIJECTIONS | SETS | EXPONENTIALS | SOLVED | SURJECTIONS

# Public names of transforms that make no layer of their own: contracts, what layers are built from, other methods.
NO_LAYERS = {
    # Its rows are those of a table of any kinds of columns, and its latent has no derivative.
    "MixedColumns",
    # Its images are whole numbers; sizes of its own are in tests/transforms/levels.
    "LevelPyramid",
    "Transform",
    "Composite",
    "AffineBijector",
    "SplineBijector",
    "ChainBijector",
    "LevelBijector",
    "ChannelSplit",
    "MaskSplit",
    "ScalarResidual",
    "TanhResidual",
    "FreeTanhResidual",
    "TriangularSolution",
    "ResidualSolution",
    "Inversion",
    "InverseCheck",
    "InverseReport",
    "unchecked",
    "matching_layer",
    "matching_losses",
    "solver_error",
    "with_steps",
    "with_log_det",
}
# Layers that a function of `SIZED` builds, and functions that build one of it.
BUILT = {"Cayley", "Householder", "celu", "selu"}
