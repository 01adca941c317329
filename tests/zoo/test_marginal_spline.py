"""The default flow of small images."""

import torch

from likelify import zoo


def test_marginal_spline_starts_as_the_independent_pixel_model():
    flow = zoo.build("marginal-spline", event_shape=(1, 3, 3), pixel_levels=5, hidden=(8,), exponentials=0)
    x = torch.randint(5, (200, 1, 3, 3))
    flow.initialize(x)
    mass = torch.stack([(x == level).double().sum(0) for level in range(5)]) + 0.5
    mass = (mass / mass.sum(0)).flatten(1)
    expected = mass.log().gather(0, x.flatten(1)).sum(1)
    # The last ActNorm standardises what already is standard, up to the sample.
    assert float((flow.elbo(x).value - expected).detach().abs().mean()) < 0.5
