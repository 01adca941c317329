"""Whether Python may look at the values of tensors."""

import torch


def is_tracing() -> bool:
    """Tell whether `torch.compile` or a `torch.func` transform is at work, so that tensors have no values yet."""
    return torch.compiler.is_compiling() or torch._C._functorch.maybe_current_level() is not None  # pyright: ignore[reportAttributeAccessIssue]
