"""Hidden pixels drawn in the order in which a model writes them."""

import itertools

import pytest
import torch

import likelify as lk
from likelify.fitting.drawing.filtering import can_filter
from likelify.fitting.drawing.inpainting import complete
from likelify.fitting.drawing.tempering import Effort
from likelify.transforms import YCoCgR
from tests.fitting.drawing.test_superresolution import pyramid

MANY = Effort(islands=8, particles=500)


def every(shape, levels):
    count = torch.Size(shape).numel()
    return torch.tensor(list(itertools.product(range(levels), repeat=count))).reshape(-1, *shape)


@pytest.mark.parametrize("places", [[(0, 0, 0)], [(0, 1, 0), (0, 0, 1)], [(0, 0, 0), (0, 1, 1), (0, 1, 2)]])
@torch.no_grad()
def test_draws_follow_the_conditional_distribution(places):
    flow = pyramid((1, 2, 3), 2).double()
    item, hidden = torch.tensor([[[1, 0, 1], [0, 1, 1]]]), torch.zeros(1, 2, 3, dtype=torch.bool)
    for place in places:
        hidden[place] = True
    x = every((1, 2, 3), 2)
    fitting = x[(x == item)[:, ~hidden].all(1)]
    exact = flow.log_prob(fitting).softmax(0)
    shares = []
    found = complete(flow, item[None], hidden, 1500, levels=2, effort=MANY, seed=1, on_share=shares.append)
    drawn = found.x[0]
    assert (drawn[:, ~hidden] == item[~hidden]).all()
    frequency = (drawn[:, None] == fitting).flatten(2).all(2).double().mean(0)
    assert float((frequency - exact).abs().max()) < 5 * 0.5 / 750**0.5
    assert shares[-1] == 1.0


@pytest.mark.filterwarnings("ignore:The draws of")
@torch.no_grad()
def test_colours_in_front_classes_and_single_channels():
    plain = pyramid((3, 2, 2), 4, classes=2)
    flow = lk.Flow(plain.base, lk.Chain([YCoCgR(4), plain.transform]), encoder=plain.encoder, event_shape=(3, 2, 2))
    x = torch.randint(4, (2, 3, 2, 2))
    pixel, red = torch.zeros(2, 3, 2, 2, dtype=torch.bool)
    pixel[:, 1, 1] = red[0, 1, 1] = True
    assert can_filter(flow, pixel)
    assert can_filter(plain, red)
    # Of one colour of three the layer in front does not know where it went.
    assert not can_filter(flow, red)
    found = complete(flow, x, pixel, 64, levels=4, labels=torch.tensor([0, 1]), effort=Effort(8, 64))
    assert (found.x[:, :, ~pixel] == x[:, None, ~pixel]).all()
    assert set(found.x.unique().tolist()) == {0.0, 1.0, 2.0, 3.0}
