"""The optimizer of a fit: what has weight decay."""

import torch

import likelify as lk
from likelify import zoo
from likelify.fitting.settings import FitSettings
from likelify.fitting.training import build_optimizer


def decayed(flow):
    optimizer = build_optimizer(flow, FitSettings(weight_decay=0.5))
    found = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(flow.parameters()))
    return {name for name, parameter in flow.named_parameters() if id(parameter) in found}


def test_means_and_scales_of_a_base_have_no_weight_decay():
    with torch.device("meta"):
        flow = zoo.build("glow", event_shape=(3, 8, 8), pixel_levels=256, levels=2, steps=1, hidden=4)
    shapes = {name: tuple(parameter.shape) for name, parameter in flow.named_parameters()}
    names = decayed(flow)
    assert names
    assert "base.loc" in shapes
    assert all(sum(size > 1 for size in shapes[name]) >= 2 for name in names)
    assert all(sum(size > 1 for size in shapes[name]) < 2 for name in shapes.keys() - names)


def test_kernels_have_weight_decay_and_vectors_with_axes_of_one_have_none():
    layers = lk.Chain([lk.ActNorm(3), lk.conv_exponential(3)])
    flow = lk.Flow(lk.Normal((3, 1, 1), trainable=True), layers)
    assert decayed(flow) == {"transform.transforms.1.parametrization.weight"}
