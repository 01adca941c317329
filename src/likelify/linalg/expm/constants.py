"""Tables of numbers where a computation needs them: copied to a device once, for each copy makes the host wait."""

import threading

import numpy as np
import torch
from torch import Tensor

# So many tables are kept, those that were asked for last.
MOST = 1024
_LOCK = threading.Lock()
_KEPT: dict[tuple[bytes, tuple[int, ...], torch.dtype, torch.device], Tensor] = {}


def constant(array: np.ndarray, like: Tensor) -> Tensor:
    """Return an array in the dtype and on the device of a tensor; it is not to be changed."""
    if like.device.type == "cpu":
        return torch.as_tensor(array, dtype=like.dtype)
    key = (array.astype(np.float64).tobytes(), array.shape, like.dtype, like.device)
    with _LOCK:
        table = _KEPT.pop(key, None)
        if table is None:
            # Whoever asks next may want gradients.
            with torch.inference_mode(mode=False):
                table = torch.tensor(np.frombuffer(key[0]).reshape(array.shape), dtype=like.dtype).to(like.device)
        _KEPT[key] = table
        if len(_KEPT) > MOST:
            del _KEPT[next(iter(_KEPT))]
    return table


def kept_tables() -> list[Tensor]:
    """Return the tables that are kept, for those who will read them again by their addresses, as CUDA graphs do."""
    with _LOCK:
        return list(_KEPT.values())
