"""Networks inside layers: what reads one part of an event, and the condition.

`conditioners` are ordinary networks, called as `net(x, context)`; `density` makes those of conditional densities.
"""

from likelify.nets.conditioners import (
    CONV_FORMAT,
    MLP,
    DenseConvBlock,
    DenseImageEncoder,
    DenseNet,
    Dropout,
    ImageEncoder,
    OneHot,
    ResidualConvNet,
    recomputed,
    regularized,
)
from likelify.nets.density import NetFactory, density_net, density_nets
from likelify.nets.lipschitz import DeclaredNet, LipschitzConvNet, LipschitzMLP, LipschitzNet
from likelify.nets.masked import AutoregressiveNet
from likelify.nets.tied import TiedHeads

__all__ = [
    "CONV_FORMAT",
    "MLP",
    "AutoregressiveNet",
    "DeclaredNet",
    "DenseConvBlock",
    "DenseImageEncoder",
    "DenseNet",
    "Dropout",
    "ImageEncoder",
    "LipschitzConvNet",
    "LipschitzMLP",
    "LipschitzNet",
    "NetFactory",
    "OneHot",
    "ResidualConvNet",
    "TiedHeads",
    "density_net",
    "density_nets",
    "recomputed",
    "regularized",
]
