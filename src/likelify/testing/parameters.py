"""Where parameters are when laws are tested."""

from typing import Literal

import torch
from torch import Tensor, nn

from likelify.seeding import seeded


def randomize(module: nn.Module, *, scale: float = 0.3, seed: int = 0) -> nn.Module:
    """Move all floating parameters of a module away from where they are, in place; return the module."""
    with seeded(seed), torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point():
                parameter.add_(scale * torch.randn_like(parameter))
    return module


def set_parameters(module: nn.Module, to: Literal["zero", "identity"]) -> nn.Module:
    """Set all floating parameters of a module to zero or to half of an identity, in place; return the module.

    There norms vanish, eigenvalues coincide and series end early, and a gradient may be lost that was right elsewhere.

    Args:
        module: whose parameters are set.
        to: `"zero"`; or `"identity"`, where square matrices become half of the identity, kernels between equally many
            channels the same at their centre, and all else zero.
    """
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point():
                parameter.zero_()
                if to == "identity" and parameter.ndim >= 2 and parameter.shape[0] == parameter.shape[1]:
                    _centre(parameter).diagonal().fill_(0.5)
    return module


def _centre(kernel: Tensor) -> Tensor:
    return kernel[(slice(None), slice(None), *(size // 2 for size in kernel.shape[2:]))]
