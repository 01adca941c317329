"""Every law over every case; those of batches, derivatives and threads are beside it."""

import importlib
import inspect
import pkgutil

import pytest
import torch

import likelify as lk
from likelify import testing, transforms
from likelify.linalg import maps
from likelify.transforms.core import Transform
from tests.cases import LAYERS, MAPS, SIZED

# How many cases the laws run on: a law that is tested on nothing holds.
COUNTS = {"maps": 49, "layers": 276, "sizes": 152, "coincidences": 1765}
DISCRETE = {transforms.MixedColumns, transforms.LevelPyramid}


def test_the_laws_run_on_as_many_cases_as_they_say():
    coincidences = sum(len(case.coincidences()) for case in SIZED.values())
    found = {"maps": len(MAPS), "layers": len(LAYERS), "sizes": len(SIZED), "coincidences": coincidences}
    assert found == COUNTS


@pytest.mark.parametrize("name", MAPS)
def test_map_laws(name, device):
    testing.check_linear_map(*MAPS[name].ready(device))


@pytest.mark.parametrize("name", MAPS)
def test_exponential_laws(name, device):
    testing.check_exponential(*MAPS[name].ready(device))


@pytest.mark.parametrize("name", LAYERS)
def test_layer_laws(name, device):
    case = LAYERS[name]
    if case.near_identity:
        testing.check_transform(*case.ready("fresh", device=device), near_identity=True)
    testing.check_transform(*case.ready(device=device), positive=case.covers is lk.Exponential)


@pytest.mark.parametrize("name", LAYERS)
def test_a_fresh_layer_that_loads_the_state_is_the_same(name, device):
    case = LAYERS[name]
    layer, x, context = case.ready(device=device)

    def build():
        with torch.device(device):
            return case.build()

    testing.check_saving(build, layer, x, context, tol=0.0 if device == "cpu" else 1e-9)


@pytest.mark.parametrize("name", LAYERS)
def test_round_trip_in_float32(name, device):
    layer, x, context = LAYERS[name].ready(dtype=torch.float32, scale=0.1, device=device)
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
    # Of states and levels there is no derivative and no determinant; their own tests and those of mass are in
    # tests/transforms/tables and tests/transforms/levels.
    assert defined(Transform) - DISCRETE == {case.covers for case in LAYERS.values()}


def test_every_layer_that_does_not_look_at_shapes_has_a_case_on_graphs():
    look_at_shapes = {lk.FittedMarginal, lk.Squeeze, lk.Flatten, lk.Reshape}
    look_at_shapes |= {transforms.AutoregressiveConv, transforms.CircularConv, transforms.PermuteAxes}
    look_at_shapes |= {
        transforms.Unfold,
        transforms.FoldSum,
        transforms.Pad,
        transforms.Crop,
        transforms.LinearPrediction,
    }
    on_graphs = {case.covers for name, case in LAYERS.items() if "graphs" in name}
    assert defined(Transform) - look_at_shapes - DISCRETE == on_graphs
