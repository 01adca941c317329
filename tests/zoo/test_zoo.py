import pytest
import torch

import likelify as lk
from likelify import zoo
from likelify.errors import ConfigError, ShapeError
from likelify.testing import randomize

GLOWS = {
    "1x1": {},
    "conv-exponential": {"mixing": "conv-exponential", "norm_bound": "torus", "norm_limit": 0.9},
    "permutation-spline": {"mixing": "permutation", "coupling": "spline", "bins": 4},
    **{mixing: {"mixing": mixing} for mixing in ("two-1x1", "householder", "emerging", "periodic", "orthogonal")},
    "woodbury": {"mixing": "woodbury", "dequantization": "variational"},
    "dense-conditional": {"net": "dense", "blocks": 2, "classes": 3},
    "variational-conditional": {"dequantization": "variational", "classes": 3},
}


@pytest.mark.parametrize("name", GLOWS)
def test_glows_go_both_ways(name):
    config = zoo.GlowConfig(event_shape=(2, 8, 8), levels=2, steps=2, hidden=6, pixel_levels=8, **GLOWS[name])
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


@pytest.mark.parametrize(
    "config",
    [
        zoo.GlowConfig(event_shape=(1, 4, 4), levels=1, mixing="conv-exponential", norm_limit=None),
        zoo.MarginalSplineConfig(event_shape=(1, 4, 4), pixel_levels=17, hidden=(3, 4)),
    ],
)
def test_configurations_survive_json(config):
    import json

    again = zoo.config_from_dict(json.loads(config.model_dump_json()))
    assert again == config
    shapes = [{k: v.shape for k, v in c.build().state_dict().items()} for c in (config, again)]
    assert shapes[0] == shapes[1]
    with pytest.raises(ValueError, match="frozen"):
        config.pixel_levels = 3


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match=r"stpes: .*Known settings: event_shape"):
        zoo.glow((3, 8, 8), stpes=2)
    with pytest.raises(ConfigError, match="mixing"):
        zoo.glow((3, 8, 8), mixing="merging")
    with pytest.raises(ConfigError, match="There is no model 'glwo'; the models are marginal-spline, glow, sylv"):
        zoo.config_from_dict({"model": "glwo"})
    with pytest.raises(ShapeError, match="not a multiple of 8"):
        zoo.glow((3, 12, 12), levels=3)


def test_the_published_mixing_layer_is_1x1_then_exponential():
    flow = zoo.glow((1, 4, 4), 1, 1, mixing="conv-exponential", hidden=4)
    kinds = [type(layer) for layer in flow.transform]
    index = kinds.index(lk.Exponential)
    assert kinds[index - 1] is lk.Conv1x1
    assert flow.transform[index].source.norm_limit == 1.8


def test_marginal_spline_starts_as_the_independent_pixel_model():
    flow = zoo.marginal_spline((1, 3, 3), pixel_levels=5, hidden=(8,), exponentials=0)
    x = torch.randint(5, (200, 1, 3, 3))
    flow.initialize(x)
    mass = torch.stack([(x == level).double().sum(0) for level in range(5)]) + 0.5
    mass = (mass / mass.sum(0)).flatten(1)
    expected = mass.log().gather(0, x.flatten(1)).sum(1)
    # The last ActNorm standardises what already is standard, up to the sample.
    assert float((flow.elbo(x).value - expected).detach().abs().mean()) < 0.5


@pytest.mark.parametrize("posterior", ["gaussian", "planar", "sylvester", "generalized", "convolutional"])
def test_vaes_go_both_ways(posterior):
    config = zoo.VaeConfig(
        event_shape=(2, 4, 6),
        pixel_levels=5,
        posterior=posterior,
        flows=2,
        features=2,
        hidden=4,
        reflections=3,
        flow_hidden=12,
        classes=3,
    )
    assert zoo.config_from_dict(config.model_dump()) == config
    flow = randomize(config.build(), scale=0.1).double()
    assert flow.likelihood == "bound"
    x, labels = torch.randint(5, (4, 2, 4, 6), dtype=torch.uint8), torch.tensor([0, 1, 2, 0])
    flow.initialize(x, labels)
    flow.elbo(x, labels).value.sum().backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in flow.parameters())
    assert torch.isfinite(flow.iw_log_prob(x, labels, samples=3).value).all()
    drawn = flow.sample((2,), labels)
    assert drawn.shape == (2, 4, 2, 4, 6)
    assert set(drawn.unique().tolist()) <= set(range(5))
    # What was drawn from the posterior has the density that it tells.
    posterior = flow.transform.posterior
    seen = torch.cat([x, flow.encoder(labels)[:, :, None, None].expand(4, 3, 4, 6)], 1)
    z, log_q = posterior.sample_and_log_prob((), seen)
    assert z.shape[1:] == config.latent_shape == (2, 2, 3)
    assert torch.allclose(posterior.log_prob(z, seen), log_q, atol=1e-8)


def test_posteriors_start_as_the_same_gaussian():
    values = []
    for posterior in ("gaussian", "planar", "sylvester", "generalized", "convolutional"):
        with lk.seeded(0):
            flow = zoo.VaeConfig(event_shape=(1, 4, 4), pixel_levels=3, posterior=posterior, flow_hidden=32).build()
        x = torch.randint(3, (3, 1, 4, 4), generator=torch.Generator().manual_seed(0))
        with lk.seeded(1):
            values.append(flow.elbo(x, samples=20).value.detach())
    # Fresh networks are small, not zero; reflections and flips move the noise around, so the draws differ.
    assert all(torch.allclose(value, values[0], atol=0.5) for value in values)
    with pytest.raises(ShapeError, match="not a multiple of 2"):
        zoo.VaeConfig(event_shape=(1, 4, 5)).build()
