"""Glows with each mixing layer and coupling."""

import pytest
import torch

import likelify as lk
from likelify import zoo
from likelify.testing import randomize

GLOWS = {
    "1x1": {},
    "conv-exponential": {"mixing": "conv-exponential", "norm_bound": "torus", "norm_limit": 0.9},
    "axis-exponential": {"mixing": "axis-exponential"},
    "permutation-spline": {"mixing": "permutation", "coupling": "spline", "bins": 4},
    **{mixing: {"mixing": mixing} for mixing in ("two-1x1", "householder", "emerging", "periodic", "orthogonal")},
    "woodbury": {"mixing": "woodbury", "dequantization": "variational"},
    "dense-conditional": {"net_kind": "dense", "blocks": 2, "classes": 3},
    "variational-conditional": {"dequantization": "variational", "classes": 3},
}


@pytest.mark.parametrize("name", GLOWS)
def test_glows_go_both_ways(name):
    config = zoo.MODELS["glow"](event_shape=(2, 8, 8), levels=2, steps=2, hidden=6, pixel_levels=8, **GLOWS[name])
    flow = randomize(config.build(), scale=0.05).double()
    x = torch.randint(8, (5, 2, 8, 8), dtype=torch.uint8)
    labels = None if config.classes is None else torch.tensor([0, 1, 2, 0, 1])
    flow.initialize(x, labels)
    estimate = flow.elbo(x, labels)
    assert torch.isfinite(estimate.value).all()
    context = labels if config.classes is None else flow.encoder(labels)
    with lk.seeded(0):
        z, _ = flow.transform(x, context)
    assert z.shape[1:] == flow.transform.out_shape((2, 8, 8)) == flow.base.event_shape
    # The split prior draws anew, so only the mean path and the kept half can be compared.
    # Noise may carry a value out of the range of the pixels, so the logit is left out.
    again, _ = flow.transform[3:](flow.transform[3:].inverse(z, context)[0], context)
    assert torch.allclose(again, z, atol=1e-8)
    drawn = flow.sample((), labels) if config.classes else flow.sample((4,))
    assert drawn.shape[1:] == (2, 8, 8)
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) <= 7


@pytest.mark.parametrize("levels", [7, 60, 240, 255, 256, 4095])
def test_the_highest_noise_stays_below_one_for_all_levels(levels):
    config = zoo.MODELS["glow"](event_shape=(1, 4, 4), levels=1, steps=1, hidden=4, pixel_levels=levels, alpha=0.0)
    scale, logit = config._enter()
    highest = torch.tensor([[float(levels)]]).nextafter(torch.zeros(1, 1))
    z, _ = logit(scale(highest)[0])
    assert bool(z.isfinite().all())


def test_the_published_mixing_layer_is_1x1_then_exponential():
    flow = zoo.build("glow", event_shape=(1, 4, 4), levels=1, steps=1, mixing="conv-exponential", hidden=4)
    kinds = [type(layer) for layer in flow.transform]
    index = kinds.index(lk.Exponential)
    assert kinds[index - 1] is lk.Conv1x1
    assert flow.transform[index].parametrization.norm_limit == 1.8


def test_the_axis_mixing_is_1x1_then_exponential_with_all_taps():
    config = zoo.MODELS["glow"](event_shape=(1, 4, 260), levels=1, steps=1, mixing="axis-exponential", hidden=4)
    flow = config.build()
    kinds = [type(layer) for layer in flow.transform]
    places = [index for index, kind in enumerate(kinds) if kind is lk.Exponential]
    assert all(kinds[place - 1] is lk.Conv1x1 for place in places)
    # Of 4x260 pixels at first, of 2x130 behind the squeeze.
    assert [flow.transform[place].parametrization.taps for place in places] == [(7, 127), (3, 127)]


@pytest.mark.parametrize(("mixing", "early", "there"), [("emerging", True, 2), ("axis-exponential", False, 0)])
def test_images_are_mixed_before_the_squeeze_where_asked_for(mixing, early, there):
    flow = zoo.build("glow", event_shape=(2, 4, 4), levels=2, steps=1, mixing=mixing, mix_early=early, hidden=4)
    places = [index for index, layer in enumerate(flow.transform) if isinstance(layer, lk.Squeeze)]
    before = [type(flow.transform[place - 1]) for place in places]
    mixed = [type(layer) for layer in zoo.mixers.mixing_layers(mixing, 2, (4, 4))]
    assert sum(kind is mixed[-1] for kind in before) == there
