"""One process on one device: what the loop needs of Lightning's Fabric, which is only imported where more is asked."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class OneProcess:
    """Stands in for a Fabric with one process; the arithmetic is the same.

    Args:
        device: to run on; by default the accelerator there is, or the CPU.
    """

    world_size = 1
    global_rank = 0
    is_global_zero = True

    def __init__(self, device: torch.device | str | None = None) -> None:
        self.device = _accelerator() if device is None else torch.device(device)

    def setup(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Move the module to the device."""
        return module.to(self.device), optimizer

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of the loss to the parameters."""
        loss.backward()

    def clip_gradients(
        self,
        module: nn.Module,  # noqa: ARG002 - the interface of Fabric
        optimizer: torch.optim.Optimizer,
        *,
        max_norm: float,
        error_if_nonfinite: bool,
    ) -> None:
        """Shrink the gradient to a largest norm."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(parameters, max_norm, error_if_nonfinite=error_if_nonfinite)

    def broadcast(self, value: T) -> T:
        """Return what the first process says."""
        return value


def _accelerator() -> torch.device:
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None or found.type not in ("cuda", "mps"):
        return torch.device("cpu")
    return torch.device(found.type, 0)
