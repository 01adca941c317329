r"""Functions `f` of one variable for which `u + f(u)` increases, and the roots of `u + f(u) = v`."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from likelify.errors import ConfigError, ConvergenceError


class ScalarResidual(ABC):
    r"""A family of functions `f(u)` of one variable with `f' > -1`, so that `u + f(u)` increases.

    Attributes:
        size: parameters of each function.
    """

    size: int

    @abstractmethod
    def evaluate(self, u: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return `f(u)` and `f'(u)`, for `u` of shape `(rows, *rest)` and parameters `(rows, size, *rest)`."""

    def step(self, u: Tensor, raw: Tensor, v: Tensor, residual: Tensor, slope: Tensor) -> Tensor:
        """Return a better solution of `u + f(u) = v`, from `u` with its residual `u + f(u) - v` and slope.

        In general: the root itself, found between bounds by bisection and Newton steps.
        """
        return find_roots(lambda x: self.evaluate(x, raw), v, u, residual)

    def linearize(self, u: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return the derivatives of `f(u)` by its parameters, `(rows, size, *rest)`, and by `u`."""
        with torch.enable_grad():
            raw = raw.detach().requires_grad_()
            value, slope = self.evaluate(u.detach(), raw)
            (derivatives,) = torch.autograd.grad(value.sum(), raw)
        return derivatives, slope.detach()


class FreeTanhResidual(ScalarResidual):
    r"""`f(u) = s2 tanh(s1 u + t1) + t2`; the parameters are `t1, s1, s2, t2` in this order, with `s1 s2 > -1`.

    The parameters are used as they are: whoever gives them sees to `s1 s2 > -1`. The original Sylvester flows have this
    form (van den Berg et al. 2018).
    """

    size = 4

    def coefficients(self, raw: Tensor) -> tuple[Tensor, ...]:
        """Return `t1, s1, s2, t2`, each of the shape of `u`."""
        return raw.unbind(1)

    def evaluate(self, u: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return `f(u)` and `f'(u) = s1 s2 (1 - tanh^2)`."""
        t1, s1, s2, t2 = self.coefficients(raw)
        bend = torch.tanh(torch.addcmul(t1, s1, u))
        return torch.addcmul(t2, s2, bend), s1 * s2 * (1 - bend.square())

    def linearize(self, u: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return the derivatives by `t1, s1, s2, t2`, and by `u`."""
        t1, s1, s2, _ = self.coefficients(raw)
        bend = torch.tanh(torch.addcmul(t1, s1, u))
        inner = s2 * (1 - bend.square())
        return torch.stack([inner, inner * u, bend, torch.ones_like(u)], 1), inner * s1

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class TanhResidual(FreeTanhResidual):
    r"""`f(u) = limit tanh(s2) tanh(tanh(s1) u + t1) + t2`, the form of the first paper (section 4.1): `|f'| < limit`.

    Any values will do for the parameters `t1, s1, s2, t2`.

    Args:
        slope_limit: above 0, at most 0.999; 0.5 in the paper.
    """

    def __init__(self, slope_limit: float = 0.5) -> None:
        if not 0 < slope_limit <= 0.999:
            raise ConfigError(
                f"slope_limit must lie above 0 and be at most 0.999, so that slopes stay off -1; got {slope_limit}."
            )
        self.slope_limit = slope_limit

    def coefficients(self, raw: Tensor) -> tuple[Tensor, ...]:
        """Return `t1, tanh(s1), limit tanh(s2), t2`."""
        t1, s1, s2, t2 = raw.unbind(1)
        return t1, torch.tanh(s1), self.slope_limit * torch.tanh(s2), t2

    def step(self, u: Tensor, raw: Tensor, v: Tensor, residual: Tensor, slope: Tensor) -> Tensor:
        """Return a Newton step; up to a limit of one half it always comes nearer, as slopes differ by less than 2."""
        if self.slope_limit > 0.5:
            return super().step(u, raw, v, residual, slope)
        return u - residual / (1 + slope)

    def linearize(self, u: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return the derivatives by the four parameters, and by `u`."""
        derivatives, slope = super().linearize(u, raw)
        derivatives[:, 1] *= 1 - torch.tanh(raw[:, 1]).square()
        derivatives[:, 2] *= self.slope_limit * (1 - torch.tanh(raw[:, 2]).square())
        return derivatives, slope

    def __repr__(self) -> str:
        return f"TanhResidual(slope_limit={self.slope_limit})"


def find_roots(function: Callable[[Tensor], tuple[Tensor, Tensor]], v: Tensor, u: Tensor, residual: Tensor) -> Tensor:
    """Find the roots of the increasing functions `u + f(u) - v`, by Newton steps that bisection keeps between bounds.

    Args:
        function: gives `f(u)` and `f'(u) > -1`.
        v: the values to be reached.
        u: where to start.
        residual: `u + f(u) - v` there.

    Raises:
        ConvergenceError: if a function does not reach its value within the range of its dtype.

    Returns:
        The roots; NaN where values are not finite.
    """
    # What is not finite has no root, and is no reason to keep others from theirs.
    lost = ~residual.isfinite()
    low, high = _bracket(function, v, u, residual, lost)
    eps = torch.finfo(v.dtype).eps
    x = u
    for _ in range(200):
        value, slope = function(x)
        gap = x + value - v
        low, high = torch.where(gap <= 0, x, low), torch.where(gap >= 0, x, high)
        close = (high - low <= 2 * eps * (low.abs() + high.abs())) | (gap.abs() <= eps * (1 + v.abs()))
        if bool((close | lost).all()):
            break
        newton = x - gap / (1 + slope)
        # Halving whatever a Newton step does not bring forward keeps the count within the digits of the dtype.
        x = torch.where((newton > low) & (newton < high), newton, low / 2 + high / 2)
    return torch.where(lost, torch.nan, x)


def _bracket(
    function: Callable[[Tensor], tuple[Tensor, Tensor]], v: Tensor, u: Tensor, residual: Tensor, lost: Tensor
) -> tuple[Tensor, Tensor]:
    step, most = 2 * residual.abs() + torch.finfo(v.dtype).eps * (1 + u.abs()), torch.finfo(v.dtype).max
    low = torch.where(residual > 0, u - step, u).clamp_min(-most)
    high = torch.where(residual < 0, u + step, u).clamp_max(most)
    for _ in range(100):
        below = (low + function(low)[0] <= v) | lost
        above = (high + function(high)[0] >= v) | lost
        if bool((below & above).all()):
            return low, high
        step = 2 * step
        low = torch.where(below, low, (low - step).clamp_min(-most))
        high = torch.where(above, high, (high + step).clamp_max(most))
    raise ConvergenceError(
        "A scalar function u + f(u) does not reach the value it should: its slope is above 0 everywhere, but it stays "
        "bounded. Only bijections of the line can be inverted."
    )
