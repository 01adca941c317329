"""Any linear callable or module as a linear map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from likelify.errors import ConvergenceError, DomainError, ShapeError
from likelify.linalg.bounds import gram_bound, power_iteration, widest
from likelify.linalg.maps import LinearMap, check_declared_norm
from likelify.shapes import Shape
from likelify.tracing import is_tracing


@dataclass(frozen=True, eq=False)
class Function(LinearMap):
    r"""Any linear callable, for example a linear `nn.Module`, as a map.

    Args:
        function: linear, acting on each row of `(rows, *event)` by itself.
        norm: a guaranteed upper bound of its 2-norm. Without one, small events are probed.
        adjoint_function: its adjoint. Without one, the adjoint is found by automatic differentiation.
        like: a tensor whose dtype and device the function needs when it is probed. `exp_action` and layers take those
            of their input; elsewhere it is the default dtype.
        trusted: skip the check of linearity that `exp_action` and layers make on three random rows.

    The trace is found by probing with all unit vectors, so the event may hold at most 4096 elements; for larger ones
    there is `likelify.linalg.trace.estimate_trace`. Tensors that the function uses are unknown to the map, so their
    gradients come from differentiating every term (`likelify.linalg.Unrolled`).

    Example:
        >>> blur = Function(lambda x: (x + x.roll(1, dims=1)) / 2, norm=1.0)
        >>> blur.trace((4,))
        tensor(2.)
    """

    function: Callable[[Tensor], Tensor]
    norm: float | None = None
    adjoint_function: Callable[[Tensor], Tensor] | None = None
    like: Tensor | None = None
    trusted: bool = False

    def matching(self, x: Tensor) -> Function:
        """Return the function with probes like `x`, unless it has its own; refuse it if it is seen not to be linear.

        Raises:
            DomainError: if the function is affine or not linear on a row of `x` and a random row.
            ConvergenceError: if its norm is seen to be larger than the declared one.
        """
        if not (self.trusted or is_tracing()) and len(x):
            self.check_linear(x.detach()[:1])
            self._check_norm(x.detach()[:1])
            # Once is enough: a layer and the engine both ask.
            return replace(self, like=x.detach()[:0] if self.like is None else self.like, trusted=True)
        return self if self.like is not None else replace(self, like=x.detach()[:0])

    def check_linear(self, x: Tensor) -> None:
        """Compare `f(2x - 3y)` with `2 f(x) - 3 f(y)` for a random `y`, and `f(0)` with zero.

        Raises:
            DomainError: if they differ by more than rounding explains, if a row depends on other rows, or if the
                function changes its input.
            ShapeError: if the image has another shape or dtype than the input.
        """
        if not bool(torch.isfinite(x).all()):
            return
        # A generator of its own: looking must not change the user's stream of random numbers.
        y = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x) * (1 + x.abs().amax())
        # The last two are of size one whatever the size of the input.
        u = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x)
        probes = torch.cat([0 * x, x, y, 2 * x - 3 * y, u, -2 * u])
        given = probes.clone()
        try:
            with torch.no_grad():
                found, alone = self.function(given), self.function(torch.cat([x, x]))[: len(x)]
        except RuntimeError as error:
            raise ShapeError(f"The function refuses events of shape {tuple(x.shape[1:])}: {error}.") from error
        self._check_manners(probes, given, found)
        of_zero, of_x, of_y, of_both, of_u, of_minus_two_u = found.split(len(x))
        scale = float((of_x.abs() + of_y.abs() + of_both.abs()).max())
        # Values near the smallest of the format have few digits.
        least = 16 * torch.finfo(x.dtype).tiny
        allowed = scale * torch.finfo(x.dtype).eps ** 0.6 + least
        if float((alone - of_x).abs().max()) > allowed:
            raise DomainError(
                "The function does not act on each row by itself: a row has another image among other rows. "
                "Statistics of the batch and random numbers (dropout) have no place in a linear map."
            )
        # A linear function maps zero to zero without any rounding.
        if float(of_zero.abs().max()) > least:
            raise DomainError(
                "The function is affine, not linear: it maps zero to something else, such as a bias. Take the bias "
                "out (bias=False); a shift is a layer of its own (Affine, ActNorm)."
            )
        unit = float(of_u.abs().max()) * torch.finfo(x.dtype).eps ** 0.6 + least
        gaps = (of_both - 2 * of_x + 3 * of_y).abs().max(), (of_minus_two_u + 2 * of_u).abs().max()
        if float(gaps[0]) > allowed or float(gaps[1]) > unit:
            raise DomainError(
                "The function is not linear: f(2x - 3y) differs from 2 f(x) - 3 f(y). Only linear maps have an "
                "exponential; a network becomes a layer as part of a coupling or residual layer."
            )

    def _check_norm(self, x: Tensor) -> None:
        """Compare a declared norm with what a few steps of power iteration find."""
        if self.norm is None:
            return
        start = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).to(x)
        with torch.no_grad():
            found = float(power_iteration(self.apply, self.adjoint().apply, start, steps=3))
        if found > 1.02 * self.norm:
            raise ConvergenceError(
                f"The function was declared to have a norm of at most {self.norm:.3g}, but its norm is at least "
                f"{found:.3g}: the bound is wrong and no certificate would hold. Correct norm=, or leave it out to "
                "have it computed."
            )

    @staticmethod
    def _check_manners(probes: Tensor, given: Tensor, found: object) -> None:
        if not isinstance(found, Tensor) or found.shape != probes.shape or found.dtype != probes.dtype:
            what = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise ShapeError(
                f"The function must give a tensor of the shape and dtype of its input, {probes.dtype} "
                f"{tuple(probes.shape)}; it gave {what}. Only maps of a space to itself have an exponential."
            )
        if not torch.equal(probes, given):
            raise DomainError("The function changes its input in place. Let it work on a copy.")
        if not bool(torch.isfinite(found).all()):
            raise DomainError("The function gave values that are not finite for a finite input.")

    def __post_init__(self) -> None:
        check_declared_norm(self.norm)

    def apply(self, x: Tensor) -> Tensor:
        """Call the function."""
        return self.function(x)

    def adjoint(self) -> Function:
        """Return the adjoint function, by automatic differentiation where none was given."""
        return Function(self.adjoint_function or self._transposed, self.norm, self.function, self.like, self.trusted)

    def trace(self, event_shape: int | Shape) -> Tensor:
        """Probe with all unit vectors."""
        return self.materialize(event_shape).trace()

    def norm_bound(self, event_shape: Shape) -> float | Tensor:
        """Return the bound that was declared, or bound the probed matrix."""
        return gram_bound(self._probed(event_shape), steps=5) if self.norm is None else self.norm

    def growth_bound(self, event_shape: Shape) -> float | Tensor:
        """Return the declared norm, or bound the symmetric part of the probed matrix."""
        if self.norm is not None:
            return self.norm
        matrix = self._probed(event_shape)
        return gram_bound((matrix + matrix.mT) / 2, steps=5)

    def sharpened(self) -> Function:
        """Compute the norm of a small event instead of taking the declared one."""
        return replace(self, norm=None, trusted=True)

    def frobenius_bound(self, event_shape: Shape) -> float | Tensor:
        """Return the Frobenius norm of the probed matrix, unless the norm was declared."""
        if self.norm is not None:
            return super().frobenius_bound(event_shape)
        return torch.linalg.matrix_norm(self._probed(event_shape)) * (1 + 1e-12)

    def _probed(self, event_shape: Shape) -> Tensor:
        with torch.no_grad():
            return widest(self.materialize(event_shape))

    def _transposed(self, y: Tensor) -> Tensor:
        if not torch.is_inference_mode_enabled():
            return self._by_gradient(y)
        with torch.inference_mode(mode=False):
            return self._by_gradient(y.clone()).detach()

    def _by_gradient(self, y: Tensor) -> Tensor:
        # A linear function equals its derivative anywhere, so zero is as good a point as any.
        with torch.enable_grad():
            point = torch.zeros_like(y, requires_grad=True)
            value = self.function(point)
            (result,) = torch.autograd.grad(value, point, y, create_graph=True)
        return result
