"""Tables of numbers that a call makes on the host: on another device each is a copy that the host waits for."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class HostTables(TorchDispatchMode):
    """Counts the tensors that are made of Python's numbers, while this lasts: by `torch.tensor`, or to index by."""

    def __init__(self):
        super().__init__()
        self.made = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.made += function is torch.ops.aten.lift_fresh.default
        return function(*args, **(kwargs or {}))
