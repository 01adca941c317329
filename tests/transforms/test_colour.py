"""Colours of integers in another basis."""

import math

import pytest
import torch

import likelify as lk
from likelify.errors import ConfigError, DomainError, ShapeError
from likelify.transforms import YCoCgR


def every_colour(levels: int) -> torch.Tensor:
    return torch.cartesian_prod(*[torch.arange(levels)] * 3).reshape(-1, 3, 1, 1)


@pytest.mark.parametrize("levels", [2, 5, 8])
def test_wrapped_colours_are_a_permutation_of_all_colours(levels: int):
    layer, colours = YCoCgR(levels), every_colour(levels)
    z, contribution = layer(colours)
    assert layer.out_levels == levels
    assert torch.equal(z.flatten(1).unique(dim=0), colours.flatten(1).float())
    assert not contribution.any()
    assert torch.equal(layer.inverse(z)[0], colours.float())


@pytest.mark.parametrize("levels", [2, 5, 8])
def test_differences_that_keep_their_order_are_reversible_and_say_what_is_no_colour(levels: int):
    layer, colours = YCoCgR(levels, wrap=False), every_colour(levels)
    z, _ = layer(colours)
    assert int(z.min()) >= 0
    assert int(z.max()) == layer.out_levels - 1 == 2 * levels - 2
    assert len(z.flatten(1).unique(dim=0)) == levels**3
    back, contribution = layer.inverse(z)
    assert torch.equal(back, colours.float())
    assert not contribution.any()
    everything = every_colour(layer.out_levels).double()
    back, contribution = layer.inverse(everything)
    reached = (layer(back)[0] == everything).flatten(1).all(1)
    assert int(reached.sum()) == levels**3
    assert torch.equal(contribution == 0, reached)
    assert bool((contribution[~reached] == -math.inf).all())
    assert float(back.min()) >= 0
    assert float(back.max()) <= levels - 1


def test_both_agree_up_to_a_shift_where_differences_are_small():
    colours = torch.tensor([[200, 180, 150], [7, 9, 4], [90, 90, 90]]).reshape(3, 3, 1)
    narrow, wide = YCoCgR(256)(colours)[0], YCoCgR(256, wrap=False)(colours)[0]
    shift = torch.tensor([0, 127, 127])[:, None]
    assert torch.equal(wide - narrow, shift.expand(3, 3, 1).float())
    # Of a grey pixel luma is its level, and nothing else is left.
    assert narrow[2].flatten().tolist() == [90, 128, 128]


def test_bytes_and_sixteen_bits_do_not_overflow():
    for levels, dtype in ((256, torch.uint8), (65536, torch.uint16), (65536, torch.float32)):
        for wrap in (True, False):
            layer = YCoCgR(levels, wrap=wrap)
            x = torch.randint(levels, (50, 3, 2, 2))
            x[0], x[1] = 0, levels - 1
            assert torch.equal(layer.inverse(layer(x.to(dtype))[0])[0].long(), x)


def test_a_flow_of_colours_takes_integers_and_draws_colours():
    torch.manual_seed(0)
    layers = lk.Chain([YCoCgR(4), lk.Dequantize(4), lk.Affine(scale=0.25), lk.Logit()])
    flow = lk.Flow(lk.Normal((3, 2, 2)), layers)
    drawn = flow.sample((500,))
    assert set(drawn.unique().tolist()) == {0.0, 1.0, 2.0, 3.0}
    behind = lk.Flow(lk.Normal((3, 2, 2)), lk.Chain(list(layers)[1:]))
    with lk.seeded(1):
        value = flow.elbo(drawn.to(torch.uint8)).value
    with lk.seeded(1):
        other = behind.elbo(YCoCgR(4)(drawn)[0]).value
    torch.testing.assert_close(value, other)


def test_integers_without_a_layer_for_them_behind_are_refused():
    flow = lk.Flow(lk.Normal((3, 2, 2)), lk.Chain([lk.Permute([2, 1, 0]), YCoCgR(4), lk.ActNorm(3)]))
    with pytest.raises(DomainError, match="Dequantize"):
        flow.log_prob(torch.zeros(2, 3, 2, 2, dtype=torch.long))


def test_what_is_no_colour_is_refused():
    layer = YCoCgR(256)
    for wrong in (torch.full((1, 3, 1, 1), 256), torch.full((1, 3, 1, 1), -1.0), torch.full((1, 3, 1, 1), 0.5)):
        with pytest.raises(DomainError, match=r"0\.\.255"):
            layer(wrong)
    with pytest.raises(DomainError, match="too short"):
        layer(torch.zeros(1, 3, 1, 1, dtype=torch.bfloat16))
    with pytest.raises(ShapeError):
        layer(torch.zeros(1, 4, 1, 1))
    with pytest.raises(ConfigError, match="65536"):
        YCoCgR(2**17)
