"""The models of the flowification paper."""

import json

import pytest
import torch

from likelify import zoo
from likelify.fitting.recipes import preset_fit
from likelify.fitting.settings import FitSettings

MODELS = {
    "fmlp": {},
    "fconv1": {},
    "fconv1, nsf": {"nsf": True, "nsf_hidden": 8, "nsf_channels": 4},
    "fconv1, uniform": {"noise": "uniform"},
    "fconv1, learned": {"learned_noise": True},
    "fconv2": {"shared_splines": True, "interval": 2.0},
    "fconv2, nsf": {"nsf": True, "nsf_hidden": 8, "nsf_channels": 4},
    "fconv2, free": {"method": "free"},
    "fconv2, householder": {"method": "householder", "reflections": 4},
    "fconv2, marginal": {"front": "marginal"},
    "fconv-fft": {},
}
PRESETS = [name for name in zoo.PRESETS if name.startswith("flowified-")]


def build(title, shape=(1, 6, 6), **settings):
    values = {"model": title.split(",")[0], "event_shape": shape, "pixel_levels": 9, "net_hidden": 8}
    return zoo.config_from_dict(values | MODELS[title] | settings).build()


@pytest.mark.parametrize("title", MODELS)
def test_models_can_be_trained_and_sampled(title):
    flow = build(title)
    x = torch.randint(9, (40, 1, 6, 6))
    flow.initialize(x)
    assert flow.likelihood == "bound"
    (-flow.elbo(x).value.mean()).backward()
    for name, parameter in flow.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
    samples = flow.sample((3,))
    assert samples.shape == (3, 1, 6, 6)
    assert 0 <= float(samples.min()) <= float(samples.max()) <= 8
    assert flow.transform.mean_inverse(torch.zeros(2, *flow.base.event_shape)).shape == (2, 1, 6, 6)


@pytest.mark.parametrize(
    ("model", "settings", "latent"),
    [
        ("fmlp", {}, {(1, 28, 28): 8, (3, 32, 32): 128}),
        ("fconv1", {}, {(1, 28, 28): 8, (3, 32, 32): 128}),
        ("fconv2", {}, {(1, 28, 28): 8, (3, 32, 32): 128}),
        ("fconv1", {"nsf": True}, {(1, 28, 28): 8, (3, 32, 32): 128}),
        ("fconv2", {"nsf": True}, {(1, 28, 28): 8, (3, 32, 32): 128}),
        ("fconv-fft", {}, {(1, 28, 28): 8, (3, 32, 32): 128}),
    ],
)
def test_architectures_are_those_of_the_paper(model, settings, latent):
    for shape, size in latent.items():
        config = zoo.config_from_dict({"model": model, "event_shape": shape, **settings})
        if shape[0] == 1:
            flow = config.build()
            assert flow.base.event_shape == (size,)
            assert flow.transform.out_shape(shape) == (size,)
        else:
            convolutions, widths = config._architecture() if model != "fmlp" else ([], [])  # noqa: SLF001
            assert model == "fmlp" or widths[-1].width == size
            assert all(conv.stride in (1, 2) for conv in convolutions)


def test_without_padding_the_convolutions_are_exact_behind_dequantization():
    for model, exact in (("fconv2", True), ("fconv-fft", True), ("fconv1", False), ("fmlp", True)):
        inner = build(model, (1, 4, 4)).transform[2:]
        assert (inner.likelihood == "exact") is exact, model


def test_a_fresh_perceptron_is_the_gaussian_of_the_data():
    """Principal axes, scales and conditional normals together: no layer has learned anything yet."""
    torch.manual_seed(0)
    mix = torch.randn(16, 16)
    x = (4.5 + 0.7 * torch.randn(4000, 16) @ mix / 4).clamp(0, 8).round().reshape(-1, 1, 4, 4)
    flow = build("fmlp", (1, 4, 4), widths=(8, 4))
    flow.initialize(x)
    real = (x + torch.rand_like(x)).flatten(1)
    gaussian = torch.distributions.MultivariateNormal(real.mean(0), real.T.cov(correction=0)).log_prob(real)
    assert abs(float((flow.elbo(x).value.detach() - gaussian).mean())) < 0.05


def test_probabilities_of_all_images_add_up_to_at_most_one():
    """All images of four pixels with two levels; what is missing falls between and beyond the levels."""
    torch.manual_seed(0)
    images = torch.cartesian_prod(*(torch.arange(2),) * 4).reshape(16, 1, 2, 2)
    flow = build("fconv1", (1, 2, 2), pixel_levels=2)
    flow.initialize(images.repeat(20, 1, 1, 1))
    with torch.no_grad():
        total = flow.iw_log_prob(images, samples=4000, warn=False).value.exp().sum()
        bound = flow.elbo(images, samples=100).value.exp().sum()
    assert 0.05 < float(bound) < float(total) < 1.02


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_at_both_sizes(name):
    table = name.startswith("flowified-table")
    for size in ("paper", "small"):
        values = zoo.preset(name).settings(size) | {"event_shape": (6,) if table else (1, 8, 8)}
        config = zoo.config_from_dict(values)
        assert zoo.config_from_dict(json.loads(config.model_dump_json())) == config
        FitSettings.parse(preset_fit(name, size))
        assert config.build().likelihood == "bound"
