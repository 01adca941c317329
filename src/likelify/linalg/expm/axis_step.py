r"""The exponential of Toeplitz matrices along both axes of images, as one step of automatic differentiation.

`z = exp(A) x exp(B)^T` in each channel, from the taps of `A` and `B`: what is between them (the matrices, the chain of
products, the permutation of the images) is computed and pulled back by hand, because on small images the operations
are so short that their bookkeeping would take as long as they do. With the images permuted to `X`, `(G, h, B w)`, and
the transposed exponentials `E = exp(A)^T`, `F = exp(B)^T`,

    Y = E^T X,  Z = Y F;    G_Y = G_Z F^T,  G_F = Y^T G_Z,  G_X = E G_Y,  G_E = X G_Y^T,

and a tap's gradient is the sum of its matrix's along the diagonal on which it stands. Second derivatives, tangents and
traces go through `AxisStep.plain`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from likelify.linalg.axis_products import from_columns, multiply_axes, to_columns
from likelify.linalg.expm.polynomial import Chain, PolynomialPlan, evaluate_polynomial
from likelify.linalg.toeplitz import SELECTED, Toeplitz, selection, toeplitz
from likelify.tracing import (
    in_forward_mode,
    is_tracing,
    is_watched,
    outside_autocast,
    refuse_old_batches,
    traceable_gradients,
)


@dataclass(eq=False)
class AxisStep:
    """How the taps of both axes become exponentials: in one batch if the axes are alike.

    Attributes:
        plans: of the batches: one for both axes, or one for each.
        sizes: of the axes.
        hollow: whether the centre taps are not among the taps.
        time: factor on the taps.
    """

    plans: Sequence[PolynomialPlan]
    sizes: tuple[int, int]
    hollow: bool
    time: float

    def __call__(self, x: Tensor, *taps: Tensor) -> Tensor:
        """Return the exponential of `x`, `(rows, channels, h, w)`, from taps `(G, 2 h - 1)` and `(G, 2 w - 1)`."""
        if is_tracing() or in_forward_mode():
            return self.plain(x, *taps)
        value: Any = _AxisStep.apply(x, self, *taps)
        return value

    def plain(self, x: Tensor, *taps: Tensor) -> Tensor:
        """Do the same in operations that can be traced and differentiated again."""
        first, second = (
            evaluate_polynomial(toeplitz(part, size, transposed=True, hollow=self.hollow), plan, time=self.time)
            for part, size, plan in zip(taps, self.sizes, (self.plans[0], self.plans[-1]), strict=True)
        )
        return multiply_axes(x, {2: first, 3: second})

    def chains(self, taps: Sequence[Tensor]) -> list[Chain]:
        """Begin the chain of products of each batch."""
        batches = [torch.cat(tuple(taps))] if len(self.plans) == 1 else taps
        return [
            Chain(plan, torch.mm(batch, self._places(batch, size)).view(len(batch), size, size), self.time)
            for plan, batch, size in zip(self.plans, batches, self.sizes, strict=False)
        ]

    def resumed(self, kept: Sequence[Tensor], counts: Sequence[int]) -> list[Chain]:
        """Return the chains from what was kept of them."""
        rest = iter(kept)
        return [
            Chain.resume(plan, self.time, [next(rest) for _ in range(count)])
            for plan, count in zip(self.plans, counts, strict=True)
        ]

    def pull_back(self, chains: Sequence[Chain], grads: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the gradients by the taps from those by the transposed exponentials."""
        batches = [torch.cat(tuple(grads))] if len(chains) == 1 else grads
        found = [
            torch.mm(chain.pull_back(batch).flatten(1), self._places(batch, batch.shape[-1]).T)
            for chain, batch in zip(chains, batches, strict=True)
        ]
        return found[0].chunk(2) if len(chains) == 1 else found

    def _places(self, like: Tensor, size: int) -> Tensor:
        return selection(size, like.dtype, hollow=self.hollow, transposed=True)


def axis_step(
    maps: Sequence[object], plans: Sequence[PolynomialPlan], x: Tensor, time: float
) -> tuple[AxisStep, list[Tensor]] | None:
    """Return the step for two maps along the axes of images like `x`, and its taps; None where it does not serve."""
    filters = [map_ for map_ in maps if type(map_) is Toeplitz and map_.rows is None]
    sizes = tuple(x.shape[2:])
    serves = len(filters) == len(sizes) == 2 and x.device.type == "cpu" and max(sizes) <= SELECTED
    if not serves or filters[0].groups != filters[1].groups or not len(x):
        return None
    hollow = all(part.hollow and part.reach == size - 1 for part, size in zip(filters, sizes, strict=True))
    taps = [part.given if hollow else part.reaching(size) for part, size in zip(filters, sizes, strict=True)]
    return AxisStep(plans, (sizes[0], sizes[1]), hollow, time), taps


class _AxisStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, step: AxisStep, *taps: Tensor) -> Tensor:
        chains = step.chains(taps)
        values = [chain.value() for chain in chains]
        first, second = values if len(values) > 1 else values[0].chunk(2)
        groups, width = len(first), second.shape[-1]
        columns = to_columns(x, groups)
        turned = torch.bmm(first.mT, columns).view(groups, -1, width)
        kept = [chain.kept() for chain in chains]
        ctx.step, ctx.counts = step, [len(part) for part in kept]
        ctx.save_for_backward(x, *taps, first, second, columns, turned, *(tensor for part in kept for tensor in part))
        return from_columns(torch.bmm(turned, second), x.shape)

    @staticmethod
    @outside_autocast
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        refuse_old_batches("an exponential", grad)
        x, one, other, first, second, columns, turned, *kept = ctx.saved_tensors
        needed = ctx.needs_input_grad
        if is_watched():
            found = traceable_gradients(ctx.step.plain, (x, one, other), (needed[0], *needed[2:]), grad)
            return found[0], None, *found[1:]
        grad = to_columns(grad, len(first)).reshape(turned.shape)
        lower = torch.bmm(grad, second.mT).view(columns.shape)
        of_x = from_columns(torch.bmm(first, lower), x.shape) if needed[0] else None
        if not any(needed[2:]):
            return of_x, None, None, None
        of_taps = ctx.step.pull_back(
            ctx.step.resumed(kept, ctx.counts), [torch.bmm(columns, lower.mT), torch.bmm(turned.mT, grad)]
        )
        return of_x, None, *of_taps
