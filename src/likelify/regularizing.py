"""Parts that act differently in training steps, and only there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import get_ident
from typing import Any, Self

import torch
from torch import nn

# No thread has this number.
_ANY_THREAD = -1


@dataclass(frozen=True)
class TrainingStep:
    """What a training step asks of the parts that act in it.

    Attributes:
        exp_tol: truncation error that exponentials may have, relative to the norm of each item; None for the one that
            they have outside of training steps.
    """

    exp_tol: float | None = None


class ActsInTraining(nn.Module):
    """A part that is `active` inside `regularized` alone, whatever `train()` or `eval()` say.

    A likelihood must not depend on a mode that somebody forgot to set; so what is meant for training steps is an
    explicit act, of one thread: in another the same part stays as it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self._steps: dict[int, TrainingStep] = {}

    def __getstate__(self) -> dict[str, Any]:
        # A copy that is made inside regularized() must not be active for ever.
        return self.__dict__ | {"_steps": {}}

    def _replicate_for_data_parallel(self) -> Self:
        replica = super()._replicate_for_data_parallel()
        # It works for this thread, in one of its own.
        replica._steps = {} if self.training_step is None else {_ANY_THREAD: self.training_step}
        return replica  # pyright: ignore[reportReturnType]

    @property
    def training_step(self) -> TrainingStep | None:
        """The training step that is at work in the current thread, or None."""
        if not self._steps:
            return None
        if torch.compiler.is_compiling():
            return next(iter(self._steps.values()))
        return self._steps.get(get_ident()) or self._steps.get(_ANY_THREAD)

    @training_step.setter
    def training_step(self, step: TrainingStep | None) -> None:
        if step is None:
            self._steps.pop(get_ident(), None)
        else:
            self._steps[get_ident()] = step

    @property
    def active(self) -> bool:
        """Whether a training step is at work in the current thread."""
        return self.training_step is not None


@contextmanager
def regularized(model: nn.Module, *, exp_tol: float | None = None) -> Iterator[None]:
    """Let a model be as in training steps, for the block and in this thread.

    The dropout of its networks is on, a `distributions.Mixture` whose members are trained apart gives the mean of
    their log-densities, and exponentials are computed to a tolerance of their own.

    Args:
        model: a flow, a layer or a network.
        exp_tol: truncation error that the exponentials of `Exponential` layers may have, relative to the norm of each
            item, unless the layer was given a tolerance or a degree. It is never below that of the floating format,
            `1e-6` in float32 and `1e-12` in float64, which is what None leaves them with. Gradients keep to it too.
            Code that `torch.compile` made, which all threads share, always has the one of outside.
    """
    step = TrainingStep(exp_tol)
    before = [(m, m.training_step) for m in model.modules() if isinstance(m, ActsInTraining)]
    for module, _ in before:
        module.training_step = step
    try:
        yield
    finally:
        for module, earlier in before:
            module.training_step = earlier
