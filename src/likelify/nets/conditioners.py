"""Conditioner networks: ordinary networks that read one part of an event, and the condition.

All are called as `net(x, context)`; the condition is joined to the input along the channel axis. The last layer is
zero, so a layer that is built on them starts at the identity. Inside `torch.autocast` the first and the last layer of
networks of couplings are in float32: most of what half precision does to a likelihood comes from rounding the data and
the parameters themselves (`python -m benchmarks.autocast`).
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from likelify.errors import ConfigError, ShapeError
from likelify.linalg.conv import odd_taps
from likelify.regularizing import ActsInTraining, TrainingStep
from likelify.shapes import as_shape, check_size, check_sizes, kept_arguments
from likelify.structure import ContextLike, as_context, join_condition
from likelify.tracing import in_full_precision, under_autocast

# Weights in this layout make convolutions keep it for activations. On a CPU a training step of a
# coupling network takes 0.60 to 0.85 of the time (`python -m benchmarks.layers_models`); the numbers are the same.
CONV_FORMAT = torch.channels_last

Layer = TypeVar("Layer", bound=nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)


class Dropout(ActsInTraining):
    """Dropout that acts only inside `regularized`, whatever `train()` or `eval()` say.

    Args:
        rate: share of the elements that are zeroed, from 0 to below 1; it is rounded to a multiple of `2^-16`.

    Raises:
        ConfigError: for another one.
    """

    extra_repr = kept_arguments

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not (0 <= rate < 1 and round(rate * 2**16) < 2**16):
            raise ConfigError(f"A dropout rate is from 0 to below 1, got {rate!r}.")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Zero a share of the elements and scale up the others, or do nothing."""
        return x * self._mask(x) if self.active else x

    def _mask(self, x: Tensor) -> Tensor:
        # Four 16-bit decisions from each random 64-bit integer: on a CPU the generator of F.dropout takes a noticeable
        # part of a training step of small networks.
        words = torch.randint(-(2**63), 2**63 - 1, (-(-x.numel() // 4),), device=x.device)
        decisions = words.view(torch.int16)[: x.numel()].view(x.shape)
        dropped = round(self.rate * 2**16)
        return (decisions >= dropped - 2**15).to(x.dtype) * (2**16 / (2**16 - dropped))


def recomputed(net: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return `run(x)`, a part of `net`, keeping only `x` for the backward pass, which runs it again.

    The second run sees the random numbers and the dropout of the first, though `regularized` has been left by then.
    """
    if not torch.is_grad_enabled():
        return run(x)
    as_before = _DropoutAsBefore([module for module in net.modules() if isinstance(module, Dropout)])
    return recompute(  # pyright: ignore[reportReturnType]
        run,
        x,
        use_reentrant=False,
        preserve_rng_state=any(as_before.steps),
        context_fn=lambda: (nullcontext(), as_before),
    )


class _DropoutAsBefore:
    """A block in which dropouts are on or off as they were when this was made."""

    def __init__(self, dropouts: list[Dropout]) -> None:
        self.dropouts = dropouts
        self.steps = [dropout.training_step for dropout in dropouts]
        self.now = self.steps

    def __enter__(self) -> None:
        self.now = [dropout.training_step for dropout in self.dropouts]
        _switch(self.dropouts, self.steps)

    def __exit__(self, *error: object) -> None:
        _switch(self.dropouts, self.now)


def _switch(dropouts: list[Dropout], steps: list[TrainingStep | None]) -> None:
    for module, step in zip(dropouts, steps, strict=True):
        module.training_step = step


class OneHot(nn.Module):
    """Turn integer labels `(rows,)` into one-hot rows `(rows, classes)`; floating conditions pass unchanged."""

    probe: Tensor

    extra_repr = kept_arguments

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = check_size(classes, "classes")
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


def joined(net: nn.Module, sizes: tuple[int, int], x: Tensor, context: ContextLike) -> Tensor:
    """Return what a network reads: its input, and the condition behind it along the channel axis.

    Args:
        net: the network, for messages.
        sizes: channels of the input and of the condition that it was built for. A caller that joins them itself gives
            the sum of both.
        x: the input.
        context: of the call.

    Raises:
        ShapeError: if one of them has another width, or there is no condition, or one too many.
    """
    found = join_condition(x, context)
    if found.shape[1] == sum(sizes):
        return found
    condition = as_context(context).condition
    given = "no condition" if condition is None else f"a condition of {condition.shape[1]}"
    raise ShapeError(
        f"This {type(net).__name__} was built for {sizes[0]} channels and context_features={sizes[1]}, and got "
        f"{x.shape[1]} channels and {given}."
    )


def zeroed(layer: Layer) -> Layer:
    """Set a last layer to zero, so that the network gives zeros before training."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class JoinedNet(nn.Sequential):
    """Layers one after the other, called with the condition joined to their input.

    Args:
        *layers: as in `torch.nn.Sequential`.
        context_features: how much of the input is the condition.
    """

    def __init__(self, *layers: nn.Module, context_features: int) -> None:
        super().__init__(*layers)
        self.context_features = check_size(context_features, "context_features", least=0)


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
        self.in_features = check_size(in_features, "in_features")
        self.context_features = check_size(context_features, "context_features", least=0)
        check_sizes(out_features=out_features)
        hidden = as_shape(hidden, least=1)
        layers: list[nn.Module] = []
        size = in_features + context_features
        for width in hidden:
            layers += [nn.Linear(size, width), nn.SiLU()]
            if dropout:
                layers.append(Dropout(dropout))
            size = width
        self.layers = nn.Sequential(*layers, zeroed(nn.Linear(size, out_features)))

    def forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return `(rows, out_features)`."""
        h = joined(self, (self.in_features, self.context_features), x, context)
        if not under_autocast(h):
            return self.layers(h)
        ends = (self.layers[0], self.layers[-1])
        for layer in self.layers:
            h = in_full_precision(layer, h) if layer in ends else layer(h)
        return h


class ResidualConvNet(nn.Module):
    """A small residual convolutional network on images: 3x3 in, residual blocks, 3x3 out.

    Without `skip` and with one block it is the plain network of Glow: 3x3, ReLU, 1x1, ReLU, 3x3.

    Args:
        in_channels: of the input, without the condition.
        out_channels: of the output.
        hidden: width.
        blocks: number of residual blocks, each a ReLU and a convolution.
        kernel_size: of the convolutions in the blocks, odd.
        context_features: of the condition.
        dropout: rate inside each block, see `Dropout`.
        skip: add the input of each block to its output.
        checkpoint: keep only the input for the backward pass, which runs the network again: a third more work.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden: int = 64,
        blocks: int = 1,
        *,
        kernel_size: int = 1,
        context_features: int = 0,
        dropout: float = 0.0,
        skip: bool = True,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.skip, self.checkpoint = skip, checkpoint
        self.in_channels = check_size(in_channels, "in_channels")
        self.context_features = check_size(context_features, "context_features", least=0)
        check_sizes(out_channels=out_channels, hidden=hidden)
        check_sizes(least=0, blocks=blocks)
        odd_taps(kernel_size, 2)
        self.enter = nn.Conv2d(in_channels + context_features, hidden, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                *([Dropout(dropout)] if dropout else []),
                nn.Conv2d(hidden, hidden, kernel_size, padding=kernel_size // 2),
            )
            for _ in range(blocks)
        )
        self.leave = zeroed(nn.Conv2d(hidden, out_channels, 3, padding=1))
        self.to(memory_format=CONV_FORMAT)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return `(rows, out_channels, h, w)`."""
        read = joined(self, (self.in_channels, self.context_features), x, context)
        return recomputed(self, self._run, read) if self.checkpoint else self._run(read)

    def _run(self, x: Tensor) -> Tensor:
        h = in_full_precision(self.enter, x)
        for block in self.blocks:
            h = h + block(h) if self.skip else block(h)
        return in_full_precision(self.leave, F.relu(h))


class DenseNet(nn.Module):
    """Densely connected convolutions: each layer reads the input and the outputs of all layers before it.

    A layer is 1x1, ReLU, 3x3 to `growth`, ReLU. A 1x1 ends the net: plain, or gated as `a + b sigmoid(c)`.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        depth: dense layers.
        growth: channels each of them adds.
        gated: end in the gated 1x1.

    Source:
        Huang et al. 2017; in this form Hoogeboom et al. 2020.
    """

    def __init__(self, in_channels: int, out_channels: int, depth: int, growth: int, *, gated: bool = True) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, out_channels=out_channels, growth=growth)
        check_sizes(least=0, depth=depth)
        sizes = [in_channels + i * growth for i in range(depth + 1)]
        self.gated = gated
        self.dense = nn.ModuleList(
            nn.Sequential(nn.Conv2d(n, n, 1), nn.ReLU(), nn.Conv2d(n, growth, 3, padding=1), nn.ReLU())
            for n in sizes[:-1]
        )
        self.gate = nn.Conv2d(sizes[-1], 3 * out_channels if gated else out_channels, 1)
        self.to(memory_format=CONV_FORMAT)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor) -> Tensor:
        """Return `(rows, out_channels, h, w)`."""
        for layer in self.dense:
            x = torch.cat([x, layer(x)], 1)
        if not self.gated:
            return self.gate(x)
        a, b, c = self.gate(x).chunk(3, dim=1)
        return a + b * torch.sigmoid(c)


class DenseConvBlock(DenseNet):
    """The coupling network of the convolution exponential paper: 1x1 to `hidden`, `h + DenseNet(h)`, a zero 1x1.

    Args:
        in_channels: of the input, without the condition.
        out_channels: of the output.
        hidden: channels between the parts (64 in the paper).
        depth: dense layers (8 in the paper).
        growth: channels each of them adds (64 and 63 in the paper).
        context_features: of the condition.
        gated: whether the dense part ends in a gated or a plain 1x1.
        checkpoint: keep only the input for the backward pass, which runs the network again: a third more work.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden: int = 64,
        depth: int = 8,
        growth: int = 64,
        *,
        context_features: int = 0,
        gated: bool = True,
        checkpoint: bool = False,
    ) -> None:
        check_sizes(out_channels=out_channels, hidden=hidden)
        super().__init__(hidden, hidden, depth, growth, gated=gated)
        self.checkpoint = checkpoint
        self.in_channels = check_size(in_channels, "in_channels")
        self.context_features = check_size(context_features, "context_features", least=0)
        self.enter = nn.Conv2d(in_channels + context_features, hidden, 1)
        self.leave = zeroed(nn.Conv2d(hidden, out_channels, 1))
        self.to(memory_format=CONV_FORMAT)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return `(rows, out_channels, h, w)`."""
        read = joined(self, (self.in_channels, self.context_features), x, context)
        return recomputed(self, self._run, read) if self.checkpoint else self._run(read)

    def _run(self, x: Tensor) -> Tensor:
        h = in_full_precision(self.enter, x)
        return in_full_precision(self.leave, h + super().forward(h))


class ImageEncoder(nn.Module):
    """Turn an image condition into features at half its height and width: a strided and a plain 3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, out_channels=out_channels)
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )

    def forward(self, condition: Tensor) -> Tensor:
        """Return `(rows, out_channels, h / 2, w / 2)`."""
        return self.layers(condition)


class DenseImageEncoder(nn.Module):
    """Turn an image condition into features at half its height and width: DenseNet, 2x2 with stride 2, DenseNet.

    Args:
        in_channels: of the condition.
        out_channels: of the features (32 in the convolution exponential paper).
        depth: dense layers of each net (4 in the paper).
        growth: channels each of them adds (32 in the paper).
        gated: end both nets in gated 1x1 convolutions.
        checkpoint: keep only the input for the backward pass, which runs the network again: a third more work.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 32,
        depth: int = 4,
        growth: int = 32,
        *,
        gated: bool = True,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.layers = nn.Sequential(
            DenseNet(in_channels, out_channels, depth, growth, gated=gated),
            nn.Conv2d(out_channels, out_channels, 2, stride=2),
            DenseNet(out_channels, out_channels, depth, growth, gated=gated),
        )
        self.to(memory_format=CONV_FORMAT)  # pyright: ignore[reportCallIssue]

    def forward(self, condition: Tensor) -> Tensor:
        """Return `(rows, out_channels, h / 2, w / 2)`."""
        return recomputed(self, self.layers, condition) if self.checkpoint else self.layers(condition)
