"""Parts that act differently in training steps, and only there."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any, Self

import torch
from torch import nn

# No thread has this number.
_ANY_THREAD = -1


class ActsInTraining(nn.Module):
    """A part that is `active` inside `regularized` alone, whatever `train()` or `eval()` say.

    A likelihood must not depend on a mode that somebody forgot to set; so what is meant for training steps is an
    explicit act, of one thread: in another the same part stays as it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self._threads: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        # A copy that is made inside regularized() must not be active for ever.
        return self.__dict__ | {"_threads": set()}

    def _replicate_for_data_parallel(self) -> Self:
        replica = super()._replicate_for_data_parallel()
        # It works for this thread, in one of its own.
        replica._threads = {_ANY_THREAD} if self.active else set()
        return replica  # pyright: ignore[reportReturnType]

    @property
    def active(self) -> bool:
        """Whether a training step is at work in the current thread."""
        if not self._threads or torch.compiler.is_compiling():
            return bool(self._threads)
        return get_ident() in self._threads or _ANY_THREAD in self._threads

    @active.setter
    def active(self, value: bool) -> None:
        (self._threads.add if value else self._threads.discard)(get_ident())


@contextmanager
def regularized(model: nn.Module) -> Iterator[None]:
    """Let a model be as in training steps, for the block and in this thread.

    The dropout of its networks is on, and a `distributions.Mixture` whose members are trained apart gives the mean of
    their log-densities.
    """
    switched = [m for m in model.modules() if isinstance(m, ActsInTraining) and not m.active]
    for module in switched:
        module.active = True
    try:
        yield
    finally:
        for module in switched:
            module.active = False
