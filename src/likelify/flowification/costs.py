"""Multiply-adds of matrix products and convolutions, counted while a layer runs.

PyTorch's own counter of operations loads its compiler, which takes seconds; this one looks at calls of functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from likelify.errors import LikelifyError
from likelify.seeding import seeded
from likelify.transforms.core import Shape, Transform
from likelify.transforms.residual_flows.layer import LipschitzResidual

PRODUCTS = {F.linear, torch.matmul, torch.mm, torch.bmm, Tensor.matmul, Tensor.mm, Tensor.bmm, Tensor.__matmul__}
CONVOLUTIONS = {F.conv1d, F.conv2d, F.conv3d, torch.conv1d, torch.conv2d, torch.conv3d}
TRANSPOSED = {F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d}


class MultiplyAdds(TorchFunctionMode):
    """Counts multiply-adds inside a `with` block in `count`."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function and count."""
        result = func(*args, **(kwargs or {}))
        if func in PRODUCTS:
            self.count += result.numel() * args[0].shape[-1]
        elif func in CONVOLUTIONS:
            self.count += result.numel() * args[1][0].numel()
        elif func in TRANSPOSED:
            self.count += args[0].numel() * args[1][0].numel()
        return result


def layer_costs(transform: Transform, in_shape: Shape) -> tuple[int, int | None]:
    """Return the multiply-adds of one event on the noise-free path, and those that the likelihood adds.

    Returns:
        The two counts; the second is None where it depends on the data.
    """
    dtype = next((p.dtype for p in transform.parameters()), torch.get_default_dtype())
    x = torch.full((1, *in_shape), 0.5, dtype=dtype)
    with torch.no_grad(), seeded(0):
        if isinstance(transform, LipschitzResidual):
            # Limits are found once for all rows, and the log-determinant takes steps that depend on the data.
            net, tensors = transform.net, transform.net.constrained().tensors
            return _count(lambda: net.run(tensors, x)) or 0, None
        mean = _count(lambda: transform.mean_forward(x))
        whole = _count(lambda: transform(x))
    return mean or 0, None if whole is None or mean is None else max(whole - mean, 0)


def _count(run: Callable[[], Any]) -> int | None:
    with MultiplyAdds() as counter:
        try:
            run()
        except LikelifyError:
            # A layer of the user's may refuse the values it is tried on.
            return None
    return counter.count
