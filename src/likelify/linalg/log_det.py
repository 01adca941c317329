r"""Log-determinants of `I + J` for contractions `J` that can only be multiplied with, by `v -> J^T v`.

Three methods: `Exact` forms the matrix, `Truncated` sums the power series with exact traces and bounds what it leaves
out, `Roulette` draws random vectors and a random number of terms, and is right on average. Each also gives pairs
`(w, v)` with which

    d log det(I + J) = sum <w, dJ v>,

exactly, up to the truncation, or on average; so a gradient needs no graph through the series.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from likelify.errors import ConfigError, ConvergenceError, ShapeError
from likelify.tracing import Recorder, in_forward_mode, is_tracing

# Elements that one product with unit vectors works on at once, and elements of all matrices formed at once.
CHUNK, MATRICES = 2**18, 2**26
# Rounding may carry an observed slope beyond its bound by this much; more contradicts the bound.
SLACK = 1.01
# Terms of an estimate that could be larger than this share of the noise in its first one are always there.
NOISE = 0.5
# Bounds in nats, `(items,)`, of the truncation of every log-determinant inside a `with truncations() as found:` block.
truncations = Recorder[Tensor]("truncated_log_dets")

Pair = tuple[Tensor, Tensor]


class Products(Protocol):
    """Products with the Jacobians `J_r` of a batch of rows, several for each row at once.

    Attributes:
        rows: number of Jacobians.
        copies: how many vectors are multiplied for each.
        size: of an event.
        x: `(copies * rows, *event)`, the point, which gives dtype and device.
    """

    rows: int
    copies: int
    size: int
    x: Tensor

    @property
    def lipschitz(self) -> float:
        """Bound of `||J_r||_2`."""
        ...

    def vjp(self, v: Tensor, *, create_graph: bool = False) -> Tensor:
        """Return `J^T v` for `(copies * rows, *event)`, the rows running fastest."""
        ...


@dataclass(frozen=True, eq=False)
class LogDetValue:
    """Log-determinants of a batch, with what is known of their errors.

    Attributes:
        value: `(rows,)`, nats.
        error: bound of the truncation error of each, or None if there is none or none is known.
        kept: what the method wants back for its pairs.
    """

    value: Tensor
    error: Tensor | None = None
    kept: tuple[Tensor, ...] = ()


class LogDet(ABC):
    """A way to find `log det(I + J)`.

    Attributes:
        noisy: whether the values are random, right on average only.
    """

    noisy: bool = False

    @abstractmethod
    def measure(self, jacobian: Products) -> LogDetValue:
        """Return the value for each row."""

    @abstractmethod
    def pairs(self, jacobian: Products, kept: tuple[Tensor, ...]) -> Iterator[Pair]:
        """Return vectors `(w, v)`, each `(copies * rows, *event)`, of the formula of the gradient above."""

    def copies(self, rows: int, size: int) -> int:
        """Say how many vectors to multiply at once for each row."""
        return max(1, min(size, CHUNK // max(1, rows * size)))

    def pieces(self, jacobian: Products) -> int:
        """Say how many pairs there will be."""
        return -(-jacobian.size // jacobian.copies)

    def group(self, size: int) -> int | None:
        """Say how many rows to treat at once, None for all."""
        return None


@dataclass(frozen=True)
class Exact(LogDet):
    """Form every Jacobian, one product for each element of the event, and factorize it.

    Attributes:
        limit: largest size of an event.
    """

    limit: int = 4096

    def measure(self, jacobian: Products) -> LogDetValue:
        """Return the value for each row."""
        return LogDetValue(self.differentiable(jacobian, create_graph=False))

    def differentiable(self, jacobian: Products, *, create_graph: bool = True) -> Tensor:
        """Return the value for each row by operations that automatic differentiation can follow."""
        matrices = self._matrices(jacobian, create_graph=create_graph)
        if is_tracing() and in_forward_mode():
            # In forward mode inside of forward mode PyTorch's own log-determinant loses tangents.
            return torch.linalg.lu_factor(matrices)[0].diagonal(dim1=1, dim2=2).abs().log().sum(1)
        sign, value = torch.linalg.slogdet(matrices)
        # Of rows that are not finite nothing follows, neither for the network nor for other rows.
        finite = torch.isfinite(matrices.detach()).flatten(1).all(1)
        value = torch.where(finite, value, torch.nan)
        if not is_tracing() and bool(((sign <= 0) & finite).any()):
            raise ConvergenceError(
                "The determinant of I + J is not positive, so the network is no contraction and the layer not "
                f"invertible. The Lipschitz constant {jacobian.lipschitz:.4g} that was declared for it is wrong."
            )
        return value

    def pairs(self, jacobian: Products, kept: tuple[Tensor, ...]) -> Iterator[Pair]:
        """Return the columns of `(I + J)^-T`, and the unit vectors."""
        inverse = torch.linalg.inv(self._matrices(jacobian, create_graph=False))
        for start in range(0, jacobian.size, jacobian.copies):
            units = _units(jacobian, start)
            rows = inverse[:, start : start + jacobian.copies].movedim(1, 0)
            columns = torch.zeros_like(units).reshape(jacobian.copies, jacobian.rows, jacobian.size)
            columns[: len(rows)] = rows
            yield columns.reshape_as(units), units

    def group(self, size: int) -> int | None:
        """Say how many rows to treat at once."""
        return max(1, MATRICES // size**2)

    def _matrices(self, jacobian: Products, *, create_graph: bool) -> Tensor:
        """Return `I + J`, `(rows, size, size)`."""
        size = jacobian.size
        if size > self.limit:
            raise ShapeError(
                f"An exact log-determinant of events of {size} elements needs matrices of {size} x {size}; the "
                f"limit is {self.limit}. Use log_det='truncated' (slower, no matrix), or raise it: Exact(limit={size})."
            )
        rows = []
        for start in range(0, size, jacobian.copies):
            pulled = jacobian.vjp(_units(jacobian, start), create_graph=create_graph)
            rows.append(pulled.reshape(jacobian.copies, jacobian.rows, size))
        return torch.cat(rows)[:size].movedim(0, 1) + torch.eye(size).to(jacobian.x)


@dataclass(frozen=True)
class Truncated(LogDet):
    r"""Sum `tr J - tr J^2 / 2 + tr J^3 / 3 - ...` over all unit vectors; no matrix is formed.

    For a unit vector `e`, `|e^T J^(n+j) e| <= ||(J^T)^n e|| L^j`. So stopping after `n` terms leaves out at most

        sum_e ||(J^T)^n e|| / (n + 1) * L / (1 - L)   <=   size L^(n+1) / ((n + 1) (1 - L)),

    and the left side, which is known by then, decides when the series stops.

    Attributes:
        tol: nats that may be left out for each row; 1e-4 by default, in double precision 1e-10.
        terms: a fixed number of terms instead.
    """

    tol: float | None = None
    terms: int | None = None

    def __post_init__(self) -> None:
        if (self.tol is not None and not self.tol > 0) or (self.terms is not None and self.terms < 1):
            raise ConfigError(f"Truncated needs a positive tol or at least one term, got {self}.")

    def measure(self, jacobian: Products) -> LogDetValue:
        """Return the value for each row, and the bound of what was left out."""
        value = error = jacobian.x.new_zeros(jacobian.rows)
        for units, allowed in self._chunks(jacobian):
            _, part, rest = self._series(jacobian, units, allowed)
            value, error = value + part, error + rest
        return LogDetValue(value, error)

    def pairs(self, jacobian: Products, kept: tuple[Tensor, ...]) -> Iterator[Pair]:
        """Return `sum_k (-J^T)^k e` for the unit vectors `e`, and these."""
        for units, allowed in self._chunks(jacobian):
            yield self._series(jacobian, units, allowed)[0], units

    def _chunks(self, jacobian: Products) -> Iterator[tuple[Tensor, float]]:
        """Return some unit vectors after the other, and the nats that may be left out for them."""
        tol = self.tol or (1e-10 if jacobian.x.dtype == torch.float64 else 1e-4)
        for start in range(0, jacobian.size, jacobian.copies):
            count = min(jacobian.copies, jacobian.size - start)
            yield _units(jacobian, start), tol * count / jacobian.size

    def _series(self, jacobian: Products, units: Tensor, allowed: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sums `w` over the powers, the part of the log-determinant and the bound of what it leaves out."""
        limit, k = jacobian.lipschitz, 0
        rest_factor = limit / (1 - limit) if limit < 1 else math.inf
        power, total = units, torch.zeros_like(units)
        value = units.new_zeros(jacobian.rows)
        while True:
            total = total + (power if k % 2 == 0 else -power)
            power, k = jacobian.vjp(power), k + 1
            value = value - (-1) ** k / k * inner_products(jacobian, power, units)
            sizes = power.flatten(1).norm(dim=1)
            rest = sizes.reshape(jacobian.copies, jacobian.rows).sum(0) * (rest_factor / (k + 1))
            if bool((sizes > SLACK * limit**k).any()) or not bool(torch.isfinite(rest).all()):
                raise ConvergenceError(
                    f"A unit vector has the norm {float(sizes.max()):.4g} after {k} products with the Jacobian; the "
                    f"Lipschitz constant {limit:.4g} that was declared for the network allows {limit**k:.4g}. It is "
                    "wrong, or something is not finite."
                )
            if k == self.terms or (self.terms is None and bool((rest <= allowed).all())):
                return total, value, rest


