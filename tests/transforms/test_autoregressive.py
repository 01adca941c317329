"""What is special to autoregressive layers; their laws run with all others."""

import pytest
import torch
from torch import nn

import likelify as lk
from likelify import nets
from likelify.errors import ConvergenceError, ShapeError, UnsupportedError
from likelify.testing import randomize
from likelify.transforms import AffineBijector, Autoregressive, SplineBijector


def test_an_element_depends_on_those_before_it_only():
    bijector = SplineBijector(4, 3.0)
    layer = randomize(Autoregressive(4, bijector, nets.AutoregressiveNet(4, dims=0, hidden=8, heads=bijector.size)))
    x = torch.randn(4, requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(lambda v: layer(v[None])[0][0], x)
    assert bool((jacobian.triu(1) == 0).all())
    assert bool((jacobian.tril(-1) != 0).any())
    assert float(jacobian.diagonal().log().sum()) == pytest.approx(float(layer(x[None])[1].detach()), abs=1e-5)


def test_a_network_that_sees_what_it_must_not_is_found_out_by_the_inverse():
    layer = randomize(Autoregressive(3, AffineBijector(), nets.MLP(3, 6, (8,))))
    with pytest.raises(ConvergenceError):
        layer.inverse(torch.randn(20, 3))


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(UnsupportedError, match="in this order"):
        Autoregressive(3, nn.Linear(3, 6), AffineBijector())  # pyright: ignore[reportArgumentType]
    with pytest.raises(ShapeError, match="network of Autoregressive returned"):
        Autoregressive(3, SplineBijector(4), nn.Linear(3, 6))(torch.zeros(2, 3))
    assert lk.transforms.Autoregressive is Autoregressive
