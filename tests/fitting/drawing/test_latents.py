"""There and back in the latent: what is kept, what is not, and the way from one item to another."""

import math

import pytest
import torch
from torch import nn

import likelify as lk
from likelify import transforms, zoo
from likelify.distributions import RectifiedNormal
from likelify.errors import UnsupportedError
from likelify.fitting.drawing.latents import between, decode, encode, losses, splits


def randomised(flow):
    with lk.seeded(3):
        for parameter in flow.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return flow


@pytest.fixture(scope="module")
def glow():
    config = zoo.MODELS["glow"](event_shape=(1, 8, 8), pixel_levels=17, levels=3, steps=1, hidden=4, classes=2)
    return randomised(config.build())


def test_split_priors_are_kept_as_noise_and_nothing_is_lost(glow):
    images, labels = torch.randint(17, (5, 1, 8, 8)), torch.arange(5) % 2
    latent = encode(glow, images, labels)
    assert splits(glow) == len(latent.dropped) == 2
    assert all(part.is_noise for part in (latent.last, *latent.dropped))
    assert losses(glow) == []
    assert torch.equal(decode(glow, latent), images.float())
    # Without what was dropped, something is missing.
    assert not torch.equal(decode(glow, latent.without_dropped()), images.float())


def test_the_noise_of_samples_is_standard_normal(glow):
    with lk.seeded(0):
        images = glow.sample((), torch.zeros(400, dtype=torch.long))
    latent = encode(glow, images, torch.zeros(400, dtype=torch.long))
    for part in (latent.last, *latent.dropped):
        assert abs(float(part.values.mean())) < 0.1
        # Pixels stand in the middle of their levels, so a little less than what was drawn.
        assert abs(float(part.values.std()) - 1) < 0.15


def test_samples_at_temperature_zero_are_what_zero_noise_becomes(glow):
    label = torch.tensor([1])
    latent = encode(glow, torch.zeros(1, 1, 8, 8), label)
    zero = latent.last.values * 0
    latent = type(latent)(type(latent.last)(zero, is_noise=True), latent.dropped, latent.context).without_dropped()
    assert torch.equal(decode(glow, latent), glow.sample((), label, temperature=0.0))


def test_the_way_stays_on_the_sphere_and_has_both_ends():
    flow = lk.Flow(lk.Normal((50,)), lk.ActNorm(50))
    one, other = torch.randn(2, 1, 50, generator=torch.Generator().manual_seed(0)).unbind(0)
    other = other * one.norm() / other.norm()
    way = between(encode(flow, one), encode(flow, other), 9)
    x = decode(flow, way)
    assert torch.allclose(x[0], one[0], atol=1e-5)
    assert torch.allclose(x[-1], other[0], atol=1e-5)
    norms = x.norm(dim=1)
    assert norms.min() > 0.98 * min(norms[0], norms[-1])
    # Equal angles: the middle is as far from both.
    cosines = torch.cosine_similarity(x[4:5], torch.cat([one, other]))
    assert torch.allclose(cosines[0], cosines[1], atol=1e-5)


def test_equal_and_opposite_items_have_a_straight_way():
    flow = lk.Flow(lk.Normal((3,)), lk.ActNorm(3))
    one = encode(flow, torch.ones(1, 3))
    assert torch.allclose(decode(flow, between(one, one, 4)), torch.ones(4, 3))
    assert decode(flow, between(one, encode(flow, -torch.ones(1, 3)), 3)).isfinite().all()


def test_conditions_go_along(glow):
    images = torch.randint(17, (2, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    ends = [encode(glow, images[n : n + 1], torch.tensor([n])) for n in (0, 1)]
    way = between(*ends, 5)
    assert way.context.condition.shape[0] == 5
    x = decode(glow, way)
    assert torch.equal(x[0], images[0].float())
    assert torch.equal(x[-1], images[1].float())


def test_what_pooling_drops_is_said():
    layers = [transforms.max_pool((1, 4, 4), 2), transforms.Flatten((1, 2, 2))]
    flow = lk.Flow(lk.Normal((4,)), lk.Chain(layers), event_shape=(1, 4, 4))
    assert losses(flow) == ["MaxOfPatches"]
    x = torch.randn(3, 1, 4, 4)
    back = decode(flow, encode(flow, x))
    pooled = nn.functional.max_pool2d(x, 2)
    assert torch.allclose(nn.functional.max_pool2d(back, 2), pooled, atol=1e-5)
    assert not torch.allclose(back, x)


def test_bases_without_noise_are_blended_along_the_line():
    flow = lk.Flow(RectifiedNormal((2,)), lk.Chain([lk.transforms.ReLU()]))
    ends = [encode(flow, torch.tensor([[1.0, 3.0]])), encode(flow, torch.tensor([[3.0, 1.0]]))]
    assert not ends[0].last.is_noise
    assert decode(flow, between(*ends, 3))[1].tolist() == pytest.approx([2.0, 2.0])


def test_noise_of_a_flow_is_that_of_its_base():
    flow = randomised(lk.Flow(lk.Normal((3,), trainable=True), lk.Chain([lk.ActNorm(3), lk.rotation(3)])))
    x = torch.randn(4, 3)
    noise = flow.to_noise(x)
    assert torch.allclose(flow.from_noise(noise), x, atol=1e-5)
    log_prob = -0.5 * noise.square().sum(1) - 1.5 * math.log(2 * math.pi)
    volume = (flow.log_prob(x) - log_prob).detach()
    assert torch.allclose(volume, volume[:1].expand(4), atol=1e-4)
    with pytest.raises(UnsupportedError, match="not made of the noise of its base alone"):
        lk.Flow(lk.Normal((1,)), transforms.Slice(1, lk.Normal((1,)))).to_noise(torch.zeros(1, 2))
