"""Rotations of the channels, and the fixed orthogonal matrices that stand beside exponentials."""

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor

from likelify.caching import Caching
from likelify.errors import ConfigError, DomainError, ShapeError, unknown_word
from likelify.linalg.dense import apply_matrix
from likelify.linalg.householder import householder_matrix, reflect
from likelify.structure import ContextLike, zero_log_det
from likelify.tracing import is_tracing
from likelify.transforms.core import Chain, Transform
from likelify.transforms.exponential.layers import Exponential
from likelify.transforms.exponential.parametrizations import HouseholderVectors, SkewMatrix
from likelify.transforms.inversion import SENSITIVE
from likelify.transforms.rules import ORTHOGONAL, orthogonality_gap


class _Turning(Transform, Caching):
    """What orthogonal matrices on the channels share: the inverse is the transpose, the log-determinant is zero."""

    fills_space = True
    inverse_check = SENSITIVE

    @abstractmethod
    def _turn(self, x: Tensor, context: ContextLike, *, transposed: bool) -> Tensor:
        """Multiply the channels by the matrix or by its transpose."""

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Multiply the channels by the matrix."""
        return self._turn(x, context, transposed=False), zero_log_det(x, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Multiply the channels by the transpose."""
        return self._turn(z, context, transposed=True), zero_log_det(z, context)


class Orthogonal(_Turning):
    r"""A fixed orthogonal matrix on the channels: `z = Q x`, `x = Q^T z`, log-determinant zero.

    Exponentials have positive determinants and start at the identity; this is what to put beside them for a negative
    one (`Orthogonal.signs`) or for another start.

    Args:
        matrix: `(c, c)`, orthogonal to 1e-5. In double precision the nearest orthogonal matrix is used, so that one
            that was given in single precision serves a model that is made double.

    Raises:
        DomainError: if the matrix is not orthogonal.

    Example:
        >>> mirror = Orthogonal.signs([1, -1])
        >>> mirror(torch.tensor([[1.0, 2.0]]))[0]
        tensor([[ 1., -2.]])
    """

    buffer_rules = {"matrix": ORTHOGONAL}
    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        matrix = torch.as_tensor(matrix)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ShapeError(f"Orthogonal needs a square matrix, got shape {tuple(matrix.shape)}.")
        gap = orthogonality_gap(matrix)
        if not gap < 1e-5:
            raise DomainError(
                f"The matrix is not orthogonal: Q Q^T differs from the identity by {gap:.2g}. Take the Q of "
                "torch.linalg.qr, for example."
            )
        self.register_buffer("matrix", matrix.detach().clone())
        self.takes = (len(matrix), ...)

    @classmethod
    def signs(cls, signs: list[int]) -> "Orthogonal":
        """Flip the channels whose sign is -1."""
        return cls(torch.diag(torch.tensor(signs, dtype=torch.get_default_dtype())))

    def _turn(self, x: Tensor, context: ContextLike, *, transposed: bool) -> Tensor:
        matrix = self.cached("matrix", self._polished) if self.matrix.dtype == torch.float64 else self.matrix
        return apply_matrix(matrix.T if transposed else matrix, x)

    def _polished(self) -> Tensor:
        # Two of Newton's steps towards the nearest orthogonal matrix, each of which squares the error; signs and
        # permutations stay what they are.
        matrix = self.matrix
        for _ in range(2):
            matrix = 1.5 * matrix - 0.5 * matrix @ (matrix.T @ matrix)
        return matrix


class Cayley(_Turning):
    r"""The rotation `z = (I - S)^-1 (I + S) x` of the channels, with `S` the trained skew part of a matrix.

    Exactly orthogonal up to rounding, at the price of one factorization a call; it reaches every rotation without the
    eigenvalue -1. Starts at the identity. Log-determinant zero.

    Args:
        parametrization: builds the `Skew` map.

    Source:
        Cayley 1846.
    """

    def __init__(self, parametrization: SkewMatrix) -> None:
        super().__init__()
        self.parametrization = parametrization
        self.takes = (len(parametrization.tensor("weight")), ...)

    def _turn(self, x: Tensor, context: ContextLike, *, transposed: bool) -> Tensor:
        if self.parametrization.context_features:
            matrix = self._matrix(self._skew(context))
        elif self._cache is None and x.numel() < x.shape[1] ** 2:
            # Fewer columns than channels: solving for them costs less than for the matrix.
            skew = self._skew(None)
            skew = skew.mT if transposed else skew
            columns = x.movedim(1, 0).flatten(1)
            # (I - S)^-1 (I + S) = 2 (I - S)^-1 - I: the solve is all there is to do.
            turned = 2 * _solve(skew, columns) - columns
            return turned.unflatten(1, (len(x), *x.shape[2:])).movedim(0, 1)
        else:
            matrix = self.cached("matrix", lambda: self._matrix(self._skew(None)))
        return apply_matrix(matrix.mT if transposed else matrix, x)

    def _skew(self, context: ContextLike) -> Tensor:
        return self.parametrization(context).effective

    @staticmethod
    def _matrix(skew: Tensor) -> Tensor:
        return 2 * _solve(skew, _eye(skew)) - _eye(skew)


