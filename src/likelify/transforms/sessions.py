"""The calls of inverses that are looked at just now, in this thread or task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from likelify.tracing import is_tracing
from likelify.transforms.inversion import Finding, InverseReport


@dataclass(eq=False)
class Session:
    """One call of an inverse from outside, with all inverses that it calls.

    Attributes:
        root: the layer that was called.
        given: the latent.
        rows: which of its rows are there twice, the second time behind the others.
        extra: how many these are.
        every: all rows are looked at, and every layer by itself.
        off: nothing is looked at.
        unsteady: networks inside of the root may draw at random, or look at whole batches.
        looked: whether a layer was met that has something to look at.
        findings: what was found.
        steep: those of elementwise maps, and how far the rows that are there twice were apart behind them.
    """

    root: nn.Module
    given: Tensor
    rows: slice = field(default_factory=lambda: slice(0, 0))
    extra: int = 0
    every: bool = False
    off: bool = False
    looked: bool = False
    unsteady: bool = False
    findings: list[Finding] = field(default_factory=list)
    steep: list[tuple[Finding, Tensor]] = field(default_factory=list)

    def carries(self, z: Tensor) -> bool:
        """Tell whether a value inside has the rows of this session."""
        return len(z) == len(self.given) + self.extra

    def is_fine(self) -> bool:
        """Look at all that was found in one go."""
        ratios = [ratio for finding in self.findings for ratio in finding.ratios()]
        sums = [each.reshape(-1) for finding in self.findings for each in finding.sums]
        fine = [torch.cat([ratio.to(ratios[0]) for ratio in ratios]) <= 1] if ratios else []
        fine += [torch.isfinite(torch.cat([each.to(sums[0]) for each in sums]))] if sums else []
        return not fine or bool(torch.cat(fine).all())

    def reports(self) -> list[InverseReport]:
        """Return what was found in each layer."""
        lost = ~torch.isfinite(self.given.flatten(1) if self.given.ndim > 1 else self.given[:, None]).all(1)
        return [finding.report(lost) for finding in self.findings]


OFF = Session(nn.Identity(), torch.empty(0), off=True)
SESSION: ContextVar[Session | None] = ContextVar("likelify_inversion", default=None)
# Where `checked_inverse` collects its reports.
INSPECTED: ContextVar[list[InverseReport] | None] = ContextVar("likelify_inspected", default=None)


@contextmanager
def within(session: Session) -> Iterator[Session]:
    """Let a session look at the inverses that are called inside of a block."""
    token = SESSION.set(session)
    try:
        yield session
    finally:
        SESSION.reset(token)


@contextmanager
def unchecked() -> Iterator[None]:
    """Switch the check of inverses off inside a ``with`` block, for this thread or task alone.

    What comes out of an ill-conditioned inverse then is whatever it is; nothing is said.

    Example:
        >>> import likelify as lk
        >>> with lk.transforms.unchecked():
        ...     x, _ = lk.Conv1x1(3).inverse(torch.ones(1, 3))
    """
    with within(OFF):
        yield


def current(z: Tensor) -> Session | None:
    """Return the session that looks at this call, if one does."""
    session = None if is_tracing() else SESSION.get()
    return None if session is None or session.off or not len(z) or not session.carries(z) else session
