"""Layers inside `torch.autocast`: float32, and a map, an inverse and a log-determinant that belong together."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import likelify as lk
from benchmarks.honesty.judging import add
from likelify import nets, testing, transforms

# Rounding of float32 in a map, its inverse and a log-determinant of a few elements, each relative to the values.
ROOM = 1e-3
# What rounding to eight bits inside of networks, which is no fault, may do to a log-determinant of a few elements.
NETWORKS = 0.5
VECTOR, IMAGE = (4,), (4, 2, 2)


def coupling(bijector: Any, net: nn.Module, *, swap: bool = False) -> lk.Transform:
    """Return a coupling of four channels."""
    return lk.Coupling(lk.ChannelSplit(4, swap=swap), bijector, net)


def plain(size: int) -> nn.Module:
    """Return a network of a user's own, which reads no context and knows nothing of autocast."""

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, size))

        def forward(self, x: Tensor, context: Any = None) -> Tensor:
            return self.layers(x)

    return Plain()


AFFINE, SPLINE = lk.AffineBijector(), lk.SplineBijector()
VECTORS: dict[str, Callable[[], lk.Transform]] = {
    "affine coupling": lambda: coupling(AFFINE, nets.MLP(2, 4, (16,))),
    "affine coupling, swapped": lambda: coupling(AFFINE, nets.MLP(2, 4, (16,)), swap=True),
    "affine coupling, a plain network": lambda: coupling(AFFINE, plain(4)),
    "spline coupling": lambda: coupling(SPLINE, nets.MLP(2, 2 * SPLINE.size, (16,))),
    "spline coupling, a plain network": lambda: coupling(SPLINE, plain(2 * SPLINE.size)),
    "two couplings": lambda: lk.Chain(
        [coupling(AFFINE, nets.MLP(2, 4, (16,))), coupling(SPLINE, nets.MLP(2, 2 * SPLINE.size, (16,)), swap=True)]
    ),
    "conjugate": lambda: lk.Conjugate(lk.rotation(4), coupling(AFFINE, nets.MLP(2, 4, (16,)))),
    "inverse of a spline coupling": lambda: lk.Inverse(coupling(SPLINE, nets.MLP(2, 2 * SPLINE.size, (16,)))),
    "channel splines": lambda: transforms.ChannelSpline(4),
    "shared spline": lambda: transforms.SharedSpline(),
    "actnorm": lambda: lk.ActNorm(4),
    "sigmoid": lambda: transforms.Sigmoid(),
    "softplus": lambda: transforms.Softplus(),
    "leaky relu": lambda: lk.LeakyReLU(0.3),
    "1x1": lambda: lk.Conv1x1(4),
    "rotation": lambda: lk.rotation(4),
    "dense exponential": lambda: lk.dense_exponential(4),
    "linear": lambda: lk.linear(4, 4),
    "planar": lambda: transforms.planar(4),
    "sylvester": lambda: transforms.generalized_sylvester(4),
    "residual": lambda: lk.LipschitzResidual(nets.LipschitzMLP(4, (16,)), log_det="exact"),
}
IMAGES: dict[str, Callable[[], lk.Transform]] = {
    "affine coupling of images": lambda: coupling(AFFINE, nets.ResidualConvNet(2, 4, 8)),
    "spline coupling of images": lambda: coupling(SPLINE, nets.ResidualConvNet(2, 2 * SPLINE.size, 8)),
    "affine coupling, dense net": lambda: coupling(AFFINE, nets.DenseConvBlock(2, 4, 8, 2, 8)),
    "squeezed coupling": lambda: lk.Chain([lk.Squeeze(), lk.Coupling(lk.ChannelSplit(16), AFFINE, convolution(8, 16))]),
    "1x1 of images": lambda: lk.Conv1x1(4),
    "convolution exponential": lambda: lk.conv_exponential(4),
    "emerging convolution": lambda: lk.emerging_conv(4),
    "convolutional sylvester": lambda: transforms.conv_sylvester(4, hidden=16),
    "convolutional residual": lambda: lk.LipschitzResidual(nets.LipschitzConvNet(4, 8), log_det="exact"),
}


def convolution(size_in: int, size_out: int) -> nn.Module:
    """Return a small network of images."""
    return nets.ResidualConvNet(size_in, size_out, 16)


def autocasts() -> None:
    """Add every layer, little and much perturbed, in both short formats, with and without `frozen()`."""
    for shape, layers in ((VECTOR, VECTORS), (IMAGE, IMAGES)):
        for name, build in layers.items():
            for dtype in (torch.bfloat16, torch.float16):
                for scale in (0.0, 0.1, 0.3):
                    for spread in (1.0, 3.0):
                        title = f"{str(dtype)[6:]}, weights + {scale:g}, data of deviation {spread:g}: {name}"

                        def run(
                            b: Any = build, s: Any = shape, d: Any = dtype, w: float = scale, u: float = spread
                        ) -> str:
                            return judge_autocast(testing.randomize(b(), scale=w), u * torch.randn(3, *s), d)

                        add("autocast", title, run, times=3)


def judge_autocast(layer: lk.Transform, x: Tensor, dtype: torch.dtype) -> str:
    """Judge a bijection inside autocast by the Jacobian of the map that it applied, and against float32."""
    with torch.no_grad():
        plain = errors(layer, x)
        found = errors(layer, x, dtype)
    if isinstance(found, str) or isinstance(plain, str):
        return str(found)
    x = x.requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        z, log_det = layer(x)
    # Items are rows, so one sum over rows has the gradients of each.
    rows = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0] for column in z.flatten(1).unbind(1)]
    own = torch.linalg.slogdet(torch.stack(rows, 1).flatten(2).double())[1]
    with torch.no_grad():
        expected = layer(x)[1]
    found |= {"far from float32": off(log_det, expected) / NETWORKS * ROOM}
    # Gradients through networks are of half precision themselves; they do not reach the determinant of one coupling.
    if not isinstance(layer, lk.Chain | lk.Conjugate):
        found |= {"log-determinant": off(log_det, own)}
    for what, error in found.items():
        # Where rounding alone takes that much, it does so in float32 too.
        if not error <= ROOM + 10 * plain.get(what, 0.0):
            return f"SILENT: {what} off by {error:.1g}"
    return "right"


def errors(layer: lk.Transform, x: Tensor, dtype: torch.dtype | None = None) -> dict[str, float] | str:
    """Return how far an inverse is from undoing the map, or what is wrong with the tensors themselves."""
    with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        z, log_det = layer(x)
        back, inverse = layer.inverse(z)
    tensors = (z, log_det, back, inverse)
    if any(t.dtype != torch.float32 for t in tensors):
        return f"SILENT: {z.dtype}, log-determinant {log_det.dtype}"
    if not all(bool(t.isfinite().all()) for t in tensors):
        return "SILENT: not finite"
    return {"round trip": off(back, x), "log-determinant of the inverse": off(-inverse, log_det)}


def off(found: Tensor, right: Tensor) -> float:
    """Return the largest difference, relative to the value or to one."""
    right = right.detach().double()
    return float(((found.detach().double() - right).abs() / (1 + right.abs())).max())
