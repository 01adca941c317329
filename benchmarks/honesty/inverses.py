"""Inverses at weights of many sizes: what comes back is right, or an error says that it cannot be."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import likelify as lk
from benchmarks.honesty.judging import DOUBLE, FACTOR, SINGLE, add
from likelify import nets, transforms
from likelify.transforms import Transform
from likelify.transforms.inversion import TOLERANCE

ROWS = 8
# Noise on all parameters: near the start of training, as trained, and far beyond.
DEVIATIONS = (0.03, 0.1, 0.3, 1.0, 3.0)
# Up to this one no layer may be refused in either precision.
HONEST = 0.03

Build = Callable[[], Transform]


def _coupling(bijector: object, features: int = 6) -> lk.Coupling:
    split = lk.ChannelSplit(features)
    return lk.Coupling(split, bijector, nets.MLP(split.sizes[0], bijector.size * split.sizes[1], (16,)))  # pyright: ignore


# Each with its event, and what sizes are relative to: 0 for linear maps.
LAYERS: dict[str, tuple[Build, tuple[int, ...], float]] = {
    "emerging 2x2": (lambda: lk.emerging_conv(3, 2), (3, 8, 8), 0.0),
    "emerging 3x3": (lambda: lk.emerging_conv(2, 3), (2, 12, 12), 0.0),
    "autoregressive convolution": (lambda: transforms.AutoregressiveConv(4, 2, reverse=True), (4, 6, 6), 0.0),
    "1x1, 6 channels": (lambda: lk.Conv1x1(6), (6, 2, 2), 0.0),
    "1x1, 48 channels": (lambda: lk.Conv1x1(48), (48,), 0.0),
    "two 1x1": (lambda: transforms.two_conv1x1(12), (12, 2, 2), 0.0),
    "Woodbury": (lambda: transforms.Woodbury(6, (4, 4), channel_rank=2, spatial_rank=4), (6, 4, 4), 0.0),
    "periodic convolution": (lambda: transforms.periodic_conv(4), (4, 4, 4), 0.0),
    "free linear": (lambda: lk.linear(8, 8, method="free"), (8,), 1.0),
    "linear": (lambda: lk.linear(6, 6), (6,), 1.0),
    "convolution exponential without a limit": (lambda: lk.conv_exponential(2, norm_limit=None), (2, 5, 5), 0.0),
    "dense exponential without a limit": (lambda: lk.dense_exponential(6), (6,), 0.0),
    "convolution exponential": (lambda: lk.conv_exponential(2), (2, 5, 5), 0.0),
    "spline coupling": (lambda: _coupling(lk.SplineBijector()), (6,), 1.0),
    "affine coupling": (lambda: _coupling(lk.AffineBijector()), (6,), 1.0),
    "affine coupling, limit 40": (lambda: _coupling(lk.AffineBijector(40.0)), (6,), 1.0),
    "splines of channels": (lambda: lk.ChannelSpline(6), (6,), 1.0),
    "shared spline": (lambda: transforms.SharedSpline(), (6,), 1.0),
    "Sylvester": (lambda: lk.sylvester(6, 3), (6,), 1.0),
    "planar": (lambda: transforms.planar(6), (6,), 1.0),
    "convolution Sylvester": (lambda: lk.conv_sylvester(2), (2, 4, 4), 1.0),
    "residual": (lambda: lk.LipschitzResidual(nets.LipschitzMLP(4, (8,)), log_det="exact"), (4,), 1.0),
    "act norm": (lambda: lk.ActNorm(6), (6,), 1.0),
    "rotation": (lambda: lk.rotation(6), (6,), 0.0),
    "chain": (lambda: lk.Chain([lk.ActNorm(6), lk.Conv1x1(6), _coupling(lk.SplineBijector())]), (6,), 1.0),
}


def inverses() -> None:
    """Add round trips from data and from latents, of every layer, in both precisions."""
    for name, (build, event, unit) in LAYERS.items():
        for dtype, deviation, way in _settings():
            run = _case(build, event, unit, dtype, deviation, way)
            must = "accept" if deviation <= HONEST else None
            add("inverses", f"{name}, {dtype}, weights {deviation}, {way}", run, times=12, must=must)


def _settings() -> Iterator[tuple[torch.dtype, float, str]]:
    for dtype in (SINGLE, DOUBLE):
        for deviation in DEVIATIONS:
            for way in ("data", "latents"):
                yield dtype, deviation, way


def _case(
    build: Build, event: tuple[int, ...], unit: float, dtype: torch.dtype, deviation: float, way: str
) -> Callable[[], str]:
    @torch.no_grad()
    def run() -> str:
        layer, x = build().to(dtype), torch.randn(ROWS, *event).to(dtype)
        for parameter in layer.parameters():
            parameter.add_(deviation * torch.randn_like(parameter))
        if way == "latents":
            return _judge(layer(layer.inverse(x)[0])[0], x, unit)
        return _judge(layer.inverse(layer(x)[0])[0], x, unit)

    return run


def _judge(found: Tensor, expected: Tensor, unit: float) -> str:
    """Compare with what the round trip started from, row by row."""
    gap, size = ((v.flatten(1).abs().amax(1)) for v in (found - expected, expected))
    worst = float((gap / (unit + size)).max())
    return "right" if worst <= FACTOR * TOLERANCE[expected.dtype] else f"SILENT: off by {worst:.1g} of its size"
