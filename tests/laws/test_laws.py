"""Every law over every case."""

import importlib
import inspect
import pkgutil

import pytest
import torch

import likelify as lk
from likelify import testing, transforms
from likelify.linalg import maps
from likelify.transforms.core import Transform
from tests.cases import LAYERS, MAPS


@pytest.mark.parametrize("name", MAPS)
def test_map_laws(name):
    case = MAPS[name]
    testing.check_linear_map(case.build(), torch.randn(case.rows, *case.shape, dtype=torch.float64))


@pytest.mark.parametrize("name", MAPS)
def test_exponential_laws(name):
    case = MAPS[name]
    testing.check_exponential(case.build(), torch.randn(case.rows, *case.shape, dtype=torch.float64))


@pytest.mark.parametrize("name", LAYERS)
def test_layer_laws(name):
    case = LAYERS[name]
    layer = case.build().double()
    if case.near_identity:
        testing.check_transform(case.build().double(), case.data(), case.context(), near_identity=True)
    testing.randomize(layer, scale=case.scale)
    testing.check_transform(layer, case.data(), case.context(), positive=case.covers is lk.Exponential)


@pytest.mark.parametrize("name", LAYERS)
def test_round_trip_in_float32(name):
    case = LAYERS[name]
    layer = testing.randomize(case.build().float(), scale=0.1)
    x, context = case.data(), case.context()
    x = x.float() if x.is_floating_point() else x
    if context is not None:
        context = lk.structure.as_context(context)
        condition = None if context.condition is None else context.condition.float()
        context = lk.Context(condition, context.structure)
    with torch.no_grad():
        z, contribution = layer(x, context)
        back, _ = layer.inverse(z, context)
    assert z.dtype == contribution.dtype == torch.float32
    if layer.random_forward and layer.random_inverse:
        return
    if layer.random_inverse:
        back, x = layer(back, context)[0].detach(), z
    assert float((back - x).abs().max()) < 1e-4


def defined(kind):
    """All classes of a kind that the library defines, exported or not, but for what several have in common."""
    for module in pkgutil.walk_packages(lk.__path__, "likelify."):
        importlib.import_module(module.name)
    found, open_ = set(), [kind]
    while open_:
        subclasses = open_.pop().__subclasses__()
        open_ += subclasses
        found |= {c for c in subclasses if c.__module__.startswith("likelify.") and not inspect.isabstract(c)}
    return {c for c in found if not (c.__name__.startswith("_") and c.__subclasses__())}


def test_every_map_has_a_case():
    assert defined(maps.LinearMap) == {case.covers for case in MAPS.values()}


def test_every_layer_has_a_case():
    assert defined(Transform) == {case.covers for case in LAYERS.values()}


def test_every_layer_that_does_not_look_at_shapes_has_a_case_on_graphs():
    look_at_shapes = {lk.FittedMarginal, lk.Squeeze, lk.Flatten, lk.Reshape}
    look_at_shapes |= {transforms.AutoregressiveConv, transforms.CircularConv, transforms.PermuteAxes}
    look_at_shapes |= {transforms.Unfold, transforms.FoldSum, transforms.Pad, transforms.Crop}
    on_graphs = {case.covers for name, case in LAYERS.items() if "graphs" in name}
    assert defined(Transform) - look_at_shapes == on_graphs