@dataclass(frozen=True)
class Roulette(LogDet):
    r"""Estimate the series with random signs `v` and a random number of terms: right on average, at any size.

    A term is there with a probability `P_k` that is one at first, never grows, and divides it:

        log det(I + J) = E sum_(k <= N) (-1)^(k+1) / (k P_k) v^T J^k v,    P_k = P(N >= k).

    The gradient is `E <sum_(k <= N) (-1)^k / P_k (J^T)^k v, dJ v>` (the Neumann series), not that of the value that was
    drawn.

    By default `P_(k+1)` follows the vectors: it is the bound `||v|| ||(J^T)^k v|| / (k + 1)` of the next term over half
    of `||J^T v||`, which is about the noise of the first term, for the row where that is largest; and one where it is
    larger than one. The vectors are known before it is decided, so the mean stays right. No term that may be absent
    then weighs more than that noise, so the variance is finite, and layers that contract much take few terms. (A host
    sync for each of them on accelerators; with a fixed probability there is none.)

    Attributes:
        exact_terms: how many terms there are at least.
        continuation: a fixed probability of one more term after these instead; the variance then is finite only if the
            square of the spectral radius of `J` is below it.
        samples: vectors for each row.

    Source:
        Chen et al. 2019 (residual flows), sections 3.1 and 3.2, for the estimate and the two series. Their number of
        terms has a distribution of its own, with which the variance need not be finite.
    """

    exact_terms: int = 2
    continuation: float | None = None
    samples: int = 1
    noisy = True

    def __post_init__(self) -> None:
        if self.exact_terms < 1 or self.samples < 1:
            raise ConfigError(f"Roulette needs at least one term and one sample, got {self}.")
        if self.continuation is not None and not 0 < self.continuation < 1:
            raise ConfigError(f"continuation is a probability between 0 and 1, got {self.continuation}.")

    def copies(self, rows: int, size: int) -> int:
        """Say how many vectors to multiply at once for each row."""
        return self.samples

    def pieces(self, jacobian: Products) -> int:
        """Say how many pairs there will be."""
        return 1

    def measure(self, jacobian: Products) -> LogDetValue:
        """Draw an estimate for each row; the number of terms is the same for all."""
        signs = torch.rand_like(jacobian.x.detach()) < 0.5
        probes = _signed(signs, jacobian.x)
        total, value, reached = probes, probes.new_zeros(jacobian.rows), 1.0
        first = None
        for k, (power, norm) in enumerate(_powers(jacobian, probes), 1):
            first = norm if first is None else first
            total = total + (-1) ** k / reached * power
            value = value - (-1) ** k / (k * reached) * inner_products(jacobian, power, probes)
            if k >= self.exact_terms:
                before, reached = reached, self._reach(jacobian, k, norm, first, reached)
                if reached <= before * float(torch.rand((), dtype=torch.float64)):
                    break
        return LogDetValue(value / self.samples, None, (signs, total / self.samples))

    def _reach(self, jacobian: Products, k: int, norm: Tensor, first: Tensor, reached: float) -> float:
        """Return the probability of the term after `k`."""
        if self.continuation is not None:
            return self.continuation * reached
        left = float((norm / first.clamp_min(torch.finfo(norm.dtype).tiny)).max()) if norm.numel() else 0.0
        if not left <= (SLACK * jacobian.lipschitz) ** (k - 1):
            raise ConvergenceError(
                f"{k - 1} products with the Jacobian multiply a norm by {left:.4g}, which the Lipschitz constant "
                f"{jacobian.lipschitz:.4g} that was declared for the network does not allow. It is wrong, or something "
                "is not finite."
            )
        return min(reached, left * math.sqrt(jacobian.size) / (NOISE * (k + 1)))

    def pairs(self, jacobian: Products, kept: tuple[Tensor, ...]) -> Iterator[Pair]:
        """Return the sums over the powers and the random vectors of the estimate that was drawn."""
        signs, total = kept
        yield total, _signed(signs, total)