def _solve(skew: Tensor, columns: Tensor) -> Tensor:
    """Return `(I - S)^-1 columns`."""
    matrix = _eye(skew) - skew
    if is_tracing():
        # Tangents of tangents of `solve` are wrong in torch 2.13.
        return torch.linalg.inv(matrix) @ columns
    # Never singular, since S is skew: to look whether it is would make the host wait for a device.
    return torch.linalg.solve_ex(matrix, columns, check_errors=False).result


def _eye(skew: Tensor) -> Tensor:
    # Of the shape of `skew`: a system for each row with one (c, c) matrix on the right would be taken for as many
    # vectors if there are c rows.
    return torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device).expand_as(skew)


class Householder(_Turning):
    r"""A product of Householder reflections of the channels, `z = H_1 H_2 ... H_K x`, with `x = H_K ... H_2 H_1 z`.

    `H_k = I - 2 v_k v_k^T / |v_k|^2`. Log-determinant exactly zero; the determinant is `(-1)^K`. With `K >= c` every
    orthogonal matrix of that determinant is reached; fewer reflections are cheaper (`likelify.linalg.householder`). A
    fresh layer is a random orthogonal matrix. A vector that becomes exactly zero reflects nothing, and stays so; the
    map is orthogonal and its log-determinant zero all the same.

    Args:
        parametrization: gives the vectors of the reflections.

    Raises:
        ShapeError: if the input has other channels, or other rows than the condition.

    Source:
        Tomczak and Welling 2016 (in flows); Schreiber and Van Loan 1989 (the compact WY form).
    """

    def __init__(self, parametrization: HouseholderVectors) -> None:
        super().__init__()
        self.parametrization = parametrization
        self.takes = (parametrization.tensor("vectors").shape[1], ...)

    def _turn(self, x: Tensor, context: ContextLike, *, transposed: bool) -> Tensor:
        if self._cache is None or self.parametrization.context_features:
            return reflect(self.parametrization(context), x, transposed=transposed)
        matrix = self.cached("matrix", lambda: householder_matrix(self.parametrization(None)))
        return apply_matrix(matrix.mT if transposed else matrix, x)


def rotation(
    size: int,
    *,
    start: Tensor | None = None,
    method: Literal["exponential", "cayley", "householder"] = "exponential",
    reflections: int | None = None,
    context_features: int = 0,
    tol: float | None = None,
) -> Transform:
    r"""Build a trained rotation of the channels, `z = R x` with `x = R^T z`; log-determinant exactly zero.

    `R = exp(S) start` with `S` skew, which reaches every rotation, or a product of Householder reflections, which is
    cheaper with many channels.

    Args:
        size: number of channels, axis 1 of `(rows, size, ...)`.
        start: orthogonal `(size, size)`, the value before training; the identity by default, and for `"householder"` a
            random matrix. One with determinant -1 gives the reflections instead of the rotations.
        method: `"exponential"`; `"cayley"`, which cannot reach rotations by 180 degrees from the start; or
            `"householder"`.
        reflections: number K of `"householder"`; by default the largest even number up to `size`, which reaches every
            rotation. Without a `start`, an odd number gives matrices of determinant -1.
        context_features: size of the condition; with one, each row has a rotation of its own, which depends on it.
        tol: as in `exp_action`; of `"exponential"` only.

    Example:
        >>> layer = rotation(3, start=torch.eye(3)[[1, 2, 0]])
        >>> layer(torch.tensor([[1.0, 2.0, 3.0]]))[0]
        tensor([[2., 3., 1.]], grad_fn=...)
    """
    if method not in ("exponential", "cayley", "householder"):
        raise ConfigError(unknown_word("method", method, ["exponential", "cayley", "householder"]))
    if reflections is not None and method != "householder":
        raise ConfigError(f"reflections belong to the method 'householder', not to {method!r}.")
    if tol is not None and method != "exponential":
        raise ConfigError(f"tol belongs to the method 'exponential', not to {method!r}.")
    if start is not None:
        start = torch.as_tensor(start)
        start = start if start.is_floating_point() else start.to(torch.get_default_dtype())
        if start.shape != (size, size):
            raise ShapeError(f"start must have shape ({size}, {size}), got {tuple(start.shape)}.")
    if method == "householder":
        return _reflections(HouseholderVectors(size, reflections, context_features=context_features), start)
    parametrization = SkewMatrix(size, context_features=context_features)
    turned = Exponential(parametrization, tol=tol) if method == "exponential" else Cayley(parametrization)
    return turned if start is None else Chain([Orthogonal(start), turned])


def _reflections(parametrization: HouseholderVectors, start: Tensor | None) -> Transform:
    if start is None:
        return Householder(parametrization)
    # The random product that the vectors give is undone first, so that what is left at the beginning is the start.
    vectors = parametrization.get_parameter("vectors").detach().to(start.device, torch.float64)
    rest = (householder_matrix(vectors).T @ start.double()).to(start.dtype)
    return Chain([Orthogonal(rest), Householder(parametrization)])
