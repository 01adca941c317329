"""Fixed steps of the classical method of Runge and Kutta, and what can be said of their error."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

State = tuple[Tensor, ...]


def runge_kutta(rates: Callable[[float, State], State], state: State, start: float, end: float, steps: int) -> State:
    """Solve `dy/dt = rates(t, y)` from `start` to `end`: equal steps of fourth order, four calls each.

    Example:
        >>> import torch
        >>> float(runge_kutta(lambda t, y: (y[0],), (torch.ones((), dtype=torch.float64),), 0.0, 1.0, 10)[0])
        2.718279744135166
    """
    step = (end - start) / steps
    for number in range(steps):
        t = start + number * step
        first = rates(t, state)
        second = rates(t + step / 2, _moved(state, first, step / 2))
        third = rates(t + step / 2, _moved(state, second, step / 2))
        fourth = rates(t + step, _moved(state, third, step))
        slopes = zip(first, second, third, fourth, strict=True)
        state = _moved(state, tuple(a + 2 * b + 2 * c + d for a, b, c, d in slopes), step / 6)
    return state


def _moved(state: State, slopes: State, step: float) -> State:
    return tuple(value + step * slope for value, slope in zip(state, slopes, strict=True))
