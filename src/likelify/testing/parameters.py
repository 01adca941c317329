"""Where parameters are when laws are tested."""

import torch
from torch import nn

from likelify.seeding import seeded


def randomize(module: nn.Module, *, scale: float = 0.3, seed: int = 0) -> nn.Module:
    """Move all floating parameters of a module away from where they are, in place; return the module."""
    with seeded(seed), torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point():
                parameter.add_(scale * torch.randn_like(parameter))
    return module
