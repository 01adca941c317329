"""When the loss of a fit blows up: how that is told, and how the fit goes back to its best weights and on."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import torch

from likelify.fitting.figures import Course

if TYPE_CHECKING:
    from likelify.fitting.state import FitState

# A fit whose loss blows up again and again is not saved by still lower rates.
MOST = 3
# Bits per dimension by which a loss is worse than at the start, at least, before that is more than an unlucky batch.
MARGIN = 1.0


def blew_up(losses: list[float], course: Course, *, apart: bool = False) -> bool:
    """Tell from the losses since the last validation whether a fit is losing all that it has learnt.

    Half of them have to be worse than the start by more than the best weights are better than it: rows far out make
    single losses as large, and what overfits has training losses that fall.

    Args:
        losses: of steps, in bits per dimension.
        course: of the fit so far.
        apart: the loss is of other models than validation measures, as that of members of a mixture that are trained
            apart; it is then compared with itself.
    """
    best = course.best
    if best is None or best.step == 0 or not losses:
        return False
    values = [point.validation_bits for point in course.points]
    if apart:
        values = [point.train_bits for point in course.points if point.train_bits is not None]
    return bool(values) and median(losses) > values[0] + max(values[0] - min(values), MARGIN)


def factor(setbacks: tuple[int, ...]) -> float:
    """Return the factor of the learning rate after these setbacks: a half for each."""
    return 0.5 ** len(setbacks)


@torch.no_grad()
def go_back(state: FitState) -> None:
    """Put the best weights back, and forget what the optimizer knows of the way that led astray."""
    best = state.best
    for name, parameter in state.flow.named_parameters():
        parameter.copy_(best[name])
    if state.average.copies_buffers:
        for name, buffer in state.flow.named_buffers():
            buffer.copy_(best.get(name, buffer))
    state.average.module.load_state_dict(best)
    state.optimizer.state.clear()
    state.losses.clear()
    state.setbacks = (*state.setbacks, state.step)
