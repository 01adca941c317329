"""Every law over every case."""

import inspect

import pytest
import torch

import likelify as lk
from likelify import testing
from likelify.linalg import maps
from likelify.transforms.core import Transform
from tests.cases import LAYERS, MAPS


@pytest.mark.parametrize("name", MAPS)
def test_map_laws(name):
    case = MAPS[name]
    testing.check_linear_map(case.build(), torch.randn(3, *case.shape, dtype=torch.float64))


@pytest.mark.parametrize("name", MAPS)
def test_exponential_laws(name):
    case = MAPS[name]
    testing.check_exponential(case.build(), torch.randn(3, *case.shape, dtype=torch.float64))


@pytest.mark.parametrize("name", LAYERS)
def test_layer_laws(name):
    case = LAYERS[name]
    layer = case.build().double()
    if case.near_identity:
        testing.check_transform(case.build().double(), case.data(), case.context(), near_identity=True)
    testing.randomize(layer, scale=case.scale)
    testing.check_transform(layer, case.data(), case.context())


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
    if layer.random_inverse:
        back, x = layer(back, context)[0], z
    assert float((back - x).abs().max()) < 1e-4


def public(kind):
    found = [getattr(lk, name) for name in lk.__all__]
    return {c for c in found if inspect.isclass(c) and issubclass(c, kind) and not inspect.isabstract(c)}


def test_every_public_map_has_a_case():
    algebra = {maps.Scaled, maps.Sum, maps.Composed}
    assert (public(maps.LinearMap) | algebra) - {maps.LinearMap} == {case.covers for case in MAPS.values()}


def test_every_public_layer_has_a_case():
    assert public(Transform) - {Transform} == {case.covers for case in LAYERS.values()}


def test_every_layer_that_does_not_look_at_shapes_has_a_case_on_graphs():
    look_at_shapes = {lk.FittedMarginal, lk.Squeeze, lk.Flatten, lk.Reshape}
    on_graphs = {case.covers for name, case in LAYERS.items() if "graphs" in name}
    assert public(Transform) - {Transform} - look_at_shapes == on_graphs
