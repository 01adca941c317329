"""Across which layers rows may be compared, and which have nothing to compare."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.utils import parametrizations

from likelify.nets.conditioners import Dropout
from likelify.transforms.inversion import InverseCheck

# Modules of PyTorch that do the same for each row and in each call only outside of training.
_IN_TRAINING = (
    nn.modules.dropout._DropoutNd,
    nn.modules.batchnorm._NormBase,
    nn.RReLU,
    parametrizations._SpectralNorm,
)
# The same, if they have a rate of dropout.
_WITH_DROPOUT = (nn.MultiheadAttention, nn.RNNBase)


def is_composite(layer: Any) -> bool:
    """Tell whether a layer, or what else was called, is made of layers."""
    return getattr(type(layer), "made_of_layers", False)


def is_boundary(layer: Any) -> bool:
    """Tell whether nothing can be compared across a layer."""
    if is_composite(layer):
        return any(is_boundary(part) for part in layer.parts())
    return saturates_or_draws(layer) or is_unsteady(layer)


def saturates_or_draws(layer: Any) -> bool:
    """Tell whether a layer is such that nothing can ever be compared across it."""
    check: InverseCheck | None = layer.inverse_check
    return layer.random_forward or check is not None and check.exact


def is_unsteady(module: nn.Module) -> bool:
    """Tell whether networks inside draw at random just now, or let the rows of a batch depend on each other."""
    waiting: list[nn.Module | None] = [module]
    while waiting:
        part = waiting.pop()
        if part is None:
            continue
        if _is_unsteady(part):
            return True
        waiting.extend(part._modules.values())
    return False


def _is_unsteady(part: nn.Module) -> bool:
    if isinstance(part, Dropout):
        return part.active
    if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None:
        return True
    if not part.training:
        return False
    return isinstance(part, _IN_TRAINING) or isinstance(part, _WITH_DROPOUT) and part.dropout > 0


def is_plain(layer: Any) -> bool:
    """Tell whether nothing in a layer can lose digits, so that all there is to see is whether they are finite."""
    if is_composite(layer):
        return all(is_plain(part) for part in layer.parts())
    simple = layer.inverse_check is None or layer.moves_elements or saturates_or_draws(layer)
    # Layers inside have checks of their own.
    return simple and not layer._modules
