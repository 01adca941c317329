"""Tables of numbers where a computation needs them: copied to a device once, for each copy makes the host wait."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def constant(array: np.ndarray, like: Tensor) -> Tensor:
    """Return an array in the dtype and on the device of a tensor; it is not to be changed."""
    if like.device.type == "cpu":
        return torch.as_tensor(array, dtype=like.dtype)
    return _kept(array.astype(np.float64).tobytes(), array.shape, like.dtype, like.device)


@lru_cache(maxsize=1024)
def _kept(numbers: bytes, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Whoever asks next may want gradients.
    with torch.inference_mode(mode=False):
        return torch.tensor(np.frombuffer(numbers).reshape(shape), dtype=dtype).to(device)
