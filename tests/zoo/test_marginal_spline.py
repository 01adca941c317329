"""The default flow of small images."""

import torch

from likelify import zoo
from likelify.zoo.marginal_spline import position_mask


def test_marginal_spline_starts_as_the_independent_pixel_model():
    flow = zoo.build("marginal-spline", event_shape=(1, 3, 3), pixel_levels=5, hidden=(8,), exponentials=0)
    # Of levels that are far from equally frequent, so that a model of equal ones would be seen.
    x = torch.distributions.Categorical(torch.tensor([0.7, 0.2, 0.05, 0.03, 0.02])).sample((200, 1, 3, 3))
    flow.initialize(x)
    mass = torch.stack([(x == level).double().sum(0) for level in range(5)]) + 0.5
    mass = (mass / mass.sum(0)).flatten(1)
    expected = mass.log().gather(0, x.flatten(1)).sum(1)
    # The last ActNorm standardises what already is standard, up to the sample.
    assert float((flow.elbo(x).value - expected).detach().abs().mean()) < 0.5
    uniform = -9 * torch.tensor(5.0).log()
    assert float((uniform - expected).abs().mean()) > 3


def test_position_masks_cover_every_pixel_both_ways():
    for shape in ((1, 8, 8), (3, 4, 4), (1, 1, 6)):
        for index in range(0, 12, 2):
            mask, complement = position_mask(shape, index), position_mask(shape, index + 1)
            assert torch.equal(mask, ~complement)
            assert 0 < int(mask.sum()) < mask.numel()
