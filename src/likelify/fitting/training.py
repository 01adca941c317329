"""One training step: the loss as a module, the optimizer, the way down, and the moving average of the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from likelify.data import Batch
from likelify.distributions import CentredNormal
from likelify.door import admit
from likelify.errors import UnsupportedError
from likelify.fitting.mapped import log_likelihoods
from likelify.fitting.metrics import bits_per_dim
from likelify.fitting.process import OneProcess
from likelify.fitting.settings import FitSettings
from likelify.flows import Flow
from likelify.transforms import matching_layer, matching_losses


class Objective(nn.Module):
    """The loss as a module, so that processes can be joined in it: minus the log-likelihood, or that of flow matching.

    Args:
        flow: the model.
        conditional: give the labels to the model.
        dims: elements of an item by which all are divided, as graphs of different sizes are by their mean (see
            `metrics.dims_of`): what is minimised then is minus their log-likelihood in another unit. By default each
            item is divided by its own.

    Attributes:
        matches: the last layer of the flow is trained by flow matching.

    Raises:
        UnsupportedError: if it is, and the base is no standard normal.
    """

    def __init__(self, flow: Flow, *, conditional: bool = False, dims: float | None = None) -> None:
        super().__init__()
        self.dims = dims
        self.flow = flow
        self.conditional = conditional
        self.matches = matching_layer(flow.transform) is not None
        if self.matches and not (flow.base.is_standard or isinstance(flow.base, CentredNormal)):
            raise UnsupportedError(
                f"Flow matching leads from standard normal noise to the data, and the base {type(flow.base).__name__} "
                "is another one. Take lk.Normal(shape), for centred points distributions.CentredNormal, or train the "
                "likelihood: ContinuousFlow(net, training='likelihood')."
            )

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Draw the noise once; return the mean over the items in bits per dimension, and in nats without gradient.

        Of flow matching it is the loss of an element, and again that, without gradient.
        """
        if self.matches:
            x, context, _ = admit(self.flow, batch.x, batch.context(conditional=self.conditional))
            losses = matching_losses(self.flow.transform, x, context)
            loss = batch.mean(losses / batch.dims().to(losses))
            return loss, loss.detach()
        nats = log_likelihoods(self.flow, batch, batch.context(conditional=self.conditional))
        bits = bits_per_dim(nats, batch.dims() if self.dims is None else self.dims)
        return batch.mean(bits), batch.mean(nats.detach())


def build_optimizer(flow: Flow, settings: FitSettings) -> torch.optim.Optimizer:
    """Build the optimizer of the settings; only matrices and kernels have weight decay.

    What has one axis longer than one, such as the means `(channels, 1, 1)` of a base, is a vector.
    """
    matrices = [p for p in flow.parameters() if p.numel() > max(p.shape, default=1)]
    vectors = [p for p in flow.parameters() if p.numel() <= max(p.shape, default=1)]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "adamax":
        return torch.optim.Adamax(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, settings: FitSettings, place: OneProcess) -> None:
    """Make one step of the optimizer down the gradient of a loss."""
    differentiate(optimizer, loss, place)
    update(optimizer, settings)


def differentiate(optimizer: torch.optim.Optimizer, loss: Tensor, place: OneProcess) -> None:
    """Give the parameters of an optimizer the gradient of a loss, whatever they had."""
    optimizer.zero_grad()
    place.backward(loss)


def update(optimizer: torch.optim.Optimizer, settings: FitSettings) -> None:
    """Make one step of the optimizer down the gradients that its parameters have."""
    if settings.clip is not None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(parameters, settings.clip)
    optimizer.step()


def averaged(flow: Flow, factor: float) -> AveragedModel:
    """Return a moving average of the weights that forgets its start quickly.

    After n updates the factor is min(factor, (n + 1) / (n + 10)).
    """
    return _Average(flow, factor)


class _Average(AveragedModel):
    """A moving average whose updates never make the host wait for a device: their number stays on the host.

    Buffers are those of the flow as it is now. Those of a flow with a stacked base are left alone: the average has
    weights of its mixture of its own, and what is fitted can be large.
    """

    def __init__(self, flow: Flow, factor: float) -> None:
        super().__init__(flow)
        self.factor, self.copies_buffers = factor, not flow.base.stacks
        self.n_averaged = self.n_averaged.cpu()

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take up the parameters of the model as they are now."""
        averages, current = (tuple(module.parameters()) for module in (self.module, model))
        count = int(self.n_averaged)
        if count == 0:
            for average, value in zip(averages, current, strict=True):
                average.copy_(value)
        else:
            # All at once: one by one, some hundred small tensors take as long as the forward pass of a small model.
            weight = 1 - min(self.factor, (count + 1) / (count + 10))
            torch._foreach_lerp_(averages, current, weight)  # pyright: ignore[reportPrivateImportUsage]
        if self.copies_buffers:
            for average, value in zip(self.module.buffers(), model.buffers(), strict=True):
                average.copy_(value)
        self.n_averaged += 1
