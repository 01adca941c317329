"""Sizes of mixing layers: whole numbers in any form, and a refusal in words for all else when a layer is built."""

import numpy as np
import pytest
import torch

import likelify as lk
from likelify import transforms

TWO = np.int64(2)
WRONG = {
    "no channels": lambda: lk.Conv1x1(0),
    "negative": lambda: lk.Conv1x1(-1),
    "fraction": lambda: lk.Conv1x1(2.5),
    "text": lambda: lk.Conv1x1("3"),
    "boolean": lambda: lk.Conv1x1(True),
    "two 1x1": lambda: transforms.two_conv1x1(0),
    "autoregressive": lambda: transforms.AutoregressiveConv(0),
    "its kernel": lambda: transforms.AutoregressiveConv(2, -2),
    "fraction of a kernel": lambda: transforms.AutoregressiveConv(2, 2.5),
    "emerging": lambda: lk.emerging_conv(0),
    "Woodbury": lambda: transforms.Woodbury(0, 4, spatial_rank=1),
    "its size": lambda: transforms.Woodbury(2, 0, spatial_rank=1),
    "negative size": lambda: lk.woodbury_conv(3, (4, -4)),
    "fraction of a rank": lambda: transforms.Woodbury(2, 4, spatial_rank=1.5),
    "negative rank": lambda: transforms.Woodbury(2, 4, channel_rank=-1, spatial_rank=2),
    "periodic": lambda: transforms.periodic_conv(0),
    "periodic, negative": lambda: transforms.periodic_conv(-1),
    "periodic, fraction": lambda: transforms.periodic_conv(2.5),
    "circular": lambda: transforms.CircularConv(0, 2),
    "dilation": lambda: transforms.CircularConv(2, 2, dilation=0),
    "free linear": lambda: transforms.FreeLinear(2, 0),
}
RIGHT = {
    "1x1": (lambda: lk.Conv1x1(TWO), (2, 4, 4)),
    "emerging": (lambda: lk.emerging_conv(TWO, TWO), (2, 4, 4)),
    "Woodbury": (lambda: transforms.Woodbury(TWO, (4, np.int64(4)), spatial_rank=TWO), (2, 4, 4)),
    "periodic": (lambda: transforms.periodic_conv(TWO), (2, 4, 4)),
    "free linear": (lambda: transforms.FreeLinear(TWO, TWO), (2, 4, 4)),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_sizes_are_refused_when_a_layer_is_built(name):
    with pytest.raises((lk.errors.ConfigError, lk.errors.ShapeError), match="must|needs"):
        WRONG[name]()


@pytest.mark.parametrize("name", RIGHT)
def test_whole_numbers_of_numpy_are_sizes(name):
    build, event = RIGHT[name]
    layer = build()
    assert layer.takes is None or not any(type(size) is np.int64 for size in layer.takes)
    layer.inverse(layer(torch.randn(2, *event))[0])
