"""Cases of mixing layers."""

import torch

import likelify as lk
from likelify import transforms
from tests.cases.common import LayerCase, normal, on_graphs

LAYERS: dict[str, LayerCase] = {
    "two-conv1x1": LayerCase(lambda: transforms.two_conv1x1(3), lambda: normal(2, 3, 2, 3), lk.Chain),
    "householder": LayerCase(
        lambda: lk.rotation(4, method="householder"), lambda: normal(3, 4), transforms.Householder
    ),
    "householder-image": LayerCase(
        lambda: lk.rotation(3, method="householder", reflections=5), lambda: normal(2, 3, 2, 3), transforms.Householder
    ),
    "householder-one-sequence": LayerCase(
        lambda: lk.rotation(4, method="householder", reflections=1), lambda: normal(2, 4, 3), transforms.Householder
    ),
    "householder-start": LayerCase(
        lambda: lk.rotation(3, method="householder", start=torch.eye(3, dtype=torch.float64)),
        lambda: normal(3, 3),
        lk.Chain,
        near_identity=True,
    ),
    "householder-graphs": LayerCase(
        lambda: lk.rotation(3, method="householder", reflections=2),
        lambda: normal(5, 3),
        transforms.Householder,
        on_graphs,
    ),
    "householder-condition-graphs": LayerCase(
        lambda: lk.rotation(3, method="householder", context_features=2),
        lambda: normal(5, 3),
        transforms.Householder,
        lambda: on_graphs(condition=True),
    ),
    "householder-condition-image": LayerCase(
        lambda: lk.rotation(3, method="householder", reflections=4, context_features=2),
        lambda: normal(2, 3, 4, 3),
        transforms.Householder,
        lambda: normal(2, 2),
    ),
    "autoregressive-conv": LayerCase(
        lambda: transforms.AutoregressiveConv(2), lambda: normal(2, 2, 3, 4), transforms.AutoregressiveConv
    ),
    "autoregressive-conv-reverse": LayerCase(
        lambda: transforms.AutoregressiveConv(2, 3, reverse=True),
        lambda: normal(2, 2, 4, 3),
        transforms.AutoregressiveConv,
    ),
    "emerging-conv": LayerCase(lambda: lk.emerging_conv(2), lambda: normal(2, 2, 4, 3), lk.Chain),
    "emerging-conv-wide": LayerCase(lambda: lk.emerging_conv(2, (3, 5)), lambda: normal(2, 2, 3, 4), lk.Chain),
    "woodbury": LayerCase(
        lambda: transforms.Woodbury(3, (2, 3), channel_rank=2, spatial_rank=2),
        lambda: normal(2, 3, 2, 3),
        transforms.Woodbury,
        near_identity=True,
    ),
    "woodbury-channels-graphs": LayerCase(
        lambda: transforms.Woodbury(3, channel_rank=1), lambda: normal(5, 3), transforms.Woodbury, on_graphs
    ),
    "woodbury-conv": LayerCase(lambda: lk.woodbury_conv(2, (3, 3), rank=4), lambda: normal(2, 2, 3, 3), lk.Chain),
    "periodic-conv": LayerCase(
        lambda: lk.transforms.periodic_conv(2),
        lambda: normal(2, 2, 4, 3),
        transforms.CircularConv,
        near_identity=True,
        scale=0.1,
    ),
    "periodic-conv-even-wrapping": LayerCase(
        lambda: lk.transforms.periodic_conv(2, (5, 7)), lambda: normal(2, 2, 3, 4), transforms.CircularConv, scale=0.1
    ),
    "periodic-conv-sequence": LayerCase(
        lambda: lk.transforms.periodic_conv(3, dims=1), lambda: normal(2, 3, 5), transforms.CircularConv, scale=0.1
    ),
    "periodic-conv-volume": LayerCase(
        lambda: lk.transforms.periodic_conv(2, dims=3),
        lambda: normal(2, 2, 2, 3, 2),
        transforms.CircularConv,
        scale=0.1,
    ),
}
