"""Images of any height and width in the multi-scale models, and what is said of it."""

import pytest
import torch

import likelify as lk
from likelify import zoo
from likelify.errors import ShapeError
from likelify.testing import randomize
from likelify.transforms import Crop, Squeeze
from likelify.zoo.halving import halvings

SHAPES = [(1, 1, 1), (3, 1, 1), (1, 1, 2), (1, 1, 7), (2, 9, 1), (1, 5, 7), (3, 6, 6)]
MODELS = {
    "pyramid": {"width": 6, "head": 4},
    "pyramid, shared": {"width": 6, "head": 4, "networks": "shared"},
    "glow": {"hidden": 6, "steps": 1},
    "marginal-spline": {"hidden": (6,), "couplings": 4},
    "coupling-flow": {"hidden": 6, "steps": 1, "width": 4, "growth": 2, "depth": 1},
    "mixing-flow": {"steps": 1, "width": 4, "growth": 2, "depth": 1},
    "residual": {"hidden": 6, "steps": 1, "width": 4, "growth": 2, "depth": 1},
    "sylvester": {"hidden": 24, "steps": 1, "width": 4, "growth": 2, "depth": 1},
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("classes", [None, 3])
def test_models_take_any_shape(model, shape, classes):
    name = model.split(",")[0]
    flow = zoo.build(name, event_shape=shape, classes=classes, pixel_levels=8, **MODELS[model])
    x = torch.randint(8, (6, *shape), dtype=torch.uint8)
    labels = None if classes is None else torch.arange(6) % 3
    flow.initialize(x, labels)
    values = flow.elbo(x, labels).value
    assert values.shape == (6,)
    assert torch.isfinite(values).all()
    drawn = flow.sample((6,)) if labels is None else flow.sample((), labels)
    assert drawn.shape == x.shape
    assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 7


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 37, 53), (1, 1, 300)], ids=str)
@pytest.mark.parametrize("coupling", ["affine", "spline"])
def test_glows_take_large_shapes(shape, coupling):
    flow = zoo.build("glow", event_shape=shape, coupling=coupling, hidden=6, steps=1)
    x = torch.randint(256, (4, *shape), dtype=torch.uint8)
    flow.initialize(x)
    assert torch.isfinite(flow.elbo(x).value).all()
    assert flow.sample((2,)).shape == (2, *shape)


def test_the_layers_of_an_odd_image_keep_its_likelihood():
    flow = zoo.build("glow", event_shape=(2, 5, 7), hidden=6, steps=1, coupling="spline")
    kinds = [type(layer) for layer in flow.transform]
    assert kinds.count(Crop) == 2
    assert kinds.count(Squeeze) == 2
    inner = randomize(flow.transform[3:], scale=0.05).double()
    # Everything behind the noise is exact: the log-density of what is cut off is part of it.
    assert inner.likelihood == "exact"
    crop = next(layer for layer in inner if isinstance(layer, Crop))
    x = torch.randn(5, 2, 5, 7, dtype=torch.float64)
    z, contribution = crop(x)
    assert z.shape == (5, 2, 4, 6)
    assert torch.equal(contribution, crop.border.log_prob(x))
    moved = x.clone()
    moved[..., -1, -1] += 1
    assert not torch.equal(crop(moved)[1], contribution)


@torch.no_grad()
def test_mass_of_a_tiny_odd_image_is_one():
    flow = randomize(zoo.build("glow", event_shape=(1, 1, 3), pixel_levels=2, hidden=4, steps=1), scale=0.1)
    every = torch.cartesian_prod(*[torch.arange(2)] * 3).reshape(8, 1, 1, 3)
    with lk.seeded(0):
        estimate = flow.iw_log_prob(every, samples=4000)
    assert abs(float(estimate.value.exp().sum()) - 1) < 0.05


def test_halvings():
    assert halvings((8, 8), crop=False) == 3
    assert halvings((12, 12), crop=False) == 2
    assert halvings((12, 12), crop=True) == 3
    assert halvings((1, 8), crop=False) == 3
    assert halvings((5, 8), crop=False) == 0
    assert halvings((1,), crop=True) == 0
    assert halvings((1000,), crop=True) == 9


def test_levels_that_are_asked_for_must_fit():
    with pytest.raises(ShapeError, match=r"12x12 is not a multiple of 8: use levels=2; or say crop=true"):
        zoo.build("glow", event_shape=(1, 12, 12), levels=3)
    with pytest.raises(ShapeError, match=r"is not a multiple of 512: use levels=2; or leave levels out"):
        zoo.build("glow", event_shape=(1, 12, 12), levels=9)
    with pytest.raises(ShapeError, match=r"1x1 is not a multiple of 2: leave levels out"):
        zoo.build("glow", event_shape=(1, 1, 1), levels=1)
    with pytest.raises(ShapeError, match="variational dequantization halves the image"):
        zoo.build("glow", event_shape=(1, 5, 7), dequantization="variational")
    with pytest.raises(ShapeError, match="vae halves the image"):
        zoo.build("vae", event_shape=(1, 5, 7))
    asked = zoo.config_from_dict({"model": "glow", "event_shape": (1, 12, 12), "levels": 3, "crop": True})
    assert asked.remarks() == [
        "Odd sides are cut before they are halved (3x3 to 2x2). What is cut off gets a density given the rest, so the "
        "likelihood is that of all values."
    ]
    assert asked.build().base.event_shape == (16, 1, 1)
    assert zoo.config_from_dict({"model": "glow", "event_shape": (1, 8, 8), "levels": 2}).remarks() == []


@pytest.mark.parametrize(("model", "shape"), [("glow", (1, 7, 7)), ("series", (1, 7))])
def test_cuts_that_are_forbidden_are_not_made(model, shape):
    config = zoo.MODELS[model](event_shape=shape, crop=False)
    with pytest.raises(ShapeError, match="is not a multiple of 2: say crop=true"):
        config.build()
    assert "Crop" in str(zoo.build(model, event_shape=shape))
