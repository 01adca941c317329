"""Layers that keep some elements within an interval are seen by a flow, wherever they are."""

import pytest
import torch

import likelify as lk
from likelify import transforms
from likelify.errors import UnsupportedError
from likelify.transforms.surjections.pooling import MaxOfPatches


def _beside(*layers):
    return transforms.Parallel(list(layers), [1] * len(layers), [1] * len(layers))


@pytest.mark.parametrize(
    "layers",
    [
        [_beside(transforms.Abs(), transforms.Abs())],
        [_beside(transforms.Sigmoid(), None)],
        [_beside(transforms.Sigmoid(), transforms.Sigmoid()), lk.ActNorm(2)],
        [transforms.Sigmoid(), _beside(lk.ActNorm(1), None)],
        [transforms.Conjugate(lk.ActNorm(2), transforms.Abs())],
        [transforms.Conjugate(transforms.rotation(2), transforms.ELU())],
        [transforms.Sigmoid(), transforms.linear(2, 2, method="free", weight=torch.eye(2))],
        [transforms.Sigmoid(), MaxOfPatches(2, 2)],
        [transforms.Sigmoid(), transforms.Slice(2, lk.Normal(1))],
        [transforms.Sigmoid(), transforms.Sum(2, 2)],
        [transforms.Sigmoid(), transforms.Sum(2, 2), lk.ActNorm(2)],
    ],
    ids=range(11),
)
def test_layers_that_bound_a_part_of_the_elements_are_seen_wherever_they_are(layers):
    with pytest.raises(UnsupportedError, match="reaches no further than|reaches over"):
        lk.Flow(lk.Normal(2), lk.Chain(layers))


def test_layers_that_undo_a_bound_are_seen_as_well():
    undone = _beside(transforms.Inverse(transforms.Sigmoid()), transforms.Inverse(transforms.Sigmoid()))
    for layers in (
        [transforms.Sigmoid(), undone],
        [_beside(transforms.Sigmoid(), None), _beside(transforms.Inverse(transforms.Sigmoid()), None)],
    ):
        lk.Flow(lk.Normal(2), lk.Chain(layers))
    assert _beside(transforms.Sigmoid(), transforms.Abs()).image == transforms.Abs.image
    assert _beside(transforms.Sigmoid(), None).image is None
