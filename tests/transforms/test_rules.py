"""State dictionaries with buffers that neither construction nor `initialize` could have set."""

import pytest
import torch

import likelify as lk
from likelify.errors import StateError
from likelify.transforms import ChannelAffine, Columns, FittedMarginal, Permute
from likelify.transforms.exponential.rotations import Orthogonal


def turned():
    return Orthogonal(torch.linalg.qr(torch.randn(4, 4)).Q)


LAYERS = {
    "order": (lambda: Permute([2, 0, 1]), lambda order: order * 0),
    "permutation": (lambda: lk.Conv1x1(4), torch.zeros_like),
    "signs": (lambda: lk.Conv1x1(4), torch.zeros_like),
    "sign": (lambda: ChannelAffine(torch.tensor([1.0, -2.0])), lambda sign: 2 * sign),
    "matrix": (turned, torch.zeros_like),
    "mass": (lambda: FittedMarginal((2,), 3), lambda mass: 2 * mass),
    "below": (lambda: FittedMarginal((2,), 3), lambda below: below.flip(-1)),
    "above": (lambda: FittedMarginal((2,), 3), lambda above: above.flip(-1)),
    "mean": (lambda: Columns(3), lambda mean: mean / 0),
    "scale": (lambda: Columns(3), lambda scale: -scale),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_state_with_an_impossible_buffer_is_refused_and_named(name):
    make, change = LAYERS[name]
    layer = lk.Chain([make()])
    state = {key: value.clone() for key, value in layer.state_dict().items()}
    layer.load_state_dict(state)
    full = f"transforms.0.{name}"
    with pytest.raises(StateError, match=rf"'{full}' of {type(layer[0]).__name__} must be .* damaged, was changed"):
        layer.load_state_dict(state | {full: change(state[full])})
    assert torch.equal(layer.state_dict()[full], state[full])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("make", [turned, lambda: lk.Conv1x1(4), lambda: FittedMarginal((2,), 30)])
def test_states_of_other_precision_are_loaded(make, dtype):
    for ours, theirs in ((make(), make().to(dtype)), (make().to(dtype), make())):
        ours.load_state_dict(theirs.state_dict())
        given = theirs.state_dict()
        assert all(torch.equal(value, given[key].to(value.dtype)) for key, value in ours.state_dict().items())


def test_a_buffer_of_another_shape_is_pytorchs_to_refuse():
    with pytest.raises(RuntimeError, match="size mismatch"):
        Permute([0, 1]).load_state_dict(Permute([0, 2, 1]).state_dict())
