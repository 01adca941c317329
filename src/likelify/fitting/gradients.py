"""The gradients of a training step: forward and backward pass, by themselves or replayed from a recording."""

from __future__ import annotations

import torch
from torch import Tensor

from likelify.data import Batch
from likelify.fitting.process import OneProcess
from likelify.fitting.recording import CudaTape, Recording
from likelify.fitting.settings import FitSettings
from likelify.fitting.training import Objective, differentiate
from likelify.flows import Flow
from likelify.linalg.expm.constants import kept_tables
from likelify.nets import regularized
from likelify.seeding import derived_seed
from likelify.settings import Values
from likelify.support import Doubt, doubts, settle
from likelify.transforms import unchecked


class Gradients:
    """Gives the parameters of a flow the gradient of the loss of a batch.

    Args:
        flow: the model.
        optimizer: of its parameters.
        settings: of the fit.
        place: the processes of the fit.
        items: of a batch of all processes together.
        conditional: give the labels to the model.
        dims: of graphs their mean number of elements; see `Objective`.

    Attributes:
        matches: the flow is trained by flow matching.
        doubts: of the steps since the last validation, on an accelerator.
        recording: of the passes, on a CUDA device.
    """

    def __init__(
        self,
        flow: Flow,
        optimizer: torch.optim.Optimizer,
        settings: FitSettings,
        place: OneProcess,
        *,
        items: int,
        conditional: bool,
        dims: float | None = None,
    ) -> None:
        self.flow, self.optimizer, self.settings, self.place, self.items = flow, optimizer, settings, place, items
        objective = Objective(flow, conditional=conditional, dims=dims)
        self.matches, self.objective = objective.matches, place.join(objective)
        self.doubts: list[Doubt] = []
        self.recording = Recording(self._whole, flow, CudaTape(place.device), why_not=self._why_not_recorded())
        # What there is to differentiate; what layers ask of a recorded pass, and tables of numbers that it reads.
        self._loss: Tensor | None = None
        self._asked: list[Doubt] = []
        self._tables: list[Tensor] = []

    def _why_not_recorded(self) -> str | None:
        if self.place.device.type != "cuda":
            return "Only steps on CUDA devices are recorded."
        if self.place.count > 1:
            return "Several processes wait for one another in a step."
        return None if self.settings.cuda_graph else "The fit has cuda_graph=False."

    def forward(self, batch: Batch, step: int) -> Tensor:
        """Return the loss in bits per dimension and nats of a batch, `(2,)`; of several processes of a share of it.

        Of several processes they are what makes the mean over all of them that of the whole batch.
        """
        seed = derived_seed(self.settings.seed, f"noise {self.place.rank}", step)
        if (found := self.recording.losses(batch, seed)) is not None:
            self.doubts += [
                doubt._replace(outside=count) for doubt, count in zip(self._asked, found[2:].long(), strict=True)
            ]
            return found[:2]
        torch.manual_seed(seed)
        self._loss, losses, asked = self._share(batch)
        self.doubts += asked
        return losses

    def backward(self) -> None:
        """Give the parameters the gradient of what `forward` returned; of several processes the mean of theirs."""
        loss, self._loss = self._loss, None
        if loss is not None:
            differentiate(self.optimizer, loss, self.place)

    def settle(self) -> None:
        """Raise what the steps since the last validation would have raised, had they waited for the device.

        Raises:
            DomainError: if a layer met values outside of its domain.
        """
        found, self.doubts = self.doubts, []
        settle(found)
        self.recording.doubt()

    def end(self) -> Values:
        """Give back the memory of a recording; return what a `Course` says of it."""
        self.recording.release()
        self._tables.clear()
        why_not = self.recording.why_not if self.place.device.type == "cuda" else None
        return {"recorded": self.recording.replayed, "unrecorded": why_not}

    def _share(self, batch: Batch) -> tuple[Tensor, Tensor, list[Doubt]]:
        """Return the loss, what `forward` returns, and what layers would have waited for."""
        # What an inverse loses is looked at in validation.
        with regularized(self.flow, exp_tol=self.settings.exp_tol), unchecked(), doubts() as found:
            loss, nats = self.objective(batch)
        if self.place.count > 1:
            weight = self.place.weight(len(batch), self.items)
            loss, nats = weight * loss, weight * nats
        return loss, torch.stack((loss.detach(), nats)), found

    def _whole(self, batch: Batch) -> Tensor:
        """Make both passes; return what `forward` returns, and behind it how many values each layer found outside."""
        loss, losses, self._asked = self._share(batch)
        differentiate(self.optimizer, loss, self.place)
        if self.place.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            # The recording reads them for as long as it is there.
            self._tables = kept_tables()
        return torch.cat([losses, *(doubt.outside.reshape(1).to(losses) for doubt in self._asked)])
