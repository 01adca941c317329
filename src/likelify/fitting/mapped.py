"""Rows of a table behind layers that are not trained: each is mapped once, and not again in every epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from likelify.data import Batch, Source, SplitName
from likelify.fitting.checks import read_for
from likelify.flows import Flow
from likelify.structure import ContextLike

# Numbers that are kept of a split.
MOST = 10**8


@dataclass(frozen=True, eq=False)
class MappedBatch(Batch):
    """Some rows behind the layers of a flow.

    Attributes:
        contribution: what the layers add to the log-likelihood of each.
        elements: of a row in front of them.
    """

    contribution: Tensor | None = None
    elements: int = 1

    def dims(self) -> Tensor:
        """Return the number of elements of each row in front of the layers."""
        return torch.full((len(self.x),), self.elements, device=self.x.device)


class MappedRows:
    """The rows of a split behind the layers of a flow, mapped when they are asked for first.

    Args:
        flow: whose layers are not trained; see `can_map`.
        source: the data, a table.
        split: of the source.
    """

    def __init__(self, flow: Flow, source: Source, split: SplitName) -> None:
        self.flow, self.source = flow, source
        self.split: SplitName = split
        self.known = torch.zeros(source.size(split), dtype=torch.bool)
        self.rows: MappedBatch | None = None

    def take(self, indices: Tensor) -> MappedBatch:
        """Return the rows with these numbers."""
        unknown = indices[~self.known[indices]]
        kept = self._mapped(unknown) if len(unknown) or self.rows is None else self.rows
        place = indices.to(kept.x.device)
        weights, contribution = (None if part is None else part[place] for part in (kept.weights, kept.contribution))
        return MappedBatch(kept.x[place], weights=weights, contribution=contribution, elements=kept.elements)

    @torch.no_grad()
    def _mapped(self, indices: Tensor) -> MappedBatch:
        """Map these rows too, and return all that are kept."""
        batch = read_for(self.flow, self.source, self.split, indices)
        z, contribution = self.flow.transform(batch.x)
        if self.rows is None:
            self.rows = MappedBatch(
                self._room(z),
                weights=None if batch.weights is None else self._room(batch.weights),
                contribution=self._room(contribution),
                elements=math.prod(self.source.event_shape),
            )
        kept, place = self.rows, indices.to(z.device)
        for into, part in ((kept.x, z), (kept.weights, batch.weights), (kept.contribution, contribution)):
            if into is not None and part is not None:
                into[place] = part
        self.known[indices] = True
        return kept

    def _room(self, part: Tensor) -> Tensor:
        return part.new_empty(len(self.known), *part.shape[1:])


def can_map(flow: Flow, source: Source, split: SplitName) -> bool:
    """Tell whether nothing in front of the base of a flow of rows is trained, drawn or told, and all can be kept."""
    if source.kind != "table" or flow.likelihood != "exact" or flow.encoder is not None or flow.reads_condition:
        return False
    kept = source.size(split) * math.prod(flow.transform.out_shape(source.event_shape))
    return kept <= MOST and next(flow.transform.parameters(), None) is None


def log_likelihoods(flow: Flow, batch: Batch, context: ContextLike = None, *, samples: int = 1) -> Tensor:
    """Return the log-likelihood of each item of a batch in nats, or an estimate of its lower bound."""
    if isinstance(batch, MappedBatch) and batch.contribution is not None:
        return flow.base.log_prob(batch.x) + batch.contribution
    return flow.elbo(batch.x, context, samples=samples).value
