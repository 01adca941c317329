r"""Whether an inverse can be trusted: what it loses of the digits of its input, and how that is reported.

For a bijection `f`, a latent `z` and `x = f^-1(z)`, two numbers are compared with a tolerance, row by row, where `|v|`
is the largest element of a row in size and `u` a unit (1, or nothing for linear layers):

    residual = |f(x) - z| / (u + |z|),      error = |f^-1(z + dz) - x| / (u + |x|),     |dz_i| <= eps |z_i|.

The residual says whether `x` solves the equation. A solver that is stable leaves a small one even where the answer is
useless, because the rounding of `z` alone moves `x` across the room; that is what the error says. It is about the
condition number times machine epsilon, and works for maps that are not linear as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

# Largest residual and error: two digits that remain of the seven of float32, five of the sixteen of float64.
TOLERANCE = {torch.float32: 1e-2, torch.float64: 1e-5}
# Where all rows are known from slopes: how much more a row may lose, and the share of rows that may lose more still.
STEEP, UNLUCKY = 10.0, 1e-3
# The unit of linear layers, which keeps a row of zeros from dividing by zero.
NO_UNIT = 1e-30

REMEDIES = (
    "keep the weights smaller (weight decay, a smaller learning rate, a new start), or take a layer whose inverse is "
    "always well conditioned, such as a rotation or an exponential with a norm limit. layer.checked_inverse(z, "
    "throw=False) returns the values with a report, and lk.transforms.unchecked() switches the check off."
)


@dataclass(frozen=True)
class InverseCheck:
    """What is looked at after the inverse of a layer.

    Attributes:
        residual: of `"every row"`, of `"some rows"`, `"none"` where it is always small, or `"solver"` for layers that
            see to it themselves; those are left to their solver while gradients are recorded. The error is always that
            of some rows. `"part"` is for layers that look at a part of what they do themselves, both ways.
        unit: what the sizes of rows are added to; 0 for linear layers, whose errors grow with their inputs.
        exact: each element of the result is right to its last digits for the latent that was given, however few digits
            that latent has where the map saturates. Nothing is compared, and nothing across this layer.
    """

    residual: Literal["every row", "some rows", "none", "solver", "part"] = "some rows"
    unit: float = 1.0
    exact: bool = False


# Of elementwise functions with a range.
EXACT = InverseCheck(exact=True)
# Of linear maps.
LINEAR = InverseCheck(unit=0.0)
# Of layers whose residual is always small, and that may still lose digits in a row.
SENSITIVE = InverseCheck("none")
# Of layers that have the factors of their linear part at hand, and look at that.
PART = InverseCheck("part", unit=0.0)
# Of layers that are solved by an iteration to a residual of their own.
SOLVED = InverseCheck("solver")


@dataclass(frozen=True, eq=False)
class InverseReport:
    """What the check of one inverse found.

    Attributes:
        layer: the layer, or layers made of layers that were looked at together.
        dtype: in which it worked.
        tolerance: allowed residual and error.
        residual: `(rows,)`; NaN for rows that were not looked at.
        error: `(rows,)`; NaN for rows that were not looked at.
        condition: the largest condition number that was seen, a lower estimate of the true one; None if none was.
        failed: indices of the rows that cannot be trusted.
    """

    layer: nn.Module
    dtype: torch.dtype
    tolerance: float
    residual: Tensor
    error: Tensor
    condition: float | None
    failed: Tensor

    @property
    def trusted(self) -> bool:
        """Whether no row has failed."""
        return not len(self.failed)

    def __str__(self) -> str:
        name, failed = type(self.layer).__name__, len(self.failed)
        looked_at = int((~self.residual.isnan() | ~self.error.isnan()).sum())
        found = [
            f"{what} {float(values[~values.isnan()].max()):.1g}"
            for what, values in (("residual", self.residual), ("error", self.error))
            if not bool(values.isnan().all())
        ]
        if self.condition is not None:
            found.append(f"condition number {self.condition:.1g} or more")
        described = ", ".join(found) or "values that are not finite"
        if self.trusted:
            return f"The inverse of {name} keeps its digits ({described})."
        return (
            f"The inverse of {name} cannot be trusted in {str(self.dtype).removeprefix('torch.')}: {failed} of "
            f"{max(looked_at, failed)} rows that were looked at fail ({described}; {self.tolerance:.0e} is allowed)."
        )

    def advice(self) -> str:
        """Return what to do about it."""
        finer = "" if self.dtype == torch.float64 else "Work in float64 (flow.double(), with inputs in float64); or "
        return f"{finer or 'In float64 there is nothing finer to turn to: '}{REMEDIES}"


@dataclass(frozen=True, eq=False)
class Inversion:
    """The result of `Transform.checked_inverse`.

    Attributes:
        value: `(rows, *in_shape)`.
        contribution: `(items,)`.
        reports: for each layer, in the order in which they ran, and for those between as a whole.
    """

    value: Tensor
    contribution: Tensor
    reports: list[InverseReport]

    @property
    def trusted(self) -> bool:
        """Whether no row of any layer has failed."""
        return all(report.trusted for report in self.reports)


@dataclass(eq=False)
class Finding:
    """What was looked at in one layer, before anything waits for the values.

    Attributes:
        layer: the layer.
        rows: how many there are.
        dtype: in which the layer works.
        unit: see `InverseCheck`.
        sums: of the elements of each row, `(rows,)`, and of all contributions, `()`; finite if all of them are.
        residual: rows, and the residual of each.
        moved: rows, how far each is moved by the rounding of its latent, and its size.
        steep: they are all rows, so that a few unlucky ones among many are no fault of the layer's: where a map is flat
            with a slope of 1e-5, one latent of 1e5 falls.
    """

    layer: nn.Module
    rows: int
    dtype: torch.dtype
    unit: float = 1.0
    sums: list[Tensor] = field(default_factory=list)
    residual: tuple[slice, Tensor] | None = None
    moved: tuple[slice, Tensor, Tensor] | None = None
    steep: bool = False

    @property
    def tolerance(self) -> float:
        """Return the largest residual and error allowed."""
        return TOLERANCE.get(self.dtype, max(1e-2, 32 * torch.finfo(self.dtype).eps))

    def ratios(self) -> list[Tensor]:
        """Return numbers that are at most 1 if all is well."""
        found = [] if self.residual is None else [self.residual[1] / self.tolerance]
        if self.moved is not None:
            ratio = self.moved[1] / (self.tolerance * (self.unit + self.moved[2]))
            found.append((~(ratio <= STEEP)).float().mean()[None] / UNLUCKY if self.steep else ratio)
        return found

    def report(self, lost: Tensor) -> InverseReport:
        """Sort what was found by rows; those that were lost do not count, since they came in with values not finite."""
        like = next(t for t in (*self.sums, *(self.residual or ()), *(self.moved or ())) if isinstance(t, Tensor))
        residual, error = (like.new_full((self.rows,), math.nan) for _ in range(2))
        failed = torch.zeros(self.rows, dtype=torch.bool, device=like.device)
        if self.residual is not None:
            residual[self.residual[0]] = self.residual[1].to(like)
            failed[self.residual[0]] |= ~(self.residual[1] <= self.tolerance)
        if self.moved is not None:
            rows, change, size = self.moved
            error[rows] = (change / (self.unit + size)).to(like)
            bad = ~(error[rows] <= self.tolerance * (STEEP if self.steep else 1))
            if not self.steep or float(bad.float().mean()) > UNLUCKY:
                failed[rows] |= bad
        for sums in self.sums:
            # A contribution that is not finite is known to be that of some row.
            failed |= ~torch.isfinite(sums) if sums.ndim else ~(torch.isfinite(sums) | failed.any() | lost.any())
        if len(lost) == len(failed):
            failed &= ~lost
        failures = failed.nonzero()[:, 0]
        return InverseReport(self.layer, self.dtype, self.tolerance, residual, error, self._condition(), failures)

    def _condition(self) -> float | None:
        """Return how many times the rounding unit the inverse, or the map after it, has changed a row."""
        changes = [] if self.residual is None else [float(self.residual[1].max())]
        if self.moved is not None:
            _, change, size = self.moved
            changes.append(float((change / size.clamp_min(NO_UNIT)).max()))
        known = [change if math.isfinite(change) else math.inf for change in changes]
        return max(known) / torch.finfo(self.dtype).eps if known else None
