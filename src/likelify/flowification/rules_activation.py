"""Rules for activations."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likelify.flowification.options import Options
from likelify.flowification.refusals import NotConvertibleError
from likelify.flowification.rules import Call, rule, setting, settings_of
from likelify.transforms.core import Chain, Shape, Transform
from likelify.transforms.elementwise import Affine, Sigmoid, Softplus, Tanh
from likelify.transforms.surjections.activation import ELU, Abs, LeakyReLU, NoisyReLU, PReLU, ReLU, celu, selu


def _simple(make: Callable[..., Transform], *targets: Any, **settings: float) -> None:
    """Register a layer that is made of settings alone, which stand in this order from place 1 on in a call."""
    rule(*targets)(lambda what, in_shape, options: make(*settings_of(what, 1, **settings).values()))


def _leaky(slope: float) -> Transform:
    if isinstance(slope, Tensor):
        raise NotConvertibleError(
            "has a tensor as its slope, which would not be saved with the weights. Take a number, or nn.PReLU for "
            "slopes that are trained."
        )
    if not slope > 0:
        raise NotConvertibleError(f"has slope {slope}; a bijection needs a positive one. Take 0.01 or more.")
    return LeakyReLU(slope)


def _softplus(beta: float, threshold: float) -> Transform:
    if not 0 < beta < math.inf or threshold < 15:
        raise NotConvertibleError(f"has beta={beta} and threshold={threshold}; take a positive beta, threshold 20.")
    if beta == 1:
        return Softplus()
    return Chain([Affine(scale=beta), Softplus(), Affine(scale=1 / beta)])


_simple(_leaky, nn.LeakyReLU, F.leaky_relu, F.leaky_relu_, negative_slope=0.01)
# In its evaluation form a randomized ReLU has the mean of its slopes.
_simple(lambda lower, upper: _leaky((lower + upper) / 2), nn.RReLU, lower=1 / 8, upper=1 / 3)
_simple(ELU, nn.ELU, F.elu, F.elu_, alpha=1.0)
_simple(celu, nn.CELU, F.celu, torch.celu, torch.celu_, alpha=1.0)
_simple(selu, nn.SELU, F.selu, torch.selu, torch.selu_)
_simple(Sigmoid, nn.Sigmoid, torch.sigmoid, torch.sigmoid_, F.sigmoid, "sigmoid", torch.special.expit)
_simple(Tanh, nn.Tanh, torch.tanh, torch.tanh_, F.tanh, "tanh")
_simple(_softplus, nn.Softplus, F.softplus, beta=1.0, threshold=20.0)


@rule(nn.PReLU, F.prelu, torch.prelu)
def prelu(what: nn.PReLU | Call, in_shape: Shape, options: Options) -> Transform:
    """Convert a leaky ReLU with trained slopes."""
    weight = setting(what, 1, "weight")
    if not isinstance(weight, Tensor):
        raise NotConvertibleError("has slopes that depend on the input. Take it out.")
    module = nn.PReLU(weight.numel()).to(weight)
    with torch.no_grad():
        module.weight.copy_(weight)
    return PReLU.from_module(module)


@rule(nn.ReLU, F.relu, torch.relu, "relu", torch.relu_, F.relu_)
def relu(what: nn.ReLU | Call, in_shape: Shape, options: Options) -> Transform:
    """Convert a ReLU: with noise where that is asked for; without, it can only be the last step."""
    if options.relu == "noisy":
        return NoisyReLU(net=options.nets(in_shape)(in_shape[0], 4 * in_shape[0]))
    return ReLU(options.nets(in_shape)(in_shape[0], in_shape[0]))


@rule(torch.abs, torch.absolute, operator.abs, "abs")
def absolute(call: Call, in_shape: Shape, options: Options) -> Transform:
    """Convert the absolute value, with a probability for the sign."""
    return Abs(options.nets(in_shape)(in_shape[0], in_shape[0]))
