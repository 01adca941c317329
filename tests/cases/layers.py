"""Cases of layers that have no file of their own."""

from typing import Any

import torch

import likelify as lk
from likelify import linalg, nets, transforms
from tests.cases.common import LayerCase, integers, normal, on_graphs, undirected, unit


def _mlp_coupling(bijector: Any, context: int = 0) -> lk.Coupling:
    split = lk.ChannelSplit(5, swap=True)
    net = nets.MLP(split.sizes[0], bijector.size * split.sizes[1], (8,), context_features=context, dropout=0.2)
    return lk.Coupling(split, bijector, net)


def _conv_coupling(net: type, bijector: Any, context: int = 0) -> lk.Coupling:
    split = lk.ChannelSplit(4)
    extra = {"depth": 2, "growth": 3} if net is nets.DenseConvBlock else {"blocks": 1}
    return lk.Coupling(split, bijector, net(2, 2 * bijector.size, 6, context_features=context, **extra))


def _noise() -> lk.Flow:
    split = lk.ChannelSplit(4)
    net = nets.ResidualConvNet(2, 4, 6, context_features=3)
    layers = lk.Chain([lk.Logit(), lk.Squeeze(), lk.Coupling(split, lk.AffineBijector(), net)])
    return lk.Flow(lk.Normal((4, 2, 2)), layers, encoder=nets.ImageEncoder(1, 3), event_shape=(1, 4, 4))


def _marginal() -> lk.FittedMarginal:
    layer = lk.FittedMarginal((1, 3, 2), 5)
    layer.initialize(integers(40, 1, 3, 2, levels=5) + 0.5)
    return layer


def _columns() -> transforms.Columns:
    layer = transforms.Columns(3)
    layer.initialize(2 + normal(40, 3) * torch.tensor([0.1, 1.0, 30.0]))
    return layer


def _autoregressive(features: int, bijector: Any, context_features: int = 0) -> transforms.Autoregressive:
    heads = {"heads": bijector.size, "small_heads": bijector.size}
    net = nets.AutoregressiveNet(features, dims=0, hidden=8, context_features=context_features, **heads)
    return transforms.Autoregressive(features, bijector, net)


def _kernel_marginal(cells: int = 63, **ranges: object) -> transforms.KernelMarginal:
    layer = transforms.KernelMarginal(3, cells=cells, **ranges)
    layer.initialize(0.5 + unit(40, 3) * torch.tensor([0.1, 1.0, 30.0]))
    return layer


def _in_ranges(rows: int) -> torch.Tensor:
    return 0.5 + unit(rows, 3) * torch.tensor([0.1, 1.0, 30.0])


def _prediction(channels: int, length: int, rows: int = 60, *, predict: bool = True) -> transforms.LinearPrediction:
    layer = transforms.LinearPrediction((channels, length), predict=predict)
    scales = torch.tensor([0.1, 1.0, 30.0])[:channels, None]
    layer.initialize(2 + normal(rows, channels, length).cumsum(2) * scales)
    return layer


def _prior(context: int = 0) -> lk.ConditionalNormal:
    return lk.ConditionalNormal(nets.MLP(2 + context, 6, (8,)))


