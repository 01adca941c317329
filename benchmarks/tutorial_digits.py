"""What the tutorials about digits share: pixels and scaled images, training, and networks turned into densities."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

import likelify as lk
from benchmarks.fits import timed
from likelify import transforms
from likelify.data import Source
from likelify.fitting.loop import fit
from likelify.zoo import converted_flow

SHAPE, LEVELS = (1, 8, 8), 17
BATCH = 128


def scaled(pixels: Tensor, noise: Tensor | float = 0.5) -> Tensor:
    """Bring pixels 0..16 to (-1, 1), in the middle of their level or anywhere in it."""
    return 2 * (pixels.float() + noise) / LEVELS - 1


def train(
    net: nn.Module, loss: Callable[[Tensor], Tensor], size: int, steps: int, *, lr: float, weight_decay: float
) -> None:
    """Train a network by the loss of random rows out of `size`, with a learning rate that falls linearly."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
    for _ in range(steps):
        value = loss(torch.randint(size, (BATCH,)))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    net.eval()


def converted(net: nn.Module, *, keep: bool) -> lk.Flow:
    """Turn a network of scaled images into a density of pixels; `keep` fixes the weights of the network itself."""
    flow = converted_flow(net, torch.rand(2, *SHAPE), pixel_levels=LEVELS, value_range=(-1, 1), hidden=128)
    if keep:
        for name, parameter in flow.transform.named_parameters():
            parameter.requires_grad_("density" in name)
    return flow


def whitened(flow: lk.Flow) -> lk.Flow:
    """Put a linear layer behind a flow whose latent is a vector, which makes the outputs of the network white."""
    (size,) = flow.transform.out_shape(SHAPE)
    layers = lk.Chain([flow.transform, transforms.FreeLinear(size, size)])
    return lk.Flow(lk.Normal((size,)), layers, event_shape=SHAPE)


def tune(flow: lk.Flow, source: Source, seconds: float, seed: int) -> None:
    """Fit by maximum likelihood for so many seconds of the processor."""
    fit(flow, source, timed({"lr": 3e-3, "batch_size": BATCH, "average": 0.99}, seconds, seed))
