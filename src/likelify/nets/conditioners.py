"""Conditioner networks: ordinary networks that read one part of an event, and the condition.

All are called as `net(x, context)`; the condition is joined to the input along the channel axis. The last layer is
zero, so a layer that is built on them starts at the identity.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likelify.errors import ShapeError
from likelify.structure import ContextLike, join_condition

# Weights in this layout make convolutions keep it for activations. On a CPU a training step of a
# coupling network takes 0.60 to 0.85 of the time (`python -m benchmarks.layout`); the numbers are the same.
CONV_FORMAT = torch.channels_last


class Dropout(nn.Module):
    """Dropout that acts only inside `regularized`, whatever `train()` or `eval()` say.

    A likelihood must not depend on a mode that somebody forgot to set; so the noise is an explicit act.
    """

    active: bool = False

    def __getstate__(self) -> dict[str, Any]:
        # A copy that is made inside regularized() must not be noisy for ever.
        return self.__dict__ | {"active": False}

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Zero a share of the numbers and scale up the others, or do nothing."""
        return x * self._mask(x) if self.active else x

    def _mask(self, x: Tensor) -> Tensor:
        # Four 16-bit decisions from each random 64-bit integer: on a CPU the generator of F.dropout takes a noticeable
        # part of a training step of small networks.
        words = torch.randint(-(2**63), 2**63 - 1, (-(-x.numel() // 4),), device=x.device)
        decisions = words.view(torch.int16)[: x.numel()].view(x.shape)
        dropped = round(self.rate * 2**16)
        return (decisions >= dropped - 2**15).to(x.dtype) * (2**16 / (2**16 - dropped))

    def extra_repr(self) -> str:
        """Show the rate."""
        return f"{self.rate}"


@contextmanager
def regularized(model: nn.Module) -> Iterator[None]:
    """Switch the dropout of all networks of a model on for the duration of the block: for training steps."""
    switched = [m for m in model.modules() if isinstance(m, Dropout) and not m.active]
    for module in switched:
        module.active = True
    try:
        yield
    finally:
        for module in switched:
            module.active = False


class OneHot(nn.Module):
    """Turn integer labels `(rows,)` into one-hot rows `(rows, classes)`; floating conditions pass unchanged."""

    probe: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.register_buffer("probe", torch.empty(0), persistent=False)

    def forward(self, labels: Tensor) -> Tensor:
        """Encode the labels."""
        if labels.is_floating_point():
            return labels
        if labels.ndim != 1:
            raise ShapeError(f"Labels must be integers of shape (rows,), got {tuple(labels.shape)}.")
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise ShapeError(f"Labels must be 0..{self.classes - 1}; got {int(labels.min())}..{int(labels.max())}.")
        return F.one_hot(labels.long(), self.classes).to(self.probe.dtype)

    def extra_repr(self) -> str:
        """Show the number of classes."""
        return f"{self.classes}"


def _zero(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class MLP(nn.Module):
    """A fully connected network with SiLU on rows `(rows, features)`: vectors, or the nodes of graphs.

    Args:
        in_features: of the input, without the condition.
        out_features: of the output.
        hidden: sizes of the hidden layers.
        context_features: of the condition.
        dropout: rate after each hidden layer, see `Dropout`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden: Sequence[int] = (128, 128),
        *,
        context_features: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        size = in_features + context_features
        for width in hidden:
            layers += [nn.Linear(size, width), nn.SiLU()]
            if dropout:
                layers.append(Dropout(dropout))
            size = width
        self.layers = nn.Sequential(*layers, _zero(nn.Linear(size, out_features)))

    def forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Give `(rows, out_features)`."""
        return self.layers(join_condition(x, context))


class ResidualConvNet(nn.Module):
    """A small residual convolutional network on images: 3x3 in, residual blocks, 3x3 out.

    Args:
        in_channels: of the input, without the condition.
        out_channels: of the output.
        hidden: width.
        blocks: number of residual blocks, each a ReLU and a convolution.
        kernel_size: of the convolutions in the blocks, odd.
        context_channels: of the condition.
        dropout: rate inside each block, see `Dropout`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden: int = 64,
        blocks: int = 1,
        *,
        kernel_size: int = 1,
        context_channels: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.enter = nn.Conv2d(in_channels + context_channels, hidden, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                *([Dropout(dropout)] if dropout else []),
                nn.Conv2d(hidden, hidden, kernel_size, padding=kernel_size // 2),
            )
            for _ in range(blocks)
        )
        self.leave = _zero(nn.Conv2d(hidden, out_channels, 3, padding=1))
        self.to(memory_format=CONV_FORMAT)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Give `(rows, out_channels, h, w)`."""
        h = self.enter(join_condition(x, context))
        for block in self.blocks:
            h = h + block(h)
        return self.leave(F.relu(h))


class DenseConvBlock(nn.Module):
    r"""The coupling network of the convolution exponential paper.

    1x1 to `hidden`; then `h + DenseNet(h)`; then a zero 1x1 to the output. Each of the `depth` dense layers is 1x1,
    ReLU, 3x3 to `growth`, ReLU, and its output is concatenated; a gated 1x1, `a + b sigmoid(c)`, ends the dense part.

    Args:
        in_channels: of the input, without the condition.
        out_channels: of the output.
        hidden: channels between the parts (64 in the paper).
        depth: dense layers (8 in the paper).
        growth: channels each of them adds (64 and 63 in the paper).
        context_channels: of the condition.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden: int = 64,
        depth: int = 8,
        growth: int = 64,
        *,
        context_channels: int = 0,
    ) -> None:
        super().__init__()
        self.enter = nn.Conv2d(in_channels + context_channels, hidden, 1)
        sizes = [hidden + i * growth for i in range(depth + 1)]
        self.dense = nn.ModuleList(
            nn.Sequential(nn.Conv2d(n, n, 1), nn.ReLU(), nn.Conv2d(n, growth, 3, padding=1), nn.ReLU())
            for n in sizes[:-1]
        )
        self.gate = nn.Conv2d(sizes[-1], 3 * hidden, 1)
        self.leave = _zero(nn.Conv2d(hidden, out_channels, 1))
        self.to(memory_format=CONV_FORMAT)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Give `(rows, out_channels, h, w)`."""
        start = h = self.enter(join_condition(x, context))
        for layer in self.dense:
            h = torch.cat([h, layer(h)], 1)
        a, b, c = self.gate(h).chunk(3, dim=1)
        return self.leave(start + a + b * torch.sigmoid(c))


class ImageEncoder(nn.Module):
    """Turn an image condition into features at half its height and width: a strided and a plain 3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )

    def forward(self, condition: Tensor) -> Tensor:
        """Give `(rows, out_channels, h / 2, w / 2)`."""
        return self.layers(condition)