def _units(jacobian: Products, start: int) -> Tensor:
    """Return as many unit vectors from number `start` on as there are copies, for every row; zeros after the last."""
    count = min(jacobian.copies, jacobian.size - start)
    units = torch.zeros_like(jacobian.x.detach()).reshape(jacobian.copies, jacobian.rows, jacobian.size)
    units[:count, :, start : start + count] = torch.eye(count).to(units)[:, None]
    return units.reshape_as(jacobian.x)


def _powers(jacobian: Products, v: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Return `J^T v, (J^T)^2 v, ...`, and their norms.

    What is multiplied has the norm one, with its size apart: processors take 30 times as long with numbers that are too
    small to be normalized, which powers of a small matrix soon are.
    """
    event = tuple(range(1, v.ndim))
    size = torch.linalg.vector_norm(v, dim=event, keepdim=True)
    v = v / size
    while True:
        v = jacobian.vjp(v)
        norm = torch.linalg.vector_norm(v, dim=event, keepdim=True)
        v, size = v / norm.clamp_min(torch.finfo(v.dtype).tiny), size * norm
        yield v * size, size


def inner_products(jacobian: Products, left: Tensor, right: Tensor) -> Tensor:
    """Return the inner products, summed over the copies: `(rows,)`."""
    return (left * right).reshape(jacobian.copies, jacobian.rows, jacobian.size).sum((0, 2))


def _signed(signs: Tensor, like: Tensor) -> Tensor:
    return signs.to(like.dtype) * 2 - 1
