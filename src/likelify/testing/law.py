"""How a law says that it is broken."""

from torch import Tensor


def close(left: Tensor, right: Tensor, tol: float, law: str) -> None:
    """Raise `AssertionError` unless two tensors have one shape and are equal to within `tol`, and neither is NaN."""
    require(left.shape == right.shape, f"{law}: shape {tuple(left.shape)}, not {tuple(right.shape)}")
    gap = float((left.detach() - right.detach()).abs().max()) if left.numel() else 0.0
    require(gap <= tol, f"{law}: off by {gap:.3g}, allowed {tol:.3g}")


def require(holds: bool, message: str) -> None:  # noqa: FBT001 - the condition itself
    """Raise `AssertionError` with that message unless the law holds."""
    if not holds:
        raise AssertionError(f"Law broken: {message}.")
