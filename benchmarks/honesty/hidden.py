"""Maps a user may write, whose tensors are hidden in other places than fields."""

from dataclasses import dataclass

from torch import Tensor

from likelify.linalg.maps import LinearMap
from likelify.shapes import Shape


class Attribute(LinearMap):
    """A user's map that keeps its tensor as a plain attribute."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def apply(self, x: Tensor) -> Tensor:
        """Multiply."""
        return x @ self.matrix.T

    def adjoint(self) -> LinearMap:
        """Transpose."""
        return type(self)(self.matrix.T)

    def trace(self, event_shape: Shape) -> Tensor:
        """Sum the diagonal."""
        return self.matrix.trace()

    def norm_bound(self, event_shape: Shape) -> float:
        """Bound the norm."""
        return 2.0


@dataclass(frozen=True, eq=False)
class InTuple(LinearMap):
    """A user's map that keeps its tensor in a tuple."""

    matrices: tuple[Tensor, ...]

    def apply(self, x: Tensor) -> Tensor:
        """Multiply."""
        return x @ self.matrices[0].T

    def adjoint(self) -> LinearMap:
        """Transpose."""
        return InTuple((self.matrices[0].T,))

    def trace(self, event_shape: Shape) -> Tensor:
        """Sum the diagonal."""
        return self.matrices[0].trace()

    def norm_bound(self, event_shape: Shape) -> float:
        """Bound the norm."""
        return 2.0


@dataclass(frozen=True, eq=False)
class InList(Attribute):
    """A user's map that keeps its tensor in a list."""

    matrices: list[Tensor]

    def __init__(self, matrix: Tensor) -> None:
        object.__setattr__(self, "matrices", [matrix])

    @property
    def matrix(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return the tensor."""
        return self.matrices[0]


@dataclass(frozen=True, eq=False)
class Derived(Attribute):
    """A user's map with a field, whose tensor is derived from another that is no field."""

    size: float

    def __init__(self, matrix: Tensor, size: float = 1.0) -> None:
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "_hidden", matrix)

    @property
    def matrix(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return the tensor."""
        return self._hidden * self.size  # pyright: ignore[reportAttributeAccessIssue]


GLOBAL: dict[str, Tensor] = {}


@dataclass(frozen=True, eq=False)
class Global(LinearMap):
    """A user's map that reads its tensor from elsewhere."""

    turned: bool = False

    def apply(self, x: Tensor) -> Tensor:
        """Multiply."""
        return x @ (GLOBAL["matrix"] if self.turned else GLOBAL["matrix"].T)

    def adjoint(self) -> LinearMap:
        """Transpose."""
        return Global(not self.turned)

    def trace(self, event_shape: Shape) -> Tensor:
        """Sum the diagonal."""
        return GLOBAL["matrix"].trace()

    def norm_bound(self, event_shape: Shape) -> float:
        """Bound the norm."""
        return 2.0


@dataclass(frozen=True, eq=False)
class WrongAdjoint(LinearMap):
    """A user's map that says it is its own adjoint and is not."""

    matrix: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Multiply."""
        return x @ self.matrix.T

    def adjoint(self) -> LinearMap:
        """Forget to transpose."""
        return self

    def trace(self, event_shape: Shape) -> Tensor:
        """Sum the diagonal."""
        return self.matrix.trace()

    def norm_bound(self, event_shape: Shape) -> float:
        """Bound the norm."""
        return 2.0


def read_global(matrix: Tensor) -> LinearMap:
    """Put the tensor where the map finds it."""
    GLOBAL["matrix"] = matrix
    return Global()