LAYERS: dict[str, LayerCase] = {
    "affine": LayerCase(lambda: lk.Affine(shift=0.5, scale=-2.0), lambda: normal(3, 4), lk.Affine),
    "affine-graphs": LayerCase(lambda: lk.Affine(shift=0.5, scale=-2.0), lambda: normal(5, 3), lk.Affine, on_graphs),
    "actnorm": LayerCase(lambda: lk.ActNorm(3), lambda: normal(3, 3, 2, 2), lk.ActNorm, near_identity=True),
    "actnorm-graphs": LayerCase(lambda: lk.ActNorm(3), lambda: normal(5, 3), lk.ActNorm, on_graphs),
    "logit": LayerCase(lambda: lk.Logit(), lambda: unit(3, 4), lk.Logit),
    "logit-alpha-graphs": LayerCase(lambda: lk.Logit(0.05), lambda: unit(5, 4), lk.Logit, on_graphs),
    "sigmoid": LayerCase(transforms.Sigmoid, lambda: normal(3, 4), transforms.Sigmoid),
    "sigmoid-graphs": LayerCase(transforms.Sigmoid, lambda: normal(5, 4), transforms.Sigmoid, on_graphs),
    "tanh": LayerCase(transforms.Tanh, lambda: normal(3, 4), transforms.Tanh),
    "tanh-graphs": LayerCase(transforms.Tanh, lambda: normal(5, 2), transforms.Tanh, on_graphs),
    "softplus": LayerCase(transforms.Softplus, lambda: 3 * normal(3, 4), transforms.Softplus),
    "softplus-graphs": LayerCase(transforms.Softplus, lambda: normal(5, 2), transforms.Softplus, on_graphs),
    "channel-spline": LayerCase(
        lambda: lk.ChannelSpline(3, bins=4, interval=2.0),
        lambda: normal(4, 3, 2),
        lk.ChannelSpline,
        near_identity=True,
    ),
    "channel-spline-graphs": LayerCase(
        lambda: lk.ChannelSpline(3, bins=4), lambda: normal(5, 3), lk.ChannelSpline, on_graphs
    ),
    "fitted-marginal": LayerCase(
        _marginal, lambda: integers(3, 1, 3, 2, levels=5) + unit(3, 1, 3, 2), lk.FittedMarginal
    ),
    "kernel-marginal": LayerCase(_kernel_marginal, lambda: 3 * normal(4, 3), transforms.KernelMarginal),
    "kernel-marginal-graphs": LayerCase(_kernel_marginal, lambda: _in_ranges(5), transforms.KernelMarginal, on_graphs),
    "kernel-marginal-declared": LayerCase(
        lambda: _kernel_marginal(lower=0.5, upper=[None, 2.0, 40.0]), lambda: _in_ranges(4), transforms.KernelMarginal
    ),
    "kernel-marginal-found": LayerCase(
        lambda: _kernel_marginal(lower=0.5, declared=False), lambda: _in_ranges(4), transforms.KernelMarginal
    ),
    "columns": LayerCase(_columns, lambda: 3 * normal(4, 3), transforms.Columns),
    "columns-graphs": LayerCase(_columns, lambda: 3 * normal(5, 3), transforms.Columns, on_graphs),
    "linear-prediction": LayerCase(lambda: _prediction(2, 4), lambda: 3 * normal(4, 2, 4), transforms.LinearPrediction),
    "linear-prediction-one-channel": LayerCase(
        lambda: _prediction(1, 5), lambda: 3 * normal(4, 1, 5), transforms.LinearPrediction
    ),
    "linear-prediction-none": LayerCase(
        lambda: _prediction(2, 4, predict=False), lambda: 3 * normal(4, 2, 4), transforms.LinearPrediction
    ),
    "autoregressive-spline": LayerCase(
        lambda: _autoregressive(3, lk.transforms.SplineBijector(4, 3.0)),
        lambda: normal(4, 3),
        transforms.Autoregressive,
    ),
    "autoregressive-affine-condition": LayerCase(
        lambda: _autoregressive(3, lk.transforms.AffineBijector(), context_features=2),
        lambda: normal(4, 3),
        transforms.Autoregressive,
        lambda: normal(4, 2),
    ),
    "autoregressive-affine-graphs": LayerCase(
        lambda: _autoregressive(3, lk.transforms.AffineBijector()),
        lambda: normal(5, 3),
        transforms.Autoregressive,
        on_graphs,
    ),
    "conv1x1-image": LayerCase(lambda: lk.Conv1x1(3), lambda: normal(2, 3, 2, 3), lk.Conv1x1),
    "conv1x1-vector": LayerCase(lambda: lk.Conv1x1(4), lambda: normal(3, 4), lk.Conv1x1),
    "conv1x1-graphs": LayerCase(lambda: lk.Conv1x1(3), lambda: normal(5, 3), lk.Conv1x1, on_graphs),
    "exponential-fixed": LayerCase(
        lambda: lk.Exponential(0.5 * lk.Dense(normal(3, 3))), lambda: normal(3, 3), lk.Exponential
    ),
    "exponential-fixed-graphs": LayerCase(
        lambda: lk.Exponential(lk.Dense(0.5 * normal(3, 3))), lambda: normal(5, 3), lk.Exponential, on_graphs
    ),
    "conv-exponential": LayerCase(
        lambda: lk.conv_exponential(2), lambda: normal(2, 2, 4, 3), lk.Exponential, near_identity=True
    ),
    "conv-exponential-torus": LayerCase(
        lambda: lk.conv_exponential(2, 5, norm_bound="torus", norm_limit=0.9),
        lambda: normal(2, 2, 4, 3),
        lk.Exponential,
    ),
    "conv-exponential-free": LayerCase(
        lambda: lk.conv_exponential(2, norm_limit=None), lambda: normal(2, 2, 3, 3), lk.Exponential
    ),
    "conv-exponential-sequence": LayerCase(
        lambda: lk.conv_exponential(3, 5, dims=1, padding="circular"), lambda: normal(2, 3, 6), lk.Exponential
    ),
    "conv-exponential-volume": LayerCase(
        lambda: lk.conv_exponential(2, dims=3, groups=2), lambda: normal(2, 2, 2, 3, 2), lk.Exponential
    ),
    "conv-exponential-reflect": LayerCase(
        lambda: lk.conv_exponential(2, padding="reflect"), lambda: normal(2, 2, 4, 3), lk.Exponential
    ),
    "conv-exponential-condition": LayerCase(
        lambda: lk.conv_exponential(2, context_features=3),
        lambda: normal(2, 2, 3, 4),
        lk.Exponential,
        lambda: normal(2, 3),
        near_identity=True,
    ),
    "conv-exponential-recompute": LayerCase(
        lambda: lk.conv_exponential(2, gradient=linalg.Recompute()), lambda: normal(2, 2, 4, 3), lk.Exponential
    ),
    "orthogonal-convolution": LayerCase(
        lambda: lk.orthogonal_convolution(2), lambda: normal(2, 2, 4, 3), lk.Exponential, near_identity=True
    ),
    "orthogonal-convolution-condition": LayerCase(
        lambda: lk.orthogonal_convolution(2, norm_limit=2.0, padding="circular", context_features=2),
        lambda: normal(2, 2, 4, 3),
        lk.Exponential,
        lambda: normal(2, 2),
    ),
    "axis-exponential": LayerCase(
        lambda: lk.axis_exponential(2, positions=(4, 3)),
        lambda: normal(2, 2, 4, 3),
        lk.Exponential,
        near_identity=True,
    ),
    "axis-exponential-orthogonal-sequence": LayerCase(
        lambda: lk.axis_exponential(4, 5, dims=1, groups=2, orthogonal=True, norm_limit=None),
        lambda: normal(2, 4, 5),
        lk.Exponential,
    ),
    "axis-exponential-channels-volume": LayerCase(
        lambda: lk.axis_exponential(4, 3, dims=3, groups=2, channel_factor=True, centre_taps=True),
        lambda: normal(2, 4, 2, 3, 2),
        lk.Exponential,
    ),
    "axis-exponential-condition": LayerCase(
        lambda: lk.axis_exponential(2, 3, groups=1, centre_taps=True, context_features=2),
        lambda: normal(2, 2, 3, 4),
        lk.Exponential,
        lambda: normal(2, 2),
        near_identity=True,
    ),
    "dense-exponential": LayerCase(
        lambda: lk.dense_exponential(3, norm_limit=1.0), lambda: normal(2, 3, 2, 2), lk.Exponential, near_identity=True
    ),
    "dense-exponential-condition-graphs": LayerCase(
        lambda: lk.dense_exponential(3, context_features=2),
        lambda: normal(5, 3),
        lk.Exponential,
        lambda: on_graphs(condition=True),
    ),
    "graph-exponential-graphs": LayerCase(
        lambda: lk.graph_exponential(2), lambda: normal(5, 2), lk.Exponential, undirected, near_identity=True
    ),
    "graph-exponential-rule-graphs": LayerCase(
        lambda: lk.graph_exponential(2, neighbours=2), lambda: normal(5, 2), lk.Exponential, undirected
    ),
    "graph-exponential-complete-graphs": LayerCase(
        lambda: lk.graph_exponential(2),
        lambda: normal(5, 2),
        lk.Exponential,
        lambda: lk.Context(structure=lk.GraphBatch.complete([2, 3])),
    ),
    "rotation-equivariant": LayerCase(
        lambda: transforms.equivariant_exponential(4, "rotations"), lambda: normal(2, 4, 3, 3), lk.Exponential
    ),
    "rotation-equivariant-condition": LayerCase(
        lambda: transforms.equivariant_exponential(4, "rotations", context_features=2),
        lambda: normal(2, 4, 3, 3),
        lk.Exponential,
        lambda: normal(2, 2),
    ),
    "set-exponential": LayerCase(
        lambda: transforms.equivariant_exponential(2, "sets"),
        lambda: normal(2, 2, 4),
        lk.Exponential,
        near_identity=True,
    ),
    "set-exponential-condition": LayerCase(
        lambda: transforms.equivariant_exponential(2, "sets", context_features=2),
        lambda: normal(2, 2, 4),
        lk.Exponential,
        lambda: normal(2, 2),
    ),
    "pair-exponential": LayerCase(
        lambda: transforms.equivariant_exponential(2, "pairs"),
        lambda: normal(2, 2, 3, 3),
        lk.Exponential,
        near_identity=True,
        scale=0.05,
    ),
    "linear-exponential": LayerCase(
        lambda: lk.linear_exponential(torch.nn.Linear(4, 4, bias=False)), lambda: normal(2, 4), lk.Exponential
    ),
    "linear-exponential-recompute": LayerCase(
        lambda: lk.linear_exponential(torch.nn.Conv1d(2, 2, 3, padding=1, bias=False), gradient=linalg.Recompute()),
        lambda: normal(2, 2, 3),
        lk.Exponential,
    ),
    "rotation": LayerCase(lambda: lk.rotation(4), lambda: normal(3, 4), lk.Exponential, near_identity=True),
    "rotation-condition-graphs": LayerCase(
        lambda: lk.rotation(4, context_features=2),
        lambda: normal(5, 4),
        lk.Exponential,
        lambda: on_graphs(condition=True),
    ),
    "cayley": LayerCase(lambda: lk.rotation(4, method="cayley"), lambda: normal(3, 4, 2), transforms.Cayley),
    "cayley-condition-graphs": LayerCase(
        lambda: lk.rotation(3, method="cayley", context_features=2),
        lambda: normal(5, 3),
        transforms.Cayley,
        lambda: on_graphs(condition=True),
    ),
    "orthogonal": LayerCase(
        lambda: transforms.Orthogonal(torch.linalg.qr(normal(3, 3))[0]),
        lambda: normal(2, 3, 2),
        transforms.Orthogonal,
    ),
    "orthogonal-graphs": LayerCase(
        lambda: transforms.Orthogonal.signs([1, -1]), lambda: normal(5, 2), transforms.Orthogonal, on_graphs
    ),
    "squeeze": LayerCase(lambda: lk.Squeeze(), lambda: normal(2, 2, 4, 2), lk.Squeeze),
    "flatten": LayerCase(lambda: lk.Flatten((2, 3)), lambda: normal(2, 2, 3), lk.Flatten),
    "reshape": LayerCase(lambda: lk.Reshape((6,), (2, 3)), lambda: normal(2, 6), lk.Reshape),
    "permute": LayerCase(lambda: lk.Permute([2, 0, 1]), lambda: normal(2, 3, 2), lk.Permute),
    "permute-graphs": LayerCase(lambda: lk.Permute([2, 0, 1]), lambda: normal(5, 3), lk.Permute, on_graphs),
    "flip": LayerCase(lambda: transforms.Flip(), lambda: normal(2, 3, 2, 3), transforms.Flip),
    "flip-channels-graphs": LayerCase(lambda: transforms.Flip((1,)), lambda: normal(5, 3), transforms.Flip, on_graphs),
    "coupling-levels": LayerCase(
        lambda: _mlp_coupling(transforms.LevelBijector(5, 2)), lambda: 5 * unit(3, 5), lk.Coupling
    ),
    "coupling-affine-vector": LayerCase(lambda: _mlp_coupling(lk.AffineBijector()), lambda: normal(3, 5), lk.Coupling),
    "coupling-affine-graphs": LayerCase(
        lambda: _mlp_coupling(lk.AffineBijector()), lambda: normal(5, 5), lk.Coupling, on_graphs
    ),
    "coupling-spline-condition": LayerCase(
        lambda: _mlp_coupling(lk.SplineBijector(4, 2.0), 2),
        lambda: normal(3, 5),
        lk.Coupling,
        lambda: normal(3, 2),
    ),
    "coupling-spline-graphs-condition": LayerCase(
        lambda: _mlp_coupling(lk.SplineBijector(4, 2.0), 2),
        lambda: normal(5, 5),
        lk.Coupling,
        lambda: on_graphs(condition=True),
    ),
    "coupling-affine-residual-net": LayerCase(
        lambda: _conv_coupling(nets.ResidualConvNet, lk.AffineBijector(), 2),
        lambda: normal(2, 4, 3, 2),
        lk.Coupling,
        lambda: normal(2, 2),
    ),
    "coupling-spline-dense-net": LayerCase(
        lambda: _conv_coupling(nets.DenseConvBlock, lk.SplineBijector(3, 3.0)),
        lambda: normal(2, 4, 3, 2),
        lk.Coupling,
    ),
    "coupling-spline-mask": LayerCase(
        lambda: lk.Coupling(lk.MaskSplit(torch.eye(3)[None]), lk.SplineBijector(4, 2.0), nets.MLP(3, 6 * 11, (8,))),
        lambda: normal(2, 1, 3, 3),
        lk.Coupling,
    ),
    "slice": LayerCase(lambda: lk.Slice(2, _prior()), lambda: normal(3, 5), lk.Slice),
    "slice-condition": LayerCase(lambda: lk.Slice(2, _prior(2)), lambda: normal(3, 5), lk.Slice, lambda: normal(3, 2)),
    "slice-graphs": LayerCase(lambda: lk.Slice(2, _prior()), lambda: normal(5, 5), lk.Slice, on_graphs),
    "slice-image-flow": LayerCase(
        lambda: lk.Slice(1, lk.Flow(lk.Normal((2, 2, 2)), lk.ActNorm(2))),
        lambda: normal(3, 3, 2, 2),
        lk.Slice,
    ),
    "colour": LayerCase(lambda: transforms.YCoCgR(9), lambda: integers(3, 3, 2, 2, levels=9), transforms.YCoCgR),
    "colour-wider": LayerCase(
        lambda: transforms.YCoCgR(6, wrap=False), lambda: integers(3, 3, 2, levels=6), transforms.YCoCgR
    ),
    "colour-graphs": LayerCase(
        lambda: transforms.YCoCgR(9), lambda: integers(5, 3, levels=9), transforms.YCoCgR, on_graphs
    ),
    "dequantize": LayerCase(lambda: lk.Dequantize(5), lambda: integers(3, 1, 4, 4, levels=5), lk.Dequantize),
    "dequantize-graphs": LayerCase(
        lambda: lk.Dequantize(5), lambda: integers(5, 3, levels=5), lk.Dequantize, on_graphs
    ),
    "dequantize-flow": LayerCase(
        lambda: lk.Dequantize(5, _noise()), lambda: integers(3, 1, 4, 4, levels=5), lk.Dequantize
    ),
    "chain": LayerCase(
        lambda: lk.Chain([lk.ActNorm(4), lk.Conv1x1(4), lk.Squeeze(), lk.Flatten((16, 1, 2))]),
        lambda: normal(2, 4, 2, 4),
        lk.Chain,
    ),
    "chain-graphs": LayerCase(
        lambda: lk.Chain([lk.ActNorm(5), _mlp_coupling(lk.AffineBijector()), lk.Conv1x1(5)]),
        lambda: normal(5, 5),
        lk.Chain,
        on_graphs,
    ),
    "inverse": LayerCase(lambda: lk.Inverse(lk.Conv1x1(3)), lambda: normal(3, 3), lk.Inverse),
    "inverse-graphs": LayerCase(lambda: lk.Inverse(lk.ActNorm(3)), lambda: normal(5, 3), lk.Inverse, on_graphs),
    "conjugate": LayerCase(
        lambda: lk.Conjugate(lk.conv_exponential(4), _conv_coupling(nets.ResidualConvNet, lk.AffineBijector())),
        lambda: normal(2, 4, 2, 2),
        lk.Conjugate,
    ),
    "conjugate-nonlinear": LayerCase(
        lambda: lk.Conjugate(lk.Chain([lk.ActNorm(5), transforms.Softplus()]), lk.Affine(scale=2.0)),
        lambda: 1 + normal(3, 5),
        lk.Conjugate,
    ),
    "conjugate-graphs": LayerCase(
        lambda: lk.Conjugate(lk.Conv1x1(5), _mlp_coupling(lk.SplineBijector(4, 2.0))),
        lambda: normal(5, 5),
        lk.Conjugate,
        on_graphs,
    ),
}
