"""Networks inside layers: what reads one part of an event, and the condition.

`conditioners` are ordinary networks, called as `net(x, context)`.
"""

from likelify.nets.conditioners import (
    CONV_FORMAT,
    MLP,
    DenseConvBlock,
    Dropout,
    ImageEncoder,
    OneHot,
    ResidualConvNet,
    regularized,
)

__all__ = [
    "CONV_FORMAT",
    "MLP",
    "DenseConvBlock",
    "Dropout",
    "ImageEncoder",
    "OneHot",
    "ResidualConvNet",
    "regularized",
]
