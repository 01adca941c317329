r"""Strictly autoregressive networks, written so that the zeros of their masks are not computed.

The elements of an event are ordered: by position first (raster order, or the order of nodes), by channel within one
position. Output channels at an element depend on the elements before it only (Germain et al. 2015; Kingma et al. 2016).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likelify.caching import Caching
from likelify.errors import ConfigError, ShapeError
from likelify.linalg.bounds import gram_bound, limit_norm, reshape_bound
from likelify.linalg.conv import odd_taps
from likelify.nets.conditioners import Dropout, recomputed
from likelify.nets.order import Neighbours, NodeNeighbours, RasterNeighbours, earlier_offsets
from likelify.shapes import axis_names, check_event, check_sizes, kept_arguments
from likelify.structure import ContextLike, as_context, join_condition

# Blocks in which the triangular hidden layer is computed: 2/3 of the work of the full matrix. More are not faster.
HIDDEN_BLOCKS = 3
# Size of the heads that start near zero. Not zero itself, where the layers below would get no gradient.
SMALL = 0.03
# Rows that pass through the layers together when no gradient is wanted.
CACHED_ROWS = 1024

Weights = tuple[Tensor, list[Tensor], Tensor]


class AutoregressiveNet(Caching):
    r"""Masked convolution, pointwise masked layers, masked convolution; several outputs for every input channel.

        h = relu(E * u + b),   h = relu(M h + b) ...,   out = L * h + b

    `E` and `L` look at earlier positions freely, and at their own position along the order of the channels: every
    hidden unit belongs to a channel, reads channels up to its own and is read by channels after it. Each element costs
    what the live entries cost: the convolutions are matrix products over the taps that are not masked, and the hidden
    matrix is multiplied in triangular blocks.

    The last `small_heads` outputs start near zero, the others at about one.

    Args:
        channels: of the input `(rows, channels, *positions)`.
        hidden: hidden units.
        heads: outputs for every channel.
        dims: 0 for vectors `(rows, channels)`, 1 to 3 for sequences, images and volumes of any size, `"nodes"` for the
            nodes of graphs, each of which looks at the mean over those of its neighbours that come before it.
        kernel_size: odd, along each axis of positions.
        layers: pointwise layers between the convolutions.
        context_features: of the condition, which is read without a mask.
        small_heads: outputs of each channel, counted from the last, that start near zero.
        norm_limit: limit of a bound of the 2-norm of each layer, and of each head (1.5 in the first paper). It is not
            needed for anything here, and it costs time.
        checkpoint: keep only the input for the backward pass, which evaluates the network again.
        dropout: rate after each hidden layer, see `Dropout`.

    Raises:
        ConfigError: for sizes that do not fit.
    """

    extra_repr = kept_arguments

    def __init__(
        self,
        channels: int,
        *,
        hidden: int = 528,
        heads: int = 4,
        dims: int | str = 2,
        kernel_size: int = 3,
        layers: int = 1,
        context_features: int = 0,
        small_heads: int = 2,
        norm_limit: float | None = None,
        checkpoint: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if dims not in (0, 1, 2, 3, "nodes"):
            raise ConfigError(f"dims must be 0, 1, 2, 3 or 'nodes', got {dims!r}.")
        odd_taps(kernel_size, 2)
        check_sizes(channels=channels, hidden=hidden, heads=heads)
        check_sizes(least=0, layers=layers, context_features=context_features, small_heads=small_heads)
        if hidden < channels:
            raise ConfigError(
                f"AutoregressiveNet needs at least one hidden unit per channel: {channels} channels, {hidden} hidden "
                "units do not fit."
            )
        if norm_limit is not None and norm_limit <= 0:
            raise ConfigError(f"norm_limit must be positive, got {norm_limit}.")
        self.channels, self.hidden, self.heads, self.dims = channels, hidden, heads, dims
        self.kernel_size, self.context_features, self.norm_limit = kernel_size, context_features, norm_limit
        self.checkpoint = checkpoint
        self.dropout = Dropout(dropout) if dropout else nn.Identity()
        self.offsets = () if isinstance(dims, str) else earlier_offsets(kernel_size, dims)
        self.taps = 1 if isinstance(dims, str) else len(self.offsets)
        self._make_weights(layers, small_heads)

    def _make_weights(self, layers: int, small_heads: int) -> None:
        taps, hidden, channels = self.taps + 1, self.hidden, self.channels
        gain = math.sqrt(2.0)
        self.enter = nn.Parameter(gain * torch.randn(hidden, taps, channels) / math.sqrt(taps * channels))
        self.enter_bias = nn.Parameter(torch.zeros(hidden))
        self.middle = nn.ParameterList(gain * torch.randn(hidden, hidden) / math.sqrt(hidden) for _ in range(layers))
        self.middle_bias = nn.ParameterList(torch.zeros(hidden) for _ in range(layers))
        leave = torch.randn(taps, self.heads, channels, hidden) / math.sqrt(taps * hidden)
        leave[:, max(0, self.heads - small_heads) :] *= SMALL
        self.leave = nn.Parameter(leave)
        self.leave_bias = nn.Parameter(torch.zeros(self.heads, channels))
        if self.context_features:
            scale = 1 / math.sqrt(self.context_features)
            self.condition = nn.Parameter(scale * torch.randn(hidden, self.context_features))

    def forward(self, u: Tensor, context: ContextLike = None) -> Tensor:
        """Return `(rows, heads * channels, *positions)`: the first output of every channel, then the second, and so on.

        Raises:
            ShapeError: if the input does not fit.
        """
        if self.checkpoint:
            return recomputed(self, lambda x: self._evaluate(x, context), u)
        return self._evaluate(u, context)

    def _evaluate(self, u: Tensor, context: ContextLike) -> Tensor:
        near = self.neighbours(u, context)
        weights = self.weights()
        seen = near.stack(u.movedim(1, -1))
        bias = self.condition_bias(u, context)
        rows = seen.flatten(0, -2)
        biases = self.enter_bias.expand(len(rows), -1) if bias is None else self.enter_bias + bias.flatten(0, -2)
        if torch.is_grad_enabled():
            y = self._pointwise(rows, biases, weights)
        else:
            # Without gradients the hidden layers of a few rows stay in the processor's cache.
            parts = zip(rows.split(CACHED_ROWS), biases.split(CACHED_ROWS), strict=True)
            y = torch.cat([self._pointwise(part, bias, weights) for part, bias in parts])
        return (near.fold(y.view(*seen.shape[:-1], y.shape[-1])) + self.leave_bias.flatten()).movedim(-1, 1)

    def _pointwise(self, rows: Tensor, biases: Tensor, weights: Weights) -> Tensor:
        """Return what rows send to the taps of the heads."""
        enter, middle, leave = weights
        h = self.dropout(torch.addmm(biases, rows, enter.flatten(1).T).relu_())
        ends = [end for _, end in self.blocks(HIDDEN_BLOCKS)]
        for weight, bias in zip(middle, self.middle_bias, strict=True):
            h = self.dropout(triangular_linear(h, weight, bias, ends).relu_())
        return h @ leave.flatten(0, 2).T

    def weights(self) -> Weights:
        """Return the weights as they act: masked, and within the norm limit.

        Returns:
            `(hidden, taps, channels)` with the own position as the last tap; `(hidden, hidden)` for each pointwise
            layer; `(taps, heads, channels, hidden)`.
        """
        return self.cached("weights", self._acting)

    def _acting(self) -> Weights:
        # Unit j belongs to the channel owner[j]; owners ascend, so all masks are block triangular. They are no buffers,
        # since one that is not loaded with the weights can be wrong without a word.
        channel = torch.arange(self.channels, device=self.enter.device)
        owner = torch.arange(self.hidden, device=self.enter.device) * self.channels // self.hidden
        reads, below, read_by = owner[:, None] >= channel, owner[:, None] >= owner, channel[:, None] > owner
        enter = torch.cat([self.enter[:, :-1], self.enter[:, -1:] * reads[:, None]], 1)
        middle = [weight * below for weight in self.middle]
        leave = torch.cat([self.leave[:-1], self.leave[-1:] * read_by])
        limit = self.norm_limit
        if limit is None:
            return enter, middle, leave
        enter = limit_norm(enter, reshape_bound(enter.transpose(1, 2), steps=3), limit)
        middle = [limit_norm(weight, gram_bound(weight, steps=3), limit) for weight in middle]
        kernels = [limit_norm(k, reshape_bound(k.movedim(0, -1), steps=3), limit) for k in leave.unbind(1)]
        return enter, middle, torch.stack(kernels, 1)

    def blocks(self, count: int) -> list[tuple[int, int]]:
        """Cut the channels into blocks; return where the channels of each end, and the units that belong to them."""
        count = min(count, self.channels)
        ends = [self.channels * (i + 1) // count for i in range(count)]
        return [(end, -(-self.hidden * end // self.channels)) for end in ends]

    def condition_bias(self, u: Tensor, context: ContextLike) -> Tensor | None:
        """Return what the condition adds to the first layer, `(rows, *positions, hidden)`, or None."""
        if not self.context_features:
            return None
        condition = as_context(context).condition
        if condition is None or condition.ndim < 2 or condition.shape[1] != self.context_features:
            found = None if condition is None else tuple(condition.shape)
            raise ShapeError(
                f"{type(self).__name__} was built for a condition of {self.context_features} features and got "
                f"{found}; give (rows, {self.context_features}) or (rows, {self.context_features}, *positions) as "
                "context."
            )
        joined = join_condition(u, context)[:, self.channels :]
        return F.linear(joined.movedim(1, -1), self.condition)

    def neighbours(self, u: Tensor, context: ContextLike) -> Neighbours:
        """Tell which positions come before which.

        Raises:
            ShapeError: if the input does not fit.
        """
        dims = 0 if isinstance(self.dims, str) else self.dims
        check_event(u.shape[1:], (self.channels, *axis_names(dims)), type(self).__name__)
        if not isinstance(self.dims, str):
            return RasterNeighbours(tuple(u.shape[2:]), self.offsets)
        structure = as_context(context).structure
        if structure is None:
            raise ShapeError("An AutoregressiveNet on nodes needs the graphs: give Context(structure=GraphBatch(...)).")
        return NodeNeighbours(structure)


def triangular_linear(x: Tensor, weight: Tensor, bias: Tensor, ends: list[int]) -> Tensor:
    """Multiply rows by a block lower triangular matrix with blocks that end there, without computing the upper ones."""
    blocks = list(zip([0, *ends], ends, strict=False))
    if torch.is_grad_enabled():
        return torch.cat([F.linear(x[:, :end], weight[start:end, :end], bias[start:end]) for start, end in blocks], 1)
    out = x.new_empty(len(x), len(weight))
    for start, end in blocks:
        torch.addmm(bias[start:end], x[:, :end], weight[start:end, :end].T, out=out[:, start:end])
    return out
