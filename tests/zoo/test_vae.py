"""Variational autoencoders and their posteriors."""

import pytest
import torch

import likelify as lk
from likelify import nets, zoo
from likelify.errors import ShapeError
from likelify.testing import randomize


@pytest.mark.parametrize("posterior", ["gaussian", "planar", "sylvester", "generalized", "convolutional"])
def test_vaes_go_both_ways(posterior):
    config = zoo.MODELS["vae"](
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


def test_an_encoder_sees_the_condition_as_it_is():
    scale = nets.pixels.PixelScale(256, 2)
    x = torch.cat([torch.tensor([0.0, 255.0]).view(1, 2, 1, 1), torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)], 1)
    assert scale(x).flatten().tolist() == [1 / 256 - 1, 1 - 1 / 256, 0.0, 1.0]


def test_posteriors_start_as_the_same_gaussian():
    values = []
    for posterior in ("gaussian", "planar", "sylvester", "generalized", "convolutional"):
        with lk.seeded(0):
            flow = zoo.build("vae", event_shape=(1, 4, 4), pixel_levels=3, posterior=posterior, flow_hidden=32)
        x = torch.randint(3, (3, 1, 4, 4), generator=torch.Generator().manual_seed(0))
        with lk.seeded(1):
            values.append(flow.elbo(x, samples=20).value.detach())
    # Fresh networks are small, not zero; reflections and flips move the noise around, so the draws differ.
    assert all(torch.allclose(value, values[0], atol=0.5) for value in values)
    with pytest.raises(ShapeError, match="not a multiple of 2"):
        zoo.build("vae", event_shape=(1, 4, 5))
